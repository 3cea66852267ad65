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
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from ringrl import processes
from ringrl.rewards.answers import Verdict
from ringrl.rewards.worker import VERIFIERS

START_S = 120.0  # until a child must be ready: importing Math-Verify takes seconds, more on a busy machine
STOP_S = 10.0  # until a killed child must be gone
MAX_FAILED_STARTS = 3  # in a row, after which a worker answers every item with the error
_BOOT = (
    "import sys; sys.path.insert(0, {root!r}); from ringrl.rewards.worker import main; "
    "main({parent}, {temporary!r}, {deadline_s}, **{code!r})"
)


class VerifierPool:
    """`workers` child processes that judge responses, each item within `deadline_s` seconds.

    The clock of an item starts when a ready child takes it. Programs get 85 % of the deadline, so
    that an endless one fails by itself; what reaches the deadline is an `error`. The children come up in the
    background. Leaving the `with` block kills them and cancels what is still queued: collect the results before.
    `code` are further arguments of `verify_code`: `remote`, `every`.
    """

    def __init__(self, workers: int, deadline_s: float, **code: str | bool) -> None:
        assert min(workers, deadline_s) > 0, (workers, deadline_s)
        self._queue: queue.SimpleQueue[tuple[Future[Verdict], dict[str, Any]] | None] = queue.SimpleQueue()
        self._closed = False
        self._children = [_Child(deadline_s, code) for _ in range(workers)]
        self._threads = [threading.Thread(target=self._serve, args=(c,), daemon=True) for c in self._children]
        for thread in self._threads:
            thread.start()

    def submit(self, domain: str, text: str, reference: Mapping[str, object]) -> Future[Verdict]:
        """Queues one response; `reference` must be plain data (what JSON can carry).

        Raises:
            ValueError: the domain is unknown.
            RuntimeError: the pool is closed.
        """
        if domain not in VERIFIERS:
            raise ValueError(f"unknown domain {domain!r}; known: {', '.join(VERIFIERS)}")
        if self._closed:
            raise RuntimeError("the verifier pool is closed")
        future: Future[Verdict] = Future()
        self._queue.put((future, {"domain": domain, "text": text, "reference": dict(reference)}))
        return future

    def close(self) -> None:
        """Kills the children and waits for them; a second call does nothing."""
        self._closed = True
        for child in self._children:
            child.close()  # its thread sees the end of it and cleans up
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join(timeout=2 * STOP_S)

    def __enter__(self) -> VerifierPool:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _serve(self, child: _Child) -> None:
        """The life of one worker thread: hands its child one item after the other."""
        child.start()
        while (job := self._queue.get()) is not None:
            future, item = job
            if self._closed:
                future.cancel()
            if future.set_running_or_notify_cancel():
                future.set_result(child.judge(item))
            child.revive()  # a lost process costs the next item no time: a worker that is up takes that one
        child.stop()


class _Child:
    """One verifier process, started again after it was lost. Used by one thread, with which it dies; `close` by any."""

    def __init__(self, deadline_s: float, code: Mapping[str, str | bool]) -> None:
        self._deadline_s, self._code = deadline_s, dict(code)
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False
        self._lock = threading.Lock()  # of `_process` and `_closed`
        self._failed_starts = 0  # in a row
        self._problem = ""  # of the last start

    def start(self) -> None:
        """Brings the process up, or keeps the reason why it did not come up."""
        self.stop()
        try:
            self._spawn()
            self._problem = self._exchange(None, START_S, "starting")[1]
        except OSError as error:  # out of processes, memory or disk
            self._problem = f"no verifier process: {error}"
        self._failed_starts = self._failed_starts + 1 if self._problem else 0

    def judge(self, item: dict[str, Any]) -> Verdict:
        """One verdict, whatever happens to the process."""
        self.revive()
        if self._problem:
            return Verdict("error", self._problem)
        answer, problem = self._exchange(item, self._deadline_s, "verifying")
        return Verdict("error", problem) if problem else Verdict(answer[0], answer[1], tuple(answer[2]))

    def revive(self) -> None:
        """Brings a process that is gone up again, unless that failed too often."""
        if (self._process is None or self._process.poll() is not None) and self._failed_starts < MAX_FAILED_STARTS:
            self.start()

    def stop(self) -> None:
        """Ends the process, everything it started, and its temporary directory."""
        with self._lock:
            process, self._process = self._process, None
        if process is None:
            return
        self._conn.close()
        processes.kill_tree(process.pid)
        try:
            process.wait(timeout=STOP_S)
        except subprocess.TimeoutExpired:  # killed, but stuck in the kernel: nothing left to do
            pass
        self._temporary.cleanup()

    def close(self) -> None:
        """Kills the process for good; its own thread finds out."""
        with self._lock:
            self._closed = True
            if self._process is not None:
                processes.kill_tree(self._process.pid)

    def _spawn(self) -> None:
        with self._lock:
            if self._closed:
                raise OSError("the verifier pool is closed")
            self._temporary = tempfile.TemporaryDirectory(prefix="ringrl-verifier-", ignore_cleanup_errors=True)
            self._conn, theirs = socket.socketpair()
            boot = _BOOT.format(
                root=str(Path(__file__).parents[2]),
                parent=os.getpid(),
                temporary=self._temporary.name,
                deadline_s=self._deadline_s,
                code=self._code,
            )
            with theirs:
                command = [sys.executable, "-P", "-c", boot]
                self._process = subprocess.Popen(command, stdin=theirs.fileno(), start_new_session=True)

    def _exchange(self, item: dict[str, Any] | None, timeout_s: float, doing: str) -> tuple[Any, str]:
        """The answer to `item`, or to being started, and what went wrong; a process that failed is stopped."""
        assert self._process is not None
        try:
            if item is not None:
                processes.send(self._conn, item, timeout_s)
            return processes.receive(self._conn, timeout_s), ""
        except TimeoutError:
            problem = f"deadline of {timeout_s:g} s passed while {doing}"
        except (EOFError, OSError):
            try:
                status = f", exit status {self._process.wait(timeout=1.0)}"
            except subprocess.TimeoutExpired:
                status = ""
            problem = f"verifier process died while {doing}{status}"
        except Exception as error:  # a bug of ours, or a reference JSON cannot carry: the thread lives on
            problem = f"{type(error).__name__}: {error}"
        self.stop()
        return None, problem
