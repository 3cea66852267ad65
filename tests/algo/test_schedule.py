"""The learning rate at every step of a few schedules."""

from __future__ import annotations

import numpy as np
import pytest

from ringrl.algo.schedule import learning_rate, ramp

TOTAL, LR = 200, 3e-4


def rates(schedule: str, warmup: float, final: float, total: int = TOTAL) -> np.ndarray:
    return np.array([learning_rate(s, total, LR, schedule, warmup, final) for s in range(total)])


@pytest.mark.parametrize(("warmup", "final"), [(0.0, 0.0), (0.1, 0.1), (0.05, 1.0)])
def test_cosine_equals_its_formula(warmup: float, final: float):
    warm = round(warmup * TOTAL)
    up = LR * np.arange(1, warm + 1) / (warm + 1)
    progress = np.linspace(0, 1, TOTAL - warm)
    down = LR * (final + (1 - final) * (1 + np.cos(np.pi * progress)) / 2)
    np.testing.assert_allclose(rates("cosine", warmup, final), np.concatenate([up, down]), rtol=1e-12, atol=1e-18)


def test_constant_is_constant_from_the_first_step():
    assert set(rates("constant", 0.0, 0.0)) == {LR}


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_warm_up_rises_in_equal_steps_from_zero_to_the_rate(schedule: str):
    first = np.concatenate([[0.0], rates(schedule, 0.1, 0.0)[:21]])
    np.testing.assert_allclose(np.diff(first), LR / 21, rtol=1e-9)
    assert first[-1] == pytest.approx(LR, rel=1e-12)


def test_cosine_ends_at_final_and_never_leaves_its_range():
    after = rates("cosine", 0.1, 0.25)[20:]
    assert after[0] == pytest.approx(LR, rel=1e-12)
    assert after[-1] == pytest.approx(0.25 * LR, rel=1e-12)
    assert (np.diff(after) < 0).all()


def test_steps_beyond_the_end_stay_at_the_final_rate():
    assert learning_rate(TOTAL + 50, TOTAL, LR, "cosine", 0.1, 0.25) == pytest.approx(0.25 * LR, rel=1e-12)


@pytest.mark.parametrize("total", [1, 2, 3])
@pytest.mark.parametrize("warmup", [0.0, 0.5, 0.99])
def test_the_shortest_runs_have_a_positive_finite_rate(total: int, warmup: float):
    found = rates("cosine", warmup, 0.1, total)
    assert ((found > 0) & (found <= LR * (1 + 1e-12))).all()


def test_a_ramp_is_a_line_and_stays_at_its_end():
    assert [ramp(step, 5, 0.2, 1.0) for step in range(5)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert ramp(9, 5, 0.2, 1.0) == 1.0
    assert ramp(0, 1, 0.2, 1.0) == 0.2
