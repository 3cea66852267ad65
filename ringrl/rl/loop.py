"""`ringrl rl`: C3PO [P §3]. The method is `Loop.step`; one rollout batch is

    prompts  ->  rollout  ->  rewards  ->  advantages  ->  budget Φ  ->  rows  ->  update  ->  sync

Rank 0 samples and chooses, all ranks train on their rows. With `updates` = 1, the default, a rollout batch is one
optimizer step: it trains on exactly Φ tokens and divides by Φ. The formulas are pure functions in `ringrl.algo`; how a
run is opened, saved, watched and rolled back is in `ringrl.rl.state`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import torch

from ringrl.algo.advantage import group_relative
from ringrl.algo.budget import drop_flat, fill_shares, informative_first, length_balanced, num_tokens, shuffled
from ringrl.algo.entropy import adapt
from ringrl.algo.loss import divisor, token_weights
from ringrl.algo.pack import Row, lay_out, sequence_of
from ringrl.algo.schedule import learning_rate, ramp
from ringrl.config.commands import RLConfig, Stage
from ringrl.config.load import load
from ringrl.evals.metrics import too_many_errors
from ringrl.launch.rank import Context
from ringrl.plan.shape import pair_cost
from ringrl.policy.objective import score_rows, update
from ringrl.rl.bundle import Batch
from ringrl.rl.record import Stopwatch
from ringrl.rl.sampler import ScoredRollout
from ringrl.rl.state import TrainingRun
from ringrl.types import MicroBatch, Sample, ScoredGroup


def main(ctx: Context) -> int:
    with closing(Loop(ctx, load(RLConfig, ctx.run.path / "config.yaml"))) as loop:
        return loop.run()


class Loop(TrainingRun):
    """The training loop on one rank. Only rank 0 samples: elsewhere a rollout is empty."""

    def step(self) -> None:
        """One rollout batch, in the paper's order. In `lead` and `scatter` the other ranks wait for rank 0."""
        stage, step, clock = self.stage, self.state.step, Stopwatch()
        rollout = self.sync.lead(self.queue.next(step))  # prompts -> responses -> rewards: `sample`
        self.require_verdicts(rollout)
        self.queue.sample_ahead(step + self.cfg.updates)
        samples = advantages(self.cfg, stage, rollout.scored)  # on full groups, before anything is dropped
        chosen = budget(self.cfg, stage, step, samples)  # exactly Φ tokens
        shares = rows_of(self.cfg, stage, chosen, self.policy.packing)
        rows = self.ranks.scatter_rows(shares)
        self.sync.rest()
        clock.lap("wait")
        results, kept = self.update(stage, rows)
        clock.lap("train")
        self.wait_for_sampling()
        clock.lap("wait")
        parity = self.sync.push(self.state.version + 1)
        clock.lap("sync")
        batch = Batch(rollout, samples, chosen, shares, kept, self.cfg.update_phi(stage))
        self.conclude(batch, results, parity, clock)

    def sample(self, step: int) -> ScoredRollout:
        """Rank 0, in a thread of its own: responses with rewards, until their tokens fill the budget."""
        cfg, sampler, stage = self.cfg, self.sampler, self.cfg.stage_at(step)
        assert sampler
        before = sampler.begin(step)
        scored: list[ScoredGroup] = []
        for attempt in range(1 + stage.budget.max_resamples):
            prompts = sampler.take(stage)
            groups = sampler.generate(prompts, stage, step, attempt, missing_tokens(cfg, stage, scored))
            scored += sampler.rewards(groups)
            trouble = too_many_errors(scored, cfg.verify.max_error_share)
            if trouble or stage.budget.shortfall == "train_fewer" or is_full(cfg, stage, step, scored):
                break
        return sampler.end(stage, scored, before, trouble)

    def update(self, stage: Stage, rows: list[list[MicroBatch]]) -> tuple[list[dict[str, Any]], list[torch.Tensor]]:
        """The optimizer steps on one rollout batch, which is scored as a whole before the first of them.

        Args:
            rows: [updates][microbatches] of this rank.

        Returns:
            The numbers of each optimizer step, and which of its candidates it trained on, as in `Before.kept`.
        """
        cfg, policy, state = self.cfg, self.policy, self.state
        best = cfg.update_phi(stage) if stage.budget.order == "informative" else 0
        reference = self.reference(stage)
        previous = torch.tensor(state.expert_share) if state.expert_share else torch.zeros(0, 1)
        scored = [score_rows(policy, cfg.loss, reference, part, previous, u > 0, best) for u, part in enumerate(rows)]
        results = []
        for u, before in enumerate(scored):
            o = cfg.optimizer
            lr = learning_rate(state.step + u, cfg.steps, o.lr, o.schedule, o.warmup, o.final_lr)
            numbers, share = update(policy, cfg.loss, before, lr, state.alpha)
            results.append(numbers)
            if numbers["updated"]:
                state.expert_share = share.tolist()
            if cfg.loss.entropy_target and results[-1]["updated"]:
                target, delta = cfg.loss.entropy_target, cfg.loss.entropy_step
                state.coefficient, state.alpha = adapt(state.coefficient, results[-1]["entropy"], target, delta)
        return results, [before.kept for before in scored]


def advantages(cfg: RLConfig, stage: Stage, scored: Sequence[ScoredGroup]) -> list[Sample]:
    """Every response that may be trained on, prompt by prompt, with its advantage within its full group."""
    groups = scored if stage.budget.flat_groups == "keep" else drop_flat(scored)
    if stage.budget.flat_groups == "replace" and not cfg.budgeted:
        groups = groups[: stage.prompts]
    samples = group_relative(groups, cfg.loss.advantage, cfg.loss.overlong_buffer, stage.max_total_tokens)
    return [s for s in samples if not (cfg.loss.overlong_filter and s.completion.finish == "length")]


def budget(cfg: RLConfig, stage: Stage, step: int, samples: list[Sample]) -> list[list[Sample]]:
    """The responses, cut to the budget, that each update trains on: [updates].

    With order `informative` these are candidates: Φ / keep tokens, of which the trainer keeps the best Φ.
    """
    keep = 1.0
    if stage.budget.order == "informative":  # D3S's schedule: a share of responses and tokens that grows or shrinks
        keep = ramp(step - cfg.stage_start(stage), stage.steps, *stage.budget.keep)
    samples = arrange(samples, stage.budget.order, keep, cfg.seed * 1_000_003 + step)
    if not cfg.budgeted:  # all tokens, in equal parts
        size = math.ceil(len(samples) / cfg.updates)
        return [samples[u * size : (u + 1) * size] for u in range(cfg.updates)]
    parts = cfg.parts(stage)
    candidates = math.ceil(cfg.step_phi(stage) / keep / parts) * parts
    shares = fill_shares(samples, candidates, parts, stage.budget.cut == "overshoot")
    per_update = len(shares) // cfg.updates
    return [[s for share in shares[u * per_update : (u + 1) * per_update] for s in share] for u in range(cfg.updates)]


def arrange(samples: list[Sample], order: str, keep: float, seed: int) -> list[Sample]:
    """The order in which the budget is filled."""
    if order == "shuffle":
        return shuffled(samples, seed)
    if order == "length_balanced":
        return length_balanced(samples, seed)
    return informative_first(samples, keep) if order == "informative" else samples


def missing_tokens(cfg: RLConfig, stage: Stage, scored: Sequence[ScoredGroup]) -> int:
    """After how many more tokens of finished groups sampling stops, with retention; 0: when all is finished."""
    if not stage.budget.retention:
        return 0
    return max(cfg.step_phi(stage) - num_tokens(advantages(cfg, stage, scored)), 1)


def is_full(cfg: RLConfig, stage: Stage, step: int, scored: Sequence[ScoredGroup]) -> bool:
    """Whether every update gets all its tokens (without a budget: any), and all flat groups are replaced."""
    if stage.budget.flat_groups == "replace" and len(drop_flat(scored)) < stage.prompts:
        return False
    need = cfg.update_phi(stage) if cfg.budgeted else 1
    return all(num_tokens(part) >= need for part in budget(cfg, stage, step, advantages(cfg, stage, scored)))


def rows_of(cfg: RLConfig, stage: Stage, chosen: list[list[Sample]], packing: bool) -> list[list[list[Row]]]:
    """[ranks][updates][rows]. Loss weights are set here, so that no layout changes the gradient."""
    trainer, loss = cfg.trainer, cfg.loss
    updates = []
    for samples in chosen:
        denominator = divisor(loss.denominator, samples, cfg.update_phi(stage), cfg.max_tokens(stage))
        weights = token_weights(samples, loss.weight, denominator)
        sequences = [sequence_of(s, w) for s, w in zip(samples, weights, strict=True)]
        updates.append(lay_out(sequences, trainer.ranks, trainer.microbatch_tokens, packing, pair_cost(cfg.model)))
    return [[update[rank] for update in updates] for rank in range(trainer.ranks)]
