"""The controller's side against workers that only answer: what they are asked, and what becomes of one that dies."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
import torch

from ringrl.rollout.channel import Listener, bound
from ringrl.rollout.vllm_pool import Deadlines, VLLMPool

KEY = b"key"


class Workers:
    """Threads that answer as workers do. One for which `dies` says so hangs up instead."""

    def __init__(self) -> None:
        self.numbers = count()
        self.asked: list[tuple[int, str]] = []  # (number of the worker, in the order of their starts; what was asked)
        self.dies: tuple[int, str] | None = None
        self.caches = [(100, 4, 25)] * 9  # per worker: tokens, sequences, tokens of the longest
        self.notes: list[str] = []

    def start(self, place: int = 0) -> str:
        number, sock = next(self.numbers), bound("127.0.0.1", 0)
        address = f"127.0.0.1:{sock.getsockname()[1]}"
        threading.Thread(target=self._serve, args=(number, Listener(sock, KEY, 2)), daemon=True).start()
        return address

    def _serve(self, number: int, listener: Listener) -> None:
        requests, weights = listener.accept()
        while True:
            try:
                kind = weights.receive()[0]
            except (EOFError, OSError):
                return
            if kind == "cache":
                weights.send(("part", *self.caches[number]))
            else:
                self.asked.append((number, kind))
            if (number, kind) == self.dies:
                requests.hang_up()
                weights.hang_up()
                return
            weights.send(("done",))


@pytest.fixture
def workers() -> Workers:
    return Workers()


def pool(workers: Workers, size: int, shared: bool = True) -> VLLMPool:
    addresses = [workers.start() for _ in range(size)]
    return VLLMPool(addresses, KEY, 1, Deadlines(60, 60, 60, 3), workers.start, workers.notes.append, shared)


def test_a_worker_that_dies_when_it_is_told_to_rest_is_replaced_by_one_that_rests(workers: Workers) -> None:
    engine = pool(workers, 2)
    workers.dies = (1, "rest")
    engine.rest()
    assert sorted(workers.asked) == [(0, "rest"), (1, "rest"), (2, "rest")]
    assert [link.index for link in engine.links] == [0, 1]
    engine.close()


@pytest.mark.parametrize(("tokens", "told"), [(100, []), (99, ["99 tokens", "longer than 24 tokens", "at most 25,"])])
def test_a_cache_that_cannot_hold_what_is_sampled_together_is_told_of_once(
    tokens: int, told: list[str], workers: Workers
) -> None:
    workers.caches[1] = (tokens, 4, 25)
    pool(workers, 3).close()
    assert len(workers.notes) == bool(told)
    assert all(text in workers.notes[0] for text in told)


def test_workers_that_share_no_gpu_do_not_rest(workers: Workers) -> None:
    engine = pool(workers, 1, shared=False)
    engine.rest()
    assert workers.asked == []
    engine.close()


def test_after_a_death_in_an_update_the_transfer_group_is_left_before_the_other_buckets_are_gathered(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    happened: list[str] = []

    class Group:
        def send(self, bucket: Any) -> None:
            happened.append("sent")

        def abort(self) -> None:
            happened.append("left")

    engine = pool(workers, 1, shared=False)
    monkeypatch.setattr("ringrl.rollout.vllm_pool.TransferGroup", lambda *args: Group())
    workers.dies = (0, "bucket")

    def buckets() -> Iterator[Any]:
        for i in range(3):
            happened.append(f"gathered {i}")
            yield {"a": torch.zeros(1)}, {}

    assert not engine.update(buckets(), 1)
    assert [h for h in happened if h != "sent"] == ["gathered 0", "left", "gathered 1", "gathered 2"]
    assert engine.transfer is None
    workers.dies = None
    happened.clear()
    assert engine.update(buckets(), 1)
    assert happened == ["gathered 0", "sent", "gathered 1", "sent", "gathered 2", "sent"]
    assert [kind for number, kind in workers.asked if number == 1] == ["begin", "join", *["bucket"] * 3, "finish"]
    assert engine.complete
    engine.close()
