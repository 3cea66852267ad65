"""What `ringrl.models.transformers_internals` takes for granted, against the transformers that is installed."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen3MoeConfig
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeTopKRouter

from ringrl.models.transformers_internals import attention_function, router_modules

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
    routers = router_modules(moe)
    assert list(routers) == ["layers.0.mlp.gate", "layers.1.mlp.gate"]
    assert all(isinstance(router, Qwen3MoeTopKRouter) for router in routers.values())
    assert router_modules(AutoModelForCausalLM.from_config(LlamaConfig(**SIZES))) == {}
