"""The command line as a whole: what it lists, and what `make` leaves alone."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from ringrl.cli import cli, continuation
from ringrl.launch.opening import Resume
from tests.conftest import ringrl

ROOT = Path(__file__).parent.parent


def test_help_lists_whole_sentences() -> None:
    text = " ".join(ringrl("--help").text.partition("Commands:")[2].split())
    assert "..." not in text
    for command in cli.commands.values():
        assert command.help
        assert " ".join(command.help.split("\n\n")[0].split()) in text


@pytest.mark.parametrize("args", [("eval", "--model", "m"), ("eval", "--bench", "aime24"), ("eval",)])
def test_eval_without_a_configuration_asks_for_model_and_benchmarks(args: tuple[str, ...]) -> None:
    result = ringrl(*args)
    assert result.code == 2
    assert "give either CONFIG, or --model and --bench" in result.text


@pytest.mark.parametrize(
    ("given", "again"),
    [
        ("sft a.yaml epochs=2", "ringrl sft a.yaml epochs=2 --resume"),
        ("rl a.yaml --resume --change updates=2", "ringrl rl a.yaml --resume --change updates=2"),
        ("rl --resume --from-checkpoint 20 a.yaml", "ringrl rl --resume a.yaml"),
        ("rl a.yaml --from-checkpoint=20 --resume", "ringrl rl a.yaml --resume"),
    ],
)
def test_an_interrupted_command_says_how_to_go_on(given: str, again: str) -> None:
    assert continuation(given.split(), Resume() if "--resume" in given else None) == again


def test_a_report_needs_the_directory_of_a_run(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "gone"):
        result = ringrl("report", folder)
        assert result.code == 2
        assert result.text == f"error {folder}: no config.yaml in it, expected the directory of a run\n"


def test_clean_removes_what_can_be_made_again_and_no_results(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("runs/demo", ".venv/bin", ".mypy_cache", "ringrl/__pycache__", "scripts", "tests", "examples"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "file").touch()
    subprocess.run(["make", "clean"], cwd=tmp_path, check=True, capture_output=True)
    left = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("file")}
    assert left == {"runs/demo/file", "scripts/file", "tests/file", "examples/file"}
    subprocess.run(["make", "clean-runs"], cwd=tmp_path, check=True, capture_output=True)
    assert not (tmp_path / "runs").exists()
