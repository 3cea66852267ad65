"""Starts the processes of a command, watches them, and stops them.

A command consists of vLLM workers (if it samples) and trainer ranks that run its loop; rank 0 reports progress through
a pipe. Each child has a log file and its own session, is tracked by its process id, and dies with the launcher. If a
rank fails, the run ends: the last lines of its log are shown and all others are stopped. A failed worker is restarted
when rank 0 asks for it.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from ringrl.config.sections import Trainer
from ringrl.errors import ChildDied
from ringrl.launch.command import WorkerSpec
from ringrl.launch.machine import (
    LOOPBACK,
    LOST_CODE,
    check_ranks,
    engine_name,
    first_gpu,
    listening,
    rank_env,
    read_key,
    shares,
    worker_env,
)
from ringrl.processes import Scratch, group_members, silence, state_of
from ringrl.report.terminal import Display
from ringrl.run import Run
from ringrl.safe_text import masked

STOP_S = 1800.0  # after an interrupt: time to finish a step (the rollout not counted) and to save
POLL_S = 0.05
GRACE_S = 1.0  # between the first death and the verdict, so that rank 0 can report the cause
WORKER = """from ringrl.processes import die_together, die_with_parent
die_with_parent({launcher})
die_together()
from ringrl.rollout.vllm_worker import main
main()"""
TAIL = 20  # log lines shown when a process has died
SILENT_S = 60.0  # after which the user is told of a rank that has given no sign of life
SOON_S = 3.0  # the same when something has failed, which that may be the cause of


@dataclass
class Child:
    """A process that leads a session and a process group of its own."""

    name: str
    process: subprocess.Popen[str]
    log: Path

    def code(self) -> int | None:
        """The exit code, None while it runs. Only `stop` reaps it: until then nobody else can get its number, which
        is also the number of its group."""
        if self.process.returncode is not None:
            return self.process.returncode
        ended = os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is None:
            return None
        return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status


def launch(
    command: str, main: str, run: Run, trainer: Trainer | None, sampler: WorkerSpec | None, notes: Sequence[str]
) -> int:
    """Run the loop of `ringrl <command>` on the trainer's ranks, or on one rank without a GPU, and its workers.

    Args:
        main: the module whose `main` the ranks run.
        notes: lines shown to the user first.

    Returns:
        The exit code of the command line.
    """
    stopped = run.path / "stopped.json"
    stopped.unlink(missing_ok=True)
    shm = "/dev/shm" if Path("/dev/shm").is_dir() else ""  # workers may map weights there
    with closing(Scratch("run", shm)) as meeting, Display(command, str(run.path)) as display:
        for text in notes:
            display.note(text)
        crew = Crew(run, meeting.path, display, sampler)
        try:
            code = crew.work(command, main, trainer)
        finally:
            crew.stop()
        if code:
            try:
                run.write(stopped.name, {"code": code, "text": masked(crew.ended.get("text", ""))})
            except OSError as e:  # such as a full disk, which may be why the run ended, as was said
                display.note(f"{stopped}: not written: {e.strerror}")
    return code


class Crew:
    """The child processes of one command."""

    def __init__(self, run: Run, meeting: Path, display: Display, sampler: WorkerSpec | None) -> None:
        self.run, self.meeting, self.display, self.sampler = run, meeting, display, sampler
        self.workers: list[Child] = []
        self.ready: list[Path] = []  # per worker: the file with its address, which exists once it is ready
        self.first_gpu = 0  # place of the first worker's first GPU among those visible
        self.worker_threads = 1  # OpenMP threads of a worker
        self.ranks: list[Child] = []
        self.ended: dict[str, Any] = {}
        self.first_death = 0.0
        self.silent: set[str] = set()  # ranks that the user was told of, since they do not answer
        self.unread = b""
        self.authkey = secrets.token_hex(32)

    def work(self, command: str, main: str, trainer: Trainer | None) -> int:
        ranks, threads = (trainer.ranks, trainer.threads) if trainer else (1, 0)
        check_ranks(ranks if trainer else 0)
        rollout = self.sampler.rollout if self.sampler else None
        ahead = self.sampler.ahead if self.sampler else False
        threads, self.worker_threads = shares(ranks, threads, rollout.workers if rollout else 0, ahead)
        engine = engine_name(rollout) if rollout else ""
        if rollout and rollout.addresses:
            self.authkey = read_key(rollout.key_file)
        elif rollout and engine == "vllm":
            self.first_gpu = first_gpu(ranks if trainer else 0, rollout)
            for i in range(rollout.workers):
                self._start_worker(i, self.meeting / f"worker{i}")
        spec = {
            "launcher": os.getpid(),
            "main": main,
            "run": str(self.run.path),
            "engine": engine,
            "meeting": str(self.meeting),
            "restarts": bool(self.workers),
            "addresses": list(rollout.addresses) if rollout and rollout.addresses else [str(f) for f in self.ready],
            "authkey": self.authkey,
            "lock": self.run.lock,
        }
        events = self._start_ranks(command, ranks, threads, spec)
        with interrupts() as interrupted:
            return self._watch(events, interrupted)

    def _start_worker(self, index: int, address_file: Path) -> None:
        """Replaces the previous worker of this index, if any."""
        assert self.sampler
        spec = {**self.sampler.worker(self.authkey), "address_file": str(address_file)}
        env = worker_env(index, self.first_gpu, self.sampler.rollout, self.worker_threads) | listening(LOOPBACK)
        env["TMPDIR"] = str(self.meeting)  # vLLM's processes meet in a file, which it leaves behind
        code = WORKER.format(launcher=os.getpid())
        self.workers[index : index + 1] = [self._start(f"worker{index}", ["-c", code], env, spec)]
        self.ready[index : index + 1] = [address_file]

    def _restart_worker(self, worker: int, address: str) -> None:
        stop([self.workers[worker]], patience_s=0.0)
        self._start_worker(worker, Path(address))

    def _start_ranks(self, command: str, ranks: int, threads: int, spec: dict[str, Any]) -> int:
        """Returns the file descriptor to read rank 0's events from."""
        # with workers on other machines, what is listened on is the user's choice
        where = listening(LOOPBACK) if self.workers or not spec["addresses"] else {}
        read, write = os.pipe()
        lock = (self.run.lock,) if self.run.lock >= 0 else ()  # a rank may write a little longer than we live
        for rank in range(ranks):
            env = rank_env(rank, ranks, threads) | where
            rank_spec = {**spec, "events": write if rank == 0 else -1}
            args, fds = ["-m", "ringrl.launch.rank", command], (write, *lock) if rank == 0 else lock
            self.ranks.append(self._start(f"rank{rank}", args, env, rank_spec, fds))
        os.close(write)
        os.set_blocking(read, False)
        return read

    def _start(
        self, name: str, args: list[str], env: Mapping[str, str], spec: dict[str, Any], fds: tuple[int, ...] = ()
    ) -> Child:
        log = self.run.path / "logs" / f"{name}.log"
        with log.open("a") as out:
            process = subprocess.Popen(
                [sys.executable, "-u", *args],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, **env},
                pass_fds=fds,
                start_new_session=True,
                text=True,
            )
        assert process.stdin is not None
        process.stdin.write(json.dumps(spec) + "\n")
        process.stdin.close()
        return Child(name, process, log)

    def _watch(self, events: int, interrupted: list[int]) -> int:
        """Relay events until all ranks are done, a child fails, or the user interrupts twice."""
        deadline = float("inf")
        while True:
            time.sleep(POLL_S)
            code = self._verdict(bool(interrupted))
            self._tell_of_silence()
            self._relay(events)  # after the verdict, to show the last events of a process that has ended
            if interrupted and deadline == float("inf"):
                deadline = time.monotonic() + STOP_S + (self.sampler.rollout.deadline_s if self.sampler else 0)
                self.display.note("interrupted: finishing the step and saving (interrupt again to stop at once)")
                self._signal_ranks()
            if len(interrupted) > 1 or time.monotonic() > deadline:
                return 130
            if code is not None:
                os.close(events)
                return code

    def _relay(self, events: int) -> None:
        """Handle the events that rank 0 has sent since the last call."""
        try:
            while chunk := os.read(events, 1 << 16):
                self.unread += chunk
        except BlockingIOError:
            pass
        *lines, self.unread = self.unread.split(b"\n")
        for line in lines:
            self._event(json.loads(line))

    def _verdict(self, interrupted: bool) -> int | None:
        """The run's exit code, or None while it goes on."""
        codes = [c.code() for c in self.ranks]
        if all(c == 0 for c in codes):
            return 0
        if self.ended and codes[0] is not None:  # rank 0 has reported the cause
            if self.ended["code"] == ChildDied.exit_code:  # the cause may be in the log of another process
                self._show_ends([c for c in self.ranks[1:] + self.workers if c.code() not in (None, 0)])
                self._show_silent()
            self.display.fail(self.ended["text"])
            return self.ended["code"]
        dead = [c for c in self.ranks if c.code() not in (None, 0)] + self._dead_workers()
        if not dead:
            return None
        if interrupted and all(c in (130, None) for c in codes):
            return None if None in codes else 130
        self.first_death = self.first_death or time.monotonic()
        if time.monotonic() < self.first_death + GRACE_S:  # rank 0 may still report the cause
            return None
        self._show_ends(dead)
        self._show_silent()
        return 1

    def _dead_workers(self) -> list[Child]:
        """Dead workers that will not be restarted: they never became ready, or restarts are off."""
        restartable = self.sampler and self.sampler.rollout.max_restarts
        dead = [(c, f) for c, f in zip(self.workers, self.ready, strict=True) if c.code() not in (None, 0)]
        return [child for child, address in dead if not (restartable and address.is_file())]

    def _show_ends(self, dead: Sequence[Child]) -> None:
        for child in dead:
            if child.code() == LOST_CODE:
                self.display.fail(f"{child.name} waited for another rank in vain; see {child.log}")
                continue
            tail = "\n".join(child.log.read_text(errors="replace").splitlines()[-TAIL:])
            self.display.fail(f"{child.name} ended with {child.code()}; last lines of {child.log}:\n{tail}")

    def _unheard(self, seconds: float) -> dict[str, str]:
        """What to say of the ranks that run and gave no sign of life for so long, by name."""
        told = {}
        for name, pid in ((c.name, c.process.pid) for c in self.ranks if c.code() is None):
            if (gone := silence(self.meeting / name)) > seconds:
                state = " (stopped)" if state_of(pid) == "T" else ""
                told[name] = f"{name}, process {pid}{state}, has not answered for {gone:.0f} s"
        return told

    def _tell_of_silence(self) -> None:
        unheard = self._unheard(SILENT_S)
        for name in unheard.keys() - self.silent:
            self.display.note(f"{unheard[name]}; the run waits for it")
        self.silent = set(unheard)

    def _show_silent(self) -> None:
        for text in self._unheard(SOON_S).values():
            self.display.fail(text)

    def _event(self, event: dict[str, Any]) -> None:
        kind = event.pop("kind")
        if kind == "ended":
            self.ended = event
        elif kind == "restart":
            self._restart_worker(**event)
        else:
            getattr(self.display, kind)(**event)

    def _signal_ranks(self) -> None:
        for child in self.ranks:
            if child.code() is None:
                os.kill(child.process.pid, signal.SIGTERM)

    def stop(self) -> None:
        """Stops every process that was started; all have ended when this returns."""
        stop(self.ranks + self.workers, patience_s=2.0)


def stop(children: Sequence[Child], patience_s: float) -> None:
    """Ends these processes and all that is left of their groups, also of groups whose leader has died: parts of vLLM's
    engine are processes of the group, and would keep their GPUs. All have ended when this returns."""
    children = [c for c in children if c.process.returncode is None]
    for patience, signal_number in ((patience_s, signal.SIGTERM), (5.0, signal.SIGKILL)):
        for child in children if patience else ():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.process.pid, signal_number)
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline and group_members([c.process.pid for c in children]):
            time.sleep(0.02)
    for child in children:
        if child.code() is not None:  # else a driver holds it
            child.process.wait()


@contextmanager
def interrupts() -> Iterator[list[int]]:
    """A list that grows with every SIGINT or SIGTERM received inside the block."""
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)

    before = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)
