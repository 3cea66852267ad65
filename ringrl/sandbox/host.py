"""The host of a sandbox: a warm interpreter that forks a process per program and reports on it from outside.

It handles file descriptors only: program, input and output pass through it unread, so that its copies, the programs,
hold nothing of each other. In the namespaces it is process 1, which no program can signal or look into, and whose
death the kernel lets nothing survive.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import resource
import secrets
import select
import signal
import socket
import sys
import time
from typing import Any

from ringrl.processes import descendants, die_with_parent, kill_all
from ringrl.sandbox import kernel, programs
from ringrl.sandbox.kernel import NAMESPACED, Place

MESSAGE_BYTES, MESSAGE_FDS = 4096, 6
GLANCE_S = 0.05  # how often memory and CPU time of all of a program's processes are added up
SOCKET_BYTES = 416 << 10  # most that the buffers of a socket hold; they are in no process's memory
MAX_DEPTH = 500  # folders in folders that are looked into
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
        place = kernel.enter(level, root, readable, packages)
        if level in NAMESPACED:
            sys.path[len(sys.path) - len(packages) :] = kernel.package_folders(packages)
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
    before = _own_limits()
    try:
        while True:
            message, fds, _, _ = socket.recv_fds(conn, MESSAGE_BYTES, MESSAGE_FDS)
            if not message:
                return
            result = _execute(json.loads(message), fds, place)
            conn.send(json.dumps(result | {"touched": _own_limits() != before}).encode())
    except OSError:  # nobody is left to answer to
        return


_KINDS = [getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")]


def _own_limits() -> list[tuple[int, int]]:
    return [resource.getrlimit(kind) for kind in _KINDS]


def _execute(request: dict[str, Any], fds: list[int], place: Place) -> dict[str, Any]:
    """Runs one program in an empty directory; returns wait status, why we killed it, and seconds of CPU time and of
    waiting for a CPU."""
    if place.level not in NAMESPACED:
        if os.path.lexists(place.cwd):
            remove_tree(place.cwd)
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
    begun, why, starved_s, cpu_s, meter = time.monotonic(), "", 0.0, 0.0, Consumption()
    deadline = begun + request["wall_s"]
    while not why:
        if poller.poll(max(min(deadline - time.monotonic(), GLANCE_S), 0) * 1000):
            break
        members = _members(place)
        if time.monotonic() >= deadline:  # time in which it wanted to run and was not let is not its own
            starved_s = max(map(_starved, members), default=0.0)
            deadline = begun + request["wall_s"] + min(starved_s, request["patience_s"])
        memory, cpu_s = meter.read(members, request["memory_bytes"])
        if time.monotonic() >= deadline or cpu_s > request["cpu_s"] + 1:
            why = "timeout"
        elif memory > request["memory_bytes"]:
            why = "memory"
        elif place.level not in NAMESPACED and _is_full(place.cwd):
            why = "output"
    os.close(pidfd)
    os.kill(pid, signal.SIGKILL)
    _, status, usage = os.wait4(pid, 0)
    return status, why, max(usage.ru_utime + usage.ru_stime, cpu_s), starved_s


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


class Consumption:
    """What a program and all that it started use, added up at glances."""

    def __init__(self) -> None:
        self._ticks: dict[tuple[int, int], int] = {}  # (process id, start) -> CPU time when it was last seen
        self._unseen_s = 0.0  # CPU time allowed for processes that began and ended between two glances
        self._glanced, self._cpu_s = time.monotonic(), 0.0
        self._last_pid, self._tasks = kernel.last_pid(), 0

    def read(self, pids: list[int], enough: int) -> tuple[int, float]:
        """Bytes of memory and seconds of CPU time.

        Memory is what the processes have beside files, what they share divided by the number of those who share it,
        and what their sockets may hold. Less than `enough` it may be more exactly.
        """
        resident, ticks, tasks = 0, 0, 0
        for pid in pids:
            found = _status(pid)
            if found is None:
                continue
            start, own, with_children, threads, pages = found
            self._ticks[pid, start] = own
            ticks += with_children
            tasks += threads
            resident += pages * _PAGE
        cpu_s = max(ticks, sum(self._ticks.values())) / _TICKS
        self._charge(cpu_s, tasks)
        memory = sum(map(_share, pids)) if resident > enough else resident
        return memory + SOCKET_BYTES * _sockets(pids), cpu_s + self._unseen_s

    def _charge(self, cpu_s: float, tasks: int) -> None:
        """Counts the time since the last glance as computed if there were processes in it that nobody has seen: those
        whose parent ignores its children leave their time to nobody."""
        now, last = time.monotonic(), kernel.last_pid()
        if last - self._last_pid > tasks - self._tasks:
            self._unseen_s += max(0.0, now - self._glanced - (cpu_s - self._cpu_s))
        self._glanced, self._cpu_s, self._last_pid, self._tasks = now, cpu_s, last, tasks


def _status(pid: int) -> tuple[int, int, int, int, int] | None:
    """Start, ticks of CPU time without and with its children's, threads and resident pages; None if it has ended."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    own, children = int(fields[11]) + int(fields[12]), int(fields[13]) + int(fields[14])
    return int(fields[19]), own, own + children, int(fields[17]), int(fields[21])


def _share(pid: int) -> int:
    """Bytes of memory of a process beside files, what it shares divided by the number of those who share it."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            kibibytes = {line.split()[0]: int(line.split()[1]) for line in file if line.startswith(b"Pss")}
        return (kibibytes[b"Pss:"] - kibibytes.get(b"Pss_File:", 0)) << 10
    except ProcessLookupError:
        return 0
    except (OSError, KeyError):  # it does not let itself be looked into
        found = _status(pid)
        return found[4] * _PAGE if found else 0


def _sockets(pids: list[int]) -> int:
    """How many sockets some processes have open, as many as they may where they do not let that be seen."""
    found, hidden = set(), 0
    for pid in pids:
        try:
            for fd in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(FileNotFoundError):
                    found.add(os.readlink(f"/proc/{pid}/fd/{fd}"))
        except (FileNotFoundError, ProcessLookupError):
            continue
        except OSError:
            hidden += 1
    return sum(name.startswith("socket:") for name in found) + hidden


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
        for entry in list(os.scandir(folder)):
            with contextlib.suppress(FileNotFoundError):  # another program on this machine removed its own
                if entry.stat(follow_symlinks=False).st_uid != uid:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    remove_tree(entry.path)
                else:
                    os.unlink(entry.path)


def remove_tree(path: str) -> None:
    """Removes a folder that may be deeper than a path can name, or closed: what is in it moves up first."""
    folders = [path]
    while folders:
        folder = folders.pop()
        os.chmod(folder, 0o700)
        for entry in list(os.scandir(folder)):
            if not entry.is_dir(follow_symlinks=False):
                os.unlink(entry.path)
                continue
            os.chmod(entry.path, 0o700)  # to be moved, it must be open to its owner
            folders.append(f"{path}-{secrets.token_hex(8)}")
            os.rename(entry.path, folders[-1])
        os.rmdir(folder)


def _is_full(folder: str) -> bool:
    """Whether files below a folder take more than TMP_BYTES, or are more than TMP_FILES."""
    size, files, levels = 0, 0, []
    try:
        levels.append((os.open(folder, os.O_RDONLY | os.O_DIRECTORY), [""]))
        while levels:
            here, names = levels[-1]
            if not names:
                os.close(levels.pop()[0])
                continue
            inner = os.open(names.pop() or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=here)
            if not names:  # nothing is left to do there
                os.close(levels.pop()[0])
            levels.append((inner, []))
            for entry in os.scandir(inner):
                files += 1
                size += entry.stat(follow_symlinks=False).st_blocks * 512
                if entry.is_dir(follow_symlinks=False):
                    levels[-1][1].append(entry.name)
                if size > kernel.TMP_BYTES or files > kernel.TMP_FILES or len(levels) > MAX_DEPTH:
                    return True
    except OSError:  # it changes while it is looked at, or is closed to us
        return False
    finally:
        for fd, _ in levels:
            os.close(fd)
    return False
