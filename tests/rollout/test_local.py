"""The engine in process against the model's own forward: what the folder says of sampling changes nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from ringrl.errors import DataError
from ringrl.rollout.engine import Sampling, fresh
from ringrl.rollout.local import LocalEngine
from ringrl.types import Completion, Group, Prompt
from tests.conftest import Inputs

PROMPTS = [Prompt(str(n), "math", tuple(range(20, 20 + n)), {}) for n in (5, 17, 30)]
OWN = {
    "repetition_penalty": 1.3, "no_repeat_ngram_size": 2, "top_k": 3, "top_p": 0.5, "min_p": 0.2, "typical_p": 0.6,
    "epsilon_cutoff": 0.01, "eta_cutoff": 0.01, "suppress_tokens": [21, 22], "begin_suppress_tokens": [23],
    "bad_words_ids": [[24]], "sequence_bias": [[[25], 5.0]], "min_length": 40, "min_new_tokens": 12, "num_beams": 2,
    "forced_bos_token_id": 26, "forced_eos_token_id": 27, "exponential_decay_length_penalty": [2, 1.5],
    "encoder_repetition_penalty": 1.3, "renormalize_logits": True, "temperature": 0.3, "guidance_scale": 2.0,
    "max_length": 12, "max_new_tokens": 3, "max_time": 0.0, "num_return_sequences": 2, "stop_strings": ["e"],
    "watermarking_config": {"bias": 3.0}, "penalty_alpha": 0.6, "prompt_lookup_num_tokens": 2, "use_cache": False,
}  # fmt: skip


def sampled(model: str, sampling: Sampling, seed: int | None) -> list[Completion]:
    groups = [Group(p, (), seed) for p in PROMPTS]
    found = sorted(LocalEngine(model, "float32", 16).generate(groups, sampling, 7), key=lambda f: f[:2])
    return [completion for _, _, completion in found]


@pytest.mark.parametrize(("temperature", "seed"), [(1.0, None), (0.7, None), (0.0, None), (1.0, 3)])
def test_the_folders_own_sampling_is_left_out(inputs: Inputs, tmp_path: Path, temperature: float, seed: Any) -> None:
    sampling = Sampling(2, temperature, 48)
    plain = sampled(inputs.model, sampling, seed)
    assert max(len(c.token_ids) for c in plain) == 43
    folder = Path(shutil.copytree(inputs.model, tmp_path / "model"))
    file = folder / "generation_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | OWN))
    assert sampled(str(folder), sampling, seed) == plain


def build(folder: Path, kind: str, **more: Any) -> str:
    sizes = {"vocab_size": 96, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "head_dim": 16,
             "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256, "pad_token_id": 0,
             "eos_token_id": 1, "bos_token_id": 2, "initializer_range": 0.2}  # fmt: skip
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes, **more)).save_pretrained(folder)
    return str(folder)


FAMILIES: dict[str, dict[str, Any]] = {
    "gemma2": {"sliding_window": 8, "final_logit_softcapping": 5.0, "attn_logit_softcapping": 5.0},
    "mistral": {"sliding_window": 8},
    "granite": {"logits_scaling": 4.0},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
}


@pytest.mark.parametrize("kind", FAMILIES)
def test_log_probs_are_those_of_the_model(kind: str, tmp_path: Path) -> None:
    """With windows, caps, scales and states that padding could disturb."""
    model = build(tmp_path, kind, **FAMILIES[kind])
    lm = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, attn_implementation="eager").eval()
    for index, _, c in LocalEngine(model, "float32", 16).generate(fresh(PROMPTS), Sampling(1, 1.0, 60), 3):
        ids = torch.tensor([[*PROMPTS[index].token_ids, *c.token_ids]])
        with torch.no_grad():
            own = lm(input_ids=ids, use_cache=False).logits[0, :-1].log_softmax(-1).gather(-1, ids[0, 1:, None])[:, 0]
        torch.testing.assert_close(own[-len(c.token_ids) :], torch.from_numpy(c.logprobs.copy()), rtol=0, atol=2e-4)


def test_a_family_that_padding_disturbs_is_refused(tmp_path: Path) -> None:
    more = {"num_local_experts": 4, "num_experts_per_tok": 2, "block_size": 8}
    model = build(tmp_path, "minimax", layer_types=["linear_attention", "full_attention"], **more)
    with pytest.raises(DataError, match=r"model_type minimax, whose log-probs change by .* nats when prompts"):
        LocalEngine(model, "float32", 16)
