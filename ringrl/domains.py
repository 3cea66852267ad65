"""Domains: what a problem must hold, how it is asked, who judges a response, and how two of them are compared.

A domain is one object, found by its name: a built-in one (`BUILT_IN`), one of a configuration's `domains` section, or
one that an installed package offers under the entry point `ringrl.domains`. Verifiers are named, never imported here:
they run in processes of their own (`ringrl.rewards`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

BOXED = "Please reason step by step, and put your final answer within \\boxed{}."  # [P §3.3]
FENCED = "Write your solution in Python, in one ```python block."  # [ours]


@dataclass(frozen=True)
class Reward:
    """One verifier of a domain, and what it counts for."""

    name: str  # what metrics call it
    verifier: str  # a built-in verifier's name, "module:function" or "path/file.py:function"
    weight: float = 1.0  # share of the domain's reward
    options: Mapping[str, Any] = field(default_factory=dict)  # further keyword arguments of the verifier
    on_error: Literal["error", "fail"] = "error"  # what its own failure is: no verdict, or a reward of 0
    key_variable: str = ""  # the one environment variable with a secret that its process is given


@dataclass(frozen=True)
class Domain:
    """One kind of problem."""

    name: str
    rewards: tuple[Reward, ...]  # weights sum to 1
    headline: str  # name of the reward that scores, pass rates and selection go by
    suffix: str = ""  # what follows every problem in a prompt, unless `prompting.suffix` says otherwise
    keys: tuple[str, ...] = ()  # of a row, that reach the verifier; empty: all that JSON can carry
    required: tuple[str, ...] = ()  # keys that a row must have
    answer: str = ""  # the key of the answer that curation compares; empty: answers are not compared
    comparison: Literal["answer", "program"] = "answer"  # what `ringrl data` takes for the same answer: equal ones, or
    # programs that pass each other's tests


def _judged_by(name: str, suffix: str, keys: tuple[str, ...], **more: Any) -> Domain:
    return Domain(name, (Reward(name, name),), name, suffix, keys, **more)


BUILT_IN: Mapping[str, Domain] = {
    d.name: d
    for d in (
        _judged_by("math", BOXED, ("answer",), required=("answer",), answer="answer"),
        _judged_by(
            "code",
            FENCED,
            ("answer", "tests", "entry_point", "language", "checker", "time_limit_s", "compare"),
            required=("tests",),
            comparison="program",
        ),
        _judged_by("science", BOXED, ("answer",), required=("answer",), answer="answer"),
    )
}
