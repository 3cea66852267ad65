"""The verdict on one response, and how the rewards of a domain combine."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from ringrl.domains import Domain

DIGITS = 12  # decimals of a score: values that differ by rounding alone must be equal, or they would make advantages
_SCORES = {"pass": 1.0, "fail": 0.0, "error": 0.0}


class Part(NamedTuple):
    """One of the rewards in a verdict."""

    name: str
    value: float  # in [0, 1]
    weight: float


@dataclass(frozen=True)
class Verdict:
    """One judgement. `pass`, `fail` and, between them, `partial` judge the response; `error` is our failure, counted
    separately: a verifier's bug, missed deadline or dead process, or a reference that cannot be used.

    Raises:
        ValueError: the kind is unknown, or the score is not one of this kind.
    """

    kind: Literal["pass", "partial", "fail", "error"]
    reason: str
    tests: tuple[str, ...] = ()  # code: the outcome of each test that was run
    score: float = math.nan  # in [0, 1]; pass it for `partial` only, other kinds imply it
    parts: tuple[Part, ...] = ()  # every reward of the domain, set by the pool
    seconds: float = field(default=0.0, compare=False)  # wall clock of judging, all rewards together, set by the pool

    def __post_init__(self) -> None:
        if self.kind == "partial":
            valid = 0 < self.score < 1
        else:
            valid = self.kind in _SCORES and (math.isnan(self.score) or self.score == _SCORES[self.kind])
        if not valid:
            raise ValueError(f"no verdict: kind {self.kind!r} with score {self.score!r}; expected pass, fail or error, "
                             f"or partial with a score between 0 and 1")  # fmt: skip
        if self.kind != "partial":
            object.__setattr__(self, "score", _SCORES[self.kind])

    @property
    def headline(self) -> float:
        """The reward for scores, pass rates and selection. Raises ValueError as `reward`."""
        if self.kind == "error":
            raise ValueError(f"an error has no reward: {self.reason}")
        return self.score

    @property
    def reward(self) -> float:
        """The reward for training: the weighted sum of all rewards of the domain.

        Raises ValueError for an error, which says nothing about the response.
        """
        if not self.parts:
            return self.headline
        return round(math.fsum(p.weight * p.value for p in self.parts), DIGITS)


def graded(score: float, reason: str = "", tests: tuple[str, ...] = ()) -> Verdict:
    """The verdict of this score. Raises ValueError unless it is a number from 0 to 1."""
    if not 0 <= score <= 1:  # NaN included
        raise ValueError(f"got {score!r}, expected a number from 0 to 1")
    score = round(float(score), DIGITS)
    if 0 < score < 1:
        return Verdict("partial", reason or "partial", tests, score)
    return Verdict("pass", reason or "right", tests) if score else Verdict("fail", reason or "wrong", tests)


def verdict_of(result: Any) -> Verdict:
    """The verdict for a verifier's result. Raises ValueError unless it is a bool, a number from 0 to 1 or a Verdict."""
    if getattr(result, "shape", None) == () and hasattr(result, "item"):  # a NumPy or PyTorch scalar
        result = result.item()
    if isinstance(result, Verdict):
        return result
    if isinstance(result, (bool, int, float)):
        return graded(result)
    raise ValueError(f"got {repr(result)[:100]} of type {type(result).__name__}, expected a bool, a number from 0 to 1 "
                     f"or a Verdict")  # fmt: skip


def combined(domain: Domain, verdicts: Mapping[str, Verdict]) -> Verdict:
    """One verdict from those of the domain's rewards, by name: kind, reason, score and tests are the headline's.

    An error in one makes the whole verdict an error, unless that reward has `on_error: fail`.
    """
    kept: dict[str, Verdict] = {}
    remarks: list[str] = []
    for reward in domain.rewards:
        verdict = verdicts[reward.name]
        if verdict.kind == "error":
            reason = verdict.reason if len(domain.rewards) == 1 else f"{reward.name}: {verdict.reason}"
            if reward.on_error == "error":
                return Verdict("error", reason, verdict.tests)
            verdict = Verdict("fail", "failed", verdict.tests)
            remarks.append(reason)
        kept[reward.name] = verdict
    head = kept[domain.headline]
    parts = tuple(Part(r.name, kept[r.name].score, r.weight) for r in domain.rewards)
    return Verdict(head.kind, _joined(head.reason, remarks), head.tests, head.score, parts)


def _joined(reason: str, remarks: Sequence[str]) -> str:
    return f"{reason}: {'; '.join(remarks)}" if remarks else reason


def after_thinking(text: str) -> str:
    """The answer in a response: the text after the last `</think>`; "" while a `<think>` is open."""
    visible = text.rpartition("</think>")[2]
    return "" if "<think>" in visible else visible
