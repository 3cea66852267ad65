"""A rank of any command: its context from the launcher, and how its errors become exit codes.

`ringrl.launch.crew` starts `python -m ringrl.launch.rank COMMAND`; COMMAND only makes process lists readable.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import signal
import sys
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ringrl.config.load import parse
from ringrl.config.sections import Rollout
from ringrl.errors import RingError, UserError, fault_of_machine
from ringrl.launch.hooks import Hooks
from ringrl.launch.machine import LOST_CODE
from ringrl.processes import die_with_parent, live
from ringrl.rollout.engine import RolloutEngine
from ringrl.run import Progress, Run
from ringrl.safe_text import printable

# words of gloo, and of torch's store while ranks meet
LATE = re.compile(r"Timed out waiting (\d+)ms|Timeout waiting for key.* after (\d+) ms|[Ww]ait timeout")
GONE = re.compile(r"Connection (closed|reset) by peer")


@dataclass
class Context:
    run: Run
    progress: Progress
    spec: dict[str, Any]
    restarts: int = 0  # worker restarts requested so far
    _signals: list[int] = field(default_factory=list)

    @classmethod
    def from_launcher(cls) -> Context:
        """Reads the one line that the launcher writes to standard input."""
        spec = json.loads(sys.stdin.readline())
        die_with_parent(spec["launcher"])
        if spec["lock"] >= 0:
            os.set_inheritable(spec["lock"], False)  # whoever holds it keeps others out of the run directory
        live(Path(spec["meeting"]) / f"rank{os.environ['RANK']}")
        # only rank 0 has a pipe for its events
        stream = os.fdopen(spec["events"], "w") if spec["events"] >= 0 else open(os.devnull, "w")
        return cls._listening(Run(spec["run"]), Progress(stream), spec)

    @classmethod
    def of_rank(cls, run: Run, spec: dict[str, Any], talks: bool) -> Context:
        """For a rank started by others; with `talks` it prints progress to the terminal."""
        return cls._listening(run, Progress(None if talks else open(os.devnull, "w")), spec)

    @classmethod
    def _listening(cls, run: Run, progress: Progress, spec: dict[str, Any]) -> Context:
        context = cls(run, progress, spec)
        signal.signal(signal.SIGTERM, lambda number, frame: context._signals.append(number))
        return context

    @property
    def interrupted(self) -> bool:
        """Whether the run was asked to save its state and stop."""
        return bool(self._signals)

    def rollout_engine(self, model: str, rollout: Rollout) -> RolloutEngine:
        """The engine chosen by the launcher: a client of its workers, or in this process."""
        if self.spec["engine"] == "transformers":
            from ringrl.rollout.local import LocalEngine

            return LocalEngine(model, rollout.dtype, rollout.concurrent)
        from ringrl.rollout.vllm_pool import Deadlines, VLLMPool

        return VLLMPool(
            self.spec["addresses"],
            bytes.fromhex(self.spec["authkey"]),
            rollout.tensor_parallel,
            Deadlines(rollout.start_deadline_s, rollout.deadline_s, rollout.update_deadline_s, rollout.max_restarts),
            self._restart,
            self.progress.note,
            rollout.colocated,
            Path(self.spec["meeting"]) if self.spec["restarts"] else None,
        )

    def _restart(self, worker: int) -> str:
        """Request a replacement for a worker. Returns its address, or a file that will contain it."""
        address: str = self.spec["addresses"][worker]
        if not self.spec["restarts"]:  # `ringrl worker` restarts by itself
            return address
        self.restarts += 1
        address = str(Path(address).with_name(f"worker{worker}.{self.restarts}"))
        self.progress.restart(worker, address)
        return address


def run(context: Context) -> int:
    """Run the loop of a command on this rank, and on rank 0 the hooks. Returns its exit code."""
    if os.environ["RANK"] != "0":
        return _run(context)
    cfg = parse((context.run.path / "config.yaml").read_text(), str(context.run.path / "config.yaml"))
    try:
        hooks = Hooks(cfg.get("hooks", []), cfg.get("strict_hooks", False), context.progress.note)
    except UserError as e:
        context.progress.ended(str(e), e.exit_code)
        return e.exit_code
    context.run.tell = hooks.tell
    code = _run(context)
    ended = hooks.end(code)
    if ended != code:
        context.progress.ended(f"hooks: {hooks.failed}, and strict_hooks is true", ended)
    return ended


def _run(context: Context) -> int:
    try:
        import transformers

        transformers.utils.logging.disable_progress_bar()
        return importlib.import_module(context.spec["main"]).main(context)
    except RingError as e:
        context.progress.ended(str(e), e.exit_code)
        log(traceback.format_exc())
        return e.exit_code
    except Exception as e:  # whatever it was, the launcher is told why this rank ends
        lost = told_of_others(e)
        if fault := fault_of_machine(e):
            text = f"{context.run.path}: {fault}; --resume goes on when that is mended"
        elif lost:
            text = f"rank {os.environ['RANK']}: another rank {lost}; see {context.run.path}/logs/"
        else:  # a bug: show the traceback in the log and on the terminal
            text = f"{traceback.format_exc()}see {context.run.path}/logs/"
        context.progress.ended(text, 1)
        log(traceback.format_exc())
        return LOST_CODE if lost else 1


def told_of_others(error: Exception) -> str:
    """What an error in a collective says of the other ranks, "" for other errors."""
    if not isinstance(error, RuntimeError):
        return ""
    if late := LATE.search(str(error)):
        ms = late[1] or late[2]
        return f"did not answer within {int(ms) / 1000:g} s" if ms else "did not answer in time"
    return "ended" if GONE.search(str(error)) else ""


def log(text: str = "") -> None:
    """Write `text` to the log and flush, unless the disk fails."""
    with contextlib.suppress(OSError):
        sys.stderr.write(printable(text, lines=True) if sys.stderr.isatty() else text)
        sys.stderr.flush()
        sys.stdout.flush()


if __name__ == "__main__":
    code = run(Context.from_launcher())
    log()
    os._exit(code)  # skips joining threads that would wait for dead processes
