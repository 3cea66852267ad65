"""Answers that are made to cost time, or to break the verifier, fail, and so do references before a run."""

from __future__ import annotations

import psutil
import pytest

from ringrl.rewards import VerifierPool
from ringrl.rewards.answers import verify_math
from ringrl.rewards.references import check_reference
from tests.rewards.hostile_answers import HOSTILE, HOSTILE_RESPONSES

PLAIN = (r"\boxed{2}", {"answer": "2"})


@pytest.mark.parametrize("domain", ["math", pytest.param("science", marks=pytest.mark.slow)])
def test_hostile_answers_fail_and_the_verifier_stays(domain):
    """Nothing here asserts a time; a verifier that outlived the deadline would be lost, and its verdict an error."""
    responses = {name: (rf"So \boxed{{{answer}}}.", reference) for name, (answer, reference) in HOSTILE.items()}
    responses |= HOSTILE_RESPONSES
    assert len(responses) >= 40
    with VerifierPool(workers=1, deadline_s=60.0) as pool:
        assert pool.submit(domain, *PLAIN).result(timeout=300).kind == "pass"
        before = judges(pool)
        futures = {name: pool.submit(domain, text, {"answer": answer}) for name, (text, answer) in responses.items()}
        verdicts = {name: future.result(timeout=600) for name, future in futures.items()}
        assert {name: verdict for name, verdict in verdicts.items() if verdict.kind != "fail"} == {}
        assert pool.submit(domain, *PLAIN).result(timeout=300).kind == "pass"
        assert judges(pool) == before


def judges(pool: VerifierPool) -> list[psutil.Process]:
    guards = [psutil.Process(child._process.pid) for child in pool._children if child._process]
    return [process for guard in guards for process in guard.children()]


SLOW = [
    "+".join(rf"\sin(10^{{{n}}}x)" for n in range(4000, 4060)),
    "+".join(rf"\cos({n}^{{1999}}x)" for n in range(2, 200)) + " > 1/3",
    "(5, " + "+".join(rf"e^{{\sin({n}^{{1900}})}}" for n in range(2, 400)) + ")",
]


@pytest.mark.parametrize("reference", SLOW, ids=["sum", "inequality", "point"])
def test_a_slow_reference_is_refused(reference):
    with pytest.raises(ValueError, match="the reference takes more than 2 s to read"):
        check_reference("math", {"answer": reference})
    assert verify_math(rf"\boxed{{ {reference} }}", {"answer": reference}).kind == "pass"  # equal as it is written


def test_a_slow_reference_is_no_fault_of_the_answer():
    verdict = verify_math(r"\boxed{x + 3}", {"answer": SLOW[0]})
    assert verdict.kind == "error"
    assert verdict.reason.startswith("the reference takes more than 2 s to read")


def test_a_reference_that_cannot_be_read_is_refused():
    for reference in ("√" * 900 + "2", r"\sqrt{2} \approx 1.51"):
        with pytest.raises(ValueError, match="the reference cannot be read"):
            check_reference("math", {"answer": reference})


def test_large_references_are_fine():
    for reference in ("9^{9^{9^{9}}}", r"2^{2^{2019}}+1", r"\frac{2019!}{2^{1009}}", r"\binom{10^9}{10^8}", "7" * 900):
        check_reference("math", {"answer": reference})
