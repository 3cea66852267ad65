"""From a checked configuration to a finished run: input checks, the run directory, processes, report."""

from __future__ import annotations

import functools
import json
import time
from dataclasses import dataclass
from pathlib import Path

from ringrl.config.commands import EvalConfig, RLConfig, SelectConfig, SFTConfig
from ringrl.config.data import DataConfig
from ringrl.config.load import Knobs
from ringrl.config.sections import Rollout, Source, Trainer
from ringrl.curate import known
from ringrl.curate.chain import phases, sampled, unfinished
from ringrl.curate.outputs import facts_file
from ringrl.data.source import (
    check_local,
    check_readable,
    fingerprint,
    read_conversations,
    read_graded,
    read_problems,
)
from ringrl.domains import verifier_files
from ringrl.errors import DataError, UserError
from ringrl.evals.benchmarks import given_file, read_benchmark, source_of
from ringrl.launch.crew import WorkerSpec, launch
from ringrl.launch.machine import engine_name
from ringrl.plan.dry_run import arithmetic
from ringrl.report.terminal import show_chain
from ringrl.run import Run, find_checkpoints, open_run

AnyConfig = SFTConfig | SelectConfig | RLConfig | EvalConfig
CONFIGS: dict[str, type[Knobs]] = {
    "data": DataConfig,
    "sft": SFTConfig,
    "select-ckpt": SelectConfig,
    "rl": RLConfig,
    "eval": EvalConfig,
}


@dataclass(frozen=True)
class Needs:
    """What a command must be given."""

    sources: tuple[Source, ...]
    model: str  # the folder whose weights and tokenizer the processes start from; none when a server answers
    trainer: Trainer
    rollout: Rollout | None
    max_total_tokens: int
    routes: bool = False  # the engine must tell which experts it took
    ahead: bool = False  # it samples while the ranks train


def needs(cfg: AnyConfig) -> Needs:
    """Raises DataError when a model folder is not one."""
    if isinstance(cfg, SFTConfig):
        return Needs((cfg.data, cfg.validation), cfg.model, cfg.trainer, None, cfg.max_tokens)
    if isinstance(cfg, SelectConfig):
        first = find_checkpoints(cfg.model)[0]
        one = cfg.trainer.model_copy(update={"ranks": 1})  # checkpoints are measured one after the other
        return Needs((cfg.probe,), str(first), one, cfg.rollout, cfg.max_total_tokens)
    if isinstance(cfg, RLConfig):
        data = [s for stage in cfg.stages for s in stage.data] + [h.data for h in cfg.held_out]
        most = max(s.max_total_tokens for s in cfg.stages)
        routes, ahead = cfg.loss.replay == "engine", cfg.max_staleness > 0
        return Needs(tuple(data), cfg.model, cfg.trainer, cfg.rollout, most, routes, ahead)
    sources = tuple(source_of(b, cfg) for b in cfg.benchmarks)
    if cfg.server.base_url:
        return Needs(sources, "", Trainer(), None, cfg.max_total_tokens)
    return Needs(sources, cfg.model, Trainer(), cfg.rollout, cfg.max_total_tokens)


def checked(cfg: AnyConfig) -> tuple[Needs, str]:
    """(what the command needs, the engine it samples with), with all inputs checked that can be.

    Raises:
        UserError: something the user can fix.
    """
    need = needs(cfg)
    verifier_files(cfg.known_domains)
    if isinstance(cfg, EvalConfig):
        for bench in cfg.benchmarks:
            if given_file(bench, cfg):
                read_benchmark(bench, cfg)
    else:
        problems = functools.partial(read_problems, domains=cfg.known_domains)
        check_local(need.sources, read_conversations if isinstance(cfg, SFTConfig) else problems)
        for stage in cfg.stages if isinstance(cfg, RLConfig) else ():
            if stage.curriculum != "none":
                check_local(stage.data, functools.partial(read_graded, domains=cfg.known_domains))
    if need.model:
        check_model_folder(need.model)
        if need.rollout:
            check_sampled(need.model)
    engine = engine_name(need.rollout) if need.rollout else ""
    if engine == "transformers" and need.routes:
        raise UserError("loss.replay: got engine, expected trainer or none: vLLM is not installed, and the engine "
                        "in process cannot say which experts it took")  # fmt: skip
    return need, engine


def start(command: str, cfg: AnyConfig, resume: bool, report: bool = True) -> int:
    """Run one command to its end. Returns its exit code.

    Raises:
        UserError: something the user can fix; nothing was started or overwritten.
    """
    need, _ = checked(cfg)
    fresh = not (Path(cfg.run) / "config.yaml").is_file()
    served = isinstance(cfg, EvalConfig) and cfg.server.base_url
    run = open_run(cfg, f"{served} {cfg.model}" if served else cfg.model, fingerprint(need.sources), resume)
    if is_finished(run):
        return 0
    began = time.time()
    sampler = None
    if need.rollout:
        sampler = WorkerSpec(need.model, need.rollout, need.max_total_tokens, need.routes, need.ahead)
    code = launch(command, run, need.trainer.ranks, need.trainer.threads, sampler, arithmetic(cfg), fresh)
    if code == 0:
        finish(run, began, report)
    return code


def start_data(cfg: DataConfig, resume: bool, report: bool = True) -> int:
    """Run `ringrl data` to its end, with new processes whenever a model comes or goes. Returns the exit code.

    Raises:
        UserError: as `start`.
    """
    verifier_files(cfg.known_domains)
    check_readable(cfg.sources)
    if "decontaminate" in cfg.steps:
        known.check(cfg.decontaminate)
    engines = [phase.engine for phase in phases(cfg) if phase.engine]
    for teacher in engines:
        check_model_folder(teacher.model)
        check_sampled(teacher.model)
        engine_name(teacher.rollout)
    fresh = not (Path(cfg.run) / "config.yaml").is_file()
    run = open_run(cfg, ", ".join(dict.fromkeys(t.model for t in engines)), fingerprint(cfg.sources), resume)
    began = time.time()
    while not facts_file(run.path).is_file():
        first, sampler = next(iter(unfinished(cfg)), None), None
        if first and first.engine:
            most = sampled(cfg, first.step).max_total_tokens
            sampler = WorkerSpec(first.engine.model, first.engine.rollout, most)
        code = launch("data", run, 1, 0, sampler, arithmetic(cfg) if first and first.index == 0 else (), fresh)
        if code:
            return code
        fresh = False
    if not is_finished(run):
        finish(run, began, report)
        show_chain(run.path, report)
    return 0


def finish(run: Run, began: float, report: bool = True) -> None:
    if report:
        from ringrl.report.runs import write_report

        write_report(run.path)
    run.write("finished.json", {"seconds": round(time.time() - began, 1)})


def is_finished(run: Run) -> bool:
    return (run.path / "finished.json").is_file()


def check_model_folder(path: str) -> None:
    """Raises DataError naming what is missing in a model folder."""
    folder = Path(path)
    if not folder.is_dir():
        raise DataError(f"{path}: no such model folder")
    wanted = ("config.json", "tokenizer_config.json")
    missing = [name for name in wanted if not (folder / name).is_file()]
    if not list(folder.glob("*.safetensors")):
        missing.append("*.safetensors")
    if missing:
        raise DataError(f"{path}: no {missing[0]}, expected a Hugging Face model folder with its tokenizer")


def check_sampled(path: str) -> None:
    """Raises DataError when vLLM cannot read a model folder that ringrl reads in part."""
    config = json.loads((Path(path) / "config.json").read_text())
    extra = config.get("num_nextn_predict_layers") or 0
    if extra and config["model_type"] in ("bailing_moe", "bailing_moe_v2"):
        raise DataError(f"{path}/config.json: num_nextn_predict_layers: got {extra}, expected 0 to sample with: vLLM "
                        f"refuses these layers; ringrl sft writes a folder without them")  # fmt: skip
