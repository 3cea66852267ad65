"""Worker processes. A step is prepared once, pickled to them, and called with one shard at a time."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import SpawnContext, SpawnProcess
from types import TracebackType
from typing import Any, TypeVar

from ringrl.config.sections import Verify
from ringrl.domains import Domains
from ringrl.errors import ChildDied
from ringrl.processes import die_with_parent, kill_tree
from ringrl.rewards import Verdict, VerifierPool

T = TypeVar("T")
A = TypeVar("A")

STALL_S = 6 * 3600.0  # longest wait for the next finished shard; even thousands of slow programs take less
STOP_S = 10.0  # longest wait for a killed process to end
_ABSENT = re.compile(r"^no verifier process|while starting\b")  # reasons that VerifierPool gives
AHEAD = 2  # shards submitted per process; an interrupt waits for them


class _TrackingContext(SpawnContext):
    """Starts processes and keeps track of them. Spawns, because a fork would copy the locks of our threads."""

    def __init__(self) -> None:
        self.started: list[SpawnProcess] = []

    def Process(self, *args: Any, **kwargs: Any) -> SpawnProcess:  # type: ignore[override]
        self.started.append(SpawnProcess(*args, **kwargs))
        return self.started[-1]


class Workers:
    """A pool of processes; leaving the `with` block kills them."""

    def __init__(self, processes: int) -> None:
        self.processes, self._context = processes, _TrackingContext()
        self._pool = ProcessPoolExecutor(processes, self._context, _begin, (os.getpid(),))

    def map(self, function: Callable[[A], T], items: Iterable[A]) -> Iterator[tuple[A, T]]:
        """Yields items with their results as they finish, in any order. `function` and items are pickled.

        Raises:
            ChildDied: a process ended (out of memory, say), or no shard was finished in STALL_S seconds.
            Whatever `function` raises.
        """
        waiting = iter(items)
        pending: dict[Future[T], A] = {}
        while True:
            for item in waiting:
                pending[self._pool.submit(function, item)] = item
                if len(pending) >= self.processes * AHEAD:
                    break
            if not pending:
                return
            done = wait(pending, STALL_S, FIRST_COMPLETED).done
            if not done:
                raise ChildDied(f"no shard was finished in {STALL_S:g} s by {self.processes} processes")
            for future in done:
                try:
                    yield pending.pop(future), future.result()
                except BrokenProcessPool:
                    raise ChildDied("a process that worked on a shard was killed; too little memory? Fewer `workers` "
                                    "or smaller `shard_rows` need less, --resume goes on") from None  # fmt: skip

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        for process in self._context.started:
            if process.pid:
                kill_tree(process.pid)
            process.join(STOP_S)


def judge(requests: Iterable[tuple[str, str, Mapping[str, object]]], verify: Verify, domains: Domains) -> list[Verdict]:
    """Verdicts on (domain, response, reference), in order; to be called in a worker process.

    Whatever takes too long or breaks the verifier gets a verdict of kind `error`.

    Raises:
        ChildDied: the verifier does not start, which must not look like a fault of the rows.
    """
    pool = verifier(verify.deadline_s, domains, verify.remote, verify.isolation)
    futures = [pool.submit(*request) for request in requests]
    verdicts = [f.result() for f in futures]
    if absent := next((v.reason for v in verdicts if v.kind == "error" and _ABSENT.search(v.reason)), ""):
        raise ChildDied(f"the verifier does not start: {absent}")
    return verdicts


@functools.cache
def verifier(deadline_s: float, domains: Domains, remote: str = "", isolation: str = "namespaces") -> VerifierPool:
    """The verifier pool of this process, one child per verifier file and key; it ends with the process."""
    return VerifierPool(1, deadline_s, domains, remote=remote, isolation=isolation)


def _begin(parent: int) -> None:
    die_with_parent(parent)
