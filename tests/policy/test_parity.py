"""Training on two processes against one: the same losses, gradient norms and weights whatever lies where.

Real engine, gloo. In layer 0 of every model all tokens of all ranks go to the experts of rank 0, so that half of the
experts, and with expert parallelism a whole rank, get nothing; one row is empty. The gradient is always clipped.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import multiprocessing

from ringrl.processes import free_port
from tests.conftest import as_rank

VOCABULARY, EXPERTS, TOP_K, STEPS = 64, 8, 2, 3
CLIP_NORM = 0.5
LENGTHS = (25, 24, 18)  # in rows of at most 26 tokens: one a row, and on two ranks one row is empty
FAMILIES = ("qwen3_moe", "mixtral", "olmoe", "deepseek_v2", "deepseek_v3", "bailing_moe", "bailing_moe_v2")

BF16 = {"dtype": "bfloat16"}
TWO: dict[str, dict[str, Any]] = {  # of every family
    "data": {},
    "expert": {"parallel": {"expert": 2}},
}
MORE: dict[str, dict[str, Any]] = {  # of Qwen3-MoE
    "expert, zero 2": {"parallel": {"expert": 2, "zero": 2}},
    "expert, zero 3": {"parallel": {"expert": 2, "zero": 3}},
    "data, zero 3": {"parallel": {"zero": 3}},
    "optimizer offloaded, zero 1": {"parallel": {"expert": 2, "offload": "optimizer"}},
    "optimizer offloaded, zero 2": {"parallel": {"expert": 2, "zero": 2, "offload": "optimizer"}},
    "parameters offloaded": {"parallel": {"expert": 2, "zero": 3, "offload": "parameters"}},
    "expert, recompute": {"parallel": {"expert": 2}, "recompute": True},
    "expert, zero 3, recompute": {"parallel": {"expert": 2, "zero": 3}, "recompute": True},
}
LOW = {f"bf16, zero {zero}": {"parallel": {"expert": 2, "zero": zero}, **BF16} for zero in (1, 2, 3)}
FOUR = {f"four, {name}": trainer for name, trainer in (TWO | MORE).items() if "zero 3" in name or name in TWO}
FOUR["four, expert 4"] = {"parallel": {"expert": 4}}
EXACT = [(f, layout) for f in FAMILIES for layout in TWO]
EXACT += [("qwen3_moe", layout) for layout in MORE]
EXACT += [("deepseek_v3", layout) for layout in ("data, zero 3", "expert, zero 3")]  # has a buffer


def build(folder: Path, family: str) -> None:
    """A tiny model of a family, with the routers of layer 0 as above."""
    from transformers import AutoConfig, AutoModelForCausalLM

    import ringrl.models.bailing_moe  # noqa: F401  (registers Ling)

    sizes = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
             "num_key_value_heads": 2, "intermediate_size": 24, "moe_intermediate_size": 16, "pad_token_id": None,
             "max_position_embeddings": 64, "num_experts_per_tok": TOP_K, "head_dim": 16}  # fmt: skip
    latent = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 16,
              "n_routed_experts": EXPERTS, "first_k_dense_replace": 0, "n_group": 2, "topk_group": 1,
              "routed_scaling_factor": 2.5}  # fmt: skip
    more: dict[str, dict[str, Any]] = {
        "qwen3_moe": {"num_experts": EXPERTS, "norm_topk_prob": True},
        "mixtral": {"num_local_experts": EXPERTS, "tie_word_embeddings": True},
        "olmoe": {"num_experts": EXPERTS, "norm_topk_prob": False},
        "deepseek_v2": {**latent, "topk_method": "group_limited_greedy", "head_dim": 8},
        "deepseek_v3": {**latent, "head_dim": 8},
        "bailing_moe": {"num_experts": EXPERTS, "num_shared_experts": 1, "norm_topk_prob": True, "norm_head": True},
        "bailing_moe_v2": {
            "num_experts": EXPERTS,
            "num_shared_experts": 1,
            "use_qk_norm": True,
            "rotary_dim": 8,
            "score_function": "sigmoid",
            "moe_router_enable_expert_bias": True,
            "n_group": 2,
            "topk_group": 1,
            "routed_scaling_factor": 2.5,
        },
    }
    torch.manual_seed(0)
    lm = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **{**sizes, **more[family]}))
    for p in lm.parameters():
        if p.dim() > 1:
            torch.nn.init.normal_(p, std=0.2)
    router = lm.model.layers[0].mlp.gate
    if family in ("deepseek_v3", "bailing_moe_v2"):
        router.e_score_correction_bias[: EXPERTS // 2] = 2.0
    else:  # two pairs of twins; the others lie between them and never win
        one, other = torch.randn(2, 1, 32) * 0.5
        twins = torch.cat([one, one, other, other]) + 0.0003 * torch.randn(4, 32)
        router.weight.data = torch.cat([twins, (one + other).expand(EXPERTS - 4, -1) / 2])
    lm.save_pretrained(folder / family)


def settings(model: str, trainer: dict[str, Any], ranks: int) -> Any:
    from ringrl.config.commands import SFTConfig

    rows = {"files": ["unused.jsonl"]}
    shape = {"ranks": ranks, "dtype": "float32", "attention": "packed", "microbatch_tokens": 26}
    optimizer = {"lr": 3e-4, "weight_decay": 0.1, "clip_norm": CLIP_NORM}
    return SFTConfig.model_validate({"run": "unused", "model": model, "data": rows, "validation": rows, "balance": 0.5,
                                     "z": 0.1, "optimizer": optimizer, "trainer": {**shape, **trainer}})  # fmt: skip


def sequences(step: int) -> list[Any]:
    from ringrl.algo.pack import TokenSequence

    g = torch.Generator().manual_seed(step)
    ids = [tuple(torch.randint(0, VOCABULARY, (n,), generator=g).tolist()) for n in LENGTHS]
    return [TokenSequence(i, (False,) * 3 + (True,) * (len(i) - 3), 1 / (sum(LENGTHS) - 9)) for i in ids]


def train(folder: Path, family: str, trainer: dict[str, Any], ranks: Any) -> dict[str, Any]:
    """Three steps: their numbers, how often this rank's tokens chose each expert of layer 0, the weights."""
    from accelerate.state import AcceleratorState

    from ringrl.algo.pack import pack
    from ringrl.algo.router import expert_counts
    from ringrl.commands.sft import train_step
    from ringrl.policy.engine import Policy
    from ringrl.policy.experts import weight_buckets

    AcceleratorState._reset_state()  # one process, many engines
    torch.manual_seed(0)
    cfg: Any = settings(str(folder / family), trainer, ranks.size)
    policy = Policy(cfg.model, None, cfg.trainer, cfg.optimizer, 1.0, ranks)  # type: ignore[arg-type]
    rows = [pack(sequences(step), ranks.size, cfg.trainer.microbatch_tokens)[ranks.rank] for step in range(STEPS)]
    free = policy.inspect(rows[0])
    counts = sum(expert_counts(s.routes, EXPERTS)[0] for s in free)
    other = policy.inspect(rows[0], [(s.routes + 1) % EXPERTS for s in free])
    logprobs = [float(ranks.sum(torch.stack([s.logprobs.sum() for s in stats]).sum())) for stats in (free, other)]
    numbers, share = [], torch.zeros(0, 1)
    for part in rows:
        step, share = train_step(policy, part, cfg, cfg.optimizer.lr, share)
        numbers.append(step)
    weights = {k: v.float() for bucket in weight_buckets(policy.module.lm, 20_000) for k, v in bucket.items()}
    tokens = [int(mb.trained.sum()) for mb in rows[0]]
    engine = policy.engine
    forms = ("fp32_partitioned_groups_flat", "single_partition_of_fp32_groups", "fp32_groups_flat_partition")
    masters = {str(p.dtype) for form in forms for p in getattr(engine.optimizer, form, [])}
    offloads = (engine.zero_use_cpu_optimizer(), str(getattr(engine.zero_offload_param(), "device", "none")))
    engine.destroy()
    return {"numbers": numbers, "counts": counts, "logprobs": logprobs, "weights": weights, "tokens": tokens,
            "masters": masters, "offloads": offloads}  # fmt: skip


def one_rank(rank: int, size: int, port: int, folder: Path) -> None:
    as_rank(rank, size, port)
    from ringrl.policy.ranks import Ranks

    ranks = Ranks(200)
    wanted: list[tuple[str, str, dict[str, Any]]]
    if size == 4:
        wanted = [("qwen3_moe", layout, trainer) for layout, trainer in FOUR.items()]
    elif size == 1:
        wanted = [(family, "one", {}) for family in FAMILIES] + [("qwen3_moe", "one, bf16", BF16)]
    else:
        wanted = [(family, layout, (TWO | MORE)[layout]) for family, layout in EXACT]
        wanted += [("qwen3_moe", layout, trainer) for layout, trainer in LOW.items()]
    for family, layout, trainer in wanted:
        torch.save(train(folder, family, trainer, ranks), folder / f"{family} {layout} {rank}.pt")
    ranks.close()


def spawn(size: int, folder: Path) -> Any:
    port = free_port()
    return multiprocessing.spawn(one_rank, (size, port, folder), size, join=False)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parity")
    for family in FAMILIES:
        build(folder, family)
    for context in [spawn(size, folder) for size in (1, 2)]:
        while not context.join():
            pass
    return folder


def numbers(result: dict[str, Any], key: str) -> list[float]:
    return [row[key] for row in result["numbers"]]


def check_equal(one: dict[str, Any], two: dict[str, Any]) -> None:
    for key in ("loss", "balance_loss", "z_loss", "grad_norm"):
        assert numbers(two, key) == pytest.approx(numbers(one, key), rel=1e-5, abs=1e-6), key
    assert two["logprobs"] == pytest.approx(one["logprobs"], rel=1e-5)
    assert abs(two["logprobs"][0] - two["logprobs"][1]) > 0.1  # other experts were forced
    assert two["weights"].keys() == one["weights"].keys()
    for name, weight in one["weights"].items():
        torch.testing.assert_close(two["weights"][name], weight, rtol=0, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize(("family", "layout"), EXACT)
def test_two_processes_are_one(family: str, layout: str, results: Path) -> None:
    check_equal(*(torch.load(results / f"{family} {name} 0.pt") for name in ("one", layout)))


@pytest.mark.slow
def test_four_processes_are_one(results: Path) -> None:
    """Expert-data-parallel groups of two, and expert-parallel groups of two and of four in one process."""
    context = spawn(4, results)
    while not context.join():
        pass
    for layout in FOUR:
        one, four = (torch.load(results / f"qwen3_moe {name} 0.pt") for name in ("one", layout))
        check_equal(one, four)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_hard_cases_are_met(family: str, results: Path) -> None:
    """Rank 1's experts get nothing, one row is empty, the norm is clipped, and the weights move."""
    one = torch.load(results / f"{family} one 0.pt")
    two = [torch.load(results / f"{family} expert {rank}.pt") for rank in range(2)]
    for result in (one, *two):
        assert result["counts"][EXPERTS // 2 :].sum() == 0 < result["counts"][: EXPERTS // 2].min()
    assert [result["tokens"] for result in two] == [[22, 15], [21, 0]]
    assert min(numbers(one, "grad_norm")) > 2 * CLIP_NORM
    assert min(numbers(one, "balance_loss")) > 1
    before = load_file(results / family / "model.safetensors")
    assert one["weights"].keys() == before.keys()
    router = next(
        n for n in before if n.endswith(("layers.1.mlp.gate.weight", "layers.1.block_sparse_moe.gate.weight"))
    )
    assert (one["weights"][router] - before[router]).abs().max() > 5e-4


@pytest.mark.parametrize("layout", LOW)
def test_bfloat16_trains_on_fp32_masters(layout: str, results: Path) -> None:
    exact, one, two = (torch.load(results / f"qwen3_moe {name} 0.pt") for name in ("one", "one, bf16", layout))
    for key in ("loss", "balance_loss", "z_loss", "grad_norm"):
        assert numbers(two, key) == pytest.approx(numbers(one, key), rel=2e-2), key
        assert numbers(two, key) == pytest.approx(numbers(exact, key), rel=5e-2), key
    for name, weight in one["weights"].items():
        torch.testing.assert_close(two["weights"][name], weight, rtol=0, atol=8e-3)  # two units in the last place
    assert two["masters"] == {"torch.float32"}


@pytest.mark.parametrize("layout", [layout for layout in MORE if "offloaded" in layout])
def test_offload_is_what_was_asked_for(layout: str, results: Path) -> None:
    two = torch.load(results / f"qwen3_moe {layout} 0.pt")
    assert two["offloads"] == (True, "cpu" if "parameters" in layout else "none")
    assert torch.load(results / "qwen3_moe expert 0.pt")["offloads"] == (False, "none")
