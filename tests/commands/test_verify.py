"""`ringrl verify`, by its own means: verdicts in order, resuming, labels, and the audit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ringrl.commands.verify import verify
from ringrl.domains import BUILT_IN
from ringrl.errors import DataError
from ringrl.rewards.audit import altered, interval
from ringrl.rewards.code import verify_code
from tests.conftest import lines

ADD = "```python\nprint(int(input()) + 1)\n```"
ROWS: list[dict[str, Any]] = [
    {"domain": "math", "response": r"so \boxed{4}", "reference": {"answer": "4"}, "right": "pass", "id": 7},
    {"domain": "math", "response": r"so \boxed{5}", "reference": {"answer": "4"}, "right": "pass"},
    {"domain": "code", "response": ADD, "reference": {"tests": [{"input": "1", "output": "2"}]}},
    {"domain": "code", "response": ADD, "reference": {"tests": []}, "right": "not pass"},
]


def write(folder: Path, rows: list[Any]) -> str:
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder / "rows.jsonl")


def test_rows_keep_their_order_and_keys_and_a_cut_file_is_continued(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file, out = write(tmp_path, ROWS), tmp_path / "out.jsonl"
    assert verify(file, out, None, {"workers": 1}, audit=True) == 0
    found = lines(out)
    assert [{k: row[k] for k in given} for row, given in zip(found, ROWS, strict=True)] == ROWS
    assert [row["kind"] for row in found] == ["pass", "fail", "pass", "error"]
    assert [row.get("score") for row in found] == [1.0, 0.0, 1.0, None]
    assert all(row["seconds"] > 0 and row["reason"] for row in found)
    shown = capfd.readouterr().err
    assert "row 2: fail (wrong), labelled pass\n2 of 3 labelled rows agree\n" in shown
    assert "math: 0 of 1 (0.0 to 79.3 %) of pass verdicts are wrong by the second way\n" in shown
    assert "code: 0 of 1 (0.0 to 79.3 %) of pass verdicts are wrong by the second way\n" in shown
    assert "code: 0 of 1 (0.0 to 79.3 %) of pass verdicts hold against an altered reference\n" in shown

    whole = out.read_text().splitlines(keepends=True)
    marked = json.dumps(found[0] | {"reason": "not judged again"}) + "\n"
    out.write_text(marked + whole[1][:20])
    with pytest.raises(DataError, match=r"out.jsonl: got a file that exists, expected a new one, or --resume"):
        verify(file, out, None, {})
    verify(file, out, None, {"workers": 1}, resume=True)
    assert [row["kind"] for row in lines(out)] == ["pass", "fail", "pass", "error"]
    assert lines(out)[0]["reason"] == "not judged again"


@pytest.mark.parametrize(("change", "message"), [
    ({"domain": "chess"}, r"rows.jsonl:2: domain: got 'chess', expected one of math, code"),
    ({"response": None}, r"rows.jsonl:2: response: got null, expected a text"),
    ({"reference": "4"}, r"rows.jsonl:2: reference: got \"4\", expected an object"),
])  # fmt: skip
def test_a_row_that_cannot_be_judged_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    file = write(tmp_path, [ROWS[0], ROWS[1] | change])
    with pytest.raises(DataError, match=message):
        verify(file, tmp_path / "out.jsonl", None, {"workers": 1})
    assert not (tmp_path / "out.jsonl").exists()


def test_a_row_is_judged_by_the_tolerance_of_its_reference(tmp_path: Path) -> None:
    cases: list[tuple[str, Any, str]] = [
        ("4.48e33", {"relative": 0.01}, "pass"), ("4.4e33", {"relative": 0.01}, "fail"), ("4.44e33", None, "fail"),
        ("4.4e33", {"absolute": 1e32}, "pass"), ("4.5e33", {"absolute": "a little"}, "error"),
    ]  # fmt: skip
    rows = [
        {"domain": domain, "response": rf"\boxed{{{said}}}", "reference": {"answer": "4.5e33", "tolerance": tolerance}}
        for domain in ("math", "science") for said, tolerance, _ in cases if domain == "math" or tolerance
    ]  # fmt: skip
    verify(write(tmp_path, rows), tmp_path / "out.jsonl", None, {"workers": 1}, resume=False, audit=False)
    right = [right for _, _, right in cases] + [right for _, tolerance, right in cases if tolerance]
    found = lines(tmp_path / "out.jsonl")
    assert [row["kind"] for row in found] == right
    assert "tolerance: got {'absolute': 'a little'}, expected" in found[4]["reason"]


ALTERED: list[tuple[dict[str, Any], str]] = [
    ({"tests": [{"input": "1", "output": "2"}, {"input": "2", "output": "3\n"}]}, ADD),
    ({"tests": [{"input": [1], "output": 2}], "entry_point": "f"}, "```python\ndef f(x):\n    return x + 1\n```"),
    ({"tests": "assert f(1) == 2"}, "```python\ndef f(x):\n    return x + 1\n```"),
    ({"tests": ["assert f(1) == 2", "assert f(2) == 3"]}, "```python\ndef f(x):\n    return x + 1\n```"),
]


@pytest.mark.parametrize(("reference", "response"), ALTERED)
def test_a_right_program_fails_an_altered_reference(reference: dict[str, Any], response: str) -> None:
    other = altered(BUILT_IN["code"], reference)
    assert other is not None
    assert verify_code(response, reference).kind == "pass"
    assert verify_code(response, other).kind == "fail"


def test_answers_without_digits_and_checked_outputs_are_not_altered() -> None:
    assert altered(BUILT_IN["math"], {"answer": r"\frac{12}{5}"}) == {"answer": r"\frac{31}{5}"}
    assert altered(BUILT_IN["math"], {"answer": "x + y"}) is None
    assert altered(BUILT_IN["code"], {"tests": [{"input": "", "output": "1"}], "checker": "def check(): ..."}) is None


def test_the_interval_is_wilsons() -> None:
    assert interval(1, 10) == pytest.approx((0.0179, 0.4042), abs=1e-4)
    assert interval(0, 0) == (0.0, 1.0)


def test_it_tells_what_was_extracted_and_how_it_was_compared(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    rows = [
        *ROWS,
        {"domain": "math", "response": r"\boxed{\dfrac{\sqrt{8}}{2}}", "reference": {"answer": r"$\sqrt 2$"}},
        {"domain": "math", "response": "four", "reference": {"answer": "4"}},
        {"domain": "reasoning_gym", "response": "four", "reference": {}},
    ]
    verify(write(tmp_path, rows), tmp_path / "out.jsonl", None, {"workers": 1}, explained=True)
    found = lines(tmp_path / "out.jsonl")
    assert [(row.get("extracted"), row.get("expected")) for row in found] == [
        ("4", "4"), ("5", "4"), ("print(int(input()) + 1)\n", "1 outputs"), ("", ""),
        (r"\dfrac{\sqrt{8}}{2}", r"$\sqrt 2$"), ("", "4"), (None, None),
    ]  # fmt: skip
    assert [row.get("compared") for row in found] == [
        "the same text or number", "neither the same text nor the same value", "run in python: 1 ok",
        "unusable tests: the reference has no 'tests'",
        r"the same value, read as \frac{\sqrt{8}}{2} and \sqrt 2", r"no \boxed{...} after the thought", None,
    ]  # fmt: skip
    shown = capfd.readouterr().err
    assert "row 2: fail (wrong) `5` for `4`: neither the same text nor the same value\n" in shown
    assert "row 3: pass (tests): run in python: 1 ok\n" in shown


def test_a_file_continued_must_be_the_same(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    verify(write(tmp_path, ROWS[:2]), out, None, {"workers": 1})
    before = out.read_text()
    file = write(tmp_path, [ROWS[0], ROWS[0]])
    with pytest.raises(DataError, match=r"out.jsonl:2: got another row than .*rows.jsonl has there"):
        verify(file, out, None, {"workers": 1}, resume=True)
    assert out.read_text() == before


def test_a_run_is_judged_by_the_references_of_its_problems(tmp_path: Path) -> None:
    problems = [{"id": f"p{i}", "domain": "math", "problem": f"{i}+{i}?", "answer": str(2 * i)} for i in range(2)]
    data = write(tmp_path, problems)
    stage = {
        "name": "s",
        "data": [{"files": [data]}],
        "steps": 1,
        "prompts": 1,
        "samples": 2,
        "max_total_tokens": 9,
        "budget": {"phi": 8},
    }
    for kind, config, place in (
        ("eval", {"model": "m", "benchmarks": [{"name": "sums", "data": data}], "samples": 2}, "responses/sums.jsonl"),
        ("rl", {"model": "m", "stages": [stage]}, "rollouts/step_000001.jsonl"),
    ):
        run = tmp_path / kind
        (run / place).parent.mkdir(parents=True)
        (run / "config.yaml").write_text(json.dumps({"run": str(run), **config}))
        key = "id" if kind == "eval" else "prompt_id"
        texts = [(problem["id"], rf"\boxed{{{n}}}") for problem in problems for n in (0, 2)]
        (run / place).write_text("".join(json.dumps({key: i, "text": text}) + "\n" for i, text in texts))
        verify(str(run), tmp_path / f"{kind}.jsonl", None, {"workers": 1})
        assert [row["kind"] for row in lines(tmp_path / f"{kind}.jsonl")] == ["pass", "fail", "fail", "pass"]
        with (run / place).open("a") as file:
            file.write(json.dumps({key: "p7", "text": "?"}) + "\n")
        with pytest.raises(DataError, match=rf"{place}:5: id: got 'p7', which is no problem"):
            verify(str(run), tmp_path / "other.jsonl", None, {"workers": 1})
    write(tmp_path, [*problems, problems[0] | {"answer": "1"}])
    with pytest.raises(DataError, match="two problems of its data have the id 'p0'"):
        verify(str(tmp_path / "rl"), tmp_path / "third.jsonl", None, {"workers": 1})
