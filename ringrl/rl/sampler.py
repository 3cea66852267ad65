"""Rank 0's half of an RL step: prompts, their responses and rewards."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from transformers import PreTrainedTokenizerBase

from ringrl.config.commands import RLConfig, Stage
from ringrl.data.chat import make_prompts
from ringrl.data.source import Row, read_graded, read_problems
from ringrl.data.stream import Stream
from ringrl.errors import DataError
from ringrl.evals.metrics import summarize, too_many_errors
from ringrl.launch.rank import Context
from ringrl.rewards import VerifierPool
from ringrl.rollout.engine import RolloutEngine, Sampling, fresh
from ringrl.rollout.score import Pending, sample, sample_all, settle
from ringrl.types import Group, Prompt, ScoredGroup

Position = tuple[list[int], list[Group]]  # prompts taken per stage, and paused groups


@dataclass(frozen=True)
class ScoredRollout:
    """The responses to one batch of prompts, with rewards."""

    scored: list[ScoredGroup]
    generated: int  # tokens sampled for it, also those of responses that are not finished
    carried: int  # tokens of unfinished responses, which the next rollout continues
    expired: int  # responses that were carried over too often
    times: dict[str, float]  # seconds, by the metric's name
    before: Position  # where the sampler was before this rollout
    trouble: str  # why it must not be trained on: too much of it could not be judged


NOTHING = ScoredRollout([], 0, 0, 0, {}, ([], []), "")  # of a rank that does not sample


class Sampler:
    """Owns the data and, when started, engine and verifiers. `paused`: what the next step continues (C3PO++)."""

    engine: RolloutEngine
    verifier: VerifierPool

    def __init__(self, ctx: Context, cfg: RLConfig, tokenizer: PreTrainedTokenizerBase) -> None:
        """Reads all data. Raises DataError, also when a curriculum has no pass rates to go by, or a stage has fewer
        problems than a batch, which would have them twice."""

        def prompts(rows: list[Row], room: int) -> list[Prompt]:
            return make_prompts(rows, tokenizer, cfg.prompting, room, cfg.known_domains)

        self.ctx, self.cfg, self.tokenizer = ctx, cfg, tokenizer
        self.streams: list[Stream[Prompt]] = []
        self.held_out: dict[str, list[Prompt]] = {}
        for k, stage in enumerate(cfg.stages):
            read = read_problems if stage.curriculum == "none" else read_graded
            rows = [row for source in stage.data for row in read(source, cfg.known_domains)]
            rates = [row.get("pass_rate", 0.0) for row in rows]
            items = prompts(rows, stage.max_total_tokens)
            if len(items) < stage.prompts:
                files = ", ".join(file for source in stage.data for file in source.files)
                raise DataError(f"stages.{k}.prompts: got {stage.prompts}, expected at most {len(items)}, the problems "
                                f"in {files}")  # fmt: skip
            self.streams.append(Stream(items, cfg.seed, 0, stage.curriculum, rates))
        self.held_out = {
            h.name: prompts(read_problems(h.data, cfg.known_domains), cfg.max_total_tokens) for h in cfg.held_out
        }
        self.paused: list[Group] = []

    def start(self) -> None:
        """Waits until the engine has come up."""
        verify, domains = self.cfg.verify, self.cfg.known_domains
        self.verifier = VerifierPool(verify.workers, verify.deadline_s, domains, **verify.programs)
        self.engine = self.ctx.rollout_engine(self.cfg.model, self.cfg.rollout)

    @property
    def taken(self) -> list[int]:
        """Prompts taken, per stage."""
        return [s.taken for s in self.streams]

    def probes(self, length: int) -> list[Prompt]:
        """What weight syncs are checked with: the two shortest prompts, and unless 0 one of `length` tokens."""
        items = sorted(self.streams[0].items, key=lambda p: len(p.token_ids))
        ids = itertools.islice(itertools.cycle(t for p in items[:length] for t in p.token_ids.tolist()), length)
        long = [replace(items[0], token_ids=np.fromiter(ids, np.int32))] if length else []
        return [items[0], items[min(1, len(items) - 1)], *long]

    def go_to(self, position: Position) -> None:
        taken, self.paused = position
        for stream, count in zip(self.streams, taken, strict=True):
            stream.taken = count

    def begin(self, step: int) -> Position:
        """Before the first prompts of a rollout. Returns where it begins."""
        before = (self.taken, self.paused)
        if step in self.cfg.stage_ends:  # what is left of another stage's prompts
            self.paused = []
        self.carried = tokens_in(self.paused)
        self.times = {"time_rollout_s": 0.0, "time_reward_s": 0.0}
        return before

    def take(self, stage: Stage) -> list[Group]:
        """A batch of prompts: those with unfinished responses first, then new ones."""
        stream = self.streams[self.cfg.stages.index(stage)]
        return self.paused + fresh(stream.take(max(stage.prompts - len(self.paused), 0)))

    def generate(self, prompts: list[Group], stage: Stage, step: int, attempt: int, enough: int) -> list[Pending]:
        """K responses to each prompt, each on its way to a verdict; unless 0, stops after `enough` finished tokens."""
        sampling = Sampling(stage.samples, self.cfg.temperature, stage.max_total_tokens)
        again = f", again {attempt}" if attempt else ""

        def show(done: int) -> None:
            self.ctx.progress.phase(f"rollout {stage.name}{again}", done, len(prompts))

        seed = (self.cfg.seed * 1_000_003 + step) * 101 + attempt
        started = time.perf_counter()
        pending, self.paused = sample(self.engine, self.verifier, self.tokenizer, prompts, sampling, seed, show, enough)
        self.times["time_rollout_s"] += time.perf_counter() - started
        return pending

    def rewards(self, groups: list[Pending]) -> list[ScoredGroup]:
        """Waits for the verdicts that are still missing; most came while other responses were being sampled."""
        started = time.perf_counter()
        scored = settle(groups)
        self.times["time_reward_s"] += time.perf_counter() - started
        return scored

    def end(self, stage: Stage, scored: list[ScoredGroup], before: Position, trouble: str) -> ScoredRollout:
        """The rollout, when it has enough; what is unfinished is kept for the next one."""
        generated = sum(len(c.token_ids) for g in scored for c in g.group.completions)
        generated += tokens_in(self.paused) - self.carried
        self.paused, expired = retain(self.paused, stage.budget.retention)
        return ScoredRollout(scored, generated, tokens_in(self.paused), expired, self.times, before, trouble)

    def evaluate(self, step: int, stage: str) -> None:
        """avg@k of the current weights on every held-out set, to evals.jsonl."""
        sampling = Sampling(self.cfg.eval_samples, self.cfg.temperature, self.cfg.max_total_tokens)
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

    def close(self) -> None:
        self.engine.close()
        self.verifier.close()


def retain(paused: Sequence[Group], retention: int) -> tuple[list[Group], int]:
    """What is carried over to the next rollout batch, one batch older, and how many responses were too old for it.

    A response that is dropped leaves its group; the others' advantages are those of a smaller group, and a group
    of fewer than two is dropped as a whole. Prompts that were not begun do not age.
    """
    kept, expired = [], 0
    for group in paused:
        if not any(len(c.token_ids) for c in group.completions):
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
