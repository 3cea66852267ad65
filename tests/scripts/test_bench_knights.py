"""The teacher of scripts/bench_knights.py, and its table."""

from __future__ import annotations

import importlib.util
import random
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("reasoning_gym")
from ringrl.data.source import read_rows
from ringrl.rewards.gym import GymVerifier


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    path = Path(__file__).parents[2] / "scripts" / "bench_knights.py"
    spec = importlib.util.spec_from_file_location("bench_knights", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("people", [2, 3])
def test_the_teacher_is_right_in_both_styles(bench: ModuleType, people: int) -> None:
    verify, rng, careful = GymVerifier(), random.Random(0), 0
    for _, row in read_rows(f"reasoning-gym:knights_knaves?size=40&seed=1&n_people={people}"):
        response = bench.teach(row["entry"], rng)
        assert verify(response, row).kind == "pass"
        if response.endswith("good</think><answer>" + row["entry"]["answer"] + "</answer>"):
            careful += 1
            case = response.partition("</think>")[0].rpartition(": ")[2].split()[:people]
            assert [word == "yes" for word in case] == row["entry"]["metadata"]["solution"]
    assert 10 < careful < 35


def test_a_careful_thought_reads_as_the_problem_does(bench: ModuleType) -> None:
    problem = 'Ann said that if Ann is a fool then Bo is a sage. "Ann is a fool," Bo said. So who is a sage?'
    statements = [["->", ["lying", 0], ["not", ["lying", 1]]], ["lying", 0]]
    assert bench.careful(problem, {"names": ["Ann", "Bo"], "statements": statements}) == (
        'A Ann, B Bo. A: "if Ann is a fool then Bo is a sage" A no then B yes. B: "Ann is a fool" A no. '
        "yes yes: yes no; yes no: yes no good"
    )


def test_the_table_has_means_and_paired_gains(bench: ModuleType) -> None:
    results = [{"seed": s, "held_out": {"0": 0.4 + s / 10, "9": 0.6 + s / 10}} for s in (0, 1)]
    results[1]["held_out"]["9"] += 0.02
    table = bench.table(results)
    assert "| 0 | 45.0 ± 5.0 | 40.0, 50.0 |" in table
    assert "| gain | 21.0 ± 1.0 | 20.0, 22.0 |" in table
    assert "The gain is 21.0 standard errors." in table
