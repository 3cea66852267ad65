"""Sends weights from the trainer to the workers, a bucket at a time.

Two transports, one wire format (concatenated bytes of tensors): a broadcast over a separate process group, NCCL between
GPUs and gloo on the CPU; or, where trainer and workers share a device, memory that both map: CUDA IPC, and a file in
/dev/shm on the CPU. Trainer and workers both use this file.
"""

from __future__ import annotations

import functools
import inspect
import json
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.multiprocessing.reductions import rebuild_cuda_tensor, reduce_tensor

from ringrl.errors import require
from ringrl.rollout.channel import bound

KINDS = {"tensor_cls": torch.Tensor, "storage_cls": torch.TypedStorage, "dtype": torch.uint8}  # of a shared bucket
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


class Meeting:
    """Where the members of a TransferGroup find each other: a file that only this user's processes can open, or, with
    members on other machines, a port of the one address that they reach rank 0 at. torch's store asks nobody for a
    secret, but its keys are unknown to whoever was not sent `place` over an authenticated channel."""

    def __init__(self, host: str, folder: Path | None) -> None:
        name = secrets.token_hex(16)
        self.place: dict[str, Any] = {"file": str(folder / name)} if folder else {"host": host, "name": name}
        self.sock = None if folder else bound(host, 0)
        if self.sock:
            self.place["port"] = self.sock.getsockname()[1]

    def store(self, size: int, timeout: timedelta) -> dist.Store:
        """Of rank 0, who may call it once."""
        if self.sock is None:
            return _store(self.place, size, timeout)
        server = dist.TCPStore(self.place["host"], self.place["port"], size, True, timeout, wait_for_workers=False,
                               master_listen_fd=self.sock.detach())  # fmt: skip
        return dist.PrefixStore(self.place["name"], server)


def _store(place: Mapping[str, Any], size: int, timeout: timedelta) -> dist.Store:
    if "file" in place:
        file = dist.FileStore(place["file"], size)
        file.set_timeout(timeout)
        return file
    server = dist.TCPStore(place["host"], place["port"], size, False, timeout, wait_for_workers=False)
    return dist.PrefixStore(place["name"], server)


def _nccl(store: dist.Store, rank: int, size: int, timeout: timedelta) -> Any:
    # a group reads these when it is made. With the first, torch does not end the process of a member that waits for one
    # that is gone; with the second, a receiver's wait lasts until the bucket is there or late, and raises. Rank 0 does
    # not wait: it hears from the workers, and aborts
    set_here = {"TORCH_NCCL_ASYNC_ERROR_HANDLING": "0", "TORCH_NCCL_BLOCKING_WAIT": str(int(rank > 0))}
    before = dict(os.environ)
    os.environ.update(set_here)
    try:
        group: Any = dist.ProcessGroupNCCL(store, rank, size, dist.ProcessGroupNCCL.Options())
    finally:
        for name in set_here:
            os.environ.pop(name)
        os.environ.update({name: before[name] for name in set_here if name in before})
    group.set_timeout(timeout)
    return group


class TransferGroup:
    """A process group beside the trainer's and vLLM's; rank 0 is the trainer. Every wait ends after `deadline_s`, with
    a RuntimeError if a member is missing by then. On GPUs rank 0 does not wait.

    Args:
        meeting: a Meeting on rank 0, its `place` on the others.
    """

    def __init__(
        self, meeting: Meeting | dict[str, Any], rank: int, size: int, device: torch.device, deadline_s: float
    ) -> None:
        timeout = timedelta(seconds=deadline_s)
        if isinstance(meeting, Meeting):
            self.store = meeting.store(size, timeout)
        else:
            self.store = _store(meeting, size, timeout)
        make: Any = dist.ProcessGroupGloo if device.type == "cpu" else _nccl
        self.group = make(self.store, rank, size, timeout)
        self.device, self.timeout = device, timeout

    def send(self, bucket: Weights) -> None:
        self._broadcast(flatten(bucket, self.device))

    def receive(self, tensors: Sequence[TensorSpec]) -> Iterator[tuple[str, torch.Tensor]]:
        raw = torch.empty(sum(s.nbytes for s in tensors), dtype=torch.uint8, device=self.device)
        self._broadcast(raw)
        return unflatten(raw, tensors)

    def abort(self) -> None:
        """Ends what this member waits for on its device, where it would hold up all that comes after it."""
        if self.device.type != "cpu":
            self.group.abort()

    def _broadcast(self, raw: torch.Tensor) -> None:
        options = dist.BroadcastOptions()
        options.rootRank, options.rootTensor, options.timeout = 0, 0, self.timeout
        self.group.broadcast([raw], options).wait()


class Shared:
    """One buffer for the buckets of a run, one after the other, in memory that processes on the same device can map.

    It is exported once: torch gives what was exported back only when a receiver has let go of it, and on some ranks'
    devices there is none.
    """

    def __init__(self, device: torch.device, file: Path, size: int) -> None:
        self.device, self.file, self.size = device, file, size
        self.raw = torch.empty(0, dtype=torch.uint8)
        self.handles: dict[str, str] = {}  # device id -> handle

    def put(self, bucket: Weights) -> dict[str, str]:
        """Replaces what was there, which all receivers must have read. Returns the handles."""
        size = sum(t.nbytes for t in bucket.values())
        if size > len(self.raw):
            self._allocate(max(size, self.size))
        at = 0
        for t in bucket.values():
            self.raw[at : at + t.nbytes].copy_(t.detach().contiguous().view(-1).view(torch.uint8))
            at += t.nbytes
        if self.device.type == "cuda":
            torch.cuda.current_stream(self.device).synchronize()  # the receiver's stream knows nothing of ours
        return self.handles

    def _allocate(self, size: int) -> None:
        if self.device.type == "cpu":
            self.raw = torch.from_file(str(self.file), shared=True, size=size, dtype=torch.uint8)
            handle = str(self.file)
        else:
            require("torch", torch.__version__, "2.11", "3")  # the tuple's layout is not documented
            self.raw = torch.empty(size, dtype=torch.uint8, device=self.device)
            handle = described(reduce_tensor(self.raw)[1])
        self.handles = {device_id(self.device): handle}

    def close(self) -> None:
        """Nothing more is sent for now; a device keeps its buffer."""
        if self.device.type == "cpu":
            self.raw = torch.empty(0, dtype=torch.uint8)
            self.file.unlink(missing_ok=True)


def map_shared(handles: Mapping[str, str], device: torch.device, tensors: Sequence[TensorSpec]) -> torch.Tensor:
    """[bytes] uint8, the bucket that the trainer rank on this device shares; on a GPU a copy of it, which is complete:
    the next bucket may take its place."""
    handle, size = handles[device_id(device)], sum(s.nbytes for s in tensors)
    if device.type == "cpu":
        return torch.from_file(handle, shared=True, size=size, dtype=torch.uint8)
    copy = _mapped(handle, device.index)[:size].clone()
    torch.cuda.current_stream(device).synchronize()
    return copy


@functools.cache  # a handle is good for one receipt
def _mapped(handle: str, index: int) -> torch.Tensor:
    known = json.loads(handle) | KINDS
    known["storage_device"] = index  # the trainer may number devices differently
    return rebuild_cuda_tensor(**{k: bytes.fromhex(v) if isinstance(v, str) else v for k, v in known.items()})


def described(args: Sequence[Any]) -> str:
    """JSON of the arguments that rebuild a shared tensor, without KINDS."""
    known = inspect.signature(rebuild_cuda_tensor).bind(*args).arguments
    assert "storage_device" in known
    assert all(known.pop(key) is kind for key, kind in KINDS.items())
    return json.dumps({k: v.hex() if isinstance(v, bytes) else v for k, v in known.items()})


def device_id(device: torch.device) -> str:
    """An id of the device that is the same in all processes, however they number it."""
    return "cpu" if device.type == "cpu" else str(torch.cuda.get_device_properties(device).uuid)
