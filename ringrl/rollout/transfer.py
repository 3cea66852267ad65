"""Sends weights from the trainer to the workers, a bucket at a time.

Two transports, one wire format (concatenated bytes of tensors): a broadcast over a separate process group, NCCL between
GPUs and gloo on the CPU; or, where trainer and workers share a device, memory that both map: CUDA IPC, and a file in
/dev/shm on the CPU. Trainer and workers both use this file.
"""

from __future__ import annotations

import base64
import inspect
import pickle
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.multiprocessing.reductions import rebuild_cuda_tensor, reduce_tensor

from ringrl.errors import require

Weights = Mapping[str, torch.Tensor]  # a bucket, under the names of the Hugging Face checkpoint


@dataclass(frozen=True, slots=True)
class TensorSpec:
    name: str
    dtype: str  # "float32", "bfloat16", ...
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return torch.Size(self.shape).numel() * getattr(torch, self.dtype).itemsize


def specs(bucket: Weights) -> list[TensorSpec]:
    return [TensorSpec(n, str(t.dtype).removeprefix("torch."), tuple(t.shape)) for n, t in bucket.items()]


def flatten(bucket: Weights, device: torch.device) -> torch.Tensor:
    """[bytes] uint8, in the order of `specs`."""
    return torch.cat([t.detach().contiguous().view(-1).view(torch.uint8).to(device) for t in bucket.values()])


def unflatten(raw: torch.Tensor, tensors: Sequence[TensorSpec]) -> Iterator[tuple[str, torch.Tensor]]:
    for spec, part in zip(tensors, raw.split([s.nbytes for s in tensors]), strict=True):
        # a slice may be misaligned for its dtype; clone aligns it
        yield spec.name, part.clone().view(getattr(torch, spec.dtype)).view(spec.shape)


class TransferGroup:
    """A process group beside the trainer's and vLLM's; rank 0 is the trainer. Every wait ends after `deadline_s`."""

    def __init__(self, host: str, port: int, rank: int, size: int, device: torch.device, deadline_s: float) -> None:
        timeout = timedelta(seconds=deadline_s)
        self.store = dist.TCPStore(host, port, size, rank == 0, timeout, wait_for_workers=False)
        prefixed = dist.PrefixStore("ringrl/weights", self.store)
        kind: Any = dist.ProcessGroupGloo if device.type == "cpu" else dist.ProcessGroupNCCL
        self.group = kind(prefixed, rank, size, timeout)
        self.device, self.timeout = device, timeout

    def send(self, bucket: Weights) -> None:
        self._broadcast(flatten(bucket, self.device))

    def receive(self, tensors: Sequence[TensorSpec]) -> Iterator[tuple[str, torch.Tensor]]:
        raw = torch.empty(sum(s.nbytes for s in tensors), dtype=torch.uint8, device=self.device)
        self._broadcast(raw)
        return unflatten(raw, tensors)

    def _broadcast(self, raw: torch.Tensor) -> None:
        options = dist.BroadcastOptions()
        options.rootRank, options.rootTensor, options.timeout = 0, 0, self.timeout
        self.group.broadcast([raw], options).wait()


class Shared:
    """A bucket in memory that processes on the same device can map, until `close`."""

    def __init__(self, bucket: Weights, device: torch.device, file: Path) -> None:
        self.raw, self.file = flatten(bucket, device), file
        if device.type == "cpu":
            torch.from_file(str(file), shared=True, size=self.raw.numel(), dtype=torch.uint8).copy_(self.raw)
            handle = str(file)
        else:
            require("torch", torch.__version__, "2.13", "3")  # the tuple's layout is not documented
            handle = base64.b64encode(pickle.dumps(reduce_tensor(self.raw)[1])).decode()
        self.handles = {device_id(device): handle}  # device id -> handle

    def close(self) -> None:
        self.file.unlink(missing_ok=True)


def map_shared(handles: Mapping[str, str], device: torch.device, tensors: Sequence[TensorSpec]) -> torch.Tensor:
    """[bytes] uint8, the bucket that the trainer rank on this device shares."""
    handle = handles[device_id(device)]
    if device.type == "cpu":
        return torch.from_file(handle, shared=True, size=sum(s.nbytes for s in tensors), dtype=torch.uint8)
    call = inspect.signature(rebuild_cuda_tensor).bind(*pickle.loads(base64.b64decode(handle)))
    assert "storage_device" in call.arguments
    call.arguments["storage_device"] = device.index  # the trainer may number devices differently
    return rebuild_cuda_tensor(*call.args)


def device_id(device: torch.device) -> str:
    """An id of the device that is the same in all processes, however they number it."""
    return "cpu" if device.type == "cpu" else str(torch.cuda.get_device_properties(device).uuid)
