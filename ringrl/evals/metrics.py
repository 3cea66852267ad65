"""Numbers over scored groups. A verifier's error is no verdict: it is counted, and left out of the scores."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

from ringrl.types import ScoredGroup


def summarize(scored: Sequence[ScoredGroup]) -> dict[str, Any]:
    """avg@k with its standard error over problems, unbiased pass@k, lengths, truncation and error counts."""
    valid = [g.judged for g in scored if g.judged]
    means = [statistics.fmean(v) for v in valid]
    k = max((len(g.rewards) for g in scored), default=0)
    completions = [c for g in scored for c in g.group.completions]
    return {
        "avg": statistics.fmean(means) if means else 0.0,
        "se": statistics.stdev(means) / math.sqrt(len(means)) if len(means) > 1 else 0.0,
        "pass_k": statistics.fmean(pass_at_k(len(v), sum(x == 1 for x in v), min(k, len(v))) for v in valid)
        if valid
        else 0.0,
        "k": k,
        "n": len(scored),
        "length_mean": statistics.fmean(len(c.token_ids) for c in completions) if completions else 0.0,
        "truncated_frac": statistics.fmean(c.finish == "length" for c in completions) if completions else 0.0,
        "errors": sum(bool(e) for g in scored for e in g.errors),
    }


def repetition(token_ids: Sequence[int], n: int = 8, last: int = 2048) -> float:
    """Share of the n-grams in the last tokens of a response that it had made before: near 1 in a loop."""
    tail = tuple(token_ids[-last:])
    grams = [tail[i : i + n] for i in range(len(tail) - n + 1)]
    return 1.0 - len(set(grams)) / len(grams) if grams else 0.0


def pass_at_k(n: int, correct: int, k: int) -> float:
    """Unbiased estimate of the chance that one of k samples is right, from n of which `correct` are:
    1 - C(n - c, k) / C(n, k) (arXiv 2107.03374)."""
    return 1.0 - math.comb(n - correct, k) / math.comb(n, k)
