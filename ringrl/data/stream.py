"""An endless, seeded, resumable stream over a fixed list: its whole state is how many items were taken.

With a curriculum every pass goes through the same items in an order that depends on their pass rates p:

    easy-first    from high to low p, equal ones in random order
    around-half   drawn one by one without replacement, with weight 4 p (1 - p) + FLOOR: what is solved half of the time
                  tends to come first, what is hardly ever or nearly always solved last
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Generic, TypeVar

T = TypeVar("T")

FLOOR = 0.05  # the weight of what is never or always solved; 1.05 is that of what is solved half of the time


class Stream(Generic[T]):
    """Every pass over the items is a new permutation, a function of the seed and the pass."""

    def __init__(
        self,
        items: Sequence[T],
        seed: int,
        taken: int = 0,
        curriculum: str = "none",  # | "easy-first" | "around-half"
        pass_rates: Sequence[float] = (),  # of each item, with a curriculum
    ) -> None:
        assert items, "an empty stream never ends"
        assert curriculum == "none" or len(pass_rates) == len(items), (curriculum, len(pass_rates), len(items))
        self.items, self.seed, self.taken = items, seed, taken
        self.curriculum, self.pass_rates = curriculum, pass_rates

    def take(self, n: int) -> list[T]:
        out = []
        while n > 0:
            turn, at = divmod(self.taken, len(self.items))
            picked = self._order(turn)[at : at + n]
            out += [self.items[i] for i in picked]
            self.taken += len(picked)
            n -= len(picked)
        return out

    def _order(self, turn: int) -> list[int]:
        """The indices of the items in one pass."""
        rng = random.Random(f"{self.seed}/{turn}")
        order = list(range(len(self.items)))
        if self.curriculum == "around-half":  # the smallest of exponential times with rates w is item i with w_i / sum
            times = [rng.expovariate(4 * p * (1 - p) + FLOOR) for p in self.pass_rates]
            return sorted(order, key=times.__getitem__)
        rng.shuffle(order)
        return sorted(order, key=lambda i: -self.pass_rates[i]) if self.curriculum == "easy-first" else order
