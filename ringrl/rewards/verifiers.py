"""The one table of domains."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ringrl.rewards.code import verify_code
from ringrl.rewards.math import verify_math
from ringrl.rewards.science import verify_science
from ringrl.rewards.verdict import Verdict

VERIFIERS: dict[str, Callable[[str, Mapping[str, object]], Verdict]] = {
    "math": verify_math,
    "science": verify_science,
    "code": verify_code,
}


def check_domain(domain: str) -> None:
    """Refuses a domain nobody can judge.

    Raises:
        ValueError: names the domain and the known ones.
    """
    if domain not in VERIFIERS:
        raise ValueError(f"unknown domain {domain!r}; known: {', '.join(VERIFIERS)}")
