"""An endless, seeded, resumable stream over a fixed list. Its state is the number of items taken.

With a curriculum, every pass orders the items by their pass rates p:

    easy-first    from high to low p, ties in random order
    around-half   drawn one by one without replacement, with weight 4 p (1 - p) + FLOOR: items solved half of the time
                  tend to come first, items rarely or nearly always solved last
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Generic, TypeVar

T = TypeVar("T")

FLOOR = 0.05  # weight of items never or always solved; items solved half of the time have weight 1.05


class Stream(Generic[T]):
    """Every pass over the items is a new permutation, determined by the seed and the number of the pass."""

    def __init__(
        self,
        items: Sequence[T],
        seed: int,
        taken: int = 0,
        curriculum: str = "none",  # | "easy-first" | "around-half"
        pass_rates: Sequence[float] = (),  # one per item, if there is a curriculum
    ) -> None:
        assert items, "an empty stream never ends"
        assert curriculum == "none" or len(pass_rates) == len(items), (curriculum, len(pass_rates), len(items))
        self.items, self.seed, self.taken = items, seed, taken
        self.curriculum, self.pass_rates = curriculum, pass_rates
        self.current, self.order = -1, [0]  # the number of a pass, and the indices of its items

    def take(self, n: int) -> list[T]:
        items = []
        while n > 0:
            pass_number, at = divmod(self.taken, len(self.items))
            if pass_number != self.current:  # to shuffle a large set takes longer than a step of a small model
                self.current, self.order = pass_number, self._order(pass_number)
            picked = self.order[at : at + n]
            items += [self.items[i] for i in picked]
            self.taken += len(picked)
            n -= len(picked)
        return items

    def _order(self, pass_number: int) -> list[int]:
        """The indices of the items in one pass."""
        rng = random.Random(f"{self.seed}/{pass_number}")
        order = list(range(len(self.items)))
        if self.curriculum == "around-half":  # exponential race: item i is first with probability w_i / sum
            times = [rng.expovariate(4 * p * (1 - p) + FLOOR) for p in self.pass_rates]
            return sorted(order, key=times.__getitem__)
        rng.shuffle(order)
        return sorted(order, key=lambda i: -self.pass_rates[i]) if self.curriculum == "easy-first" else order
