"""The controller's side of the vLLM workers: deals out work, sends weights, brings back workers that fail.

Each worker has two connections: one for what it samples, one for weights, so that new weights can arrive in the middle
of a generation. A worker that ends, errs or misses a deadline is replaced by a new process. That one has no weights
(`complete` is False) until the next `update`, and only then samples again what the lost one had not delivered:
same requests, same seed, same weights, and so the same responses.
"""

from __future__ import annotations

import contextlib
import functools
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Client, Connection, wait
from pathlib import Path
from typing import Any

import torch

from ringrl.errors import ChildDied
from ringrl.processes import free_port
from ringrl.rollout.engine import Bucket, Piece, Sampling, grow
from ringrl.rollout.transfer import TransferGroup, specs
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
    requests: Connection
    weights: Connection
    version: int
    host: str  # this machine's address, as the worker sees it


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
    ) -> None:
        self.addresses, self.authkey = list(addresses), authkey
        self.tensor_parallel, self.limits = tensor_parallel, limits
        self.restart, self.note, self.shared = restart, note, shared
        self.name = f"vLLM, {len(addresses)} worker{'s' * (len(addresses) > 1)}"
        self.resend: Callable[[], None] | None = None  # called by `generate`; returns when the pool is `complete`
        self.version, self.restarts = 0, 0
        self.transfer: TransferGroup | None = None
        self.lock = threading.Lock()  # around the replacement of workers
        end = time.monotonic() + limits.start_s
        self.links = [self._connect(i, end) for i in range(len(addresses))]

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
            requests = [(j, list(g.prompt.token_ids), _paused(g), g.seed) for j, g in unfinished]
            messages[i] = ("generate", requests, asdict(sampling), seed * 1009 + i, share)
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

    def probe(self, prompt: Prompt, sampling: Sampling) -> list[Completion]:
        message: tuple = ("generate", [(0, list(prompt.token_ids), {}, None)], asdict(sampling), 0, 0)
        completions, lost = {}, []
        messages = dict.fromkeys(range(len(self.links)), message)
        for worker, answer in self._ask("weights", messages, self.limits.update_s):
            if isinstance(answer, Lost):
                lost.append(answer)
            else:
                completions[worker] = grow(None, Piece(*answer[2]))
        self._replace(lost, wait=False)
        return [] if lost else [completions[i] for i in sorted(completions)]

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
        if not self.shared:
            return
        try:
            self._tell(self.links, ("rest",))
        except Lost as e:
            self._replace([e], wait=False)

    def close(self) -> None:
        for link in self.links:
            try:
                link.requests.send(("close",))
            except OSError:
                pass  # it is gone already; the launcher reports how
            link.requests.close()
            link.weights.close()

    def _ask(
        self, line: str, messages: dict[int, tuple], deadline_s: float, meanwhile: Callable[[], None] | None = None
    ) -> Iterator[tuple[int, Any]]:
        """Send each worker its message; (worker, answer) for every answer, a Lost being its last if it fails."""
        end = time.monotonic() + deadline_s
        busy: dict[Any, Link] = {}
        for i, message in messages.items():
            link = self.links[i]
            try:
                getattr(link, line).send(message)
                busy[getattr(link, line)] = link
            except OSError as e:
                yield i, Lost(link, f"cannot be reached: {e}")
        if meanwhile and busy:
            try:
                meanwhile()
            except RuntimeError as e:
                answers = [_read(conn, busy[conn]) for conn in wait(list(busy), timeout=BLAME_S)]
                failed = [answer for answer in answers if isinstance(answer, Lost)]
                link = next(iter(busy.values()))
                yield link.index, failed[0] if failed else Lost(link, f"or another left the weight transfer: {e}")
                return
        while busy:
            ready = wait(list(busy), timeout=max(end - time.monotonic(), 0))
            if not ready:
                yield from ((k.index, Lost(k, f"did not answer within {deadline_s:g} s")) for k in busy.values())
                return
            for conn in ready:
                link = busy[conn]
                answer = _read(conn, link)
                if answer is None or isinstance(answer, Lost):
                    del busy[conn]
                if answer is not None:
                    yield link.index, answer

    def _tell(self, links: Sequence[Link], message: tuple, meanwhile: Callable[[], None] | None = None) -> None:
        """Send all workers a message and wait until all have done it. Raises Lost."""
        for _, answer in self._ask("weights", {k.index: message for k in links}, self.limits.update_s, meanwhile):
            raise answer

    def _group(self, links: Sequence[Link], device: torch.device) -> TransferGroup:
        """All workers and we, joined at the first update."""
        if self.transfer is None:
            port, size = free_port(), 1 + len(links) * self.tensor_parallel
            messages = {k.index: ("join", k.host, port, 1 + k.index * self.tensor_parallel, size) for k in links}

            def join() -> None:
                self.transfer = TransferGroup(links[0].host, port, 0, size, device, self.limits.update_s)

            for _, answer in self._ask("weights", messages, self.limits.update_s, join):
                raise answer
        assert self.transfer
        return self.transfer

    def _replace(self, lost: Sequence[Lost], wait: bool = True) -> None:
        """New processes for workers that failed, and with `wait` their weights too.

        Raises:
            ChildDied: it happened too often.
        """
        with self.lock:
            failed = [e for e in lost if self.links[e.link.index] is e.link]  # else another thread has replaced it
            if failed:
                self.transfer = None  # its group has lost members
                self.restarts += 1
                if self.restarts > self.limits.restarts:
                    raise ChildDied(
                        f"{failed[0]}; restarted {self.limits.restarts} times before (rollout.max_restarts)"
                    )
                for e in failed:
                    self.note(f"{e}; starting it again")
                    for conn in (e.link.requests, e.link.weights):  # not closed: another thread may wait for it
                        _socket(conn, _hang_up)
                    self.addresses[e.link.index] = self.restart(e.link.index)
                end = time.monotonic() + self.limits.start_s
                for e in failed:
                    self.links[e.link.index] = self._connect(e.link.index, end)
        if wait and lost and not self.complete:
            if self.resend is None:
                raise ChildDied(f"{lost[0]}; it cannot be given its weights again here")
            self.resend()

    def _connect(self, index: int, end: float) -> Link:
        while (requests := _client(self.addresses[index], self.authkey)) is None:
            if time.monotonic() > end:
                raise ChildDied(f"rollout worker {index} at {self.addresses[index]} did not start within "
                                f"{self.limits.start_s:g} s")  # fmt: skip
            time.sleep(0.05)
        if (weights := _client(self.addresses[index], self.authkey)) is None:
            raise ChildDied(f"rollout worker {index} at {self.addresses[index]} hung up")
        for conn in (requests, weights):  # no worker may hold us by not reading, or by half an answer
            _socket(conn, lambda s: s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(self.limits.update_s)))
            _socket(conn, lambda s: s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(self.limits.update_s)))
        host = _socket(weights, lambda s: s.getsockname()[0])
        return Link(index, requests, weights, NO_WEIGHTS if self.version else 0, host)


def _read(conn: Any, link: Link) -> list[Any] | Lost | None:
    """A worker's next answer; None when it is done."""
    try:
        kind, *answer = conn.recv()
    except (EOFError, OSError):
        return Lost(link, f"ended, see logs/worker{link.index}.log")
    if kind == "failed":
        return Lost(link, f"failed: {answer[0].strip().splitlines()[-1]}, see logs/worker{link.index}.log")
    return answer if kind == "part" else None


def _paused(group: Group) -> dict[int, list[int]]:
    """Tokens so far of the completions to continue, by their place in the group."""
    return {k: list(c.token_ids) for k, c in enumerate(group.completions) if c.finish == "paused"}


def _client(address: str, authkey: bytes) -> Connection | None:
    """A connection to "host:port", or to what the file of that name says; None when nobody is there yet."""
    file = Path(address)
    try:
        host, _, port = (file.read_text() if file.is_absolute() else address).rpartition(":")
        return Client((host, int(port)), authkey=authkey)
    except (FileNotFoundError, ConnectionError, socket.gaierror):
        return None


def _socket(conn: Connection, do: Callable[[socket.socket], Any]) -> Any:
    with socket.socket(fileno=conn.fileno()) as s:
        try:
            return do(s)
        finally:
            s.detach()


def _hang_up(s: socket.socket) -> None:
    with contextlib.suppress(OSError):  # the other side was faster
        s.shutdown(socket.SHUT_RDWR)


def _timeval(seconds: float) -> bytes:
    return struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))
