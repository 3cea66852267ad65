"""Weights from the trainer to the workers: one broadcast per bucket, gloo on the CPU, NCCL between GPUs.

Rank 0 is the trainer; ranks from 1 on are the engine processes. Both sides use this file, so they agree on the
wire format: tensors are laid end to end as bytes, and cut into buckets of whole tensors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

BUCKET_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class TensorSpec:
    name: str
    dtype: str  # "float32", "bfloat16", ...
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return torch.Size(self.shape).numel() * getattr(torch, self.dtype).itemsize


def specs(weights: Mapping[str, torch.Tensor]) -> list[TensorSpec]:
    return [TensorSpec(n, str(t.dtype).removeprefix("torch."), tuple(t.shape)) for n, t in weights.items()]


def buckets(tensors: Sequence[TensorSpec]) -> list[list[TensorSpec]]:
    """Consecutive tensors, at most BUCKET_BYTES together unless one alone is larger."""
    out: list[list[TensorSpec]] = []
    used = 0
    for spec in tensors:
        if not out or used + spec.nbytes > BUCKET_BYTES:
            out.append([])
            used = 0
        out[-1].append(spec)
        used += spec.nbytes
    return out


class TransferGroup:
    """A process group of its own beside the trainer's and vLLM's. Every wait ends after `deadline_s`."""

    def __init__(self, host: str, port: int, rank: int, size: int, device: torch.device, deadline_s: float) -> None:
        timeout = timedelta(seconds=deadline_s)
        self.store = dist.TCPStore(host, port, size, rank == 0, timeout, wait_for_workers=False)
        prefixed = dist.PrefixStore("ringrl/weights", self.store)
        kind: Any = dist.ProcessGroupGloo if device.type == "cpu" else dist.ProcessGroupNCCL
        self.group = kind(prefixed, rank, size, timeout)
        self.device, self.timeout = device, timeout

    def send(self, weights: Mapping[str, torch.Tensor]) -> None:
        for bucket in buckets(specs(weights)):
            flat = [weights[s.name].detach().contiguous().view(-1).view(torch.uint8) for s in bucket]
            self._broadcast(torch.cat([f.to(self.device) for f in flat]))

    def receive(self, tensors: Sequence[TensorSpec]) -> Iterator[tuple[str, torch.Tensor]]:
        for bucket in buckets(tensors):
            raw = torch.empty(sum(s.nbytes for s in bucket), dtype=torch.uint8, device=self.device)
            self._broadcast(raw)
            for spec, part in zip(bucket, raw.split([s.nbytes for s in bucket]), strict=True):
                # a slice may start at an odd address; clone gives it one of its own
                yield spec.name, part.clone().view(getattr(torch, spec.dtype)).view(spec.shape)

    def _broadcast(self, raw: torch.Tensor) -> None:
        options = dist.BroadcastOptions()
        options.rootRank, options.rootTensor, options.timeout = 0, 0, self.timeout
        self.group.broadcast([raw], options).wait()
