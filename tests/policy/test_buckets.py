"""Weights as they are sent and saved: bucket by bucket what transformers writes to a model folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.policy.test_parity import FAMILIES, build


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("buckets")
    for family in FAMILIES:
        build(folder, family)
    return folder


@pytest.mark.parametrize("limit", [1, 8_000, 1 << 30])
@pytest.mark.parametrize("family", FAMILIES)
def test_buckets_together_are_the_checkpoint(family: str, limit: int, folder: Path) -> None:
    from ringrl.policy.experts import weight_buckets
    from ringrl.policy.forward import load_lm

    lm = load_lm(str(folder / family), "float32", "sdpa")
    expected = load_file(folder / family / "model.safetensors")
    buckets = list(weight_buckets(lm, limit))
    found: dict[str, Any] = {}
    for bucket in buckets:
        assert not found.keys() & bucket.keys()
        found |= bucket
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    sizes = [sum(t.nbytes for t in bucket.values()) for bucket in buckets]
    if limit == 1 << 30:
        assert len(buckets) == 1
    one_expert = 3 * 32 * 24 * 4
    for bucket, size in zip(buckets, sizes, strict=True):
        if all(".experts." in name for name in bucket):
            assert size <= max(limit, one_expert)
        else:  # what a layer has outside its experts is not cut
            assert size <= max(limit, sum(t.nbytes for n, t in expected.items() if ".experts." not in n))


@pytest.mark.parametrize("family", ["granitemoe", "gpt_oss"])
def test_experts_that_lie_in_one_tensor_are_sent_as_they_lie(family: str, tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    from ringrl.policy.experts import weight_buckets
    from ringrl.policy.forward import load_lm

    sizes = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "head_dim": 16,
             "num_key_value_heads": 2, "intermediate_size": 24, "num_local_experts": 4, "num_experts_per_tok": 2,
             "pad_token_id": None}  # fmt: skip
    AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **sizes)).save_pretrained(tmp_path)
    expected = load_file(tmp_path / "model.safetensors")
    buckets = list(weight_buckets(load_lm(str(tmp_path), "float32", "packed"), 1))
    found = {name: tensor for bucket in buckets for name, tensor in bucket.items()}
    assert len(buckets) > 4
    assert sum(len(bucket) for bucket in buckets) == len(found)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
