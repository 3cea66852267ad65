"""One function per command: the lines of arithmetic that --dry-run and a launch print."""

from __future__ import annotations

import math

from ringrl.config.commands import Bench, EvalConfig, RLConfig, SelectConfig, SFTConfig, Stage
from ringrl.config.data import DataConfig, Distil, Grade
from ringrl.config.sections import Trainer
from ringrl.errors import ConfigError, UserError
from ringrl.evals.benchmarks import definition, samples_of
from ringrl.models.families import notes
from ringrl.models.folder import read_object
from ringrl.plan.memory import GIB, rank_memory
from ringrl.plan.shape import find_config, read_shape


def sft(cfg: SFTConfig) -> list[str]:
    return [
        f"step: {cfg.batch_examples} examples of at most {cfg.max_tokens} tokens = at most "
        f"{cfg.batch_examples * cfg.max_tokens:,} tokens, over {_ranks(cfg.trainer)}",
        *_model(cfg.model, cfg.trainer, cfg.max_tokens, reference=False),
    ]


def select_ckpt(cfg: SelectConfig) -> list[str]:
    return [f"per checkpoint: probe prompts x {cfg.samples} samples of at most {cfg.max_total_tokens:,} tokens"]


def rl(cfg: RLConfig) -> list[str]:
    lines = [line for stage in cfg.stages for line in _stage(cfg, stage)]
    return [*lines, *_model(cfg.model, cfg.trainer, cfg.max_total_tokens, reference=cfg.loss.kl > 0)]


def evaluation(cfg: EvalConfig) -> list[str]:
    most = f"at most {cfg.max_total_tokens:,} tokens each"
    return [_bench(b, cfg, most) for b in cfg.benchmarks]


def data(cfg: DataConfig) -> list[str]:
    lines = [" -> ".join(("read", *cfg.steps)) + f", {cfg.processes} processes, shards of {cfg.shard_rows:,} rows"]
    sampled: tuple[Grade | Distil, ...] = (cfg.grade, cfg.distil)
    for name, step in zip(("grade", "distil"), sampled, strict=True):
        if name in cfg.steps and step.teachers:
            names = ", ".join(t.name for t in step.teachers)
            lines.append(
                f"{name}: {step.samples} samples a problem of at most {step.max_total_tokens:,} tokens, by {names}"
            )
    return lines


def _bench(bench: Bench, cfg: EvalConfig, most: str) -> str:
    known = definition(bench, cfg)
    window = f"release {known.release}, problems from {known.since} to {known.until}; " if known.since else ""
    return f"{bench.name}: {window}k = {samples_of(bench, cfg)} samples a problem, {most}"


def _stage(cfg: RLConfig, s: Stage) -> list[str]:
    responses = s.prompts * s.samples
    batches = s.steps // cfg.updates
    lines = [
        f"stage {s.name}: {batches} rollout batches of {s.prompts} prompts x {s.samples} samples = {responses:,} "
        f"responses, at most {responses * s.max_total_tokens:,} tokens; {s.steps} optimizer steps"
    ]
    if cfg.loss.method != "c3po":
        dials = ("advantage", "ratio", "clip", "weight", "denominator")
        lines.append(f"loss {cfg.loss.method}: " + ", ".join(f"{d} {getattr(cfg.loss, d)}" for d in dials))
    if cfg.budgeted:
        phi = cfg.update_phi(s)
        scored = phi / (min(s.budget.keep) if s.budget.order == "informative" else 1)
        rows = math.ceil(scored / cfg.trainer.microbatch_tokens / cfg.trainer.ranks)
        lines.append(
            f"stage {s.name}: Φ = {phi:,} tokens per optimizer step (scope {s.budget.scope}), "
            f"{phi / cfg.trainer.ranks:,.0f} on each of {_ranks(cfg.trainer)}, in at least {rows} microbatches of at "
            f"most {cfg.trainer.microbatch_tokens:,} tokens, prompts come on top; met if "
            f"responses average {phi * cfg.updates / responses:,.0f} tokens"
        )
    return lines


def _ranks(trainer: Trainer) -> str:
    return f"{trainer.ranks} rank{'s' * (trainer.ranks > 1)}"


def _model(model: str, trainer: Trainer, longest: int, reference: bool) -> list[str]:
    """What is special about training this model, and a rank's memory in one line; `ringrl plan` has the breakdown."""
    try:
        special = notes(read_object(find_config(model)), trainer.packing)
    except UserError as e:
        return [f"no memory estimate: {e}"]
    try:
        shape = read_shape(model)
    except ConfigError as e:
        return [*special, f"no memory estimate: {e}"]
    m, n, ep = rank_memory(shape, trainer, longest, reference), trainer.ranks, trainer.parallel.expert
    on_host = f" and {m.host / GIB:.2f} GiB of host memory" if m.host else ""
    return [
        *special,
        f"model: {shape.total:,} parameters, {shape.active:,} active, {shape.routed:,} in experts; weights, gradients, "
        f"optimizer{', reference' * reference} take {m.resident / GIB:.2f} GiB{on_host} per rank "
        f"(ZeRO-{trainer.parallel.zero}, {_ranks(trainer)}: expert-parallel groups of {ep}, expert-data-parallel "
        f"groups of {n // ep}), {m.peak / GIB:.2f} GiB at the peak of an update",
    ]
