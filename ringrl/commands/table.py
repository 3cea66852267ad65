"""All commands that have a configuration. To add one, write the module that its ranks run and an entry here.

Imports nothing heavy: the entries name their modules, which are imported when run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from ringrl.config.commands import EvalConfig, PipelineConfig, RLConfig, SelectConfig, SFTConfig
from ringrl.config.data import DataConfig
from ringrl.config.load import Knobs, read, resolve
from ringrl.curate.chain import phases, sampled, unfinished
from ringrl.curate.read import check as check_sources
from ringrl.data.source import check_local, read_conversations, read_graded, read_problems
from ringrl.errors import ConfigError
from ringrl.evals.benchmarks import definition, given_file, read_benchmark, source_of
from ringrl.launch.command import Command, Needs, WorkerSpec
from ringrl.plan import dry_run, report
from ringrl.plan.report import Section
from ringrl.plan.shape import read_shape
from ringrl.plan.timing import Assumed
from ringrl.run import find_checkpoints


def command_of(cfg: Knobs) -> Command[Any]:
    return next(command for command in COMMANDS.values() if command.config is type(cfg))


def load_any(path: str, overrides: Sequence[str] = ()) -> Knobs:
    """Load the configuration of any command, recognised by its keys. Raises ConfigError."""
    raw = read(path)
    for command in COMMANDS.values():
        if command.key in raw:
            return resolve(command.config, raw, overrides, path)
    keys = ", ".join(command.key for command in COMMANDS.values())
    raise ConfigError(f"{path}: got keys {', '.join(map(str, raw))}, expected one of {keys}, which say what kind of "
                      f"configuration it is")  # fmt: skip


def pipeline_arithmetic(cfg: PipelineConfig) -> list[str]:
    stages = [(name, cfg.stage(name, cfg.model)) for name in cfg.sections]
    return [f"{name}: {line}" for name, stage in stages for line in command_of(stage).arithmetic(stage)]


def pipeline_plan(cfg: PipelineConfig, assumed: Assumed, gpus: int) -> Iterator[Section]:
    """The plans of all stages, with the section on the model only once."""
    model = report.about(read_shape(cfg.model))
    yield model
    for name in cfg.sections:
        stage = cfg.stage(name, cfg.model)
        for section in command_of(stage).plan(stage, assumed, gpus):
            if section != model:
                yield replace(section, title=f"{name}: {section.title}")


def data_needs(cfg: DataConfig) -> Needs:
    """One launch per group of consecutive unfinished phases with the same model."""
    launches: list[WorkerSpec | None] = []
    for teacher, group in groupby(unfinished(cfg), lambda phase: phase.engine):
        most = sampled(cfg, next(group).step).max_total_tokens
        launches.append(WorkerSpec(teacher.model, teacher.rollout, most) if teacher else None)
    models = dict.fromkeys(phase.engine.model for phase in phases(cfg) if phase.engine)
    embedding = (cfg.deduplicate.embedding.model, cfg.decontaminate.embedding.model)
    return Needs(", ".join(models), cfg.sources, models=(*models, *filter(None, embedding)),
                 launches=tuple(launches) or (None,))  # (None,) writes missing outputs  # fmt: skip


def check_data(cfg: DataConfig) -> set[str]:
    from ringrl.curate import known

    check_sources(cfg.sources, cfg.known_domains)
    if "decontaminate" in cfg.steps:
        known.check(cfg.decontaminate)
    return {source.domain for source in cfg.sources} - {"row"}


def show_data(run: Path) -> None:
    from ringrl.report.terminal import show_chain

    show_chain(run)


def rl_needs(cfg: RLConfig) -> Needs:
    sources = (*(s for stage in cfg.stages for s in stage.data), *(h.data for h in cfg.held_out))
    most = cfg.max_total_tokens
    sampler = WorkerSpec(cfg.model, cfg.rollout, most, cfg.loss.router_replay == "engine", cfg.max_staleness > 0)
    return Needs(cfg.model, sources, cfg.model, (cfg.model,), cfg.trainer, (sampler,))


def check_rl(cfg: RLConfig) -> set[str]:
    domains = check_local(rl_needs(cfg).sources, partial(read_problems, domains=cfg.known_domains))
    for stage in cfg.stages:
        if stage.curriculum != "none":
            check_local(stage.data, partial(read_graded, domains=cfg.known_domains))
    return domains


def eval_needs(cfg: EvalConfig) -> Needs:
    sources = tuple(source_of(b, cfg) for b in cfg.benchmarks)
    if cfg.server.base_url:
        return Needs(f"{cfg.server.base_url} {cfg.model}", sources)
    sampler = WorkerSpec(cfg.model, cfg.rollout, cfg.max_total_tokens)
    return Needs(cfg.model, sources, models=(cfg.model,), launches=(sampler,))


def check_eval(cfg: EvalConfig) -> set[str]:
    given = [read_benchmark(bench, cfg) for bench in cfg.benchmarks if given_file(bench, cfg)]
    ours = {definition(bench, cfg).domain for bench in cfg.benchmarks if not given_file(bench, cfg)}
    return ours | {problem["domain"] for problems in given for problem in problems}


def select_needs(cfg: SelectConfig) -> Needs:
    models = tuple(map(str, find_checkpoints(cfg.model)))
    trainer = cfg.trainer.model_copy(update={"ranks": 1})  # checkpoints are measured one at a time
    sampler = WorkerSpec(models[0], cfg.rollout, cfg.max_total_tokens)
    return Needs(cfg.model, (cfg.probe,), models[0], models, trainer, (sampler,))


ENTRIES = (
    Command("run", "The whole method from one file: data, sft, select-ckpt, rl stages, eval.", PipelineConfig, "sft",
            pipeline_arithmetic, pipeline_plan, trains=True, starter="ringrl.commands.pipeline"),
    Command("data", "From raw problems to trainable data: cleanse, deduplicate, decontaminate, grade, distil, mix.",
            DataConfig, "sources", dry_run.data, report.data, "ringrl.commands.data", data_needs, check_data, show_data,
            starter="ringrl.launch.start"),
    Command("rl", "Reinforcement learning with C3PO on a fixed token budget, in stages.", RLConfig, "stages",
            dry_run.rl, report.rl, "ringrl.rl.loop", rl_needs, check_rl, trains=True),
    Command("eval", "avg@k with its standard errors, pass@k and majority, on named benchmarks or your own JSONL.\n\n"
            "Either CONFIG, or --model and --bench. Without CONFIG the paper's protocol holds.", EvalConfig,
            "benchmarks", dry_run.evaluation, report.evaluation, "ringrl.commands.eval", eval_needs, check_eval),
    Command("select-ckpt", "Choose the SFT checkpoint to start RL from, by policy entropy.", SelectConfig, "probe",
            dry_run.select_ckpt, report.select_ckpt, "ringrl.commands.select_ckpt", select_needs,
            lambda cfg: check_local((cfg.probe,), partial(read_problems, domains=cfg.known_domains))),
    Command("sft", "Long-CoT distillation: train on teacher responses, a checkpoint per epoch.", SFTConfig,
            "data", dry_run.sft, report.sft, "ringrl.commands.sft",
            lambda cfg: Needs(cfg.model, cfg.sources, cfg.model, (cfg.model,), cfg.trainer),
            lambda cfg: check_local(cfg.sources, read_conversations), trains=True),
)  # fmt: skip
COMMANDS: dict[str, Command[Any]] = {command.name: command for command in ENTRIES}
