"""Verifiers in child processes that can be killed: any answer may hang or crash its verifier.

Invariants: every submitted item gets exactly one verdict; an item that outlives its deadline costs its child
process and nothing else; what goes wrong on our side is a verdict of kind `error`; closing leaves no process
and no file.
"""

from __future__ import annotations

import os
import queue
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType

from ringrl.rewards import _host
from ringrl.rewards.verdict import Verdict
from ringrl.rewards.verifiers import check_domain

START_S = 120.0  # until a child must be ready: importing Math-Verify takes seconds, more on a busy machine
STOP_S = 10.0  # until a killed child must be gone
MAX_FAILED_STARTS = 3  # in a row, after which a worker answers every item with the error
_BOOT = "import sys; sys.path.insert(0, sys.argv[1]); from ringrl.rewards import worker; "
_BOOT += "worker.main(int(sys.argv[2]), sys.argv[3], float(sys.argv[4]))"
_SOURCE_ROOT = str(Path(_host.__file__).parents[2])


class _Lost(Exception):
    """The child did not give a verdict; the message says why."""


class _Child:
    """One verifier process and the socket to it. Used by the thread that made it, with which it dies."""

    def __init__(self, deadline_s: float) -> None:
        self._deadline_s = deadline_s
        self._temporary = tempfile.TemporaryDirectory(prefix="ringrl-verifier-", ignore_cleanup_errors=True)
        self._conn, theirs = socket.socketpair()
        arguments = [_SOURCE_ROOT, str(os.getpid()), self._temporary.name, str(deadline_s)]
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-c", _BOOT, *arguments], stdin=theirs, start_new_session=True
            )

    def wait_ready(self) -> None:
        """Raises:
        _Lost: it died or did not come up in time.
        """
        self._receive(START_S, "starting")

    def judge(self, item: dict) -> Verdict:
        """Raises:
        _Lost: it died or did not answer by the deadline.
        """
        try:
            _host.send(self._conn, item, self._deadline_s)
        except OSError as error:
            raise _Lost(f"verifier process lost: {error}") from error
        kind, reason = self._receive(self._deadline_s, "verifying")
        return Verdict(kind, reason)

    def _receive(self, timeout_s: float, doing: str):
        try:
            return _host.receive(self._conn, timeout_s)
        except TimeoutError as error:
            raise _Lost(f"deadline of {timeout_s:g} s passed while {doing}") from error
        except (EOFError, OSError) as error:
            raise _Lost(f"verifier process died while {doing}, exit status {self._status()}") from error

    def _status(self) -> int | str:
        try:
            return self.process.wait(timeout=1.0)
        except subprocess.TimeoutExpired:
            return "unknown"

    def kill(self) -> None:
        """Ends the process, everything it started, and its temporary directory."""
        self._conn.close()
        _host.kill_tree(self.process.pid)
        self.process.wait(timeout=STOP_S)
        self._temporary.cleanup()


class VerifierPool:
    """`workers` child processes that judge responses, each item within `deadline_s` seconds.

    The clock of an item starts when a ready child takes it. Programs get three quarters of the deadline, so
    that an endless one fails by itself; what reaches the deadline is an `error`. Leaving the `with` block
    kills the children; items still queued are cancelled, so collect the results before.
    """

    def __init__(self, workers: int, deadline_s: float) -> None:
        """Returns at once; the children come up in the background.

        Raises:
            ValueError: no workers or no time.
        """
        if workers < 1 or deadline_s <= 0:
            raise ValueError(f"need workers >= 1 and deadline_s > 0, got {workers} and {deadline_s}")
        self._workers, self._deadline_s = workers, deadline_s
        self._queue: queue.SimpleQueue[tuple[Future[Verdict], dict] | None] = queue.SimpleQueue()
        self._children: dict[int, _Child] = {}  # by worker number: the ones alive
        self._lock = threading.Lock()  # of `_closed` together with `_children`
        self._closed = False
        self._threads = [
            threading.Thread(target=self._serve, args=(number,), name=f"verifier-{number}", daemon=True)
            for number in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def pids(self) -> list[int]:
        """Process ids of the children alive now."""
        with self._lock:
            return [child.process.pid for child in self._children.values()]

    def submit(self, domain: str, text: str, reference: Mapping[str, object]) -> Future[Verdict]:
        """Queues one response; `reference` must be plain data (what JSON can carry).

        Raises:
            ValueError: the domain is unknown.
            RuntimeError: the pool is closed.
        """
        check_domain(domain)
        future: Future[Verdict] = Future()
        with self._lock:
            if self._closed:
                raise RuntimeError("the verifier pool is closed")
            self._queue.put((future, {"domain": domain, "text": text, "reference": dict(reference)}))
        return future

    def map(self, items: Iterable[tuple[str, str, Mapping[str, object]]]) -> list[Verdict]:
        """Verdicts of `(domain, text, reference)` items, in their order.

        Raises:
            ValueError, RuntimeError: as `submit`.
            TimeoutError: the pool is stuck, which its deadlines should make impossible.
        """
        futures = [self.submit(*item) for item in items]
        rounds = self._queue.qsize() // self._workers + 2
        timeout_s = rounds * (START_S + 2 * self._deadline_s + STOP_S)
        return [future.result(timeout=timeout_s) for future in futures]

    def close(self) -> None:
        """Kills the children and waits for them; a second call does nothing."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            for child in self._children.values():
                _host.kill_tree(child.process.pid)  # its thread sees the end of it and cleans up
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join(timeout=2 * STOP_S)

    def __enter__(self) -> VerifierPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _serve(self, number: int) -> None:
        """The life of one worker thread: keeps one child up and hands it one item after the other."""
        reason = self._start(number)
        failures = 1 if reason else 0  # starts in a row; a child that cannot start is not tried for every item
        while (job := self._queue.get()) is not None:
            future, item = job
            if self._closed:
                future.cancel()
            if not future.set_running_or_notify_cancel():
                continue
            if self._is_gone(number) and failures < MAX_FAILED_STARTS:
                reason = self._start(number)
                failures = failures + 1 if reason else 0
            future.set_result(Verdict("error", reason) if reason else self._judge(number, item))
            if not reason and number not in self._children and not self._closed:  # lost: replaced ahead of need
                reason = self._start(number)
                failures = 1 if reason else 0
        self._drop(number)

    def _judge(self, number: int, item: dict) -> Verdict:
        try:
            return self._children[number].judge(item)
        except _Lost as error:
            reason = str(error)
        except Exception as error:  # a bug of ours, or a reference JSON cannot carry: the thread lives on
            reason = f"{type(error).__name__}: {error}"
        self._drop(number)
        return Verdict("error", reason)

    def _is_gone(self, number: int) -> bool:
        child = self._children.get(number)
        return child is None or child.process.poll() is not None

    def _start(self, number: int) -> str:
        """Brings up a fresh child; returns "" or why there is none."""
        self._drop(number)
        try:
            child = _Child(self._deadline_s)
        except OSError as error:  # out of processes, memory or disk
            return f"no verifier process: {error}"
        with self._lock:
            self._children[number] = child
            closed = self._closed
        try:
            if closed:
                raise _Lost("the verifier pool is closed")
            child.wait_ready()
        except _Lost as error:
            self._drop(number)
            return str(error)
        return ""

    def _drop(self, number: int) -> None:
        with self._lock:
            child = self._children.pop(number, None)
        if child is not None:
            try:
                child.kill()
            except subprocess.TimeoutExpired:  # killed, but stuck in the kernel: nothing left to do
                pass
