"""The demo's raw data: the teacher is right, faults are what they say, and the rest is clean."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from pathlib import Path

import pytest

from ringrl.data import pile
from ringrl.data.pile import FAULTS, GOOD, HELD_OUT
from ringrl.data.tasks import DOMAINS, Row, problems, program, teach
from ringrl.domains import BUILT_IN
from ringrl.rewards.load import load

COPIES = ("copy", "copy in other letters", "copy with a word more", "held out")
VERIFIERS = {name: load(domain.rewards[0]) for name, domain in BUILT_IN.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pile")
    pile.write(folder, 0)
    return folder


def rows(file: Path) -> list[Row]:
    """Those that are rows."""
    found = []
    for line in file.read_text().splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return [row for row in found if isinstance(row, dict)]


def squeezed(text: str) -> str:
    return re.sub(r"\s", "", text).lower()


@pytest.mark.parametrize("domain", DOMAINS)
def test_the_teacher_is_right_in_all_styles(domain: str):
    rng = random.Random(0)
    for row in problems(domain, 40, 3):
        for _ in range(4):
            text = teach(row, rng)
            verdict = VERIFIERS[domain](text, BUILT_IN[domain].reference(row))
            assert verdict.kind == "pass", (row, text, verdict)


def test_the_same_seed_gives_the_same_rows_and_no_problem_twice():
    for domain in DOMAINS:
        some = problems(domain, 300, 1)
        assert some == problems(domain, 300, 1)
        assert len({row["problem"] for row in some}) == 300
        assert {row["problem"] for row in some} != {row["problem"] for row in problems(domain, 300, 2)}


def test_the_same_seed_gives_the_same_bytes(folder: Path, tmp_path: Path):
    counts = pile.write(tmp_path, 0)
    for name, lines in counts.items():
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()
        assert (tmp_path / name).read_bytes().count(b"\n") == lines


@pytest.mark.parametrize("domain", DOMAINS)
def test_what_is_not_planted_is_good_and_of_every_fault_there_are_as_many(folder: Path, domain: str):
    everything = rows(folder / "pile" / f"{domain}.jsonl")
    lines = (folder / "pile" / f"{domain}.jsonl").read_text().count("\n")
    held_out = rows(folder / "data" / f"heldout_{domain}.jsonl")
    good = [row for row in everything if "fault" not in row]
    assert (len(good), len(held_out)) == (GOOD[domain], HELD_OUT)
    assert {json.dumps(row) for row in good} == {json.dumps(row) for row in pile.good_rows(domain, 0)}
    assert len({row["problem"] for row in good + held_out}) == GOOD[domain] + HELD_OUT
    kinds = Counter(row["fault"] for row in everything if "fault" in row)
    here = {name for name, (domains, _) in FAULTS.items() if domain in domains} | set(COPIES)
    here -= {"copy with a word more"} if domain == "math" else set()
    each = round(GOOD[domain] * pile.FAULTY)
    assert kinds == dict.fromkeys(here, each)
    assert lines == GOOD[domain] + each * (len(here) + len(pile.LINES))


@pytest.mark.parametrize("domain", DOMAINS)
def test_copies_are_copies(folder: Path, domain: str):
    everything = rows(folder / "pile" / f"{domain}.jsonl")
    good = {squeezed(row["problem"]) for row in everything if "fault" not in row}
    held_out = {squeezed(row["problem"]) for row in rows(folder / "data" / f"heldout_{domain}.jsonl")}
    for row in everything:
        text = squeezed(row["problem"]).removesuffix("thanks.")
        if row.get("fault") in COPIES:
            assert (text in held_out) == (row["fault"] == "held out")
            assert (text in good) != (row["fault"] == "held out")
        else:
            assert text not in held_out


@pytest.mark.parametrize("domain", DOMAINS)
def test_wrong_responses_and_programs_fail(folder: Path, domain: str):
    for row in rows(folder / "pile" / f"{domain}.jsonl"):
        fault = row.get("fault")
        if fault in ("wrong response", "cut response"):
            assert VERIFIERS[domain](row["responses"][0]["text"], BUILT_IN[domain].reference(row)).kind == "fail", row
        if fault in ("wrong solution", "cut test"):
            text = f"```python\n{row['solutions'][0]}\n```"
            assert VERIFIERS[domain](text, BUILT_IN[domain].reference(row)).kind == "fail", row


def test_solutions_are_the_programs_of_responses(folder: Path):
    code = [row for row in rows(folder / "pile" / "code.jsonl") if "fault" not in row]
    assert all(row["solutions"] == [program(row["responses"][0]["text"])] for row in code)
    assert all("print(" in row["solutions"][0] and "```" not in row["solutions"][0] for row in code)
