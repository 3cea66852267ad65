"""A run with trackers and hooks of the user's: good ones, and some that fail, hang or do nothing."""

from __future__ import annotations

import json
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from ringrl.config.commands import EvalConfig
from ringrl.config.data import DataConfig
from ringrl.track.feed import numbers_of
from tests.cli.test_sft import sft_config
from tests.conftest import Inputs, lines, ringrl, ringrl_until, timeless, write_yaml

MINE = '''
import json, shutil, time
from pathlib import Path

HERE = Path(__file__).parent

class Recorder:
    def __init__(self, run, name, record, config):
        self.out = open(HERE / f"{record}.txt", "a")
    def log(self, step, numbers):
        print(json.dumps([step, numbers]), file=self.out, flush=True)
    def close(self):
        self.out.close()

class Sleeps(Recorder):
    def __init__(self, run, name, record, config):
        time.sleep(3600)

class Raises(Recorder):
    def log(self, step, numbers):
        raise OSError("no network")

class KeepBest:
    """Keeps the best checkpoint elsewhere, and posts a line."""
    def __init__(self):
        self.loss = {}
    def evaluated(self, row):
        self.loss[row["step"]] = row["val_loss"]
    def saved(self, path):
        step = int(path.name.removeprefix("step_"))
        if self.loss[step] == min(self.loss.values()):
            shutil.copytree(path, HERE / "best", dirs_exist_ok=True)
    def ended(self, code):
        (HERE / "posted.txt").write_text(f"ended with {code}, best loss {min(self.loss.values())}")

class Nothing:
    pass

class Fails:
    def step(self, row):
        raise ValueError(f"not step {row['step']}")

class Blocks:
    def step(self, row):
        time.sleep(3600)
'''


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    file = tmp_path / "mine.py"
    file.write_text(MINE)
    return file


def start(inputs: Inputs, mine: Path, **more: Any) -> tuple[Path, Path]:
    """A configuration of one short run, and its directory."""
    run = mine.parent / "run"
    small = {"epochs": 1, "save_every": 4, **more}
    return write_yaml(mine.parent / "sft.yaml", sft_config(inputs, run, **small)), run


def expected(run: Path) -> Counter[tuple[str, int, float]]:
    return Counter((key, row["step"], value) for kind in ("metrics", "evals") for row in lines(run / f"{kind}.jsonl")
                   for key, value in numbers_of(kind, row).items())  # fmt: skip


def recorded(mine: Path) -> Counter[tuple[str, int, float]]:
    """The newest record."""
    files = sorted(mine.parent.glob("run-*.txt"), key=lambda f: (len(f.name), f.name))
    rows = [json.loads(line) for line in files[-1].read_text().splitlines()]
    return Counter((key, step, value) for step, numbers in rows for key, value in numbers.items())


@pytest.mark.slow  # a tracker is given 30 s to close
def test_trackers_and_hooks_that_fail_change_nothing_in_the_run(inputs: Inputs, mine: Path) -> None:
    """And a killed and resumed run has every row once."""
    config, run = start(
        inputs, mine, track=[f"{mine}:Recorder", f"{mine}:Sleeps", f"{mine}:Raises"],
        hooks=[f"{mine}:KeepBest", f"{mine}:Fails"],
    )  # fmt: skip
    checkpoint = run / "checkpoints" / "step_000004"
    ringrl_until(lambda: checkpoint.is_dir() and len(lines(run / "metrics.jsonl")) > 5, signal.SIGKILL, "sft", config)
    result = ringrl("sft", config, "--resume")
    assert result.code == 0, result.text
    assert recorded(mine) == expected(run)
    assert "Sleeps has not taken everything within 30 s, and was stopped" in result.text
    assert "Raises ended with 1: OSError: no network" in result.text
    assert "mine.py:Fails: step: ValueError: not step 8" in result.text
    assert (mine.parent / "posted.txt").read_text().startswith("ended with 0, best loss ")
    assert (mine.parent / "best" / "model.safetensors").is_file()
    steps = lines(run / "metrics.jsonl")
    assert [row["step"] for row in steps] == [*range(1, 9)]

    plain, other = (
        write_yaml(mine.parent / "plain.yaml", sft_config(inputs, mine.parent / "p", epochs=1)),
        mine.parent / "p",
    )
    assert ringrl("sft", plain).code == 0
    assert timeless(other / "metrics.jsonl") == timeless(run / "metrics.jsonl")


def test_a_strict_hook_that_fails_ends_the_run(inputs: Inputs, mine: Path) -> None:
    config, run = start(inputs, mine, hooks=[f"{mine}:Fails"], strict_hooks=True)
    result = ringrl("sft", config)
    assert result.code == 1
    assert "mine.py:Fails: step: ValueError: not step 1" in result.text
    assert "strict_hooks is true" in result.text
    assert run.is_dir()


@pytest.mark.slow
def test_a_hook_that_blocks_is_told_and_the_run_is_done(inputs: Inputs, mine: Path) -> None:
    config, run = start(inputs, mine, hooks=[f"{mine}:Blocks"])
    result = ringrl("sft", config)
    assert result.code == 0
    assert "hooks: not done within 30 s after the end" in result.text
    assert (run / "finished.json").is_file()


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("hooks=[mine.py]", "hooks.0: got 'mine.py', expected path/file.py:Class or module:Class"),
        ("track=[tensorbord]", "track.0: got 'tensorbord', expected one of tensorboard, wandb, trackio, mlflow"),
        ("hooks=['mine.py:Gone']", "hooks: got mine.py:Gone: no class 'Gone' in mine.py"),
        ("hooks=['mine.py:Nothing']", "expected a class with one of the methods step, evaluated, saved, ended"),
    ],
)
def test_bad_input(inputs: Inputs, mine: Path, override: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(mine.parent)
    config, run = start(inputs, mine)
    result = ringrl("sft", config, override)
    assert result.code == 2, result.text
    assert text in result.text.replace("\n", " ")
    assert not run.exists()


def test_a_command_without_rows_refuses_a_tracker() -> None:
    for config, key, given in ((EvalConfig, "track", "tensorboard"), (DataConfig, "hooks", "mine.py:Hook")):
        with pytest.raises(ValidationError, match=f"{key}: got {given}, expected none"):
            config.model_validate(LEAST[config] | {key: [given]})


LEAST: dict[Any, dict[str, Any]] = {
    EvalConfig: {"run": "r", "model": "m", "benchmarks": [{"name": "aime24"}]},
    DataConfig: {"run": "r", "sources": [{"name": "a", "files": ["a.jsonl"]}]},
}
