"""Load balance, z-loss and gates against loops, and gates against the routers of transformers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from transformers import DeepseekV3Config, Qwen3MoeConfig
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3TopkRouter
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeTopKRouter

from ringrl.algo.router import balance_terms, expert_counts, gates, load, router_entropy, shares, z_terms

LAYERS, N, EXPERTS, TOP_K = 3, 17, 8, 2


def logits(seed: int = 0, n: int = N) -> torch.Tensor:
    return 2 * torch.randn(LAYERS, n, EXPERTS, generator=torch.Generator().manual_seed(seed))


def count(x: torch.Tensor, top_k: int = TOP_K) -> torch.Tensor:
    return expert_counts(x.topk(top_k, -1).indices, x.shape[-1])


def share_of(x: torch.Tensor) -> torch.Tensor:
    return shares(count(x))


def balance(x: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    return balance_terms(x, share, "softmax")


def test_counts_are_how_often_an_expert_is_among_the_largest():
    x = logits()
    expected = np.zeros((LAYERS, EXPERTS))
    for layer in range(LAYERS):
        for t in range(N):
            ranked = sorted(range(EXPERTS), key=lambda e: -float(x[layer, t, e]))
            for e in ranked[:TOP_K]:
                expected[layer, e] += 1
    assert count(x).tolist() == expected.tolist()
    assert count(x).sum(-1).tolist() == [N * TOP_K] * LAYERS


def plain_probabilities(z: np.ndarray, scoring: str) -> np.ndarray:
    scores = [math.exp(v) if scoring == "softmax" else 1 / (1 + math.exp(-v)) for v in z]
    return np.array(scores) / sum(scores)


def plain_balance(x: np.ndarray, share: np.ndarray, scoring: str) -> np.ndarray:
    """E Σ_i f_i P_i of each token, mean over layers."""
    terms = [[EXPERTS * sum(f * p for f, p in zip(share[layer], plain_probabilities(z, scoring), strict=True))
              for z in x[layer]] for layer in range(LAYERS)]  # fmt: skip
    return np.array(terms).mean(0)


def plain_z(x: np.ndarray) -> np.ndarray:
    return np.array([[math.log(sum(math.exp(v) for v in z)) ** 2 for z in x[layer]] for layer in range(LAYERS)]).mean(0)


@pytest.mark.parametrize("scoring", ["softmax", "sigmoid"])
def test_balance_z_and_router_entropy_equal_the_loop(scoring: str):
    x = logits(2)
    wide, share = x.double().numpy(), share_of(x)
    entropy = [[-sum(p * math.log(p) for p in plain_probabilities(z, scoring)) for z in wide[i]] for i in range(LAYERS)]
    np.testing.assert_allclose(balance_terms(x, share, scoring), plain_balance(wide, share.numpy(), scoring), rtol=1e-5)
    np.testing.assert_allclose(z_terms(x), plain_z(wide), rtol=1e-5)
    np.testing.assert_allclose(router_entropy(x, scoring), np.mean(entropy, 0), rtol=1e-5)


@pytest.mark.parametrize("loss", ["softmax", "sigmoid", "z"])
def test_gradients_of_both_losses_are_finite_differences_of_the_loops(loss: str):
    x = logits(9, n=3)
    share, leaf = share_of(x), x.clone().requires_grad_()
    (z_terms(leaf) if loss == "z" else balance_terms(leaf, share, loss)).sum().backward()

    def value(v: np.ndarray) -> float:
        return (plain_z(v) if loss == "z" else plain_balance(v, share.double().numpy(), loss)).sum()

    wide, slope, h = x.double().numpy(), np.zeros(x.shape), 1e-5
    for at in np.ndindex(*x.shape):
        step = np.zeros(x.shape)
        step[at] = h
        slope[at] = (value(wide + step) - value(wide - step)) / (2 * h)
    np.testing.assert_allclose(leaf.grad, slope, rtol=1e-4, atol=1e-6)
    assert abs(slope).max() > 0.05


@pytest.mark.parametrize("scoring", ["softmax", "sigmoid"])
@pytest.mark.parametrize("normalise", [True, False])
def test_gates_of_given_experts_equal_the_loop(scoring: str, normalise: bool):
    x = logits(10)[0]
    chosen = torch.randint(0, EXPERTS, (N, TOP_K), generator=torch.Generator().manual_seed(0))
    got = gates(x, chosen, scoring, normalise, 2.5)
    for t in range(N):
        scores = plain_probabilities(x[t].double().numpy(), "softmax")
        if scoring == "sigmoid":
            scores = 1 / (1 + np.exp(-x[t].double().numpy()))
        picked = scores[chosen[t].numpy()]
        np.testing.assert_allclose(got[t], 2.5 * picked / (picked.sum() if normalise else 1), rtol=1e-5)


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("name", ["qwen3_moe", "deepseek_v3"])
def test_gates_are_those_of_the_routers_of_transformers(name: str, normalise: bool):
    sizes = {"hidden_size": 16, "num_experts_per_tok": 3, "norm_topk_prob": normalise}
    if name == "qwen3_moe":
        router = Qwen3MoeTopKRouter(Qwen3MoeConfig(num_experts=EXPERTS, **sizes))
        scoring, scale = "softmax", 1.0
    else:
        groups = {"n_group": 4, "topk_group": 2, "routed_scaling_factor": 2.5}
        router = DeepseekV3TopkRouter(DeepseekV3Config(n_routed_experts=EXPERTS, **groups, **sizes))
        scoring, scale = "sigmoid", 2.5
        router.e_score_correction_bias.normal_(generator=torch.Generator().manual_seed(1))  # for the choice only
    torch.nn.init.normal_(router.weight, generator=torch.Generator().manual_seed(2))
    router_logits, weights, chosen = router(torch.randn(N, 16, generator=torch.Generator().manual_seed(3)))
    torch.testing.assert_close(gates(router_logits, chosen, scoring, normalise, scale), weights, rtol=1e-6, atol=1e-7)


def test_replayed_gates_of_the_routers_own_choice_are_softmax_over_the_chosen():
    """The form in which routing replay is published: exp(s_i) / Σ_chosen exp(s_j)."""
    x = logits(11)[0]
    chosen = x.topk(TOP_K, -1).indices
    torch.testing.assert_close(gates(x, chosen, "softmax", True, 1.0), x.gather(-1, chosen).softmax(-1))


def test_load_is_the_fullest_expert_over_the_mean():
    counts = torch.tensor([[4.0, 4, 4, 4], [16, 0, 0, 0], [8, 4, 2, 2]])
    assert load(counts).tolist() == [1.0, 4.0, 2.0]
    assert shares(counts)[2].tolist() == [0.5, 0.25, 0.125, 0.125]
    assert shares(torch.zeros(1, 4)).tolist() == [[0, 0, 0, 0]]


def test_balance_is_one_when_experts_are_used_equally():
    even = torch.full((LAYERS, EXPERTS), 1 / EXPERTS)
    torch.testing.assert_close(balance(logits(4), even), torch.ones(N))
    undecided = balance(torch.zeros(LAYERS, N, EXPERTS), share_of(logits(4)))
    torch.testing.assert_close(undecided, torch.ones(N))


def test_balance_is_the_number_of_experts_when_one_takes_all():
    x = torch.full((LAYERS, N, EXPERTS), -100.0)
    x[..., 3] = 100.0
    counts = count(x, 1)
    torch.testing.assert_close(balance(x, counts / N), torch.full((N,), float(EXPERTS)))


def test_z_of_equal_logits_is_known_and_does_not_overflow():
    x = torch.full((LAYERS, N, EXPERTS), 1000.0)
    torch.testing.assert_close(z_terms(x), torch.full((N,), (1000 + math.log(EXPERTS)) ** 2), rtol=1e-6, atol=0)
