"""What a rank makes of the launcher's specification."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing

from ringrl.config.sections import Rollout
from ringrl.errors import ChildDied
from ringrl.launch.rank import Context, told_of_others
from ringrl.run import Progress, Run


def test_a_worker_that_never_comes_is_waited_for_as_long_as_configured(tmp_path: Path):
    spec = {
        "engine": "vllm",
        "addresses": [str(tmp_path / "address")],
        "authkey": "00",
        "restarts": False,
        "meeting": "",
    }
    context = Context(Run(tmp_path), Progress(None), spec)
    with pytest.raises(ChildDied, match=r"worker 0 at .*address did not start within 0\.1 s"):
        context.rollout_engine("model", Rollout(start_deadline_s=0.1))


def test_the_words_of_torch_for_a_rank_that_does_not_answer_are_known(tmp_path: Path):
    """Nobody else meets here; a library that says it in other words fails this."""
    store = dist.FileStore(str(tmp_path / "store"), 2)
    store.set_timeout(timedelta(seconds=0.1))
    with pytest.raises(RuntimeError) as late:
        store.get("a key")
    assert told_of_others(late.value) == "did not answer within 0.1 s"
    with pytest.raises(RuntimeError) as late:
        dist.ProcessGroupGloo(store, 0, 2, timedelta(seconds=0.1))
    assert told_of_others(late.value) == "did not answer in time"
    assert told_of_others(RuntimeError("a bug")) == told_of_others(ValueError("Connection closed by peer")) == ""


@pytest.mark.slow
@pytest.mark.parametrize(("how", "said"), [("sleeps", "did not answer within 1 s"), ("ends", "ended")])
def test_the_words_of_gloo_for_a_rank_that_is_late_or_gone_are_known(how: str, said: str, tmp_path: Path):
    other = torch.multiprocessing.get_context("spawn").Process(target=join_and_leave, args=(str(tmp_path), how))
    other.start()
    group = joined(str(tmp_path), 0)
    if how == "ends":
        add_up(group, 60)
    with pytest.raises(RuntimeError) as error:
        add_up(group, 60 if how == "ends" else 1)
    assert told_of_others(error.value) == said
    other.kill()
    other.join()


def join_and_leave(folder: str, how: str) -> None:
    group = joined(folder, 1)
    if how == "ends":
        add_up(group, 60)
        os._exit(0)
    time.sleep(600)


def joined(folder: str, rank: int) -> Any:
    return dist.ProcessGroupGloo(dist.FileStore(f"{folder}/store", 2), rank, 2, timedelta(seconds=60))


def add_up(group: Any, seconds: float) -> None:
    options = dist.AllreduceOptions()
    options.timeout = timedelta(seconds=seconds)
    group.allreduce([torch.ones(1)], options).wait()
