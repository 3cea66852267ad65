"""The methods' losses in plain Python, one response after the other, each written from its paper's own formula.

A response is a dict: new, old, sampler, ref (log-probs, one per token), reward. Nothing here knows of tensors or of the
package under test. `at` holds the batch at which stopped factors, sg[.], are taken: the batch itself for a value, the
one that is not moved for a finite difference.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

Response = dict[str, Any]
Batch = list[list[Response]]  # by prompt
ROOM, BUFFER = 14, 0.2  # L_max of a response, and DAPO's L_c / L_max


def batch(seed: int, prompts: int = 5, spread: float = 0.3, gap: float = 0.0) -> Batch:
    """Ragged groups of 2 to 5 ragged responses; `spread` of new around old, `gap` of the sampler."""
    rng = random.Random(seed)

    def response() -> Response:
        old = [-rng.expovariate(1.0) - 0.05 for _ in range(rng.randint(1, ROOM))]
        new = [o + rng.gauss(0, spread) for o in old]
        sampler = [min(o - rng.gauss(0, gap), -1e-3) for o in old] if gap else list(old)
        ref = [o + rng.gauss(0, 0.5) for o in old]
        return {"new": new, "old": old, "sampler": sampler, "ref": ref, "reward": rng.choice([0.0, 0.25, 1.0])}

    return [[response() for _ in range(rng.randint(2, 5))] for _ in range(prompts)]


# ---- advantages of the rewards of one prompt


def standardized(rewards: list[float]) -> list[float]:
    """(R_i - mean R) / std R"""
    mean = sum(rewards) / len(rewards)
    std = math.sqrt(sum((r - mean) ** 2 for r in rewards) / len(rewards))
    return [(r - mean) / std if len(set(rewards)) > 1 else 0.0 for r in rewards]


def centered(rewards: list[float]) -> list[float]:
    """R_i - mean R"""
    return [r - sum(rewards) / len(rewards) for r in rewards]


def leave_one_out(rewards: list[float]) -> list[float]:
    """R_i - mean of the others"""
    out = []
    for i, r in enumerate(rewards):
        others = rewards[:i] + rewards[i + 1 :]
        out.append(r - sum(others) / len(others) if others else 0.0)
    return out


def overlong(length: int, most: int, soft: float) -> float:
    """0 up to L_max - L_c, then falling to -1 at L_max, and -1 beyond"""
    if length <= most - soft:
        return 0.0
    return ((most - soft) - length) / soft if length <= most else -1.0


def judged(b: Batch, advantages: Callable[[list[float]], list[float]], soft: float = 0) -> list[tuple[Response, float]]:
    """Every response and its advantage."""
    out = []
    for group in b:
        rewards = [y["reward"] + (overlong(len(y["new"]), ROOM, soft) if soft else 0.0) for y in group]
        out += list(zip(group, advantages(rewards), strict=True))
    return out


# ---- pieces


def clipped(r: float, a: float, low: float, high: float) -> float:
    """min(r A, clip(r, 1 - low, 1 + high) A)"""
    return min(r * a, min(max(r, 1 - low), 1 + high) * a)


def ratios(y: Response) -> list[float]:
    return [math.exp(a) / math.exp(b) for a, b in zip(y["new"], y["old"], strict=True)]


def k3(y: Response) -> list[float]:
    return [math.exp(r) / math.exp(n) - (r - n) - 1 for r, n in zip(y["ref"], y["new"], strict=True)]


def sequence_ratio(y: Response) -> float:
    """(π_θ(y) / π_old(y))^(1/|y|)"""
    return math.prod(ratios(y)) ** (1 / len(y["new"]))


def tokens(b: Batch) -> int:
    return sum(len(y["new"]) for group in b for y in group)


def count(b: Batch) -> int:
    return sum(len(group) for group in b)


# ---- losses


def grpo(b: Batch, at: Batch) -> float:
    """-(1/N) Σ_i (1/|y_i|) Σ_t [ min(r A, clip(r, 0.8, 1.2) A) - 0.001 KL ]"""
    total = 0.0
    for y, a in judged(b, standardized):
        terms = [clipped(r, a, 0.2, 0.2) - 1e-3 * kl for r, kl in zip(ratios(y), k3(y), strict=True)]
        total += sum(terms) / len(terms)
    return -total / count(b)


def c3po(b: Batch, at: Batch, phi: int) -> float:
    """-(1/Φ) Σ over the first Φ tokens of [ min(r A, clip(r, 0.8, 1.2) A) - 0.001 KL ]"""
    total, left = 0.0, phi
    for y, a in judged(b, standardized):
        for r, kl in zip(ratios(y), k3(y), strict=True):
            if left:
                total += clipped(r, a, 0.2, 0.2) - 1e-3 * kl
                left -= 1
    return -total / phi


def dapo(b: Batch, at: Batch) -> float:
    """-(1/Σ|y_i|) Σ_i Σ_t min(r A, clip(r, 0.8, 1.28) A), rewards with the overlong punishment"""
    return -sum(clipped(r, a, 0.2, 0.28) for y, a in judged(b, standardized, BUFFER * ROOM) for r in ratios(y)) / (
        tokens(b)
    )


def dr_grpo(b: Batch, at: Batch) -> float:
    """-(1/(N L_max)) Σ_i Σ_t min(r A, clip(r, 0.8, 1.2) A), A without a deviation"""
    return -sum(clipped(r, a, 0.2, 0.2) for y, a in judged(b, centered) for r in ratios(y)) / (count(b) * ROOM)


def gspo(b: Batch, at: Batch) -> float:
    """-(1/N) Σ_i min(s_i A, clip(s_i, 1 - 3e-4, 1 + 4e-4) A)"""
    return -sum(clipped(sequence_ratio(y), a, 3e-4, 4e-4) for y, a in judged(b, standardized)) / count(b)


def gspo_token(b: Batch, at: Batch) -> float:
    """-(1/N) Σ_i (1/|y_i|) Σ_t min(s_it A, clip(s_it) A),  s_it = sg[s_i] π_θ / sg[π_θ]"""
    total = 0.0
    for (y, a), fixed in zip(judged(b, standardized), [y for group in at for y in group], strict=True):
        own = [math.exp(n) / math.exp(m) for n, m in zip(y["new"], fixed["new"], strict=True)]
        total += sum(clipped(sequence_ratio(fixed) * x, a, 3e-4, 4e-4) for x in own) / len(own)
    return -total / count(b)


def cispo(b: Batch, at: Batch) -> float:
    """-(1/Σ|y_i|) Σ_i Σ_t sg[min(r, 1 + 5)] A log π_θ"""
    total = 0.0
    for (y, a), fixed in zip(judged(b, standardized), [y for group in at for y in group], strict=True):
        total += sum(min(r, 6.0) * a * n for r, n in zip(ratios(fixed), y["new"], strict=True))
    return -total / tokens(b)


def rloo(b: Batch, at: Batch) -> float:
    """-(1/N) Σ_i A Σ_t π_θ / sg[π_θ], which has the gradient of -(1/N) Σ_i A log π_θ(y_i)"""
    total = 0.0
    for (y, a), fixed in zip(judged(b, leave_one_out), [y for group in at for y in group], strict=True):
        total += a * sum(math.exp(n) / math.exp(m) for n, m in zip(y["new"], fixed["new"], strict=True))
    return -total / count(b)


def reinforce(b: Batch, at: Batch) -> float:
    return -sum(a * sum(y["new"]) for y, a in judged(b, leave_one_out)) / count(b)
