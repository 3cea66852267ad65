"""`ringrl rl`: C3PO [P §3]. The method, top to bottom. One rollout batch:

    prompts  ->  rollout  ->  rewards  ->  advantages  ->  budget Φ  ->  microbatches  ->  update  ->  weight sync

Rank 0 samples, scores and chooses (`collect`); all ranks train on their share (`train`). With `updates` = 1, the
default, a rollout batch is one optimizer step, and every step trains on exactly Φ tokens and divides by Φ.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import torch

from ringrl.algo.advantage import group_relative
from ringrl.algo.budget import drop_flat, fill_shares, num_tokens, shuffled
from ringrl.algo.loss import token_weights
from ringrl.algo.pack import pack, strand
from ringrl.algo.schedule import learning_rate
from ringrl.commands.context import Context
from ringrl.commands.record import Batch, Work, record
from ringrl.config import RLConfig, Stage, load
from ringrl.data.chat import load_tokenizer, make_prompts
from ringrl.data.source import read_problems
from ringrl.data.stream import Stream
from ringrl.errors import Diverged
from ringrl.evals.metrics import summarize
from ringrl.evals.score import sample, settle
from ringrl.policy.engine import Policy
from ringrl.policy.forward import PolicyModule, load_lm
from ringrl.policy.objective import score_rows, update
from ringrl.policy.ranks import Ranks
from ringrl.policy.sync import WeightSync
from ringrl.rewards import VerifierPool
from ringrl.rollout.engine import RolloutEngine, Sampling
from ringrl.types import MicroBatch, Prompt, Sample, ScoredGroup


def main(ctx: Context) -> int:
    cfg = load(RLConfig, ctx.run.path / "config.yaml")
    tokenizer = load_tokenizer(cfg.model, cfg.prompting)
    prompts = [
        make_prompts([r for s in st.data for r in read_problems(s)], tokenizer, cfg.prompting, st.max_total_tokens)
        for st in cfg.stages
    ]
    held_out = {
        h.name: make_prompts(read_problems(h.data), tokenizer, cfg.prompting, max_total_tokens(cfg))
        for h in cfg.held_out
    }
    ranks = Ranks(cfg.rollout.deadline_s * (1 + max(s.budget.max_resamples for s in cfg.stages)))
    torch.manual_seed(cfg.seed)
    policy = Policy(cfg.model, tokenizer, cfg.trainer, cfg.optimizer, cfg.temperature, ranks)

    state: dict[str, Any] = {"step": 0, "version": 0, "taken": [0] * len(cfg.stages)}
    if ctx.run.checkpoints:
        state = policy.restore(ctx.run.checkpoints[-1])
    streams = [Stream(p, cfg.seed, taken) for p, taken in zip(prompts, state["taken"], strict=True)]
    with VerifierPool(cfg.verify.workers, cfg.verify.deadline_s) as verifier:
        sampler = Sampler(ctx, cfg, tokenizer, verifier, streams, held_out) if ranks.main else None
        engine = sampler.engine if sampler else None
        sampling = Sampling(1, cfg.temperature, max_total_tokens(cfg))
        sync = WeightSync(policy, engine, cfg.model, prompts[0][0], sampling, cfg.rollout.parity_limit)
        try:
            return train(ctx, cfg, policy, sampler, sync, state)
        finally:
            if engine:
                engine.close()


def train(
    ctx: Context,
    cfg: RLConfig,
    policy: Policy,
    sampler: Sampler | None,
    sync: WeightSync,
    state: dict[str, Any],
) -> int:
    """The loop over rollout batches, on every rank; `sampler` is rank 0's. Returns the exit code."""
    ranks, step, version = policy.ranks, state["step"], state["version"]
    parity = sync.push(version)
    if sampler:
        ctx.run.rewind(step if ctx.run.checkpoints else -1)
        ctx.progress.note(f"{sampler.engine.name}; weights version {version}, parity {parity:.2g} nats")
        if step == 0:
            sampler.evaluate(step, cfg.stages[0].name)

    reference, loaded = None, ""
    while step < cfg.steps:
        stage = stage_at(cfg, step)
        if cfg.loss.kl and loaded != (start := reference_path(ctx, cfg, stage)):
            reference, loaded = load_reference(start, cfg, policy), start
        batch = sampler.collect(step) if sampler else None
        work: Work = ranks.scatter(batch.work if batch else None)
        started = time.perf_counter()
        old = [score_rows(policy, reference, rows) for rows in work.updates]
        updates = [
            update(policy, cfg.loss, rows, before, rate(cfg, step + u))
            for u, (rows, before) in enumerate(zip(work.updates, old, strict=True))
        ]
        check_finite(ctx, step, updates)
        trained = time.perf_counter()
        parity = sync.push(version + 1)
        if batch:
            times = {"time_train_s": trained - started, "time_sync_s": time.perf_counter() - trained}
            record(ctx, cfg, step, batch, updates, {"version": version, "parity": parity, **times})
        step, version = step + len(updates), version + 1
        ends_stage = step in stage_ends(cfg)
        if sampler and (ends_stage or (cfg.eval_every and step % cfg.eval_every == 0)):
            sampler.evaluate(step, stage.name)
        stop = ranks.broadcast(ctx.interrupted)
        if ends_stage or stop or step % cfg.save_every == 0:
            taken = ranks.broadcast([s.taken for s in sampler.streams] if sampler else None)
            policy.save(ctx.run.checkpoint(step), {"step": step, "version": version, "taken": taken})
            if sampler:
                ctx.run.keep_latest_trainer_state()
        if stop:
            return 130
    ranks.close()
    return 0


def check_finite(ctx: Context, step: int, updates: list[dict[str, float]]) -> None:
    """Raises Diverged when an update's loss or gradient is not finite."""
    for u, numbers in enumerate(updates):
        if not math.isfinite(numbers["loss"] + numbers["grad_norm"]):
            last = ctx.run.checkpoints[-1] if ctx.run.checkpoints else "the start model"
            raise Diverged(
                f"step {step + u + 1}: loss {numbers['loss']:.3g}, grad_norm {numbers['grad_norm']:.3g}; "
                f"the last good state is {last}"
            )


class Sampler:
    """Rank 0's half: prompts, engine and verifiers; from a step number to a Batch."""

    def __init__(
        self,
        ctx: Context,
        cfg: RLConfig,
        tokenizer: Any,
        verifier: VerifierPool,
        streams: list[Stream[Prompt]],
        held_out: dict[str, list[Prompt]],
    ) -> None:
        self.ctx, self.cfg, self.tokenizer, self.verifier = ctx, cfg, tokenizer, verifier
        self.streams, self.held_out = streams, held_out
        self.engine: RolloutEngine = ctx.rollout_engine(cfg.model, cfg.rollout)

    def collect(self, step: int) -> Batch:
        """Sample and score prompts until the budget can be filled, then choose its tokens and pack them."""
        cfg, stage = self.cfg, stage_at(self.cfg, step)
        times = {"time_rollout_s": 0.0, "time_reward_s": 0.0}
        scored: list[ScoredGroup] = []
        for attempt in range(1 + stage.budget.max_resamples):
            scored += self.roll_out(stage, step, attempt, times)
            chosen = choose(scored, cfg, stage, step)
            if stage.budget.shortfall == "train_fewer" or is_full(chosen, cfg, stage):
                break
        phi = cfg.update_phi(stage)
        rows = [self.pack(part, phi) for part in chosen]
        work = [Work([update[r] for update in rows]) for r in range(cfg.trainer.ranks)]
        return Batch(stage.name, work, chosen, scored, phi, times)

    def roll_out(self, stage: Stage, step: int, attempt: int, times: dict[str, float]) -> list[ScoredGroup]:
        prompts = self.streams[self.cfg.stages.index(stage)].take(stage.prompts)
        sampling = Sampling(stage.samples, self.cfg.temperature, stage.max_total_tokens)
        again = f", again {attempt}" if attempt else ""

        def show(done: int) -> None:
            self.ctx.progress.phase(f"rollout {stage.name}{again}", done, len(prompts))

        seed = (self.cfg.seed * 1_000_003 + step) * 101 + attempt
        started = time.perf_counter()
        pending = sample(self.engine, self.verifier, self.tokenizer, prompts, sampling, seed, show)
        sampled = time.perf_counter()
        scored = settle(pending)  # most verdicts are there already
        times["time_rollout_s"] += sampled - started
        times["time_reward_s"] += time.perf_counter() - sampled
        return scored

    def pack(self, chosen: list[Sample], phi: int) -> list[list[MicroBatch]]:
        trainer = self.cfg.trainer
        weights = token_weights(chosen, self.cfg.loss.method, phi)
        strands = [strand(s, w) for s, w in zip(chosen, weights, strict=True)]
        return pack(strands, trainer.ranks, trainer.microbatch_tokens, trainer.packing)

    def evaluate(self, step: int, stage: str) -> None:
        """avg@k of the current weights on every held-out set, to evals.jsonl."""
        sampling = Sampling(self.cfg.eval_samples, self.cfg.temperature, max_total_tokens(self.cfg))
        for name, prompts in self.held_out.items():
            self.ctx.progress.phase(f"evaluate {name}", 0, 1)
            scored = settle(sample(self.engine, self.verifier, self.tokenizer, prompts, sampling, self.cfg.seed))
            numbers = summarize(scored)
            self.ctx.run.append("evals", {"step": step, "stage": stage, "domain": name, **numbers})
            self.ctx.progress.note(
                f"step {step}: {name} avg@{numbers['k']} {100 * numbers['avg']:.1f} ± {100 * numbers['se']:.1f}"
            )


def choose(scored: Sequence[ScoredGroup], cfg: RLConfig, stage: Stage, step: int) -> list[list[Sample]]:
    """The responses, cut to the budget, that each update trains on: [updates]."""
    budget = stage.budget
    samples = group_relative(drop_flat(scored) if budget.flat_groups == "drop" else scored)  # A on full groups
    if budget.order == "shuffle":
        samples = shuffled(samples, cfg.seed * 1_000_003 + step)
    if cfg.loss.method == "grpo":  # no budget: all tokens, in equal parts
        size = math.ceil(len(samples) / cfg.updates)
        return [list(samples[u * size : (u + 1) * size]) for u in range(cfg.updates)]
    shares = fill_shares(samples, cfg.step_phi(stage), cfg.parts(stage))
    per_update = len(shares) // cfg.updates
    return [[s for share in shares[u * per_update : (u + 1) * per_update] for s in share] for u in range(cfg.updates)]


def is_full(chosen: list[list[Sample]], cfg: RLConfig, stage: Stage) -> bool:
    """Whether every update has all its tokens; without a budget, whether it has any."""
    need = cfg.update_phi(stage) if cfg.loss.method == "c3po" else 1
    return all(num_tokens(part) >= need for part in chosen)


def reference_path(ctx: Context, cfg: RLConfig, stage: Stage) -> str:
    """The folder of the KL term's frozen model: what the run, or this stage, started from."""
    first = cfg.stages.index(stage) == 0
    if first or cfg.loss.reference == "run":
        return cfg.model
    return str(ctx.run.checkpoint(stage_ends(cfg)[cfg.stages.index(stage) - 1]))


def load_reference(path: str, cfg: RLConfig, policy: Policy) -> PolicyModule:
    lm = load_lm(path, cfg.trainer.dtype, cfg.trainer.attention)
    return PolicyModule(lm, cfg.temperature).requires_grad_(False).eval().to(policy.device)


def stage_at(cfg: RLConfig, step: int) -> Stage:
    return next(s for s, end in zip(cfg.stages, stage_ends(cfg), strict=True) if step < end)


def stage_ends(cfg: RLConfig) -> list[int]:
    """Steps after which each stage is over."""
    return [sum(s.steps for s in cfg.stages[: i + 1]) for i in range(len(cfg.stages))]


def rate(cfg: RLConfig, step: int) -> float:
    o = cfg.optimizer
    return learning_rate(step, cfg.steps, o.lr, o.schedule, o.warmup, o.final_lr)


def max_total_tokens(cfg: RLConfig) -> int:
    return max(s.max_total_tokens for s in cfg.stages)
