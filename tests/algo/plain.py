"""The methods' losses in plain Python, one response after the other, each written from its paper's own formula.

A response is a dict: new, old, sampler, ref (log-probs, one per token), A (its advantage). Nothing here knows of
tensors or of the package under test.
"""

from __future__ import annotations

import math
import random
from typing import Any

Response = dict[str, Any]


def responses(seed: int, count: int = 9, spread: float = 0.3, gap: float = 0.0) -> list[Response]:
    """Ragged, with ratios on both sides of any clip, none closer than 1e-4 to the bounds in use."""
    rng = random.Random(seed)
    out = []
    for _ in range(count):
        n = rng.randint(1, 12)
        old = [-rng.expovariate(1.0) - 0.05 for _ in range(n)]
        new = [o + rng.gauss(0, spread) for o in old]
        sampler = [o - rng.gauss(0, gap) for o in old] if gap else list(old)
        ref = [o + rng.gauss(0, 0.5) for o in old]
        out.append({"new": new, "old": old, "sampler": sampler, "ref": ref, "A": rng.choice([-1, 1]) * rng.random()})
    return out


def clip(x: float, low: float, high: float) -> float:
    return min(max(x, low), high)


def ratios(y: Response) -> list[float]:
    return [math.exp(a - b) for a, b in zip(y["new"], y["old"], strict=True)]


def k3(y: Response) -> list[float]:
    return [math.exp(r - n) - (r - n) - 1 for r, n in zip(y["ref"], y["new"], strict=True)]


def grpo(batch: list[Response], eps: float = 0.2, beta: float = 0.0) -> float:
    """-(1/N) Σ_i (1/|y_i|) Σ_t [ min(r A, clip(r, 1-ε, 1+ε) A) - β KL ]"""
    total = 0.0
    for y in batch:
        terms = [min(r * y["A"], clip(r, 1 - eps, 1 + eps) * y["A"]) for r in ratios(y)]
        total += sum(t - beta * kl for t, kl in zip(terms, k3(y), strict=True)) / len(terms)
    return -total / len(batch)


def c3po(batch: list[Response], phi: int, eps: float = 0.2, beta: float = 0.0) -> float:
    """-(1/Φ) Σ over the first Φ tokens of [ min(r A, clip(r, 1-ε, 1+ε) A) - β KL ]"""
    total, left = 0.0, phi
    for y in batch:
        for r, kl in zip(ratios(y), k3(y), strict=True):
            if left:
                total += min(r * y["A"], clip(r, 1 - eps, 1 + eps) * y["A"]) - beta * kl
                left -= 1
    return -total / phi


def dapo(batch: list[Response]) -> float:
    """-(1/Σ|y_i|) Σ_i Σ_t min(r A, clip(r, 0.8, 1.28) A)"""
    total = sum(min(r * y["A"], clip(r, 0.8, 1.28) * y["A"]) for y in batch for r in ratios(y))
    return -total / sum(len(y["new"]) for y in batch)


def dr_grpo(batch: list[Response], most: int) -> float:
    """-(1/(N L_max)) Σ_i Σ_t min(r A, clip(r, 0.8, 1.2) A)"""
    return -sum(min(r * y["A"], clip(r, 0.8, 1.2) * y["A"]) for y in batch for r in ratios(y)) / most


def sequence_ratio(y: Response) -> float:
    return (math.exp(sum(y["new"])) / math.exp(sum(y["old"]))) ** (1 / len(y["new"]))


def gspo(batch: list[Response]) -> float:
    """-(1/N) Σ_i min(s_i A, clip(s_i, 1 - 3e-4, 1 + 4e-4) A),  s_i = (π_θ(y_i) / π_old(y_i))^(1/|y_i|)"""
    total = 0.0
    for y in batch:
        s = sequence_ratio(y)
        total += min(s * y["A"], clip(s, 1 - 3e-4, 1 + 4e-4) * y["A"])
    return -total / len(batch)


def cispo(batch: list[Response], fixed: list[list[float]] | None = None) -> float:
    """-(1/Σ|y_i|) Σ_i Σ_t sg[min(r, 6)] A log π_θ;  `fixed` holds the stopped ratios of a finite difference."""
    total = 0.0
    for i, y in enumerate(batch):
        for t, r in enumerate(fixed[i] if fixed else ratios(y)):
            total += min(r, 6.0) * y["A"] * y["new"][t]
    return -total / sum(len(y["new"]) for y in batch)


def rloo(batch: list[Response]) -> float:
    """-(1/N) Σ_i A log π_θ(y_i)"""
    return -sum(y["A"] * sum(y["new"]) for y in batch) / len(batch)
