"""Which families of models vLLM runs here as transformers does: tiny random ones, before and after a weight sync.

    python scripts/families_vllm.py OUT.jsonl [FAMILY ...]      a line per family; those with a line are not run again

For each family a worker of ours starts with a random model, in float32 where it can, samples from two prompts, gets
other weights, and samples again. Compared are the log-probs of the sampled tokens with those of the model's own
forward, one sequence at a time: `start` and `sync`, the largest difference in nats before and after the new weights,
`moved`, how far these moved the log-probs. An error is that of vLLM, in one line.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast
from transformers.core_model_loading import revert_weight_conversion

import ringrl.models.bailing_moe  # noqa: F401  (registers Ling)
from ringrl.config.sections import Rollout
from ringrl.launch.command import WorkerSpec
from ringrl.launch.crew import WORKER
from ringrl.launch.machine import LOOPBACK, listening, worker_env
from ringrl.rollout.engine import Sampling, fresh
from ringrl.rollout.vllm_pool import Deadlines, VLLMPool
from ringrl.types import Prompt

PROMPTS, NEW = (40, 150), 32  # lengths of the prompts, tokens sampled to each; the second is longer than any window
LIMIT_S = 300.0
VOCABULARY = 512
BASE: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 128, "intermediate_size": 128, "num_hidden_layers": 2, "head_dim": 32,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512, "pad_token_id": 0,
    "eos_token_id": 1, "bos_token_id": 2, "initializer_range": 0.1, "tie_word_embeddings": False,
}  # fmt: skip
SMALL = {"moe_intermediate_size": 64, "num_experts_per_tok": 2}
ROUTED = SMALL | {"n_routed_experts": 8, "n_shared_experts": 1, "first_k_dense_replace": 1, 
                  "n_group": 1, "topk_group": 1}  # fmt: skip
LATENT = ROUTED | {"q_lora_rank": 32, "kv_lora_rank": 512, "qk_rope_head_dim": 64, "head_dim": 64,
                   "qk_nope_head_dim": 32, "v_head_dim": 32, "num_key_value_heads": 4}  # fmt: skip
LINEAR = {"linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 32,
          "linear_value_head_dim": 32, "layer_types": ["linear_attention", "full_attention"]}  # fmt: skip
SHARED = SMALL | {"num_experts": 8, "shared_expert_intermediate_size": 64}
WINDOW = {"sliding_window": 64}
LING_2 = {"use_bias": False, "num_experts": 8,
          "num_shared_experts": 1, "first_k_dense_replace": 1, "use_qk_norm": True, "rotary_dim": 16,
          "score_function": "sigmoid", "moe_router_enable_expert_bias": True, "n_group": 4, "topk_group": 2,
          "routed_scaling_factor": 2.5}  # fmt: skip
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {  # name -> model_type, settings
    "Qwen3-MoE": ("qwen3_moe", SMALL | {"num_experts": 8}),
    "Qwen3-MoE, tied": ("qwen3_moe", SMALL | {"num_experts": 8, "tie_word_embeddings": True}),
    "Qwen3, tied": ("qwen3", {"tie_word_embeddings": True}),
    "Mixtral": ("mixtral", {"num_local_experts": 8}),
    "Mixtral, window": ("mixtral", WINDOW | {"num_local_experts": 8}),
    "OLMoE": ("olmoe", {"num_experts": 8, "num_experts_per_tok": 2}),
    "GLM-4.5": ("glm4_moe", ROUTED),
    "DeepSeek-V2": ("deepseek_v2", LATENT | {"n_group": 2, "topk_method": "group_limited_greedy"}),
    "DeepSeek-V3": ("deepseek_v3", LATENT | {"n_group": 2, "topk_method": "noaux_tc",  # as in released folders, without
                                             "scoring_func": "sigmoid"}),  # which vLLM takes a softmax
    "dots1": ("dots1", ROUTED),
    "ERNIE-4.5-MoE": ("ernie4_5_moe", {"moe_intermediate_size": 64, "moe_num_experts": 8, "moe_k": 2,
                                       "moe_num_shared_experts": 1, "moe_layer_start_index": 1}),
    "ERNIE-4.5-MoE, no router bias": ("ernie4_5_moe", {"moe_intermediate_size": 64, "moe_num_experts": 8, "moe_k": 2,
                                                       "moe_num_shared_experts": 1, "moe_layer_start_index": 1}),
    "Granite-MoE": ("granitemoe", {"num_local_experts": 8, "num_experts_per_tok": 2, "logits_scaling": 4.0,
                                   "embedding_multiplier": 3.0, "residual_multiplier": 0.5,
                                   "attention_multiplier": 0.25}),
    "gpt-oss": ("gpt_oss", {"num_local_experts": 8, "num_experts_per_tok": 2, "sliding_window": 64, "head_dim": 64,
                            "layer_types": ["sliding_attention", "full_attention"]}),
    "Ling": ("bailing_moe", SMALL | {"num_experts": 8, "num_shared_experts": 2, "norm_head": True, "use_bias": False}),
    "Ling 2.0": ("bailing_moe_v2", SMALL | LING_2),
    "Qwen3-Next": ("qwen3_next", SHARED | LINEAR),
    "Qwen3.5-MoE": ("qwen3_5_moe_text", SHARED | LINEAR),
    "Gemma 2": ("gemma2", WINDOW | {"final_logit_softcapping": 5.0, "attn_logit_softcapping": 5.0,
                                    "query_pre_attn_scalar": 32, "tie_word_embeddings": True}),
    "Gemma 3": ("gemma3_text", WINDOW | {"query_pre_attn_scalar": 32, "tie_word_embeddings": True}),
    "Llama, tied": ("llama", {"tie_word_embeddings": True}),
    "Mistral, window": ("mistral", WINDOW),
    "Granite": ("granite", {"logits_scaling": 4.0, "embedding_multiplier": 3.0, "residual_multiplier": 0.5,
                            "attention_multiplier": 0.25}),
    "Cohere": ("cohere", {"logit_scale": 0.25, "tie_word_embeddings": True}),
}  # fmt: skip


DTYPES = {"gpt-oss": "bfloat16"}  # of those that vLLM does not run in float32 here


def dtype_of(name: str) -> torch.dtype:
    return getattr(torch, DTYPES.get(name, "float32"))


def build(name: str, folder: Path) -> PreTrainedModel:
    """A random model of the family, its routers' correction biases and its sinks not 0."""
    kind, more = FAMILIES[name]
    torch.manual_seed(0)
    lm = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **(BASE | more)), dtype=dtype_of(name))
    for key, value in [*lm.named_buffers(), *lm.named_parameters()]:
        if "no router bias" not in name and any(word in key for word in ("e_score", "expert_bias", "sinks")):
            value.data.normal_(std=0.3)
    lm.config.architectures = [type(lm).__name__]
    lm.save_pretrained(folder)
    words = Tokenizer(WordLevel({str(i): i for i in range(VOCABULARY)}, "0"))
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="1", pad_token="0", bos_token="2").save_pretrained(folder)
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype_of(name), attn_implementation="eager").eval()


@torch.no_grad()
def largest_gap(lm: PreTrainedModel, pool: VLLMPool, prompts: list[Prompt]) -> tuple[float, torch.Tensor]:
    """Between the worker's and the model's own log-probs of what the worker samples; the latter of the prompts."""
    own, gap = [], 0.0
    found = {}
    for index, _, completion in pool.generate(fresh(prompts), Sampling(1, 1.0, max(PROMPTS) + NEW), seed=1):
        found[index] = completion
    for index, prompt in enumerate(prompts):
        ids = torch.tensor([[*prompt.token_ids.tolist(), *found[index].token_ids.tolist()]])
        logprobs = lm(input_ids=ids, use_cache=False).logits[0, :-1].float().log_softmax(-1)
        logprobs = logprobs.gather(-1, ids[0, 1:, None])[:, 0]
        own.append(logprobs[: len(prompt.token_ids) - 1])
        sampled = torch.tensor(found[index].logprobs.tolist())
        gap = max(gap, float((logprobs[len(prompt.token_ids) - 1 :] - sampled).abs().max()))
    return gap, torch.cat(own)


def perturb(lm: PreTrainedModel) -> None:
    generator = torch.Generator().manual_seed(2)
    for p in lm.parameters():
        p.data += 0.2 * p.data.std().nan_to_num(0.0) * torch.randn(p.shape, generator=generator).to(p.dtype)


def compare(lm: PreTrainedModel, folder: Path, log: Path, dtype: str) -> dict[str, float]:
    """Raises RingError when the worker fails."""
    rollout = Rollout(engine="vllm", dtype=dtype, concurrent=4, kv_cache_mib=64)
    address, key = folder / "address", "00" * 32
    spec = WorkerSpec(str(folder), rollout, max(PROMPTS) + NEW).worker(key) | {"address_file": str(address)}
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-u", "-c", WORKER.format(launcher=os.getpid())], stdin=subprocess.PIPE, stdout=out,
            stderr=subprocess.STDOUT, text=True, start_new_session=True,
            env={**os.environ, **worker_env(0, 0, rollout, 1), **listening(LOOPBACK)},
        )  # fmt: skip
    assert process.stdin
    process.stdin.write(json.dumps(spec) + "\n")
    process.stdin.close()
    try:
        end = time.monotonic() + LIMIT_S
        while not address.is_file():
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"the worker did not start, exit code {process.poll()}")
            time.sleep(0.2)
        limits = Deadlines(LIMIT_S, LIMIT_S, LIMIT_S, 0)
        pool = VLLMPool([str(address)], bytes.fromhex(key), 1, limits, restart=str, note=print, folder=folder)
        generator = torch.Generator().manual_seed(1)
        prompts = [Prompt(str(n), "math", tuple(torch.randint(3, VOCABULARY, (n,), generator=generator).tolist()), "")
                   for n in PROMPTS]  # fmt: skip
        start, before = largest_gap(lm, pool, prompts)
        perturb(lm)
        state = {k: t for k, t in lm.state_dict().items() if k not in lm.all_tied_weights_keys}
        if not pool.update([(revert_weight_conversion(lm, state), {})], 1):
            raise RuntimeError("the worker refused the new weights")
        sync, after = largest_gap(lm, pool, prompts)
        pool.close()
        return {"start": start, "sync": sync, "moved": float((after - before).abs().mean())}
    finally:
        process.kill()
        process.wait()


def said(log: Path) -> str:
    """The last line of the worker's log that names an error."""
    lines = log.read_text(errors="replace").splitlines()
    named = [i for i, line in enumerate(lines) if re.search(r"(Error|Exception)\b", line)]
    causes = [i for i in named if "Engine core initialization failed" not in lines[i]]
    last = (causes or named)[-1:]
    return " ".join(" ".join(lines[last[0] : last[0] + 3]).split())[:300] if last else "no error in its log"


def attempt(name: str, root: Path) -> dict[str, Any]:
    folder, log = root / "model", root / "worker.log"
    try:
        return compare(build(name, folder), folder, log, DTYPES.get(name, "float32"))
    except Exception as e:  # each is a row of the table
        cause = said(log) if log.is_file() else ""
        return {"error": f"{type(e).__name__}: {' '.join(str(e).split())[:200]}", "worker": cause}


def main(out: Path, wanted: list[str], run: Callable[[str, Path], dict[str, Any]] = attempt) -> None:
    rows = [json.loads(line) for line in out.read_text().splitlines()] if out.is_file() else []
    done = {row["family"] for row in rows}
    for name in wanted or FAMILIES:
        if name not in done:
            with tempfile.TemporaryDirectory() as root:
                row = {"family": name, "model_type": FAMILIES[name][0], **run(name, Path(root))}
            print(json.dumps(row), flush=True)
            with out.open("a") as f:
                f.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
