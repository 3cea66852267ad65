"""`ringrl run`: the whole method from one file, stage after stage, each recording its parent; resumable anywhere.

    data (optional) -> sft -> select-ckpt -> rl (all its stages) -> general SFT (optional) ->
    eval of the start model, of the model after every RL stage, and of the final one

Runs in the command line's process and imports nothing heavy: every stage is a command with processes of its own.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from rich.table import Table

from ringrl.commands.table import command_of
from ringrl.config.commands import PipelineConfig, RLConfig
from ringrl.errors import DataError
from ringrl.launch.command import Command
from ringrl.launch.opening import Origin, Resume, check_files, is_begun, opened
from ringrl.launch.start import complete, is_finished, verifiers_of
from ringrl.launch.start import start as start_command
from ringrl.models.folder import check_folder
from ringrl.report.terminal import literal, screen
from ringrl.run import Run

Models = list[tuple[str, str]]  # (stage, model folder)


def start(command: Command[PipelineConfig], cfg: PipelineConfig, resume: Resume | None) -> int:
    """Run every unfinished stage. Returns the exit code of the first that fails, or 0."""
    for name in cfg.sections:
        verifiers_of(cfg.stage(name, cfg.model))
    check_folder(cfg.model, own_weights=True)
    if resume and resume.checkpoint is not None:
        raise DataError(f"--from-checkpoint: got {resume.checkpoint} for a pipeline, expected a stage: give it with "
                        f"ringrl rl {cfg.run}/rl/config.yaml --resume, then resume the pipeline")  # fmt: skip
    for name in cfg.sections:
        if resume and is_finished(Run(f"{cfg.run}/{name}")) and (late := changes_of(name, resume).changes):
            raise DataError(f"--change {name}.{late[0]}: {cfg.run}/{name} is finished, and later stages go on from it; "
                            f"expected a key of a stage that is not")  # fmt: skip
    with opened(cfg, Origin(cfg.model), resume) as run:
        from ringrl.report.runs import write_report

        code = advance_all(cfg, run, resume or Resume())
        report = write_report(run.path)
    if not code:
        show(json.loads((run.path / "summary.json").read_text()), report)
    return code


def changes_of(section: str, resume: Resume) -> Resume:
    """What of the changes concerns the stages of one section: its keys."""
    return Resume(tuple(c.removeprefix(f"{section}.") for c in resume.changes if c.startswith(f"{section}.")))


def advance_all(cfg: PipelineConfig, run: Run, resume: Resume) -> int:
    """Advance stage after stage, and write summary.json. Returns the exit code of the first that fails, or 0."""

    def advance(stage: Any, name: str) -> int:
        """Start the command of a stage's configuration, resume it, or skip it if finished."""
        if complete(Run(stage.run)):
            check_files(Path(stage.run))
            return 0
        how = changes_of(name, resume) if is_begun(Path(stage.run)) else None
        return start_command(command_of(stage), stage, how)

    if cfg.data and (code := advance(cfg.stage("data", cfg.model), "data")):
        return code
    sft = cfg.stage("sft", cfg.model)
    select = cfg.stage("select", sft.run)
    if code := advance(sft, "sft") or advance(select, "select"):
        return code
    selection = json.loads((Path(select.run) / "selection.json").read_text())
    rl = cfg.stage("rl", selection["chosen_path"])
    if code := advance(rl, "rl"):
        return code
    models: Models = [("sft", rl.model), *stage_models(rl)]
    if cfg.general:
        general = cfg.stage("general", models[-1][1])
        if code := advance(general, "general"):
            return code
        models.append(("general", str(Run(general.run).checkpoints[-1])))
    for name, model in models:
        if code := advance(cfg.stage("eval", model, f"eval_{name}"), "eval"):
            return code
    trained = sum(r["tokens_trained"] for r in Run(rl.run).rows("metrics"))
    add_token_ratio(Run(select.run), selection, trained)
    run.write("summary.json", summarize(run, cfg, rl, models))
    return 0


def stage_models(rl: RLConfig) -> Models:
    """The model after every RL stage."""
    ends, total = [], 0
    for s in rl.stages:
        total += s.steps
        ends.append((s.name, str(Run(rl.run).checkpoint(total))))
    return ends


def add_token_ratio(select: Run, selection: dict[str, Any], rl_tokens: int) -> None:
    """Adds the paper's token efficiency, RL tokens / SFT tokens [P §4.3.2], to selection.json."""
    row = next(r for r in selection["rows"] if r["name"] == selection["chosen"])
    if row["sft_tokens"]:
        select.write("selection.json", {**selection, "rl_sft_token_ratio": rl_tokens / row["sft_tokens"]})


def summarize(run: Run, cfg: PipelineConfig, rl: RLConfig, models: Models) -> dict[str, Any]:
    """Content of summary.json: per stage, its model and scores on every benchmark."""
    rows = []
    for name, model in models:
        results = json.loads((run.path / f"eval_{name}" / "results.json").read_text())
        scores = {
            b: {k: r[k] for k in ("score", "se", "pass_k", "k", "n", "errors")}
            for b, r in results["benchmarks"].items()
        }
        rows.append({"stage": name, "model": model, "scores": scores})
    finished = sorted(run.path.glob("*/finished.json"), key=lambda p: p.stat().st_mtime)
    return {
        "rows": rows,
        "seed": cfg.seed,
        "phi": {stage.name: rl.update_phi(stage) for stage in rl.stages},
        "seconds": {p.parent.name: json.loads(p.read_text())["seconds"] for p in finished},
        "date": time.strftime("%Y-%m-%d"),
    }


def show(summary: dict[str, Any], report: Path) -> None:
    """Prints the final table."""
    console = screen()
    first = summary["rows"][0]["scores"]
    k = next(iter(first.values()))["k"]
    table = Table(title=f"avg@{k} on held-out problems, % ± standard error")
    table.add_column("stage")
    for name in first:
        table.add_column(literal(name), justify="right")
    for row in summary["rows"]:
        cells = [f"{100 * s['score']:.1f} ± {100 * s['se']:.1f}" for s in row["scores"].values()]
        table.add_row(literal(row["stage"]), *cells)
    console.print(table)
    for path in (report.parent / "summary.json", report):
        console.print(literal(path), soft_wrap=True)
