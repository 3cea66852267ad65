"""One child process of `VerifierPool`: reads a response, answers a verdict, until its parent is gone."""

from __future__ import annotations

import functools
import os
import resource
import signal
import socket
import sys
import tempfile

from ringrl.rewards import _host
from ringrl.rewards.code import TOTAL_S, verify_code
from ringrl.rewards.math import load_math_verify
from ringrl.rewards.verdict import Verdict
from ringrl.rewards.verifiers import VERIFIERS

MEMORY_BYTES = 4 << 30  # a number with a billion digits must end here and not with the machine
CODE_SHARE = 0.75  # of the deadline: a slow program is the response's fault and must not look like ours


def _judge(item: dict, deadline_s: float) -> Verdict:
    verifiers = {
        **VERIFIERS,
        "code": functools.partial(verify_code, total_s=min(TOTAL_S, CODE_SHARE * deadline_s)),
    }
    try:
        return verifiers[item["domain"]](item["text"], item["reference"])
    except Exception as error:  # a verifier's bug is an error that is counted, never a lost process or a zero
        return Verdict("error", f"{type(error).__name__}: {error}"[:500])


def _preload() -> None:
    try:
        load_math_verify()
    except ImportError:  # the items that need it will say so
        pass


def main(parent: int, temporary: str, deadline_s: float) -> None:
    """Serves items from the socket on file descriptor 0; says `ready` once its imports are done."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _host.die_with_parent(parent)
    tempfile.tempdir = temporary
    conn = socket.socket(fileno=os.dup(0))
    with open(os.devnull) as null:
        os.dup2(null.fileno(), 0)
    os.dup2(2, 1)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))
    _preload()
    try:
        _host.send(conn, "ready", deadline_s)
        while True:
            verdict = _judge(_host.receive(conn, None), deadline_s)
            _host.send(conn, [verdict.kind, verdict.reason], deadline_s)
    except (EOFError, OSError):  # the pool is gone
        sys.exit(0)
