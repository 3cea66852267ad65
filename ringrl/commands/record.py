"""What is kept of a rollout batch: metrics, a sample of the responses, and what the display shows."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

from ringrl.algo.advantage import group_relative
from ringrl.algo.budget import num_tokens
from ringrl.commands.context import Context
from ringrl.config import RLConfig
from ringrl.types import MicroBatch, Sample, ScoredGroup


@dataclass(frozen=True)
class Work:
    """One rank's share of a rollout batch."""

    updates: list[list[MicroBatch]]  # [updates][rows]


@dataclass(frozen=True)
class Batch:
    """A rollout batch, chosen and packed, on rank 0."""

    stage: str
    work: list[Work]  # [ranks]
    chosen: list[list[Sample]]  # [updates]
    scored: list[ScoredGroup]
    phi: int  # tokens per update
    times: dict[str, float]


def record(
    ctx: Context,
    cfg: RLConfig,
    step: int,
    batch: Batch,
    updates: list[dict[str, float]],
    numbers: dict[str, Any],
) -> None:
    """One line of metrics per optimizer step, a sample of the rollouts, and the display.

    Args:
        step: steps done before this batch.
        numbers: what is measured once per rollout batch, whatever the number of updates.
    """
    completions = [c for g in batch.scored for c in g.group.completions]
    rewards = [r for g in batch.scored for r in g.judged]
    generated = sum(len(c.token_ids) for c in completions)
    seconds = sum(batch.times.values()) + numbers["time_train_s"] + numbers["time_sync_s"]
    common: dict[str, Any] = {
        "stage": batch.stage,
        "reward_mean": statistics.fmean(rewards) if rewards else 0.0,
        "groups_solved": sum(g.solved for g in batch.scored),
        "groups_unsolved": sum(g.unsolved for g in batch.scored),
        "groups_mixed": sum(not g.flat for g in batch.scored),
        "tokens_generated": generated,
        "tokens_dropped": generated - sum(num_tokens(c) for c in batch.chosen),
        "phi": batch.phi,
        "response_length_mean": generated / len(completions),
        "truncated_frac": statistics.fmean(c.finish == "length" for c in completions),
        "masked_frac": 0.0,
        "reward_errors": sum(bool(e) for g in batch.scored for e in g.errors),
        **batch.times,
        **numbers,
        "tokens_per_s": generated / seconds,
    }
    for u, (result, chosen) in enumerate(zip(updates, batch.chosen, strict=True)):
        trained = num_tokens(chosen)
        row = {"step": step + u + 1, **common, "tokens_trained": trained, **result}
        ctx.run.append("metrics", row)
        if cfg.loss.method == "c3po" and trained < batch.phi:
            ctx.progress.note(f"step {row['step']}: shortfall, {trained} of Φ={batch.phi} tokens, still divided by Φ")
    if cfg.rollouts_kept:
        ctx.run.write_lines(f"rollouts/step_{step + 1:06d}.jsonl", rollout_rows(batch, cfg.rollouts_kept))
    shown = (
        "stage",
        "reward_mean",
        "entropy",
        "response_length_mean",
        "grad_norm",
        "tokens_trained",
        "parity",
    )
    ctx.progress.step(step + len(updates), cfg.steps, {k: row[k] for k in shown} | {"s": round(seconds, 2)})


def rollout_rows(batch: Batch, most: int) -> list[dict[str, Any]]:
    """The first responses of the batch, as they were sampled and judged."""
    advantage = {id(s.completion): s.advantage for s in group_relative(batch.scored)}
    return [
        {
            "prompt_id": g.group.prompt.id,
            "domain": g.group.prompt.domain,
            "text": g.texts[i],
            "reward": g.rewards[i],
            "error": g.errors[i],
            "advantage": advantage.get(id(c), 0.0),
            "length": len(c.token_ids),
            "finish": c.finish,
            "version": c.version,
        }
        for g in batch.scored
        for i, c in enumerate(g.group.completions)
    ][:most]
