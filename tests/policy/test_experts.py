"""Expert parallelism in two processes against one: experts that get every token, or none, or whose rank gets none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import multiprocessing

from ringrl.processes import free_port
from tests.conftest import as_rank

EXPERTS, TOP_K, HIDDEN, WIDTH, SIZE = 4, 2, 16, 8, 2
TOKENS = (7, 5)  # unequal on purpose
ROUTES = {
    "mixed": [[0, 3], [1, 2], [2, 0], [3, 1]],
    "one rank gets all": [[0, 1]],
    "one expert starves": [[0, 1], [1, 3], [0, 3]],
}


def inputs(rank: int, name: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """hidden [T, H], chosen [T, K], gates [T, K] of one rank."""
    g = torch.Generator().manual_seed(rank)
    pattern, n = ROUTES[name], TOKENS[rank]
    chosen = torch.tensor([pattern[(t + rank) % len(pattern)] for t in range(n)])
    return torch.randn(n, HIDDEN, generator=g), chosen, torch.rand(n, TOP_K, generator=g)


def whole() -> Any:
    """A fused experts module of transformers, the same on every rank."""
    from transformers import Qwen3MoeConfig
    from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeExperts

    config = Qwen3MoeConfig(hidden_size=HIDDEN, moe_intermediate_size=WIDTH, num_experts=EXPERTS,
                            num_experts_per_tok=TOP_K)  # fmt: skip
    config._experts_implementation = "eager"
    module = Qwen3MoeExperts(config)
    torch.manual_seed(0)
    for p in module.parameters():
        torch.nn.init.normal_(p, std=0.3)
    return module


def one_rank(rank: int, port: int, out: str) -> None:
    as_rank(rank, SIZE, port)
    from ringrl.policy.experts import ParallelExperts
    from ringrl.policy.ranks import Ranks

    ranks = Ranks(60)
    module = ParallelExperts(whole(), SIZE)
    for name in ROUTES:
        module.zero_grad()
        hidden, chosen, gates = inputs(rank, name)
        hidden.requires_grad_()
        gates.requires_grad_()
        y = module(hidden, chosen, gates)
        (y * torch.linspace(0, 1, HIDDEN)).sum().backward()
        grads = {n: p.grad.clone() for n, p in module.experts.named_parameters()}
        torch.save({"y": y.detach(), "hidden": hidden.grad, "gates": gates.grad, **grads}, f"{out}/{name} {rank}.pt")
    ranks.close()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("experts")
    port = free_port()
    multiprocessing.spawn(one_rank, (port, str(folder)), SIZE)
    return folder


@pytest.mark.parametrize("name", ROUTES)
def test_outputs_and_gradients_are_those_of_one_process(name: str, results: Path):
    parts = [torch.load(results / f"{name} {rank}.pt") for rank in range(SIZE)]
    module = whole()
    each = [inputs(rank, name) for rank in range(SIZE)]
    hidden, chosen, gates = (torch.cat([e[k] for e in each]) for k in range(3))
    hidden.requires_grad_()
    gates.requires_grad_()
    y = module(hidden, chosen, gates)
    (y * torch.linspace(0, 1, HIDDEN)).sum().backward()
    w1, w3 = module.gate_up_proj.grad.chunk(2, dim=1)
    expected = {"y": y.detach(), "hidden": hidden.grad, "gates": gates.grad,
                "w1": w1, "w2": module.down_proj.grad, "w3": w3}  # fmt: skip
    for key, value in expected.items():
        torch.testing.assert_close(torch.cat([p[key] for p in parts]), value, rtol=0, atol=1e-5)
    assert float(w1.abs().max()) > 1e-3
    assert not dist.is_initialized()


@pytest.mark.parametrize(
    ("experts", "hidden", "width"),
    [(64, 2048, 1408), (64, 2048, 1024), (128, 2048, 768)],
    ids=["ling-lite", "olmoe", "qwen3-30b"],
)
def test_grouped_products_take_the_shapes_of_real_models(experts: int, hidden: int, width: int) -> None:
    """On the meta device, whose rules on layouts are those of a GPU: forward and backward, and no number is read."""
    from ringrl.policy.experts import gated_mlps

    shapes = [(4096, hidden), (experts, width, hidden), (experts, hidden, width), (experts, width, hidden)]
    x, w1, w2, w3 = (torch.empty(s, dtype=torch.bfloat16, device="meta", requires_grad=True) for s in shapes)
    counts = torch.empty(experts, dtype=torch.int64, device="meta")
    out = gated_mlps(x, counts, w1, w2, w3, torch.nn.functional.silu)
    assert out.shape == x.shape
    out.square().sum().backward()
    assert [t.grad.shape for t in (x, w1, w2, w3) if t.grad is not None] == [torch.Size(s) for s in shapes]
