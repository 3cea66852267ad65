"""Helpers for parent and child processes: dying together, locks, temporary folders, messages, free ports."""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

BEAT_S = 1.0


def die_with_parent(parent: int, how: signal.Signals = signal.SIGKILL) -> None:
    """Ask the kernel to send this process a signal when its parent, process id `parent`, dies for any reason (Linux).

    Strictly, when the thread that started it ends. Call it before any slow import, and again after a change of user,
    which clears the setting.
    """
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, how)
        if os.getppid() != parent:  # the parent died before the call
            os.kill(os.getpid(), how)


def die_together() -> None:
    """When this process, which leads a process group, ends for any reason, the kernel ends all others of the group
    through a process that this call forks (Linux). Call it before any thread is started."""
    leader = os.getpid()
    if sys.platform == "linux" and os.fork() == 0:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # whoever ends the group lets us do it, too
        die_with_parent(leader, signal.SIGUSR1)
        while signal.sigwait(signal.valid_signals()) != signal.SIGUSR1:
            pass
        os.killpg(leader, signal.SIGKILL)


def locked(path: Path, flags: int = os.O_RDONLY) -> int | None:
    """A file descriptor that holds the only lock on a file or folder, None if somebody else holds it.

    The kernel lets go of the lock when the last process that has the descriptor ends, however it ends. Children get
    the descriptor only by `pass_fds`.

    Raises:
        OSError: no such file, or a file system without locks.
    """
    while True:
        fd = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(fd), os.stat(path)):
                return fd
        except BlockingIOError:
            os.close(fd)
            return None
        except FileNotFoundError:  # removed, and perhaps made again, before we had the lock: try once more
            pass
        except OSError:
            os.close(fd)
            raise
        os.close(fd)


class Scratch:
    """A temporary folder that never outlives its owner for long: `close` removes it, and after a kill the next process
    that makes one of the same kind in the same place does.

    Its owner holds a lock on it, not a name with a process id in it, which would mean another process elsewhere where
    containers share the place.
    """

    def __init__(self, kind: str, parent: str = "") -> None:
        parent = parent or tempfile.gettempdir()
        for left in Path(parent).glob(f"ringrl.{kind}.*"):
            _remove_abandoned(left)
        self.fd = None
        while self.fd is None:  # another process may take a folder for abandoned before it is locked
            self.path = Path(tempfile.mkdtemp(prefix=f"ringrl.{kind}.", dir=parent))
            with suppress(FileNotFoundError):
                self.fd = locked(self.path)

    def close(self) -> None:
        if self.fd is not None:
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(self.fd)
            self.fd = None


def _remove_abandoned(folder: Path) -> None:
    try:
        fd = locked(folder)
    except OSError:  # gone by now, or another user's
        return
    if fd is not None:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(fd)


def descendants(pid: int) -> list[int]:
    """Process ids of everything below `pid`, parents before children."""
    children: dict[int, list[int]] = {}
    for child, (_, parent, _) in _processes():
        children.setdefault(int(parent), []).append(child)
    pids = children.get(pid, [])
    for child in pids:  # the list grows during the loop
        pids += children.get(child, [])
    return pids


def group_members(groups: Collection[int]) -> list[int]:
    """Process ids of all that still run in these process groups."""
    return [pid for pid, (state, _, group) in _processes() if int(group) in groups and state not in ("Z", "X")]


def _processes() -> Iterator[tuple[int, list[str]]]:
    """Of all processes of this machine: process id; the kernel's letter of their state, parent, process group."""
    for name in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):  # the process has ended
            fields = Path(f"/proc/{name}/stat").read_bytes().rpartition(b")")[2].decode().split()
            if fields:
                yield int(name), fields[:3]


def live(file: Path) -> None:
    """From now on a thread touches this file every BEAT_S, as long as there is its folder."""

    def beat() -> None:
        with suppress(OSError):
            while True:
                file.touch()
                time.sleep(BEAT_S)

    threading.Thread(target=beat, daemon=True).start()


def silence(file: Path) -> float:
    """For how many seconds a process that `live`s gives no sign of life, 0 before its first."""
    return time.time() - file.stat().st_mtime if file.is_file() else 0.0


def state_of(pid: int) -> str:
    """The kernel's letter: T for a process that was stopped, "" for one that has ended."""
    try:
        state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0].decode()
    except (OSError, IndexError):
        return ""
    return "" if state in "ZX" else state


def kill_tree(pid: int) -> None:
    """Kills a process, everything below it, and their process groups."""
    kill_all([pid, *descendants(pid)])


def kill_all(pids: Iterable[int]) -> None:
    """Kills these processes and the groups they lead."""
    for victim in pids:
        for kill in (os.killpg, os.kill):
            try:
                kill(victim, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):  # leads no group, has ended, or its id was reused
                pass


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


def free_port() -> int:
    """A TCP port that the system will not assign to anyone else for a minute, unless requested by number.

    A closed connection in TIME_WAIT reserves it.
    """
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            server.accept()[0].close()  # the side that closes first stays in TIME_WAIT
        return port
