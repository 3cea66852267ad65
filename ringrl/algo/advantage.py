"""Group-relative advantages (Eq. 1):  A_i = (R_i - mean(R_1..R_K)) / std(R_1..R_K), the same for every token of i.

What we do otherwise: nothing is divided by a standard deviation of zero; in a flat group A = 0. The standard
deviation is the population one (ddof 0); the paper does not say which.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from ringrl.types import Sample, ScoredGroup


def group_advantages(rewards: Sequence[float]) -> list[float]:
    """rewards [K] -> advantages [K]."""
    mean, std = statistics.fmean(rewards), statistics.pstdev(rewards)
    return [(r - mean) / std if std > 0 else 0.0 for r in rewards]


def group_relative(scored: Sequence[ScoredGroup]) -> list[Sample]:
    """Every response with its advantage, computed on full groups, prompt by prompt, before anything is dropped.

    A response whose verifier failed has no reward: it is left out, and the advantages are those of the others.
    """
    samples = []
    for g in scored:
        valid = [i for i, error in enumerate(g.errors) if not error]
        advantages = group_advantages([g.rewards[i] for i in valid]) if valid else []
        for i, advantage in zip(valid, advantages, strict=True):
            completion = g.group.completions[i]
            n = len(completion.token_ids)
            samples.append(Sample(g.group.prompt, completion, g.rewards[i], advantage, n))
    return samples
