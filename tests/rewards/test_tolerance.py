"""Rows that carry the tolerance of their benchmark, in both directions, and tolerances that cannot be read."""

from __future__ import annotations

from typing import Any

import pytest

from ringrl.data.reference_keys import EXPECTED, Tolerance, read_tolerance
from ringrl.rewards.answers import verify_math, verify_science
from ringrl.rewards.references import check_reference
from ringrl.rewards.verdict import Verdict

PERCENT, TENTH, MILLI = {"relative": 0.01}, {"absolute": "1e-1"}, {"absolute": 1e-3}


def judged(answer: str, expected: Any, tolerance: Any = None) -> Verdict:
    return verify_math(rf"So \boxed{{{answer}}}.", {"answer": expected, "tolerance": tolerance})


@pytest.mark.parametrize(
    ("answer", "expected", "tolerance", "right"),
    [
        (r"4.46\times 10^{33}", "4.5e33", PERCENT, True),
        (r"4.45\times 10^{33}", "4.5e33", PERCENT, False),
        ("4.5e32", "4.5e33", PERCENT, False),
        ("-4.5e33", "4.5e33", PERCENT, False),
        ("42.2", "41.8", PERCENT, True),
        ("42.3", "41.8", PERCENT, False),
        (r"\frac{1}{12}", "0.0833", PERCENT, True),
        (r"\frac{1}{13}", "0.0833", PERCENT, False),
        (r"\frac{\pi}{4}", "0.785", PERCENT, True),
        (r"\frac{\pi}{5}", "0.785", PERCENT, False),
        ("7000", "7020", PERCENT, True),
        ("6900", "7020", PERCENT, False),
        ("15", "14", PERCENT, False),
        ("0.0001", "0", PERCENT, False),
        (r"7000 \text{ Å}", "7020", PERCENT, True),
        (r"0.418 \text{ m}", r"42 \text{ cm}", PERCENT, True),
        (r"0.43 \text{ m}", r"42 \text{ cm}", PERCENT, False),
        ("2.65", "2.7", TENTH, True),
        ("2.8", "2.7", TENTH, True),
        ("2.81", "2.7", TENTH, False),
        (r"\sqrt{7}", "2.7", TENTH, True),
        ("x = 2.65", "x = 2.7", TENTH, True),
        ("2.646", r"\sqrt{7}", MILLI, True),
        ("2.65", r"\sqrt{7}", MILLI, False),
        ("0.6054", r"\cos^{10}(\frac{\pi}{10})", {"absolute": 1e-4}, True),
        ("0.6064", r"\cos^{10}(\frac{\pi}{10})", {"absolute": 1e-4}, False),
        (r"7.1 \cdot 10^{35}", r"7 \times 10^{35}", {"absolute": 1e34}, True),
        (r"7.1 \cdot 10^{35}", r"7 \times 10^{35}", {"absolute": [1e33]}, False),
        ("0.002, 5.234", "0.003, 5.233", MILLI, True),
        ("5.235, 0.002", "0.003, 5.233", MILLI, False),
        (r"0.001, 7.1 \cdot 10^{35}", r"7 \times 10^{35}, 0.002", {"absolute": [1e34, 1e-3]}, True),
        (r"0.004, 7.1 \cdot 10^{35}", r"7 \times 10^{35}, 0.002", {"absolute": [1e34, 1e-3]}, False),
        (r"0.001, 7.2 \cdot 10^{35}", r"7 \times 10^{35}, 0.002", {"absolute": [1e34, 1e-3]}, False),
        ("3.1, -3.1", r"\pm 3", {"absolute": ["0.1", "0.2"]}, True),
        ("3.1, -3.3", r"\pm 3", {"absolute": ["0.1", "0.2"]}, False),
        ("(1, 2.05)", "(1.1, 2)", TENTH, True),
        ("(2.05, 1)", "(1.1, 2)", TENTH, False),
        ("[1, 2.05)", "[1.1, 2)", TENTH, True),
        ("[1, 2.05]", "[1.1, 2)", TENTH, False),
        (r"\{1, 2.05\}", r"\{2, 1.1\}", TENTH, True),
        (r"3x + 2.05", "3x + 2", TENTH, False),
        ("B", "C", TENTH, False),
        ("4.5", "4.5", {"absolute": 0}, True),
        ("4.5001", "4.5", {"absolute": 0}, False),
    ],
)  # fmt: skip
def test_numbers_are_judged_by_the_tolerance_of_the_row(answer: str, expected: str, tolerance: Any, right: bool):
    check_reference("math", {"answer": expected, "tolerance": tolerance})
    assert judged(answer, expected, tolerance).kind == ("pass" if right else "fail")


@pytest.mark.parametrize("tolerance", [None, "", {}, {"relative": None, "absolute": None}])
def test_without_a_tolerance_the_rules_are_the_domains(tolerance: Any):
    assert judged("42.2", "41.8", tolerance).kind == "fail"
    assert judged("41.83", "41.8", tolerance).kind == "pass"  # rounded
    science = {"answer": "9.8", "tolerance": tolerance}
    assert [verify_science(rf"\boxed{{{x}}}", science).kind for x in ("9.81", "9.7")] == ["pass", "fail"]


def test_a_tolerance_takes_the_place_of_the_domains_rules():
    assert judged("8.4e5", "8e5").kind == "pass"  # a rounding, in math
    assert judged("8.4e5", "8e5", PERCENT).kind == "fail"
    assert verify_science(r"\boxed{9.81}", {"answer": "9.8", "tolerance": MILLI}).kind == "fail"
    assert verify_science(r"\boxed{9.6}", {"answer": "9.8", "tolerance": {"relative": 0.05}}).kind == "pass"
    assert verify_science(r"\boxed{102}", {"answer": "100", "tolerance": {"relative": 0.05}}).kind == "pass"


@pytest.mark.parametrize(
    "tolerance",
    [0.01, "1e-1", "about 1 %", True, [0.1], {"relative": 1}, {"relative": -0.1}, {"relative": [0.1]}, {"percent": 1},
     {"absolute": "NaN"}, {"absolute": "1e999"}, {"absolute": True}, {"absolute": {}}, {"absolute": [0.1, None]},
     {"absolute": 0.1, "relative": 0.1}, '{"absolute": ', "[" * 5000],
)  # fmt: skip
def test_a_tolerance_that_cannot_be_read_is_an_error_of_the_reference(tolerance: Any):
    with pytest.raises(ValueError, match=r"^tolerance: got ") as error:
        check_reference("math", {"answer": "3", "tolerance": tolerance})
    assert str(error.value).endswith(EXPECTED)
    verdict = judged("3", "3", tolerance)
    assert (verdict.kind, verdict.reason) == ("error", f"the reference cannot be used: {error.value}")


@pytest.mark.parametrize(
    ("answer", "values"),
    [("2", [1, 2]), ("1, 2, 3", [1, 2]), (r"\pm 3", [1, 2, 3]), ("(1, 2)", [1, 2]), ("(1, 2), (3, 4)", [1, 2])],
)
def test_a_tolerance_for_each_answer_fits_their_number(answer: str, values: list[int]):
    said = rf"^tolerance: got {len(values)} values, expected one, or one for each of several numbers: "
    with pytest.raises(ValueError, match=said):
        check_reference("math", {"answer": answer, "tolerance": {"absolute": values}})
    assert judged(answer.replace("2", "2.0"), answer, {"absolute": values}).kind == "error"


def test_a_tolerance_is_read_from_a_table_too():
    assert read_tolerance('{"relative": 0.05}') == read_tolerance({"relative": "5e-2", "absolute": None})
    assert read_tolerance({"absolute": [1, "2"]}) == Tolerance(absolute=(1, 2))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("answer", "expected", "right"),
    [("2, 3", ["2", "3"], True), ("3, 2", [2, 3], True), ("2", ["2", "3"], False), ("5", 5.0, True), ("6", 5.0, False),
     (r"\text{True}", True, True), ("False", True, False), ("72", ["72"], True), ("2, 3", '["2", "3"]', True)],
)  # fmt: skip
def test_answers_of_other_types(answer: str, expected: Any, right: bool):
    assert judged(answer, expected).kind == ("pass" if right else "fail")


@pytest.mark.parametrize("expected", [{"value": 1}, [["1"]], float("inf")])
def test_an_answer_of_no_type_of_answers_is_an_error_of_the_reference(expected: Any):
    assert judged("1", expected).reason.startswith("the reference cannot be used: got ")
    with pytest.raises(ValueError, match="expected a text, a number, or a list of them"):
        check_reference("science", {"answer": expected})
