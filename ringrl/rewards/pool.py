"""Verifiers in child processes that can be killed: any answer may hang or crash its verifier.

Invariants: every submitted item gets exactly one verdict; an item that outlives its deadline costs its child
process and nothing else; what goes wrong on our side is a verdict of kind `error`; closing leaves no process
and no file; the verifiers of a user's file share their processes with nobody.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from ringrl.domains import BUILT_IN, Domain, Reward
from ringrl.errors import ConfigError
from ringrl.rewards.child import STOP_S, VerifierChild
from ringrl.rewards.load import VERIFIERS, Unusable, label, load, source_of
from ringrl.rewards.verdict import Verdict, combined

SERVED = ("url", "judge")  # verifiers that ask a server: in threads of ours, many at once
CHECK_S = 60.0  # for loading a user's verifiers
Crew = dict[str, tuple[Domain, Reward]]  # by "domain/reward"


class VerifierPool:
    """`workers` child processes that judge responses, each reward of one within `deadline_s` seconds.

    The clock of an item starts when a ready child takes it. Programs get 85 % of the deadline, so
    that an endless one fails by itself; what reaches the deadline is an `error`. The children come up in the
    background. Leaving the `with` block kills them and cancels what is still queued: collect the results before.
    A user's file, and every `key_variable`, has `workers` children of its own.

    Args:
        domains: those in use; children are started for all of them.
        code: further arguments of `verify_code`: `remote`, `every`.

    Raises:
        ConfigError: the variable of a key is not set, or the options of a verifier that asks a server are wrong.
    """

    def __init__(
        self, workers: int, deadline_s: float, domains: Mapping[str, Domain] = BUILT_IN, **code: str | bool
    ) -> None:
        assert min(workers, deadline_s) > 0, (workers, deadline_s)
        self._domains = dict(domains)
        self._closed = False
        self._queues: dict[str, queue.SimpleQueue[_Item | None]] = {}  # by "domain/reward"; one for each crew
        self._children: list[VerifierChild] = []
        self._threads: list[threading.Thread] = []
        for crew in crews(domains.values()):
            items: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
            self._queues |= dict.fromkeys(crew, items)
            _check_keys(crew)
            domain, reward = next(iter(crew.values()))
            if reward.verifier in SERVED:
                served = _load(domain, reward, deadline_s)
                self._threads += [_thread(self._ask, items, served) for _ in range(served.concurrent)]
            else:
                children = [VerifierChild(_rewards(crew), deadline_s, code) for _ in range(workers)]
                self._threads += [_thread(self._serve, items, child) for child in children]
                self._children += children
        for thread in self._threads:
            thread.start()

    def submit(self, domain: str, text: str, reference: Mapping[str, object]) -> Future[Verdict]:
        """Queues one response; `reference` must be plain data (what JSON can carry).

        Raises:
            ValueError: the domain is unknown.
            RuntimeError: the pool is closed.
        """
        if domain not in self._domains:
            raise ValueError(f"unknown domain {domain!r}; known: {', '.join(self._domains)}")
        if self._closed:
            raise RuntimeError("the verifier pool is closed")
        case = _Case(self._domains[domain])
        for reward in case.domain.rewards:
            self._queues[f"{domain}/{reward.name}"].put(_Item(case, reward.name, text, dict(reference)))
        return case.future

    def close(self) -> None:
        """Kills the children and waits for them; a second call does nothing."""
        self._closed = True
        for child in self._children:
            child.close()  # its thread sees the end of it and cleans up
        for items in self._queues.values():
            for _ in self._threads:
                items.put(None)
        for thread in self._threads:
            thread.join(timeout=2 * STOP_S)

    def __enter__(self) -> VerifierPool:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _serve(self, items: queue.SimpleQueue[_Item | None], child: VerifierChild) -> None:
        """The life of one worker thread: hands its child one item after the other."""
        child.start()
        while (item := items.get()) is not None:
            if self._wanted(item):
                item.case.settle(item.reward, child.judge(item.name, item.text, item.reference))
            child.revive()  # a lost process costs the next item no time: a worker that is up takes that one
        child.stop()

    def _ask(self, items: queue.SimpleQueue[_Item | None], served: Any) -> None:
        """The life of one thread that asks a server: a fair share of what is queued in each request."""
        while (item := items.get()) is not None:
            some = [item]
            while len(some) < min(served.batch, 1 + items.qsize() // served.concurrent):
                if (item := items.get()) is None:
                    items.put(None)
                    break
                some.append(item)
            some = [i for i in some if self._wanted(i)]
            if self._closed:
                verdicts = [Verdict("error", "the verifier pool is closed")] * len(some)
            else:
                verdicts = _all_judged(served, some)
            for i, verdict in zip(some, verdicts, strict=True):
                i.case.settle(i.reward, verdict)

    def _wanted(self, item: _Item) -> bool:
        if self._closed:
            item.case.future.cancel()
        return item.case.begin()


class _Case:
    """A response on its way to its verdict; its rewards come in from several threads."""

    def __init__(self, domain: Domain) -> None:
        self.domain = domain
        self.future: Future[Verdict] = Future()
        self._verdicts: dict[str, Verdict] = {}  # by reward
        self._begun = self._wanted = False
        self._lock = threading.Lock()

    def begin(self) -> bool:
        """False if it was cancelled; afterwards it cannot be."""
        with self._lock:
            if not self._begun:
                self._begun, self._wanted = True, self.future.set_running_or_notify_cancel()
            return self._wanted

    def settle(self, reward: str, verdict: Verdict) -> None:
        with self._lock:
            self._verdicts[reward] = verdict
            last = len(self._verdicts) == len(self.domain.rewards)
        if last:
            self.future.set_result(combined(self.domain, self._verdicts))


@dataclass(frozen=True, slots=True)
class _Item:
    """A response to be judged by one reward."""

    case: _Case
    reward: str
    text: str
    reference: dict[str, Any]

    @property
    def name(self) -> str:
        return f"{self.case.domain.name}/{self.reward}"


def crews(domains: Iterable[Domain]) -> list[Crew]:
    """The rewards that may share processes: those of one file with one key; who asks a server is alone."""
    found: dict[tuple[str, ...], Crew] = {}
    for domain in domains:
        for reward in domain.rewards:
            name = f"{domain.name}/{reward.name}"
            alone = name if reward.verifier in SERVED else ""
            key = (alone, source_of(reward.verifier), reward.key_variable)
            found.setdefault(key, {})[name] = (domain, reward)
    return list(found.values())


def check_verifiers(domains: Mapping[str, Domain], deadline_s: float = CHECK_S) -> None:
    """Loads the verifiers of these domains as they will be loaded: a user's in short-lived processes.

    Raises:
        ConfigError: one cannot be loaded, does not take its options, or needs a key that is not there.
    """
    for crew in crews(domains.values()):
        _check_keys(crew)
        if all(reward.verifier in VERIFIERS for _, reward in crew.values()):
            for domain, reward in crew.values():
                _load(domain, reward, deadline_s)
            continue
        child = VerifierChild(_rewards(crew), deadline_s, {}, warm_up=False)
        child.start()
        child.stop()
        for name, (domain, reward) in crew.items():
            if problem := child.problem or child.unusable.get(name, ""):
                raise ConfigError(f"{label(domain, reward)}: {problem}")


def _check_keys(crew: Crew) -> None:
    """Raises ConfigError."""
    for domain, reward in crew.values():
        if reward.key_variable and not os.environ.get(reward.key_variable):
            raise ConfigError(f"{label(domain, reward)}: the environment variable {reward.key_variable} is not set, "
                              f"which `key_variable` names")  # fmt: skip


def _rewards(crew: Crew) -> dict[str, Reward]:
    return {name: reward for name, (_, reward) in crew.items()}


def _load(domain: Domain, reward: Reward, deadline_s: float) -> Any:
    """A built-in verifier, in this process. Raises ConfigError."""
    given = {"domain": domain.name, "key": os.environ.get(reward.key_variable, ""), "total_s": deadline_s}
    try:
        return load(reward, given)
    except Unusable as error:
        raise ConfigError(f"{label(domain, reward)}: {error}") from None


def _all_judged(served: Any, items: Sequence[_Item]) -> list[Verdict]:
    """Whatever goes wrong: the thread lives on."""
    try:
        return served.judge_all([(i.text, i.reference) for i in items])
    except Exception as error:
        return [Verdict("error", f"{type(error).__name__}: {error}"[:500])] * len(items)


def _thread(target: Any, *args: Any) -> threading.Thread:
    return threading.Thread(target=target, args=args, daemon=True)
