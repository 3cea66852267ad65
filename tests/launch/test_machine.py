"""The environment of processes that share cores."""

from __future__ import annotations

import pytest

from ringrl.config.sections import Rollout
from ringrl.launch.machine import rank_env, worker_env


@pytest.mark.parametrize(("set_by_user", "expected"), [("", "passive"), ("active", "active")])
def test_openmp_does_not_spin_unless_the_user_says_so(
    monkeypatch: pytest.MonkeyPatch, set_by_user: str, expected: str
) -> None:
    if set_by_user:
        monkeypatch.setenv("OMP_WAIT_POLICY", set_by_user)
    else:
        monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    environments = [rank_env(0, 1, 1, 0), worker_env(0, 0, Rollout(), 1)]
    assert [e["OMP_WAIT_POLICY"] for e in environments] == [expected] * 2
