"""Verifiers in killable child processes: any answer may hang or crash its verifier.

Invariants: every submitted item gets exactly one verdict; an item that outlives its deadline costs its child
process and nothing else; a failure on our side is a verdict of kind `error`; closing leaves no process and no
file; the verifiers of a user's file never share processes with others.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

from ringrl.domains import BUILT_IN, Domain, Reward
from ringrl.errors import ConfigError
from ringrl.rewards.child import STOP_S, VerifierChild
from ringrl.rewards.load import VERIFIERS, Unusable, load, source_of
from ringrl.rewards.verdict import Verdict, combined
from ringrl.sandbox.box import at_least

SERVED = ("url", "judge")  # verifiers that ask a server; they run in threads of this process
LEAST = "namespaces"  # isolation of programs, unless less is asked for
CHECK_S = 60.0  # deadline for loading a user's verifiers
_Crew = tuple[str, str, str]  # key of rewards that share processes; see `_crew_of`


class VerifierPool:
    """`workers` child processes that judge responses, each reward of one within `deadline_s` seconds.

    The clock of an item starts when a child that has loaded its verifier takes it. Programs get 85 % of the deadline,
    so that an endless one fails by itself; what reaches the deadline is an `error`. Children are started for what is
    submitted: a user's file, and every `key_variable`, has `workers` of its own. Leaving the `with` block kills them
    and cancels what is still queued: collect the results before.

    Args:
        code: `remote` and `every` of `verify_code`, and `isolation`, the least that programs are run with here.
    """

    def __init__(
        self, workers: int, deadline_s: float, domains: Mapping[str, Domain] = BUILT_IN, **code: str | bool
    ) -> None:
        assert min(workers, deadline_s) > 0, (workers, deadline_s)
        self._workers, self._deadline_s, self._domains, self._code = workers, deadline_s, domains, code
        self._closed = False
        self._lock = threading.Lock()  # guards the attributes below
        self._queues: dict[_Crew, queue.SimpleQueue[_Item | None]] = {}
        self._children: list[VerifierChild] = []
        self._threads: list[threading.Thread] = []

    def submit(self, domain: str, text: str, reference: Mapping[str, object]) -> Future[Verdict]:
        """Queues one response; `reference` must be plain data (what JSON can carry).

        Raises:
            ValueError: the domain is unknown.
            RuntimeError: the pool is closed.
            ConfigError: the variable of a key is not set, a verifier that asks a server has wrong options, or programs
            are isolated less than asked for.
        """
        if domain not in self._domains:
            raise ValueError(f"unknown domain {domain!r}; known: {', '.join(self._domains)}")
        case = _Case(self._domains[domain])
        queues = [self._queue(case.domain, reward) for reward in case.domain.rewards]
        for items, reward in zip(queues, case.domain.rewards, strict=True):
            items.put(_Item(case, reward, text, dict(reference)))
        return case.future

    def close(self) -> None:
        """Kills the children and waits for them; a second call does nothing."""
        with self._lock:
            self._closed = True
        for child in self._children:
            child.close()  # its thread notices and cleans up
        for items in self._queues.values():
            for _ in self._threads:
                items.put(None)
        for thread in self._threads:
            thread.join(timeout=2 * STOP_S)

    def _queue(self, domain: Domain, reward: Reward) -> queue.SimpleQueue[_Item | None]:
        """The queue of the workers for this reward, started on first use."""
        with self._lock:
            if self._closed:
                raise RuntimeError("the verifier pool is closed")
            if reward.verifier == "code" and not self._code.get("remote"):
                at_least(str(self._code.get("isolation", LEAST)))
            crew = _crew_of(domain, reward)
            if crew not in self._queues:
                _check_key(domain, reward)
                items: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
                if reward.verifier in SERVED:
                    served = _load(domain, reward, self._deadline_s)
                    threads = [_thread(self._ask, items, served) for _ in range(served.concurrent)]
                else:
                    children = [
                        VerifierChild(reward.key_variable, self._deadline_s, self._code) for _ in range(self._workers)
                    ]
                    threads = [_thread(self._serve, items, child) for child in children]
                    self._children += children
                self._threads += threads
                self._queues[crew] = items
                for thread in threads:
                    thread.start()
            return self._queues[crew]

    def __enter__(self) -> VerifierPool:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _serve(self, items: queue.SimpleQueue[_Item | None], child: VerifierChild) -> None:
        """Body of a worker thread: hands its child one item after the other."""
        child.start()
        while (item := items.get()) is not None:
            if self._wanted(item):
                item.case.settle(item.reward.name, child.judge(item.name, item.reward, item.text, item.reference))
            child.revive()  # restarts now, so that the next item does not wait for it
        child.stop()

    def _ask(self, items: queue.SimpleQueue[_Item | None], served: Any) -> None:
        """Body of a thread that asks a server: puts a fair share of the queued items in each request."""
        while (item := items.get()) is not None:
            fair = min(served.batch, 1 + items.qsize() // served.concurrent)
            batch = [i for i in (item, *_waiting(items, fair - 1)) if self._wanted(i)]
            if self._closed:
                verdicts = [Verdict("error", "the verifier pool is closed")] * len(batch)
            else:
                verdicts = _all_judged(served, batch)
            for i, verdict in zip(batch, verdicts, strict=True):
                i.case.settle(i.reward.name, verdict)

    def _wanted(self, item: _Item) -> bool:
        if self._closed:
            item.case.future.cancel()
        return item.case.begin()


class _Case:
    """A response being judged; the verdicts on its rewards arrive from several threads."""

    def __init__(self, domain: Domain) -> None:
        self.domain = domain
        self.future: Future[Verdict] = Future()
        self._verdicts: dict[str, Verdict] = {}  # reward name -> verdict
        self._begun = self._wanted = False
        self._lock = threading.Lock()

    def begin(self) -> bool:
        """False if it was cancelled; it cannot be cancelled after this call."""
        with self._lock:
            if not self._begun:
                self._begun, self._wanted = True, self.future.set_running_or_notify_cancel()
            return self._wanted

    def settle(self, reward: str, verdict: Verdict) -> None:
        with self._lock:
            self._verdicts[reward] = verdict
            last = len(self._verdicts) == len(self.domain.rewards)
        if last:
            seconds = sum(v.seconds for v in self._verdicts.values())
            self.future.set_result(replace(combined(self.domain, self._verdicts), seconds=seconds))


@dataclass(frozen=True, slots=True)
class _Item:
    """A response to be judged by one reward."""

    case: _Case
    reward: Reward
    text: str
    reference: dict[str, Any]

    @property
    def name(self) -> str:
        return f"{self.case.domain.name}/{self.reward.name}"


def check_verifiers(domains: Mapping[str, Domain], deadline_s: float = CHECK_S) -> None:
    """Loads the verifiers of these domains as a pool would, a user's in short-lived processes.

    Raises:
        ConfigError: one cannot be loaded, does not take its options, or needs a key that is not there.
    """
    children: dict[_Crew, VerifierChild] = {}
    try:
        for domain in domains.values():
            for reward in domain.rewards:
                _check_key(domain, reward)
                if reward.verifier in VERIFIERS:
                    _load(domain, reward, deadline_s)
                    continue
                crew = _crew_of(domain, reward)
                if crew not in children:
                    children[crew] = VerifierChild(reward.key_variable, deadline_s, {}, deadline_s)
                    children[crew].start()
                if problem := children[crew].load(f"{domain.name}/{reward.name}", reward):
                    raise ConfigError(f"{where(domain, reward)}: {problem}")
    finally:
        for child in children.values():
            child.stop()


def where(domain: Domain, reward: Reward) -> str:
    """The key of a configuration that names this verifier."""
    prefix = f"rewards.{reward.name}." if len(domain.rewards) > 1 else ""
    return f"domains.{domain.name}.{prefix}verifier"


def _crew_of(domain: Domain, reward: Reward) -> _Crew:
    """Rewards of the same crew share processes; each one that asks a server is a crew of its own."""
    alone = f"{domain.name}/{reward.name}" if reward.verifier in SERVED else ""
    return alone, source_of(reward.verifier), reward.key_variable


def _check_key(domain: Domain, reward: Reward) -> None:
    """Raises ConfigError."""
    if reward.key_variable and not os.environ.get(reward.key_variable):
        raise ConfigError(f"{where(domain, reward)}: {reward.verifier}: the environment variable "
                          f"{reward.key_variable} is not set, which key_variable names")  # fmt: skip


def _load(domain: Domain, reward: Reward, deadline_s: float) -> Any:
    """A built-in verifier, in this process. Raises ConfigError."""
    given = {"domain": domain.name, "key": os.environ.get(reward.key_variable, ""), "total_s": deadline_s}
    try:
        return load(reward, given)
    except Unusable as error:
        raise ConfigError(f"{where(domain, reward)}: {reward.verifier}: {error}") from None


def _all_judged(served: Any, items: Sequence[_Item]) -> list[Verdict]:
    """Verdicts on the items; any exception becomes an error, since the thread must survive."""
    try:
        return served.judge_all([(i.text, i.reference) for i in items])
    except Exception as error:
        return [Verdict("error", f"{type(error).__name__}: {error}"[:500])] * len(items)


def _waiting(items: queue.SimpleQueue[_Item | None], most: int) -> list[_Item]:
    """At most `most` items that are queued now, up to the end marker."""
    taken: list[_Item] = []
    while len(taken) < most:
        try:
            item = items.get_nowait()
        except queue.Empty:  # another thread was faster
            break
        if item is None:
            items.put(None)
            break
        taken.append(item)
    return taken


def _thread(target: Any, *args: Any) -> threading.Thread:
    return threading.Thread(target=target, args=args, daemon=True)
