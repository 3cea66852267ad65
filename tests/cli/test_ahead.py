"""Sampling ahead of training: how old what is trained on is, and that it can be killed and resumed."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Inputs, children_of_tests, lines, ringrl, ringrl_until, rl_config, timeless, write_yaml

pytestmark = pytest.mark.usefixtures("uneven_rewards")


def config(inputs: Inputs, folder: Path, **more: Any) -> dict[str, Any]:
    config = rl_config(inputs, folder / "run", max_staleness=1, loss={"old_logprobs": "sampler"}, **more)
    config["stages"][0] |= {"steps": 5, "budget": {"phi": 200, "flat_groups": "keep", "max_resamples": 8}}
    return config


@pytest.mark.parametrize(
    "more",
    [
        ["rollout.engine=transformers"],
        ["rollout.engine=vllm", "rollout.workers=2", "trainer.ranks=2", "trainer.parallel.expert=2",
         "stages.0.budget.retention=2"],
    ],
    ids=["one process", "two workers, two ranks, carried-over rollouts"],
)  # fmt: skip
@pytest.mark.slow
def test_a_killed_run_that_samples_ahead_resumes_exactly(more: list[str], inputs: Inputs, tmp_path: Path) -> None:
    file = write_yaml(tmp_path / "rl.yaml", config(inputs, tmp_path))
    assert (result := ringrl("rl", file, *more)).code == 0, result.text
    rows = lines(tmp_path / "run" / "metrics.jsonl")
    if "stages.0.budget.retention=2" not in more:
        assert [r["staleness"] for r in rows] == [0, 1, 1, 1, 1]
    assert all(r["tokens_trained"] == 200 and r["parity"] < 1e-3 for r in rows)
    metrics = tmp_path / "again" / "metrics.jsonl"
    more.append(f"run={tmp_path / 'again'}")
    ringrl_until(lambda: metrics.is_file() and metrics.read_text().count("\n") >= 3, signal.SIGKILL, "rl", file, *more)
    assert (result := ringrl("rl", file, *more, "--resume")).code == 0, result.text
    assert timeless(metrics) == timeless(tmp_path / "run" / "metrics.jsonl")
    assert children_of_tests() == []


@pytest.mark.slow
def test_weights_arrive_in_the_middle_of_a_generation(inputs: Inputs, tmp_path: Path) -> None:
    pytest.importorskip("vllm")
    cfg = config(inputs, tmp_path, rollouts_kept=64)
    cfg["rollout"] |= {"engine": "vllm", "in_flight": True, "concurrent": 4}
    cfg["stages"][0] |= {"max_total_tokens": 160, "steps": 6}
    result = ringrl("rl", write_yaml(tmp_path / "rl.yaml", cfg), "max_staleness=2")
    assert result.code == 0, result.text
    rows = lines(tmp_path / "run" / "metrics.jsonl")
    assert all(0 <= r["staleness"] <= 2 and r["parity"] < 1e-3 for r in rows)
    responses = [r for s in range(1, 7) for r in lines(tmp_path / "run" / "rollouts" / f"step_{s:06d}.jsonl")]
    assert all(r["version"] <= r["newest"] for r in responses)
    assert any(r["version"] < r["newest"] for r in responses)
