"""C3PO's token budget (Eq. 2-3): which tokens of a rollout batch are trained on.

    Ψ = the leading tokens of y_1, ..., y_N in filling order, with |Ψ| = Φ exactly.

The last response is cut at the token where the budget is met, after advantages were computed on full groups
and before the backward pass (Fig. 3). The loss divides by Φ, never by the number of tokens found.

What we do otherwise, where the paper is silent: groups with equal rewards (A = 0) may be left out before they
eat budget; a shortfall is returned as it is, for the caller to sample more or to train on fewer.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from ringrl.types import Sample, ScoredGroup


def fill_budget(samples: Sequence[Sample], phi: int) -> list[Sample]:
    """Take responses in the given order until exactly `phi` tokens are taken; the last one is cut.

    Invariant: the sum of `num_trained` is min(phi, all tokens).
    """
    assert phi > 0, phi
    chosen, left = [], phi
    for s in samples:
        if left == 0:
            break
        take = min(len(s.completion.token_ids), left)
        chosen.append(replace(s, num_trained=take))
        left -= take
    return chosen


def fill_shares(samples: Sequence[Sample], phi: int, shares: int) -> list[list[Sample]]:
    """Split responses into `shares` consecutive parts of about equal token count and fill each with phi / shares.

    One share per rank or per minibatch (the scopes of Φ that the paper leaves open). What one share lacks is
    not borrowed from another, so a share may fall short while the whole does not.
    """
    assert phi % shares == 0, (phi, shares)
    return [fill_budget(part, phi // shares) for part in _split(samples, shares)]


def drop_flat(scored: Sequence[ScoredGroup]) -> list[ScoredGroup]:
    """Without the groups whose rewards are all equal: they carry no advantage."""
    return [g for g in scored if not g.flat]


def shuffled(samples: Sequence[Sample], seed: int) -> list[Sample]:
    order = list(samples)
    random.Random(seed).shuffle(order)
    return order


def num_tokens(samples: Sequence[Sample]) -> int:
    return sum(s.num_trained for s in samples)


def _split(samples: Sequence[Sample], shares: int) -> list[list[Sample]]:
    parts: list[list[Sample]] = [[] for _ in range(shares)]
    total, seen = num_tokens(samples), 0
    for s in samples:
        parts[min(shares * seen // max(total, 1), shares - 1)].append(s)
        seen += s.num_trained
    return parts
