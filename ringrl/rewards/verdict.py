"""What a verifier says about one response, and where in a response the final answer is looked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Verdict:
    """One judgement: `pass` and `fail` are about the response, `error` is about us.

    An error is a verifier's bug, its deadline or its dead process, or a reference that cannot be used. It has
    no reward: a caller counts errors apart from zeros.
    """

    kind: Literal["pass", "fail", "error"]
    reason: str

    @property
    def reward(self) -> float:
        """1.0 for a pass, 0.0 for a fail.

        Raises:
            ValueError: the verdict is an error, which says nothing about the response.
        """
        if self.kind == "error":
            raise ValueError(f"an error has no reward: {self.reason}")
        return 1.0 if self.kind == "pass" else 0.0


def after_thinking(text: str) -> str:
    """The part of a response that counts: what follows the last `</think>`, or all of it if there is none.

    A `<think>` that is still open leaves nothing.
    """
    visible = text.rpartition("</think>")[2]
    return "" if "<think>" in visible else visible
