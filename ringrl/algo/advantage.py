"""Advantages from a group of K rewards, the same for every token of response i. Three forms:

    standardized    A_i = (R_i - mean R) / std R          GRPO, C3PO (Eq. 1)
    centered        A_i =  R_i - mean R                   Dr.GRPO (arXiv 2503.20783)
    leave_one_out   A_i =  R_i - mean of the others' R    RLOO (arXiv 2402.14740)

What we do otherwise: nothing is divided by a standard deviation of zero; in a flat group A = 0. The standard
deviation is the population one (ddof 0); the paper does not say which.

Overlong shaping (DAPO, arXiv 2503.14476) takes from a reward what the last `buffer` of the room was used for:

    R_i += min(-(|y_i| - (L_max - L_c)) / L_c, 0)         L_c = buffer L_max

where L_max is the room for the response: the length limit without the prompt.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from ringrl.types import Sample, ScoredGroup, all_of


def group_advantages(rewards: Sequence[float], form: str = "standardized") -> list[float]:
    """rewards [K] -> advantages [K]."""
    if len(set(rewards)) == 1:
        return [0.0] * len(rewards)
    mean, k = statistics.fmean(rewards), len(rewards)
    if form == "leave_one_out":
        return [(r - mean) * k / (k - 1) for r in rewards]
    if form == "centered":
        return [r - mean for r in rewards]
    assert form == "standardized", form
    std = statistics.pstdev(rewards)
    return [(r - mean) / std for r in rewards]


def overlong_penalty(length: int, room: int, buffer: float) -> float:
    """What is added to the reward of a response of `length` tokens where there was `room` for: in [-1, 0].

    Args:
        buffer: L_c / L_max in [0, 1]; 0 turns it off. DAPO: 4096 / 20480 = 0.2.
    """
    soft = buffer * room
    return max(min((room - soft - length) / soft, 0.0), -1.0) if soft > 0 else 0.0


def group_relative(
    scored: Sequence[ScoredGroup], form: str = "standardized", buffer: float = 0.0, max_total_tokens: int = 0
) -> list[Sample]:
    """Every response with its advantage, computed on full groups, prompt by prompt, before anything is dropped.

    A response whose verifier failed has no reward: it is left out, and the advantages are those of the others.

    Args:
        buffer: of overlong shaping; it changes the advantages, not the rewards that are reported.
        max_total_tokens: prompt + response; read with a `buffer` only.
    """
    samples = []
    for g in scored:
        room = max_total_tokens - len(g.group.prompt.token_ids)
        valid = [i for i, error in enumerate(g.errors) if not error]
        lengths = [len(g.group.completions[i].token_ids) for i in valid]
        shaped = [g.rewards[i] + overlong_penalty(n, room, buffer) for i, n in zip(valid, lengths, strict=True)]
        advantages = group_advantages(shaped, form) if valid else []
        for i, n, advantage in zip(valid, lengths, advantages, strict=True):
            samples.append(Sample(g.group.prompt, g.group.completions[i], g.rewards[i], advantage, all_of(n)))
    return samples
