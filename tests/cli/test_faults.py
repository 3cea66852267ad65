"""What breaks while a run is on its way: each ends as the table in docs/inside.md says, with nothing lost."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import (
    RANKS,
    WORKERS,
    Inputs,
    Result,
    children_of_tests,
    lines,
    meddle,
    ringrl,
    rl_config,
    timeless,
    write_yaml,
)

pytestmark = [pytest.mark.usefixtures("uneven_rewards"), pytest.mark.slow]

WHEN = """
    import os, signal, time
    import ringrl.rollout.vllm_worker as w
    {method} = w.Worker.{method}
    def broken(self, *args):
        sampling = "{method}" == "bucket" or len(self.parts) > 2  # and not answering the parity check's two probes
        if sampling and self.version == 1 and self.spec["address_file"].endswith("{which}"):
            {what}
        return {method}(self, *args)
    w.Worker.{method} = broken
"""
KILLED = "os.kill(os.getpid(), signal.SIGKILL)"
SLOW = "time.sleep(1000)"
RAISES = "raise RuntimeError('no more pages')"


def config(inputs: Inputs, folder: Path, **more: Any) -> dict[str, Any]:
    """Two ranks with experts shared out between them, two workers."""
    config = rl_config(inputs, folder / "run", **more)
    config["rollout"] |= {"engine": "vllm", "workers": 2, "concurrent": 8}
    config["trainer"] |= {"ranks": 2, "parallel": {"expert": 2, "zero": 1}}
    config["stages"][0] |= {"steps": 3}
    return config


RANK_1_DIES = """
    import os, signal
    import ringrl.rl.loop as rl
    calls, update = [], rl.Loop.update
    def broken(*args):
        calls.append(1)
        if len(calls) == 3 and os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGKILL)
        return update(*args)
    rl.Loop.update = broken
"""
DISK_FILLS = """
    from ringrl.policy.checkpoint import Writer
    begin = Writer.begin
    def broken(self, folder):
        if folder.name == "step_000003":
            try:
                with open("{filler}", "wb") as f:
                    while True:
                        f.write(bytes(1 << 12))
            except OSError:
                pass
        begin(self, folder)
    Writer.begin = broken
"""


def run(inputs: Inputs, folder: Path, *more: str) -> Result:
    return ringrl("rl", write_yaml(folder / "rl.yaml", config(inputs, folder)), *more)


@pytest.fixture(scope="module")
def undisturbed(inputs: Inputs, uneven_rewards: None, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    pytest.importorskip("vllm")
    folder = tmp_path_factory.mktemp("undisturbed")
    assert (result := run(inputs, folder)).code == 0, result.text
    return timeless(folder / "run" / "metrics.jsonl")


@pytest.mark.parametrize(
    ("method", "what", "why"),
    [
        ("step", KILLED, "ended, see logs/worker1.log"),
        ("bucket", KILLED, "worker"),
        ("bucket", RAISES, "no more pages"),
        ("step", SLOW, "did not answer within 30 s"),
    ],
    ids=["killed while it samples", "killed while weights arrive", "fails while weights arrive", "too slow"],
)
def test_a_worker_that_fails_comes_back_and_nothing_changes(
    method: str, what: str, why: str, undisturbed: list[dict[str, Any]], inputs: Inputs, tmp_path: Path
) -> None:
    sabotage = WHEN.format(method=method, what=what, which="worker1")
    with meddle(tmp_path / "meddle", WORKERS, sabotage):
        result = run(inputs, tmp_path, "rollout.deadline_s=30", "rollout.update_deadline_s=30")
    assert result.code == 0, result.text
    assert why in result.text
    assert result.text.count("starting it again") == (1 if method == "step" else 2)
    assert timeless(tmp_path / "run" / "metrics.jsonl") == undisturbed
    assert children_of_tests() == []


def test_a_worker_that_fails_again_and_again_ends_the_run(inputs: Inputs, tmp_path: Path) -> None:
    pytest.importorskip("vllm")
    sabotage = WHEN.format(method="step", what=KILLED, which="").replace('endswith("")', 'find("worker1") > 0')
    with meddle(tmp_path / "meddle", WORKERS, sabotage):
        result = run(inputs, tmp_path, "rollout.max_restarts=1")
    assert result.code == 1, result.text
    assert "restarted 1 times before (rollout.max_restarts)" in result.text
    assert "worker1 ended with -9; last lines of" in result.text
    assert len(lines(tmp_path / "run" / "metrics.jsonl")) == 1
    assert children_of_tests() == []


def test_a_rank_that_dies_ends_the_run_and_it_resumes_exactly(inputs: Inputs, tmp_path: Path) -> None:
    more = ["rollout.engine=transformers", "save_every=1"]
    with meddle(tmp_path / "meddle", RANKS, RANK_1_DIES):
        result = run(inputs, tmp_path, *more)
    assert result.code == 1, result.text
    assert "rank1 ended with -9; last lines of" in result.text
    assert children_of_tests() == []
    assert (again := run(inputs, tmp_path, *more, "--resume")).code == 0, again.text
    (other := tmp_path / "other").mkdir()
    assert run(inputs, other, *more).code == 0
    assert timeless(tmp_path / "run" / "metrics.jsonl") == timeless(other / "run" / "metrics.jsonl")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 MiB."""
    (folder := tmp_path / "disk").mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "none", str(folder)], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"mount: {done.stderr}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_ends_the_run_with_the_checkpoint_before(inputs: Inputs, small_disk: Path, tmp_path: Path) -> None:
    more = ["rollout.engine=transformers", "save_every=2", "trainer.ranks=1", "trainer.parallel.expert=1"]
    filler = small_disk / "filler"
    with meddle(tmp_path / "meddle", RANKS, DISK_FILLS.format(filler=filler)):
        result = run(inputs, small_disk, *more)
    assert result.code == 1, result.text
    assert "step_000003: the checkpoint could not be written: [Errno 28] No space left on device" in result.text
    checkpoints = small_disk / "run" / "checkpoints"
    assert [p.name for p in checkpoints.iterdir()] == ["step_000002"]
    filler.unlink()
    assert (again := run(inputs, small_disk, *more, "--resume")).code == 0, again.text
    assert [r["step"] for r in lines(small_disk / "run" / "metrics.jsonl")] == [1, 2, 3]


def test_a_damaged_checkpoint_is_refused(inputs: Inputs, tmp_path: Path) -> None:
    more = ["rollout.engine=transformers", "trainer.ranks=1", "trainer.parallel.expert=1", "stages.0.steps=1"]
    assert run(inputs, tmp_path, *more).code == 0
    (tmp_path / "run" / "finished.json").unlink()
    [file] = (tmp_path / "run" / "checkpoints" / "step_000001" / "trainer" / "engine").glob("*optim_states.pt")
    size = file.stat().st_size
    with file.open("r+b") as f:
        f.truncate(size // 2)
    result = run(inputs, tmp_path, *more, "--resume")
    assert result.code == 2, result.text
    assert f"{file}: got {size // 2} bytes, expected {size} bytes as written" in result.text
