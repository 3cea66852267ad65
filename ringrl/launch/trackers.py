"""The processes that send a run to its trackers while it lasts."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ringrl.processes import kill_tree
from ringrl.report.terminal import show_warning
from ringrl.track.trackers import tracker_class

CLOSE_S = 30.0  # in which trackers have to take what is left when the run has ended


def check_trackers(names: Sequence[str]) -> None:
    """Raises UserError for one that is not installed."""
    for name in names:
        tracker_class(name)


@contextmanager
def tracked(run: Path, names: Sequence[str]) -> Iterator[None]:
    """Sends the run to these trackers. What becomes of them is told when the block ends, and changes nothing else."""
    children = [(name, *_start(run, name)) for name in names]
    try:
        yield
    finally:
        for _, process, _ in children:
            assert process.stdin
            process.stdin.close()
        end = time.monotonic() + CLOSE_S
        for name, process, log in children:
            try:
                code = process.wait(max(end - time.monotonic(), 0))
                text = f"ended with {code}: {_last_line(log)}" if code else ""
            except subprocess.TimeoutExpired:
                kill_tree(process.pid)
                process.wait()
                text = f"has not taken everything within {CLOSE_S:g} s, and was stopped"
            if text:
                show_warning(f"tracker {name} {text}; see {log}; ringrl track {run} sends the run again")


def _start(run: Path, name: str) -> tuple[subprocess.Popen[bytes], Path]:
    log = run / "logs" / f"track_{Path(name).name.replace(':', '_')}.log"
    log.parent.mkdir(exist_ok=True)
    with log.open("a") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "ringrl.track.child", str(run), name],
            stdin=subprocess.PIPE, stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    return process, log


def _last_line(log: Path) -> str:
    return next(filter(None, reversed(log.read_text(errors="replace").splitlines())), "nothing in its log")
