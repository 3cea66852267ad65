"""Routers of real model classes: what they say, and that replay changes the choice and nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers import (
    AfmoeConfig,
    DeepseekV2Config,
    DeepseekV3Config,
    GptOssConfig,
    GraniteMoeConfig,
    HunYuanMoEV1Config,
    Llama4TextConfig,
    LlamaConfig,
    MiniMaxM2Config,
    MixtralConfig,
    Qwen3MoeConfig,
)
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from ringrl.algo.pack import TokenSequence, pack
from ringrl.errors import DataError
from ringrl.policy.forward import PolicyModule
from ringrl.policy.routers import Routers
from ringrl.types import MicroBatch

SIZES = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
         "num_key_value_heads": 2, "intermediate_size": 48, "max_position_embeddings": 64}  # fmt: skip
EXPERTS, TOP_K = 8, 2
CONFIGS = {
    "qwen3": Qwen3MoeConfig(**SIZES, num_experts=EXPERTS, num_experts_per_tok=TOP_K, moe_intermediate_size=16,
                            norm_topk_prob=True, head_dim=16),
    "unnormalised": Qwen3MoeConfig(**SIZES, num_experts=EXPERTS, num_experts_per_tok=TOP_K, moe_intermediate_size=16,
                                   norm_topk_prob=False, head_dim=16),
    "mixtral": MixtralConfig(**SIZES, num_local_experts=EXPERTS, num_experts_per_tok=TOP_K),
    "deepseek_v2": DeepseekV2Config(**SIZES, n_routed_experts=EXPERTS, num_experts_per_tok=TOP_K,
                                    moe_intermediate_size=16, topk_method="group_limited_greedy", n_group=2,
                                    topk_group=1, first_k_dense_replace=0, routed_scaling_factor=2.5,
                                    q_lora_rank=16, kv_lora_rank=16, qk_rope_head_dim=8, qk_nope_head_dim=8,
                                    v_head_dim=16, head_dim=8),
    "deepseek": DeepseekV3Config(**SIZES, n_routed_experts=EXPERTS, num_experts_per_tok=TOP_K, moe_intermediate_size=16,
                                 n_group=2, topk_group=1, first_k_dense_replace=0, routed_scaling_factor=2.5,
                                 q_lora_rank=16, kv_lora_rank=16, qk_rope_head_dim=8, qk_nope_head_dim=8,
                                 v_head_dim=16),
    # experts, gate weights, logits; gate weights are a softmax over the chosen
    "granite": GraniteMoeConfig(**SIZES, num_local_experts=EXPERTS, num_experts_per_tok=TOP_K),
    "gpt_oss": GptOssConfig(**SIZES, num_local_experts=EXPERTS, num_experts_per_tok=TOP_K, head_dim=16,
                            pad_token_id=None),
    # their blocks pass them a bias per expert, and one wants [B, L, H]
    "minimax_m2": MiniMaxM2Config(**SIZES, num_local_experts=EXPERTS, num_experts_per_tok=TOP_K, head_dim=16),
    "afmoe": AfmoeConfig(**SIZES, num_experts=EXPERTS, num_experts_per_tok=TOP_K, moe_intermediate_size=16, head_dim=16,
                         num_dense_layers=0, num_shared_experts=1, route_scale=2.0, pad_token_id=None),
    # no weight of its own, but a layer's
    "hunyuan": HunYuanMoEV1Config(**SIZES, num_experts=EXPERTS, moe_topk=TOP_K, head_dim=16, pad_token_id=None),
}  # fmt: skip
SIGMOID = ("deepseek", "minimax_m2", "afmoe")


def module(name: str) -> PolicyModule:
    torch.manual_seed(0)
    lm = AutoModelForCausalLM.from_config(CONFIGS[name], attn_implementation="eager").eval()
    for p in lm.parameters():
        torch.nn.init.normal_(p, std=0.3)
    return PolicyModule(lm, 1.0)


def batch(seed: int = 0) -> MicroBatch:
    ids = torch.randint(1, 64, (12,), generator=torch.Generator().manual_seed(seed)).tolist()
    sequence_of = TokenSequence(tuple(ids), (False,) * 4 + (True,) * 8, 1.0, 1.0, (-1.0,) * 8)
    return pack([sequence_of], 1, 64, packed=False)[0][0]


@pytest.mark.parametrize(("name", "scoring"), [(n, "sigmoid" if n in SIGMOID else "softmax") for n in CONFIGS])
def test_routers_are_found_and_understood(name: str, scoring: str):
    m = module(name)
    stats = m(batch())
    assert m.routers.scoring == scoring
    assert m.moe
    assert stats.router_logits.shape == (2, 8, EXPERTS)
    assert stats.chosen.shape == (2, 8, TOP_K)
    assert stats.routes.shape == (2, 11, TOP_K)
    assert torch.equal(stats.routes[:, 3:].long(), stats.chosen)  # positions 3 to 10 predict the trained tokens


@pytest.mark.parametrize("name", CONFIGS)
def test_replaying_its_own_choice_changes_nothing(name: str):
    m, mb = module(name), batch()
    with torch.no_grad():
        free = m(mb)
        replayed = m(mb, free.routes)
        unknown = m(mb, torch.full_like(free.routes, -1))
    assert torch.equal(free.logprobs, replayed.logprobs)
    assert torch.equal(free.logprobs, unknown.logprobs)


@torch.no_grad()
def test_an_engine_that_counts_dense_layers_is_understood():
    """vLLM answers with a row for every layer, whatever it holds for those that do not route."""
    config = DeepseekV3Config(**CONFIGS["deepseek"].to_dict() | {"num_hidden_layers": 3, "first_k_dense_replace": 1})
    lm = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    m, mb = PolicyModule(lm, 1.0), batch()
    forced = torch.randint(EXPERTS, (2, 11, TOP_K), generator=torch.Generator().manual_seed(0)).short()
    forced[..., 1] = (forced[..., 0] + 1) % EXPERTS
    expected, got = m(mb, forced), m(mb, torch.cat([torch.zeros_like(forced[:1]), forced]))
    assert torch.equal(got.routes, forced)
    assert torch.equal(got.logprobs, expected.logprobs)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_forced_experts_are_taken_with_the_gates_of_the_training_logits(name: str):
    """The same experts in another order are the same sum; other experts are another."""
    m, mb = module(name), batch()
    with torch.no_grad():
        free = m(mb)
        flipped = m(mb, free.routes.flip(-1))
        other = m(mb, (free.routes + 1) % EXPERTS)
    torch.testing.assert_close(flipped.logprobs, free.logprobs, rtol=1e-5, atol=1e-5)
    assert torch.equal(other.routes, (free.routes + 1) % EXPERTS)
    assert (other.logprobs - free.logprobs).abs().max() > 1e-2


def test_replay_keeps_the_gradient_of_the_router():
    m, mb = module("qwen3"), batch()
    forced = (m(mb).routes + 1) % EXPERTS
    m(mb, forced).logprobs.sum().backward()
    assert all(r.weight.grad.abs().max() > 1e-6 for r in m.routers.modules)


def test_what_backward_computes_again_is_replayed_too():
    mb = batch()
    plain, thrifty = module("qwen3"), module("qwen3")
    thrifty.lm.gradient_checkpointing_enable({"use_reentrant": False})
    thrifty.train()
    forced = (plain(mb).routes + 1) % EXPERTS
    grads = []
    for m in (plain, thrifty):
        stats = m(mb, forced)
        assert stats.router_logits.shape[0] == 2
        (stats.logprobs.sum() + stats.router_logits.square().sum()).backward()
        grads.append({n: p.grad for n, p in m.named_parameters() if p.grad is not None})
    assert grads[0].keys() == grads[1].keys()
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, rtol=1e-5, atol=1e-6)


def test_a_token_that_the_engine_told_nothing_about_chooses_for_itself():
    m, mb = module("qwen3"), batch()
    with torch.no_grad():
        free = m(mb)
        forced = (free.routes + 1) % EXPERTS
        forced[:, 5:] = -1
        mixed = m(mb, forced)
    assert torch.equal(mixed.routes[:, :5], forced[:, :5])
    assert torch.equal(mixed.routes[0, 5:], free.routes[0, 5:])  # deeper layers see other hidden states


def test_a_router_with_another_formula_trains_and_refuses_replay(monkeypatch: pytest.MonkeyPatch):
    from transformers.models.qwen3_moe import modeling_qwen3_moe

    plain = modeling_qwen3_moe.Qwen3MoeTopKRouter.forward

    def squared(self: torch.nn.Module, hidden: torch.Tensor) -> tuple[torch.Tensor, ...]:
        logits, weights, chosen = plain(self, hidden)
        return logits, weights.square(), chosen

    expected = module("qwen3")(batch()).router_logits[0]
    monkeypatch.setattr(modeling_qwen3_moe.Qwen3MoeTopKRouter, "forward", squared)
    m, mb = module("qwen3"), batch()
    stats = m(mb)
    assert m.routers.scoring == "softmax"
    assert torch.equal(stats.router_logits[0], expected)
    with pytest.raises(DataError, match=r"loss\.router_replay: expected none with model_type qwen3_moe"):
        m(mb, stats.routes)


def test_experts_without_routers_that_say_what_they_choose_are_refused():
    config = Llama4TextConfig(**SIZES, num_local_experts=4, num_experts_per_tok=1, interleave_moe_layer_step=1)
    lm = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    with pytest.raises(DataError, match="llama4_text: got 0 routers whose logits transformers records, expected 2"):
        Routers(lm)


def test_a_dense_model_has_no_routers():
    lm = AutoModelForCausalLM.from_config(LlamaConfig(**SIZES), attn_implementation="eager")
    assert Routers(lm).modules == []
    stats = PolicyModule(lm, 1.0)(batch())
    assert stats.router_logits.shape == (0, 8, 1)
    assert not PolicyModule(lm, 1.0).moe


def test_routes_of_the_engine_reach_the_row():
    routes = (
        torch.randint(0, EXPERTS, (9, 2, TOP_K), generator=torch.Generator().manual_seed(1)).to(torch.uint8).numpy()
    )
    one = TokenSequence(tuple(range(1, 13)), (False,) * 4 + (True,) * 8, 1.0, 1.0, (-1.0,) * 8, routes)
    [[mb]] = pack([one, replace(one, token_ids=tuple(range(20, 32)))], 1, 64)
    assert mb.routes.shape == (1, 22, 2, TOP_K)
    assert mb.routes[0, :9].tolist() == routes.tolist() == mb.routes[0, 11:20].tolist()
    assert (mb.routes[0, 9:11] == -1).all()
