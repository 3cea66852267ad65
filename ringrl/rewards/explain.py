"""What a built-in verifier took from a response and how it compared that, for people to read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from ringrl.domains import Domain
from ringrl.rewards.verdict import Verdict, after_thinking

_HOW = {  # reason of a verdict on an answer: what it says
    "exact": "the same text or number",
    "number": "the same number, a measured one within the tolerance of the reference",
    "time": "the same time of the day",
    "choice": "the letter of the same option",
    "equal": "the same value",
    "no_answer": r"no \boxed{...} after the thought",
    "too_long": "not compared: it is much longer than the reference",
    "contradiction": "two values that differ",
    "unit": "units that do not convert into each other",
    "unevaluated": "not compared: it asks for an evaluation that the reference has done",
    "too_slow": "comparing it took too long",
    "wrong": "neither the same text nor the same value",
}


def explain(domain: Domain, response: str, reference: Mapping[str, Any], verdict: Verdict) -> dict[str, str]:
    """`extracted`, `expected` and `compared`; nothing for verifiers that are not built in."""
    if domain.comparison == "answer" and domain.rewards[0].verifier in ("math", "science"):
        return _answer(response, reference, verdict)
    if domain.comparison == "program" and domain.rewards[0].verifier == "code":
        return _program(response, reference, verdict)
    return {}


def _answer(response: str, reference: Mapping[str, Any], verdict: Verdict) -> dict[str, str]:
    from ringrl.rewards.answers import expected_answer
    from ringrl.rewards.boxes import last_boxes
    from ringrl.rewards.typography import clean

    extracted = ", ".join(last_boxes(after_thinking(response)))
    try:
        expected = expected_answer(reference)
    except ValueError as error:
        return {"extracted": extracted, "expected": "", "compared": str(error)}
    how = _HOW.get(verdict.reason, verdict.reason)
    plain = clean(extracted), clean(expected)
    read_as = f", read as {plain[0]} and {plain[1]}" if extracted and plain != (extracted, expected) else ""
    return {"extracted": extracted, "expected": expected, "compared": how + read_as}


def _program(response: str, reference: Mapping[str, Any], verdict: Verdict) -> dict[str, str]:
    from ringrl.rewards.blocks import extract_code
    from ringrl.rewards.code_tests import read_tests
    from ringrl.rewards.livecodebench import unpacked

    try:
        tests = read_tests(unpacked(reference))
    except ValueError as error:
        return {"extracted": "", "expected": "", "compared": f"unusable tests: {error}"}
    if tests.texts:
        expected = f"what {len(tests.texts)} texts of Python assert"
    else:
        expected = f"{len(tests.pairs)} {'results' if tests.entry else 'outputs'}"
    called = f" of {tests.entry}" if tests.entry else ""
    judge = ", as its checker says" if tests.checker else ""
    outcomes = ", ".join(f"{n} {outcome}" for outcome, n in Counter(verdict.tests).items()) or verdict.reason
    code = extract_code(after_thinking(response), tests.language)
    return {
        "extracted": code,
        "expected": f"{expected}{called}{judge}",
        "compared": f"run in {tests.language}: {outcomes}",
    }
