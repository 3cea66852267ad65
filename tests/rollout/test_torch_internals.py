"""What `ringrl.rollout.torch_internals` takes for granted, against the torch that is installed."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest


def test_torch_opens_a_shared_tensor_on_the_device_of_a_parameter_of_this_name() -> None:
    from torch.multiprocessing.reductions import rebuild_cuda_tensor

    assert "storage_device" in inspect.signature(rebuild_cuda_tensor).parameters


OPEN = """
import sys, torch
from ringrl.rollout.torch_internals import open_cuda_handle
print(open_cuda_handle(sys.argv[1], 0).tolist())
"""


def test_another_process_opens_a_handle() -> None:
    import torch

    from ringrl.rollout.torch_internals import cuda_handle

    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    tensor = torch.arange(4, device="cuda")
    command = [sys.executable, "-c", OPEN, cuda_handle(tensor)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[0, 1, 2, 3]"
