"""One child process of `VerifierPool`: reads a response, answers a verdict, until its parent is gone."""

from __future__ import annotations

import functools
import os
import resource
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

from ringrl import processes
from ringrl.rewards.answers import Verdict, load_math_verify, verify_math, verify_science
from ringrl.rewards.code import verify_code, warm_up
from ringrl.rewards.livecodebench import unpacked

Verifier = Callable[[str, Mapping[str, object]], Verdict]
VERIFIERS: dict[str, Verifier] = {
    "math": verify_math,
    "science": verify_science,
    "code": verify_code,
}
MEMORY_BYTES = 4 << 30  # a number with a billion digits must end here and not with the machine
CODE_SHARE = 0.85  # of the deadline: a slow program is the response's fault and must not look like ours


def main(parent: int, temporary: str, deadline_s: float, **code: Any) -> None:
    """Serves items from the socket on file descriptor 0; says `ready` once its imports are done."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    processes.die_with_parent(parent)
    tempfile.tempdir = temporary
    conn = socket.socket(fileno=os.dup(0))
    with open(os.devnull) as null:
        os.dup2(null.fileno(), 0)
    os.dup2(2, 1)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))
    load_math_verify()
    if not code.get("remote"):
        warm_up()
    judge_code = functools.partial(verify_code, total_s=CODE_SHARE * deadline_s, **code)
    verifiers: dict[str, Verifier] = {**VERIFIERS, "code": judge_code}
    try:
        processes.send(conn, "ready", deadline_s)
        while True:
            item = processes.receive(conn, None)
            try:
                verdict = verifiers[item["domain"]](item["text"], unpacked(item["reference"]))
            except Exception as error:  # a verifier's bug is an error that is counted, never a lost process or a zero
                verdict = Verdict("error", f"{type(error).__name__}: {error}"[:500])
            processes.send(conn, [verdict.kind, verdict.reason, verdict.tests], deadline_s)
    except (EOFError, OSError):  # the pool is gone
        sys.exit(0)
