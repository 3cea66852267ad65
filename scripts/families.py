"""Log-probs, gradients and routing of training against the model's own, for tiny random models of current families.

    python scripts/families.py --out runs/families.jsonl                      all of them; goes on where it was stopped
    python scripts/families.py --out runs/families.jsonl --docs docs/models.md      puts the table there
    python scripts/families.py --only qwen3_moe,granite --out FILE

Every family gets a folder with random weights, loaded as training loads it. Compared with the plain model (transformers
alone, eager attention, eval mode, every sequence alone, float32), in train mode:

    packed, padded   largest difference of a log-prob, in nats, with `trainer.attention: packed`, or sdpa where packed
                     is refused; a dash where the family is never packed
    sdpa             the same with `trainer.attention: sdpa`, in the layout that training uses
    gradient         of the sum of all log-probs: distance over length
    router           largest difference of a recorded router logit; a dash without routers
    replay           largest change of a log-prob when the router is told the experts that it chose, in another order;
                     "none" where training refuses replay
    experts          whether `trainer.parallel.expert` can shard them

"refused": a run ends before its first step, with one line that says why and what to set.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

SIZES = {"vocab_size": 96, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 256, "pad_token_id": 0, "eos_token_id": 1,
         "bos_token_id": 2, "initializer_range": 0.2, "tie_word_embeddings": False}  # fmt: skip
WINDOW = 8
NOISE = {"attention_dropout": 0.1}
MOE = {"moe_intermediate_size": 32, "num_experts": 4, "num_experts_per_tok": 2}
SHARED = {**MOE, "shared_expert_intermediate_size": 32}
LATENT = {"q_lora_rank": 32, "kv_lora_rank": 16, "qk_rope_head_dim": 16, "qk_nope_head_dim": 16, "v_head_dim": 16,
          "num_key_value_heads": 4}  # fmt: skip
ROUTED = {"moe_intermediate_size": 32, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1,
          "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1}  # fmt: skip
DELTA = {"linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 16,
         "linear_value_head_dim": 16, "layer_types": ["linear_attention", "full_attention"]}  # fmt: skip
MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_n_groups": 1, "mamba_chunk_size": 16}
LOCAL = {"num_local_experts": 4, "num_experts_per_tok": 2}
GRANITE = {"logits_scaling": 4.0, "embedding_multiplier": 3.0, "residual_multiplier": 0.5, "attention_multiplier": 0.25}
LING = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "num_shared_experts": 1,
        "first_k_dense_replace": 1}  # fmt: skip
MIXED = {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"]}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {  # name in the table -> model_type, what differs from SIZES
    "bailing_moe": ("bailing_moe", {**LING, "norm_head": True}),
    "bailing_moe_v2": ("bailing_moe_v2", {**LING, "use_qk_norm": True, "score_function": "sigmoid", "n_group": 2,
                       "moe_router_enable_expert_bias": True, "topk_group": 1, "routed_scaling_factor": 2.5}),
    "qwen3_moe": ("qwen3_moe", MOE),
    "qwen3_5_moe": ("qwen3_5_moe_text", {**SHARED, **DELTA}),
    "qwen3_next": ("qwen3_next", {**SHARED, **DELTA}),
    "qwen2_moe": ("qwen2_moe", SHARED),
    "qwen2_moe, windows": ("qwen2_moe", {**SHARED, "use_sliding_window": True, "sliding_window": WINDOW,
                           "max_window_layers": 0}),
    "glm4_moe": ("glm4_moe", ROUTED),
    "glm4_moe_lite": ("glm4_moe_lite", {**ROUTED, **LATENT}),
    "gpt_oss": ("gpt_oss", {**LOCAL, **MIXED}),
    "mixtral": ("mixtral", {**LOCAL, **NOISE, "router_jitter_noise": 0.05}),
    "mixtral, windows": ("mixtral", {**LOCAL, "sliding_window": WINDOW}),
    "olmoe": ("olmoe", {"num_experts": 4, "num_experts_per_tok": 2}),
    "flex_olmo": ("flex_olmo", {"num_experts": 4, "num_experts_per_tok": 2}),
    "deepseek_v2": ("deepseek_v2", {**ROUTED, **LATENT, "n_group": 2}),
    "deepseek_v3": ("deepseek_v3", {**ROUTED, **LATENT, "n_group": 2}),
    "deepseek_v4": ("deepseek_v4", {**LOCAL, "moe_intermediate_size": 32}),
    "ernie4_5_moe": ("ernie4_5_moe", {"moe_intermediate_size": 32, "moe_num_experts": 4, "moe_k": 2,
                     "moe_num_shared_experts": 1, "moe_layer_start_index": 1}),
    "dots1": ("dots1", ROUTED),
    "granitemoe": ("granitemoe", {**LOCAL, **GRANITE}),
    "granitemoeshared": ("granitemoeshared", {**LOCAL, **GRANITE, "shared_intermediate_size": 32}),
    "granitemoehybrid": ("granitemoehybrid", {**LOCAL, **MAMBA, "shared_intermediate_size": 32,
                         "layer_types": ["mamba", "attention"]}),
    "minimax": ("minimax", {**LOCAL, "block_size": 8, "layer_types": ["linear_attention", "full_attention"]}),
    "minimax_m2": ("minimax_m2", LOCAL),
    "hunyuan_v1_moe": ("hunyuan_v1_moe", {"num_experts": 4, "moe_topk": 2}),
    "lfm2_moe": ("lfm2_moe", {**MOE, "num_dense_layers": 1, "layer_types": ["conv", "full_attention"],
                 "conv_L_cache": 3}),
    "afmoe": ("afmoe", {**MOE, "num_shared_experts": 1, "num_dense_layers": 1, "sliding_window": WINDOW,
              "global_attn_every_n_layers": 2}),
    "phimoe": ("phimoe", {**LOCAL, "router_jitter_noise": 0.05, "input_jitter_noise": 0.05}),
    "phimoe, windows": ("phimoe", {**LOCAL, "sliding_window": WINDOW}),
    "llama4_text": ("llama4_text", {"num_local_experts": 4, "num_experts_per_tok": 1, "interleave_moe_layer_step": 1,
                    "intermediate_size_mlp": 64, "attention_chunk_size": WINDOW, "moe_layers": [0, 1]}),
    "jamba": ("jamba", {"num_experts": 2, "num_experts_per_tok": 1, "expert_layer_period": 2, "expert_layer_offset": 1,
              "attn_layer_period": 2, "attn_layer_offset": 1, "mamba_d_state": 8, "mamba_dt_rank": 8,
              "use_mamba_kernels": False}),
    "deepseek_v32": ("deepseek_v32", {**ROUTED, **LATENT, "n_group": 2}),
    "glm_moe_dsa": ("glm_moe_dsa", {**ROUTED, **LATENT}),
    "granitemoe_swa": ("granitemoe_swa", {**LOCAL, **GRANITE, **MIXED}),
    "exaone_moe": ("exaone_moe", {**MOE, **MIXED}),
    "hy_v3": ("hy_v3", MOE),
    "kimi_linear": ("kimi_linear", {**MOE, **LATENT}),
    "longcat_flash": ("longcat_flash", {**ROUTED, **LATENT}),
    "mimo_v2_flash": ("mimo_v2_flash", {**ROUTED, **MIXED}),
    "cohere2_moe": ("cohere2_moe", {**MOE, **MIXED}),
    "solar_open": ("solar_open", ROUTED),
    "laguna": ("laguna", MOE),
    "mellum": ("mellum", MOE),
    "axk1": ("axk1", {**ROUTED, **LATENT}),
    "nemotron_h": ("nemotron_h", {"layer_types": ["mamba", "attention"], "mamba_num_heads": 8, "mamba_head_dim": 16,
                   "ssm_state_size": 8, "n_groups": 1, "chunk_size": 16}),
    "bamba": ("bamba", {**MAMBA, "attn_layer_indices": [1]}),
    "falcon_h1": ("falcon_h1", {**MAMBA, "mamba_d_ssm": 128}),
    "lfm2": ("lfm2", {"layer_types": ["conv", "full_attention"], "conv_L_cache": 3}),
    "llama, tied": ("llama", {**NOISE, "tie_word_embeddings": True}),
    "mistral": ("mistral", {"sliding_window": WINDOW}),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {}),
    "qwen3, windows": ("qwen3", {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 0}),
    "qwen3_5": ("qwen3_5_text", DELTA),
    "olmo3": ("olmo3", MIXED),
    "granite": ("granite", GRANITE),
    "cohere": ("cohere", {"logit_scale": 0.25, "tie_word_embeddings": True}),
    "cohere2": ("cohere2", {**MIXED, "logit_scale": 0.25, "tie_word_embeddings": True}),
    "gemma2": ("gemma2", {**MIXED, "final_logit_softcapping": 5.0, "attn_logit_softcapping": 5.0,
               "query_pre_attn_scalar": 16, "tie_word_embeddings": True}),
    "gemma3": ("gemma3_text", {**MIXED, "query_pre_attn_scalar": 16, "tie_word_embeddings": True}),
    "exaone4": ("exaone4", MIXED),
    "gemma4": ("gemma4_text", MIXED),
    "vaultgemma": ("vaultgemma", {**MIXED, "query_pre_attn_scalar": 16}),
    "granite_swa": ("granite_swa", {**GRANITE, **MIXED}),
    "olmo2": ("olmo2", {}),
    "olmo_hybrid": ("olmo_hybrid", DELTA),
    "mamba2": ("mamba2", {"num_heads": 8, "head_dim": 16, "state_size": 8, "n_groups": 1, "chunk_size": 16}),
    "glm4": ("glm4", {}),
    "ernie4_5": ("ernie4_5", {}),
    "hunyuan_v1_dense": ("hunyuan_v1_dense", {}),
    "ministral3": ("ministral3", {}),
    "nanochat": ("nanochat", {}),
    "apertus": ("apertus", {}),
    "nemotron": ("nemotron", {}),
    "phi": ("phi", {"resid_pdrop": 0.1, "embd_pdrop": 0.1}),
    "phi3": ("phi3", {"resid_pdrop": 0.1, "embd_pdrop": 0.1, "sliding_window": WINDOW}),
    "starcoder2": ("starcoder2", {"residual_dropout": 0.1, "embedding_dropout": 0.1, "sliding_window": WINDOW}),
    "minicpm3": ("minicpm3", {**LATENT, "dim_model_base": 16}),
    "seed_oss": ("seed_oss", {"residual_dropout": 0.1}),
    "smollm3": ("smollm3", {}),
    "gpt2": ("gpt2", {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 256, "resid_pdrop": 0.1}),
    "gpt_neox": ("gpt_neox", {"hidden_dropout": 0.1}),
    "doge": ("doge", {}),
    "stablelm": ("stablelm", {"hidden_dropout": 0.1}),
    "gptj": ("gptj", {"rotary_dim": 8, "resid_pdrop": 0.1}),
    "opt": ("opt", {"ffn_dim": 96, "word_embed_proj_dim": 64, "layerdrop": 0.1, "dropout": 0.1}),
}  # fmt: skip
COLUMNS = ("packed", "padded", "sdpa", "gradient", "router", "replay", "experts")
LIMITS = {"packed": 2e-4, "padded": 2e-4, "sdpa": 2e-4, "gradient": 1e-3, "router": 1e-4, "replay": 2e-4}
Row = dict[str, Any]


def build(folder: Path, name: str) -> None:
    """A model of the family with random weights; biases that only choose experts, and sinks, are random too."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    import ringrl.models.bailing_moe  # noqa: F401  (registers Ling)

    kind, more = FAMILIES[name]
    torch.manual_seed(0)
    lm = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **SIZES | more), dtype=torch.float32)
    for key, tensor in (*lm.named_buffers(), *lm.named_parameters()):
        if "e_score" in key or "expert_bias" in key:
            tensor.data.normal_(std=0.3)
        if "sinks" in key:
            tensor.data.normal_()
    lm.save_pretrained(folder)


def measure(folder: Path) -> Row:
    """A row of the table, from a folder of `build`."""
    import torch
    from transformers import AutoModelForCausalLM

    from ringrl.config.sections import Trainer
    from ringrl.errors import RingError
    from ringrl.models.families import check_trainable
    from ringrl.policy.check import check_forward, plain_logprobs
    from ringrl.policy.forward import PolicyModule, load_lm

    draw = torch.Generator().manual_seed(1)
    ids = [torch.randint(3, SIZES["vocab_size"], (n,), generator=draw).tolist() for n in (30, 23, 17)]
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()

    def load(attention: str) -> PolicyModule:
        check_trainable(str(folder))
        module = PolicyModule(load_lm(str(folder), "float32", attention), 1.0).train()
        check_forward(module, Trainer.model_validate({"dtype": "float32", "attention": attention}), str(folder))
        return module

    modules: dict[str, PolicyModule] = {}
    refused: dict[str, str] = {}
    for attention in ("packed", "sdpa"):
        try:
            modules[attention] = load(attention)
        except RingError as e:
            refused[attention] = str(e).removeprefix(f"{folder}: ")
    if not modules:
        return {"refused": refused["packed"]}
    module = next(iter(modules.values()))
    with torch.no_grad():
        wanted = plain_logprobs(plain, ids)
    row: Row = dict.fromkeys(refused, "refused")
    if "packed" in modules:
        row["packed"] = difference(module, ids, True, wanted) if module.packs else None
    if "sdpa" in modules:
        row["sdpa"] = difference(modules["sdpa"], ids, module.packs, wanted)
    row |= {"padded": difference(module, ids, False, wanted), "gradient": gradient_distance(module, plain, ids)}
    return {**row, **routing(module, plain, ids), "experts": shardable(module.lm)}


def difference(module: Any, ids: Sequence[list[int]], packed: bool, wanted: Sequence[Any]) -> float:
    import torch

    from ringrl.policy.check import own_logprobs

    with torch.no_grad():
        ours = own_logprobs(module, ids, packed)
    return max(float((a - b).abs().max()) for a, b in zip(ours, wanted, strict=True))


def gradient_distance(module: Any, plain: Any, ids: Sequence[list[int]]) -> float:
    """|ours - plain| / |plain| over all parameters."""
    import torch

    from ringrl.policy.check import own_logprobs, plain_logprobs

    for lm, logprobs in (
        (module.lm, own_logprobs(module, ids, module.packs)),
        (plain, plain_logprobs(plain, ids)),
    ):
        lm.zero_grad()
        torch.cat(logprobs).sum().backward()
    pairs = [(a.grad, b.grad) for a, b in zip(module.lm.parameters(), plain.parameters(), strict=True)]
    pairs = [(a, b) for a, b in pairs if a is not None or b is not None]
    away = sum(float((a - b).square().sum()) for a, b in pairs)
    return (away / sum(float(b.square().sum()) for _, b in pairs)) ** 0.5


def routing(module: Any, plain: Any, ids: Sequence[list[int]]) -> Row:
    """What routers say, against what transformers records, and whether their choice can be replayed."""
    import torch

    from ringrl.algo.pack import TokenSequence, pack

    if not module.moe:
        return {"router": None, "replay": None}
    whole = [TokenSequence(tuple(s), (False,) + (True,) * (len(s) - 1), 1.0) for s in ids]
    worst = replayed = 0.0
    with torch.no_grad():
        for sequence, s in zip(whole, ids, strict=True):
            [[mb]] = pack([sequence], 1, 1 << 20, module.packs)
            free = module(mb)
            recorded = plain(input_ids=torch.tensor([s[:-1]]), output_router_logits=True, use_cache=False).router_logits
            logits = torch.stack([r.reshape(len(s) - 1, -1) for r in recorded])
            worst = max(worst, float((free.router_logits - logits).abs().max()))
            if module.routers.gate.replays:
                flipped = module(mb, free.routes.flip(-1))
                assert torch.equal(flipped.routes, free.routes.flip(-1))
                replayed = max(replayed, float((flipped.logprobs - free.logprobs).abs().max()))
    return {"router": worst, "replay": replayed if module.routers.gate.replays else "none"}


def shardable(lm: Any) -> str | None:
    """Whether experts can be spread over ranks; None without experts."""
    from ringrl.errors import DataError
    from ringrl.policy.experts import fused_blocks

    if not any(name.endswith(".experts") for name, _ in lm.named_modules()):
        return None
    try:
        fused_blocks(lm, 2)
    except DataError:
        return "no"
    return "yes"


def wrong(row: Row) -> list[str]:
    """The columns of a row that are not right; none for a family that is refused."""
    return [key for key, limit in LIMITS.items() if isinstance(row.get(key), float) and not row[key] <= limit]


def table(rows: Sequence[Row]) -> str:
    """Markdown."""

    def cell(value: Any) -> str:
        return "–" if value is None else value if isinstance(value, str) else f"{value:.0e}"

    lines = ["| family | model_type | " + " | ".join(COLUMNS) + " |", "|---|---|" + "---:|" * len(COLUMNS)]
    for row in rows:
        shown = [cell(row.get(c)) for c in COLUMNS]
        if "refused" in row:
            shown = [f"refused: {row['refused']}"] + [""] * (len(COLUMNS) - 1)
        lines.append(f"| {row['family']} | `{row['model_type']}` | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def run(names: Sequence[str], out: Path, show: Callable[[Row], None] = lambda row: None) -> list[Row]:
    """The rows of these families; those that `out` has are not measured again."""
    rows = {r["family"]: r for r in map(json.loads, out.read_text().splitlines())} if out.is_file() else {}
    for name in names:
        if name not in rows:
            with tempfile.TemporaryDirectory() as folder:
                build(Path(folder), name)
                rows[name] = {"family": name, "model_type": FAMILIES[name][0], **measure(Path(folder))}
            with out.open("a") as file:
                file.write(json.dumps(rows[name]) + "\n")
        show(rows[name])
    return [rows[name] for name in names]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="JSON lines, one a family")
    parser.add_argument("--only", default="", help="names, separated by ;")
    parser.add_argument("--docs", type=Path, help="a file with a table between <!-- families --> lines")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    import torch
    from transformers.utils import logging

    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    names = args.only.split(";") if args.only else list(FAMILIES)
    rows = run(names, args.out, lambda row: print(table([row]).splitlines()[-1], flush=True))
    if args.docs:
        before, _, after = args.docs.read_text().split("<!-- families -->")
        args.docs.write_text(f"{before}<!-- families -->\n{table(rows)}\n<!-- families -->{after}")
    faults = {row["family"]: wrong(row) for row in rows if wrong(row)}
    print(f"{len(rows)} families, {sum('refused' in row for row in rows)} refused, wrong: {faults or 0}")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
