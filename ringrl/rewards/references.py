"""Checks of references before a run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from ringrl.domains import Domain

if TYPE_CHECKING:
    from ringrl.rewards.plain import Value


def unusable(domain: Domain, reference: Mapping[str, object]) -> str:
    """Why a built-in verifier of a domain cannot use a reference, in one line, or ""; others' references are theirs."""
    for verifier in dict.fromkeys(reward.verifier for reward in domain.rewards):
        try:
            check_reference(verifier, reference)
        except ValueError as error:
            return " ".join(str(error).split())[:300]
    return ""


def check_reference(verifier: str, reference: Mapping[str, object]) -> None:
    """Raises ValueError, naming the problem, for a reference that a built-in verifier cannot use."""
    # imported here because that takes a while, and readers of data need not
    if verifier in ("math", "science"):
        from ringrl.rewards.answers import MATH, SCIENCE, check_answer

        check_answer(reference, SCIENCE if verifier == "science" else MATH)
    elif verifier == "code":
        from ringrl.rewards.code_tests import check_tests
        from ringrl.rewards.livecodebench import PACKED

        tests = reference.get("tests")
        if not (isinstance(tests, Mapping) and PACKED in tests):  # all of LiveCodeBench takes minutes to unpack
            check_tests(reference)


def too_large(answer: str) -> str:
    """The part of an answer that is too large to be evaluated, so that nothing written otherwise equals it, or ""."""
    from ringrl.rewards.expressions import TooLarge, Unreadable, equal_values, read_expression
    from ringrl.rewards.plain import read, right_sides, split_unit
    from ringrl.rewards.typography import clean

    text = clean(answer)
    for leaf in _leaves(read(right_sides(text, text)[1], texts=True) or text):
        with contextlib.suppress(Unreadable):
            try:
                tree = read_expression(split_unit(leaf).magnitude)
                equal_values(tree, ("neg", ("neg", tree)))
            except TooLarge:
                return leaf
    return ""


def _leaves(value: Value | None) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    else:
        for item in getattr(value, "items", ()):  # of a `Many`
            yield from _leaves(item)
