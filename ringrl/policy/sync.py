"""Trainer weights into the rollout engine, and the proof that they arrived.

Every push sends all weights under checkpoint names, a bucket at a time, checks names and shapes against the start
model's files, and compares the log-probs of freshly sampled continuations of two fixed prompts on every worker with
the trainer's own, computed as in training, in one row where rows are packed. The first push also compares a prompt that
is longer than the model's attention windows. The caller stops at a gap above its limit: a sampler with stale or broken
weights trains nothing.

Gathering weights needs all ranks, and only rank 0 sees the workers: `lead` is how a worker that was started again in
the middle of a rollout gets its weights.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from transformers import PreTrainedConfig, PreTrainedModel

from ringrl.algo.loss import segment_mean
from ringrl.algo.pack import TokenSequence, pack, sequence_of
from ringrl.config.sections import Rollout
from ringrl.errors import DataError, RingError
from ringrl.models.folder import Kind, tensors
from ringrl.models.loading import written
from ringrl.policy.engine import Policy
from ringrl.policy.experts import weight_buckets
from ringrl.policy.forward import TokenStats
from ringrl.policy.ranks import HEARTBEAT_S, Ranks
from ringrl.rollout.engine import Bucket, RolloutEngine, Sampling
from ringrl.rollout.transfer import Shared
from ringrl.types import Completion, MicroBatch, Prompt, Sample, all_of

T = TypeVar("T")

PROBE_TOKENS = 32  # sampled to each prompt
POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class Parity:
    """What one push showed."""

    gap: float  # mean difference between trainer and worker log-probs of a continuation, the worst of all, in nats
    shift: float  # mean change of the trainer's log-probs of the prompts' own tokens since the last push, in nats


class WeightSync:
    """On every rank; only rank 0 holds an engine."""

    def __init__(
        self,
        policy: Policy,
        engine: RolloutEngine | None,
        model: str,  # the start model's folder
        probes: Sequence[Prompt],  # two, and maybe a long one, which only a thorough push looks at
        sampling: Sampling,  # how they are continued
        rollout: Rollout,
        folder: Path,  # in memory; holds weights that workers map
    ) -> None:
        self.policy, self.engine, self.rollout = policy, engine, rollout
        self.shared = Shared(policy.device, folder / f"bucket{policy.ranks.rank}", rollout.bucket_mib << 20)
        self.pair, self.long, self.sampling = probes[:2], probes[2:], sampling
        self.logprobs = torch.empty(0)  # the trainer's, of the pair's own tokens, at the last push
        self.expected = expected_kinds(model, policy.module.lm)
        self.version = 0
        self.sent = threading.Condition()  # notified when all workers have weights

    def push(self, version: int, thorough: bool = False) -> Parity:
        """A collective. What is too much is for the caller to say.

        When the trainer's own log-probs are not finite nothing is sent, and both numbers are NaN.

        Raises:
            RingError: names or shapes differ from the checkpoint's.
        """
        before, self.logprobs = self.logprobs, self._probe_logprobs()
        if not torch.isfinite(self.logprobs).all():
            return Parity(math.nan, math.nan)
        shift = float((self.logprobs - before).abs().mean()) if len(before) else 0.0
        self.version = version
        continued: list[list[tuple[Prompt, Completion]]] = []
        while not continued:  # none when a worker failed meanwhile
            self._send()
            continued = self.policy.ranks.broadcast(self._continued(thorough))
        return Parity(max(self._gap(responses) for responses in continued), shift)

    def _continued(self, thorough: bool) -> list[list[tuple[Prompt, Completion]]]:
        """Of every worker, what it makes of the prompts; none on other ranks, or when one failed."""
        continued: list[list[tuple[Prompt, Completion]]] = []
        for prompts in (self.pair, self.long) if thorough and self.long else (self.pair,):
            length = min(self.sampling.max_total_tokens, max(len(p.token_ids) for p in prompts) + PROBE_TOKENS)
            sampling = replace(self.sampling, samples=1, max_total_tokens=length)
            found = self.engine.probe(prompts, sampling) if self.engine else []
            if not found:
                return []
            continued += [list(zip(prompts, completions, strict=True)) for completions in found]
        return continued

    def lead(self, job: Future[T]) -> T:
        """Wait for a job of rank 0 that samples; every rank is here, and sends weights when a worker needs them again.

        Returns the job's result; on the other ranks, that of a job of their own, which is done.
        """
        give_back(self.rollout)
        while True:
            if (order := self.policy.ranks.broadcast(self._order(job))) == "go on":
                return job.result()
            if order == "send":
                self._send()

    def rest(self) -> None:
        """The device is the trainer's until the next push."""
        if self.engine and self.rollout.colocated:
            self.engine.rest()
        self.policy.ranks.barrier()

    def resend(self) -> None:
        """For whoever samples: wait until ranks that `lead` have sent the weights to every worker."""
        assert self.engine
        with self.sent:
            if not self.sent.wait_for(lambda: self.engine and self.engine.complete, self.rollout.deadline_s):
                raise RingError(f"weight sync: not sent again within rollout.deadline_s={self.rollout.deadline_s:g} s")

    def _order(self, job: Future[T]) -> str:
        end = time.monotonic() + HEARTBEAT_S
        while time.monotonic() < end:
            if job.done():
                return "go on"
            if self.engine and not self.engine.complete:
                return "send"
            time.sleep(POLL_S)
        return "wait"

    def _send(self) -> None:
        """A collective."""
        send_weights(self.engine, self.policy.module.lm, self.version, self.expected, self.rollout, self.shared,
                     self.policy.ranks)  # fmt: skip
        with self.sent:
            self.sent.notify_all()

    def _probe_logprobs(self) -> torch.Tensor:
        """[n] log-probs of the pair's own tokens; every rank computes them, since a forward is a collective."""
        trainer = self.policy.trainer
        sequences = [TokenSequence(p.token_ids, np.arange(len(p.token_ids)) > 0, 0.0) for p in self.pair]
        rows = pack(sequences, 1, trainer.microbatch_tokens, self.policy.packing)[0]
        return torch.cat([s.logprobs for s in self.policy.inspect(rows)])

    def _gap(self, responses: Sequence[tuple[Prompt, Completion]]) -> float:
        """Of the response with the largest mean: a router's near-tie moves single tokens, lost weights move all."""
        trainer = self.policy.trainer
        worst = torch.zeros((), device=self.policy.device)
        rows = response_rows(responses, 1, trainer.microbatch_tokens, self.policy.packing)[0]
        for mb, stats in zip(rows, self.policy.inspect(rows), strict=True):
            if len(gap := logprob_gaps(mb, stats)):
                worst = torch.maximum(worst, segment_mean(gap, mb.segments[mb.trained].to(gap.device)).max())
        return float(self.policy.ranks.max(worst))


def long_enough(config: PreTrainedConfig, most: int) -> int:
    """Tokens of a prompt whose continuation lies beyond every attention window that sequences of at most `most` tokens
    can leave, and every length at which rotary embeddings change; 0 if there are none."""
    text = config.get_text_config()
    rope = getattr(text, "rope_parameters", None) or {}
    found = (getattr(text, "sliding_window", None), getattr(text, "attention_chunk_size", None),
             rope.get("original_max_position_embeddings"))  # fmt: skip
    windows = [n for n in found if isinstance(n, int) and 0 < n < most]
    return max(1, min(max(windows) + PROBE_TOKENS, most - PROBE_TOKENS)) if windows else 0


def response_rows(
    responses: Iterable[tuple[Prompt, Completion]], ranks: int, limit: int, packing: bool
) -> list[list[MicroBatch]]:
    """For each rank the rows, of at most `limit` tokens, in which all tokens of the responses count as trained."""
    samples = [Sample(prompt, c, 0.0, 0.0, all_of(len(c.token_ids))) for prompt, c in responses]
    return pack([sequence_of(s, 0.0) for s in samples], ranks, limit, packing)


def logprob_gaps(mb: MicroBatch, stats: TokenStats) -> torch.Tensor:
    """[n] absolute difference between the trainer's and the sampler's log-probs of the trained tokens, in nats."""
    return (stats.logprobs - mb.sampler_logprobs[mb.trained].to(stats.logprobs.device)).abs()


def send_weights(
    engine: RolloutEngine | None,  # None on ranks that only help to gather
    lm: PreTrainedModel,
    version: int,
    expected: Mapping[str, Kind],
    rollout: Rollout,
    shared: Shared,  # where workers on this device find a bucket
    ranks: Ranks | None = None,  # None: this process is alone
) -> None:
    """All weights to every worker, again until all workers have them. A collective.

    Raises:
        RingError: names or shapes differ from those `expected`.
    """
    complete = False
    while not complete:
        give_back(rollout, ranks)
        buckets = check_complete(weight_buckets(lm, rollout.bucket_mib << 20), expected, lm.dtype)
        walk = share(buckets, shared, ranks) if rollout.colocated else ((bucket, {}) for bucket in buckets)
        complete = engine.update(walk, version) if engine else all(True for _ in walk)
        complete = ranks.broadcast(complete) if ranks else complete


def give_back(rollout: Rollout, ranks: Ranks | None = None) -> None:
    """What this rank's allocator keeps for later, to the worker on its GPU, which wakes or starts; with `ranks` it
    returns when all have. Another process cannot use a byte of that otherwise."""
    if rollout.colocated:
        torch.cuda.empty_cache()  # does nothing without a GPU
        if ranks:
            ranks.barrier()


def share(
    buckets: Iterable[Mapping[str, torch.Tensor]], shared: Shared, ranks: Ranks | None = None
) -> Iterator[Bucket]:
    """With what the workers on this rank's device, and on those of the other `ranks`, need to map each bucket.

    Every rank keeps its copy until rank 0 asks for the next. A collective.
    """
    for bucket in buckets:
        handles = shared.put(bucket)
        everywhere = ranks.gather(handles) if ranks else [handles]
        yield bucket, {device: handle for handles in everywhere for device, handle in handles.items()}
        if ranks:
            ranks.barrier()
    shared.close()


def expected_kinds(folder: str, lm: PreTrainedModel) -> dict[str, Kind]:
    """The tensors of a folder that `lm` was loaded from and is to be sent under; without those of layers that it does
    not have, and without the second copy of a tied one.

    Raises:
        DataError: the folder has them under other names, by which an engine knows them.
    """
    stored, names = tensors(folder), written(lm, lm.config)
    if others := sorted(names.keys() - stored.keys()):
        raise DataError(f"{folder}: got other names for {len(others)} of {len(names)} tensors, expected {others[0]} "
                        f"and so on: save the model again, with ringrl sft or transformers")  # fmt: skip
    return {name: stored[name] for name in names}


def check_complete(
    buckets: Iterator[Mapping[str, torch.Tensor]], expected: Mapping[str, Kind], dtype: torch.dtype
) -> Iterator[Mapping[str, torch.Tensor]]:
    """The buckets as they are. Raises RingError unless names and shapes in all are exactly those of the checkpoint, and
    dtypes the checkpoint's, or `dtype`, the trainer's, or float32, which some buffers keep."""
    words = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}
    missing = dict(expected)
    for bucket in buckets:
        for name, tensor in bucket.items():
            got = (tuple(tensor.shape), words.get(tensor.dtype, str(tensor.dtype)))
            shape, stored = missing.pop(name, ((), "no such name"))
            if got not in ((shape, stored), (shape, words[dtype]), (shape, "F32")):
                raise RingError(f"weight sync: {name}: got {got}, expected {(shape, stored)} or {words[dtype]}")
        yield bucket
    if missing:
        raise RingError(f"weight sync: {len(missing)} tensors missing, among them {sorted(missing)[:3]}")
