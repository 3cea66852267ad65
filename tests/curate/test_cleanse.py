"""Every rule on faults in varied wording and on what only looks like one; and what is kept goes on as it was."""

from __future__ import annotations

import json
import pickle
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ringrl.config.data import Cleanse
from ringrl.config.sections import Verify
from ringrl.curate import cleanse, wording
from ringrl.curate.cleanse import RULES, Cleanser
from ringrl.curate.shards import Dropped, Row
from ringrl.curate.workers import verifier
from ringrl.domains import Domains
from ringrl.errors import ChildDied
from ringrl.sandbox.box import isolation
from tests.curate.faults import FAULTS, GOOD

DATA = Path(__file__).parents[2] / ".." / "shared" / "data"


def step(**how: Any) -> Cleanser:
    return Cleanser(Cleanse(**how), Verify(deadline_s=20), Domains())


def row(n: int, problem: str, answer: str, domain: str = "math") -> Row:
    return {"id": f"s/{n}", "source": "s", "domain": domain, "problem": problem, "answer": answer, "more": [n]}


def one(problem: str, answer: str = "3", domain: str = "math", **how: Any) -> Row | Dropped:
    [result] = step(**how)(0, [row(0, problem, answer, domain)])
    return result


@pytest.fixture(scope="module", autouse=True)
def _verifier() -> Iterator[None]:
    yield
    verifier(Verify().deadline_s, Domains()).close()
    verifier.cache_clear()


@pytest.mark.parametrize("domain", ["math", "science"])
@pytest.mark.parametrize("reason", FAULTS)
def test_faults_are_found_for_their_own_reason(reason: str, domain: str):
    assert len(FAULTS[reason]) >= 6
    results = list(step()(0, [row(i, p, a, domain) for i, (p, a) in enumerate(FAULTS[reason])]))
    wrong = [
        (fault, result.reason if isinstance(result, Dropped) else "kept")
        for fault, result in zip(FAULTS[reason], results, strict=True)
        if not isinstance(result, Dropped) or result.reason != reason
    ]
    assert not wrong
    assert all(r.more["detail"] or not r.row["answer"] for r in results if isinstance(r, Dropped))


@pytest.mark.parametrize("domain", ["math", "science"])
def test_what_only_looks_like_a_fault_is_kept(domain: str):
    rows = [row(i, p, a, domain) for i, (p, a) in enumerate(GOOD)]
    results = list(step()(0, rows))
    assert [(r.row["problem"], r.row["answer"], r.reason, r.more) for r in results if isinstance(r, Dropped)] == []
    assert results == rows


def test_every_reason_is_in_the_table():
    assert set(FAULTS) <= set(RULES)
    assert len(set(RULES)) == len(RULES)
    assert list(FAULTS) == list(RULES)[: len(FAULTS)]


@pytest.mark.parametrize("seed", range(5))
def test_every_row_comes_out_once_and_in_order(seed: int):
    rng = random.Random(seed)
    pool = [*GOOD, *(pair for pairs in FAULTS.values() for pair in pairs)]
    rows = [row(i, *rng.choice(pool), rng.choice(("math", "science"))) for i in range(300)]
    results = list(step()(seed, rows))
    assert [(r.row if isinstance(r, Dropped) else r)["id"] for r in results] == [r["id"] for r in rows]
    assert {r.reason for r in results if isinstance(r, Dropped)} == set(FAULTS)
    assert results == list(pickle.loads(pickle.dumps(step()))(seed + 1, rows))


def test_nothing_seen_is_changed_and_nothing_unseen_left():
    said = one("\ufeffWhat\u00a0is\u2009it,\r\nif $x\u200b=3$ and\rso\u00ad?", " 3\u200b ")
    assert isinstance(said, dict)
    assert said["problem"] == "What is it,\nif $x=3$ and\nso?"
    assert said["answer"] == "3"
    assert said["more"] == [0]
    assert wording.repaired("on\rthe\rfloor,\rangle by angle") == "on\nthe\nfloor,\nangle by angle"
    assert wording.repaired("می\u200cخواهم") == "می\u200cخواهم"  # which is how it is spelt


@pytest.mark.parametrize(
    ("problem", "answer", "question", "converted"),
    [
        ("What is 2+3? (A) 4 (B) 5 (C) 6 (D) 7", "B", "What is 2+3?", "5"),
        ("What is 2+3?\nA) 4\nB) 5\nC) 6", "5", "What is 2+3?", "5"),
        ("What is 2+3?\nA. 4\nB. 5 apples.\nC. 6\nD. 7", "(B)", "What is 2+3?", "5 apples"),
        ("What is $x$?\n$\\textbf{(A)}\\ 1\\qquad\\textbf{(B)}\\ x^2\\qquad\\textbf{(C)}\\ 6$", "B", "What is $x$?",
         "x^2"),
        ("Find the root:\n(a) $4$\n(b) $5$\n(c) $6$", "c", "Find the root:", "$6$"),
        ("How fast is light?\n(A) $3\\times 10^8$ m/s (B) $3$ m/s (C) $4$ m/s", "C", "How fast is light?", "$4$ m/s"),
    ],
)  # fmt: skip
def test_choices_become_questions(problem: str, answer: str, question: str, converted: str):
    said = one(problem, answer, choices="convert")
    assert isinstance(said, dict), said
    assert (said["problem"], said["answer"]) == (question, converted)
    assert converted in [option.strip(" .$") for option in said["choices"]] + said["choices"]
    kept = one(problem, answer, choices="keep")
    assert isinstance(kept, dict)
    assert kept["problem"] == problem


@pytest.mark.parametrize(
    ("problem", "answer"),
    [
        ("Which of the following is prime? (A) 4 (B) 5 (C) 6", "B"),
        ("Which statement is true? (A) It rains. (B) It snows. (C) Neither.", "B"),
        ("Which number is closest to $\\pi$? (A) 3 (B) 4 (C) 5", "A"),
        ("What is 2+2? (A) 5 (B) 6 (C) none of these", "C"),
        ("What could be the value of $x$ if $x^2 > 3$? (A) 0 (B) 1 (C) 2", "C"),
        ("2+3 (A) 4 (B) 5 (C) 6", "B"),
        ("Choose the correct option.", "B"),
    ],
)
def test_a_question_that_needs_its_options_is_dropped(problem: str, answer: str):
    said = one(problem, answer, choices="convert")
    assert isinstance(said, Dropped)
    assert said.reason == cleanse.CHOICE
    assert said.more["detail"]


def test_a_converted_answer_is_looked_at_again():
    said = one("Is it so? (A) yes (B) no (C) 3", "A", choices="convert")
    assert isinstance(said, Dropped)
    assert said.reason == cleanse.YES_NO
    said = one("Why does it rain? (A) the clouds are far too heavy to stay up (B) wind (C) sun", "A", choices="convert")
    assert isinstance(said, Dropped)
    assert said.reason == cleanse.OUT_OF_REACH


def test_knobs():
    assert isinstance(one("Is 7 prime?", "Yes", yes_no="keep"), dict)
    assert isinstance(one("Is 7 prime?", "Yes"), Dropped)
    assert isinstance(one("What is 1+2?", "3", max_chars=12), dict)
    assert isinstance(one("What is 1+2?", "3", max_chars=11), Dropped)
    assert isinstance(one("What is 1+2?", "", answers="checked"), dict)
    assert isinstance(one("What is 1+2?", "see solution", answers="checked"), Dropped)
    assert isinstance(one("What is 1+2?", "it is a sum that nobody knows", answers="ignored"), dict)
    assert isinstance(one("What is the current? (A) 1 A (B) 2 A (C) 3 A", "A", "science", choices="keep"), dict)


@pytest.mark.parametrize(
    "text", ["\n", " ", "(a) ", "the figure ", "$", "show $a", "prove that ", "find the value ", "A. B. "]
)
def test_long_repetitions_take_no_longer_than_other_texts(text: str):
    """Patterns that take quadratic time would need minutes here, and the suite's patience ends before."""
    for problem in (f"x{text * (19_000 // len(text))}show x", f"{text * (19_000 // len(text))}"):
        assert len(list(step()(0, [row(i, problem, "3") for i in range(40)]))) == 40


def test_without_a_verifier_nothing_is_dropped(monkeypatch: pytest.MonkeyPatch):
    isolation()  # is found once a process, with the interpreter
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    solved = {"domain": "code", "tests": [{"input": "1", "output": "1"}], "solutions": ["print(input())"]}
    with pytest.raises(ChildDied, match="the verifier does not start: no verifier process"):
        list(Cleanser(Cleanse(), Verify(deadline_s=7), Domains())(0, [row(0, "Echo it.", "") | solved]))
    verifier(7, Domains()).close()


def known_problems() -> list[Row]:
    files = [*sorted((DATA / "gsm8k").glob("*.jsonl")), *sorted((DATA / "math").glob("*.jsonl"))]
    raw = [json.loads(line) for file in files for line in file.open(encoding="utf-8")]
    return [
        row(i, r.get("problem") or r["question"], str(r["answer"]).rpartition("####")[2].strip())
        for i, r in enumerate(raw)
    ]


@pytest.mark.skipif(not DATA.is_dir(), reason="no such data here")
def test_good_problems_are_kept():
    rows = known_problems()
    dropped = [r for r in step()(0, rows) if isinstance(r, Dropped)]
    assert len(rows) > 8000
    assert {r.reason for r in dropped} <= {cleanse.IMAGE}
    assert len(dropped) <= 6
    assert all(
        "[asy]" in r.row["problem"] or "tikz" in r.row["problem"] or "shown below" in r.row["problem"] for r in dropped
    )
