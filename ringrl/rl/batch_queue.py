"""Rollouts before they are trained on: at most `max_staleness` ahead of the one in training.

One thread on rank 0 does all that samples, in order. Rollout i is begun when the training of rollout i - max_staleness
begins, with the weights of that moment. Unless weights may arrive in flight, the loop waits for the thread before it
sends new ones: then the version that samples a rollout is fixed, and so are its responses.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from ringrl.config.commands import RLConfig
from ringrl.rl.kept import plain
from ringrl.rl.sampler import NOTHING, Position, Sampler, ScoredRollout


class BatchQueue:
    """On every rank; on those without a sampler all jobs are done at once and rollouts are empty."""

    def __init__(
        self,
        cfg: RLConfig,
        sampler: Sampler | None,
        sample: Callable[[int], ScoredRollout],
        kept: Sequence[ScoredRollout],
    ) -> None:
        self.cfg, self.sampler, self.sample = cfg, sampler, sample
        self.rollouts: deque[Future[ScoredRollout]] = deque()
        for rollout in kept:
            if sampler and rollout.trouble:  # to be judged again
                sampler.go_to(rollout.before)
                break
            self.rollouts.append(done(rollout))
        self.jobs: queue.SimpleQueue[tuple[Future[Any], Callable[..., Any], tuple]] = queue.SimpleQueue()
        if sampler:
            threading.Thread(target=self._work, daemon=True).start()

    def next(self, step: int) -> Future[ScoredRollout]:
        """The oldest rollout, that of `step`; it leaves the queue."""
        self._fill(step, 1)
        return self.rollouts.popleft() if self.sampler else done(NOTHING)

    def sample_ahead(self, step: int) -> None:
        """Begins as many rollouts as may run ahead, the first being that of `step`."""
        self._fill(step, self.cfg.max_staleness)

    def evaluate(self, step: int, stage: str) -> Future[None]:
        return self._submit(self.sampler.evaluate, step, stage) if self.sampler else done(None)

    def idle(self) -> Future[None]:
        """Done when nothing is being sampled any more."""
        return self._submit(lambda: None)

    def unfinished(self) -> Any:
        """What a checkpoint must keep, when `idle`, since nobody could sample it again: [paused groups, rollouts], as
        JSON values and arrays."""
        return plain((self.sampler.paused, [r.result() for r in self.rollouts])) if self.sampler else []

    def go_to(self, position: Position) -> None:
        """Forgets what was sampled ahead, and goes on from there; when `idle`."""
        self.rollouts.clear()
        if self.sampler:
            self.sampler.go_to(position)

    def _fill(self, step: int, count: int) -> None:
        while self.sampler and len(self.rollouts) < count:
            ahead = step + len(self.rollouts) * self.cfg.updates
            if ahead >= self.cfg.steps:
                return
            self.rollouts.append(self._submit(self.sample, ahead))

    def _submit(self, job: Callable[..., Any], *args: Any) -> Future[Any]:
        if not self.sampler:
            return done(None)
        future: Future[Any] = Future()
        self.jobs.put((future, job, args))
        return future

    def _work(self) -> None:
        while True:
            future, job, args = self.jobs.get()
            try:
                future.set_result(job(*args))
            except BaseException as e:  # whoever waits for the result raises it
                future.set_exception(e)


def done(result: Any) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(result)
    return future
