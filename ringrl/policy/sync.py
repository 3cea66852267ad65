"""Trainer weights into the rollout engine, and the proof that they arrived.

Every push sends all weights under checkpoint names, a bucket at a time, checks names and shapes against the start
model's files, and compares the log-probs of a freshly sampled continuation of one fixed prompt on every worker with the
trainer's own. The caller stops at a gap above its limit: a sampler with stale or broken weights trains nothing.

Gathering weights needs all ranks, and only rank 0 sees the workers: `lead` is how a worker that was started again in
the middle of a rollout gets its weights.
"""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import safe_open
from transformers import PreTrainedModel

from ringrl.algo.loss import segment_mean
from ringrl.algo.pack import TokenSequence, pack, sequence_of
from ringrl.config.sections import Rollout
from ringrl.errors import RingError
from ringrl.policy.engine import Policy
from ringrl.policy.experts import weight_buckets
from ringrl.policy.forward import TokenStats
from ringrl.policy.ranks import HEARTBEAT_S, Ranks
from ringrl.rollout.engine import Bucket, RolloutEngine, Sampling
from ringrl.rollout.transfer import Shared
from ringrl.types import Completion, MicroBatch, Prompt, Sample

T = TypeVar("T")

PROBE_TOKENS = 32  # sampled per worker and sync
POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class Parity:
    """What one push showed."""

    gap: float  # mean difference between trainer and worker log-probs of a continuation, the worst worker's, in nats
    shift: float  # mean change of the trainer's log-probs of the probe's own tokens since the last push, in nats


class WeightSync:
    """On every rank; only rank 0 holds an engine."""

    def __init__(
        self,
        policy: Policy,
        engine: RolloutEngine | None,
        model: str,  # the start model's folder
        probe: Prompt,
        sampling: Sampling,  # how the probe is continued
        rollout: Rollout,
        folder: Path,  # in memory; holds weights that workers map
    ) -> None:
        self.policy, self.engine, self.probe, self.rollout, self.folder = policy, engine, probe, rollout, folder
        length = min(sampling.max_total_tokens, len(probe.token_ids) + PROBE_TOKENS)
        self.logprobs = torch.empty(0)  # the trainer's, of the probe's tokens, at the last push
        self.sampling = replace(sampling, samples=1, max_total_tokens=length)
        self.expected = checkpoint_kinds(model)
        self.version = 0
        self.sent = threading.Condition()  # notified when all workers have weights

    def push(self, version: int) -> Parity:
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
        ranks = self.policy.ranks
        completions: list[Completion] = []
        while not completions:  # none when a worker failed meanwhile
            self._send()
            completions = ranks.broadcast(self.engine.probe(self.probe, self.sampling) if self.engine else None)
        return Parity(self._gap(completions), shift)

    def lead(self, job: Future[T]) -> T:
        """Wait for a job of rank 0 that samples; every rank is here, and sends weights when a worker needs them again.

        Returns the job's result; on the other ranks, that of a job of their own, which is done.
        """
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
        policy, file = self.policy, self.folder / f"bucket{self.policy.ranks.rank}"
        send_weights(self.engine, policy.module.lm, self.version, self.expected, self.rollout, policy.device, file,
                     policy.ranks)  # fmt: skip
        with self.sent:
            self.sent.notify_all()

    def _probe_logprobs(self) -> torch.Tensor:
        """[P - 1] log-probs of the probe's own tokens; every rank computes them, since a forward is a collective."""
        ids, ranks = self.probe.token_ids, self.policy.ranks
        sequences = [TokenSequence(ids, (False,) + (True,) * (len(ids) - 1), 0.0)] * ranks.size
        return torch.cat([s.logprobs for s in self.policy.inspect(pack(sequences, ranks.size, len(ids))[ranks.rank])])

    def _gap(self, completions: list[Completion]) -> float:
        """Of the continuation with the largest mean: a router's near-tie moves single tokens, lost weights move all."""
        ranks = self.policy.ranks
        worst = torch.zeros((), device=self.policy.device)
        responses = [(self.probe, c) for c in completions]
        rows = response_rows(responses, ranks.size, 1 << 30, self.policy.packing)[ranks.rank]
        for mb, stats in zip(rows, self.policy.inspect(rows), strict=True):
            if len(gap := logprob_gaps(mb, stats)):
                worst = torch.maximum(worst, segment_mean(gap, mb.segments[mb.trained].to(gap.device)).max())
        return float(ranks.max(worst))


def response_rows(
    responses: Iterable[tuple[Prompt, Completion]], ranks: int, limit: int, packing: bool
) -> list[list[MicroBatch]]:
    """For each rank the rows, of at most `limit` tokens, in which all tokens of the responses count as trained."""
    samples = [Sample(prompt, c, 0.0, 0.0, len(c.token_ids)) for prompt, c in responses]
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
    device: torch.device,
    file: Path,  # in memory; holds weights that workers map
    ranks: Ranks | None = None,  # None: this process is alone
) -> None:
    """All weights to every worker, again until all workers have them. A collective.

    Raises:
        RingError: names or shapes differ from those `expected`.
    """
    complete = False
    while not complete:
        buckets = check_complete(weight_buckets(lm, rollout.bucket_mib << 20), expected, lm.dtype)
        walk = share(buckets, device, file, ranks) if rollout.colocated else ((bucket, {}) for bucket in buckets)
        complete = engine.update(walk, version) if engine else all(True for _ in walk)
        complete = ranks.broadcast(complete) if ranks else complete


def share(
    buckets: Iterable[Mapping[str, torch.Tensor]], device: torch.device, file: Path, ranks: Ranks | None = None
) -> Iterator[Bucket]:
    """With what the workers on this rank's device, and on those of the other `ranks`, need to map each bucket.

    Every rank keeps its copy until rank 0 asks for the next. A collective.
    """
    for bucket in buckets:
        shared = Shared(bucket, device, file)
        everywhere = ranks.gather(shared.handles) if ranks else [shared.handles]
        yield bucket, {device: handle for handles in everywhere for device, handle in handles.items()}
        if ranks:
            ranks.barrier()
        shared.close()


Kind = tuple[tuple[int, ...], str]  # a tensor's shape, and its dtype in safetensors' words


def checkpoint_kinds(folder: str) -> dict[str, Kind]:
    """Names, shapes and dtypes of all tensors in a Hugging Face folder, from the file headers."""
    index = Path(folder) / "model.safetensors.index.json"
    files = set(json.loads(index.read_text())["weight_map"].values()) if index.is_file() else {"model.safetensors"}
    kinds: dict[str, Kind] = {}
    for file in sorted(files):
        with safe_open(str(Path(folder) / file), "pt") as f:
            for name in f.keys():  # noqa: SIM118
                stored = f.get_slice(name)
                kinds[name] = tuple(stored.get_shape()), stored.get_dtype()
    return kinds


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
