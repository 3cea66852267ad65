"""The command line. Heavy libraries are imported only in the processes that a command starts, never here."""

from __future__ import annotations

import io
import json
import shlex
import sys
import traceback
from pathlib import Path
from typing import Any

import click

from ringrl import __version__
from ringrl.commands.table import COMMANDS, command_of, load_any, rl_needs
from ringrl.config.commands import EvalConfig, RLConfig
from ringrl.config.load import load, resolve
from ringrl.errors import DataError, RingError, UserError, fault_of_machine
from ringrl.launch.command import Command
from ringrl.launch.machine import started_by_others
from ringrl.launch.opening import Resume
from ringrl.launch.start import check_what_is_there
from ringrl.plan import report
from ringrl.plan.hardware import find_gpu
from ringrl.plan.measured import measured as measurements
from ringrl.plan.timing import Assumed
from ringrl.safe_text import printable

INTERRUPTED = 130  # exit code
SHARE = click.FloatRange(0, 1, min_open=True)
CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(context_settings=CONTEXT)
@click.version_option(__version__, prog_name="ringrl")
def cli() -> None:
    """Post-train Mixture-of-Experts models: distil, select by entropy, train with C3PO, evaluate.

    CONFIG is a YAML file; any of its keys can be overridden as key.sub=value. Exit codes: 0 done, 2 fix your
    input, 3 the run diverged, 130 interrupted (state saved), 1 a fault.
    """


def _say(text: str, *, end: str = "\n", err: bool = False) -> None:
    """Prints a text that may have several lines."""
    click.echo(printable(text, lines=True) + end, nl=False, err=err)


def _perform(command: Command[Any], cfg: Any, dry_run: bool, resume: Resume | None) -> None:
    if dry_run:
        notes = check_what_is_there(command, cfg)
        _say(command.describe(cfg))
        for line in notes:
            _say(f"# {line}")
        return
    try:
        code = command.start(cfg, resume)
    except KeyboardInterrupt:
        code = INTERRUPTED
    if code == INTERRUPTED and not started_by_others():
        _say(f"interrupted; continue with --resume: {continuation(sys.argv[1:], resume)}", err=True)
    sys.exit(code)


def continuation(given: list[str], resume: Resume | None) -> str:
    """The command line that goes on: without --from-checkpoint, which would throw away what was done since."""
    kept = [a for before, a in zip(["", *given], given, strict=False)
            if "--from-checkpoint" not in (before, a.partition("=")[0])]  # fmt: skip
    return shlex.join(["ringrl", *kept, *["--resume"] * (not resume)])


@cli.command("eval", help=COMMANDS["eval"].help)
@click.argument("config", required=False)
@click.argument("overrides", nargs=-1, metavar="[KEY.SUB=VALUE]...")
@click.option("--model", help="Model folder, or with --base-url the model's name there.")
@click.option("--base-url", help="OpenAI-compatible server that answers, e.g. http://host:8000/v1.")
@click.option("--bench", help="Benchmarks by name, separated by commas.")
@click.option("--data", help="Folder with NAME.jsonl of every benchmark, or the file of the only one; not the hub.")
@click.option("--samples", type=int, help="Responses per problem, k.")
@click.option("--run", "run_dir", help="Run directory; by default runs/eval/MODEL.")
@click.option("--dry-run", is_flag=True, help="Print the resolved configuration, start nothing.")
@click.option("--resume", is_flag=True, help="Continue the run in its directory; no finished sample is made again.")
@click.option("--show", metavar="BENCH", help="Print a benchmark's definition and first prompt, start nothing.")
@click.option("--rescore", metavar="RUN", help="Judge the responses of a run again, generating nothing.")
@click.option("--compare", nargs=2, metavar="A B", help="Two runs: is the difference more than chance?")
@click.option("--check-contamination", "train", metavar="TRAIN", help="Overlap of the problems with training data.")
def evaluate(
    config: str | None, overrides: tuple[str, ...], dry_run: bool, resume: bool, show: str | None,
    rescore: str | None, compare: tuple[str, str] | None, train: str | None, **flags: Any,
) -> None:  # fmt: skip
    if compare or rescore:
        from ringrl.commands.eval_tools import rejudge, tell_difference

        sys.exit(tell_difference(*compare) if compare else rejudge(str(rescore)))
    if config and "=" in config:
        overrides, config = (config, *overrides), None
    if not (show or train) and bool(config) == bool(flags["model"] and flags["bench"]):
        raise click.UsageError("give either CONFIG, or --model and --bench")
    cfg = _eval_config(config, overrides, {**flags, "bench": show or flags["bench"]})
    if show or train:
        from ringrl.commands.eval_tools import check_contamination, show_benchmark

        sys.exit(check_contamination(cfg, train) if train else show_benchmark(cfg))
    _perform(COMMANDS["eval"], cfg, dry_run, Resume() if resume else None)


def _eval_config(config: str | None, overrides: tuple[str, ...], flags: dict[str, Any]) -> Any:
    """The configuration from a file, or from the flags alone."""
    if config:
        return load(EvalConfig, config, overrides)
    name = Path(str(flags["model"])).resolve().name
    raw: dict[str, Any] = {
        "run": flags["run_dir"] or f"runs/eval/{name}",
        "model": flags["model"] or "",
        "benchmarks": [{"name": b} for b in (flags["bench"] or "").split(",") if b],
    }
    raw |= {k: flags[k] for k in ("data", "samples") if flags[k] is not None}
    raw |= {"server": {"base_url": flags["base_url"]}} if flags["base_url"] else {}
    return resolve(EvalConfig, raw, overrides, "command line")


CHANGE = click.option(
    "--change", multiple=True, metavar="KEY=VALUE", help="With --resume: go on with another value of a key that may "
    "change (epochs, stages.N.steps, optimizer.lr, save_every, ...), or, given its name, with another content of a "
    "file; lineage.json keeps record.")  # fmt: skip
FROM = click.option("--from-checkpoint", type=int, metavar="STEP", help="With --resume: go on from an older "
                    "checkpoint; newer ones are set aside.")  # fmt: skip


def _register(definition: Command[Any]) -> None:
    """Add a command that takes CONFIG, overrides, --dry-run and --resume."""

    @click.argument("config")
    @click.argument("overrides", nargs=-1, metavar="[KEY.SUB=VALUE]...")
    @click.option("--dry-run", is_flag=True, help="Print the resolved configuration and its arithmetic, start nothing.")
    @click.option("--resume", is_flag=True, help="Continue the run in its directory.")
    def command(
        config: str, overrides: tuple[str, ...], dry_run: bool, resume: bool, change: tuple[str, ...] = (),
        from_checkpoint: int | None = None,
    ) -> None:  # fmt: skip
        if (change or from_checkpoint is not None) and not resume:
            raise click.UsageError("--change and --from-checkpoint go with --resume")
        cfg = load(definition.config, config, overrides)
        if keys := [c for c in change if "=" in c]:  # over what the configuration comes to, defaults included
            cfg = resolve(definition.config, cfg.model_dump(mode="json"), keys, f"{config} with --change")
        _perform(definition, cfg, dry_run, Resume(change, from_checkpoint) if resume else None)

    if definition.trains:
        command = CHANGE(FROM(command))
    cli.command(definition.name, help=definition.help)(command)


for _definition in COMMANDS.values():
    if _definition.name not in cli.commands:  # `eval` above has options of its own
        _register(_definition)


@cli.command()
@click.argument("config")
@click.argument("overrides", nargs=-1, metavar="[KEY.SUB=VALUE]...")
@click.option("--address-file", type=click.Path(path_type=Path), required=True, help="Will hold this worker's address.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address of this machine to listen on.")
@click.option("--port", default=0, help="To listen on; by default the system chooses.")
@click.option("--index", default=0, type=click.IntRange(0), help="Which of this machine's workers: chooses its GPUs.")
def worker(config: str, overrides: tuple[str, ...], address_file: Path, host: str, port: int, index: int) -> None:
    """A vLLM worker for `ringrl rl CONFIG` on another machine.

    Runs until it is stopped; a new process takes over whenever a controller has left. There, `rollout.addresses` names
    this worker's host:port or, on a shared file system, its address file; `rollout.key_file` is the same on both sides.
    Use it on a network that you trust: docs/security.md, Sockets.
    """
    from ringrl.commands.worker import serve_worker
    from ringrl.launch.machine import read_key
    from ringrl.launch.start import check_models

    need = rl_needs(load(RLConfig, config, overrides))
    (sampler,) = need.launches
    assert sampler
    check_models(need)
    sys.exit(serve_worker(sampler, read_key(sampler.rollout.key_file), host, port, address_file.absolute(), index))


@cli.command("report")
@click.argument("run", type=click.Path(path_type=Path))
def write_pages(run: Path) -> None:
    """Write RUN/report.html from what RUN holds by now, finished or not; the stages of a pipeline get theirs, too."""
    from ringrl.report.runs import write_reports

    if not any(run.glob("config.yaml")) and not any(run.glob("*/config.yaml")):
        raise DataError(f"{run}: no config.yaml in it, expected the directory of a run")
    for page in write_reports(run):
        _say(str(page))


@cli.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--to", multiple=True, metavar="TRACKER", help="tensorboard, wandb, trackio, mlflow or file.py:Class; by "
              "default what the run's configuration names.")  # fmt: skip
@click.option("--follow", is_flag=True, help="Go on until the run is finished, or stops.")
def track(run: Path, to: tuple[str, ...], follow: bool) -> None:
    """Send what RUN holds to trackers, each row once. Needs neither torch nor vLLM: docs/trackers.md."""
    from ringrl.track.send import named, send, until_it_stops

    for name in named(run, to, follow):
        _say(f"{name}: {send(run, name, until_it_stops(run) if follow else bool)} rows sent")


@cli.command()
def doctor() -> None:
    """What this machine has for ringrl: versions, memory, disk, and how code answers are isolated, seen from inside."""
    from ringrl.commands.doctor import examine

    for line in examine():
        _say(line)


@cli.command()
@click.argument("config")
@click.argument("overrides", nargs=-1, metavar="[KEY.SUB=VALUE]...")
@click.option("--gpu", default="h100", show_default=True, help="a100, h100, h200, b200, mi300x, l40s, rtx4090 or cpu.")
@click.option("--gpus", type=click.IntRange(1), help="Lay it out on so many GPUs, instead of as CONFIG says.")
@click.option("--mfu", type=SHARE, default=0.15, show_default=True, help="Share of the peak FLOP/s that is reached.")
@click.option("--bandwidth", type=SHARE, default=0.6, show_default=True, help="The same of the memory, in decoding.")
@click.option("--prompt", type=click.IntRange(1), default=256, show_default=True, help="Mean tokens of a prompt.")
@click.option("--response", type=click.IntRange(1), help="Mean tokens of a response; by default half of the room.")
@click.option("--rows", type=click.IntRange(1), help="Rows of every data source that is not here.")
@click.option("--measured", metavar="RUN", help="An RL run on such GPUs: both shares and the response as found there.")
@click.option("--json", "as_json", is_flag=True, help="The same as JSON, in bytes, seconds, FLOPs and tokens.")
def plan(
    config: str, overrides: tuple[str, ...], gpu: str, gpus: int | None, measured: str, as_json: bool, **numbers: Any
) -> None:
    """What CONFIG (of any command) needs and costs: memory, FLOPs, time, GPU hours. Needs no GPU and no weights.

    Of the model only its config.json is read. Every number says whether it is a formula, a datasheet's or assumed.
    """
    known: dict[str, Any] = {name: value or 0 for name, value in numbers.items()}
    assumed = Assumed(gpu=find_gpu(gpu), **known)
    assumed = measurements(measured, assumed) if measured else assumed
    cfg = load_any(config, overrides)
    sections = report.whole(command_of(cfg).plan(cfg, assumed, gpus or 0), assumed)
    _say(json.dumps(report.as_json(sections), indent=1) if as_json else report.as_text(sections))


@cli.command()
@click.argument("file")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Will hold the rows with their verdicts.")
@click.option("--config", help="Configuration of any command whose domains and verify section are used.")
@click.option("--workers", type=click.IntRange(1), help="Verifier processes, for verify.workers.")
@click.option("--deadline", type=click.FloatRange(0, min_open=True), help="Seconds a row, for verify.deadline_s.")
@click.option("--remote", help="Sandbox service that runs programs, for verify.remote.")
@click.option("--audit", is_flag=True, help="Judge by a second way, too, and against altered references.")
@click.option("--explain", is_flag=True, help="Tell what was extracted, and how it was compared.")
@click.option("--resume", is_flag=True, help="Continue an --out that is there.")
def verify(
    file: str, out: Path, config: str | None, workers: int | None, deadline: float | None, remote: str | None,
    audit: bool, explain: bool, resume: bool,
) -> None:  # fmt: skip
    """Judge the responses in FILE as training and evaluation would.

    FILE has rows {"domain", "response", "reference"}, or is the directory of a run of eval or rl. OUT has the same
    with "kind" (pass, partial, fail or error), "reason", "score" and "seconds". Rows that are labelled, with "right"
    (a kind, or "not pass"), are compared.
    """
    from ringrl.commands.verify import verify as judge

    given = {"workers": workers, "deadline_s": deadline, "remote": remote}
    settings = {name: value for name, value in given.items() if value is not None}
    sys.exit(judge(file, out, load_any(config) if config else None, settings, resume=resume, audit=audit,
                   explained=explain))  # fmt: skip


@cli.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--seed", default=0, show_default=True)
def tiny(folder: Path, seed: int) -> None:
    """Build the demo's inputs in FOLDER: a tiny MoE with its tokenizer, and raw tasks in three domains."""
    from ringrl.commands.tiny import build

    for line in build(folder, seed):
        _say(line)


for _listed in cli.commands.values():  # the list shows first paragraphs as a whole, where click would cut them
    _listed.short_help = (_listed.help or "").split("\n\n")[0]


def main() -> None:
    """Entry point; errors that the user can fix are printed as one line."""
    try:
        cli.main(standalone_mode=False)
    except RingError as e:
        from ringrl.report.terminal import show_error

        show_error(str(e), lines=not isinstance(e, UserError))
        sys.exit(e.exit_code)
    except click.ClickException as e:
        shown = io.StringIO()
        e.show(shown)
        _say(shown.getvalue(), end="", err=True)
        sys.exit(e.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(INTERRUPTED)
    except Exception as e:  # the last place where a bug of ours can be told as one
        if fault := fault_of_machine(e):
            from ringrl.report.terminal import show_error

            show_error(fault)
        else:  # a bug of ours, whose message may quote anything
            _say(traceback.format_exc(), end="", err=True)
        sys.exit(1)
