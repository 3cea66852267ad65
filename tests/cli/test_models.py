"""Families that need care, through the command line: trained exactly, or refused in one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from ringrl.data.chat import load_tokenizer, make_sequences, turn_end
from ringrl.data.source import read_conversations
from tests.cli.test_sft import sft_config
from tests.conftest import Inputs, lines, ringrl, rl_config, write_yaml

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
}
SCALES = {"logits_scaling": 4.0, "embedding_multiplier": 3.0, "residual_multiplier": 0.5, "attention_multiplier": 0.25}
HYBRID = {**SCALES, "num_local_experts": 4, "num_experts_per_tok": 2, "shared_intermediate_size": 32,
          "layer_types": ["mamba", "attention"], "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8,
          "mamba_n_groups": 1, "mamba_chunk_size": 16}  # fmt: skip


def family(inputs: Inputs, folder: Path, model_type: str, **more: Any) -> Inputs:
    """As `inputs`, with a model of that family and the same tokenizer."""
    (folder / "data").symlink_to(inputs.folder / "data")
    same = json.loads((Path(inputs.model) / "config.json").read_text())
    same = {k: same[k] for k in ("vocab_size", "pad_token_id", "eos_token_id")}
    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, **{**SIZES, **same, **more})
    AutoModelForCausalLM.from_config(config).save_pretrained(folder / "model")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
        shutil.copy(Path(inputs.model) / name, folder / "model")
    return Inputs(folder)


@torch.no_grad()
def plain_loss(folder: Path, cfg: Any) -> float:
    """Mean loss per trained token of the validation set, by transformers alone."""
    tokenizer = load_tokenizer(str(folder), cfg.prompting)
    lm = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    total, n = 0.0, 0
    end, rows = turn_end(str(folder), tokenizer, cfg.prompting), list(read_conversations(cfg.validation))
    for [sequence] in make_sequences(rows, tokenizer, cfg.prompting, end):
        labels = torch.tensor([sequence.token_ids.tolist()]).where(torch.tensor(sequence.trained.tolist()), -100)
        count = int((labels[0, 1:] >= 0).sum())
        total += float(lm(input_ids=torch.tensor([sequence.token_ids.tolist()]), labels=labels).loss) * count
        n += count
    return total / n


@pytest.mark.parametrize(
    ("model_type", "more", "padded"),
    [
        ("granitemoehybrid", HYBRID, True),
        pytest.param("granite", SCALES, False, marks=pytest.mark.slow),
        pytest.param("mistral", {"sliding_window": 16}, False, marks=pytest.mark.slow),
    ],
)
def test_sft_measures_the_loss_of_transformers(
    model_type: str, more: dict[str, Any], padded: bool, inputs: Inputs, tmp_path: Path
) -> None:
    from ringrl.config.commands import SFTConfig

    config = sft_config(family(inputs, tmp_path, model_type, **more), tmp_path / "run", epochs=1, batch_examples=128)
    result = ringrl("sft", write_yaml(tmp_path / "sft.yaml", config))
    assert result.code == 0, result.text
    assert (f"model_type {model_type}: padded rows, although trainer.packing is on" in result.text) == padded
    [checkpoint] = (tmp_path / "run" / "checkpoints").iterdir()
    measured = lines(tmp_path / "run" / "evals.jsonl")[-1]["val_loss"]
    assert measured == pytest.approx(plain_loss(checkpoint, SFTConfig.model_validate(config)), abs=1e-4)


def refused(command: str, config: Path, *more: str) -> str:
    result = ringrl(command, config, *more)
    assert result.code == 2, result.text
    assert "Traceback" not in result.text
    return result.text.strip().splitlines()[-1]


def test_a_family_that_cannot_be_trained_is_refused_before_anything_starts(inputs: Inputs, tmp_path: Path) -> None:
    jamba = family(inputs, tmp_path, "jamba", num_experts=2, num_experts_per_tok=1, mamba_dt_rank=8, mamba_d_state=8,
                   use_mamba_kernels=False)  # fmt: skip
    config = write_yaml(tmp_path / "sft.yaml", sft_config(jamba, tmp_path / "run"))
    assert "model_type jamba cannot be trained: " in refused("sft", config)
    assert not (tmp_path / "run").exists()
    assert "model_type jamba cannot be trained: " in ringrl("sft", config, "--dry-run").text


def test_sequences_longer_than_the_model_was_made_for_are_refused(inputs: Inputs, tmp_path: Path) -> None:
    short = family(inputs, tmp_path, "qwen3", max_position_embeddings=32)
    told = refused("rl", write_yaml(tmp_path / "rl.yaml", rl_config(short, tmp_path / "rl")))
    assert "max_total_tokens: got sequences of 64 tokens, expected at most 32, max_position_embeddings" in told
    told = refused("sft", write_yaml(tmp_path / "sft.yaml", sft_config(short, tmp_path / "sft")))
    assert "max_tokens: got sequences of" in told


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_attention_that_would_change_the_model_is_refused(ranks: int, inputs: Inputs, tmp_path: Path) -> None:
    # weights large enough for scores that a cap changes
    caps = {"attn_logit_softcapping": 1.0, "query_pre_attn_scalar": 16, "initializer_range": 0.3}
    config = sft_config(family(inputs, tmp_path, "gemma2", **caps), tmp_path / "run")
    told = refused("sft", write_yaml(tmp_path / "sft.yaml", config), "trainer.attention=sdpa", f"trainer.ranks={ranks}")
    assert "model_type gemma2: log-probs of training differ from the model's own by" in told
    assert told.endswith("trainer.attention=sdpa does not do all that this family needs; set packed")
