"""Chat templates come with a model, from strangers. They are rendered in a process of its own, with limits.

The sandbox that transformers renders them in keeps them from Python's objects, but not from loops without end or
texts without limit. Templates of ours are rendered here.
"""

from __future__ import annotations

import functools
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from ringrl.errors import DataError
from ringrl.processes import receive, send

TEMPLATES = Path(__file__).parent / "templates"  # NAME.jinja
RENDER_S = 10  # for the renderings of one turn
START_S = 600.0  # for transformers to be imported on a busy machine
MEMORY = 4 << 30  # bytes of address space
MAX_CHARACTERS = 64 << 20  # of a rendered conversation
KEPT = {"PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "HOME", "TMPDIR", "TZ", "LANG"}  # of the environment: no secret
_BOOT = "import sys; sys.path.insert(0, {root!r}); from ringrl.data.render import serve; serve({limit})"


def render(request: dict[str, Any]) -> list[str]:
    """Conversations rendered.

    Args:
        request: arguments of transformers' `render_jinja_template`.

    Raises:
        DataError: the template refuses one of the conversations, fails, or is over a limit.
    """
    ours = request["chat_template"] in _ours()
    answer = _rendered(request) if ours else _child(RENDER_S).ask(request)
    if "error" in answer:
        raise DataError(answer["error"])
    return list(answer["texts"])


@functools.cache
def _ours() -> frozenset[str]:
    return frozenset(file.read_text(encoding="utf-8") for file in TEMPLATES.glob("*.jinja"))


@functools.cache
def _child(limit: int) -> _Child:
    return _Child(limit)


class _Child:
    """The process that renders, started at the first request and after one that it did not survive."""

    def __init__(self, limit: int) -> None:
        self.limit, self.lock = limit, threading.Lock()
        self.process: subprocess.Popen[bytes] | None = None

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        with self.lock:
            try:
                if self.process is None:
                    self._start()
                send(self.conn, request, START_S)
                return receive(self.conn, self.limit + START_S)  # the process itself keeps the limit
            except (EOFError, OSError):
                return {"error": f"the chat template {self._end()}"}

    def _start(self) -> None:
        self.conn, theirs = socket.socketpair()
        boot = _BOOT.format(root=str(Path(__file__).parents[2]), limit=self.limit)
        environment = {k: v for k, v in os.environ.items() if k in KEPT}
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-c", boot], stdin=theirs.fileno(), env=environment, start_new_session=True
            )
        receive(self.conn, START_S)

    def _end(self) -> str:
        """How the process ended, or was ended."""
        self.conn.close()
        if self.process is None:
            return "was not rendered: no process could be started"
        self.process.kill()
        status, self.process = self.process.wait(), None
        if status == -signal.SIGALRM:
            return f"did not end within {self.limit} s"
        return f"ended the process that renders it, with {status}"


def serve(limit: int) -> None:
    """Renders what the socket on file descriptor 0 asks for, until it is closed; ended by a signal at a limit."""
    import resource

    from transformers.utils import chat_template_utils  # noqa: F401  (before memory is limited and time counts)

    conn = socket.socket(fileno=os.dup(0))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    send(conn, "ready", START_S)
    while True:
        try:
            request = receive(conn, None)
        except (EOFError, OSError):
            return
        signal.alarm(limit)  # its default action needs no turn of the interpreter
        answer = _rendered(request)
        signal.alarm(0)
        send(conn, answer, START_S)


def _rendered(request: dict[str, Any]) -> dict[str, Any]:
    """{"texts"}, or {"error"}."""
    from jinja2 import TemplateError
    from transformers.utils.chat_template_utils import render_jinja_template

    try:
        texts: Any = render_jinja_template(**request)[0]
    except MemoryError:
        return {"error": f"the chat template needs more than {MEMORY >> 30} GiB"}
    except Exception as e:  # a template can raise anything, and what it says is all that can be known
        kind = "" if isinstance(e, TemplateError) else f"{type(e).__name__}: "
        return {"error": f"the chat template refuses the conversation: {kind}{' '.join(str(e).split())}"}
    if (longest := max(map(len, texts))) > MAX_CHARACTERS:
        return {"error": f"the chat template made {longest} characters, expected at most {MAX_CHARACTERS}"}
    return {"texts": texts}
