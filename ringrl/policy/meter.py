"""Sums over microbatches and ranks, by name."""

from __future__ import annotations

import torch

from ringrl.policy.ranks import Ranks


class Meter:
    """`add` on every microbatch, `total` once per step: one all-reduce for all names."""

    def __init__(self) -> None:
        self.sums: dict[str, torch.Tensor] = {}

    def add(self, **values: torch.Tensor) -> None:
        for name, value in values.items():
            value = value.detach().double()
            self.sums[name] = self.sums[name] + value if name in self.sums else value

    def total(self, ranks: Ranks) -> dict[str, float]:
        """Sums over ranks; every rank must have added the same names."""
        names = sorted(self.sums)
        sums = ranks.sum(torch.stack([self.sums[n] for n in names]))
        return dict(zip(names, sums.tolist(), strict=True))
