"""Memory that the trainer shares and a worker maps, and what that takes for granted of the torch that is installed."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from dataclasses import astuple
from pathlib import Path

import pytest

MAP = """
import json, sys, torch
from ringrl.rollout.transfer import TensorSpec, map_shared, unflatten
handles, specs = json.loads(sys.argv[1]), [TensorSpec(n, d, tuple(s)) for n, d, s in json.loads(sys.argv[2])]
raw = map_shared(handles, torch.device(sys.argv[3]), specs)
print(json.dumps({n: t.tolist() for n, t in unflatten(raw, specs)}))
"""


def test_torch_opens_a_shared_tensor_on_the_device_of_a_parameter_of_this_name() -> None:
    from torch.multiprocessing.reductions import rebuild_cuda_tensor

    assert "storage_device" in inspect.signature(rebuild_cuda_tensor).parameters


@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
def test_another_process_maps_a_bucket(device: str, tmp_path: Path) -> None:
    import torch

    from ringrl.rollout.transfer import Shared, specs

    if device != "cpu" and not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    bucket = {"a": torch.arange(3, dtype=torch.bfloat16), "b": torch.tensor([[1.5], [-2.0]])}
    shared = Shared(bucket, torch.device(device), tmp_path / "bucket")
    args = [json.dumps(shared.handles), json.dumps([astuple(s) for s in specs(bucket)]), device]
    done = subprocess.run([sys.executable, "-c", MAP, *args], capture_output=True, text=True, check=True, timeout=120)
    assert json.loads(done.stdout) == {"a": [0, 1, 2], "b": [[1.5], [-2.0]]}
    shared.close()
    assert not (tmp_path / "bucket").exists()
