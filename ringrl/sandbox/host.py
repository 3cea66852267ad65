"""The host of a sandbox: a warm interpreter that forks a process per program and reports on it from outside.

It handles file descriptors only: program, input and output pass through it unread, so that its copies, the programs,
hold nothing of each other. In the namespaces it is process 1, which no program can signal or look into, and whose
death the kernel lets nothing survive.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import resource
import select
import shutil
import signal
import socket
import time
from typing import Any

from ringrl.processes import descendants, die_with_parent, kill_all
from ringrl.sandbox import kernel, programs
from ringrl.sandbox.kernel import NAMESPACED, Place

MESSAGE_BYTES, MESSAGE_FDS = 4096, 6
GLANCE_S = 0.05  # how often memory and CPU time of all of a program's processes are added up
STRAY_S = 5.0  # how long the host hunts for what a program left behind, where the kernel does not do it
_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")


def main(parent: int, root: str, level: str, readable: list[str], packages: list[str]) -> None:
    """Serves requests from the socket on file descriptor 0 until its other end closes."""
    conn = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1):
        os.dup2(null, fd)
    os.close(null)
    programs.preload(packages)
    most = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (most, most))  # our parent's limit is not meant for programs
    try:
        place = kernel.enter(level, root, readable)
        if level in NAMESPACED:
            _guard(conn, parent)
            note = kernel.settle()
            kernel.renew_tmp(first=True)
        else:
            note = ""
            die_with_parent(parent)
            kernel.be_subreaper()
        os.dup2(os.open(os.devnull, os.O_RDWR), 2)
    except OSError as error:
        conn.send(json.dumps({"refused": str(error)}).encode())
        return
    conn.send(json.dumps({"ready": level, "note": note}).encode())
    gc.collect()
    gc.freeze()
    _serve(conn, place)


def _guard(conn: socket.socket, parent: int) -> None:
    """The child goes on as process 1 of its namespaces; this one dies with the parent, and the child with it."""
    pid = os.fork()
    if pid == 0:
        die_with_parent(0)  # a parent outside the namespace has this id
        return
    conn.close()
    die_with_parent(parent)
    _, status = os.waitpid(pid, 0)
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def _serve(conn: socket.socket, place: Place) -> None:
    try:
        while True:
            message, fds, _, _ = socket.recv_fds(conn, MESSAGE_BYTES, MESSAGE_FDS)
            if not message:
                return
            result = _execute(json.loads(message), fds, place)
            conn.send(json.dumps(result).encode())
    except OSError:  # nobody is left to answer to
        return


def _execute(request: dict[str, Any], fds: list[int], place: Place) -> dict[str, Any]:
    """Runs one program in an empty directory; returns wait status, why we killed it, and seconds of CPU time and of
    waiting for a CPU."""
    if place.level not in NAMESPACED:
        shutil.rmtree(place.cwd, ignore_errors=True)
        os.mkdir(place.cwd, 0o700)  # if it could not be removed, this ends the host; the next one has another directory
        os.chown(place.cwd, place.uid, -1)
    for name in request["modules"]:
        _import(name)
    host, pid = os.getpid(), os.fork()
    if pid == 0:
        programs.run(request, fds, place, host)
    for fd in fds:
        os.close(fd)
    status, why, cpu_s, starved_s = _wait(pid, request, place)
    _sweep(place)
    if place.level in NAMESPACED:
        kernel.renew_tmp(first=False)
    elif place.level == "uid":
        _remove_files(place.uid)
    return {"status": status, "why": why, "cpu_s": cpu_s, "starved_s": starved_s}


def _import(name: str) -> None:
    """Imports a module for all programs to come, if it is there; what is missing shows where it is used."""
    try:
        importlib.import_module(name)
    except ImportError:
        pass


def _wait(pid: int, request: dict[str, Any], place: Place) -> tuple[int, str, float, float]:
    """Waits for the program; returns wait status, why it was killed if we did it, and seconds of CPU time and, once its
    time is up, of waiting for a CPU, of the process that waited longest."""
    pidfd = os.pidfd_open(pid)
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    begun, why, starved_s = time.monotonic(), "", 0.0
    deadline = begun + request["wall_s"]
    while not why:
        if poller.poll(max(min(deadline - time.monotonic(), GLANCE_S), 0) * 1000):
            break
        members = _members(place)
        if time.monotonic() >= deadline:  # time in which it wanted to run and was not let is not its own
            starved_s = max(map(_starved, members), default=0.0)
            deadline = begun + request["wall_s"] + min(starved_s, request["patience_s"])
        memory, cpu_s = _use(members)
        if memory > request["memory_bytes"]:  # what forks share was counted for each
            memory = sum(map(_share, members))
        if time.monotonic() >= deadline or cpu_s > request["cpu_s"] + 1:
            why = "timeout"
        elif memory > request["memory_bytes"]:
            why = "memory"
    os.close(pidfd)
    os.kill(pid, signal.SIGKILL)
    _, status, usage = os.wait4(pid, 0)
    return status, why, usage.ru_utime + usage.ru_stime, starved_s


def _starved(pid: int) -> float:
    """Seconds for which a process has waited for a CPU that was busy with others; 0 where the kernel does not tell."""
    try:
        with open(f"/proc/{pid}/schedstat") as file:
            return int(file.read().split()[1]) / 1e9
    except OSError:
        return 0.0


def _members(place: Place) -> list[int]:
    """Process ids of the program and what it started."""
    if place.level in NAMESPACED:
        return [int(name) for name in os.listdir("/proc") if name.isdigit() and name != "1"]
    return descendants(os.getpid())


def _use(pids: list[int]) -> tuple[int, float]:
    """Bytes of memory of some processes, files that are mapped aside, and seconds of CPU time of them and of the
    children they have waited for."""
    memory, ticks = 0, 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/statm") as file:
                _, resident, shared = map(int, file.read().split()[:3])
            with open(f"/proc/{pid}/stat") as file:
                ticks += sum(map(int, file.read().rpartition(")")[2].split()[11:15]))
        except (OSError, ValueError):  # it has ended
            continue
        memory += (resident - shared) * _PAGE + _anonymous_shared(pid)
    return memory, ticks / _TICKS


def _anonymous_shared(pid: int) -> int:
    """Bytes of memory without a file that a process shares with its forks, which `statm` takes for files."""
    try:
        with open(f"/proc/{pid}/status") as file:
            return next((int(line.split()[1]) << 10 for line in file if line.startswith("RssShmem:")), 0)
    except OSError:  # it has ended
        return 0


def _share(pid: int) -> int:
    """Bytes of memory of a process, what it shares divided by the number of those who share it."""
    try:
        with open(f"/proc/{pid}/smaps_rollup") as file:
            return next(int(line.split()[1]) << 10 for line in file if line.startswith("Pss:"))
    except ProcessLookupError:
        return 0
    except OSError:  # it does not let itself be looked into
        return _use([pid])[0]


def _sweep(place: Place) -> None:
    """Kills and reaps all that a program left; orphans are this process's children."""
    deadline = time.monotonic() + STRAY_S
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0]:
                continue
        except ChildProcessError:  # no child left
            return
        if time.monotonic() > deadline:
            raise OSError("a program's processes cannot be killed")
        if place.level in NAMESPACED:
            os.kill(-1, signal.SIGKILL)  # all but process 1, which is this one, at one instant
        elif place.level == "uid":
            _kill_user(place.uid)
        else:
            kill_all(descendants(os.getpid()))
        time.sleep(0.0005)


def _kill_user(uid: int) -> None:
    """Kills all processes of a user at one instant."""
    pid = os.fork()
    if pid == 0:
        kernel.become(uid)
        os.kill(-1, signal.SIGKILL)
        os._exit(0)
    os.waitpid(pid, 0)


def _remove_files(uid: int) -> None:
    """Removes what a user has left where anybody may write; none of its processes runs any more."""
    for folder in filter(os.path.isdir, ("/tmp", "/var/tmp", "/dev/shm")):
        for entry in [e for e in os.scandir(folder) if e.stat(follow_symlinks=False).st_uid == uid]:
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                os.unlink(entry.path)
