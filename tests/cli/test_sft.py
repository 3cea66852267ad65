"""SFT through the command line."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Inputs, lines, ringrl, ringrl_until, timeless, write_yaml


def sft_config(inputs: Inputs, run: Path, **more: Any) -> dict[str, Any]:
    return {
        "run": str(run),
        "model": inputs.model,
        "data": inputs.source("sft"),
        "validation": inputs.source("sft_val"),
        "trainer": {"dtype": "float32", "attention": "packed", "microbatch_tokens": 1024, "threads": 1},
        "optimizer": {"lr": 3e-3, "schedule": "cosine", "warmup": 0.05, "weight_decay": 0.1},
        "epochs": 2,
        "batch_examples": 32,
        "max_tokens": 256,
        **more,
    }


def numbers(run: Path) -> list[dict[str, Any]]:
    return timeless(run / "metrics.jsonl")


@pytest.fixture(scope="module")
def finished(inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sft")
    result = ringrl("sft", write_yaml(folder / "sft.yaml", sft_config(inputs, folder / "run", balance=0.01, z=1e-3)))
    assert result.code == 0, result.text
    return folder / "run"


def test_learns_and_keeps_a_checkpoint_per_epoch(finished: Path) -> None:
    rows, evals = lines(finished / "metrics.jsonl"), lines(finished / "evals.jsonl")
    assert rows[-1]["loss"] < 0.8 * rows[0]["loss"]
    assert [e["step"] for e in evals] == [8, 16]
    assert evals[1]["val_loss"] < evals[0]["val_loss"]
    assert [p.name for p in sorted((finished / "checkpoints").iterdir())] == ["step_000008", "step_000016"]


def test_a_checkpoint_is_a_folder_as_that_of_the_start_model(finished: Path, inputs: Inputs) -> None:
    folder, start = finished / "checkpoints" / "step_000016", Path(inputs.model)
    assert len({file.stat().st_mode for file in folder.iterdir() if file.is_file()}) == 1
    assert len({file.stat().st_mode for file in start.iterdir()}) == 1
    assert (folder / "generation_config.json").read_bytes() == (start / "generation_config.json").read_bytes()


@pytest.mark.parametrize(
    "layout",
    [["trainer.packing=false", "trainer.microbatch_tokens=300"], ["trainer.ranks=2", "trainer.parallel.expert=2"]],
    ids=lambda x: x[-1],
)
def test_training_does_not_depend_on_layout(finished: Path, layout: list[str], inputs: Inputs, tmp_path: Path) -> None:
    config = write_yaml(tmp_path / "sft.yaml", sft_config(inputs, tmp_path / "run", balance=0.01, z=1e-3))
    assert ringrl("sft", config, *layout).code == 0
    for one, other in list(zip(numbers(finished), numbers(tmp_path / "run"), strict=True))[:3]:
        for key in ("loss", "grad_norm", "balance_loss", "z_loss"):
            assert other[key] == pytest.approx(one[key], rel=1e-4), (one["step"], key)


def test_killed_run_resumes_exactly(finished: Path, inputs: Inputs, tmp_path: Path) -> None:
    run = tmp_path / "run"
    config = write_yaml(tmp_path / "sft.yaml", sft_config(inputs, run, balance=0.01, z=1e-3))
    metrics = run / "metrics.jsonl"
    ringrl_until(lambda: metrics.is_file() and metrics.read_text().count("\n") >= 11, signal.SIGKILL, "sft", config)
    result = ringrl("sft", config, "--resume")
    assert result.code == 0, result.text
    assert numbers(run) == numbers(finished)


@pytest.mark.slow
def test_without_validation_it_trains_and_reports(inputs: Inputs, tmp_path: Path) -> None:
    raw = sft_config(inputs, tmp_path / "run", epochs=1, batch_examples=128)
    del raw["validation"]
    result = ringrl("sft", write_yaml(tmp_path / "sft.yaml", raw))
    assert result.code == 0, result.text
    assert [row["step"] for row in lines(tmp_path / "run" / "metrics.jsonl")] == [1, 2]
    assert not (tmp_path / "run" / "evals.jsonl").exists()
    assert (tmp_path / "run" / "report.html").is_file()
