"""The watchdog's rules on made-up histories: what is let pass, what is warned of, what is a collapse."""

from __future__ import annotations

import math
from typing import Any

import pytest

from ringrl.config.loss import Watchdog
from ringrl.rl.watchdog import Alarm, judge

HEALTHY = {"loss": 0.1, "entropy": 0.4, "grad_norm": 0.5, "shift": 0.01, "parity": 1e-4, "mismatch_kl": 1e-4,
           "reward_mean": 0.5, "tokens_trained": 100}  # fmt: skip
LIMITS = Watchdog(patience=3, window=5)


def row(step: int, **more: Any) -> dict[str, Any]:
    return {"step": step, "version": step, **HEALTHY, **more}


def verdict(history: list[dict[str, Any]], **more: Any) -> list[Alarm]:
    return judge(history, row(len(history) + 1, **more), LIMITS, clip_norm=1.0, parity_limit=1e-3)


def kinds(alarms: list[Alarm]) -> list[tuple[str, bool]]:
    return [(a.kind, a.collapse) for a in alarms]


GOOD = [row(i) for i in range(1, 9)]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, []),
        ({"grad_norm": 9.0}, []),
        ({"grad_norm": 11.0}, [("gradient", False)]),
        ({"grad_norm": 101.0}, [("gradient", True)]),
        ({"entropy": 0.2}, []),
        ({"entropy": 0.1}, [("entropy", False)]),
        ({"entropy": 0.03}, [("entropy", True)]),
        ({"entropy": 5.0}, [("entropy", True)]),
        ({"shift": 0.6}, [("shift", False)]),
        ({"shift": 2.1}, [("shift", True)]),
        ({"parity": 2e-3}, [("parity", True)]),
        ({"mismatch_kl": 0.06}, [("mismatch", False)]),
        ({"loss": math.nan}, [("not finite", True)]),
        ({"grad_norm": math.inf}, [("not finite", True)]),
        ({"parity": math.nan, "shift": math.nan}, [("not finite", True)]),
        ({"mismatch_kl": 0.06, "parity": 1.0}, [("parity", True), ("mismatch", False)]),
        ({"entropy": 0.0, "grad_norm": 0.0, "tokens_trained": 0}, []),  # nothing was trained on, so nothing was seen
    ],
    ids=str,
)
def test_one_odd_step(change: dict[str, float], expected: list[tuple[str, bool]]):
    assert kinds(verdict(GOOD, **change)) == expected


def test_slow_change_is_no_collapse():
    history: list[dict[str, Any]] = []
    for i in range(60):
        entropy = 0.5 * 0.95**i
        assert verdict(history, entropy=entropy, grad_norm=0.2 * 1.05**i) == []
        history.append(row(i + 1, entropy=entropy, grad_norm=0.2 * 1.05**i))


def test_the_norm_of_a_batch_without_signal_is_no_yardstick():
    quiet = [row(i, grad_norm=1e-5) for i in range(1, 9)]
    assert verdict(quiet, grad_norm=0.9) == []


def rewards(*values: float) -> list[dict[str, Any]]:
    return [row(i + 1, reward_mean=v) for i, v in enumerate(values)]


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        ((0.0,), 0.0, []),  # not yet patience batches
        ((0.0, 0.0), 0.0, [("reward", True)]),
        ((0.5, 0.0, 0.0), 0.0, [("reward", True)]),
        ((0.0, 0.0, 0.0), 0.1, []),
        ((0.6, 0.6, 0.6, 0.4, 0.3), 0.4, []),
        ((0.6, 0.6, 0.6, 0.3, 0.3), 0.3, [("reward", False)]),
        ((0.6, 0.6, 0.6, 0.1, 0.1), 0.1, [("reward", True)]),
        ((0.6, 0.6, 0.6, 0.6, 0.6), 0.0, []),  # one bad batch
    ],
)
def test_rewards(before: tuple[float, ...], now: float, expected: list[tuple[str, bool]]):
    assert kinds(verdict(rewards(*before), reward_mean=now)) == expected


def test_updates_of_one_rollout_batch_count_as_one():
    history = [row(i, reward_mean=0.0) | {"version": i // 4} for i in range(8)]
    assert judge(history, row(9, reward_mean=0.0) | {"version": 1}, LIMITS, 1.0, 1e-3) == []
    assert kinds(judge(history, row(9, reward_mean=0.0) | {"version": 2}, LIMITS, 1.0, 1e-3)) == [("reward", True)]
