"""Runs untrusted Python programs, one process each, limited in time, memory and output. Linux only.

This is NOT a security boundary. A program runs as the same user, sees the file system and the network, and
can forge the proof of a passed check by searching its own process. What the limits do is keep honest and
merely broken programs from hurting a training run. Namespaces, system call filters and another user id are
a later step; `_host.prepare` is the one function that would do them.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from typing import Any

from ringrl.rewards import _host

GRACE_S = 10.0  # beyond the program's own wall clock, until the host itself is taken for dead


class SandboxError(RuntimeError):
    """The sandbox failed, not the program: its host died or does not answer."""


@dataclass(frozen=True)
class Limits:
    """What one program may use. CPU time decides on a busy machine; wall clock catches what only waits."""

    wall_s: float = 12.0
    cpu_s: int = 6
    memory_bytes: int = 1 << 30  # address space
    output_bytes: int = 4 << 20  # per file written, standard output and error included
    open_files: int = 64
    processes: int = 16384  # counts all tasks of the user (ignored for root): only stops a fork bomb


@dataclass(frozen=True)
class Execution:
    """What was seen of one program from outside."""

    outcome: str  # ok, wrong, runtime, timeout, memory, output, syntax
    stdout: str


class Sandbox:
    """One warm host process that forks a process per program, one program at a time.

    The host starts with the first program and again after it was lost. `close` (or leaving the `with` block)
    ends it and removes its temporary directory.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, code: str, *, stdin: str = "", checks: str = "", limits: Limits = Limits()) -> Execution:
        """Runs `code` as a script with `stdin`, or, with `checks`, as a module followed by the checks.

        With checks, the outcome is `ok` only if their last line was reached: exiting early is `runtime`.

        Raises:
            SandboxError: the host died or did not answer. The next call starts a new one.
        """
        nonce = secrets.token_hex(16)
        request = {"code": code, "stdin": stdin, "checks": checks, "nonce": nonce, **asdict(limits)}
        if self._process is None:
            self._start()
        try:
            _host.send(self._conn, request, GRACE_S)
            seen = _host.receive(self._conn, limits.wall_s + GRACE_S)
        except (EOFError, OSError) as error:
            self.close()
            raise SandboxError(f"{type(error).__name__}: {error}") from error
        return Execution(_outcome(seen, nonce if checks else "", limits), seen["stdout"])

    def close(self) -> None:
        """Ends the host and whatever it still runs; harmless if there is none."""
        if self._process is not None:
            self._conn.close()
            _host.kill_tree(self._process.pid)
            self._process.wait(timeout=GRACE_S)
            self._process = None
            shutil.rmtree(self._root, ignore_errors=True)

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _start(self) -> None:
        self._root = tempfile.mkdtemp(prefix="ringrl-sandbox-")
        self._conn, theirs = socket.socketpair()
        flags = ["-P", "-s", "-S", "-X", "utf8"]  # as -I, except that it takes the hash seed from us
        command = [sys.executable, *flags, _host.__file__, str(os.getpid()), self._root]
        with theirs:
            environment = {"PYTHONHASHSEED": "0"}
            self._process = subprocess.Popen(command, stdin=theirs.fileno(), env=environment, start_new_session=True)


def _outcome(seen: dict[str, Any], proof: str, limits: Limits) -> str:
    """Exit status and output decide on a program; a checked one must also have shown the proof."""
    status, report = seen["status"], seen["report"]
    killed = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    if seen["output_full"]:
        return "output"
    if seen["timed_out"] or killed == signal.SIGXCPU or (killed and seen["cpu_s"] >= limits.cpu_s):
        return "timeout"
    if status == 0 and report == proof:
        return "ok"
    if killed == signal.SIGKILL:  # not by us: the kernel was out of memory
        return "memory"
    return report if report in ("syntax", "memory", "wrong") else "runtime"
