"""Checks of references before a run."""

from __future__ import annotations

from collections.abc import Mapping


def check_reference(verifier: str, reference: Mapping[str, object]) -> None:
    """Raises ValueError, or SyntaxError for programs, naming the problem, for a reference that a built-in verifier
    cannot use. Other verifiers' references are theirs."""
    if verifier in ("math", "science"):
        from ringrl.rewards.answers import MATH, SCIENCE, check_answer

        check_answer(reference, SCIENCE if verifier == "science" else MATH)
    elif verifier == "code":
        from ringrl.rewards.code_tests import check_tests

        check_tests(reference)
