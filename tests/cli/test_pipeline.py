"""The whole method in miniature, through the command line, with real vLLM workers and two training processes."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Inputs, children_of_tests, lines, ringrl, ringrl_until, rl_config, timeless, write_yaml

pytest.importorskip("vllm")


def pipeline_config(inputs: Inputs, run: Path) -> dict[str, Any]:
    rl = rl_config(inputs, run)
    trainer = {**rl["trainer"], "ranks": 2}
    rollout = {**rl["rollout"], "engine": "vllm", "workers": 1}
    math = {**rl["stages"][0], "steps": 2}
    second = {**math, "name": "code_science", "data": [inputs.source("rl_code", "rl_science")], "max_total_tokens": 96}
    made = run / "data" / "data"
    data = {
        "sources": [{"name": "teacher", "files": [str(teacher_rows(inputs, run.with_name("teacher.jsonl")))]}],
        "steps": ["mix"],
        "mix": {"prompting": {"suffix": {}}, "outputs": [{"name": "sft_val", "form": "conversations", "rows": 16},
                                                         {"name": "sft", "form": "conversations"}]},
    }  # fmt: skip
    sampling = {"samples": 2, "max_total_tokens": 96, "prompting": {"suffix": {}}, "rollout": rollout}
    return {
        "run": str(run),
        "model": inputs.model,
        "data": data,
        "sft": {
            "data": {"files": [str(made / "sft.jsonl")]},
            "validation": {"files": [str(made / "sft_val.jsonl")]},
            "trainer": {**trainer, "microbatch_tokens": 1024},
            "optimizer": {"lr": 3e-3},
            "epochs": 2,
            "batch_examples": 32,
            "max_tokens": 256,
        },
        "select": {"probe": inputs.source("probe"), "trainer": rl["trainer"], "band": [0.1, 9.0], **sampling},
        "rl": {k: v for k, v in rl.items() if k not in ("run", "model")}
        | {
            "stages": [math, second],
            "trainer": trainer,
            "rollout": rollout,
            "loss": {"reference": "stage"},
            "held_out": [{"name": "math", "data": inputs.source("heldout_math")}],
            "eval_samples": 2,
        },
        "eval": {
            "benchmarks": [
                {"name": "math", "data": inputs.data("heldout_math")},
                {"name": "code", "data": inputs.data("heldout_code")},
            ],
            "top_p": 1.0,
            **sampling,
            "rollout": rl["rollout"],  # in process, which starts sooner
        },
    }


def teacher_rows(inputs: Inputs, file: Path) -> Path:
    """Conversations of a teacher, some of them malformed."""
    rows = Path(inputs.data("sft")).read_text().splitlines() + Path(inputs.data("sft_val")).read_text().splitlines()
    file.write_text("".join(line + "\n" for line in ["{", *rows, '{"messages": []}']))
    return file


def test_whole_pipeline_interrupted_and_continued(inputs: Inputs, tmp_path: Path) -> None:
    run = tmp_path / "run"
    config = write_yaml(tmp_path / "run.yaml", pipeline_config(inputs, run))
    selection = run / "select" / "finished.json"
    stopped = ringrl_until(selection.is_file, signal.SIGKILL, "run", config)
    assert stopped.code == 128 + signal.SIGKILL
    result = ringrl("run", config, "--resume")
    assert result.code == 0, result.text

    chosen = json.loads((run / "select" / "selection.json").read_text())
    assert [r["epoch"] for r in chosen["rows"]] == [1.0, 2.0]
    start = next(r for r in chosen["rows"] if r["name"] == chosen["chosen"])
    assert chosen["rl_sft_token_ratio"] == pytest.approx(4 * 200 / start["sft_tokens"])
    summary = json.loads((run / "summary.json").read_text())
    assert [r["stage"] for r in summary["rows"]] == ["sft", "math", "code_science"]
    assert all(set(r["scores"]) == {"math", "code"} and Path(r["model"]).is_dir() for r in summary["rows"])
    stages = ("data", "sft", "select", "rl", "eval_sft", "eval_math", "eval_code_science")
    for name in stages:
        assert f'href="{name}/report.html"' in (run / "report.html").read_text()
    assert all((run / name / "report.html").stat().st_size > 10_000 for name in (*stages, ""))
    assert "Responses, math" in (run / "eval_sft" / "report.html").read_text()

    outputs = json.loads((run / "data" / "data" / "outputs.json").read_text())
    assert {name: o["lines"] for name, o in outputs.items()} == {"sft_val": 16, "sft": 256}
    lineage = json.loads((run / "sft" / "lineage.json").read_text())
    assert lineage["data"][str(run / "data" / "data" / "sft.jsonl")] == outputs["sft"]["sha256"]
    metrics = lines(run / "rl" / "metrics.jsonl")
    assert [r["stage"] for r in metrics] == ["math", "math", "code_science", "code_science"]
    assert all(r["tokens_trained"] == 200 and r["parity"] < 1e-3 and r["reward_errors"] == 0 for r in metrics)
    kl = [r["kl"] for r in metrics]  # before each update, to what the stage started from
    assert max(kl[0], kl[2]) < 1e-9 < 1e-8 < min(kl[1], kl[3])
    parents = {d: json.loads((run / d / "lineage.json").read_text())["parent"] for d in ("sft", "select", "rl")}
    assert parents == {"sft": inputs.model, "select": str(run / "sft"), "rl": chosen["chosen_path"]}
    assert children_of_tests() == []

    with (source := tmp_path / "teacher.jsonl").open("a") as file:
        file.write("{}\n")
    refused = ringrl("run", config, "--resume")
    assert refused.code == 2
    assert f"error {source}: got " in refused.text
    assert "which is finished; choose another `run` for other data" in refused.text


@pytest.mark.slow
def test_general_sft_follows_rl_and_is_evaluated(inputs: Inputs, tmp_path: Path) -> None:
    run = tmp_path / "run"
    config = pipeline_config(inputs, run)
    sft = {**config["sft"], "data": {**config["sft"]["data"], "limit": 32}, "epochs": 1}
    rl = {**config["rl"], "stages": [{**config["rl"]["stages"][0], "steps": 1}], "held_out": []}
    small = {"sft": sft, "rl": rl, "general": {**sft, "optimizer": {"lr": 1e-3}}}
    for section in ("select", "rl", "eval"):
        small[section] = {**config[section], **small.get(section, {})}
        small[section]["rollout"] = {**config[section]["rollout"], "engine": "transformers"}
    result = ringrl("run", write_yaml(tmp_path / "run.yaml", {**config, **small}))
    assert result.code == 0, result.text
    rows = json.loads((run / "summary.json").read_text())["rows"]
    assert [r["stage"] for r in rows] == ["sft", "math", "general"]
    assert rows[-1]["model"] == str(run / "general" / "checkpoints" / "step_000001")
    assert json.loads((run / "general" / "lineage.json").read_text())["parent"] == rows[1]["model"]
    assert '<h2 id="general">SFT general <small>finished in ' in (run / "report.html").read_text()


@pytest.mark.slow
def test_eval_on_named_benchmark_keeps_every_response(inputs: Inputs, tmp_path: Path) -> None:
    """The flags of the README, on a file in the project's format, by name."""
    data = tmp_path / "data"
    data.mkdir()
    rows = [{"id": f"a{i}", "problem": f"Find ${i}+{i}$ in base ten.", "answer": str(2 * i)} for i in range(3)]
    (data / "aime24.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    result = ringrl(
        *("eval", "--model", inputs.model, "--bench", "aime24", "--samples", "4", "--data", data),
        *("--run", tmp_path / "run", "max_total_tokens=256", "rollout.dtype=float32", "rollout.kv_cache_mib=32"),
    )
    assert result.code == 0, result.text
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    bench = results["benchmarks"]["aime24"]
    assert (bench["k"], bench["n"], bench["errors"]) == (4, 3, 0)
    assert [p["total"] for p in bench["problems"]] == [4, 4, 4]
    assert results["sampling"]["top_p"] == 0.95
    assert len(results["template_sha256"]) == 64
    assert len(lines(tmp_path / "run" / "responses" / "aime24.jsonl")) == 12


@pytest.mark.slow
def test_killed_run_on_vllm_resumes_exactly(inputs: Inputs, tmp_path: Path) -> None:
    """Two workers, two ranks, stages, held-out evaluation: the same numbers as without the kill."""
    pipeline = pipeline_config(inputs, tmp_path)
    rl = pipeline["rl"] | {"model": inputs.model, "eval_every": 1, "save_every": 1}
    rl["rollout"] = {**rl["rollout"], "workers": 2}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert ringrl("rl", write_yaml(tmp_path / "a.yaml", {**rl, "run": str(whole)})).code == 0
    config = write_yaml(tmp_path / "b.yaml", {**rl, "run": str(killed)})
    metrics = killed / "metrics.jsonl"
    ringrl_until(lambda: metrics.is_file() and metrics.read_text().count("\n") >= 3, signal.SIGKILL, "rl", config)
    result = ringrl("rl", config, "--resume")
    assert result.code == 0, result.text
    assert timeless(killed / "metrics.jsonl") == timeless(whole / "metrics.jsonl")
    assert lines(killed / "evals.jsonl") == lines(whole / "evals.jsonl")
    assert children_of_tests() == []
