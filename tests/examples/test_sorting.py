"""examples/sorting as a user runs it: copied elsewhere, and by the command line."""

from __future__ import annotations

import json
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Inputs, children_of_tests, lines, ringrl

EXAMPLE = Path(__file__).parents[2] / "examples" / "sorting"
SHORT = ("data.mix.outputs.0.rows=200", "data.mix.outputs.3.rows=100", "sft.epochs=2", "select.samples=2",
         "rl.stages.0.steps=2", "rl.stages.0.prompts=8", "rl.stages.0.budget={phi: 200, flat_groups: keep}",
         "rl.eval_samples=2", "eval.samples=2")  # fmt: skip

sorting = runpy.run_path(str(EXAMPLE / "my_rewards.py"))["sorting"]


@pytest.mark.parametrize(
    ("response", "score"),
    [
        ("Sorted: 1 3 5 7", 1.0),
        ("Let me see. Sorted: 1 3 7 5", 0.5),
        ("Sorted: 3 1 7 5", 0.0),
        ("Sorted: 1 3 5", 0.0),
        ("Sorted: 1 3 5 5", 0.0),
        ("1 3 5 7", 0.0),
    ],
)
def test_the_reward_is_the_share_of_places(response: str, score: float) -> None:
    assert sorting(response, {"numbers": [5, 1, 7, 3], "order": "rising"}) == score


def test_falling_is_the_other_way_round() -> None:
    assert sorting("Sorted: 7 5 3 1", {"numbers": [5, 1, 7, 3], "order": "falling"}) == 1.0


@pytest.mark.slow
def test_the_example_goes_through_the_whole_method(inputs: Inputs, tmp_path: Path) -> None:
    pytest.importorskip("vllm")
    folder = tmp_path / "sorting"
    shutil.copytree(EXAMPLE, folder)
    subprocess.run([sys.executable, "make_data.py"], cwd=folder, check=True)
    result = ringrl("run", "run.yaml", f"model={inputs.model}", *SHORT, cwd=folder)
    assert result.code == 0, result.text
    run = folder / "runs" / "sorting"

    wrong = [row for row in lines(run / "data" / "steps" / "1_distil" / "dropped.jsonl") if row["reason"] == "wrong"]
    assert 500 < len(wrong) < 1500  # every other response of the teacher
    given = {row["problem"]: row for row in lines(folder / "data" / "problems.jsonl")}
    for row in lines(run / "data" / "data" / "sft.jsonl"):
        asked, said = (message["content"] for message in row["messages"])
        problem, _, suffix = asked.partition("\n")
        assert suffix == "Answer with `Sorted:` and the numbers."
        assert sorting(said, given[problem]) == 1.0

    metrics = lines(run / "rl" / "metrics.jsonl")
    assert [(row["tokens_trained"], row["reward_errors"]) for row in metrics] == [(200, 0), (200, 0)]
    problems = {row["id"]: row for row in lines(run / "data" / "data" / "rl.jsonl")}
    for step in (1, 2):
        for row in lines(run / "rl" / "rollouts" / f"step_{step:06d}.jsonl"):
            assert row["reward"] == pytest.approx(sorting(row["text"], problems[row["prompt_id"]]))
    bench = json.loads((run / "eval_sorting" / "results.json").read_text())["benchmarks"]["sorting"]
    assert (bench["n"], bench["k"], bench["errors"]) == (50, 2, 0)
    assert children_of_tests() == []
