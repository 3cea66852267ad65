"""Which rows of a set are duplicates, which of them stays, and that a kill changes nothing."""

from __future__ import annotations

import functools
import json
import random
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest

from ringrl.config.data import DataConfig
from ringrl.config.sections import Verify
from ringrl.curate.agreement import Answers, same_answer
from ringrl.curate.deduplicate import agreed, prepare, quality
from ringrl.curate.read import shards
from ringrl.curate.shards import Dropped, Row, Shards
from ringrl.domains import Domains
from tests.conftest import lines, ringrl, ringrl_until, write_yaml
from tests.curate.plants import KINDS, plant

A = TypeVar("A")
T = TypeVar("T")
SHARED = Path(__file__).parents[2] / ".." / "shared" / "data"
EXACT, NEAR, OTHER = "exact duplicate", "near duplicate", "another answer to the same problem"
STORY = (
    "Every morning the baker fills the shelves with fresh bread. A customer buys several loaves on the way home. "
    "The oven needs an hour to warm up. How much flour is left when the shop closes in the evening?"
)


def row(n: int, problem: str, answer: str = "7", **more: Any) -> Row:
    return {"id": f"a/{n}", "source": "a", "where": f"f:{n}", "domain": "math", "problem": problem, "answer": answer,
            **more}  # fmt: skip


def over(name: str, function: Callable[[A], T], items: Sequence[A], in_process: bool = False) -> Iterator[tuple[A, T]]:
    """In this process."""
    return ((item, function(item)) for item in items)


def backwards(
    name: str, function: Callable[[A], T], items: Sequence[A], in_process: bool = False
) -> Iterator[tuple[A, T]]:
    return over(name, function, items if in_process else items[::-1])


def run(folder: Path, rows: list[Row], size: int = 3, over: Any = over, **section: Any) -> list[Row | Dropped]:
    """What the step makes of rows that came in shards of some size."""
    before, after = Shards(folder / "before"), Shards(folder / "after")
    for n, start in enumerate(range(0, len(rows), size)):
        before.write(n, "read", rows[start : start + size])
    pile = {"name": "a", "files": ["a.jsonl"]}
    cfg = DataConfig.model_validate({"run": str(folder), "sources": [pile], "deduplicate": section})
    step = prepare(cfg, before, after, over)
    return [result for n in before.numbers for result in step(n, before.rows(n))]


def said(results: list[Row | Dropped]) -> list[tuple[str, str]]:
    """(reason, twin) of every row, ("", "") of those kept."""
    return [(r.reason, r.more["twin"]) if isinstance(r, Dropped) else ("", "") for r in results]


def test_exact_near_and_other_problems(tmp_path: Path):
    rows = [row(0, STORY), row(1, STORY.upper().replace(" ", "\n ")), row(2, STORY.replace("customer", "neighbour")),
            row(3, "What is 2 + 2?", "4"), row(4, "what is $2+2$", "4"), row(5, "What is 2 + 3?", "5"),
            row(6, "What is 2 - 2?", "0")]  # fmt: skip
    results = run(tmp_path, rows)
    assert said(results) == [("", ""), (EXACT, "a/0"), (NEAR, "a/0"), ("", ""), (EXACT, "a/3"), ("", ""), ("", "")]
    dropped = results[2]
    assert isinstance(dropped, Dropped)
    assert 0.7 <= dropped.more["similarity"] < 1
    assert dropped.more["detail"].startswith("a/0: Every morning the baker")
    assert [r for r in results if not isinstance(r, Dropped)] == [rows[0], rows[3], rows[5], rows[6]]


def test_other_numbers_and_other_answers_are_other_problems(tmp_path: Path):
    numbered = STORY.replace("several", "{}")
    rows = [row(0, numbered.format("3")), row(1, numbered.format("4")), row(2, numbered.format("five")),
            row(3, STORY.replace("left", "used"), "12"), row(4, STORY.replace("left", "spilt"), "9")]  # fmt: skip
    assert said(run(tmp_path, rows)) == [("", "")] * 5


@pytest.mark.parametrize("size", [1, 2, 100])
def test_shards_and_their_order_do_not_matter(tmp_path: Path, size: int):
    draw = random.Random(1)
    rows = [row(n, f"{STORY} {draw.choice('abc') * 3} {draw.randrange(6)}", str(draw.randrange(2))) for n in range(60)]
    want = run(tmp_path / "want", rows, 7)
    assert len({s for s, _ in said(want)}) == 4
    assert run(tmp_path / "forth", rows, size) == want
    assert run(tmp_path / "back", rows, size, backwards) == want


def test_the_best_of_a_cluster_stays(tmp_path: Path):
    other = STORY.replace("customer", "neighbour")
    rows = [row(0, STORY, ""), row(1, STORY), row(2, STORY, pass_rates={"t": 0.25}), row(3, other), row(4, other, "")]
    results = run(tmp_path, rows)
    assert said(results) == [(EXACT, "a/2"), (EXACT, "a/2"), ("", ""), (NEAR, "a/2"), (EXACT, "a/2")]
    similarities = [r.more["similarity"] for r in results if isinstance(r, Dropped)]
    assert similarities[:2] == [1.0, 1.0]
    assert similarities[2] == similarities[3] < 1  # the fourth went for the third, which then went for the second


def test_a_chain_does_not_collapse(tmp_path: Path):
    """a ~ b ~ c, and not a ~ c: c stays."""
    starts, ends = ("ba", "ce", "di", "fo", "gu", "ha", "je", "ki"), ("la", "me", "ni", "po", "ru")
    words = [w for start in starts for w in ("the", *(f"{start}{end}rk" for end in ends))]
    changed = [*words[:-4], "aa", "bb", "cc", "dd"]
    results = run(tmp_path, [row(n, " ".join(t)) for n, t in enumerate((words, changed, changed[4:]))], threshold=0.85)
    assert said(results) == [("", ""), (NEAR, "a/0"), ("", "")]


def test_who_is_like_a_row_that_went_is_compared_with_its_twin(tmp_path: Path):
    rows = [row(n, STORY.replace("customer", w)) for n, w in enumerate(("customer", "neighbour", "visitor", "tourist"))]
    assert said(run(tmp_path, rows)) == [("", ""), *[(NEAR, "a/0")] * 3]


@pytest.mark.parametrize(
    ("answers", "verified", "right"),
    [
        (["1", "2"], [], []),
        (["1", "2", "2"], [], [1, 2]),
        (["1", "2", "2"], [0], [0]),
        (["1", "2", "2"], [0, 1], [1, 2]),
        (["1", "1", "2", "2"], [], []),
        (["1", "1", "2", "2"], [3], [2, 3]),
        (["1", "", "2"], [], []),
        (["1", r"\frac{2}{2}", "2", ""], [], [0, 1]),
        ([r"$\sqrt{8}$", r"2\sqrt{2}"], [], [0, 1]),
        (["", ""], [], []),
    ],
)
def test_which_answer_is_right(answers: list[str], verified: list[int], right: list[int]):
    rows = [row(n, "p", a, **({"pass_rates": {"t": 0.5}} if n in verified else {})) for n, a in enumerate(answers)]
    assert [n for n, ok in enumerate(agreed(rows, Answers(Verify(), Domains()))) if ok] == right


def test_contradictions_of_exact_duplicates(tmp_path: Path):
    rows = [row(0, "Is it one?", "1"), row(1, "is it one", "2"), row(2, "What is it?", "5"), row(3, "what is it", "6"),
            row(4, "What is it", "$6$"), row(5, "What is it ??", ""), row(6, "Is it one?", "")]  # fmt: skip
    results = run(tmp_path, rows)
    assert said(results) == [(OTHER, "a/1"), (OTHER, "a/0"), (OTHER, "a/3"), ("", ""), (EXACT, "a/3"), (EXACT, "a/3"),
                             (OTHER, "a/0")]  # fmt: skip
    assert [r.more["detail"] for r in results if isinstance(r, Dropped) and r.reason == OTHER] == [
        "got 1; a/1: 2", "got 2; a/0: 1", "got 5; a/3: 6", "got none; a/0: 1"]  # fmt: skip


def test_code_is_compared_by_its_text(tmp_path: Path):
    tests = [{"input": "1", "output": "2"}]
    rows: list[Row] = [row(n, STORY, domain="code", tests=tests) for n in range(3)]
    for r in rows:
        del r["answer"]
    rows[1]["solutions"], rows[2]["starter_code"] = ["print(2)"], "def f():"
    results = run(tmp_path, [*rows, row(3, STORY)])
    assert said(results) == [(EXACT, "a/1"), ("", ""), (EXACT, "a/1"), ("", "")]


def test_tasks_in_like_words_are_one_if_the_programs_of_one_pass_the_tests_of_the_other(tmp_path: Path):
    """Another word: sometimes the same task, and sometimes not."""
    text = "Write a program that reads an integer, {} it by 2, multiplies that by 3, and prints what comes out of this."
    said_so = ["diminishes", "reduces", "alters"]
    tests = [[{"input": "1", "output": "-3"}], [{"input": "5", "output": "9"}], [{"input": "2", "output": "12"}]]
    programs = ["print((int(input()) - 2) * 3)"] * 2 + ["print((int(input()) + 2) * 3)"]
    rows: list[Row] = [
        {**row(n, text.format(how)), "domain": "code", "tests": tests[n], "solutions": [programs[n]]}
        for n, how in enumerate(said_so)
    ]
    for r in rows:
        del r["answer"]
    assert said(run(tmp_path / "programs", rows)) == [("", ""), (NEAR, "a/0"), ("", "")]
    untold = [{k: v for k, v in r.items() if k != "solutions"} for r in rows]
    assert said(run(tmp_path / "texts", untold)) == [("", "")] * 3  # nobody knows
    one_way = [rows[0], untold[1], untold[2]]
    assert said(run(tmp_path / "one way", one_way)) == [("", "")] * 3


def test_quality_puts_verified_before_answered_before_more_responses():
    code: Row = {**row(0, "p"), "domain": "code", "tests": [{}], "answer": ""}
    ordered = [row(0, "p", ""), row(0, "p", "", responses=[{}] * 3), row(0, "p"), row(0, "p", pass_rates={"t": 0.0}),
               row(0, "p", responses=[{}]), row(0, "p", responses=[{}] * 99_999), row(0, "p", pass_rates={"t": 0.1}),
               {**code, "solutions": [""]}, {**code, "solutions": ["", ""]}]  # fmt: skip
    found = [quality(r, Domains()) for r in ordered]
    assert found == sorted(found)
    assert found[2] == found[3]
    assert len(set(found)) == len(found) - 1
    assert quality(code, Domains()) == quality(row(0, "p"), Domains())


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [("1/2", "0.5", True), ("5 cm", "5", True), ("x=3", "3", True), ("Paris", "paris", True), ("3", "4", False),
     ("(1, 2)", "(2, 1)", False), (r"\sqrt{8}", r"2\sqrt{2}", None), ("", "1", None), ("5 cm", "6 m", None),
     ("5 cm", "5 m", None),
     ("7 яблок", "7", True), ("3元", "4元", False), ("3 元", "3", True),
     ("1" * 2000, "2", None)],
)  # fmt: skip
def test_answers_that_can_be_compared_without_algebra(a: str, b: str, same: bool | None):
    assert same_answer(a, b) is same
    assert same_answer(b, a) is same


def problems() -> list[tuple[str, str]]:
    """Made up: stories with numbers and formulas, every one of other words."""
    draw = random.Random(0)
    syllables = [c + v for c in "bcdfghklmnprst" for v in "aeiou"]
    nouns = ["".join(draw.choices(syllables, k=3)) for _ in range(300)]
    out = []
    for _ in range(60):
        n = draw.sample(nouns, 14)
        a, b, c = draw.sample(range(2, 99), 3)
        out.append((f"A {n[0]} has {a} of the {n[1]} and gives {b} to every {n[2]} in the {n[3]}, before the {n[4]}. "
                    f"The {n[5]} then takes $\\frac{{x}}{{{c}}}$ of each {n[6]}, where $x^2 + y \\le {a}$ holds. "
                    f"All {n[7]} near the {n[8]} want some {n[9]} too. How many {n[10]} are in the {n[11]}?",
                    str(a + b)))  # fmt: skip
    return out


def check_planted(folder: Path, base: list[tuple[str, str]], clean: list[tuple[str, str]], least: dict[str, float]):
    kinds = [*least, "renumbered"]
    planted = plant([p for p, _ in base], kinds)
    rows = [row(n, p, a) for n, (p, a) in enumerate(clean)]
    number = {p: n for n, (p, _) in enumerate(clean)}
    rows += [row(len(clean) + i, text, base[n][1]) for i, (n, _, text) in enumerate(planted)]
    results = run(folder, rows, 500)[len(clean) :]
    total = Counter(kind for _, kind, _ in planted)
    found = Counter(kind for r, (n, kind, _) in zip(results, planted, strict=True)
                    if isinstance(r, Dropped) and r.more["twin"] == f"a/{number[base[n][0]]}")  # fmt: skip
    dropped = Counter(kind for r, (_, kind, _) in zip(results, planted, strict=True) if isinstance(r, Dropped))
    assert set(total) == set(kinds)
    assert {k: found[k] / total[k] for k in least if found[k] < least[k] * total[k]} == {}
    assert dropped["renumbered"] == 0
    assert sum(dropped.values()) == sum(found.values())  # none goes for another problem
    return [r for r in run(folder, rows, 500)[: len(clean)] if isinstance(r, Dropped)]


TYPESET = ("spaced", "recased", "retyped", "renamed", "reordered")


def test_planted_duplicates_are_found(tmp_path: Path):
    base = problems()
    least = dict.fromkeys(TYPESET, 1.0) | {"one word": 1.0, "two words": 0.98}
    assert not check_planted(tmp_path, base, base, least)


@pytest.mark.skipif(not SHARED.is_dir(), reason="no GSM8K here")
def test_planted_duplicates_of_competitions_and_gsm8k(tmp_path: Path):
    math = [(r["problem"], str(r["answer"])) for f in ("aime24", "aime25", "amc23")
            for r in lines(SHARED / "math" / f"{f}.jsonl")]  # fmt: skip
    gsm = [(r["question"], r["answer"].rpartition("####")[2].strip()) for r in lines(SHARED / "gsm8k" / "test.jsonl")]
    # "the elements of A" in small letters has an article; a question before the sequence it asks about is not aligned
    least = dict.fromkeys(TYPESET, 1.0) | {"recased": 0.99, "reordered": 0.99, "one word": 0.98, "two words": 0.8}
    assert not check_planted(tmp_path, math + random.Random(0).sample(gsm, 100), math + gsm, least)


@pytest.mark.slow
def test_kill_and_resume_give_the_same_bytes(tmp_path: Path):
    """Killed while signatures are made, and again while shards are written."""
    draw = random.Random(0)
    texts = [p for p, _ in problems()] * 20
    texts = [KINDS[draw.choice(("spaced", "one word", "renumbered"))](t, draw) for t in texts]
    source = tmp_path / "a.jsonl"
    source.write_text("".join(json.dumps({"problem": t, "answer": str(draw.randrange(2))}) + "\n" for t in texts))
    sources, killed = [{"name": "a", "files": [str(source)]}], tmp_path / "killed"
    written = {"run": str(killed), "sources": sources, "steps": ["deduplicate"], "workers": 1, "shard_rows": 60}
    config = write_yaml(tmp_path / "killed.yaml", written)
    folder = killed / "steps" / "1_deduplicate"
    for resume, some in (((), "work/0*.npy"), (("--resume",), "counts/*.json")):
        begun = functools.partial(at_least, 3, folder, some)
        result = ringrl_until(begun, signal.SIGKILL, "data", config, *resume)
        assert result.code == 137, result.text
        assert 3 <= len(list(folder.glob(some))) < 20
    done = ringrl("data", config, "--resume")
    assert done.code == 0, done.text
    assert len(lines(folder / "dropped.jsonl")) > 100
    assert tree(folder) == tree(in_process(DataConfig.model_validate(written), tmp_path / "whole"))


def at_least(number: int, folder: Path, pattern: str) -> bool:
    return len(list(folder.glob(pattern))) >= number


def in_process(cfg: DataConfig, folder: Path) -> Path:
    before, after = Shards(folder / "before"), Shards(folder / "after")
    for n, results in shards(cfg.sources, cfg.known_domains, cfg.shard_rows):
        before.write(n, "read", results)
    step = prepare(cfg, before, after, over)
    for n in before.numbers:
        after.write(n, "deduplicate", step(n, before.rows(n)))
    after.close(0.0)
    return after.folder


def tree(folder: Path) -> dict[str, bytes]:
    """All files of a finished step but its summary, which has seconds in it."""
    files = {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}
    assert len([f for f in files if f.startswith("kept")]) == 20
    summary = json.loads(files.pop("summary.json"))
    return {**files, "summary": json.dumps({**summary, "seconds": 0}).encode()}
