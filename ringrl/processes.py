"""Helpers for parent and child processes: dying together, messages, free ports."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import sys
from collections.abc import Iterable
from typing import Any


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


def descendants(pid: int) -> list[int]:
    """Process ids of everything below `pid`, parents before children."""
    children: dict[int, list[int]] = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                parent = int(file.read().rpartition(b")")[2].split()[1])
        except (OSError, IndexError):  # the process has ended
            continue
        children.setdefault(parent, []).append(int(name))
    pids = children.get(pid, [])
    for child in pids:  # the list grows during the loop
        pids += children.get(child, [])
    return pids


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
