"""Benchmark problems as they turn up in training sets: all of it written otherwise, where `plants` changes a bit."""

from __future__ import annotations

import random
import re
import string
from itertools import pairwise

from tests.curate.plants import retyped, spaced

_FORMULA = re.compile(r"\$\$?.*?\$\$?|\\\[.*?\\\]|\\\(.*?\\\)", re.DOTALL)
_NAME = re.compile(r"\\[A-Za-z]+|\{[a-z]+\*?\}|[A-Za-z]+")


def variables(text: str, rng: random.Random) -> str:
    """Other letters for all variables and points in formulas, one for one."""
    new = {}
    for letters in ("abcdghjkmnpqrstuvwxyz", string.ascii_uppercase):
        new |= dict(zip(letters, rng.sample(letters, len(letters)), strict=True))

    def renamed(name: re.Match[str]) -> str:
        word = name[0]
        if word[0] in "\\{" or (len(word) > 1 and not word.isupper()):
            return word
        return "".join(new.get(c, c) for c in word)

    return _FORMULA.sub(lambda formula: _NAME.sub(renamed, formula[0]), text)


def sentences(text: str, rng: random.Random) -> str:
    """In another order; a text of one sentence stays as it is."""
    masked = _FORMULA.sub(lambda m: "X" * len(m[0]), text)
    cuts = [0, *(m.end() for m in re.finditer(r"(?<=[.?!])\s+(?=[A-Z])", masked)), len(text)]
    parts = [text[a:b].strip() for a, b in pairwise(cuts)]
    shuffled = rng.sample(parts, len(parts))
    return " ".join(shuffled if shuffled != parts else parts[::-1])


def numbers(text: str, rng: random.Random) -> str:
    return re.sub(r"\d+", lambda m: str(int(m[0]) + rng.choice([1, 2, 3, 7])), text)


CHANGES = {f.__name__: f for f in (spaced, retyped, variables, sentences, numbers)}
