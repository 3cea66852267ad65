"""What is read off a config.json, against what transformers says of its models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import transformers

from ringrl.errors import DataError
from ringrl.models.families import check_positions, check_trainable, keeps_state, max_positions
from ringrl.models.folder import read_object


def test_every_family_that_transformers_calls_stateful_is_known():
    files = (Path(transformers.__file__).parent / "models").glob("*/modeling_*.py")
    stateful = {f.parent.name for f in files if "_is_stateful = True" in f.read_text()}
    assert {name for name in stateful if not keeps_state({"model_type": name})} == set()
    assert len(stateful) > 12


@pytest.mark.parametrize(
    ("config", "state"),
    [
        ({"model_type": "llama"}, False),
        ({"model_type": "gpt_oss", "layer_types": ["sliding_attention", "full_attention"]}, False),
        ({"model_type": "new", "layer_types": ["linear_attention", "full_attention"]}, True),
        ({"model_type": "new", "layers_block_type": ["mamba", "attention"]}, True),
        ({"model_type": "new_vl", "text_config": {"model_type": "new", "layer_types": ["conv"]}}, True),
    ],
)
def test_layers_that_keep_a_state(config: dict[str, Any], state: bool):
    assert keeps_state(config) is state


@pytest.mark.parametrize(
    ("config", "longest"),
    [
        ({}, 0),
        ({"max_position_embeddings": 64}, 64),
        ({"n_positions": 80}, 80),
        ({"max_position_embeddings": 100, "rope_parameters": {"rope_type": "linear", "factor": 4.0}}, 400),
        ({"text_config": {"max_position_embeddings": 64}}, 64),
        ({"max_position_embeddings": 64, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}, 64),
        ({"max_position_embeddings": 64, "rope_scaling": {"type": "yarn", "factor": 4.0}}, 256),
        ({"max_position_embeddings": 256, "rope_parameters": {"rope_type": "yarn", "factor": 4.0,
          "original_max_position_embeddings": 64}}, 256),
        ({"max_position_embeddings": 256, "rope_parameters": {"rope_type": "llama3", "factor": 8.0}}, 256),
    ],
)  # fmt: skip
def test_the_longest_sequence(config: dict[str, Any], longest: int):
    assert max_positions(config) == longest


def test_longer_sequences_are_refused(tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps({"max_position_embeddings": 64}))
    check_positions(str(tmp_path), 64, "max_tokens")
    with pytest.raises(DataError, match="max_tokens: got sequences of 65 tokens, expected at most 64"):
        check_positions(str(tmp_path), 65, "max_tokens")


def test_a_family_that_is_refused_is_named(tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "jamba"}))
    with pytest.raises(DataError, match="model_type jamba cannot be trained: "):
        check_trainable(str(tmp_path))


@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_a_broken_configuration_is_one_line(text: str, tmp_path: Path):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(DataError, match=r"config\.json: ") as caught:
        read_object(tmp_path / "config.json")
    assert "\n" not in str(caught.value)
