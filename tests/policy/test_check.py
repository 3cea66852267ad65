"""The start-up check passes what is exact, and names what is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from ringrl.config.sections import Trainer
from ringrl.errors import DataError
from ringrl.models import attention
from ringrl.policy import check
from ringrl.policy.check import check_forward
from ringrl.policy.forward import PolicyModule, load_lm

SIZES: dict[str, Any] = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
                         "num_key_value_heads": 2, "intermediate_size": 48, "max_position_embeddings": 64,
                         "head_dim": 16, "initializer_range": 0.3, "pad_token_id": None}  # fmt: skip
TRAINER = Trainer(dtype="float32", attention="packed")


def folder(at: Path, model_type: str, **more: Any) -> Path:
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **SIZES | more)).save_pretrained(at)
    return at


def module(at: Path, trainer: Trainer = TRAINER) -> PolicyModule:
    return PolicyModule(load_lm(str(at), trainer.dtype, trainer.attention), 0.7)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("packing", [True, False])
def test_an_exact_model_passes_and_is_left_as_it_was(dtype: str, packing: bool, tmp_path: Path):
    trainer = TRAINER.model_copy(update={"dtype": dtype, "packing": packing})
    m = module(
        folder(tmp_path, "qwen3", use_sliding_window=True, sliding_window=8, max_window_layers=0), trainer
    ).eval()
    before = {n: t.clone() for n, t in m.state_dict().items()}
    assert check_forward(m, trainer, "a model") < 1e-5  # also of bfloat16 weights, which are compared in float32
    after = m.state_dict()
    assert all(torch.equal(after[n], t) and after[n].dtype == t.dtype for n, t in before.items())
    assert (m.lm.config._attn_implementation, m.training, m.lm.training) == ("packed", False, False)


def test_weights_too_large_for_float32_have_the_limit_of_their_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(check, "FLOAT32_MOST", 0)
    trainer = TRAINER.model_copy(update={"dtype": "bfloat16"})
    assert 1e-5 < check_forward(module(folder(tmp_path, "qwen3"), trainer), trainer, "a model") < 0.25


def fails(m: PolicyModule, trainer: Trainer = TRAINER) -> str:
    with pytest.raises(DataError, match=r"a model: model_type \w+: log-probs of training differ") as caught:
        check_forward(m, trainer, "a model")
    assert "\n" not in str(caught.value)
    assert m.lm.config._attn_implementation == trainer.attention
    return str(caught.value).rpartition(": ")[2]


def test_windows_that_attention_ignores_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    m = module(folder(tmp_path, "mistral", sliding_window=8))
    check_forward(m, TRAINER, "a model")
    plain = attention._attend
    monkeypatch.setattr(attention, "_attend", lambda q, k, v, window, **more: plain(q, k, v, 0, **more))
    assert fails(m).startswith("trainer.attention=packed does not do all")


def test_caps_that_sdpa_ignores_are_named(tmp_path: Path):
    gemma = folder(tmp_path, "gemma2", attn_logit_softcapping=1.0, query_pre_attn_scalar=16)
    check_forward(module(gemma), TRAINER, "a model")
    trainer = TRAINER.model_copy(update={"attention": "sdpa"})
    assert fails(module(gemma, trainer), trainer).endswith("set packed")


def test_state_that_leaks_between_packed_sequences_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    m = module(folder(tmp_path, "lfm2", layer_types=["conv", "full_attention"], conv_L_cache=3))
    assert not m.packs
    check_forward(m, TRAINER, "a model")
    monkeypatch.setattr(PolicyModule, "packs", True)
    assert fails(m) == "sequences of a packed row see each other; set trainer.packing=false"


def test_noise_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    m = module(folder(tmp_path, "mixtral", num_local_experts=4, router_jitter_noise=0.2, attention_dropout=0.5))
    check_forward(m, TRAINER, "a model")
    monkeypatch.setattr(PolicyModule, "train", torch.nn.Module.train)
    assert "set router_jitter_noise to 0" in fails(m)


def test_another_way_from_the_layers_to_the_logits_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    m = module(folder(tmp_path, "granite", logits_scaling=4.0))
    check_forward(m, TRAINER, "a model")
    monkeypatch.setattr("ringrl.policy.forward.logits_of", lambda lm, hidden: lm.lm_head(hidden))
    assert "ringrl cannot train this family" in fails(m)


def test_weights_that_are_no_numbers_are_left_to_the_run(tmp_path: Path):
    m = module(folder(tmp_path, "qwen3"))
    m.lm.model.norm.weight.data.fill_(torch.nan)
    assert not check_forward(m, TRAINER, "a model") < 1


def test_a_family_that_wants_what_attention_does_not_get_is_one_line(tmp_path: Path):
    """Its sparse attention indexes a mask, and packed attention has none."""
    latent = {"q_lora_rank": 16, "kv_lora_rank": 8, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8}
    at = folder(tmp_path, "glm_moe_dsa", **latent, n_routed_experts=4, num_experts_per_tok=2, moe_intermediate_size=16,
                n_group=1, topk_group=1, index_head_dim=16, index_n_heads=2)  # fmt: skip
    with pytest.raises(
        DataError, match=r"^a model: model_type glm_moe_dsa: the forward of training fails \(TypeError: .*set sdpa$"
    ):
        check_forward(module(at), TRAINER, "a model")


def test_attention_that_a_family_lacks_is_one_line(tmp_path: Path):
    at = folder(tmp_path, "gpt_oss", num_local_experts=4, num_experts_per_tok=2, sliding_window=8)
    with pytest.raises(DataError, match=r"^trainer\.attention: got sdpa, expected another with model_type gpt_oss: "):
        module(at, TRAINER.model_copy(update={"attention": "sdpa"}))


@pytest.mark.parametrize("recompute", [False, True])
def test_only_recomputation_is_left_of_train_mode(recompute: bool, tmp_path: Path):
    at = folder(tmp_path, "starcoder2", residual_dropout=0.3, embedding_dropout=0.3, attention_dropout=0.3)
    m = module(at).train()
    if recompute:
        m.lm.gradient_checkpointing_enable({"use_reentrant": False})
    check_forward(m.train(), TRAINER, "a model")
    training = {type(x).__name__ for x in m.lm.modules() if x.training}
    assert training == ({"Starcoder2DecoderLayer"} if recompute else set())
    assert m.training
