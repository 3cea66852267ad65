"""The controller's side of the vLLM workers: deals out work, sends weights, brings back workers that fail.

Each worker has two channels: one for what it samples, one for weights, so that new weights can arrive in the middle
of a generation. A worker that ends, errs or misses a deadline is replaced by a new process. That one has no weights
(`complete` is False) until the next `update`, and only then samples again what the lost one had not delivered:
same requests, same seed, same weights, and so the same responses.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ringrl.errors import ChildDied, UserError
from ringrl.rollout.channel import Channel, connect, ready
from ringrl.rollout.engine import Bucket, Piece, Sampling, grow
from ringrl.rollout.transfer import Meeting, TransferGroup, specs
from ringrl.types import Completion, Group, Prompt

BLAME_S = 2.0  # how long a worker has to say why it left a weight transfer
NO_WEIGHTS = -1  # version of a worker that was started after others had been updated


@dataclass(frozen=True)
class Deadlines:
    """How long to wait, in seconds, and how often to try again."""

    start_s: float
    generate_s: float
    update_s: float
    restarts: int  # most restarts in the life of the pool


@dataclass(eq=False)
class Link:
    """A worker that runs."""

    index: int
    requests: Channel
    weights: Channel
    version: int


class Lost(Exception):
    """A worker failed."""

    def __init__(self, link: Link, why: str) -> None:
        super().__init__(f"rollout worker {link.index} {why}")
        self.link = link


class VLLMPool:
    """Several workers as one RolloutEngine. Prompts are dealt out in turn, so that seeds mean the same each time."""

    def __init__(
        self,
        addresses: Sequence[str],  # per worker: "host:port", or a file that will hold it
        authkey: bytes,
        tensor_parallel: int,
        limits: Deadlines,
        restart: Callable[[int], str],  # asks for a new process in the place of a worker; returns its address
        note: Callable[[str], None],  # tells the user
        shared: bool = False,  # workers use the trainer's devices
        folder: Path | None = None,  # where processes of this machine meet; None: workers are elsewhere
    ) -> None:
        self.addresses, self.authkey, self.folder = list(addresses), authkey, folder
        self.tensor_parallel, self.limits = tensor_parallel, limits
        self.restart, self.note, self.shared = restart, note, shared
        self.name = f"vLLM, {len(addresses)} worker{'s' * (len(addresses) > 1)}"
        self.resend: Callable[[], None] | None = None  # called by `generate`; returns when the pool is `complete`
        self.version, self.restarts = 0, 0
        self.transfer: TransferGroup | None = None
        self.lock = threading.Lock()  # around the replacement of workers
        end = time.monotonic() + limits.start_s
        self.links = [self._connect(i, end) for i in range(len(addresses))]
        self._tell_of_small_caches()

    @property
    def complete(self) -> bool:
        return all(link.version != NO_WEIGHTS for link in self.links)

    def generate(
        self, groups: Sequence[Group], sampling: Sampling, seed: int, enough: int = 0
    ) -> Iterator[tuple[int, int, Completion]]:
        share = -(-enough // len(self.links))  # each worker decides for itself, so that the end is reproducible
        messages: dict[int, tuple] = {}
        for i in range(len(self.links)):
            unfinished = [(j, groups[j]) for j in range(i, len(groups), len(self.links)) if not groups[j].done]
            requests = [(j, g.prompt.token_ids, _paused(g), g.seed) for j, g in unfinished]
            messages[i] = ("generate", requests, asdict(sampling), seed, i, share)
        before = [(j, k, c) for j, g in enumerate(groups) for k, c in enumerate(g.completions)]
        yield from ((j, k, c) for j, k, c in before if c.finish != "paused")
        delivered: set[tuple[int, int]] = set()
        while messages:
            lost = []
            for _, answer in self._ask("requests", messages, self.limits.generate_s):
                if isinstance(answer, Lost):
                    lost.append(answer)
                elif (answer[0], answer[1]) not in delivered:
                    j, k, piece = answer
                    delivered.add((j, k))
                    yield j, k, grow(groups[j].completions[k] if groups[j].completions else None, Piece(*piece))
            messages = {e.link.index: messages[e.link.index] for e in lost}
            self._replace(lost)

    def probe(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        requests: list[tuple] = [(i, prompt.token_ids, [], None) for i, prompt in enumerate(prompts)]
        message: tuple = ("generate", requests, asdict(sampling), 0, 0, 0)
        completions: dict[tuple[int, int], Completion] = {}
        lost = []
        messages = dict.fromkeys(range(len(self.links)), message)
        for worker, answer in self._ask("weights", messages, self.limits.update_s):
            if isinstance(answer, Lost):
                lost.append(answer)
            else:
                completions[worker, answer[0]] = grow(None, Piece(*answer[2]))
        self._replace(lost, wait=False)
        everyone = range(len(self.links))
        return [] if lost else [[completions[worker, i] for i in range(len(prompts))] for worker in everyone]

    def update(self, buckets: Iterable[Bucket], version: int) -> bool:
        links, walk = list(self.links), iter(buckets)
        try:
            self._tell(links, ("begin",))
            for tensors, handles in walk:
                sent = [[s.name, s.dtype, list(s.shape)] for s in specs(tensors)]
                if self.shared:
                    self._tell(links, ("bucket", sent, dict(handles)))
                else:
                    group = self._group(links, next(iter(tensors.values())).device)
                    self._tell(links, ("bucket", sent, {}), functools.partial(group.send, tensors))
            self._tell(links, ("finish", version))
        except Lost as e:
            self._leave_transfer()
            for _ in walk:  # the other trainer ranks walk too
                pass
            # whoever has a part of the new weights is of no more use, and nobody can tell who does
            others = [Lost(link, "has half of an update") for link in links if link is not e.link]
            self._replace([e, *others], wait=False)
            return False
        self.version = version
        for link in links:
            link.version = version
        return True

    def rest(self) -> None:
        awake = list(range(len(self.links))) if self.shared else []
        while awake:
            lost = [answer for _, answer in self._ask("weights", dict.fromkeys(awake, ("rest",)), self.limits.update_s)]
            self._replace(lost, wait=False)
            awake = [e.link.index for e in lost]

    def close(self) -> None:
        for link in self.links:
            try:
                link.requests.send(("close",), self.limits.update_s)
            except OSError:
                pass  # it is gone already; the launcher reports how
            link.requests.close()
            link.weights.close()

    def _tell_of_small_caches(self) -> None:
        caches: list[Any] = []
        lost: list[Lost] = []
        messages = dict.fromkeys(range(len(self.links)), ("cache",))
        for _, answer in self._ask("weights", messages, self.limits.update_s):
            (lost if isinstance(answer, Lost) else caches).append(answer)
        self._replace(lost, wait=False)
        tokens, concurrent, most = min(caches, default=(0, 0, 0))
        if tokens < concurrent * most:
            mean = tokens // concurrent
            self.note(
                f"a worker's cache holds {tokens:,} tokens: when its {concurrent} sequences (rollout.concurrent) are "
                f"longer than {mean:,} tokens on average, of at most {most:,}, vLLM drops some and computes them again"
            )

    def _ask(
        self, line: str, messages: dict[int, tuple], deadline_s: float, meanwhile: Callable[[], None] | None = None
    ) -> Iterator[tuple[int, Any]]:
        """Send each worker its message; (worker, answer) for every answer, a Lost being its last if it fails."""
        end = time.monotonic() + deadline_s
        busy: dict[Channel, Link] = {}
        for i, message in messages.items():
            link = self.links[i]
            try:
                getattr(link, line).send(message, self.limits.update_s)
                busy[getattr(link, line)] = link
            except OSError as e:
                yield i, Lost(link, f"cannot be reached: {e}")
        if meanwhile and busy:
            try:
                meanwhile()
            except RuntimeError as e:
                answers = [self._read(channel, busy[channel]) for channel in ready(busy, BLAME_S)]
                failed = [answer for answer in answers if isinstance(answer, Lost)]
                link = next(iter(busy.values()))
                yield link.index, failed[0] if failed else Lost(link, f"or another left the weight transfer: {e}")
                return
        while busy:
            answering = ready(busy, max(end - time.monotonic(), 0))
            if not answering:
                yield from ((k.index, Lost(k, f"did not answer within {deadline_s:g} s")) for k in busy.values())
                return
            for channel in answering:
                link = busy[channel]
                answer = self._read(channel, link)
                if answer is None or isinstance(answer, Lost):
                    del busy[channel]
                if answer is not None:
                    yield link.index, answer

    def _tell(self, links: Sequence[Link], message: tuple, meanwhile: Callable[[], None] | None = None) -> None:
        """Send all workers a message and wait until all have done it. Raises Lost."""
        for _, answer in self._ask("weights", {k.index: message for k in links}, self.limits.update_s, meanwhile):
            raise answer

    def _group(self, links: Sequence[Link], device: torch.device) -> TransferGroup:
        """All workers and we, joined at the first update."""
        if self.transfer is None:
            size = 1 + len(links) * self.tensor_parallel
            meeting = Meeting(links[0].weights.here, self.folder)
            messages = {k.index: ("join", meeting.place, 1 + k.index * self.tensor_parallel, size) for k in links}

            def join() -> None:
                self.transfer = TransferGroup(meeting, 0, size, device, self.limits.update_s)

            for _, answer in self._ask("weights", messages, self.limits.update_s, join):
                raise answer
        assert self.transfer
        return self.transfer

    def _leave_transfer(self) -> None:
        if self.transfer:
            self.transfer.abort()
        self.transfer = None

    def _replace(self, lost: Sequence[Lost], wait: bool = True) -> None:
        """New processes for workers that failed, and with `wait` their weights too.

        Raises:
            ChildDied: it happened too often.
        """
        with self.lock:
            failed = [e for e in lost if self.links[e.link.index] is e.link]  # else another thread has replaced it
            if failed:
                self._leave_transfer()  # its group has lost members
                self.restarts += 1
                if self.restarts > self.limits.restarts:
                    raise ChildDied(
                        f"{failed[0]}; restarted {self.limits.restarts} times before (rollout.max_restarts)"
                    )
                for e in failed:
                    self.note(f"{e}; starting it again")
                    for channel in (e.link.requests, e.link.weights):  # not closed: another thread may wait for it
                        channel.hang_up()
                    self.addresses[e.link.index] = self.restart(e.link.index)
                end = time.monotonic() + self.limits.start_s
                for e in failed:
                    self.links[e.link.index] = self._connect(e.link.index, end)
        if wait and lost and not self.complete:
            if self.resend is None:
                raise ChildDied(f"{lost[0]}; it cannot be given its weights again here")
            self.resend()

    def _connect(self, index: int, end: float) -> Link:
        """Raises ChildDied when nobody who has the key is there in time, UserError for a worker with another key."""
        address = self.addresses[index]
        while True:
            try:
                requests, weights = connect(_read_address(address), self.authkey, 2)
            except UserError as e:
                raise UserError(f"rollout worker {index} at {address}: {e}") from None
            except (EOFError, OSError) as e:
                if time.monotonic() > end:
                    raise ChildDied(f"rollout worker {index} at {address} did not start within "
                                    f"{self.limits.start_s:g} s ({e})") from None  # fmt: skip
                time.sleep(0.05)
            else:
                return Link(index, requests, weights, NO_WEIGHTS if self.version else 0)

    def _read(self, channel: Channel, link: Link) -> list[Any] | Lost | None:
        """A worker's next answer; None when it is done."""
        try:  # no worker may hold us by half an answer
            kind, *answer = channel.receive(self.limits.update_s)
        except (EOFError, OSError):
            return Lost(link, f"ended, see logs/worker{link.index}.log")
        if kind == "failed":
            return Lost(link, f"failed: {answer[0].strip().splitlines()[-1]}, see logs/worker{link.index}.log")
        return answer if kind == "part" else None


def _paused(group: Group) -> list[tuple[int, np.ndarray]]:
    """Place in the group and tokens so far of the completions to continue."""
    return [(k, c.token_ids) for k, c in enumerate(group.completions) if c.finish == "paused"]


def _read_address(address: str) -> str:
    """ "host:port", or what the file of that name says."""
    file = Path(address)
    return file.read_text().strip() if file.is_absolute() else address
