"""Rank 0's half of an RL step: prompts, engine and verifiers; from a step number to a packed Batch."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ringrl.algo.advantage import group_relative
from ringrl.algo.budget import drop_flat, fill_shares, informative_first, length_balanced, num_tokens, shuffled
from ringrl.algo.loss import divisor, token_weights
from ringrl.algo.pack import pack, sequence_of
from ringrl.algo.schedule import ramp
from ringrl.config.commands import RLConfig, Stage
from ringrl.data.stream import Stream
from ringrl.evals.metrics import summarize, too_many_errors
from ringrl.launch.rank import Context
from ringrl.rewards import VerifierPool
from ringrl.rl.record import Batch, Work
from ringrl.rollout.engine import RolloutEngine, Sampling, fresh
from ringrl.rollout.score import sample, sample_all, settle
from ringrl.types import Group, MicroBatch, Prompt, Sample, ScoredGroup


class Sampler:
    """Owns the engine. `paused` holds the rollouts that are carried over to the next step (C3PO++)."""

    def __init__(
        self,
        ctx: Context,
        cfg: RLConfig,
        tokenizer: Any,
        verifier: VerifierPool,
        streams: list[Stream[Prompt]],
        held_out: dict[str, list[Prompt]],
        paused: list[Group],
    ) -> None:
        self.ctx, self.cfg, self.tokenizer, self.verifier = ctx, cfg, tokenizer, verifier
        self.streams, self.held_out, self.paused = streams, held_out, paused
        self.engine: RolloutEngine = ctx.rollout_engine(cfg.model, cfg.rollout)

    @property
    def taken(self) -> list[int]:
        """Prompts taken, per stage."""
        return [s.taken for s in self.streams]

    def collect(self, step: int) -> Batch:
        """Sample and score prompts until the budget can be filled, then choose its tokens and pack them."""
        cfg, stage = self.cfg, stage_at(self.cfg, step)
        before = (self.taken, self.paused)
        if step in stage_ends(cfg):  # what is left of another stage's prompts
            self.paused = []
        carried = tokens_in(self.paused)
        times = {"time_rollout_s": 0.0, "time_reward_s": 0.0}
        scored: list[ScoredGroup] = []
        for attempt in range(1 + stage.budget.max_resamples):
            scored += self.roll_out(stage, step, attempt, scored, times)
            chosen = choose(scored, cfg, stage, step)
            if trouble := too_many_errors(scored, cfg.verify.max_error_share):
                break
            if stage.budget.shortfall == "train_fewer" or is_full(chosen, scored, cfg, stage):
                break
        phi = cfg.update_phi(stage)
        rows = [self.pack(part, phi, stage) for part in chosen]
        work = [Work([update[r] for update in rows]) for r in range(cfg.trainer.ranks)]
        generated = sum(len(c.token_ids) for g in scored for c in g.group.completions)
        generated += tokens_in(self.paused) - carried
        self.paused, expired = retain(self.paused, stage.budget.retention)
        carried = tokens_in(self.paused)
        return Batch(
            stage.name, work, chosen, scored, phi, generated, carried, expired, times, before=before, trouble=trouble
        )

    def undo(self, batch: Batch) -> None:
        """As if `batch`, and all after it, had not been sampled."""
        taken, self.paused = batch.before
        for stream, n in zip(self.streams, taken, strict=True):
            stream.taken = n

    def roll_out(
        self, stage: Stage, step: int, attempt: int, scored: Sequence[ScoredGroup], times: dict[str, float]
    ) -> list[ScoredGroup]:
        """One call of the engine: what was paused, and new prompts; with retention, no further than to Φ."""
        new = self.streams[self.cfg.stages.index(stage)].take(max(stage.prompts - len(self.paused), 0))
        groups = self.paused + fresh(new)
        sampling = Sampling(stage.samples, self.cfg.temperature, stage.max_total_tokens)
        again = f", again {attempt}" if attempt else ""
        enough = 0
        if stage.budget.retention:
            have = num_tokens(group_relative(usable(scored, stage)))
            enough = max(self.cfg.step_phi(stage) - have, 1)

        def show(done: int) -> None:
            self.ctx.progress.phase(f"rollout {stage.name}{again}", done, len(groups))

        seed = (self.cfg.seed * 1_000_003 + step) * 101 + attempt
        started = time.perf_counter()
        pending, self.paused = sample(self.engine, self.verifier, self.tokenizer, groups, sampling, seed, show, enough)
        sampled = time.perf_counter()
        found = settle(pending)  # most verdicts are there already
        times["time_rollout_s"] += sampled - started
        times["time_reward_s"] += time.perf_counter() - sampled
        return found

    def pack(self, chosen: list[Sample], phi: int, stage: Stage) -> list[list[MicroBatch]]:
        trainer, loss = self.cfg.trainer, self.cfg.loss
        denominator = divisor(loss.denominator, chosen, phi, self.cfg.max_tokens(stage))
        weights = token_weights(chosen, loss.weight, denominator)
        sequences = [sequence_of(s, w) for s, w in zip(chosen, weights, strict=True)]
        return pack(sequences, trainer.ranks, trainer.microbatch_tokens, trainer.packing)

    def evaluate(self, step: int, stage: str) -> None:
        """avg@k of the current weights on every held-out set, to evals.jsonl."""
        sampling = Sampling(self.cfg.eval_samples, self.cfg.temperature, max_total_tokens(self.cfg))
        for name, prompts in self.held_out.items():
            self.ctx.progress.phase(f"evaluate {name}", 0, 1)
            scored = sample_all(self.engine, self.verifier, self.tokenizer, prompts, sampling, self.cfg.seed)
            numbers = summarize(scored)
            if trouble := too_many_errors(scored, self.cfg.verify.max_error_share):
                self.ctx.progress.note(f"warning, evaluation of {name} at step {step}: {trouble}")
            self.ctx.run.append("evals", {"step": step, "stage": stage, "domain": name, **numbers})
            self.ctx.progress.note(
                f"step {step}: {name} avg@{numbers['k']} {100 * numbers['avg']:.1f} ± {100 * numbers['se']:.1f}"
            )


def usable(scored: Sequence[ScoredGroup], stage: Stage) -> list[ScoredGroup]:
    return list(scored) if stage.budget.flat_groups == "keep" else drop_flat(scored)


def choose(scored: Sequence[ScoredGroup], cfg: RLConfig, stage: Stage, step: int) -> list[list[Sample]]:
    """The responses, cut to the budget, that each update trains on: [updates].

    With order `informative` these are the candidates: Φ / keep tokens, of which the trainer keeps the best Φ.
    """
    budget, loss, groups = stage.budget, cfg.loss, usable(scored, stage)
    if budget.flat_groups == "replace" and not cfg.budgeted:
        groups = groups[: stage.prompts]
    samples = group_relative(groups, loss.advantage, loss.overlong_buffer, stage.max_total_tokens)  # on full groups
    if loss.overlong_filter:
        samples = [s for s in samples if s.completion.finish != "length"]
    keep = kept_share(cfg, stage, step)
    samples = arrange(samples, budget.order, keep, cfg.seed * 1_000_003 + step)
    if not cfg.budgeted:  # all tokens, in equal parts
        size = math.ceil(len(samples) / cfg.updates)
        return [samples[u * size : (u + 1) * size] for u in range(cfg.updates)]
    parts = cfg.parts(stage)
    candidates = math.ceil(cfg.step_phi(stage) / keep / parts) * parts
    shares = fill_shares(samples, candidates, parts, budget.cut == "overshoot")
    per_update = len(shares) // cfg.updates
    return [[s for share in shares[u * per_update : (u + 1) * per_update] for s in share] for u in range(cfg.updates)]


def arrange(samples: list[Sample], order: str, keep: float, seed: int) -> list[Sample]:
    """The order in which the budget is filled."""
    if order == "shuffle":
        return shuffled(samples, seed)
    if order == "length_balanced":
        return length_balanced(samples, seed)
    return informative_first(samples, keep) if order == "informative" else samples


def kept_share(cfg: RLConfig, stage: Stage, step: int) -> float:
    """D3S's schedule: the share of responses and tokens kept at this step of the stage; 1 for other orders."""
    if stage.budget.order != "informative":
        return 1.0
    return ramp(step - (stage_end(cfg, stage) - stage.steps), stage.steps, *stage.budget.keep)


def is_full(chosen: list[list[Sample]], scored: Sequence[ScoredGroup], cfg: RLConfig, stage: Stage) -> bool:
    """Whether every update has all its tokens (without a budget: any), and flat groups are replaced if they must."""
    if stage.budget.flat_groups == "replace" and len(drop_flat(scored)) < stage.prompts:
        return False
    need = cfg.update_phi(stage) if cfg.budgeted else 1
    return all(num_tokens(part) >= need for part in chosen)


def retain(paused: Sequence[Group], retention: int) -> tuple[list[Group], int]:
    """What is carried over to the next rollout batch, one batch older, and how many responses were too old for it.

    A response that is dropped leaves its group; the others' advantages are those of a smaller group, and a group
    of fewer than two is dropped as a whole. Prompts that were not begun do not age.
    """
    kept, expired = [], 0
    for group in paused:
        if not any(c.token_ids for c in group.completions):
            kept.append(Group(group.prompt, ()))
            continue
        aged = [replace(c, retained=c.retained + 1) if c.finish == "paused" else c for c in group.completions]
        young = tuple(c for c in aged if c.finish != "paused" or c.retained <= retention)
        expired += len(aged) - len(young)
        if len(young) >= 2:
            kept.append(Group(group.prompt, young))
    return kept, expired


def tokens_in(groups: Sequence[Group]) -> int:
    return sum(len(c.token_ids) for g in groups for c in g.completions)


def stage_at(cfg: RLConfig, step: int) -> Stage:
    return next(s for s, end in zip(cfg.stages, stage_ends(cfg), strict=True) if step < end)


def stage_end(cfg: RLConfig, stage: Stage) -> int:
    return stage_ends(cfg)[cfg.stages.index(stage)]


def stage_ends(cfg: RLConfig) -> list[int]:
    """Steps after which each stage is over."""
    return [sum(s.steps for s in cfg.stages[: i + 1]) for i in range(len(cfg.stages))]


def max_total_tokens(cfg: RLConfig) -> int:
    return max(s.max_total_tokens for s in cfg.stages)
