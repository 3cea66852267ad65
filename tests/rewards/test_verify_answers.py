"""Math and science verdicts, without processes."""

from __future__ import annotations

import pytest

from ringrl.rewards import Verdict, VerifierPool
from ringrl.rewards.answers import last_boxed, read_number, verify_math, verify_science
from tests.rewards.answer_pairs import LIMITS, MATH, RESPONSES, SCIENCE


def math(answer: str, expected: str) -> str:
    return verify_math(rf"So \boxed{{{answer}}}.", {"answer": expected}).kind


def science(answer: str, expected: str) -> Verdict:
    return verify_science(rf"So \boxed{{{answer}}}.", {"answer": expected})


def test_rewards():
    assert Verdict("pass", "exact").reward == 1.0
    assert Verdict("fail", "wrong").reward == 0.0
    with pytest.raises(ValueError, match="no reward: broken"):
        _ = Verdict("error", "broken").reward


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (r"\boxed{5} then \boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{3} then \boxed{\frac{1}", "3"),
        (r"\boxed{\boxed{7}}", "7"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"{ stray \boxed {x_{1}^{2}} }", "x_{1}^{2}"),
        (r"\\boxed{5}", "5"),
        (r"\boxed{}", ""),
        ("no box", ""),
    ],
)
def test_last_boxed(text, content):
    assert last_boxed(text) == content


def test_last_boxed_is_linear():
    assert last_boxed(r"\boxed{" * 50_000 + "1}") == "1"


@pytest.mark.parametrize(
    ("text", "kind", "reason"),
    [
        (r"<think>\boxed{1}</think> \boxed{2}", "pass", "exact"),
        (r"\boxed{2}</think> \boxed{1}", "fail", "wrong"),
        (r"<think>maybe \boxed{2}", "fail", "no_answer"),
        (r"<think>a</think>b<think>\boxed{2}", "fail", "no_answer"),
        (r"<think>\boxed{2}</think> the answer is 2", "fail", "no_answer"),
        (r"\boxed{3} no, \boxed{2}", "pass", "exact"),
        (r"\boxed{2} no, \boxed{3}", "fail", "wrong"),
        ("", "fail", "no_answer"),
    ],
)
def test_where_the_answer_is(text, kind, reason):
    assert verify_math(text, {"answer": "2"}) == Verdict(kind, reason)


def test_plain_numbers_compare_exactly():
    for answer, expected in [
        ("0.50", "1/2"),
        ("1,234,567", "1234567"),
        (r"-\dfrac{6}{4}", "-1.5"),
        ("+7", "$7$"),
    ]:
        assert verify_math(rf"\boxed{{{answer}}}", {"answer": expected}) == Verdict("pass", "exact")
    assert math("0.3333", "1/3") == "fail"
    assert math("12345678901234567891", "12345678901234567890") == "fail"
    assert [read_number(text) for text in ("1 2", "1/0", "9" * 5000)] == [None] * 3


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (r"\sqrt{8}", r"2\sqrt{2}"),
        (r"\frac12", "0.5"),
        ("(x+1)^2", "x^2+2x+1"),
        (r"50\%", "0.5"),
        (r"90^\circ", "90"),
        (r"\text{Yes}", "Yes"),
        ("x=5", "5"),
    ],
)
def test_math_verify_equal(answer, expected):
    assert math(answer, expected) == "pass"


def test_math_verify_unequal():
    for answer, expected in [
        (r"\sqrt{8}", r"2\sqrt{3}"),
        (r"\frac{1}{0}", "5"),
        ("asdf&%", "5"),
        (r"\infty", "5"),
    ]:
        assert math(answer, expected) == "fail"
    assert verify_math(r"\boxed{" + "x+" * 600 + "1}", {"answer": "1"}).reason == "too_long"


def test_a_useless_reference_is_our_error():
    for reference in ({}, {"answer": None}, {"answer": " "}):
        assert verify_math(r"\boxed{1}", reference).kind == "error"
        assert verify_science(r"\boxed{1}", reference).kind == "error"


def test_letters():
    for answer in ("B", "(B)", r"\text{B}", r"\text{(B)}", "b", "B. 5 m/s", r"\mathrm{B}", "B)"):
        assert science(answer, "B").kind == "pass"
        assert science(answer, "(B)").kind == "pass"
        assert science(answer, "C") == Verdict("fail", "wrong")


def test_letters_are_not_words():
    assert science("Because", "B").kind == "fail"
    assert science("B, C", "B").kind == "fail"


@pytest.mark.parametrize(
    ("answer", "expected", "kind"),
    [
        ("9.85", "9.8", "pass"),
        ("9.95", "9.8", "fail"),
        ("-5", "-5.01", "pass"),
        ("5", "-5.0", "fail"),
        ("0.001", "0.0", "fail"),
        ("1.2e-3", "0.001195", "pass"),
        ("1203", r"1.2 \times 10^{3}", "pass"),
        (r"1.2 \times 10^{4}", "1.2e3", "fail"),
        ("100", "100", "pass"),
        ("101", "100", "fail"),
        ("100.5", "100", "fail"),
        ("100.0", "100", "pass"),
        (r"1.2 \times 10^{3}", "1,200", "pass"),
        (r"1.2 \times 10^{3}", "1203", "fail"),
        ("0.3333", "1/3", "fail"),
    ],
)
def test_only_a_reference_with_a_point_or_an_exponent_has_a_tolerance(answer, expected, kind):
    assert science(answer, expected).kind == kind


def test_science_falls_back_on_math():
    assert science(r"\frac{\pi}{2}", r"\pi/2").kind == "pass"


@pytest.fixture(scope="module")
def pool():
    with VerifierPool(workers=2, deadline_s=60.0) as pool:
        yield pool


def disagreements(pool: VerifierPool, domain: str, pairs: list, boxed: bool = True) -> list:
    """Pairs whose verdict is not the right one."""
    futures = [pool.submit(domain, rf"So \boxed{{{a}}}." if boxed else a, {"answer": r}) for a, r, _, _ in pairs]
    found = []
    for (answer, reference, right, note), future in zip(pairs, futures, strict=True):
        verdict = future.result(timeout=120)
        if verdict.kind != ("pass" if right else "fail"):
            found.append((answer[:100], reference[:100], right, note, verdict))
    return found


def test_the_corpus_is_large_enough():
    assert sum(map(len, MATH.values())) + len(RESPONSES) >= 500
    assert len(SCIENCE) >= 60
    rights = [pair[2] for pairs in MATH.values() for pair in pairs]
    assert 0.4 < sum(rights) / len(rights) < 0.75


@pytest.mark.parametrize("section", MATH)
def test_math_pairs(pool, section):
    assert disagreements(pool, "math", MATH[section]) == []


def test_responses(pool):
    assert disagreements(pool, "math", RESPONSES, boxed=False) == []


def test_science_pairs(pool):
    assert disagreements(pool, "science", SCIENCE) == []


def test_what_is_not_understood_fails_and_is_no_error(pool):
    verdicts = [verdict for *_, verdict in disagreements(pool, "math", LIMITS)]
    assert [verdict.kind for verdict in verdicts] == ["fail"] * len(LIMITS)
