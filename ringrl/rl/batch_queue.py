"""Rollout batches before they are trained on: at most `max_staleness` ahead of the one in training.

One thread on rank 0 does all that samples, in order. Batch i is begun when the training of batch i - max_staleness
begins, with the weights of that moment. Unless weights may arrive in flight, the loop waits for the thread before it
sends new ones: then the version that samples a batch is fixed, and so are its responses.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from ringrl.config.commands import RLConfig
from ringrl.rl.record import Batch
from ringrl.rl.sampler import Sampler


class BatchQueue:
    """On every rank; on those without a sampler there are no batches, and every job is None."""

    def __init__(self, cfg: RLConfig, sampler: Sampler | None, kept: Sequence[Batch]) -> None:
        self.cfg, self.sampler = cfg, sampler
        self.batches: deque[Future[Batch]] = deque()
        for batch in kept:
            if sampler and batch.trouble:  # to be judged again
                sampler.undo(batch)
                break
            self.batches.append(Future())
            self.batches[-1].set_result(batch)
        self.jobs: queue.SimpleQueue[tuple[Future[Any], Callable[..., Any], tuple]] = queue.SimpleQueue()
        if sampler:
            threading.Thread(target=self._work, daemon=True).start()

    def begin(self, step: int, count: int) -> None:
        """Have this many batches made or under way, the first being that of `step`."""
        while self.sampler and len(self.batches) < count:
            at = step + len(self.batches) * self.cfg.updates
            if at >= self.cfg.steps:
                return
            self.batches.append(self._submit(self.sampler.collect, at))

    def next(self) -> Future[Batch] | None:
        """The oldest batch; it leaves the queue."""
        return self.batches.popleft() if self.sampler else None

    def evaluation(self, step: int, stage: str) -> Future[None] | None:
        return self._submit(self.sampler.evaluate, step, stage) if self.sampler else None

    def idle(self) -> Future[None] | None:
        """Done when nothing is sampled any more."""
        return self._submit(lambda: None) if self.sampler else None

    def made(self) -> list[Batch]:
        """Those that a checkpoint must keep, when `idle`: nobody can sample them again."""
        return [b.result() for b in self.batches]

    def undo(self, batch: Batch) -> None:
        """As if `batch`, and all after it, had not been sampled; when `idle`."""
        assert self.sampler
        self.batches.clear()
        self.sampler.undo(batch)

    def _submit(self, do: Callable[..., Any], *args: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.jobs.put((future, do, args))
        return future

    def _work(self) -> None:
        while True:
            future, do, args = self.jobs.get()
            try:
                future.set_result(do(*args))
            except BaseException as e:  # whoever waits for the result raises it
                future.set_exception(e)
