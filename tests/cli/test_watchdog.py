"""The watchdog in the real loop: each thing that goes wrong is made to go wrong, and must end the run with 3."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import RANKS, VERIFIERS, Inputs, lines, meddle, ringrl, rl_config, write_yaml

NAN_IN_THE_SECOND_UPDATE = """
    import dataclasses
    import ringrl.rl.loop as rl
    calls, update = [], rl.update
    def broken(policy, loss, before, lr, alpha):
        calls.append(1)
        if len(calls) == 2:
            rows = [dataclasses.replace(mb, advantages=mb.advantages * float("nan")) for mb in before.rows]
            before = dataclasses.replace(before, rows=rows)
        return update(policy, loss, before, lr, alpha)
    rl.update = broken
"""
STALE_WEIGHTS = """
    from ringrl.rollout.local import LocalEngine
    update = LocalEngine.update
    def stale(self, buckets, version):
        if version == 0:
            return update(self, buckets, version)
        self.version = version
        return all(True for _ in buckets)
    LocalEngine.update = stale
"""
THREE_GOOD_BATCHES = """
    import ringrl.rewards.answers as answers
    from ringrl.rewards import Verdict
    calls = []
    def verify(text, reference):
        calls.append(1)
        return Verdict("pass" if len(calls) <= 48 and len(calls) % 2 else "fail", "")
    answers.verify_math = verify
"""


def config(inputs: Inputs, folder: Path, **more: Any) -> Path:
    return write_yaml(folder / "rl.yaml", rl_config(inputs, folder / "run", save_every=1, **more))


def alarms(run: Path, step: int) -> list[dict[str, Any]]:
    return json.loads((run / "watchdog" / f"step_{step:06d}.json").read_text())["alarms"]


def saved_prompts(run: Path, step: int) -> set[str]:
    batch = torch.load(run / "watchdog" / f"step_{step:06d}.pt")  # tensors, and what JSON has
    return {g["group"]["prompt"]["id"] for g in batch["scored"]}


def is_finite(checkpoint: Path) -> bool:
    return all(torch.isfinite(t).all() for t in load_file(checkpoint / "model.safetensors").values())


def test_a_nan_loss_stops_the_run_with_its_batch_and_the_last_good_checkpoint(inputs: Inputs, tmp_path: Path) -> None:
    with meddle(tmp_path / "meddle", RANKS, NAN_IN_THE_SECOND_UPDATE):
        result = ringrl("rl", config(inputs, tmp_path))
    run = tmp_path / "run"
    assert result.code == 3, result.text
    assert "step 2: not finite: " in result.text
    assert str(run / "checkpoints" / "step_000001") in result.text
    assert [p.name for p in (run / "checkpoints").iterdir()] == ["step_000001"]
    assert is_finite(run / "checkpoints" / "step_000001")
    assert len(lines(run / "metrics.jsonl")) == 1
    assert alarms(run, 2)[0]["kind"] == "not finite"
    assert len(saved_prompts(run, 2)) == 4


def test_a_nan_loss_is_rolled_back_and_its_batch_left_out(inputs: Inputs, tmp_path: Path) -> None:
    with meddle(tmp_path / "meddle", RANKS, NAN_IN_THE_SECOND_UPDATE):
        result = ringrl("rl", config(inputs, tmp_path), "watchdog.on_collapse=rollback", "rollouts_kept=16")
    run = tmp_path / "run"
    assert result.code == 0, result.text
    assert "back to step 1, without the batch" in result.text
    rows = lines(run / "metrics.jsonl")
    assert [r["step"] for r in rows] == [1, 2, 3, 4]
    assert [r["version"] for r in rows] == [0, 2, 3, 4]
    assert is_finite(run / "checkpoints" / "step_000004")
    second = {r["prompt_id"] for r in lines(run / "rollouts" / "step_000002.jsonl")}
    assert not second & saved_prompts(run, 2)


@pytest.mark.slow
def test_going_back_before_the_first_step_and_giving_up(inputs: Inputs, tmp_path: Path) -> None:
    always = NAN_IN_THE_SECOND_UPDATE.replace("len(calls) == 2", "True")
    more = ["watchdog.on_collapse=rollback", "watchdog.max_rollbacks=2"]
    with meddle(tmp_path / "meddle", RANKS, always):
        result = ringrl("rl", config(inputs, tmp_path), *more)
    assert result.code == 3, result.text
    assert result.text.count("back to step 0, without the batch") == 2
    assert is_finite(tmp_path / "run" / "checkpoints" / "step_000000")


@pytest.mark.slow
def test_a_learning_rate_of_ten_is_a_collapse(inputs: Inputs, tmp_path: Path) -> None:
    result = ringrl("rl", config(inputs, tmp_path, optimizer={"lr": 10}), "trainer.ranks=2")
    assert result.code == 3, result.text
    assert "step 1: shift: the update moved the log-probs of a fixed prompt by" in result.text
    assert "the last good state is the start model" in result.text
    assert (tmp_path / "run" / "watchdog" / "step_000001.pt").is_file()


@pytest.mark.slow
def test_a_verifier_that_turns_to_zeros_is_a_collapse(inputs: Inputs, tmp_path: Path) -> None:
    file = config(inputs, tmp_path, watchdog={"patience": 3})
    with meddle(tmp_path / "meddle", VERIFIERS, THREE_GOOD_BATCHES):
        result = ringrl("rl", file, "stages.0.steps=8", "save_every=8")
    assert result.code == 3, result.text
    assert "warning, step 5: reward" in result.text
    assert "step 6: reward: no response got a reward in the last 3 rollout batches" in result.text
    assert [r["reward_mean"] for r in lines(tmp_path / "run" / "metrics.jsonl")] == [0.5, 0.5, 0.5, 0, 0, 0]


def test_a_sampler_whose_weights_were_not_updated_is_a_collapse(inputs: Inputs, tmp_path: Path) -> None:
    with meddle(tmp_path / "meddle", RANKS, STALE_WEIGHTS):
        result = ringrl("rl", config(inputs, tmp_path))
    assert result.code == 3, result.text
    assert "step 1: parity: after the weight sync the engine's log-probs differ" in result.text
    assert not list((tmp_path / "run" / "checkpoints").glob("*"))
