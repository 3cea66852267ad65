"""The training processes as one: who we are, and the few collectives that the loops need."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist

from ringrl.algo.pack import Row, microbatch
from ringrl.data.arrays import aligned, join, split, views
from ringrl.types import MicroBatch

T = TypeVar("T")
HEARTBEAT_S = 20.0  # how often waiting ranks hear from rank 0


class Ranks:
    """Process groups of the trainer; every wait has the given deadline.

    Tensors on a GPU go over NCCL, all else and everything on the CPU over gloo: whoever waits in a kernel of NCCL takes
    its GPU from the worker that samples there.

    Reads the usual RANK and WORLD_SIZE, and without a folder MASTER_ADDR and MASTER_PORT, through torch, so that
    `ringrl`, torchrun and `accelerate launch` all start it.

    Args:
        folder: where ranks of one machine meet; only who may open a file there can take a rank's place.
    """

    def __init__(self, deadline_s: float, folder: str = "") -> None:
        warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed|deepspeed")
        import deepspeed
        from accelerate.state import PartialState

        from ringrl.policy.deepspeed_internals import skip_cpu_extension

        cpu = not torch.cuda.is_available()
        if cpu:
            skip_cpu_extension()
        backend = "gloo" if cpu else "nccl"
        place = f"file://{folder}/ranks" if folder else None
        rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        timeout = timedelta(seconds=deadline_s)
        deepspeed.init_distributed(
            backend, verbose=False, timeout=timeout, init_method=place, rank=rank, world_size=size
        )
        self.control = dist.new_group(backend="gloo", timeout=timeout)
        PartialState(backend=backend)  # else accelerate believes that every CPU rank is alone
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self.main = self.rank == 0

    def scatter(self, items: Sequence[T] | None) -> T:
        """One item for every rank, given on rank 0."""
        received: list[Any] = [None]
        dist.scatter_object_list(received, list(items) if items is not None else None, 0, self.control)
        return received[0]

    def scatter_rows(self, shares: Sequence[list[list[Row]]]) -> list[list[MicroBatch]]:
        """This rank's microbatches [updates][rows], of the rows [ranks][updates][rows] that rank 0 has laid out.

        They go as one buffer a rank, whatever the number of arrays in it.
        """
        if self.main:
            headers, bodies = [], []
            for share in shares[1:]:
                arrays: list[np.ndarray] = []
                tree = split([[row.values for row in update] for update in share], arrays)
                kinds, parts = aligned(arrays)
                headers.append((tree, kinds, sum(map(len, parts))))
                bodies.append(parts)
            self.scatter([None, *headers])
            for rank, parts in enumerate(bodies, 1):
                dist.send(torch.frombuffer(bytearray().join(parts), dtype=torch.uint8), rank, self.control)
            own = shares[0]
        else:
            header: Any = self.scatter(None)
            tree, kinds, size = header
            dist.recv(buffer := torch.empty(size, dtype=torch.uint8), 0, self.control)
            own = [[Row(**row) for row in update] for update in join(tree, views(kinds, buffer.numpy()))]
        return [[microbatch(row) for row in update] for update in own]

    def broadcast(self, item: T | None) -> T:
        """Rank 0's item on every rank."""
        received: list[Any] = [item]
        dist.broadcast_object_list(received, 0, self.control)
        return received[0]

    def newest(self, checkpoints: Sequence[Path]) -> Path | None:
        """Rank 0's newest: on a network file system other machines may not see it yet."""
        return self.broadcast(checkpoints[-1] if checkpoints else None)

    def wait_for_main(self, work: Callable[[], T]) -> T | None:
        """Rank 0 does work that may take longer than a collective; the others hear from it meanwhile.

        Returns the result, on rank 0.
        """
        with ThreadPoolExecutor(1) as thread:
            job = thread.submit(work) if self.main else None
            while not self.broadcast(bool(job and wait([job], HEARTBEAT_S).done)):
                pass
            return job.result() if job else None

    def gather(self, item: T) -> list[T]:
        """Every rank's item, on every rank."""
        received: list[Any] = [None] * self.size
        dist.all_gather_object(received, item, self.control)
        return received

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """Sum over ranks, in place."""
        dist.all_reduce(tensor)
        return tensor

    def max(self, tensor: torch.Tensor) -> torch.Tensor:
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
        return tensor

    def barrier(self) -> None:
        dist.barrier(self.control)

    def close(self) -> None:
        dist.destroy_process_group()
