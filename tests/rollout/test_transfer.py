"""Memory that the trainer shares and a worker maps, and what that takes for granted of the torch that is installed."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple
from datetime import timedelta
from pathlib import Path

import pytest

from ringrl.launch.machine import listening
from tests.conftest import listens_at

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
    shared = Shared(torch.device(device), tmp_path / "bucket", 4)
    shared.put({"before": torch.ones(2, dtype=torch.uint8)})
    args = [json.dumps(shared.put(bucket)), json.dumps([astuple(s) for s in specs(bucket)]), device]
    done = subprocess.run([sys.executable, "-c", MAP, *args], capture_output=True, text=True, check=True, timeout=120)
    assert json.loads(done.stdout) == {"a": [0, 1, 2], "b": [[1.5], [-2.0]]}
    shared.close()
    assert not (tmp_path / "bucket").exists()


@pytest.mark.parametrize("local", [True, False], ids=["one machine", "several"])
def test_weights_are_broadcast_and_only_the_address_that_was_named_listens(
    local: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import torch

    from ringrl.rollout.transfer import Meeting, TensorSpec, TransferGroup

    for name, value in listening("127.0.0.1").items():
        monkeypatch.setenv(name, value)
    cpu, bucket = torch.device("cpu"), {"a": torch.tensor([1.5, -2.0])}
    meeting = Meeting("127.0.0.1", tmp_path if local else None)
    assert set(meeting.place) == ({"file"} if local else {"host", "port", "name"})
    with ThreadPoolExecutor(1) as pool:
        joined = pool.submit(TransferGroup, json.loads(json.dumps(meeting.place)), 1, 2, cpu, 120)
        sender = TransferGroup(meeting, 0, 2, cpu, 120)
        receiver = joined.result()
        assert listens_at() == {"127.0.0.1"}
        arrived = pool.submit(lambda: dict(receiver.receive([TensorSpec("a", "float32", (2,))])))
        sender.send(bucket)
        assert arrived.result()["a"].tolist() == [1.5, -2.0]


def test_a_handle_of_shared_memory_is_json_and_names_no_class() -> None:
    """With what torch makes on a GPU; that it can be opened is the test above, where there is one."""
    import torch

    from ringrl.rollout.transfer import described

    args = (torch.Tensor, torch.Size([9]), (1,), 0, torch.TypedStorage, torch.uint8, 3, b"\x00\xffhandle", 512, 64,
            False, b"counter", 7, b"event", True)  # fmt: skip
    said = json.loads(described(args))
    assert said["storage_handle"] == b"\x00\xffhandle".hex()
    assert said.keys().isdisjoint({"tensor_cls", "storage_cls", "dtype"})
    assert all(isinstance(v, int | str | list) for v in said.values())
    with pytest.raises(AssertionError):
        described((*args[:5], torch.int8, *args[6:]))


@pytest.mark.parametrize("absent", ["sender", "receiver", "joined"])
def test_whoever_waits_for_a_silent_member_is_told_within_the_deadline(
    absent: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import torch

    from ringrl.rollout.transfer import Meeting, TensorSpec, TransferGroup

    for name, value in listening("127.0.0.1").items():
        monkeypatch.setenv(name, value)
    cpu, n = torch.device("cpu"), 1 << 22
    meeting = Meeting("127.0.0.1", tmp_path)
    if absent == "joined":
        with pytest.raises(RuntimeError):
            TransferGroup(meeting, 0, 2, cpu, 0.5)
        return
    with ThreadPoolExecutor(1) as pool:
        joined = pool.submit(TransferGroup, meeting.place, 1, 2, cpu, 120)
        sender = TransferGroup(meeting, 0, 2, cpu, 120)
        receiver = joined.result()
    sender.timeout = receiver.timeout = timedelta(seconds=0.5)
    waits: Callable[[], object] = {
        "receiver": lambda: sender.send({"a": torch.zeros(n)}),
        "sender": lambda: receiver.receive([TensorSpec("a", "float32", (n,))]),
    }[absent]
    with pytest.raises(RuntimeError):
        waits()
    sender.abort()


@pytest.mark.parametrize("users", [None, "3"])
def test_only_the_transfer_group_is_made_with_waits_that_raise(
    users: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Rank 0 does not wait: it hears from the workers. Torch without CUDA has no NCCL, so its group is written down."""
    import torch
    import torch.distributed as dist

    from ringrl.rollout.transfer import Meeting, TransferGroup

    names = ("TORCH_NCCL_ASYNC_ERROR_HANDLING", "TORCH_NCCL_BLOCKING_WAIT")
    if users is None:
        monkeypatch.delenv(names[0], raising=False)
    else:
        monkeypatch.setenv(names[0], users)
    made: list[tuple[str | None, ...]] = []

    class Group:
        Options = object

        def __init__(self, store: dist.Store, rank: int, size: int, options: object) -> None:
            made.append((*map(os.environ.get, names), str(rank)))

        def set_timeout(self, timeout: timedelta) -> None:
            made[-1] += (str(timeout.total_seconds()),)

        def abort(self) -> None:
            made.append(("aborted",))

    monkeypatch.setattr(dist, "ProcessGroupNCCL", Group, raising=False)
    for rank in (0, 1):
        TransferGroup(Meeting("127.0.0.1", tmp_path).place, rank, 2, torch.device("cuda:0"), 5.0).abort()
    assert made == [("0", "0", "0", "5.0"), ("aborted",), ("0", "1", "1", "5.0"), ("aborted",)]
    assert [os.environ.get(name) for name in names] == [users, None]
