"""What `ringrl.models.transformers_internals` takes for granted, against the transformers that is installed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    GptOssConfig,
    GraniteConfig,
    GraniteMoeConfig,
    LlamaConfig,
    MixtralConfig,
    Qwen3MoeConfig,
)
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeTopKRouter

from ringrl.models.transformers_internals import (
    attention_function,
    has_plain_experts,
    logits_of,
    router_modules,
)

SIZES: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 1, "vocab_size": 8,
                         "num_key_value_heads": 1, "head_dim": 16, "pad_token_id": None}  # fmt: skip


@pytest.mark.parametrize("name", ["sdpa", "packed", "eager"])
def test_the_attention_is_the_one_that_was_asked_for(name: str) -> None:
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    from ringrl.models.attention import packed_attention

    def eager() -> None: ...

    lm = AutoModelForCausalLM.from_config(LlamaConfig(**SIZES), attn_implementation=name)
    expected: Any = {"sdpa": sdpa_attention_forward, "packed": packed_attention, "eager": eager}
    assert attention_function(lm.config, eager) is expected[name]


def test_the_routers_of_every_layer_are_found_and_a_dense_model_has_none() -> None:
    moe = AutoModelForCausalLM.from_config(Qwen3MoeConfig(num_experts=4, moe_intermediate_size=8, **SIZES))
    routers, logits_at = router_modules(moe)
    assert logits_at == 0
    assert list(routers) == ["layers.0.mlp.gate", "layers.1.mlp.gate"]
    assert all(isinstance(router, Qwen3MoeTopKRouter) for router in routers.values())
    assert router_modules(AutoModelForCausalLM.from_config(LlamaConfig(**SIZES))) == ({}, 0)
    granite = AutoModelForCausalLM.from_config(GraniteMoeConfig(num_local_experts=4, **SIZES))
    assert router_modules(granite)[1] == 2  # its logits are the last of three


@pytest.mark.parametrize(
    ("config", "scale"), [(LlamaConfig(**SIZES), 1), (GraniteConfig(**SIZES, logits_scaling=4), 4)]
)
def test_logits_come_from_the_models_own_forward_and_the_model_stays_whole(config: Any, scale: float) -> None:
    lm = AutoModelForCausalLM.from_config(config)
    parts = dict(lm.named_modules())
    hidden = torch.randn(5, 16, requires_grad=True)
    logits = logits_of(lm, hidden)
    torch.testing.assert_close(logits, lm.lm_head(hidden) / scale)
    logits.sum().backward()
    assert hidden.grad is not None
    assert lm.lm_head.weight.grad is not None
    assert dict(lm.named_modules()) == parts


def test_experts_of_another_form_are_recognised() -> None:
    more: dict[str, Any] = {**SIZES, "intermediate_size": 8, "num_local_experts": 4, "num_experts_per_tok": 2}
    for config, plain in ((MixtralConfig(**more), True), (GptOssConfig(**more), False)):
        lm = AutoModelForCausalLM.from_config(config)
        assert [has_plain_experts(m.experts) for m in lm.modules() if hasattr(m, "experts")] == [plain, plain]
