"""The RL loop through the command line, with the in-process engine."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from tests.conftest import (
    VERIFIERS,
    Inputs,
    children_of_tests,
    lines,
    meddle,
    ringrl,
    ringrl_until,
    rl_config,
    timeless,
    write_yaml,
)

pytestmark = pytest.mark.usefixtures("uneven_rewards")

CONTRACT = set(
    """step stage version reward_mean groups_solved groups_unsolved groups_mixed tokens_generated tokens_trained
    tokens_dropped response_length_mean truncated_frac loss policy_loss kl entropy grad_norm clip_frac lr
    balance_loss z_loss mismatch_kl masked_frac reward_errors time_rollout_s time_reward_s time_train_s time_sync_s
    tokens_per_s""".split()  # noqa: SIM905
)


def numbers(run: Path) -> list[dict[str, Any]]:
    return timeless(run / "metrics.jsonl")


@pytest.fixture(scope="module")
def finished(inputs: Inputs, uneven_rewards: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of four steps."""
    folder = tmp_path_factory.mktemp("rl")
    result = ringrl("rl", write_yaml(folder / "rl.yaml", rl_config(inputs, folder / "run")))
    assert result.code == 0, result.text
    return folder / "run"


def test_metrics_keep_the_contract(finished: Path) -> None:
    rows = lines(finished / "metrics.jsonl")
    assert [r["step"] for r in rows] == [1, 2, 3, 4]
    assert all(r.keys() >= CONTRACT for r in rows)
    assert [r["tokens_trained"] for r in rows] == [200] * 4
    assert all(r["tokens_generated"] == r["tokens_trained"] + r["tokens_dropped"] for r in rows)
    assert all(r["parity"] < 1e-3 and r["reward_errors"] == 0 for r in rows)
    assert all(sum(n for reasons in r["verdicts"].values() for n in reasons.values()) == 16 for r in rows)


def test_run_directory_keeps_the_contract(finished: Path, inputs: Inputs) -> None:
    import json

    lineage = json.loads((finished / "lineage.json").read_text())
    assert lineage["parent"] == inputs.model
    assert len(lineage["data"][inputs.data("rl_math")]) == 64
    assert (finished / "report.html").is_file()
    assert (finished / "rollouts" / "step_000004.jsonl").is_file()
    assert [p.name for p in sorted((finished / "checkpoints").iterdir())] == ["step_000002", "step_000004"]


def test_checkpoint_is_a_plain_model_folder(finished: Path, inputs: Inputs) -> None:
    before = load_file(Path(inputs.model) / "model.safetensors")
    after = load_file(finished / "checkpoints" / "step_000004" / "model.safetensors")
    assert {n: t.shape for n, t in after.items()} == {n: t.shape for n, t in before.items()}
    assert all((after[n] != before[n]).any() for n in before)


@pytest.mark.parametrize(
    "layout",
    [
        ["trainer.packing=false", "trainer.microbatch_tokens=100"],
        pytest.param(["trainer.ranks=2", "trainer.parallel.zero=2"], marks=pytest.mark.slow),
        ["trainer.ranks=2", "trainer.parallel={expert: 2, zero: 1}"],
        pytest.param(["trainer.ranks=2", "trainer.parallel={expert: 2, zero: 3}"], marks=pytest.mark.slow),
    ],
    ids=lambda x: x[-1],
)
def test_training_does_not_depend_on_layout(finished: Path, layout: list[str], inputs: Inputs, tmp_path: Path) -> None:
    config = write_yaml(tmp_path / "rl.yaml", rl_config(inputs, tmp_path / "run"))
    result = ringrl("rl", config, "stages.0.steps=2", *layout)
    assert result.code == 0, result.text
    for one, other in zip(numbers(finished)[:2], numbers(tmp_path / "run"), strict=True):
        for key in ("loss", "policy_loss", "grad_norm", "entropy", "balance_loss"):
            assert other[key] == pytest.approx(one[key], rel=1e-4, abs=1e-6), (one["step"], key)
    saved = [load_file(r / "checkpoints" / "step_000002" / "model.safetensors") for r in (finished, tmp_path / "run")]
    for name, tensor in saved[0].items():
        torch.testing.assert_close(saved[1][name], tensor, rtol=0, atol=2e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "parallel",
    [
        "{expert: 2, zero: 3, offload: parameters}",
        "{expert: 2, zero: 2}",
    ],
)
def test_killed_run_with_expert_parallelism_resumes_exactly(parallel: str, inputs: Inputs, tmp_path: Path) -> None:
    config = write_yaml(tmp_path / "rl.yaml", rl_config(inputs, tmp_path / "a"))
    more = ["trainer.ranks=2", f"trainer.parallel={parallel}", "loss.balance_over=previous", "loss.balance=0.1"]
    assert ringrl("rl", config, *more).code == 0
    metrics = tmp_path / "b" / "metrics.jsonl"
    more.append(f"run={tmp_path / 'b'}")
    ringrl_until(
        lambda: metrics.is_file() and metrics.read_text().count("\n") >= 3, signal.SIGKILL, "rl", config, *more
    )
    assert (result := ringrl("rl", config, *more, "--resume")).code == 0, result.text
    assert numbers(tmp_path / "b") == numbers(tmp_path / "a")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (["trainer.ranks=1"], ["trainer.ranks=2", "trainer.packing=false"]),
        (["trainer.ranks=2", "trainer.parallel.expert=2"], ["trainer.ranks=1", "trainer.parallel.expert=1"]),
        (["trainer.ranks=2", "trainer.parallel={expert: 2, zero: 3}"],
         ["trainer.ranks=1", "trainer.parallel={expert: 1, zero: 3}"]),
        (["trainer.ranks=2", "trainer.parallel.zero=2"], ["trainer.ranks=1", "trainer.parallel.zero=2"]),
    ],
    ids=lambda x: " ".join(x),
)  # fmt: skip
@pytest.mark.slow
def test_a_run_goes_on_with_other_ranks(
    before: list[str], after: list[str], finished: Path, inputs: Inputs, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    config = write_yaml(tmp_path / "rl.yaml", rl_config(inputs, run))
    third = run / "metrics.jsonl"
    ringrl_until(lambda: third.is_file() and third.read_text().count("\n") >= 3, signal.SIGKILL, "rl", config, *before)
    result = ringrl("rl", config, *after, "--resume")
    assert result.code == 0, result.text
    assert yaml.safe_load((run / "config.yaml").read_text())["trainer"]["ranks"] == int(after[0][-1])
    for one, other in zip(numbers(finished), numbers(run), strict=True):
        for key in ("loss", "policy_loss", "grad_norm", "entropy", "balance_loss"):
            assert other[key] == pytest.approx(one[key], rel=1e-3, abs=1e-5), (one["step"], key)


@pytest.mark.slow
def test_a_bfloat16_run_resumes_exactly_and_on_other_ranks(inputs: Inputs, tmp_path: Path) -> None:
    """Its gradients are added up by another optimizer of DeepSpeed's than those of a float32 run."""
    config = write_yaml(tmp_path / "rl.yaml", rl_config(inputs, tmp_path / "a"))
    low = ["trainer.dtype=bfloat16", "rollout.dtype=bfloat16", "rollout.parity_limit=0.2"]
    two = [*low, "trainer.ranks=2", "trainer.parallel.expert=2"]
    assert (result := ringrl("rl", config, *two)).code == 0, result.text
    metrics = tmp_path / "b" / "metrics.jsonl"
    ringrl_until(lambda: metrics.is_file() and metrics.read_text().count("\n") >= 3, signal.SIGKILL, "rl", config, *two,
                 f"run={tmp_path / 'b'}")  # fmt: skip
    shutil.copytree(tmp_path / "b", tmp_path / "killed")
    for layout in (two, low):
        result = ringrl("rl", config, *layout, f"run={tmp_path / 'b'}", "--resume")
        assert result.code == 0, result.text
        if layout == two:
            assert numbers(tmp_path / "b") == numbers(tmp_path / "a")
            shutil.rmtree(tmp_path / "b")
            shutil.move(tmp_path / "killed", tmp_path / "b")
    for one, other in zip(numbers(tmp_path / "a")[:3], numbers(tmp_path / "b")[:3], strict=True):
        assert other["grad_norm"] == pytest.approx(one["grad_norm"], rel=5e-2), one["step"]


def test_records_hold_what_a_step_was_made_of(finished: Path, inputs: Inputs) -> None:
    problems = {row["id"]: row["problem"] for row in lines(Path(inputs.data("rl_math")))}
    files = sorted((finished / "rollouts").glob("*.npz"))
    assert [f.name for f in files] == [f"step_{i:06d}.npz" for i in range(1, 5)]
    for file, row in zip(files, lines(finished / "metrics.jsonl"), strict=True):
        with np.load(file) as opened:
            a = dict(opened)
        assert (a["format"], a["step"], a["updates"], a["phi"]) == (1, row["step"], 1, 200)
        assert a["weights_version"] == row["version"]
        assert (a["trained"].sum(), len(a["token_ids"])) == (row["tokens_trained"], row["tokens_generated"])
        assert a["rewards"].mean() == pytest.approx(row["reward_mean"])
        texts = lines(file.with_suffix(".jsonl"))
        assert ["prompt" in t for t in texts] == [True, False, False, False] * 2
        assert problems[texts[0]["prompt_id"]] in texts[0]["prompt"]
        for r, text in enumerate(texts):
            start, end = a["offsets"][r : r + 2]
            assert text["prompt_id"] == a["prompt_ids"][a["groups"][r]]
            assert (text["length"], text["trained"]) == (end - start, a["trained"][start:end].sum())
            assert (text["reward"], text["advantage"]) == (a["rewards"][r], a["advantages"][r])
            assert (a["update"][r] == 0) == bool(text["trained"])


def test_records_are_read_without_torch_and_thinned_out(finished: Path, inputs: Inputs, tmp_path: Path) -> None:
    code = "import sys, numpy; a = numpy.load(sys.argv[1]); print(len([a[k] for k in a]), 'torch' in sys.modules)"
    file = finished / "rollouts" / "step_000001.npz"
    said = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=True).stdout
    assert said == "23 False\n"
    config = write_yaml(tmp_path / "rl.yaml", rl_config(inputs, tmp_path / "run"))
    order = ["stages.0.budget.order=informative", "stages.0.budget.keep=[0.5, 0.5]"]
    result = ringrl("rl", config, "record={every: 2, keep: 1}", "rollouts_kept=0", *order)
    assert result.code == 0, result.text
    [file] = (tmp_path / "run" / "rollouts").iterdir()
    assert file.name == "step_000004.npz"
    with np.load(file) as opened:  # of 400 candidates the trainer has chosen 200
        assert opened["trained"].sum() == numbers(tmp_path / "run")[-1]["tokens_trained"] == 200


BROKEN_FROM_THE_THIRD_BATCH_ON = """
    import ringrl.rewards.answers as answers
    calls, verify = [], answers.verify_math
    def broken(text, reference):
        calls.append(1)
        if len(calls) > 2 * 16:
            raise OSError("a library is gone")
        return verify(text, reference)
    answers.verify_math = broken
"""


@pytest.mark.parametrize("more", [[], pytest.param(["trainer.ranks=2"], marks=pytest.mark.slow)], ids=str)
def test_verifiers_that_fail_end_the_run_and_cost_it_nothing(
    more: list[str], finished: Path, inputs: Inputs, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    config = write_yaml(tmp_path / "rl.yaml", rl_config(inputs, run, save_every=100))
    with meddle(tmp_path / "meddle", VERIFIERS, BROKEN_FROM_THE_THIRD_BATCH_ON):
        result = ringrl("rl", config, *more)
    assert result.code == 1, result.text
    assert "step 3: the verifiers failed on 16 of 16 responses, expected at most verify.max_error_share=0.1" in (
        " ".join(result.text.split())
    )
    assert "16 times 'OSError: a library is gone'" in " ".join(result.text.split())
    assert [p.name for p in (run / "checkpoints").iterdir()] == ["step_000002"]
    assert (run / "watchdog" / "step_000003.pt").is_file()
    assert len(numbers(run)) == 2
    result = ringrl("rl", config, *more, "--resume")
    assert result.code == 0, result.text
    if not more:
        assert numbers(run) == numbers(finished)
    assert [r["verdicts"]["error"] for r in numbers(run)] == [{}] * 4


def test_killed_run_resumes_exactly(finished: Path, inputs: Inputs, tmp_path: Path) -> None:
    run = tmp_path / "run"
    config = write_yaml(tmp_path / "rl.yaml", rl_config(inputs, run))
    metrics = run / "metrics.jsonl"

    def third_step_is_done() -> bool:
        return metrics.is_file() and metrics.read_text().count("\n") >= 3

    killed = ringrl_until(third_step_is_done, signal.SIGKILL, "rl", config)
    assert killed.code == 128 + signal.SIGKILL
    resumed = ringrl("rl", config, "--resume")
    assert resumed.code == 0, resumed.text
    assert numbers(run) == numbers(finished)
    assert children_of_tests() == []


@pytest.mark.slow
def test_interrupt_saves_and_resumes_exactly(finished: Path, inputs: Inputs, tmp_path: Path) -> None:
    run = tmp_path / "run"
    config = write_yaml(tmp_path / "rl.yaml", rl_config(inputs, run))
    first = run / "metrics.jsonl"
    stopped = ringrl_until(lambda: first.is_file() and first.read_text().endswith("\n"), signal.SIGINT, "rl", config)
    assert stopped.code == 130, stopped.text
    assert list((run / "checkpoints").glob("step_*")), stopped.text
    assert stopped.text.endswith(f"interrupted; continue with --resume: ringrl rl {config} --resume\n")
    assert "not finished: interrupted<" in (run / "report.html").read_text()
    assert ringrl("rl", config, "--resume").code == 0
    assert "finished in " in (run / "report.html").read_text()
    assert numbers(run) == numbers(finished)


def test_diverging_run_ends_with_3(inputs: Inputs, tmp_path: Path) -> None:
    config = write_yaml(tmp_path / "rl.yaml", rl_config(inputs, tmp_path / "run", optimizer={"lr": 1e30}))
    result = ringrl("rl", config)
    assert result.code == 3, result.text
    assert "step 1: not finite: " in result.text
    assert "not finished: diverged: step 1: not finite: " in (tmp_path / "run" / "report.html").read_text()


def test_grpo_is_the_same_loop_with_other_weights(inputs: Inputs, tmp_path: Path) -> None:
    config = write_yaml(tmp_path / "rl.yaml", rl_config(inputs, tmp_path / "run"))
    result = ringrl("rl", config, "loss.method=grpo", "stages.0.steps=1")
    assert result.code == 0, result.text
    [row] = numbers(tmp_path / "run")
    assert row["tokens_dropped"] == 0


@pytest.mark.parametrize("scope", ["rank", "minibatch"])
def test_scopes_of_phi(scope: str, inputs: Inputs, tmp_path: Path) -> None:
    config = write_yaml(tmp_path / "rl.yaml", rl_config(inputs, tmp_path / "run"))
    more = ["stages.0.steps=2", "stages.0.budget.phi=100", f"stages.0.budget.scope={scope}", "updates=2"]
    result = ringrl("rl", config, *more)
    assert result.code == 0, result.text
    expected = {"rank": 50, "minibatch": 100}[scope]
    assert [r["tokens_trained"] for r in numbers(tmp_path / "run")] == [expected, expected]


def test_shortfall_is_said_and_still_divided_by_phi(inputs: Inputs, tmp_path: Path) -> None:
    config = write_yaml(tmp_path / "rl.yaml", rl_config(inputs, tmp_path / "run"))
    more = ["stages.0.steps=1", "stages.0.budget.phi=900", "stages.0.budget.shortfall=train_fewer"]
    result = ringrl("rl", config, *more)
    assert result.code == 0, result.text
    [row] = numbers(tmp_path / "run")
    assert row["tokens_trained"] == row["tokens_generated"] < 900 == row["phi"]
    assert "shortfall" in result.text
