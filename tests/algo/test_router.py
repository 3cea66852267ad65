"""Load balance and z-loss against loops."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch

from ringrl.algo.router import balance_terms, expert_counts, gates, load, router_entropy, shares, z_terms

LAYERS, N, EXPERTS, TOP_K = 3, 17, 8, 2


def logits(seed: int = 0, n: int = N) -> torch.Tensor:
    return 2 * torch.randn(LAYERS, n, EXPERTS, generator=torch.Generator().manual_seed(seed))


def count(x: torch.Tensor, top_k: int = TOP_K) -> torch.Tensor:
    return expert_counts(x.topk(top_k, -1).indices, x.shape[-1])


def share_of(x: torch.Tensor) -> torch.Tensor:
    return shares(count(x))


def balance(x: torch.Tensor, share: torch.Tensor, scoring: str = "softmax") -> torch.Tensor:
    return balance_terms(x, share, scoring)


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


def test_counts_add_up_over_parts_of_the_batch():
    x = logits(1)
    parts = [count(part) for part in x.split([5, 1, 11], dim=1)]
    assert torch.equal(sum(parts), count(x))


SCORES = {"softmax": math.exp, "sigmoid": lambda v: 1 / (1 + math.exp(-v))}


def plain_probabilities(x: torch.Tensor, layer: int, t: int, scoring: str) -> list[float]:
    scores = [SCORES[scoring](v) for v in x[layer, t].tolist()]
    return [s / sum(scores) for s in scores]


@pytest.mark.parametrize("scoring", SCORES)
def test_balance_and_router_entropy_equal_the_loop_over_tokens_and_experts(scoring: str):
    x = logits(2)
    share = share_of(x)
    expected, entropy = np.zeros(N), np.zeros(N)
    for t in range(N):
        for layer in range(LAYERS):
            p = plain_probabilities(x, layer, t, scoring)
            expected[t] += EXPERTS * sum(f * q for f, q in zip(share[layer].tolist(), p, strict=True)) / LAYERS
            entropy[t] -= sum(q * math.log(q) for q in p) / LAYERS
    np.testing.assert_allclose(balance(x, share, scoring), expected, rtol=1e-6)
    np.testing.assert_allclose(router_entropy(x, scoring), entropy, rtol=1e-5)


@pytest.mark.parametrize("scoring", SCORES)
def test_gradients_of_both_losses_are_finite_differences(scoring: str):
    x = logits(9, n=3)
    share = share_of(x)
    for f in (lambda v: balance(v, share, scoring).sum(), lambda v: z_terms(v).sum()):
        leaf = x.clone().requires_grad_()
        f(leaf).backward()
        h, slope = 1e-2, torch.zeros_like(x)
        for i in range(x.numel()):
            step = torch.zeros_like(x).flatten().index_fill_(0, torch.tensor([i]), h).view_as(x)
            slope.view(-1)[i] = (f(x + step) - f(x - step)) / (2 * h)
        torch.testing.assert_close(leaf.grad, slope, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("scoring", SCORES)
@pytest.mark.parametrize("normalise", [True, False])
def test_gates_of_given_experts_equal_the_loop(scoring: str, normalise: bool):
    x = logits(10)[0]
    chosen = torch.randint(0, EXPERTS, (N, TOP_K), generator=torch.Generator().manual_seed(0))
    got = gates(x, chosen, scoring, normalise, 2.5)
    for t in range(N):
        scores = [SCORES[scoring](v) for v in x[t].tolist()]
        scores = [s / sum(scores) for s in scores] if scoring == "softmax" else scores
        picked = [scores[e] for e in chosen[t].tolist()]
        assert got[t].tolist() == pytest.approx([2.5 * p / (sum(picked) if normalise else 1) for p in picked], rel=1e-5)


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


def test_mean_balance_is_e_times_shares_times_mean_probabilities():
    x = logits(3)
    share = share_of(x)
    mean_probability = x.double().softmax(-1).mean(1)
    expected = (EXPERTS * (share.double() * mean_probability).sum(-1)).mean()
    assert float(balance(x, share).double().mean()) == pytest.approx(float(expected), rel=1e-6)


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


def test_balance_does_not_depend_on_how_tokens_are_split():
    x = logits(5)
    share = share_of(x)
    parts = [balance(part, share) for part in x.split([4, 13], dim=1)]
    torch.testing.assert_close(torch.cat(parts), balance(x, share), rtol=1e-6, atol=0)


def test_descending_the_balance_loss_takes_probability_from_the_crowded_expert():
    x = logits(6)
    x[..., 0] += 3.0
    x.requires_grad_()
    balance(x, share_of(x.detach())).mean().backward()
    assert float(x.grad[..., 0].mean()) > 0


def test_z_equals_the_loop():
    x = logits(7)
    expected = [
        sum(math.log(sum(math.exp(v) for v in x[layer, t].tolist())) ** 2 for layer in range(LAYERS)) / LAYERS
        for t in range(N)
    ]
    np.testing.assert_allclose(z_terms(x), expected, rtol=1e-6)


def test_z_of_equal_logits_is_known_and_does_not_overflow():
    x = torch.full((LAYERS, N, EXPERTS), 1000.0)
    torch.testing.assert_close(z_terms(x), torch.full((N,), (1000 + math.log(EXPERTS)) ** 2), rtol=1e-6, atol=0)


def test_neither_term_depends_on_the_order_of_experts_or_tokens():
    x, rng = logits(8), random.Random(0)
    experts, tokens = rng.sample(range(EXPERTS), EXPERTS), rng.sample(range(N), N)
    moved, share = x[:, tokens][..., experts], share_of(x)
    torch.testing.assert_close(z_terms(moved), z_terms(x)[tokens], rtol=1e-6, atol=0)
    torch.testing.assert_close(balance(moved, share[:, experts]), balance(x, share)[tokens], rtol=1e-6, atol=0)
