"""A child process of `VerifierPool`: reads responses and answers with verdicts until its parent ends.

There are two processes: a guard, and the judge below it. Whatever a verifier starts, however it detaches itself, stays
below the guard, which kills all of it when the judge ends or the pool asks for it.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import resource
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Awaitable, Mapping
from typing import Any

from ringrl import processes
from ringrl.domains import Reward
from ringrl.rewards.load import Unusable, Verifier, explain, load, source_of
from ringrl.rewards.verdict import Verdict, verdict_of
from ringrl.sandbox.kernel import be_subreaper

MEMORY_BYTES = 4 << 30  # a number with a billion digits must not exhaust the machine
CODE_SHARE = 0.85  # share of the deadline for programs: a slow one must be a fail, not our error
KILL_S = 5.0  # longest wait for killed processes to end
_LIMITS = [getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")]


def main(parent: int) -> None:
    """Loads verifiers and judges responses, as the socket on file descriptor 0 says."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _stand_guard(parent)
    conn = socket.socket(fileno=os.dup(0))
    with open(os.devnull) as null:
        os.dup2(null.fileno(), 0)
    os.dup2(2, 1)
    sys.stdout = open(1, "w", buffering=1, closefd=False)  # line-buffered: what a verifier prints is logged at once
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))
    try:
        _serve(conn)
    except (EOFError, OSError):  # the pool is gone
        os._exit(0)


def _serve(conn: socket.socket) -> None:
    setup = processes.receive(conn, None)
    tempfile.tempdir = setup["temporary"]
    deadline_s: float = setup["deadline_s"]
    given = {"total_s": CODE_SHARE * deadline_s, **setup["code"]}
    verifiers: dict[str, tuple[Verifier, str]] = {}  # name -> verifier, the user's file or module
    me, usual = os.getpid(), _Surroundings()
    answer: Any = "ready"
    with asyncio.Runner() as runner:
        while True:
            if os.getpid() != me:  # a forked child of the verifier returned: only one may answer
                os._exit(0)
            processes.send(conn, answer, deadline_s)
            question = processes.receive(conn, None)
            if "load" in question:
                reward = Reward(**question["reward"])
                try:
                    verifiers[question["load"]] = load(reward, given), source_of(reward.verifier)
                    _warm_up(reward.verifier, bool(setup["code"].get("remote")))
                    answer = ""
                except Unusable as error:
                    answer = f"{reward.verifier}: {error}"
                usual.note()
            else:
                verify, source = verifiers[question["judge"]]
                verdict = _judge(verify, question["text"], question["reference"], source, runner)
                worn = bool(source) and os.getpid() == me and not usual.restore()
                answer = [verdict.kind, str(verdict.reason)[:500], list(map(str, verdict.tests)), verdict.score, worn]


def _judge(verify: Verifier, text: str, row: Mapping[str, Any], source: str, runner: asyncio.Runner) -> Verdict:
    """Runs a verifier; its bug is an error verdict, never a lost process or a zero."""
    try:
        result = verify(text, row)
        if inspect.isawaitable(result):
            result = runner.run(_awaited(result))
        return verdict_of(result)
    except BaseException as error:  # including SystemExit
        return Verdict("error", explain(error, source)[:500])


async def _awaited(result: Awaitable[Any]) -> Any:
    return await result


def _warm_up(verifier: str, remote: bool) -> None:
    """Does slow one-time work before the clock of a response runs."""
    if verifier in ("math", "science"):
        from ringrl.rewards.answers import check_answer

        check_answer({"answer": r"\sqrt{3}"})
    if verifier == "code" and not remote:
        from ringrl.rewards.code import warm_up

        warm_up()


class _Surroundings:
    """Process state that a verifier may change and that must be restored for the next one."""

    def __init__(self) -> None:
        self._nothing, self._error = os.open(os.devnull, os.O_RDONLY), os.dup(2)
        self.note()

    def note(self) -> None:
        """Records the current state as the one to restore."""
        self._folder = os.getcwd()
        self._handlers = {s: h for s in signal.valid_signals() if (h := signal.getsignal(s)) is not None}
        self._limits = {which: resource.getrlimit(which) for which in _LIMITS}

    def restore(self) -> bool:
        """Restores the recorded state; False if some of it cannot be."""
        try:
            signal.setitimer(signal.ITIMER_REAL, 0)
            for number, handler in self._handlers.items():
                if signal.getsignal(number) is not handler:
                    signal.signal(number, handler)
            for which, limit in self._limits.items():
                if resource.getrlimit(which) != limit:
                    resource.setrlimit(which, limit)
            for copy, fd in ((self._nothing, 0), (self._error, 1), (self._error, 2)):
                os.dup2(copy, fd)
            for name, fd in (("stdout", 1), ("stderr", 2)):
                if getattr(getattr(sys, name), "closed", True):
                    setattr(sys, name, open(fd, "w", buffering=1, closefd=False))
            os.chdir(self._folder)
        except (OSError, ValueError):
            return False
        return True


# ---- the guard ---------------------------------------------------------------------------------------------


def _stand_guard(parent: int) -> None:
    """Forks and returns in the child, which judges. The parent ends everything below it when that child ends, when it
    gets SIGTERM, or when `parent` dies; its exit status is the child's, 128 and the signal that killed it."""
    be_subreaper()
    signal.signal(signal.SIGTERM, lambda *_: _end(128 + signal.SIGTERM))
    processes.die_with_parent(parent, signal.SIGTERM)
    guard = os.getpid()
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        processes.die_with_parent(guard)
        os.setsid()
        return
    os.close(0)  # the pool sees the end of the socket when the child's side is closed
    while True:
        ended, status = os.wait()
        if ended == child:
            code = os.waitstatus_to_exitcode(status)
            _end(code if code >= 0 else 128 - code)


def _end(status: int) -> None:
    """Kills everything below this process, repeatedly in case more is started, then exits."""
    give_up = time.monotonic() + KILL_S
    while (left := processes.descendants(os.getpid())) and time.monotonic() < give_up:
        processes.kill_all(left)
        while _reaped():
            pass
        time.sleep(0.001)
    os._exit(status)


def _reaped() -> bool:
    try:
        return os.waitpid(-1, os.WNOHANG)[0] > 0
    except ChildProcessError:
        return False
