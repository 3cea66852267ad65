"""C3PO's token budget (Eq. 2-3): which tokens of a rollout batch are trained on.

    Ψ = the leading tokens of y_1, ..., y_N in filling order, with |Ψ| = Φ exactly.

The last response is cut at the token where the budget is met, after advantages were computed on full groups
and before the backward pass (Fig. 3). The loss divides by Φ, never by the number of tokens taken.

What we do otherwise, where the paper is silent:
1. Groups with equal rewards (A = 0) may be left out before they eat budget.
2. A shortfall is returned as it is, for the caller to sample more or to train on fewer.
3. Filling orders: prompt by prompt as in Fig. 3, shuffled, length-balanced, or the most informative first.
4. The last response may stay whole (Eq. 3 by its letter): then |Ψ| >= Φ, and the loss still divides by Φ.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from ringrl.types import Sample, ScoredGroup

STRATA = 8  # length classes of the length-balanced order


def fill_budget(samples: Sequence[Sample], phi: int, overshoot: bool = False) -> list[Sample]:
    """Take responses in the given order until exactly `phi` tokens are taken; the last one is cut.

    Invariant: the sum of `num_trained` is min(phi, all tokens); with `overshoot` the last response stays whole.
    """
    assert phi > 0, phi
    chosen, left = [], phi
    for s in samples:
        if left <= 0:
            break
        if s.num_trained > left and not overshoot:
            s = replace(s, trained=s.trained & (np.cumsum(s.trained) <= left))
        chosen.append(s)
        left -= s.num_trained
    return chosen


def fill_shares(samples: Sequence[Sample], phi: int, shares: int, overshoot: bool = False) -> list[list[Sample]]:
    """Split responses into `shares` consecutive parts of about equal token count and fill each with phi / shares.

    One share per rank or per minibatch (the scopes of Φ that the paper leaves open). What one share lacks is
    not borrowed from another, so a share may fall short while the whole does not.
    """
    assert phi % shares == 0, (phi, shares)
    return [fill_budget(part, phi // shares, overshoot) for part in _split(samples, shares)]


def drop_flat(scored: Sequence[ScoredGroup]) -> list[ScoredGroup]:
    """Without the groups whose rewards are all equal: they carry no advantage."""
    return [g for g in scored if not g.flat]


def shuffled(samples: Sequence[Sample], seed: int) -> list[Sample]:
    order = list(samples)
    random.Random(seed).shuffle(order)
    return order


def length_balanced(samples: Sequence[Sample], seed: int) -> list[Sample]:
    """Short and long responses in turn, so that every leading part has about the lengths of the whole.

    Responses are sorted into STRATA classes of equal count by length, shuffled within each, and dealt out one
    from each class in a random order of classes.
    """
    rng = random.Random(seed)
    ranked = sorted(shuffled(samples, seed), key=lambda s: s.num_trained)
    size = max(math.ceil(len(ranked) / STRATA), 1)
    strata = [shuffled(ranked[i : i + size], rng.randrange(1 << 30)) for i in range(0, len(ranked), size)]
    rng.shuffle(strata)
    return [s for row in itertools.zip_longest(*strata) for s in row if s is not None]


def informative_first(samples: Sequence[Sample], keep: float) -> list[Sample]:
    """D3S at the level of samples (arXiv 2509.22115): of every group the subset with the largest variance of A.

    Each group gives its ceil(keep K) responses (at least 2) of largest Var(A), in the order of the groups; what
    is left follows, so that a budget can still be filled.
    """
    first: list[Sample] = []
    rest: list[Sample] = []
    for _, group in itertools.groupby(samples, key=lambda s: id(s.prompt)):
        members = list(group)
        picked = _widest(members, min(max(math.ceil(round(keep * len(members), 9)), 2), len(members)))
        first += [s for i, s in enumerate(members) if i in picked]
        rest += [s for i, s in enumerate(members) if i not in picked]
    return first + rest


def _widest(group: Sequence[Sample], m: int) -> set[int]:
    """Indices of the m members with the largest variance of A: always the a lowest and the m - a highest."""
    order = sorted(range(len(group)), key=lambda i: group[i].advantage)

    def variance(a: int) -> float:
        values = [group[i].advantage for i in order[:a] + order[len(order) - (m - a) :]]
        mean = math.fsum(values) / m
        return math.fsum((v - mean) ** 2 for v in values)

    a = max(range(m + 1), key=variance)
    return set(order[:a] + order[len(order) - (m - a) :])


def top_tokens(scores: torch.Tensor, count: int) -> torch.Tensor:
    """D3S at the level of tokens: the `count` largest of scores [n] (|A_t| H_t), ties to the earlier -> bool [n]."""
    keep = torch.zeros(len(scores), dtype=torch.bool, device=scores.device)
    keep[scores.sort(descending=True, stable=True).indices[:count]] = True
    return keep


def num_tokens(samples: Sequence[Sample]) -> int:
    return sum(s.num_trained for s in samples)


def _split(samples: Sequence[Sample], shares: int) -> list[list[Sample]]:
    parts: list[list[Sample]] = [[] for _ in range(shares)]
    total, before = num_tokens(samples), 0
    for s in samples:
        parts[min(shares * before // max(total, 1), shares - 1)].append(s)
        before += s.num_trained
    return parts
