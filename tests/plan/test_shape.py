"""What is read off a config.json, against transformers' models, counts by hand, and torch's own FLOP counter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM

import ringrl.models.bailing_moe  # noqa: F401  (registers the family)
from ringrl.algo.pack import TokenSequence, pack
from ringrl.errors import ConfigError
from ringrl.plan.shape import Cost, read_shape
from ringrl.policy.forward import PolicyModule
from tests.conftest import Inputs

LING_LITE_1_5 = {  # inclusionAI/Ling-lite-1.5
    "architectures": ["BailingMoeForCausalLM"], "model_type": "bailing_moe", "hidden_size": 2048,
    "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 4, "max_position_embeddings": 32768,
    "intermediate_size": 1408, "moe_intermediate_size": 1408, "num_experts": 64, "num_experts_per_tok": 6,
    "num_shared_experts": 2, "first_k_dense_replace": 0, "norm_topk_prob": True, "hidden_act": "silu",
    "rms_norm_eps": 1e-6, "rope_theta": 600000, "rope_scaling": None, "vocab_size": 126464, "use_bias": False,
    "tie_word_embeddings": False, "use_qkv_bias": False, "norm_head": False, "torch_dtype": "bfloat16",
}  # fmt: skip
COMMON = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "pad_token_id": 0,
          "intermediate_size": 40, "num_key_value_heads": 2, "bos_token_id": 0, "eos_token_id": 0}  # fmt: skip
MOE = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
MLA = {"n_routed_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "num_key_value_heads": 4,
       "n_shared_experts": 2, "first_k_dense_replace": 1, "kv_lora_rank": 12, "qk_rope_head_dim": 8, "v_head_dim": 6,
       "qk_nope_head_dim": 4, "n_group": 2, "topk_group": 1}  # fmt: skip
FAMILIES: list[tuple[str, dict[str, Any]]] = [
    ("llama", {"tie_word_embeddings": True, "attention_bias": True}),
    ("mistral", {"head_dim": 12}),
    ("qwen2", {}),
    ("qwen3", {"head_dim": 16}),
    ("mixtral", {"num_local_experts": 8, "num_experts_per_tok": 2}),
    ("olmoe", {"num_experts": 8, "num_experts_per_tok": 2}),
    ("qwen2_moe", {**MOE, "shared_expert_intermediate_size": 20, "decoder_sparse_step": 2}),
    ("qwen3_moe", {**MOE, "head_dim": 16, "mlp_only_layers": [1]}),
    ("deepseek_v2", {**MLA, "q_lora_rank": None, "topk_method": "group_limited_greedy"}),
    ("deepseek_v3", {**MLA, "q_lora_rank": 16}),
    ("bailing_moe", {**MOE, "head_dim": 16, "num_shared_experts": 2, "first_k_dense_replace": 1, "use_bias": True,
                     "use_qkv_bias": True}),
    ("bailing_moe_v2", {**MOE, "head_dim": 16, "num_shared_experts": 1, "first_k_dense_replace": 1, "n_group": 4,
                        "topk_group": 2, "score_function": "sigmoid", "moe_router_enable_expert_bias": True,
                        "use_qk_norm": True}),
]  # fmt: skip


@pytest.mark.parametrize(("family", "more"), FAMILIES, ids=[f for f, _ in FAMILIES])
def test_parameters_are_those_of_transformers(family: str, more: dict[str, Any], tmp_path: Path):
    config = AutoConfig.for_model(family, **COMMON | more)
    config.save_pretrained(tmp_path)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    routed = sum(p.numel() for n, p in model.named_parameters() if ".experts." in n)
    shape = read_shape(str(tmp_path))
    assert (shape.total, shape.routed) == (sum(p.numel() for p in model.parameters()), routed)


def write(folder: Path, config: dict[str, Any]) -> str:
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


def test_ling_lite(tmp_path: Path):
    """16.80 B and 2.75 B, as published."""
    shape = read_shape(write(tmp_path, LING_LITE_1_5))
    layer = 2 * 2048 * 2048 + 2 * 2048 * 512 + 64 * 2048 + 2 * 2048 + 3 * 2048 * 2816
    outside, expert = 28 * layer + 2 * 126464 * 2048 + 2048, 3 * 2048 * 1408
    assert (shape.total, shape.active) == (outside + 28 * 64 * expert, outside + 28 * 6 * expert)
    assert (round(shape.total / 1e9, 2), round(shape.active / 1e9, 2)) == (16.80, 2.75)
    assert shape.attention.cached == 2 * 4 * 128


def test_ling_mini_2(tmp_path: Path):
    """16.26 B and 1.43 B; releases of 2.0 bear either model_type."""
    config = LING_LITE_1_5 | {
        "num_hidden_layers": 20, "intermediate_size": 5120, "moe_intermediate_size": 512, "num_experts": 256,
        "num_experts_per_tok": 8, "num_shared_experts": 1, "first_k_dense_replace": 1, "vocab_size": 157184,
        "head_dim": 128, "use_qk_norm": True,
    }  # fmt: skip
    shape = read_shape(write(tmp_path, config))
    attention = 2 * 2048 * 2048 + 2 * 2048 * 512 + 2 * 128
    expert = 3 * 2048 * 512
    dense = 20 * (attention + 2 * 2048) + 3 * 2048 * 5120 + 19 * (256 * 2048 + expert) + 2 * 157184 * 2048 + 2048
    assert (shape.total, shape.active) == (dense + 19 * 256 * expert, dense + 19 * 8 * expert)
    assert (round(shape.total / 1e9, 2), round(shape.active / 1e9, 2)) == (16.26, 1.43)
    write(tmp_path, config | {"model_type": "bailing_moe_v2"})
    assert read_shape(str(tmp_path)).total == shape.total


def test_ling_lite_on_the_meta_device(tmp_path: Path):
    folder = write(tmp_path, LING_LITE_1_5)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    assert sum(p.numel() for p in model.parameters()) == read_shape(folder).total


def test_a_checkpoint_has_that_many(inputs: Inputs):
    with safe_open(Path(inputs.model) / "model.safetensors", "pt") as file:
        held = sum(torch.Size(file.get_slice(n).get_shape()).numel() for n in file.keys())  # noqa: SIM118
    assert held == read_shape(inputs.model).total


def test_only_config_json_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = write(tmp_path, LING_LITE_1_5)
    assert read_shape(folder) == read_shape(f"{folder}/config.json")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    for model, part in (
        (str(tmp_path / "none"), f"config.json --local-dir {tmp_path / 'none'}` fetches that of the model"),
        ("models/Ling-lite-1.5", "`hf download OWNER/NAME config.json --local-dir models/Ling-lite-1.5` fetches"),
        ("runs/start", "`hf download OWNER/NAME config.json --local-dir runs/start` fetches"),
        ("inclusionAI/Ling-lite-1.5", "`hf download inclusionAI/Ling-lite-1.5 config.json` first"),
    ):
        with pytest.raises(ConfigError, match=part):
            read_shape(model)


def test_a_name_on_the_hub_is_read_from_its_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    at = tmp_path / "models--inclusionAI--Ling-lite-1.5"
    (at / "snapshots" / "abc").mkdir(parents=True)
    (at / "refs").mkdir()
    (at / "refs" / "main").write_text("abc")
    write(at / "snapshots" / "abc", LING_LITE_1_5)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert read_shape("inclusionAI/Ling-lite-1.5").hidden == 2048


@pytest.mark.parametrize(
    ("change", "part"),
    [({"model_type": "gpt2"}, "model_type: got 'gpt2', expected one of llama"),
     ({"vocab_size": None}, "vocab_size: missing"), ({"num_experts": None}, "num_experts: missing")],
)  # fmt: skip
def test_what_is_not_known_is_refused_in_one_line(change: dict[str, Any], part: str, tmp_path: Path):
    config = {k: v for k, v in (LING_LITE_1_5 | change).items() if v is not None}
    with pytest.raises(ConfigError, match=part) as e:
        read_shape(write(tmp_path, config))
    assert str(tmp_path / "config.json") in str(e.value)
    assert "\n" not in str(e.value)


# ---- FLOPs


H, V, LAYERS, E, TOP_K, WIDTH, HEADS, KV, D = 32, 64, 2, 4, 2, 24, 2, 1, 16
ATTENTION = H * HEADS * D + 2 * H * KV * D + HEADS * D * H
ACTIVE = LAYERS * (ATTENTION + E * H + TOP_K * 3 * H * WIDTH)  # projections, router, two of four experts
QWEN3 = {"vocab_size": V, "hidden_size": H, "num_hidden_layers": LAYERS, "num_experts": E, "head_dim": D,
         "num_experts_per_tok": TOP_K, "moe_intermediate_size": WIDTH, "num_attention_heads": HEADS,
         "num_key_value_heads": KV, "intermediate_size": 40}  # fmt: skip


@pytest.mark.parametrize("tied", [False, True])
def test_active_weights_are_those_of_the_experts_taken(tied: bool, tmp_path: Path):
    """A tied head is multiplied with all the same."""
    config = {"model_type": "qwen3_moe", **QWEN3, "tie_word_embeddings": tied}
    assert read_shape(write(tmp_path, config)).cost == Cost(ACTIVE, H * V, 4 * HEADS * D * LAYERS)


def test_forward_and_update_by_hand():
    work = Cost(layers=10.0, head=5, pair=4)
    layers, head = 2 * 10 * (2 + 3) + 4 * (3 + 6), 2 * 5 * 4  # 1 + 2 and 1 + 2 + 3 pairs of query and key
    assert work.forward([2, 3], 4) == (layers, head)
    assert work.update([2, 3], 4, recompute=False) == (3 * (layers + head), 3 * layers + 4 * head)
    assert work.update([2, 3], 4, recompute=True) == (3 * (layers + head), 4 * layers + 4 * head)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("family", ["qwen3_moe", "bailing_moe", "deepseek_v3"])
def test_torch_counts_the_same(family: str, recompute: bool, tmp_path: Path):
    more = QWEN3 if family == "qwen3_moe" else COMMON | dict(FAMILIES)[family] | {"use_bias": False}
    eager = {"attn_implementation": "eager", "experts_implementation": "eager", "pad_token_id": 0}
    config = AutoConfig.for_model(family, **more | eager)
    config.save_pretrained(tmp_path)
    torch.manual_seed(0)
    lm, n, trained = AutoModelForCausalLM.from_config(config), 13, 9
    if recompute:
        lm.gradient_checkpointing_enable({"use_reentrant": False})
    module = PolicyModule(lm, 1.0).train()
    mb = pack([TokenSequence(tuple(range(n + 1)), (False,) * (n + 1 - trained) + (True,) * trained, 1.0)], 1, 100)[0][0]
    with FlopCounterMode(display=False) as forward:
        stats = module(mb)
    with FlopCounterMode(display=False) as backward:
        (stats.logprobs.sum() + stats.entropy.sum()).backward()

    work = read_shape(str(tmp_path)).cost
    above = work.pair * (n * n - n * (n + 1) // 2)  # eager attention also computes what the mask hides
    assert forward.get_total_flops() == sum(work.forward([n], trained)) + above
    # what is computed again stops before a layer's last product, if nothing after that needs it
    both = forward.get_total_flops() + backward.get_total_flops()
    assert both == pytest.approx(
        work.update([n], trained, recompute)[1] + (3 + recompute) * above, rel=0.03 * recompute
    )
