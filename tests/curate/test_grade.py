"""Pass rates and what follows from them, from verdicts given by hand; errors that are too many end the run."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from ringrl.config.data import DataConfig
from ringrl.config.sections import Verify
from ringrl.curate.grade import Grader, prepare
from ringrl.curate.sample import responses_of
from ringrl.curate.shards import Dropped, Row, Shards
from ringrl.curate.verdicts import Verdicts
from ringrl.domains import Domains
from ringrl.errors import RingError

ROW: Row = {"id": "s/0", "source": "s", "domain": "math", "problem": "1+1?", "answer": "2"}
CUT = {"text": "s/0: the prompt has 9 tokens", "length": 0, "finish": "no_room"}


def said(*answers: str) -> list[dict[str, Any]]:
    return [{"text": f"\\boxed{{{a}}}" if a else "", "length": 10 + n, "finish": "stop"} for n, a in enumerate(answers)]


def graded(
    row: Row = ROW, bins: int = 10, keep_right: bool = False, **given: tuple[list[dict[str, Any]], str]
) -> Row | Dropped:
    """Of teachers by name: answers, and a verdict on each: + right, - wrong, e error."""
    kinds = {"+": ("pass", "exact", 1.0), "-": ("fail", "wrong", 0.0), "e": ("error", "deadline passed", 0.0)}
    step = Grader(Verdicts(Shards(Path("nowhere")), tuple(given), Verify(), Domains()), bins, keep_right)
    verdicts = {name: [kinds[v] for v in each] for name, (_, each) in given.items()}
    return step.grade(row, {name: answers for name, (answers, _) in given.items()}, verdicts)


def test_rates_leave_errors_out_and_right_answers_are_one():
    row = graded(a=(said("2", "2.0", "5", "2"), "++-e"), b=(said("7", "7", "", "8"), "----"))
    assert isinstance(row, dict)
    assert row["pass_rates"] == {"a": 2 / 3, "b": 0.0}
    assert row["agreement"] == {"a": 2 / 3, "b": 0.5}
    assert row["lengths"] == {"a": 11.5, "b": 11.5}
    assert (row["pass_rate"], row["bin"]) == (2 / 3, 6)
    assert row.items() >= ROW.items()


@pytest.mark.parametrize(
    ("right", "of", "bins", "expected"),
    [(0, 10, 10, 0), (1, 10, 10, 1), (3, 10, 10, 3), (7, 10, 10, 7), (9, 10, 4, 3), (5, 10, 1, 0), (29, 100, 100, 29)],
)
def test_bins_are_of_equal_width_and_exact(right: int, of: int, bins: int, expected: int):
    row = graded(bins=bins, a=(said(*["2"] * of), "+" * right + "-" * (of - right)), b=(said("2"), "+"))
    assert isinstance(row, dict)
    assert row["bin"] == expected


@pytest.mark.parametrize(
    ("a", "b", "reason", "detail"),
    [
        ((said("2", "2"), "+e"), (said("3"), "-"), "solved always", "1 of 1 by a"),
        ((said("3", "4"), "--"), (said("5", ""), "--"), "solved never", "0 of 4"),
        ((said("3", "4"), "--"), (said("3", "3.0"), "--"), "solutions agree on another answer",
         "0 of 4; 3 say 3, the reference says 2"),
        ((said("3", "4"), "ee"), (said("2", "2"), "++"), "not verifiable", "deadline passed"),
        (([CUT, CUT], "--"), (said("2", "2"), "++"), "prompt too long", "for a: s/0: the prompt has 9 tokens"),
    ],
)  # fmt: skip
def test_what_is_dropped(a: Any, b: Any, reason: str, detail: str):
    drop = graded(a=a, b=b)
    assert isinstance(drop, Dropped)
    assert (drop.reason, drop.more["detail"]) == (reason, detail)


def test_a_teacher_without_room_is_left_out():
    row = graded(a=(said("2", "3"), "+-"), b=([CUT, CUT], "--"))
    assert isinstance(row, dict)
    assert row["pass_rates"] == {"a": 0.5}


def test_code_has_no_agreement_and_is_solved_never_when_nobody_does():
    code = {**ROW, "domain": "code", "tests": [{"input": "", "output": "1"}]}
    del code["answer"]
    row = graded(code, a=(said("2", "2"), "+-"))
    assert isinstance(row, dict)
    assert "agreement" not in row
    drop = graded(code, a=(said("2", "2"), "--"))
    assert isinstance(drop, Dropped)
    assert drop.reason == "solved never"


def test_right_responses_stay_for_distil_to_filter():
    """With `finish`, so that a response that is right and truncated goes."""
    given = {"a": (said("2", "3"), "+-"), "b": ([*said("2"), CUT], "e-"), "c": (said("2.0"), "+")}
    row = graded({**ROW, "responses": [{"text": "own", "teacher": ""}]}, keep_right=True, **given)
    assert isinstance(row, dict)
    assert [(r["teacher"], r["text"]) for r in row["responses"]] == [
        ("", "own"), ("a", "\\boxed{2}"), ("c", "\\boxed{2.0}")]  # fmt: skip
    assert row["responses"][1] == {"teacher": "a", **said("2")[0]}
    assert "responses" not in graded(**given)


def inline(name: str, function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
    for item in items:
        yield item, function(item)


def made(folder: Path, shards: list[list[tuple[Row, list[str]]]], **more: Any) -> tuple[DataConfig, Shards, Shards]:
    """Rows with the answers of teacher `a` on disk, in shards."""
    before, after = Shards(folder / "0_read"), Shards(folder / "1_grade")
    responses_of(after, "a").mkdir(parents=True)
    for n, rows in enumerate(shards):
        before.write(n, "read", [row for row, _ in rows])
        lines = [json.dumps({"id": row["id"], "answers": said(*answers)}) + "\n" for row, answers in rows]
        (responses_of(after, "a") / f"{n:06d}.jsonl").write_text("".join(lines))
    source = {"name": "s", "files": ["x.jsonl"]}
    grade = {"teachers": [{"name": "a", "model": "m"}]}
    raw = {"run": str(folder), "sources": [source], "steps": ["grade"], "grade": grade}
    return DataConfig.model_validate({**raw, "verify": {"workers": 1, **more}}), before, after


def test_the_training_verifier_judges_and_verdicts_are_kept(tmp_path: Path):
    rows = [[({**ROW, "id": "s/0", "answer": "1/2"}, ["0.5", "\\frac12", "2"])],
            [({**ROW, "id": "s/1", "answer": "12"}, ["12", "12", "12"])]]  # fmt: skip
    cfg, before, after = made(tmp_path, rows)
    step = prepare(cfg, before, after, inline)
    first, second = (list(step(n, before.rows(n))) for n in (0, 1))
    assert first[0]["pass_rate"] == 2 / 3  # type: ignore[index]
    assert second[0].reason == "solved always"  # type: ignore[union-attr]
    kept = {f.name: f.read_bytes() for f in (after.work / "verdicts").iterdir()}
    assert len(kept) == 4

    def refuse(name: str, function: Any, items: Sequence[Any]) -> Iterator[Any]:
        assert not items
        return iter(())

    prepare(cfg, before, after, refuse)
    (after.work / "verdicts" / "000001.json").unlink()
    prepare(cfg, before, after, inline)
    assert {f.name: f.read_bytes() for f in (after.work / "verdicts").iterdir()} == kept


def test_too_many_errors_end_the_run_and_are_judged_again(tmp_path: Path):
    broken = {**ROW, "id": "s/1", "answer": ""}  # what cleanse would have dropped
    rows = [[({**ROW, "id": "s/0"}, ["2", "3"] * 3)], [(broken, ["2", "3"] * 3)]]
    cfg, before, after = made(tmp_path, rows)
    with pytest.raises(RingError, match=r"grade: verdicts: the verifiers failed on 6 of 12 .*no 'answer'.*again"):
        prepare(cfg, before, after, inline)
    assert [f.name for f in sorted((after.work / "verdicts").glob("*.json"))] == ["000000.json"]
    cfg = cfg.model_copy(update={"verify": Verify(max_error_share=0.5)})
    step = prepare(cfg, before, after, inline)
    [drop] = step(1, before.rows(1))
    assert isinstance(drop, Dropped)
    assert (drop.reason, drop.more["detail"]) == ("not verifiable", "the reference has no 'answer'")
