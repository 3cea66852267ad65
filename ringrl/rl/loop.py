"""`ringrl rl`: C3PO [P §3]. The method, top to bottom. One rollout batch:

    prompts  ->  rollout  ->  rewards  ->  advantages  ->  budget Φ  ->  microbatches  ->  update  ->  weight sync

Rank 0 samples, scores and chooses (`Sampler.collect`), up to `max_staleness` batches ahead of training (`BatchQueue`);
all ranks train on their share (`train`). With `updates` = 1,
the default, a rollout batch is one optimizer step, and every step trains on exactly Φ tokens and divides by Φ.
A watchdog reads the numbers of every step; on collapse the run stops, or goes back and leaves the batch out.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ringrl.algo.entropy import adapt
from ringrl.algo.schedule import learning_rate
from ringrl.config.commands import RLConfig, Stage
from ringrl.config.load import load
from ringrl.data.chat import load_tokenizer, make_prompts
from ringrl.data.source import read_graded, read_problems
from ringrl.data.stream import Stream
from ringrl.domains import Domains
from ringrl.errors import Diverged, RingError
from ringrl.launch.rank import Context
from ringrl.policy.engine import Policy, load_part, unfinished
from ringrl.policy.forward import PolicyModule
from ringrl.policy.objective import score_rows, update
from ringrl.policy.ranks import Ranks
from ringrl.policy.sync import WeightSync
from ringrl.rewards import VerifierPool
from ringrl.rl import watchdog
from ringrl.rl.batch_queue import BatchQueue
from ringrl.rl.record import Batch, Row, Work, metrics, record
from ringrl.rl.sampler import Sampler, max_total_tokens, stage_at, stage_end, stage_ends
from ringrl.rollout.engine import Sampling


def main(ctx: Context) -> int:
    cfg = load(RLConfig, ctx.run.path / "config.yaml")
    tokenizer = load_tokenizer(cfg.model, cfg.prompting)
    domains = cfg.known_domains
    rows = [rows_of(stage, domains) for stage in cfg.stages]
    prompts = [
        make_prompts(some, tokenizer, cfg.prompting, st.max_total_tokens, domains)
        for some, st in zip(rows, cfg.stages, strict=True)
    ]
    held_out = {
        h.name: make_prompts(read_problems(h.data, domains), tokenizer, cfg.prompting, max_total_tokens(cfg), domains)
        for h in cfg.held_out
    }
    ranks = Ranks(cfg.rollout.start_deadline_s + cfg.rollout.deadline_s)  # rank 0 may have to start workers again
    torch.manual_seed(cfg.seed)
    last = ctx.run.checkpoints[-1] if ctx.run.checkpoints else None
    policy = Policy(
        cfg.model, tokenizer, cfg.trainer, cfg.optimizer, cfg.temperature, ranks, cfg.loss.freeze_router, last
    )
    at = At(**policy.restore(last)) if last else At(0, 0, [0] * len(cfg.stages), cfg.loss.entropy, cfg.loss.entropy)
    streams = [
        Stream(p, cfg.seed, taken, st.curriculum, [r.get("pass_rate", 0.0) for r in some])
        for p, taken, st, some in zip(prompts, at.taken, cfg.stages, rows, strict=True)
    ]
    paused, batches = unfinished(last) if last else ([], [])
    with VerifierPool(cfg.verify.workers, cfg.verify.deadline_s, remote=cfg.verify.remote) as verifier:
        sampler = Sampler(ctx, cfg, tokenizer, verifier, streams, held_out, paused) if ranks.main else None
        engine = sampler.engine if sampler else None
        probe = Sampling(1, cfg.temperature, max_total_tokens(cfg))
        sync = WeightSync(policy, engine, cfg.model, prompts[0][0], probe, cfg.rollout, Path(ctx.spec["meeting"]))
        if engine:
            engine.resend = sync.resend
        try:
            return train(ctx, cfg, policy, BatchQueue(cfg, sampler, batches), sync, at)
        finally:
            if engine:
                engine.close()


def rows_of(stage: Stage, domains: Domains) -> list[dict[str, Any]]:
    """Raises DataError, also when a curriculum has no pass rates to go by."""
    read = read_problems if stage.curriculum == "none" else read_graded
    return [row for source in stage.data for row in read(source, domains)]


@dataclass
class At:
    """Where a run is: all that its loop carries from one rollout batch to the next, and a checkpoint keeps."""

    step: int  # optimizer steps done
    version: int  # of the weights
    taken: list[int]  # prompts taken, per stage
    coefficient: float  # of the entropy bonus, and what a target makes of it
    alpha: float


def train(ctx: Context, cfg: RLConfig, policy: Policy, ahead: BatchQueue, sync: WeightSync, at: At) -> int:
    """The loop over rollout batches, on every rank. Returns the exit code."""
    ranks = policy.ranks
    begin(ctx, cfg, ahead, sync, at)
    if cfg.watchdog.on_collapse == "rollback" and not ctx.run.checkpoints:
        save(ctx, cfg, policy, ahead, sync, at)
    rollbacks, stop = 0, False
    reference, loaded = None, ""
    while at.step < cfg.steps:
        stage = stage_at(cfg, at.step)
        if cfg.loss.kl and loaded != (path := reference_path(ctx, cfg, stage, at.step)):
            policy.settle()  # it may be a checkpoint that is still being written
            reference, loaded = load_reference(path, cfg, policy), path
        begun = time.perf_counter()
        ahead.begin(at.step, 1)
        batch = sync.lead(ahead.next())
        require_verdicts(ctx, cfg, policy, ahead, sync, at, batch)
        ahead.begin(at.step + cfg.updates, cfg.max_staleness)
        work: Work = ranks.scatter(batch.work if batch else None)
        sync.rest()
        started = time.perf_counter()
        results = learn(cfg, policy, reference, work, stage, at)
        trained = time.perf_counter()
        if not cfg.rollout.in_flight:
            sync.lead(ahead.idle())
        sampled = time.perf_counter()
        parity = sync.push(at.version + 1)
        rows: list[Row] = []
        if batch:
            numbers: Row = {"version": at.version, "parity": parity.gap, "shift": parity.shift}
            now = time.perf_counter()
            numbers |= {"time_wait_s": started - begun + sampled - trained, "time_train_s": trained - started}
            numbers |= {"time_sync_s": now - sampled, "time_step_s": now - begun}
            rows = metrics(at.step, batch, results, numbers)
            record(ctx, cfg, rows, batch)
        at.version += 1
        if collapse := ranks.broadcast(watch(ctx, cfg, rows, batch)):
            if cfg.watchdog.on_collapse == "stop" or rollbacks == cfg.watchdog.max_rollbacks:
                raise Diverged(f"{collapse}; {last_good(ctx)}")
            rollbacks += 1
            roll_back(ctx, policy, ahead, sync, at, collapse)
            continue
        at.step += len(results)
        stop = ranks.broadcast(ctx.interrupted)
        if is_due(cfg, at.step, len(results), cfg.eval_every):
            sync.lead(ahead.evaluation(at.step, stage.name))
        if stop or is_due(cfg, at.step, len(results), cfg.save_every, cfg.loss.reference_every):
            save(ctx, cfg, policy, ahead, sync, at)
        policy.writer.check()
        if stop:
            break
    policy.settle()
    ranks.close()
    return 130 if stop else 0


def learn(
    cfg: RLConfig, policy: Policy, reference: PolicyModule | None, work: Work, stage: Stage, at: At
) -> list[dict[str, Any]]:
    """The optimizer steps on one rollout batch. All of it is scored before its first; returns the steps' numbers."""
    best = cfg.update_phi(stage) if stage.budget.order == "informative" else 0
    scored = [score_rows(policy, cfg.loss, reference, rows, best) for rows in work.updates]
    results = []
    for u, before in enumerate(scored):
        results.append(update(policy, cfg.loss, before, rate(cfg, at.step + u), at.alpha))
        if cfg.loss.entropy_target:
            target, delta = cfg.loss.entropy_target, cfg.loss.entropy_step
            at.coefficient, at.alpha = adapt(at.coefficient, results[-1]["entropy"], target, delta)
    return results


def begin(ctx: Context, cfg: RLConfig, ahead: BatchQueue, sync: WeightSync, at: At) -> None:
    """The first weight sync, and the evaluation of the start model.

    Raises:
        RingError: sampler and trainer disagree before anything was trained.
    """
    gap = sync.push(at.version).gap
    if not gap <= cfg.rollout.parity_limit:
        raise RingError(
            f"weight sync to version {at.version}: the engine's log-probs differ from the trainer's by {gap:.3g} "
            f"nats, expected at most rollout.parity_limit={cfg.rollout.parity_limit:g}"
        )
    if ahead.sampler:
        ctx.run.rewind(at.step or -1)
        ctx.progress.note(f"{ahead.sampler.engine.name}; weights version {at.version}, parity {gap:.2g} nats")
    if at.step == 0:
        sync.lead(ahead.evaluation(0, cfg.stages[0].name))


def require_verdicts(
    ctx: Context, cfg: RLConfig, policy: Policy, ahead: BatchQueue, sync: WeightSync, at: At, batch: Batch | None
) -> None:
    """Ends the run, its state saved as before `batch`, when too much of that could not be judged.

    Raises:
        RingError: that is so.
    """
    trouble = policy.ranks.broadcast(batch.trouble if batch else "")
    if not trouble:
        return
    sync.lead(ahead.idle())
    policy.settle()
    if batch:
        ahead.undo(batch)
        watchdog.save(ctx.run, [{"step": at.step + 1}], [watchdog.Alarm("verifiers", False, trouble)], batch)
    if policy.ranks.broadcast(ctx.run.checkpoint(at.step) not in ctx.run.checkpoints):
        save(ctx, cfg, policy, ahead, sync, at)
    policy.settle()
    name = f"step_{at.step + 1:06d}"
    raise RingError(f"step {at.step + 1}: {trouble}; the batch is in {ctx.run.path / 'watchdog' / name}.pt, the state "
                    f"before it is saved: --resume samples it again")  # fmt: skip


def watch(ctx: Context, cfg: RLConfig, rows: list[Row], batch: Batch | None) -> str:
    """On rank 0: notes what is odd, saves the batch on collapse. Returns why the run collapsed, or nothing."""
    if batch is None:
        return ""
    history = [r for r in ctx.run.rows("metrics") if r["stage"] == batch.stage and r["step"] < rows[0]["step"]]
    for row in rows:
        alarms = watchdog.judge(history, row, cfg.watchdog, cfg.optimizer.clip_norm, cfg.rollout.parity_limit)
        collapses = [a for a in alarms if a.collapse]
        if collapses:
            file = watchdog.save(ctx.run, rows, alarms, batch)
            return f"step {row['step']}: {collapses[0].kind}: {collapses[0].text}; the batch is in {file}"
        for alarm in alarms:
            ctx.progress.note(f"warning, step {row['step']}: {alarm.text}")
        history.append(row)
    return ""


def roll_back(ctx: Context, policy: Policy, ahead: BatchQueue, sync: WeightSync, at: At, why: str) -> None:
    """To the last checkpoint's weights and optimizer. Prompts and versions go on, so the batch is left out."""
    sync.lead(ahead.idle())
    policy.settle()
    state = At(**policy.restore(ctx.run.checkpoints[-1]))
    at.step, at.coefficient, at.alpha = state.step, state.coefficient, state.alpha
    if ahead.sampler:
        ctx.run.rewind(at.step)
        ahead.batches.clear()
        ahead.sampler.paused = []
        ctx.progress.note(f"{why}; back to step {at.step}, without the batch")
    sync.push(at.version)


def save(ctx: Context, cfg: RLConfig, policy: Policy, ahead: BatchQueue, sync: WeightSync, at: At) -> None:
    sync.lead(ahead.idle())
    at.taken = policy.ranks.broadcast(ahead.sampler.taken if ahead.sampler else at.taken)
    unfinished = (ahead.sampler.paused, ahead.made()) if ahead.sampler else ()

    def tidy() -> None:
        evals: dict[int, list[float]] = {}
        for row in ctx.run.rows("evals"):
            evals.setdefault(row["step"], []).append(row["avg"])
        scores = {step: sum(found) / len(found) for step, found in evals.items()}
        ctx.run.tidy(cfg.keep_last, cfg.keep_best, scores, stage_ends(cfg))

    policy.save(ctx.run.checkpoint(at.step), asdict(at), unfinished, tidy)


def last_good(ctx: Context) -> str:
    return f"the last good state is {ctx.run.checkpoints[-1] if ctx.run.checkpoints else 'the start model'}"


def is_due(cfg: RLConfig, step: int, done: int, *every: int) -> bool:
    """Whether the last `done` steps ended a stage, or passed a multiple of any of `every` (0 = never)."""
    return step in stage_ends(cfg) or any(n and step // n > (step - done) // n for n in every)


def reference_path(ctx: Context, cfg: RLConfig, stage: Stage, step: int) -> str:
    """The folder of the KL term's model: what the run or this stage started from, or the policy of a later step."""
    start = stage_end(cfg, stage) - stage.steps if cfg.loss.reference == "stage" else 0
    every = cfg.loss.reference_every
    at = max(start, step // every * every if every else 0)
    return str(ctx.run.checkpoint(at)) if at else cfg.model


def load_reference(path: str, cfg: RLConfig, policy: Policy) -> PolicyModule:
    lm = load_part(path, cfg.trainer, policy.ranks, policy.experts)
    return PolicyModule(lm, cfg.temperature).requires_grad_(False).eval().to(policy.device)


def rate(cfg: RLConfig, step: int) -> float:
    o = cfg.optimizer
    return learning_rate(step, cfg.steps, o.lr, o.schedule, o.warmup, o.final_lr)
