"""`ringrl data`: from raw problems to training data, step by step; `ringrl.curate.chain` defines a step."""

from __future__ import annotations

import contextlib
import functools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from ringrl.config.data import DataConfig, Teacher
from ringrl.config.load import load
from ringrl.curate import annotate, cleanse, decontaminate, deduplicate, distil, grade, mix, outputs, read, sample
from ringrl.curate.chain import Interrupted, Phase, PrepareStep, ShardStep, sampled, unfinished
from ringrl.curate.workers import Workers
from ringrl.launch.rank import Context
from ringrl.lines import write_atomic
from ringrl.report.step_counts import Account, accounts
from ringrl.rollout.respond import Answer

A = TypeVar("A")
T = TypeVar("T")

STEPS: dict[str, PrepareStep] = {
    "cleanse": cleanse.prepare,
    "deduplicate": deduplicate.prepare,
    "decontaminate": decontaminate.prepare,
    "grade": grade.prepare,
    "distil": distil.prepare,
    "annotate": annotate.prepare,
    "mix": mix.prepare,
}


def main(ctx: Context) -> int:
    """Runs the unfinished phases up to the first that needs workers of another model, which a further launch brings;
    after the last phase it writes the outputs."""
    cfg = load(DataConfig, ctx.run.path / "config.yaml")
    todo = unfinished(cfg)
    with Workers(cfg.processes) as workers:
        chain = Chain(ctx, cfg, workers)
        try:
            for phase in todo:
                if phase.engine != todo[0].engine:
                    break
                chain.work(phase)
            if not unfinished(cfg):
                chain.write()
        except Interrupted:
            return 130
    return 0


class Chain:
    """Runs phases and reports progress."""

    def __init__(self, ctx: Context, cfg: DataConfig, workers: Workers) -> None:
        self.ctx, self.cfg, self.workers = ctx, cfg, workers

    def work(self, phase: Phase) -> None:
        began = time.monotonic()
        if phase.teacher:
            self.sample(phase, phase.teacher)
            write_atomic(phase.done_file, f"{time.monotonic() - began:.1f}")
            return
        if phase.step == "read":
            self.read(phase)
        else:
            self.apply(phase)
        sampling = sum(float(file.read_text()) for file in phase.shards.work.glob("*.done"))
        summary = phase.shards.close(time.monotonic() - began + sampling)
        self.ctx.progress.note(_line(accounts(self.ctx.run.path)[-1]))
        for row in summary["examples"].get(read.MALFORMED, ()):
            self.ctx.progress.note(f"dropped: {row['detail']}")

    def read(self, phase: Phase) -> None:
        """Runs in this process: parsing is cheap, and rows must be numbered in order."""
        for shard, results in read.shards(self.cfg.sources, self.cfg.known_domains, self.cfg.shard_rows):
            if not phase.shards.done(shard):
                phase.shards.write(shard, "read", results)
            self.ctx.progress.phase("read", shard + 1, shard + 2)
            self.heed()

    def sample(self, phase: Phase, teacher: Teacher) -> None:
        from ringrl.commands.eval import open_model  # imports transformers, which the workers must not load

        knobs = sampled(self.cfg, phase.step)
        sampling = (knobs.temperature, knobs.top_p, knobs.max_total_tokens, self.cfg.seed)
        domains = self.cfg.known_domains
        model, _ = open_model(
            self.ctx, teacher.model, teacher.rollout, teacher.server, knobs.prompting, domains, sampling
        )
        self.ctx.progress.note(f"{phase.step}: {teacher.name}, {model.name}")
        questions = (
            annotate.questions(phase, self.cfg.annotate) if phase.step == "annotate" else sample.solutions(phase, knobs)
        )
        with contextlib.closing(model):
            sample.sample(phase, questions, model, SamplingProgress(self))

    def apply(self, phase: Phase) -> None:
        assert phase.before
        step = STEPS[phase.step](self.cfg, phase.before, phase.shards, self.over)
        todo = [n for n in phase.before.numbers if not phase.shards.done(n)]
        for _ in self.over(phase.step, functools.partial(apply, phase, step), todo):
            pass

    def write(self) -> None:
        """Writes the outputs, then the lineage, and outputs.json last, since it marks the chain as finished."""

        def tick(done: int, total: int) -> None:
            self.ctx.progress.phase("write", done, total)
            self.heed()

        facts = outputs.write(self.cfg, tick)
        run = self.ctx.run
        lineage = json.loads((run.path / "lineage.json").read_text())
        run.write("lineage.json", {**lineage, "outputs": {name: f["sha256"] for name, f in facts.items()}})
        outputs.write_facts(run.path, facts)
        for name, f in facts.items():
            self.ctx.progress.note(_output_line(name, f))

    def over(
        self, name: str, function: Callable[[A], T], items: Sequence[A], in_process: bool = False
    ) -> Iterator[tuple[A, T]]:
        """Implements `chain.MapShards`."""
        results = ((item, function(item)) for item in items) if in_process else self.workers.map(function, items)
        self.ctx.progress.phase(name, 0, len(items))
        for n, result in enumerate(results, 1):
            self.ctx.progress.phase(name, n, len(items))
            yield result
            self.heed()

    def heed(self) -> None:
        if self.ctx.interrupted:
            raise Interrupted


class SamplingProgress:
    """Reports progress and speed of the sampling; stops on an interrupt."""

    def __init__(self, chain: Chain) -> None:
        self.chain, self.began = chain, time.monotonic()
        self.answers = self.tokens = 0

    def __call__(self, done: int, total: int, answer: Answer | None) -> None:
        if answer:
            self.answers += 1
            self.tokens += answer.length
            seconds = time.monotonic() - self.began
            numbers = {"responses/s": self.answers / seconds, "tokens/s": self.tokens / seconds}
            self.chain.ctx.progress.step(done, total, numbers)
        self.chain.heed()


def apply(phase: Phase, step: ShardStep, shard: int) -> None:
    """Runs a step on one shard; called in any process."""
    assert phase.before
    phase.shards.write(shard, phase.step, step(shard, phase.before.rows(shard)))


def _line(step: Account) -> str:
    """The terminal line of a finished step, aligned with those of the others."""
    numbers = f"{step.kept.total():>11,} kept {step.lost:>11,} dropped {step.seconds:>9,.1f} s"
    return f"{step.name:<13} {numbers}  {step.most(4)}"


def _output_line(name: str, facts: dict[str, Any]) -> str:
    """The terminal line of an output."""
    wanted = f" of {facts['wanted']:,} wanted" * (facts["problems"] < facts["wanted"])
    domains = ", ".join(f"{domain} {n:,}" for domain, n in facts["domains"].items())
    return f"{name + '.jsonl':<13} {facts['lines']:>11,} rows {facts['problems']:>11,} problems{wanted}: {domains}"
