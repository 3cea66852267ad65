"""Assumptions taken from what a run of ours reached."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ringrl.config.commands import RLConfig
from ringrl.config.load import load
from ringrl.errors import DataError
from ringrl.plan import timing
from ringrl.plan.shape import read_shape
from ringrl.plan.timing import Assumed
from ringrl.run import Run

KEYS = ("response_length_mean", "time_train_s", "time_rollout_s")


def measured(folder: str, assumed: Assumed) -> Assumed:
    """`assumed` with response length and shares of FLOP/s and bandwidth of an RL run on GPUs like `assumed.gpu`,
    without its first rollout batch, which warms up.

    Raises:
        DataError: this is no RL run with two rollout batches.
    """
    run = Run(Path(folder))
    cfg = load(RLConfig, run.path / "config.yaml")
    shape, stage = read_shape(cfg.model), cfg.stages[0]
    rows = [row for row in run.rows("metrics") if row["stage"] == stage.name and all(row.get(key) for key in KEYS)]
    rows = rows[:: cfg.updates][1:]  # the updates of a batch share its times
    if not rows:
        raise DataError(f"--measured: got {folder}/metrics.jsonl with fewer than two rollout batches of stage "
                        f"{stage.name}, expected the metrics of an RL run")  # fmt: skip
    response, train_s, rollout_s = (sum(row[key] for row in rows) / len(rows) for key in KEYS)
    seen = replace(assumed, response=response, source=f"measured in {folder}")
    flops = timing.rl_training(shape, cfg, stage, seen).flops
    mfu = flops / (timing.rank_speed(cfg.trainer.ranks, replace(seen, mfu=1.0)) * train_s)
    # the longest response may be what a real rollout waited for: the share holds all of that
    ideal = timing.rl_step(shape, cfg, stage, replace(seen, mfu=1.0, bandwidth=1.0)).decoding
    bandwidth = (ideal.prefill_s + ideal.bulk_s) / rollout_s
    return replace(seen, mfu=min(mfu, 1.0), bandwidth=min(bandwidth, 1.0))
