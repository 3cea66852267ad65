"""The Ling family against the original's numbers (where they lie beside the project), against a forward pass
written here in plain PyTorch, and against vLLM."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion

from ringrl.algo.pack import TokenSequence, pack
from ringrl.errors import DataError
from ringrl.launch.start import check_sampled
from ringrl.models.bailing_moe import (
    BailingMoeConfig,
    BailingMoeForCausalLM,
    BailingMoeV2Config,
    BailingMoeV2ForCausalLM,
)
from ringrl.models.folder import tensors
from ringrl.policy.experts import weight_buckets
from ringrl.policy.forward import PolicyModule, load_lm
from ringrl.policy.routers import Gate, Routers
from ringrl.policy.sync import check_complete
from tests.conftest import LING, LING_2, write_ling

REFERENCE = Path(__file__).parents[3] / "shared" / "data" / "bailing_moe"  # written with the original model code
FOLDERS = ("moe_all", "dense_first")
VARIANTS: dict[str, dict[str, Any]] = {
    "ling-lite": {"norm_head": True},
    "dense first": {"first_k_dense_replace": 1, "num_shared_experts": 1, "norm_topk_prob": False},
    "biases, tied, nothing shared": {"use_qkv_bias": True, "use_bias": True, "num_shared_experts": 0,
                                     "tie_word_embeddings": True},
    "2.0": LING_2,
    "2.0, other type": {**LING_2, "model_type": "bailing_moe_v2", "partial_rotary_factor": 1.0, "rotary_dim": 8,
                        "first_k_dense_replace": 0, "n_group": None, "topk_group": None, "norm_topk_prob": False,
                        "num_hidden_layers": 2, "moe_shared_expert_intermediate_size": 64},
}  # fmt: skip
Weights = Mapping[str, torch.Tensor]


def reference(name: str) -> Path:
    if not (REFERENCE / name).is_dir():
        pytest.skip(f"no {REFERENCE / name}")
    return REFERENCE / name


def named_grads(lm: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Gradients under checkpoint names."""
    return revert_weight_conversion(lm, {name: p.grad for name, p in lm.named_parameters()})


def assert_same_tensors(got: Weights, expected: Weights) -> None:
    assert sorted(got) == sorted(expected)
    assert not [k for k, v in expected.items() if got[k].dtype != v.dtype or not torch.equal(got[k], v)]


def assert_close_grads(got: Weights, expected: Weights) -> None:
    assert sorted(got) == sorted(expected)
    for name, grad in expected.items():
        assert float((got[name] - grad).norm()) <= 1e-5 * float(grad.norm()) + 1e-12, name


# against the original


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("name", FOLDERS)
def test_the_original_computes_the_same(name: str, attention: str):
    folder = reference(name)
    golden = load_file(folder / "golden.safetensors")
    lm = load_lm(str(folder), "float32", attention)
    ids, mask = golden["input_ids"], golden["attention_mask"]
    out = lm(input_ids=ids, attention_mask=mask, labels=ids.masked_fill(mask == 0, -100), output_router_logits=True)
    torch.testing.assert_close(out.logits, golden["logits"], rtol=0, atol=1e-5)
    assert float(out.loss.detach()) == pytest.approx(float(golden["loss"]), abs=1e-6)
    assert len(out.router_logits) == sum(k.startswith("router_logits") for k in golden)
    for i, logits in enumerate(out.router_logits):
        expected = golden[f"router_logits.{i}"]
        torch.testing.assert_close(logits.view_as(expected), expected, rtol=0, atol=1e-5)
    out.loss.backward()
    grads = load_file(folder / "golden_grads.safetensors")
    assert_close_grads(named_grads(lm), {k.removeprefix("grad."): v for k, v in grads.items()})


@pytest.mark.parametrize("name", FOLDERS)
def test_the_original_continues_with_the_same_tokens(name: str):
    folder = reference(name)
    greedy = json.loads((folder / "greedy.json").read_text())
    lm = load_lm(str(folder), "float32", "sdpa")
    n = len(greedy["greedy_continuation"])
    out = lm.generate(torch.tensor([greedy["prompt"]]), do_sample=False, max_new_tokens=n)
    assert out[0, len(greedy["prompt"]) :].tolist() == greedy["greedy_continuation"]


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_of_the_original_is_written_as_it_was_read(name: str, tmp_path: Path):
    folder = reference(name)
    lm = load_lm(str(folder), "float32", "sdpa")
    lm.save_pretrained(tmp_path)
    before, after = (json.loads((f / "config.json").read_text()) for f in (folder, tmp_path))
    assert_same_tensors(load_file(tmp_path / "model.safetensors"), load_file(folder / "model.safetensors"))
    renamed = {"torch_dtype", "rope_scaling", "transformers_version", "sliding_window"}
    assert {k: after.get(k) for k in before if k not in renamed} == {k: before[k] for k in before if k not in renamed}


# against plain PyTorch


def plain_norm(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight


def plain_mlp(x: torch.Tensor, w: Weights, at: str) -> torch.Tensor:
    gate, up, down = (w[f"{at}.{name}_proj.weight"] for name in ("gate", "up", "down"))
    return (F.silu(x @ gate.T) * (x @ up.T)) @ down.T


def plain_rotate(x: torch.Tensor, theta: float, size: int) -> torch.Tensor:
    """[heads, L, D]: of the first `size` channels the pair (i, i + size / 2) of position p turns by
    p theta^(-2 i / size)."""
    half = size // 2
    angle = torch.arange(x.shape[1])[:, None] * theta ** (-torch.arange(half) / half)
    turned = torch.complex(x[..., :half], x[..., half:size]) * torch.polar(torch.ones_like(angle), angle)
    return torch.cat([turned.real, turned.imag, x[..., size:]], -1)


def plain_attention(x: torch.Tensor, w: Weights, at: str, c: Mapping[str, Any]) -> torch.Tensor:
    heads, kv, size = c["num_attention_heads"], c["num_key_value_heads"], c["head_dim"]
    qkv = x @ w[f"{at}.query_key_value.weight"].T + w.get(f"{at}.query_key_value.bias", 0.0)
    per_head = qkv.view(len(x), heads + 2 * kv, size).transpose(0, 1)
    q, k = per_head[:heads], per_head[heads : heads + kv]
    if c["use_qk_norm"]:
        q = plain_norm(q, w[f"{at}.query_layernorm.weight"])
        k = plain_norm(k, w[f"{at}.key_layernorm.weight"])
    turned = c.get("rotary_dim") or int(size * c.get("partial_rotary_factor", 1))
    q, k = (plain_rotate(x, c["rope_theta"], turned) for x in (q, k))
    k = k.repeat_interleave(heads // kv, 0)
    v = per_head[heads + kv :].repeat_interleave(heads // kv, 0)
    future = torch.ones(len(x), len(x)).triu(1).bool()
    weights = (q @ k.transpose(1, 2) / size**0.5).masked_fill(future, -torch.inf).softmax(-1)
    return (weights @ v).transpose(0, 1).flatten(1) @ w[f"{at}.dense.weight"].T + w.get(f"{at}.dense.bias", 0.0)


def plain_choice(score: list[float], c: Mapping[str, Any]) -> list[bool]:
    """Which experts a token takes: the best of the groups whose two best have the largest sums."""
    groups = c.get("n_group", 1)
    size = len(score) // groups
    sums = [sum(sorted(score[g * size : (g + 1) * size])[-2:]) for g in range(groups)]
    limit = sorted(sums)[-c.get("topk_group", 1)]
    open_to = [s if sums[e // size] >= limit else -float("inf") for e, s in enumerate(score)]
    return [s >= sorted(open_to)[-c["num_experts_per_tok"]] for s in open_to]


def plain_moe(x: torch.Tensor, w: Weights, at: str, c: Mapping[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Output, and router logits."""
    logits = x @ w[f"{at}.gate.weight"].T
    gates = logits.sigmoid() if c["score_function"] == "sigmoid" else logits.softmax(-1)
    scores = gates + w.get(f"{at}.gate.expert_bias", 0.0)
    gates = gates * torch.tensor([plain_choice(row, c) for row in scores.tolist()])
    if c["norm_topk_prob"]:
        gates = gates / gates.sum(-1, keepdim=True)
    gates = gates * c["routed_scaling_factor"]
    out = sum(gates[:, e, None] * plain_mlp(x, w, f"{at}.experts.{e}") for e in range(c["num_experts"]))
    return out + (plain_mlp(x, w, f"{at}.shared_experts") if c["num_shared_experts"] else 0.0), logits


def plain_forward(ids: torch.Tensor, w: Weights, c: Mapping[str, Any]) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """[L] -> logits [L, V], router logits of each layer that has some [L, E]; weights have the original's names."""
    x, routers = w["model.word_embeddings.weight"][ids], []
    for i in range(c["num_hidden_layers"]):
        at = f"model.layers.{i}"
        x = x + plain_attention(plain_norm(x, w[f"{at}.input_layernorm.weight"]), w, f"{at}.attention", c)
        h = plain_norm(x, w[f"{at}.post_attention_layernorm.weight"])
        if i < c["first_k_dense_replace"]:
            x = x + plain_mlp(h, w, f"{at}.mlp")
        else:
            out, logits = plain_moe(h, w, f"{at}.mlp", c)
            x, routers = x + out, [*routers, logits]
    head = w["model.word_embeddings.weight" if c["tie_word_embeddings"] else "lm_head.weight"]
    if c["norm_head"]:
        head = head / head.detach().square().sum(0).sqrt()
    return plain_norm(x, w["model.norm.weight"]) @ head.T, routers


@pytest.fixture(params=VARIANTS)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A tiny model whose biases and norms are not 0 and 1 as at the start of training."""
    path = write_ling(tmp_path / "model", **VARIANTS[request.param])
    lm = load_lm(str(path), "float32", "sdpa")
    torch.manual_seed(1)
    for p in lm.parameters():
        torch.nn.init.normal_(p, mean=float(p.dim() == 1), std=0.2)
    lm.save_pretrained(path)
    return path


def some_ids(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(1, LING["vocab_size"], shape, generator=torch.Generator().manual_seed(seed))


def test_plain_pytorch_computes_the_same(folder: Path):
    lm, ids = load_lm(str(folder), "float32", "sdpa"), some_ids(20)
    weights = {k: v.requires_grad_("bias" not in k or "gate" not in k)
               for k, v in load_file(folder / "model.safetensors").items()}  # fmt: skip
    expected, routers = plain_forward(ids, weights, json.loads((folder / "config.json").read_text()))
    out = lm(input_ids=ids[None], output_router_logits=True)
    torch.testing.assert_close(out.logits[0], expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(list(out.router_logits), routers, rtol=0, atol=1e-5)
    for logits in (out.logits[0], expected):
        F.cross_entropy(logits[:-1], ids[1:]).backward()
    assert_close_grads(named_grads(lm), {k: v.grad for k, v in weights.items() if v.requires_grad})


def test_checkpoints_have_the_names_and_the_bits_they_were_read_with(folder: Path, tmp_path: Path):
    on_disk = load_file(folder / "model.safetensors")
    lm = load_lm(str(folder), "float32", "sdpa")
    lm.save_pretrained(tmp_path / "again")
    assert_same_tensors(load_file(tmp_path / "again" / "model.safetensors"), on_disk)
    assert (folder / "config.json").read_text() == (tmp_path / "again" / "config.json").read_text()
    [weights] = weight_buckets(lm, 1 << 30)
    assert_same_tensors(weights, on_disk)
    copy = type(lm).from_pretrained(None, config=lm.config, state_dict={k: v.clone() for k, v in weights.items()})
    assert_same_tensors(copy.state_dict(), lm.state_dict())
    body = AutoModel.from_pretrained(folder)
    assert_same_tensors(body.state_dict(), lm.model.state_dict())


@pytest.mark.parametrize("later", [False, True])
def test_names_are_those_of_the_original(later: bool, tmp_path: Path):
    more = {**(LING_2 if later else {}), "num_hidden_layers": 2, "first_k_dense_replace": 1, "num_experts": 4}
    names = set(load_file(write_ling(tmp_path, **more) / "model.safetensors"))
    mlp = ("gate_proj", "up_proj", "down_proj")
    at = [f"model.layers.{i}" for i in range(2)]
    expected = {"model.word_embeddings.weight", "model.norm.weight", "lm_head.weight", f"{at[1]}.mlp.gate.weight"}
    parts = ["input_layernorm", "post_attention_layernorm", "attention.query_key_value", "attention.dense"]
    if later:
        parts += ["attention.query_layernorm", "attention.key_layernorm"]
        expected.add(f"{at[1]}.mlp.gate.expert_bias")
    expected |= {f"{layer}.{part}.weight" for layer in at for part in parts}
    experts = [f"{at[1]}.mlp.experts.{e}" for e in range(LING["num_experts"])]
    blocks = [f"{at[0]}.mlp", f"{at[1]}.mlp.shared_experts", *experts]
    assert names == expected | {f"{block}.{part}.weight" for block in blocks for part in mlp}


@pytest.mark.parametrize("experts", ["eager", "batched_mm"])
def test_every_implementation_of_the_experts_computes_the_same(experts: str, tmp_path: Path):
    lm, ids = load_lm(str(write_ling(tmp_path)), "float32", "sdpa"), some_ids(1, 20)
    assert lm.config._experts_implementation == "grouped_mm"
    expected = lm(input_ids=ids).logits
    lm.set_experts_implementation(experts)
    torch.testing.assert_close(lm(input_ids=ids).logits, expected, rtol=0, atol=1e-5)


def test_gradient_checkpointing_changes_no_gradient(tmp_path: Path):
    lm, ids = load_lm(str(write_ling(tmp_path, norm_head=True)), "float32", "sdpa").train(), some_ids(2, 20)
    lm(input_ids=ids, labels=ids).loss.backward()
    expected = {k: v.clone() for k, v in named_grads(lm).items()}
    lm.zero_grad()
    lm.gradient_checkpointing_enable()
    calls: list[int] = []
    lm.model.layers[0].mlp.gate.register_forward_hook(lambda *_: calls.append(1))
    lm(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    assert len(calls) == 2
    assert_close_grads(named_grads(lm), expected)


@torch.no_grad()
def test_a_padded_batch_continues_like_each_alone(tmp_path: Path):
    path = write_ling(tmp_path, initializer_range=0.3)
    lm, weights = load_lm(str(path), "float32", "sdpa"), load_file(path / "model.safetensors")
    config = json.loads((path / "config.json").read_text())
    prompts = [some_ids(n, seed=n).tolist() for n in (5, 9)]
    ids = torch.tensor([[0] * (9 - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (9 - len(p)) + [1] * len(p) for p in prompts])
    out = lm.generate(ids, attention_mask=mask, do_sample=False, max_new_tokens=6, eos_token_id=None, pad_token_id=0)
    for prompt, continued in zip(prompts, out[:, 9:].tolist(), strict=True):
        tokens = list(prompt)
        for _ in range(6):
            tokens.append(int(plain_forward(torch.tensor(tokens), weights, config)[0][-1].argmax()))
        assert continued == tokens[len(prompt) :]


# in ringrl


def test_attention_can_be_changed_in_a_loaded_model(folder: Path):
    lm = load_lm(str(folder), "float32", "packed").eval()
    ids = torch.arange(1, 20)[None]
    packed = lm(input_ids=ids).logits
    lm.set_attn_implementation("eager")
    assert lm.config._attn_implementation == "eager"
    torch.testing.assert_close(lm(input_ids=ids).logits, packed, rtol=0, atol=1e-5)


@torch.no_grad()
def test_packed_sequences_do_not_see_each_other(folder: Path):
    module = PolicyModule(load_lm(str(folder), "float32", "packed"), 0.8)
    sequences = [TokenSequence(tuple(some_ids(n, seed=n).tolist()), (False, *[True] * (n - 1)), 1.0) for n in (7, 12)]
    row = module(pack(sequences[::-1], 1, 64)[0][0])  # the packer puts the longest first
    alone = [module(pack([s], 1, 64)[0][0]) for s in sequences[::-1]]
    for field in ("logprobs", "entropy"):
        together = torch.cat([getattr(stats, field) for stats in alone])
        torch.testing.assert_close(getattr(row, field), together, rtol=0, atol=1e-5)
    assert torch.equal(row.chosen, torch.cat([stats.chosen for stats in alone], 1))
    moe = module.lm.config.num_hidden_layers - module.lm.config.first_k_dense_replace
    assert row.router_logits.shape == (moe, 17, module.lm.config.num_experts)
    ids = torch.tensor([sequences[1].token_ids.tolist()])
    expected = (module.lm(input_ids=ids).logits[0, :-1] / 0.8).log_softmax(-1).gather(-1, ids[0, 1:, None])[:, 0]
    torch.testing.assert_close(alone[0].logprobs, expected, rtol=0, atol=1e-5)


def test_routers_are_found_and_understood(folder: Path):
    lm = load_lm(str(folder), "bfloat16", "sdpa")
    routers, c = Routers(lm), lm.config
    assert routers.gate == Gate(c.score_function, c.norm_topk_prob, c.routed_scaling_factor)
    assert all(r(torch.randn(3, 64).bfloat16())[1].dtype == torch.float32 for r in routers.modules)
    biases = {k: v for k, v in load_file(folder / "model.safetensors").items() if "expert_bias" in k}
    assert len(biases) == (len(routers.modules) if c.score_function == "sigmoid" else 0)
    [weights] = weight_buckets(lm, 1 << 30)
    assert_same_tensors({k: v for k, v in weights.items() if "expert_bias" in k}, biases)  # in float32
    stored = {name: (shape, "BF16") for name, (shape, _) in tensors(str(folder)).items()}
    [sent] = check_complete(iter([weights]), stored, torch.bfloat16)
    assert sent is weights


RELEASED = {
    "architectures": ["BailingMoeForCausalLM"], "model_type": "bailing_moe", "hidden_size": 2048,
    "auto_map": {"AutoConfig": "configuration_bailing_moe.BailingMoeConfig",
                 "AutoModelForCausalLM": "modeling_bailing_moe.BailingMoeForCausalLM"},
    "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 4, "intermediate_size": 1408,
    "moe_intermediate_size": 1408, "num_experts": 64, "num_experts_per_tok": 6, "num_shared_experts": 2,
    "first_k_dense_replace": 0, "norm_topk_prob": True, "output_router_logits": False, "hidden_act": "silu",
    "max_position_embeddings": 32768, "rms_norm_eps": 1e-06, "rope_theta": 600000, "rope_scaling": None,
    "vocab_size": 126464, "tie_word_embeddings": False, "use_bias": False, "use_qkv_bias": False,
    "attention_dropout": 0.0, "embedding_dropout": 0.0, "output_dropout": 0.0, "norm_head": False,
    "norm_softmax": False, "initializer_range": 0.006, "torch_dtype": "bfloat16", "eos_token_id": 126081,
    "pad_token_id": 126081, "pretraining_tp": 1, "transformers_version": "4.40.0", "use_cache": True,
}  # fmt: skip
OLDER = {"intermediate_size": 5632, "max_position_embeddings": 16384, "norm_head": True, "rms_norm_eps": 1e-05,
         "attention_dropout": 0.1, "transformers_version": "4.36.0"}  # fmt: skip


@pytest.mark.parametrize("more", [{}, OLDER], ids=["ling-lite-1.5", "ling-lite"])
def test_both_generations_of_released_configurations(more: dict[str, Any], tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps(RELEASED | more))
    config = AutoConfig.from_pretrained(tmp_path)
    assert type(config) is BailingMoeConfig
    assert (config.head_dim, config.sliding_window, config.dtype) == (128, None, torch.bfloat16)
    assert config.rope_parameters == {"rope_type": "default", "rope_theta": 600000}
    config.save_pretrained(tmp_path / "again")
    again = json.loads((tmp_path / "again" / "config.json").read_text())
    renamed = ("torch_dtype", "rope_scaling", "transformers_version")
    assert all(again[k] == v for k, v in (RELEASED | more).items() if k not in renamed)
    assert AutoConfig.from_pretrained(tmp_path / "again").to_diff_dict() == config.to_diff_dict()
    with torch.device("meta"):
        lm = BailingMoeForCausalLM(config)
    layer = 2048 * (16 + 2 * 4) * 128 + 2048 * 2048 + (64 + 2) * 3 * 2048 * 1408 + 64 * 2048 + 2 * 2048
    assert sum(p.numel() for p in lm.parameters()) == 28 * layer + 2 * 126464 * 2048 + 2048 == 16_801_974_272


RELEASED_2 = {
    "architectures": ["BailingMoeV2ForCausalLM"], "model_type": "bailing_moe", "hidden_size": 2048,
    "num_hidden_layers": 20, "num_attention_heads": 16, "num_key_value_heads": 4, "head_dim": 128,
    "intermediate_size": 5120, "moe_intermediate_size": 512, "moe_shared_expert_intermediate_size": 512,
    "num_experts": 256, "num_experts_per_tok": 8, "num_shared_experts": 1, "first_k_dense_replace": 1,
    "n_group": 8, "topk_group": 4, "routed_scaling_factor": 2.5, "score_function": "sigmoid", "norm_topk_prob": True,
    "moe_router_enable_expert_bias": True, "router_dtype": "fp32", "use_qk_norm": True, "use_rmsnorm": True,
    "partial_rotary_factor": 0.5, "rope_theta": 600000, "rope_scaling": None, "hidden_act": "silu",
    "max_position_embeddings": 32768, "rms_norm_eps": 1e-06, "vocab_size": 157184, "tie_word_embeddings": False,
    "use_bias": False, "use_qkv_bias": False, "num_nextn_predict_layers": 0, "torch_dtype": "bfloat16",
    "eos_token_id": 156892, "pad_token_id": 156892, "initializer_range": 0.006, "output_router_logits": False,
}  # fmt: skip
TERA = {"partial_rotary_factor": None, "rotary_dim": 64, "model_type": "bailing_moe_v2"}


@pytest.mark.parametrize("more", [{}, TERA], ids=["mini-2.0", "in other words"])
def test_released_configurations_of_2_0(more: dict[str, Any], tmp_path: Path):
    released = {k: v for k, v in (RELEASED_2 | more).items() if v is not None}
    (tmp_path / "config.json").write_text(json.dumps(released))
    config = AutoConfig.from_pretrained(tmp_path)
    assert type(config) is (BailingMoeV2Config if more else BailingMoeConfig)
    assert config.rope_parameters == {"rope_type": "default", "rope_theta": 600000, "partial_rotary_factor": 0.5}
    config.save_pretrained(tmp_path / "again")
    again = json.loads((tmp_path / "again" / "config.json").read_text())
    assert all(again[k] == v for k, v in released.items() if k != "torch_dtype")
    with torch.device("meta"):
        lm = AutoModelForCausalLM.from_config(config)
    assert type(lm) is BailingMoeV2ForCausalLM
    layer = 2048 * (16 + 2 * 4) * 128 + 2048 * 2048 + 2 * 128 + 2 * 2048
    mlps = 3 * 2048 * 5120 + 19 * ((256 + 1) * 3 * 2048 * 512 + 256 * 2048)
    total = 20 * layer + mlps + 2 * 157184 * 2048 + 2048
    assert sum(p.numel() for p in lm.parameters()) == total == 16_255_638_528  # published as 16.26 B
    assert len(list(lm.buffers())) == 19 + 2


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"score_function": "sigmoid"}, "score_function: got sigmoid, expected softmax in BailingMoeForCausalLM"),
        ({"n_group": 4}, "n_group: got 4, expected None in BailingMoeForCausalLM"),
        ({**LING_2, "score_function": "softmax"}, "got softmax, expected sigmoid in BailingMoeV2ForCausalLM"),
        ({**LING_2, "moe_router_enable_expert_bias": False}, "expert_bias: got False, expected True"),
        ({**LING_2, "use_rmsnorm": False}, "use_rmsnorm: got False, expected True"),
    ],
)
def test_routers_of_neither_generation_are_refused(fields: dict[str, Any], line: str):
    with pytest.raises(DataError, match=f"config.json: .*{line}"):
        AutoModelForCausalLM.from_config(BailingMoeConfig(**LING | fields))


def test_layers_that_predict_further_tokens_are_left_out(tmp_path: Path):
    path = write_ling(tmp_path / "model", **LING_2)
    plain, config = load_file(path / "model.safetensors"), json.loads((path / "config.json").read_text())
    last, further = "model.layers.2.", "model.layers.3."
    extra = {k.replace(last, further): v + 1 for k, v in plain.items() if k.startswith(last)}
    extra[f"{further}eh_proj.weight"] = torch.randn(64, 128)
    save_file({**plain, **extra}, path / "model.safetensors", {"format": "pt"})
    (path / "config.json").write_text(json.dumps(config | {"num_nextn_predict_layers": 1}))
    with pytest.raises(DataError, match=r"num_nextn_predict_layers: got 1, expected 0 .* ringrl sft"):
        check_sampled(str(path))
    load_lm(str(path), "float32", "sdpa").save_pretrained(tmp_path / "again")
    assert_same_tensors(load_file(tmp_path / "again" / "model.safetensors"), plain)
    assert json.loads((tmp_path / "again" / "config.json").read_text()) == config | {"num_nextn_predict_layers": 0}
    check_sampled(str(tmp_path / "again"))


# against vLLM

SCRIPT = """
import json, sys
import vllm
import ringrl.models.bailing_moe
llm = vllm.LLM(model=sys.argv[1], skip_tokenizer_init=True, dtype="float32", enforce_eager=True, max_model_len=64,
               max_num_seqs=4, kv_cache_memory_bytes=32 << 20, disable_log_stats=True)
ids = json.loads(sys.argv[2])
params = vllm.SamplingParams(max_tokens=1, prompt_logprobs=0, detokenize=False)
for out in llm.generate([{"prompt_token_ids": row} for row in ids], params):
    print("logprobs", json.dumps([p[t].logprob for p, t in zip(out.prompt_logprobs[1:], out.prompt_token_ids[1:])]))
"""
QUIET = {"OMP_NUM_THREADS": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "TORCHDYNAMO_DISABLE": "1",
         "VLLM_CPU_OMP_THREADS_BIND": "nobind", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1",
         "VLLM_LOGGING_LEVEL": "WARNING"}  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="no vllm")
@pytest.mark.parametrize(
    "fields",
    [
        {"norm_head": True, "first_k_dense_replace": 1, "auto_map": RELEASED["auto_map"]},
        LING_2,
        VARIANTS["2.0, other type"] | {"norm_topk_prob": True},
    ],
    ids=["ling-lite", "2.0", "2.0, other type"],
)
@torch.no_grad()
def test_vllm_computes_the_same_from_our_folder(fields: dict[str, Any], tmp_path: Path):
    path = write_ling(tmp_path, initializer_range=0.3, **fields)
    ids = some_ids(3, 40)
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(path), json.dumps(ids.tolist())], text=True, timeout=240,
                          env=os.environ | QUIET, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip
    assert done.returncode == 0, done.stdout
    lines = [line.split(maxsplit=1)[1] for line in done.stdout.splitlines() if line.startswith("logprobs")]
    logp = load_lm(str(path), "float32", "sdpa")(input_ids=ids).logits[:, :-1].log_softmax(-1)
    expected = logp.gather(-1, ids[:, 1:, None]).squeeze(-1)
    torch.testing.assert_close(torch.tensor([json.loads(line) for line in lines]), expected, rtol=0, atol=1e-3)
