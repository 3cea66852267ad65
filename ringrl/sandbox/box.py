"""Our side of the sandbox: starting a host process, sending it programs, and judging what it reports of them."""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ringrl.errors import ConfigError
from ringrl.processes import Scratch, kill_tree
from ringrl.sandbox.filter import machine
from ringrl.sandbox.kernel import LEVELS, NAMESPACED
from ringrl.sandbox.values import FAULT

START_S = 60.0  # longest start of a host
GRACE_S = 20.0  # a host silent for this long after a program's deadline is taken for dead
READABLE = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/alternatives", "/etc/ld.so.cache",
            "/etc/localtime")  # fmt: skip
PACKAGES = ("numpy", "pytest")  # what tests import besides the standard library, if it is installed
_BOOT = "import sys; sys.path.insert(0, {root!r}); from ringrl.sandbox.host import main; main(*{args!r})"


class SandboxError(RuntimeError):
    """The sandbox failed, not the program: its host died or does not answer."""


class TestsError(RuntimeError):
    """The tests failed, not the program: a fault of their own code, or not one assertion ran."""

    __test__ = False  # pytest takes the name for a class of tests


@dataclass(frozen=True)
class Limits:
    """What one program may use. The wall clock catches what only waits."""

    wall_s: float = 12.0
    patience_s: float = 5.0  # most that is added when the machine was too busy to run it
    cpu_s: int = 6  # limit for one process; all its processes together have a second more
    memory_bytes: int = 1 << 30  # address space of one process, and resident memory of all together
    output_bytes: int = 4 << 20  # per file written, standard output and error included
    open_files: int = 64
    processes: int = 64  # threads included


@dataclass(frozen=True)
class Execution:
    """One program's outcome and output, as seen from outside."""

    outcome: str  # ok, wrong, runtime, timeout, memory, output, compile
    stdout: str
    stderr: str
    report: bytes
    cpu_s: float = 0.0  # computed by all of its processes
    starved_s: float = 0.0  # for which it waited for a CPU, if its time was up


@dataclass(frozen=True)
class Job:
    """One program to run in one of the modes of `programs`."""

    mode: str
    program: str | bytes
    stdin: str = ""
    command: tuple[str, ...] = ()  # for a JVM, which reserves more memory than it uses
    channel: socket.socket | None = None
    modules: tuple[str, ...] = ()  # what the host imports before, so that the program finds it in memory


class Sandbox:
    """One warm host process that forks a process per program, one program at a time.

    The host starts with the first program and again after it was lost; it ends with the thread that started it.
    `close` (or leaving the `with` block) ends it and removes its temporary directory. `level` is how programs are
    isolated, "" for the best there is. With `packages`, what runs in it may import what is installed here: for code
    that we trust.
    """

    def __init__(self, level: str = "", packages: bool = False) -> None:
        self._level = level
        self._packages = _installed() if packages else []
        self._imported: set[str] = set()  # modules that the host has in memory
        self._process: subprocess.Popen[bytes] | None = None
        self._running: tuple[list[int], Limits] | None = None

    def run(self, job: Job, limits: Limits) -> Execution:
        """Runs one program to its end.

        Raises:
            SandboxError: the host died or did not answer. The next call starts a new one.
        """
        self.begin(job, limits)
        return self.end()

    def have(self, modules: set[str]) -> None:
        """Starts the host if there is none, and makes it import modules, so that no program's time goes there."""
        if self._process is None or modules - self._imported:
            self.run(Job("script", "", modules=tuple(modules)), Limits())
            self._imported |= modules

    def begin(self, job: Job, limits: Limits) -> None:
        """Starts a program; `end` must follow. Raises as `run`."""
        assert self._running is None, "one program at a time"
        if self._process is None:
            self._start()
        files = [_readable_file(job.stdin), *(os.memfd_create("ringrl") for _ in range(3)), _readable_file(job.program)]
        more = [job.channel.fileno()] if job.channel else []
        request = {"mode": job.mode, "command": job.command, "modules": job.modules, **asdict(limits)}
        self._running = files, limits
        try:
            socket.send_fds(self._conn, [json.dumps(request).encode()], [*files, *more])
        except OSError as error:
            self._lost(error)

    def end(self) -> Execution:
        """Waits for the program that `begin` has started. Raises as `run`."""
        assert self._running is not None, "no program was begun"
        files, limits = self._running
        try:
            self._conn.settimeout(limits.wall_s + GRACE_S)
            answer = self._conn.recv(4096)
            if not answer:
                raise EOFError("the host is gone")
            told = json.loads(answer)
            execution = _execution(told, files, limits)
        except (EOFError, OSError) as error:
            self._lost(error)
        self._forget()
        if told["touched"]:
            self.close()
        return execution

    def close(self) -> None:
        """Ends the host and whatever it still runs; harmless if there is none."""
        self._forget()
        if self._process is not None:
            self._conn.close()
            kill_tree(self._process.pid)
            self._process.wait(timeout=GRACE_S)
            self._process = None
            self._scratch.close()
            self._imported = set()

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def level(self) -> str:
        """One of `kernel.LEVELS`; starts the host if it is not there."""
        if self._process is None:
            self._start()
        return self._level

    def start(self) -> str:
        """Brings the host up; returns what had to be left out of its level, or "".

        Raises:
            SandboxError: the kernel refuses this level.
        """
        self._scratch = Scratch("sandbox")
        self._conn, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        package, place = str(Path(__file__).parents[2]), str(self._scratch.path)
        boot = _BOOT.format(root=package, args=(os.getpid(), place, self._level, _readable(), self._packages))
        flags = ["-P", "-s", "-S", "-X", "utf8"]  # as -I, except that it takes the hash seed from us
        with theirs:
            environment = {"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
            self._process = subprocess.Popen(
                [sys.executable, *flags, "-c", boot], stdin=theirs.fileno(), env=environment, start_new_session=True
            )
        self._conn.settimeout(START_S)
        try:
            reply = json.loads(self._conn.recv(4096) or b'{"refused": "the host ended while starting"}')
        except OSError as error:
            reply = {"refused": str(error)}
        if self._level in NAMESPACED or "refused" in reply:
            self._scratch.close()  # the host's mount of it stays
        if "refused" in reply:
            self.close()
            raise SandboxError(f"{self._level}: {reply['refused']}")
        return reply["note"]

    def _start(self) -> None:
        self._level = self._level or isolation().level
        self.start()

    def _forget(self) -> None:
        if self._running is not None:
            for fd in self._running[0]:
                os.close(fd)
            self._running = None

    def _lost(self, error: Exception) -> None:
        self.close()
        raise SandboxError(f"{type(error).__name__}: {error}") from error


def check(served: Sandbox, checking: Sandbox, code: str, texts: Sequence[str], entry: str, limits: Limits) -> str:
    """The outcome of Python tests, run in one sandbox, of a program that runs in another.

    Raises:
        TestsError: it is the tests that failed, or they assert nothing.
        SandboxError: a sandbox failed.
    """
    proof = secrets.token_hex(16)
    told = json.dumps({"entry": entry, "proof": proof})
    checking.have({name for name in PACKAGES if any(name in text for text in texts)})
    ours, theirs = socket.socketpair()
    with ours, theirs:
        served.begin(Job("serve", code, channel=theirs), limits)
        try:
            checking.begin(Job("check", json.dumps(texts), told, channel=ours), limits)
        finally:
            ours.close()  # each end is open in its sandbox only, so that either sees when the other is gone
            theirs.close()
            try:
                verdict = checking.end() if checking._running else None
            finally:
                program = served.end()
    assert verdict is not None
    if verdict.outcome == "ok":
        return "ok" if verdict.report == proof.encode() else "runtime"
    if program.outcome != "ok":
        return program.outcome
    if verdict.report.startswith(FAULT):
        raise TestsError(verdict.report.removeprefix(FAULT).decode("utf-8", "replace"))
    return verdict.outcome


@dataclass(frozen=True)
class Isolation:
    """What this machine grants."""

    level: str
    note: str  # what had to be left out of it, or ""
    refused: tuple[str, ...]  # the better levels, each with the reason

    def __str__(self) -> str:
        filtered = "system call filter" if machine() else "no system call filter for this machine"
        return ", ".join(filter(None, [self.level, filtered, self.note]))


@functools.cache
def isolation() -> Isolation:
    """The best level that this machine grants; starts a host to find out.

    Raises:
        SandboxError: not even the last level works.
    """
    refused: list[str] = []
    for level in LEVELS:
        try:
            with Sandbox(level) as box:
                note = box.start()
                execution = box.run(Job("script", "print('fine')"), Limits())
                if execution.stdout == "fine\n":
                    return Isolation(level, note, tuple(refused))
                refused.append(f"{level}: programs do not run: {execution.outcome} {execution.stderr.strip()[-200:]}")
        except SandboxError as error:
            refused.append(str(error))
    raise SandboxError("; ".join(refused))


RISK = {
    "uid": "programs read what everybody may read, and see the machine's processes",
    "process": "programs may read, change and send what you may",
}


def at_least(level: str) -> Isolation:
    """What this machine grants.

    Raises:
        ConfigError: it is less than `level`, one of LEVELS.
    """
    try:
        granted = isolation()
    except SandboxError as error:
        raise ConfigError(f"verify.isolation: no program can be run here: {error}") from None
    if LEVELS.index(granted.level) > LEVELS.index(level):
        why, most = "; ".join(granted.refused), granted.level
        raise ConfigError(f"verify.isolation: this machine grants {most} ({why}), expected at least {level}, or "
                          f"verify.remote; with verify.isolation={most} {RISK[most]}")  # fmt: skip
    return granted


def _readable() -> list[str]:
    """What programs may read: the system's programs and libraries, this interpreter, Java."""
    java = shutil.which("java")
    home = [str(Path(java).resolve().parents[1])] if java else []
    settings = [str(p) for p in Path("/etc").glob("java*")]
    return [*READABLE, *settings, sys.base_prefix, *home]


def _installed() -> list[str]:
    """The directories that PACKAGES are installed in."""
    found = [importlib.util.find_spec(name) for name in PACKAGES]
    return sorted({str(Path(spec.origin).parents[1]) for spec in found if spec and spec.origin})


def _readable_file(content: str | bytes) -> int:
    """A file in memory that can only be read, as an executable must be."""
    fd = os.memfd_create("ringrl")
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(content.encode("utf-8", "replace") if isinstance(content, str) else content)
        return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(fd)


def _execution(answer: dict[str, Any], files: list[int], limits: Limits) -> Execution:
    """Reads output and report from the files; these and the exit status decide the outcome."""
    _, out, err, report_fd, _ = files
    stdout, stderr = (os.pread(fd, limits.output_bytes, 0).decode("utf-8", "replace") for fd in (out, err))
    report = os.pread(report_fd, limits.output_bytes, 0)
    full = max(os.fstat(fd).st_size for fd in (out, err)) >= limits.output_bytes
    outcome = "output" if full else _outcome(answer, report, limits)
    return Execution(outcome, stdout, stderr, report, answer["cpu_s"], answer["starved_s"])


def _outcome(answer: dict[str, Any], report: bytes, limits: Limits) -> str:
    status = answer["status"]
    killed = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    if answer["why"]:
        return answer["why"]
    if killed == signal.SIGXCPU or (killed and answer["cpu_s"] >= limits.cpu_s):
        return "timeout"
    if killed == signal.SIGXFSZ:
        return "output"
    if status == 0:
        return "ok"
    if killed == signal.SIGKILL:  # we did not kill it: the kernel was out of memory
        return "memory"
    return report.decode() if report in (b"compile", b"memory", b"wrong") else "runtime"
