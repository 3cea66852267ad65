"""Sums and largest values over microbatches and ranks, by name."""

from __future__ import annotations

import torch

from ringrl.policy.ranks import Ranks


class Meter:
    """`add` and `peak` on every microbatch, `total` and `peaks` once per step: one all-reduce for all names."""

    def __init__(self) -> None:
        self.sums: dict[str, torch.Tensor] = {}
        self.largest: dict[str, torch.Tensor] = {}

    def add(self, **values: torch.Tensor) -> None:
        for name, value in values.items():
            value = value.detach().double()
            self.sums[name] = self.sums[name] + value if name in self.sums else value

    def peak(self, **values: torch.Tensor) -> None:
        """values [n]: their maximum counts; nothing when n = 0."""
        for name, value in values.items():
            top = torch.cat([value.detach().double().flatten(), value.new_full((1,), -torch.inf).double()]).max()
            self.largest[name] = torch.maximum(self.largest[name], top) if name in self.largest else top

    def total(self, ranks: Ranks) -> dict[str, float]:
        """Sums over ranks; every rank must have added the same names."""
        names = sorted(self.sums)
        sums = ranks.sum(torch.stack([self.sums[n] for n in names]))
        return dict(zip(names, sums.tolist(), strict=True))

    def peaks(self, ranks: Ranks) -> dict[str, float]:
        """Maxima over ranks; every rank must have added the same names."""
        names = sorted(self.largest)
        tops = ranks.max(torch.stack([self.largest[n] for n in names]))
        return dict(zip(names, tops.tolist(), strict=True))
