"""What is kept of a rollout batch: metrics, a sample of the responses, and what the display shows."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterable
from typing import Any

from transformers import PreTrainedTokenizerBase

from ringrl.config.commands import RLConfig, Stage
from ringrl.evals.metrics import part_means, repetition, verdicts
from ringrl.launch.rank import Context
from ringrl.rl.bundle import Arrays, Batch, bundle, write
from ringrl.types import Completion

Row = dict[str, Any]

SHOWN = ("stage", "reward_mean", "entropy", "response_length_mean", "grad_norm", "tokens_trained", "parity")
REPETITION_SAMPLE = 256  # responses looked at


class Stopwatch:
    """Where a step's time goes."""

    def __init__(self) -> None:
        self.started = self.last = time.perf_counter()
        self.laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        """The time since the last lap was spent on `name`."""
        now = time.perf_counter()
        self.laps[name] = self.laps.get(name, 0.0) + now - self.last
        self.last = now

    @property
    def seconds(self) -> dict[str, float]:
        """By metric."""
        return {f"time_{name}_s": s for name, s in self.laps.items()} | {"time_step_s": self.last - self.started}


def metrics(step: int, stage: Stage, batch: Batch, results: list[Row], numbers: Row) -> list[Row]:
    """One row per optimizer step.

    Args:
        step: steps done before this batch.
        numbers: what is measured once per rollout batch, whatever the number of updates.
    """
    rollout, scored = batch.rollout, batch.rollout.scored
    completions = [c for g in scored for c in g.group.completions]
    judged = [(score, reward, c) for g in scored for score, reward, c, error
              in zip(g.scores, g.rewards, g.group.completions, g.errors, strict=True) if not error]  # fmt: skip
    finished = sum(len(c.token_ids) for c in completions)
    trained = [s.completion for part in batch.chosen for s in part]
    common: Row = {
        "stage": stage.name,
        "reward_mean": statistics.fmean(reward for _, reward, _ in judged) if judged else 0.0,
        "score_mean": statistics.fmean(score for score, _, _ in judged) if judged else 0.0,
        "rewards": part_means(scored),
        "groups_solved": sum(g.solved for g in scored),
        "groups_unsolved": sum(g.unsolved for g in scored),
        "groups_mixed": sum(not g.solved and not g.unsolved for g in scored),
        "tokens_generated": rollout.generated,
        "tokens_dropped": finished - sum(r["tokens_trained"] for r in results),
        "tokens_carried": rollout.carried,
        "responses_expired": rollout.expired,
        "staleness": max((numbers["version"] - c.version for c in trained), default=0),
        "phi": batch.phi,
        "response_length_mean": finished / max(len(completions), 1),
        "length_right": mean_length(c for score, _, c in judged if score == 1),
        "length_wrong": mean_length(c for score, _, c in judged if score < 1),
        "truncated_frac": sum(c.finish == "length" for c in completions) / max(len(completions), 1),
        "repetition": statistics.fmean([repetition(c.token_ids) for c in completions[:REPETITION_SAMPLE]] or [0.0]),
        "reward_errors": sum(bool(e) for g in scored for e in g.errors),
        "errors_of_problems": {g.group.prompt.id: n for g in scored if (n := sum(map(bool, g.errors)))},
        "verdicts": verdicts(scored),
        **rollout.times,
        **numbers,
        "tokens_per_s": rollout.generated / numbers["time_step_s"],
    }
    return [{"step": step + u + 1, **common, **result} for u, result in enumerate(results)]


def mean_length(completions: Iterable[Completion]) -> float:
    return statistics.fmean([len(c.token_ids) for c in completions] or [0.0])


def record(ctx: Context, cfg: RLConfig, rows: list[Row], batch: Batch, tokenizer: PreTrainedTokenizerBase) -> None:
    """Metrics, the rollouts, and the display. A row that JSON has no numbers for is not written."""
    for row in rows:
        if not is_finite(row):
            continue
        ctx.run.append("metrics", row)
        if cfg.budgeted and row["tokens_trained"] < batch.phi:
            ctx.progress.note(f"step {row['step']}: shortfall, {row['tokens_trained']:.0f} of Φ={batch.phi} tokens, "
                              f"still divided by Φ")  # fmt: skip
    first, last, folder = rows[0], rows[-1], ctx.run.path / "rollouts"
    name, arrays = f"step_{first['step']:06d}", bundle(batch, first["step"], first["version"])
    if cfg.rollouts_kept:
        ctx.run.write_lines(f"rollouts/{name}.jsonl", rollout_rows(batch, cfg.rollouts_kept, tokenizer, arrays))
    every, keep = cfg.record.every, cfg.record.keep
    if every and last["step"] // every > (first["step"] - 1) // every:
        write(folder / f"{name}.npz", arrays)
        for old in sorted(folder.glob("step_*.npz"))[:-keep] if keep else ():
            old.unlink()
    ctx.progress.step(last["step"], cfg.steps, {k: last[k] for k in SHOWN} | {"s": round(last["time_step_s"], 2)})


def is_finite(row: Row) -> bool:
    return all(math.isfinite(v) for v in row.values() if isinstance(v, float))


def rollout_rows(batch: Batch, count: int, tokenizer: PreTrainedTokenizerBase, arrays: Arrays) -> list[Row]:
    """The first responses of the batch, as they were sampled and judged; the first of a group with its prompt."""
    where = [(g, i, c) for g in batch.rollout.scored for i, c in enumerate(g.group.completions)]
    ends = zip(arrays["offsets"], arrays["offsets"][1:], strict=False)
    return [
        {
            "prompt_id": g.group.prompt.id,
            **({"prompt": tokenizer.decode(g.group.prompt.token_ids)} if i == 0 else {}),
            "domain": g.group.prompt.domain,
            "text": g.texts[i],
            "reward": g.rewards[i],
            **({"rewards": dict(g.parts[i])} if g.parts and len(g.parts[i]) > 1 else {}),
            "error": g.errors[i],
            "reason": g.reasons[i],
            "advantage": float(advantage),
            "length": len(c.token_ids),
            "trained": int(arrays["trained"][start:end].sum()),
            "finish": c.finish,
            "version": c.version,
            "newest": c.newest,
            "retained": c.retained,
        }
        for (g, i, c), advantage, (start, end) in zip(where[:count], arrays["advantages"], ends, strict=False)
    ]
