"""From a checked configuration to a finished run: input checks, the run directory, processes, report."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from ringrl.config.sections import RunConfig
from ringrl.data.source import fingerprint, sha256
from ringrl.domains import verifier_files
from ringrl.errors import DataError, UserError
from ringrl.launch.command import Command, Needs
from ringrl.launch.crew import launch
from ringrl.launch.machine import engine_name, read_key
from ringrl.rewards import check_verifiers
from ringrl.run import Run, open_run


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
    if command.check:
        command.check(cfg)
    if need.model:
        check_model_folder(need.model)
    for sampler in filter(None, need.launches):
        if sampler.model != need.model:
            check_model_folder(sampler.model)
        check_sampled(sampler.model)
        if sampler.rollout.addresses:
            read_key(sampler.rollout.key_file)
        if engine_name(sampler.rollout) == "transformers" and sampler.routes:
            raise UserError("loss.router_replay: got engine, expected trainer or none: vLLM is not installed, and the "
                            "engine in process cannot say which experts it took")  # fmt: skip
    return need


def start(command: Command[Any], cfg: Any, resume: bool, report: bool = True) -> int:
    """Run a command to its end, with new processes for each launch. Returns the exit code.

    Raises:
        UserError: something the user can fix; nothing was started or overwritten.
    """
    files = verifiers_of(cfg)
    need = checked(command, cfg)
    fresh = not (Path(cfg.run) / "config.yaml").is_file()
    run = open_run(cfg, need.parent, fingerprint(need.sources) | files, resume)
    if is_finished(run):
        return 0
    began, notes = time.time(), command.arithmetic(cfg)
    for sampler in need.launches:
        if code := launch(command.name, command.main, run, need.trainer, sampler, notes, fresh):
            return code
        fresh, notes = False, []
    finish(run, began, report)
    if command.show:
        command.show(run.path, report)
    return 0


def finish(run: Run, began: float, report: bool = True) -> None:
    if report:
        from ringrl.report.runs import write_report

        write_report(run.path)
    run.write("finished.json", {"seconds": round(time.time() - began, 1)})


def is_finished(run: Run) -> bool:
    return (run.path / "finished.json").is_file()


def check_model_folder(path: str) -> None:
    """Raises DataError that names the file missing from a model folder."""
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
    """Raises DataError for layers that vLLM refuses to load, while ringrl ignores them."""
    config = json.loads((Path(path) / "config.json").read_text())
    extra = config.get("num_nextn_predict_layers") or 0
    if extra and config["model_type"] in ("bailing_moe", "bailing_moe_v2"):
        raise DataError(f"{path}/config.json: num_nextn_predict_layers: got {extra}, expected 0 to sample with: vLLM "
                        f"refuses these layers; ringrl sft writes a folder without them")  # fmt: skip
