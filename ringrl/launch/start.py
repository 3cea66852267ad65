"""From a checked configuration to a finished run: input checks, the run directory, processes, report."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Iterable, Set
from dataclasses import replace
from pathlib import Path
from typing import Any

from ringrl.config.sections import RunConfig, Source
from ringrl.data.source import absent_file
from ringrl.domains import verifier_files
from ringrl.errors import DataError, UserError
from ringrl.launch.command import Command, Needs
from ringrl.launch.crew import launch
from ringrl.launch.machine import check_attention, check_engine, engine_name, gpus, read_key
from ringrl.launch.opening import Resume, computed, is_begun, opened
from ringrl.launch.origin import origin_of
from ringrl.launch.trackers import check_trackers, tracked
from ringrl.lines import sha256
from ringrl.models.families import check_positions, check_trainable
from ringrl.models.folder import check_folder
from ringrl.rewards import check_verifiers
from ringrl.run import Run
from ringrl.sandbox.box import Isolation, at_least


def verifiers_of(cfg: RunConfig) -> dict[str, str]:
    """sha256 of the files of user-defined verifiers, after loading each verifier once in a process of its own.

    Raises:
        UserError: a verifier cannot be loaded or does not take its options.
    """
    files = verifier_files(cfg.known_domains)
    check_verifiers(cfg.known_domains.own)
    return {file: sha256(Path(file)) for file in files}


def checked(command: Command[Any], cfg: Any) -> Needs:
    """What the command needs, after checking all inputs that can be checked up front.

    Raises:
        UserError: something the user can fix.
    """
    assert command.needs
    need = command.needs(cfg)
    if command.check and (isolation := _isolation(cfg, command.check(cfg))):
        need = replace(need, isolation=str(isolation))
        if isolation.level == "uid" and cfg.verify.isolation == "uid":
            _check_private(need.sources)
    check_models(need)
    if need.trainer:
        check_attention(need.trainer)
    for sampler in filter(None, need.launches):
        check_engine(sampler.rollout)
        if sampler.rollout.addresses:
            read_key(sampler.rollout.key_file)
        somewhere = sampler.rollout.addresses or gpus()
        if sampler.routes and (engine_name(sampler.rollout) == "transformers" or not somewhere):
            raise UserError("loss.router_replay: got engine, expected trainer or none: only vLLM on GPUs can say which "
                            "experts it took")  # fmt: skip
    return need


def _isolation(cfg: RunConfig, domains: Set[str]) -> Isolation | None:
    """How programs are isolated here, None if problems of these domains need none.

    Raises:
        ConfigError: less than `verify.isolation` asks for.
    """
    verifiers = {reward.verifier for name in domains for reward in cfg.known_domains[name].rewards}
    verify = getattr(cfg, "verify", None)
    return at_least(verify.isolation) if verify and "code" in verifiers and not verify.remote else None


def _check_private(sources: Iterable[Source]) -> None:
    """Raises DataError for data that programs of another user can read: their tests are the answers."""
    for name in (name for source in sources for name in source.files if Path(name).is_file()):
        ways = [Path(name).resolve(), *Path(name).resolve().parents]
        if ways[0].stat().st_mode & 0o004 and all(way.stat().st_mode & 0o001 for way in ways[1:]):
            raise DataError(f"{name}: everybody may read it, so with isolation uid the programs that its tests judge "
                            f"may; chmod o-r {name}")  # fmt: skip


def check_what_is_there(command: Command[Any], cfg: Any) -> list[str]:
    """Checks the models and data of a command as its start will; returns why that was not possible, in lines.

    Raises:
        UserError: they are there and cannot be used.
    """
    if not command.needs or not command.check:
        return []
    try:
        need = command.needs(cfg)
    except DataError as error:  # what an earlier command has to make
        return [f"data not checked: {error}"]
    absent = [model for model in _models(need) if not Path(model).is_dir()]
    if not absent:
        check_models(need)
    notes = [f"model not checked: {model}: no such folder" for model in absent]
    if file := absent_file(need.sources):
        return [*notes, f"data not checked: {file}: no such file"]
    command.check(cfg)
    return notes


def start(command: Command[Any], cfg: Any, resume: Resume | None) -> int:
    """Run a command to its end, with new processes for each launch. Returns the exit code. A run that ends early gets
    a report, too.

    Raises:
        UserError: something the user can fix; nothing was started or overwritten.
    """
    files = verifiers_of(cfg)
    check_trackers(cfg.track)
    need = checked(command, cfg)
    fresh = not is_begun(Path(cfg.run))
    with opened(cfg, origin_of(cfg, need, files), resume) as run:
        if complete(run):
            return 0
        if need.isolation.startswith("uid"):
            run.path.chmod(0o700)
        began, notes = time.time(), command.arithmetic(cfg)
        if need.isolation:
            notes.append(f"programs: {need.isolation}")
        code = 0
        with tracked(run.path, cfg.track):
            for sampler in need.launches:
                if code := launch(command.name, command.main, run, need.trainer, sampler, notes):
                    break
                notes = []
            else:
                finish(run, began)
        if code == UserError.exit_code and fresh and not computed(run.path):
            shutil.rmtree(run.path)  # so that the command can be given again
        elif code:
            with contextlib.suppress(OSError):  # a full disk may be why it ended, and has been told
                write_report(run)
        if code:
            return code
    if command.show:
        command.show(run.path)
    return 0


def finish(run: Run, began: float) -> None:
    run.write("finished.json", {"seconds": round(time.time() - began, 1)})
    write_report(run)


def write_report(run: Run) -> None:
    from ringrl.report import runs

    runs.write_report(run.path)


def is_finished(run: Run) -> bool:
    return (run.path / "finished.json").is_file()


def complete(run: Run) -> bool:
    """Whether a run is finished. Its report is written now if the process was killed before it was."""
    if is_finished(run) and not (run.path / "report.html").is_file():
        write_report(run)
    return is_finished(run)


def _models(need: Needs) -> set[str]:
    return {need.model, *(sampler.model for sampler in need.launches if sampler)} - {""}


def check_models(need: Needs) -> None:
    """Raises DataError for a model folder that the command cannot use, as far as no weights need be read for that."""
    if need.model:
        check_folder(need.model, own_weights=True)
        if need.trainer:
            check_trainable(need.model)
    for sampler in filter(None, need.launches):
        if sampler.model != need.model:
            check_folder(sampler.model, engine_name(sampler.rollout) == "transformers")
        check_sampled(sampler.model)
        check_positions(sampler.model, sampler.max_total_tokens, "max_total_tokens")


def check_sampled(path: str) -> None:
    """Raises DataError for layers that vLLM refuses to load, while ringrl ignores them."""
    config = json.loads((Path(path) / "config.json").read_text())
    extra = config.get("num_nextn_predict_layers") or 0
    if extra and config["model_type"] in ("bailing_moe", "bailing_moe_v2"):
        raise DataError(f"{path}/config.json: num_nextn_predict_layers: got {extra}, expected 0 to sample with: vLLM "
                        f"refuses these layers; ringrl sft writes a folder without them")  # fmt: skip
