"""Learning rate as a function of the step, without state, so that a resumed run cannot disagree."""

from __future__ import annotations

import math


def learning_rate(step: int, total: int, lr: float, schedule: str, warmup: float, final: float) -> float:
    """Rate of optimizer step `step` (from 0) of `total`: linear warm-up over `warmup * total` steps, then
    constant, or cosine down to `final * lr` at the last step."""
    warm = round(warmup * total)
    if step < warm:
        return lr * (step + 1) / (warm + 1)
    if schedule == "constant":
        return lr
    done = (step - warm) / max(total - 1 - warm, 1)
    return lr * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0))))


def ramp(step: int, total: int, first: float, last: float) -> float:
    """A line from `first` at step 0 to `last` at step total - 1."""
    return first + (last - first) * min(step / max(total - 1, 1), 1.0)
