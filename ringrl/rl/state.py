"""What stands around the method: how a run is opened, saved, rolled back, watched, and what it carries along."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch

from ringrl.config.commands import RLConfig, Stage
from ringrl.data.chat import load_tokenizer
from ringrl.errors import Diverged, RingError
from ringrl.launch.rank import Context
from ringrl.policy.engine import Policy, load_module, unfinished
from ringrl.policy.forward import PolicyModule
from ringrl.policy.ranks import Ranks
from ringrl.policy.sync import Parity, WeightSync, long_enough
from ringrl.rl import kept, watchdog
from ringrl.rl.batch_queue import BatchQueue
from ringrl.rl.bundle import Batch
from ringrl.rl.record import Row, Stopwatch, metrics, record
from ringrl.rl.sampler import Sampler, ScoredRollout
from ringrl.rollout.engine import Sampling


@dataclass
class RunState:
    """Where a run is: all that its loop carries from one rollout batch to the next, and a checkpoint keeps."""

    step: int  # optimizer steps done
    version: int  # of the weights
    taken: list[int]  # prompts taken, per stage
    coefficient: float  # entropy coefficient as `adapt` carries it on
    alpha: float  # entropy coefficient of the next update
    expert_share: list[list[float]] = field(default_factory=list)  # [layers, E] f of the last update; empty before it


class TrainingRun(ABC):
    """A run on one rank. Rank 0 alone has a sampler, and with it the data, the engine and the verifiers."""

    def __init__(self, ctx: Context, cfg: RLConfig) -> None:
        self.ctx, self.cfg = ctx, cfg
        self.stopped, self.rollbacks = False, 0
        self.history: list[Row] = []  # metrics up to here, of which the watchdog needs some keys; on rank 0
        self.reference_model: PolicyModule | None = None
        self.reference_path = ""
        tokenizer = load_tokenizer(cfg.model, cfg.prompting)
        deadline_s = cfg.rollout.start_deadline_s + cfg.rollout.deadline_s  # rank 0 may have to restart workers
        self.ranks = Ranks(deadline_s, ctx.spec["meeting"])
        self.sampler = Sampler(ctx, cfg, tokenizer) if self.ranks.main else None
        if cfg.rollout.colocated:
            self.start_engine()
            if self.sampler:
                self.sampler.engine.rest()
            self.ranks.barrier()  # workers take what is free on their GPUs: until they sleep, ranks allocate nothing
        torch.manual_seed(cfg.seed)
        last = self.ranks.newest(ctx.run.checkpoints)
        self.policy = Policy(
            cfg.model, tokenizer, cfg.trainer, cfg.optimizer, cfg.temperature, self.ranks, cfg.loss.freeze_router, last
        )
        self.state = RunState(0, 0, [0] * len(cfg.stages), cfg.loss.entropy, cfg.loss.entropy)
        if last:
            self.state = RunState(**self.policy.restore(last))
        paused, rollouts = kept.unfinished(unfinished(last) if last else [])
        if self.sampler:
            self.sampler.go_to((self.state.taken, paused))
        if not cfg.rollout.colocated:
            self.start_engine()
        engine = self.sampler.engine if self.sampler else None
        sampling = Sampling(1, cfg.temperature, cfg.max_total_tokens)
        length = long_enough(self.policy.module.lm.config, cfg.max_total_tokens)
        probes = self.ranks.broadcast(self.sampler.probes(length) if self.sampler else None)
        folder = Path(ctx.spec["meeting"])
        self.sync = WeightSync(self.policy, engine, cfg.model, probes, sampling, cfg.rollout, folder)
        if engine:
            engine.resend = self.sync.resend
        self.queue = BatchQueue(cfg, self.sampler, self.sample, rollouts)

    @abstractmethod
    def sample(self, step: int) -> ScoredRollout:
        """The responses that `step` trains on; called on rank 0, in the queue's thread."""

    @abstractmethod
    def step(self) -> None:
        """Trains on one rollout, and calls `conclude` with what came of it."""

    def start_engine(self) -> None:
        if self.sampler:
            self.sampler.start()

    def close(self) -> None:
        if self.sampler:
            self.sampler.close()

    @property
    def stage(self) -> Stage:
        return self.cfg.stage_at(self.state.step)

    def run(self) -> int:
        """From where the run is to its end. Returns the exit code."""
        self.begin()
        while self.state.step < self.cfg.steps and not self.stopped:
            self.step()
        self.policy.settle()
        self.ranks.close()
        return 130 if self.stopped else 0

    def begin(self) -> None:
        """The first weight sync, and the evaluation of the start model.

        Raises:
            RingError: sampler and trainer disagree before anything was trained.
        """
        limit = self.cfg.rollout.parity(self.cfg.trainer.dtype)
        gap = self.sync.push(self.state.version, thorough=True).gap
        if not gap <= limit:
            raise RingError(
                f"weight sync to version {self.state.version}: the engine's log-probs differ from the trainer's by "
                f"{gap:.3g} nats, expected at most {limit:g} (rollout.parity_limit)"
            )
        if self.sampler:
            self.ctx.run.rewind(self.state.step or -1)
            self.history = watchdog.remembered(self.ctx.run.rows("metrics"))
            version = f"weights version {self.state.version}, parity {gap:.2g} nats"
            self.ctx.progress.note(f"{self.sampler.engine.name}; {version}")
        if self.state.step == 0:
            self.sync.lead(self.queue.evaluate(0, self.cfg.stages[0].name))
        if self.cfg.watchdog.on_collapse == "rollback" and not self.ranks.newest(self.ctx.run.checkpoints):
            self.save()

    def wait_for_sampling(self) -> None:
        """Weights may not change under what is being sampled, unless they arrive in flight."""
        if not self.cfg.rollout.in_flight:
            self.sync.lead(self.queue.idle())

    def reference(self, stage: Stage) -> PolicyModule | None:
        """The model of the KL term: what the run or this stage started from, or the policy of a later step."""
        cfg = self.cfg
        if not cfg.loss.kl:
            return None
        start = cfg.stage_start(stage) if cfg.loss.reference == "stage" else 0
        every = cfg.loss.reference_every
        step = max(start, self.state.step // every * every if every else 0)
        path = str(self.ctx.run.checkpoint(step)) if step else cfg.model
        if path != self.reference_path:
            self.policy.settle()  # it may be a checkpoint that is still being written
            module = load_module(path, cfg.trainer, self.ranks, self.policy.experts, cfg.temperature)
            self.reference_model, self.reference_path = module.requires_grad_(False).eval().to(self.policy.device), path
        return self.reference_model

    def conclude(self, batch: Batch, results: list[Row], parity: Parity, clock: Stopwatch) -> None:
        """After the update: metrics, the watchdog, and what is due after this many steps.

        Raises:
            Diverged: the run has collapsed, and may not go back (again).
        """
        cfg, state = self.cfg, self.state
        stage, rows = self.stage, []
        if self.sampler:
            numbers = {"version": state.version, "parity": parity.gap, "shift": parity.shift, **clock.seconds}
            rows = metrics(state.step, stage, batch, results, numbers)
            record(self.ctx, cfg, rows, batch, self.sampler.tokenizer)
        state.version += 1
        if collapse := self.ranks.broadcast(self.watch(rows, batch)):
            self.roll_back(collapse)
            return
        self.history += watchdog.remembered(rows)
        state.step += len(results)
        self.stopped = self.ranks.broadcast(self.ctx.interrupted)
        if self.is_due(len(results), cfg.eval_every):
            self.sync.lead(self.queue.evaluate(state.step, stage.name))
        if self.stopped or self.is_due(len(results), cfg.save_every, cfg.loss.reference_every):
            self.save()
        self.policy.writer.check()

    def is_due(self, steps: int, *periods: int) -> bool:
        """Whether the last `steps` steps ended a stage, or passed a multiple of any of the periods (0 = never)."""
        now = self.state.step
        return now in self.cfg.stage_ends or any(n and now // n > (now - steps) // n for n in periods)

    def watch(self, rows: list[Row], batch: Batch) -> str:
        """Says what is odd, and saves the batch on collapse. Returns why the run collapsed, or nothing."""
        cfg, run = self.cfg, self.ctx.run
        if not rows:
            return ""
        limit = cfg.rollout.parity(cfg.trainer.dtype)
        history = [r for r in self.history if r["stage"] == rows[0]["stage"]]
        for row in rows:
            alarms = watchdog.judge(history, row, cfg.watchdog, cfg.optimizer.clip_norm, limit)
            if collapses := [a for a in alarms if a.collapse]:
                file = watchdog.save(run, rows, alarms, batch)
                return f"step {row['step']}: {collapses[0].kind}: {collapses[0].text}; the batch is in {file}"
            for alarm in alarms:
                self.ctx.progress.note(f"warning, step {row['step']}: {alarm.text}")
            history.append(row)
        return ""

    def require_verdicts(self, rollout: ScoredRollout) -> None:
        """Ends the run, its state saved as before `rollout`, when too much of that could not be judged.

        Raises:
            RingError: that is so.
        """
        trouble = self.ranks.broadcast(rollout.trouble)
        if not trouble:
            return
        run, step = self.ctx.run, self.state.step
        self.sync.lead(self.queue.idle())
        self.policy.settle()
        self.queue.go_to(rollout.before)
        if self.sampler:
            alarm = watchdog.Alarm("verifiers", False, trouble)
            watchdog.save(run, [{"step": step + 1}], [alarm], Batch(rollout, [], [], [], [], 0))
        if self.ranks.broadcast(run.checkpoint(step) not in run.checkpoints):
            self.save()
        self.policy.settle()
        file = run.path / "watchdog" / f"step_{step + 1:06d}.pt"
        raise RingError(f"step {step + 1}: {trouble}; the batch is in {file}, the state before it is saved: --resume "
                        f"samples it again")  # fmt: skip

    def roll_back(self, why: str) -> None:
        """To the last checkpoint's weights and optimizer. Prompts and versions go on, so the batch is left out.

        Raises:
            Diverged: the configuration says to stop, or it went back too often.
        """
        run, limits = self.ctx.run, self.cfg.watchdog
        if limits.on_collapse == "stop" or self.rollbacks == limits.max_rollbacks:
            good = run.checkpoints[-1] if run.checkpoints else "the start model"
            raise Diverged(f"{why}; the last good state is {good}")
        self.rollbacks += 1
        self.sync.lead(self.queue.idle())
        self.policy.settle()
        last = self.ranks.newest(run.checkpoints)
        assert last  # the loop saves one before the first update
        saved = RunState(**self.policy.restore(last))
        self.state = replace(saved, version=self.state.version, taken=self.state.taken)
        if self.sampler:
            self.queue.go_to((self.sampler.taken, []))
            run.rewind(self.state.step)
            self.history = [r for r in self.history if r["step"] <= self.state.step]
            self.ctx.progress.note(f"{why}; back to step {self.state.step}, without the batch")
        self.sync.push(self.state.version)

    def save(self) -> None:
        """Begins to write a checkpoint; older ones that are not wanted any more go when it is there."""
        self.sync.lead(self.queue.idle())
        self.state.taken = self.ranks.broadcast(self.sampler.taken if self.sampler else self.state.taken)
        run, cfg, step = self.ctx.run, self.cfg, self.state.step

        def tidy() -> None:
            evals: dict[int, list[float]] = {}
            for row in run.rows("evals"):
                evals.setdefault(row["step"], []).append(row["avg"])
            scores = {step: sum(averages) / len(averages) for step, averages in evals.items()}
            run.tidy(cfg.keep_resumable, cfg.keep_last, cfg.keep_best, scores, cfg.stage_ends)
            run.tell("saved", run.checkpoint(step))

        if self.sampler:
            run.sync()
        self.policy.save(run.checkpoint(self.state.step), asdict(self.state), self.queue.unfinished(), tidy)
