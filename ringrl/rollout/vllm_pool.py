"""The controller's side of the vLLM workers."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from multiprocessing.connection import Client, Connection, wait
from pathlib import Path

import torch

from ringrl.children import free_port
from ringrl.errors import ChildDied
from ringrl.rollout.engine import Sampling, grow
from ringrl.rollout.transfer import TransferGroup, specs
from ringrl.types import Completion, Group, Prompt


class VLLMPool:
    """Several workers as one RolloutEngine. Prompts are dealt out in turn, so that seeds mean the same each time."""

    def __init__(
        self,
        addresses: Sequence[str],  # a file per worker, that will hold "host:port"
        authkey: str,
        tensor_parallel: int,
        start_deadline_s: float,
        deadline_s: float,
    ) -> None:
        self.deadline_s, self.version, self.tensor_parallel = deadline_s, 0, tensor_parallel
        end = time.monotonic() + start_deadline_s
        self.conns = [_connect(a, bytes.fromhex(authkey), end) for a in addresses]
        self.name = f"vLLM, {len(self.conns)} worker{'s' * (len(self.conns) > 1)}"
        self.transfer: TransferGroup | None = None

    def generate(
        self, groups: Sequence[Group], sampling: Sampling, seed: int, enough: int = 0
    ) -> Iterator[tuple[int, Group]]:
        share = -(-enough // len(self.conns))  # each worker decides for itself, so that the end is reproducible
        for i, conn in enumerate(self.conns):
            mine = range(i, len(groups), len(self.conns))
            requests = [(j, list(groups[j].prompt.token_ids), _paused(groups[j])) for j in mine if not groups[j].done]
            conn.send(("generate", requests, _params(sampling), seed * 1009 + i, share))
        yield from ((j, g) for j, g in enumerate(groups) if g.done)
        for _, (index, outputs) in self._collect():
            before = groups[index].completions or (None,) * len(outputs)
            new = iter(outputs)
            grown = tuple(grow(c, *_unpack(next(new), self.version)) if c is None or c.finish == "paused" else c
                          for c in before)  # fmt: skip
            yield index, Group(groups[index].prompt, grown)

    def probe(self, prompt: Prompt, sampling: Sampling) -> list[Completion]:
        for conn in self.conns:
            conn.send(("generate", [(0, list(prompt.token_ids), [])], _params(sampling), 0, 0))
        found = sorted(self._collect(), key=lambda x: x[0])
        return [grow(None, *_unpack(output, self.version)) for _, (_, [output]) in found]

    def update(self, weights: Mapping[str, torch.Tensor], version: int) -> None:
        group = self._group(next(iter(weights.values())).device)
        sent = [[s.name, s.dtype, list(s.shape)] for s in specs(weights)]
        for conn in self.conns:
            conn.send(("update", sent, version))
        group.send(weights)
        for _ in self._collect():
            raise AssertionError("an update yields nothing")
        self.version = version

    def close(self) -> None:
        for conn in self.conns:
            try:
                conn.send(("close",))
            except OSError:
                pass  # it is gone already; the launcher reports how
            conn.close()

    def _group(self, device: torch.device) -> TransferGroup:
        """All workers and we, joined at the first update."""
        if self.transfer is None:
            host, port, size = "127.0.0.1", free_port(), 1 + len(self.conns) * self.tensor_parallel
            for i, conn in enumerate(self.conns):
                conn.send(("join", host, port, 1 + i * self.tensor_parallel, size))
            self.transfer = TransferGroup(host, port, 0, size, device, self.deadline_s)
            for _ in self._collect():
                raise AssertionError("joining yields nothing")
        return self.transfer

    def _collect(self) -> Iterator[tuple[int, tuple]]:
        """(worker, (index, outputs)) of every group until all workers are done."""
        end = time.monotonic() + self.deadline_s
        busy: dict[Connection, int] = {c: i for i, c in enumerate(self.conns)}
        while busy:
            ready = wait(list(busy), timeout=max(end - time.monotonic(), 0))
            if not ready:
                raise ChildDied(f"rollout: workers {sorted(busy.values())} did not answer within {self.deadline_s:g} s")
            for conn in ready:
                assert isinstance(conn, Connection)
                try:
                    kind, *rest = conn.recv()
                except (EOFError, OSError):
                    raise ChildDied(f"rollout: worker {busy[conn]} ended, see logs/worker{busy[conn]}.log") from None
                if kind == "failed":
                    raise ChildDied(f"rollout: worker {busy[conn]} failed\n{rest[0]}")
                if kind == "group":
                    yield busy[conn], tuple(rest)
                else:
                    del busy[conn]


def _paused(group: Group) -> list[list[int]]:
    """Tokens so far of the completions to continue."""
    return [list(c.token_ids) for c in group.completions if c.finish == "paused"]


def _unpack(output: tuple, version: int) -> tuple:
    tokens, logprobs, finish, routes = output
    return tokens, logprobs, finish, version, routes


def _params(s: Sampling) -> dict:
    params = asdict(s)
    return {"n": params.pop("samples"), **params}


def _connect(address: str, authkey: bytes, end: float) -> Connection:
    """Wait for the address file, then connect."""
    while not Path(address).is_file():
        if time.monotonic() > end:
            raise ChildDied(f"rollout: worker {Path(address).stem} did not start in time")
        time.sleep(0.05)
    host, _, port = Path(address).read_text().rpartition(":")
    return Client((host, int(port)), authkey=authkey)
