"""Rewards for the form of a response, whatever it says. Best given a small weight beside other rewards."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ringrl.rewards.boxes import boxes
from ringrl.rewards.verdict import Verdict, after_thinking, graded


@dataclass(frozen=True)
class FormatVerifier:
    r"""Passes a full match of `pattern`; without one, a response with one thought followed by one `\boxed` answer."""

    pattern: str = ""

    def __post_init__(self) -> None:
        re.compile(self.pattern)

    def __call__(self, response: str, row: Mapping[str, Any]) -> Verdict:
        if self.pattern:
            return graded(re.fullmatch(self.pattern, response) is not None)
        tags = re.findall(r"</?think>", response)
        if tags != ["<think>", "</think>"] or not response.lstrip().startswith("<think>"):
            return Verdict("fail", "thought")
        return Verdict("pass", "right") if len(boxes(after_thinking(response))) == 1 else Verdict("fail", "answers")


@dataclass(frozen=True)
class LengthVerifier:
    """1 up to `target`, falling linearly to 0 at `limit`: in characters, or in tokens of the tokenizer in a folder."""

    target: int
    limit: int
    tokenizer: str = ""
    _length: Callable[[str], int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not 0 <= self.target < self.limit:
            raise ValueError(f"got target {self.target} and limit {self.limit}, expected 0 <= target < limit")
        length: Callable[[str], int] = len
        if self.tokenizer:
            from tokenizers import Tokenizer

            file = Path(self.tokenizer) / "tokenizer.json"
            if not file.is_file():
                raise ValueError(f"tokenizer: no such file: {file}")
            known = Tokenizer.from_file(str(file))

            def length(text: str) -> int:
                return len(known.encode(text, add_special_tokens=False).ids)

        object.__setattr__(self, "_length", length)

    def __call__(self, response: str, row: Mapping[str, Any]) -> Verdict:
        over = self._length(response) - self.target
        score = min(max(1 - over / (self.limit - self.target), 0.0), 1.0)
        return graded(score, "short" if score == 1 else "long" if score else "too_long")
