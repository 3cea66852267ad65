"""What only vLLM workers can do: tell which experts they took, and be stopped in the middle of a response."""

from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tests.conftest import (
    RANKS,
    SMALL,
    Inputs,
    children_of_tests,
    lines,
    meddle,
    ringrl,
    rl_config,
    timeless,
    write_yaml,
)

pytest.importorskip("vllm")
pytestmark = pytest.mark.usefixtures("uneven_rewards")


def run(inputs: Inputs, folder: Path, *more: str) -> list[dict[str, Any]]:
    folder.mkdir()
    config = rl_config(inputs, folder / "run", updates=2)
    config["rollout"] |= {"engine": "vllm", "concurrent": 8}
    config["stages"][0] |= {"data": [inputs.source("rl_math", "rl_code")], "max_total_tokens": 96, "steps": 4}
    result = ringrl("rl", write_yaml(folder / "rl.yaml", config), *more)
    assert result.code == 0, result.text
    assert children_of_tests() == []
    return timeless(folder / "run" / "metrics.jsonl")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_experts_the_engine_took_are_those_the_trainer_takes(inputs: Inputs, tmp_path: Path) -> None:
    """In float32 both choose alike, so replaying the engine's choice is replaying the trainer's own."""
    engine = run(inputs, tmp_path / "engine", "loss.router_replay=engine")
    trainer = run(inputs, tmp_path / "trainer", "loss.router_replay=trainer")
    keys = ("loss", "grad_norm", "ratio_max", "mismatch_kl", "expert_load_max")
    for a, b in zip(engine, trainer, strict=True):
        assert {k: a[k] for k in keys} == pytest.approx({k: b[k] for k in keys}, rel=1e-3, abs=1e-5)
    assert engine[1]["ratio_max"] > 1.001


EVENTS = """
    import ringrl.rewards.pool as rewards
    import ringrl.rollout.vllm_pool as engine
    submit, generate = rewards.VerifierPool.submit, engine.VLLMPool.generate
    events = open({file!r}, "a", buffering=1)
    def noting_verdicts(self, domain, text, reference):
        print("to its verifier", file=events)
        return submit(self, domain, text, reference)
    def noting_completions(self, *args):
        for index, place, completion in generate(self, *args):
            print(completion.finish, index, file=events)
            yield index, place, completion
        print("all are sampled", file=events)
    rewards.VerifierPool.submit, engine.VLLMPool.generate = noting_verdicts, noting_completions
"""


@pytest.mark.slow
def test_workers_pause_and_continue(inputs: Inputs, tmp_path: Path) -> None:
    file = tmp_path / "events"
    with meddle(tmp_path / "meddle", RANKS, EVENTS.format(file=str(file))):
        pause_and_continue(inputs, tmp_path)
    generations = [part.splitlines() for part in file.read_text().split("all are sampled\n")]
    apart = 0
    for events in generations:
        sampled = [i for i, event in enumerate(events) if event != "to its verifier"]
        finished = [i for i in sampled if not events[i].startswith("paused")]
        assert [i + 1 for i in finished] == [i for i in range(len(events)) if i not in sampled]  # each when it comes
        groups = [group for group, _ in groupby(events[i].split()[1] for i in sampled)]
        apart += len(groups) - len(set(groups))
    assert apart  # completions of one group came one by one, while others of it were still being sampled


def pause_and_continue(inputs: Inputs, tmp_path: Path) -> None:
    more = ["stages.0.budget.retention=3", "stages.0.budget.phi=100", "stages.0.budget.max_resamples=8"]
    rows = run(inputs, tmp_path / "a", *more, "rollout.workers=2")
    assert all(r["tokens_trained"] == 50 and r["parity"] < 1e-3 for r in rows)
    assert max(r["tokens_carried"] for r in rows) > 0 == rows[0]["staleness"]
    assert max(r["staleness"] for r in rows) > 0
    assert rows[0]["mismatch_kl"] < 1e-6  # the sampler's log-probs stay with their tokens through a pause


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["moe", "dense"])
def test_a_head_that_is_tied_to_the_embeddings_gets_new_weights(kind: str, inputs: Inputs, tmp_path: Path) -> None:
    """Nor do the folder's own ways to sample change anything."""
    from ringrl.data.tiny import build_model

    texts = [row["problem"] for name in ("rl_math", "rl_code") for row in lines(Path(inputs.data(name)))]
    model = tmp_path / "tied"
    build_model(model, texts, 0, tied=True, **SMALL)
    if kind == "dense":
        keys = ("vocab_size", "hidden_size", "num_hidden_layers", "head_dim", "num_attention_heads",
                "num_key_value_heads", "max_position_embeddings", "eos_token_id")  # fmt: skip
        config = AutoConfig.from_pretrained(model).to_dict()
        same = {key: config[key] for key in keys}
        dense = AutoConfig.for_model("qwen3", **same, intermediate_size=64, tie_word_embeddings=True)
        AutoModelForCausalLM.from_config(dense).save_pretrained(model)
    end = {"eos_token_id": config_end(model), "repetition_penalty": 1.3, "top_k": 3, "min_p": 0.2, "max_new_tokens": 5}
    (model / "generation_config.json").write_text(json.dumps(end))
    rows = run(inputs, tmp_path / "a", f"model={model}", "optimizer.lr=1e-2")
    assert max(r["shift"] for r in rows) > 1e-2 > 1e-5 > max(r["parity"] for r in rows)
    assert max(r["mismatch_kl"] for r in rows[::2]) < 1e-5


def config_end(model: Path) -> int:
    return json.loads((model / "config.json").read_text())["eos_token_id"]
