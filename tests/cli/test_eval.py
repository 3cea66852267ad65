"""An evaluation on vLLM that is killed and resumed, and looked at from the command line."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.conftest import Inputs, children_of_tests, lines, ringrl, ringrl_until

pytest.importorskip("vllm")


@pytest.mark.slow
def test_killed_on_vllm_and_resumed_it_has_the_same_results(inputs: Inputs, tmp_path: Path) -> None:
    """With another number of workers, too."""
    args = ["eval", "--model", inputs.model, "--bench", "gsm8k", "--data", inputs.data("heldout_math")]
    args += ["--samples", "3", "max_total_tokens=64", "prompting.suffix={}", "verify.workers=1"]
    args += [f"rollout.{x}" for x in ("engine=vllm", "dtype=float32", "kv_cache_mib=32", "concurrent=4")]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert ringrl(*args, "--run", whole).code == 0
    responses = killed / "responses" / "gsm8k.jsonl"

    def some() -> bool:
        return responses.is_file() and responses.read_text().count('"text"') > 4

    stopped = ringrl_until(some, signal.SIGKILL, *args, "--run", killed)
    assert stopped.code == 128 + signal.SIGKILL
    before = [r["text"] for r in lines(responses)[:4] if "text" in r]
    result = ringrl(*args, "--run", killed, "--resume", "rollout.workers=2")
    assert result.code == 0, result.text
    first, second = (json.loads((run / "results.json").read_text()) for run in (whole, killed))
    assert first["benchmarks"] == second["benchmarks"]
    assert (killed / "responses" / "gsm8k.jsonl").read_bytes() == (whole / "responses" / "gsm8k.jsonl").read_bytes()
    assert {r["text"] for r in lines(responses)} >= set(before)
    assert "avg@k ± standard error over problems ± over samples" in result.text

    compared = ringrl("eval", "--compare", whole, killed)
    assert compared.code == 0
    assert "gsm8k: no difference is shown: +0.0 ± 0.0 points on 6 problems, p = 1" in compared.text
    refused = ringrl("eval", "--rescore", tmp_path / "nowhere")
    assert (refused.code, refused.text.count("\n")) == (2, 1)
    assert children_of_tests() == []


@pytest.mark.slow
def test_prompts_of_more_tokens_than_vllm_takes_at_once(inputs: Inputs, tmp_path: Path) -> None:
    """A prompt that vLLM reads in parts ends it on the CPU, where it takes 4,096 tokens at once."""
    rows = lines(Path(inputs.data("heldout_math"))) * 10
    data = tmp_path / "long.jsonl"
    data.write_text(
        "".join(json.dumps(r | {"id": i, "problem": f"{i} " + "7 + 7 " * 50}) + "\n" for i, r in enumerate(rows))
    )
    args = [
        "eval",
        "--model",
        inputs.model,
        "--bench",
        "gsm8k",
        "--data",
        data,
        "--samples",
        "1",
        "--run",
        tmp_path / "run",
    ]
    args += ["max_total_tokens=320", "prompting.max_tokens=316", "prompting.suffix={}", "verify.workers=1"]
    args += [f"rollout.{x}" for x in ("engine=vllm", "dtype=float32", "kv_cache_mib=64", "concurrent=64")]
    result = ringrl(*args)
    assert result.code == 0, result.text
    assert "failed" not in result.text
