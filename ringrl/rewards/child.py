"""One verifier process as its pool sees it, and the environment it gets."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ringrl import processes
from ringrl.domains import Reward
from ringrl.rewards.verdict import Verdict

START_S = 120.0  # until a child must be ready: importing Math-Verify takes seconds, more on a busy machine
STOP_S = 10.0  # until a killed child must be gone
MAX_FAILED_STARTS = 3  # in a row, after which a worker answers every item with the error
_BOOT = "import sys; sys.path.insert(0, {root!r}); from ringrl.rewards.worker import main; main({parent})"
_KEPT = re.compile(  # of our own environment: what programs need to run, and no secret
    r"PATH|HOME|USER|LOGNAME|SHELL|TERM|LANG|LANGUAGE|TZ|TMPDIR|VIRTUAL_ENV|CONDA_PREFIX|SSL_CERT_(FILE|DIR)|"
    r"(REQUESTS|CURL)_CA_BUNDLE|((https?|all|no)_proxy)|TOKENIZERS_PARALLELISM|"
    r"(LC|LD|OMP|MKL|KMP|OPENBLAS|NUMEXPR|HF|HUGGINGFACE|XDG|NVIDIA|ROCR|HIP)_.*|(PYTHON|CUDA|JAVA|RINGRL).*",
    re.IGNORECASE,
)
_SECRET = re.compile(r"TOKEN(?!IZERS)|KEY|SECRET|PASSWORD|PASSWD|CREDENTIAL", re.IGNORECASE)


def environment(key_variable: str = "") -> dict[str, str]:
    """What a verifier's process gets of ours: nothing that looks like a secret, but for that one variable."""
    kept = {k: v for k, v in os.environ.items() if _KEPT.fullmatch(k) and not _SECRET.search(k)}
    return kept | ({key_variable: os.environ[key_variable]} if key_variable in os.environ else {})


class VerifierChild:
    """A process that judges by some rewards, started again after it was lost. Used by one thread, with which it dies;
    `close` by any.

    Args:
        rewards: by what items call them; all with the same `key_variable`.
        code: further arguments of `verify_code`.
        warm_up: whether it gets ready for the first item, or is only to tell what it cannot use, within the deadline.
    """

    def __init__(
        self,
        rewards: Mapping[str, Reward],
        deadline_s: float,
        code: Mapping[str, str | bool],
        warm_up: bool = True,
    ) -> None:
        self.unusable: dict[str, str] = {}  # rewards that cannot be judged by, and why
        self.problem = ""  # of the last start
        self._setup = {
            "rewards": {name: dataclasses.asdict(reward) for name, reward in rewards.items()},
            "deadline_s": deadline_s,
            "code": dict(code),
            "warm_up": warm_up,
        }
        self._key_variable = next((r.key_variable for r in rewards.values()), "")
        self._deadline_s, self._start_s = deadline_s, START_S if warm_up else deadline_s
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False
        self._lock = threading.Lock()  # of `_process` and `_closed`
        self._failed_starts = 0  # in a row

    def start(self) -> None:
        """Brings the process up, or keeps the reason why it did not come up."""
        self.stop()
        try:
            self._spawn()
            setup = {**self._setup, "temporary": self._temporary.name}
            unusable, self.problem = self._exchange(setup, self._start_s, "starting")
            self.unusable = unusable or {}
        except OSError as error:  # out of processes, memory or disk
            self.problem = f"no verifier process: {error}"
        self._failed_starts = self._failed_starts + 1 if self.problem else 0

    def judge(self, reward: str, text: str, reference: Mapping[str, Any]) -> Verdict:
        """One verdict, whatever happens to the process."""
        self.revive()
        if self.problem:
            return Verdict("error", self.problem)
        item = {"reward": reward, "text": text, "reference": reference}
        answer, problem = self._exchange(item, self._deadline_s, "verifying")
        if problem:
            return Verdict("error", problem)
        kind, reason, tests, score, worn = answer
        if worn:  # a verifier has changed the process for good
            self.stop()
        return Verdict(kind, reason, tuple(tests), score)

    def revive(self) -> None:
        """Brings a process that is gone up again, unless that failed too often."""
        if (self._process is None or self._process.poll() is not None) and self._failed_starts < MAX_FAILED_STARTS:
            self.start()

    def stop(self) -> None:
        """Ends the process, everything it started, and its temporary directory."""
        with self._lock:
            process, self._process = self._process, None
        if process is None:
            return
        self._conn.close()
        process.terminate()  # its guard ends what is below it
        try:
            process.wait(timeout=STOP_S)
        except subprocess.TimeoutExpired:
            processes.kill_tree(process.pid)
        self._temporary.cleanup()

    def close(self) -> None:
        """Ends the process for good; its own thread finds out."""
        with self._lock:
            self._closed = True
            if self._process is not None:
                self._process.terminate()

    def _spawn(self) -> None:
        with self._lock:
            if self._closed:
                raise OSError("the verifier pool is closed")
            self._temporary = tempfile.TemporaryDirectory(prefix="ringrl-verifier-", ignore_cleanup_errors=True)
            self._conn, theirs = socket.socketpair()
            boot = _BOOT.format(root=str(Path(__file__).parents[2]), parent=os.getpid())
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-c", boot],
                    stdin=theirs.fileno(),
                    env=environment(self._key_variable),
                    start_new_session=True,
                )

    def _exchange(self, message: dict[str, Any], timeout_s: float, doing: str) -> tuple[Any, str]:
        """The answer to a message, and what went wrong; a process that failed is stopped."""
        assert self._process is not None
        try:
            processes.send(self._conn, message, timeout_s)
            return processes.receive(self._conn, timeout_s), ""
        except TimeoutError:
            problem = f"deadline of {timeout_s:g} s passed while {doing}"
        except (EOFError, OSError):
            problem = f"verifier process died while {doing}{self._how_it_ended()}"
        except Exception as error:  # a bug of ours, or a reference JSON cannot carry: the thread lives on
            problem = f"{type(error).__name__}: {error}"
        self.stop()
        return None, problem

    def _how_it_ended(self) -> str:
        assert self._process is not None
        try:
            status = self._process.wait(timeout=STOP_S)
        except subprocess.TimeoutExpired:
            return ""
        number = status - 128 if status > 128 else -status
        return f", {signal.Signals(number).name}" if number in signal.valid_signals() else f", exit status {status}"
