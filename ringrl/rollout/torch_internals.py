"""A CUDA tensor as a handle that another process can open: torch shares tensors by these two functions, and offers them
only through its own queues. `tests/rollout/test_torch_internals.py` fails when they have changed."""

from __future__ import annotations

import base64
import inspect
import pickle

import torch
from torch.multiprocessing.reductions import rebuild_cuda_tensor, reduce_tensor

from ringrl.versions import require


def cuda_handle(tensor: torch.Tensor) -> str:
    """Valid as long as the tensor lives."""
    require("torch", torch.__version__, "2.13", "3")
    return base64.b64encode(pickle.dumps(reduce_tensor(tensor)[1])).decode()


def open_cuda_handle(handle: str, device: int) -> torch.Tensor:
    """The tensor, in the process that calls the same GPU by the index `device`."""
    require("torch", torch.__version__, "2.13", "3")
    call = inspect.signature(rebuild_cuda_tensor).bind(*pickle.loads(base64.b64decode(handle)))
    assert "storage_device" in call.arguments
    call.arguments["storage_device"] = device
    return rebuild_cuda_tensor(*call.args)
