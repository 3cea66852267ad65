"""A verifier process, seen from its pool, and the environment it gets."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from ringrl import processes
from ringrl.domains import Reward
from ringrl.rewards.verdict import Verdict
from ringrl.safe_text import printable

START_S = 120.0  # deadline for starting; importing a user's libraries takes seconds, more on a busy machine
STOP_S = 10.0  # longest wait for a killed child to end
MAX_FAILED_STARTS = 3  # after so many in a row every item gets the error as its verdict
_BOOT = "import sys; sys.path.insert(0, {root!r}); from ringrl.rewards.worker import main; main({parent})"
_KEPT = re.compile(  # environment variables that programs need to run
    r"PATH|HOME|USER|LOGNAME|SHELL|TERM|LANG|LANGUAGE|TZ|TMPDIR|VIRTUAL_ENV|CONDA_PREFIX|SSL_CERT_(FILE|DIR)|"
    r"(REQUESTS|CURL)_CA_BUNDLE|((https?|all|no)_proxy)|TOKENIZERS_PARALLELISM|"
    r"(LC|LD|OMP|MKL|KMP|OPENBLAS|NUMEXPR|HF|HUGGINGFACE|XDG|NVIDIA|ROCR|HIP)_.*|(PYTHON|CUDA|JAVA|RINGRL).*",
    re.IGNORECASE,
)
_SECRET = re.compile(r"TOKEN(?!IZERS)|KEY|SECRET|PASSWORD|PASSWD|CREDENTIAL", re.IGNORECASE)


def environment(key_variable: str = "") -> dict[str, str]:
    """The environment of a verifier process: no variable that looks like a secret, except `key_variable`."""
    kept = {k: v for k, v in os.environ.items() if _KEPT.fullmatch(k) and not _SECRET.search(k)}
    return kept | ({key_variable: os.environ[key_variable]} if key_variable in os.environ else {})


def _show(lines: IO[bytes]) -> None:
    """What a verifier prints, which may be a response, on the terminal."""
    with lines:
        for line in lines:
            sys.stderr.write(printable(line.decode(errors="replace"), lines=True))


class VerifierChild:
    """A process that judges, restarted after a crash; verifiers are loaded on first use. Used by one thread, with
    which it dies; any thread may call `close`.

    Args:
        key_variable: a secret environment variable that it may see; "" for none.
        code: further arguments of `verify_code`.
        start_s: deadline for starting, and for loading a verifier.
    """

    def __init__(
        self, key_variable: str, deadline_s: float, code: Mapping[str, str | bool], start_s: float = START_S
    ) -> None:
        self._key_variable, self._deadline_s, self._start_s = key_variable, deadline_s, start_s
        self._code = dict(code)
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False
        self._lock = threading.Lock()  # guards `_process` and `_closed`
        self._failed_starts = 0  # consecutive ones
        self._problem = ""  # why the last start failed, or ""
        self._known: dict[str, Reward] = {}  # every reward it was asked for, by name
        self._loaded: dict[str, str] = {}  # name -> why this process cannot use it, or ""
        self._lost: dict[str, list[str]] = {}  # name -> how loading it killed a process, each time

    def start(self) -> None:
        """Starts the process, or records why it did not start."""
        self.stop()
        try:
            self._spawn()
            setup = {"temporary": str(self._scratch.path), "deadline_s": self._deadline_s, "code": self._code}
            self._problem = self._exchange(setup, self._start_s, "starting")[1]
        except OSError as error:  # out of processes, memory or disk
            self._problem = f"no verifier process: {error}"
        self._failed_starts = self._failed_starts + 1 if self._problem else 0

    def load(self, name: str, reward: Reward) -> str:
        """Loads a reward. Returns why it cannot be used, or ""."""
        self._known[name] = reward
        if name in self._loaded:
            return self._loaded[name]
        lost = self._lost.setdefault(name, [])
        if len(lost) == MAX_FAILED_STARTS:
            return lost[-1]
        if self._process is None:
            return self._problem or "no verifier process: it was lost with another verifier"
        question = {"load": name, "reward": dataclasses.asdict(reward)}
        fault, problem = self._exchange(question, self._start_s, f"starting {reward.verifier}")
        if problem:
            lost.append(problem)
            return problem
        self._loaded[name] = fault
        return str(fault)

    def judge(self, name: str, reward: Reward, text: str, reference: Mapping[str, Any]) -> Verdict:
        """One verdict, whatever happens to the process."""
        for _ in range(2):  # a process that is lost before it has seen the response says nothing of it
            self.revive()
            problem = self._problem or self.load(name, reward)
            if not problem or self._process is not None:
                break
        if problem:
            return Verdict("error", problem)
        question, began = {"judge": name, "text": text, "reference": reference}, time.perf_counter()
        answer, problem = self._exchange(question, self._deadline_s, "verifying")
        seconds = time.perf_counter() - began
        if problem:
            return Verdict("error", problem, seconds=seconds)
        kind, reason, tests, score, worn = answer
        if worn:  # a verifier changed the process in a way that cannot be undone
            self.stop()
        return Verdict(kind, reason, tuple(tests), score, seconds=seconds)

    def revive(self) -> None:
        """Restarts a dead process and reloads its rewards, unless starting failed too often."""
        if (self._process is None or self._process.poll() is not None) and self._failed_starts < MAX_FAILED_STARTS:
            self.start()
            for name, reward in self._known.items():
                if not self._lost[name]:
                    self.load(name, reward)

    def stop(self) -> None:
        """Ends the process, everything it started, and its temporary directory."""
        with self._lock:
            process, self._process = self._process, None
        self._loaded.clear()
        if process is None:
            return
        self._conn.close()
        process.terminate()  # its guard kills everything below it
        try:
            process.wait(timeout=STOP_S)
        except subprocess.TimeoutExpired:
            processes.kill_tree(process.pid)
        self._scratch.close()

    def close(self) -> None:
        """Ends the process for good; the thread that uses it notices and cleans up."""
        with self._lock:
            self._closed = True
            if self._process is not None:
                self._process.terminate()

    def _spawn(self) -> None:
        with self._lock:
            if self._closed:
                raise OSError("the verifier pool is closed")
            self._scratch = processes.Scratch("verifier")
            self._conn, child_end = socket.socketpair()
            boot = _BOOT.format(root=str(Path(__file__).parents[2]), parent=os.getpid())
            with child_end:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-c", boot],
                    stdin=child_end.fileno(),
                    stderr=subprocess.PIPE if os.isatty(2) else None,  # its standard output goes there, too
                    env=environment(self._key_variable),
                    start_new_session=True,
                )
            if self._process.stderr:
                threading.Thread(target=_show, args=(self._process.stderr,), daemon=True).start()

    def _exchange(self, message: dict[str, Any], timeout_s: float, doing: str) -> tuple[Any, str]:
        """(answer, problem) of a message; a process that failed is stopped."""
        assert self._process is not None
        try:
            processes.send(self._conn, message, timeout_s)
            return processes.receive(self._conn, timeout_s), ""
        except TimeoutError:
            problem = f"deadline of {timeout_s:g} s passed while {doing}"
        except (EOFError, OSError):
            problem = f"verifier process died while {doing}{self._how_it_ended()}"
        except Exception as error:  # a bug of ours, or a reference that is not JSON; the thread must survive
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
