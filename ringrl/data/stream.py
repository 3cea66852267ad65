"""An endless, seeded, resumable stream over a fixed list: its whole state is how many items were taken."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class Stream(Generic[T]):
    """Every pass over the items is a new permutation, a function of the seed and the pass."""

    def __init__(self, items: Sequence[T], seed: int, taken: int = 0) -> None:
        assert items, "an empty stream never ends"
        self.items, self.seed, self.taken = items, seed, taken

    def take(self, n: int) -> list[T]:
        out = []
        while n > 0:
            turn, at = divmod(self.taken, len(self.items))
            order = list(range(len(self.items)))
            random.Random(f"{self.seed}/{turn}").shuffle(order)
            picked = order[at : at + n]
            out += [self.items[i] for i in picked]
            self.taken += len(picked)
            n -= len(picked)
        return out
