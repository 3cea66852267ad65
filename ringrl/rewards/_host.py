"""The sandbox's host process, and the process helpers it shares with the rest of this package.

Run as a script without site-packages, so it imports the standard library only. The host waits for requests,
forks one grandchild per program, and reports what it saw from outside: exit status, output, and what came
through the report pipe. Nothing a program started outlives its request: the host reaps every orphan below it.
"""

from __future__ import annotations

import atexit
import builtins
import ctypes
import gc
import json
import os
import resource
import select
import shutil
import signal
import socket
import sys
import time
from typing import Any

REPORT_FD = 3
PRELOADED = ("bisect", "heapq", "random", "string")  # programs import these all the time: paid once
STRAY_S = 2.0  # how long the host hunts for what a program left behind
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_prctl = ctypes.CDLL(None).prctl


def send(conn: socket.socket, message: object, timeout_s: float) -> None:
    """Sends one JSON message, a line; OSError if the other side is gone or does not read in time."""
    conn.settimeout(timeout_s)
    conn.sendall(json.dumps(message).encode("ascii") + b"\n")


def receive(conn: socket.socket, timeout_s: float | None) -> Any:
    """Waits for one JSON message; None waits for as long as the other side lives.

    Raises:
        EOFError, OSError: the other side is gone (OSError includes TimeoutError: it is late).
    """
    conn.settimeout(timeout_s)
    data = bytearray()
    while not data.endswith(b"\n"):
        part = conn.recv(1 << 20)
        if not part:
            raise EOFError("the process at the other end is gone")
        data += part
    return json.loads(data)


def die_with_parent(parent: int) -> None:
    """The kernel kills this process when `parent` (strictly: the thread that started it) ends."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _descendants(pid: int) -> list[int]:
    """Process ids of everything below `pid`, parents before children."""
    children: dict[int, list[int]] = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                parent = int(file.read().rpartition(b")")[2].split()[1])
        except (OSError, IndexError):  # it ended meanwhile
            continue
        children.setdefault(parent, []).append(int(name))
    found = children.get(pid, [])
    for child in found:  # grows while it is walked
        found += children.get(child, [])
    return found


def kill_tree(pid: int) -> None:
    """Kills a process, everything below it, and their process groups."""
    _kill([pid, *_descendants(pid)])


def _kill(pids: list[int]) -> None:
    """Kills these processes and the groups they lead."""
    for victim in pids:
        for kill in (os.killpg, os.kill):
            try:
                kill(victim, signal.SIGKILL)
            except ProcessLookupError:  # it leads no group, or is gone
                pass


def _reap_strays() -> None:
    """Kills what a program left behind; orphans are handed to the host, so they are its children by now."""
    deadline = time.monotonic() + STRAY_S
    while time.monotonic() < deadline:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                _kill(_descendants(os.getpid()))
                time.sleep(0.0005)
        except ChildProcessError:  # no child left
            return


def prepare(request: dict[str, Any], files: tuple[int, int, int], report: int, cwd: str, host: int) -> None:
    """Turns the fresh grandchild into the place a program runs in. Stronger isolation belongs here."""
    os.setsid()
    die_with_parent(host)
    for target, source in enumerate(files):
        os.dup2(source, target)
    os.dup2(report, REPORT_FD, inheritable=False)
    os.closerange(REPORT_FD + 1, 256)
    os.chdir(cwd)
    os.umask(0o077)
    os.environ.clear()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")
    sys.argv = ["answer.py"]
    vars(builtins).update(exit=sys.exit, quit=sys.exit)  # what `site` would have added
    for kind, limit in (
        (resource.RLIMIT_CPU, request["cpu_s"]),
        (resource.RLIMIT_AS, request["memory_bytes"]),
        (resource.RLIMIT_FSIZE, request["output_bytes"]),
        (resource.RLIMIT_NOFILE, request["open_files"]),
        (resource.RLIMIT_NPROC, request["processes"]),
        (resource.RLIMIT_CORE, 0),
    ):
        ceiling = resource.getrlimit(kind)[1]
        hard = limit + (kind == resource.RLIMIT_CPU)  # a second later it is killed
        hard = hard if ceiling == resource.RLIM_INFINITY else min(hard, ceiling)
        resource.setrlimit(kind, (min(limit, hard), hard))


def _run_program(request: dict[str, Any], write=os.write, leave=os._exit) -> int:
    """Runs the program, then the checks if there are any. Only having passed all checks writes the nonce."""
    nonce, has_checks = request.pop("nonce").encode(), bool(request["checks"])
    checks = compile(request["checks"], "<checks>", "exec", dont_inherit=True, optimize=0)
    module = type(sys)("answer" if has_checks else "__main__")
    sys.modules[module.__name__] = module
    failure = b"runtime"
    try:
        try:
            program = compile(request["code"], "<answer>", "exec", dont_inherit=True)
        except (SyntaxError, ValueError):  # ValueError: null bytes, lone surrogates
            write(REPORT_FD, b"syntax")
            return 1
        exec(program, module.__dict__)
        if has_checks:
            failure = b"wrong"
            exec(checks, module.__dict__)
            write(REPORT_FD, nonce)
            leave(0)
        return 0
    except SystemExit as error:
        return (error.code if isinstance(error.code, int) else 1) if error.code else 0
    except MemoryError:
        write(REPORT_FD, b"memory")
    except BaseException as error:  # whatever the program raises ends the program, not the host
        write(REPORT_FD, failure if isinstance(error, AssertionError) else b"runtime")
        sys.__excepthook__(type(error), error, error.__traceback__)
    return 1


def _finish() -> None:
    """What the interpreter does at its end, as far as a program sees it: threads, exit handlers, flushing."""
    if "threading" in sys.modules:
        sys.modules["threading"]._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()


def _grandchild(request: dict[str, Any], *place) -> None:
    """Never returns."""
    code = 1
    try:
        prepare(request, *place)
        code = _run_program(request)
        _finish()
    except BaseException:  # a full output file, a program that broke its own streams: a failed program
        code = code or 1
    finally:
        os._exit(code & 0xFF)


def _memory_file(data: bytes = b"") -> int:
    fd = os.memfd_create("ringrl")
    with open(fd, "wb", closefd=False) as file:
        file.write(data)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _wait(pid: int, wall_s: float) -> tuple[int, bool, float]:
    """Waits, kills the group in any case; returns wait status, whether time ran out, and CPU seconds."""
    pidfd = os.pidfd_open(pid)
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    timed_out = not poller.poll(wall_s * 1000)
    os.close(pidfd)
    kill_tree(pid) if timed_out else _kill([pid])
    _, status, usage = os.wait4(pid, 0)
    _reap_strays()
    return status, timed_out, usage.ru_utime + usage.ru_stime


def _execute(request: dict[str, Any], cwd: str) -> dict[str, Any]:
    """Runs one request in a grandchild, in an empty directory, and says what was seen of it."""
    shutil.rmtree(cwd, ignore_errors=True)
    os.mkdir(cwd, 0o700)  # if it could not be removed, this ends the host, and the next one has another directory
    files = (_memory_file(request["stdin"].encode("utf-8", "replace")), _memory_file(), _memory_file())
    report, report_end = os.pipe()
    host, pid = os.getpid(), os.fork()
    if pid == 0:
        _grandchild(request, files, report_end, cwd, host)
    os.close(report_end)
    status, timed_out, cpu_s = _wait(pid, request["wall_s"])
    os.set_blocking(report, False)
    try:
        said = os.read(report, 4096).decode("utf-8", "replace")
    except BlockingIOError:  # a stray still holds the other end
        said = ""
    full = max(os.fstat(fd).st_size for fd in files[1:]) >= request["output_bytes"]
    stdout = os.pread(files[1], request["output_bytes"], 0).decode("utf-8", "replace")
    for fd in (*files, report):
        os.close(fd)
    seen = {"status": status, "timed_out": timed_out, "cpu_s": cpu_s, "report": said}
    return {**seen, "output_full": full, "stdout": stdout}


def main(parent: int, root: str) -> None:
    """Serves requests from the socket on file descriptor 0 until its other end closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent(parent)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    conn = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1):
        os.dup2(null, fd)
    os.close(null)
    for name in PRELOADED:
        __import__(name)
    gc.collect()
    gc.freeze()
    while True:
        try:
            request = receive(conn, None)
            send(conn, _execute(request, os.path.join(root, "cwd")), timeout_s=60.0)
        except (EOFError, OSError):  # nobody is left to answer to
            return


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
