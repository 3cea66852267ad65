"""Load balance and z-loss against loops."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch

from ringrl.algo.router import balance_terms, expert_counts, z_terms

LAYERS, N, EXPERTS, TOP_K = 3, 17, 8, 2


def logits(seed: int = 0, n: int = N) -> torch.Tensor:
    return 2 * torch.randn(LAYERS, n, EXPERTS, generator=torch.Generator().manual_seed(seed))


def share_of(x: torch.Tensor) -> torch.Tensor:
    counts = expert_counts(x, TOP_K)
    return counts / counts.sum(-1, keepdim=True)


def test_counts_are_how_often_an_expert_is_among_the_largest():
    x = logits()
    expected = np.zeros((LAYERS, EXPERTS))
    for layer in range(LAYERS):
        for t in range(N):
            ranked = sorted(range(EXPERTS), key=lambda e: -float(x[layer, t, e]))
            for e in ranked[:TOP_K]:
                expected[layer, e] += 1
    assert expert_counts(x, TOP_K).tolist() == expected.tolist()
    assert expert_counts(x, TOP_K).sum(-1).tolist() == [N * TOP_K] * LAYERS


def test_counts_add_up_over_parts_of_the_batch():
    x = logits(1)
    parts = [expert_counts(part, TOP_K) for part in x.split([5, 1, 11], dim=1)]
    assert torch.equal(sum(parts), expert_counts(x, TOP_K))


def test_balance_equals_the_loop_over_tokens_and_experts():
    x = logits(2)
    share = share_of(x)
    expected = np.zeros(N)
    for t in range(N):
        for layer in range(LAYERS):
            z = [math.exp(v) for v in x[layer, t].tolist()]
            expected[t] += EXPERTS * sum(f * p / sum(z) for f, p in zip(share[layer].tolist(), z, strict=True)) / LAYERS
    np.testing.assert_allclose(balance_terms(x, share), expected, rtol=1e-6)


def test_mean_balance_is_e_times_shares_times_mean_probabilities():
    x = logits(3)
    share = share_of(x)
    mean_probability = x.double().softmax(-1).mean(1)
    expected = (EXPERTS * (share.double() * mean_probability).sum(-1)).mean()
    assert float(balance_terms(x, share).double().mean()) == pytest.approx(float(expected), rel=1e-6)


def test_balance_is_one_when_experts_are_used_equally():
    even = torch.full((LAYERS, EXPERTS), 1 / EXPERTS)
    torch.testing.assert_close(balance_terms(logits(4), even), torch.ones(N))
    undecided = balance_terms(torch.zeros(LAYERS, N, EXPERTS), share_of(logits(4)))
    torch.testing.assert_close(undecided, torch.ones(N))


def test_balance_is_the_number_of_experts_when_one_takes_all():
    x = torch.full((LAYERS, N, EXPERTS), -100.0)
    x[..., 3] = 100.0
    counts = expert_counts(x, 1)
    torch.testing.assert_close(balance_terms(x, counts / N), torch.full((N,), float(EXPERTS)))


def test_balance_does_not_depend_on_how_tokens_are_split():
    x = logits(5)
    share = share_of(x)
    parts = [balance_terms(part, share) for part in x.split([4, 13], dim=1)]
    torch.testing.assert_close(torch.cat(parts), balance_terms(x, share), rtol=1e-6, atol=0)


def test_descending_the_balance_loss_takes_probability_from_the_crowded_expert():
    x = logits(6)
    x[..., 0] += 3.0
    x.requires_grad_()
    balance_terms(x, share_of(x.detach())).mean().backward()
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
    torch.testing.assert_close(
        balance_terms(moved, share[:, experts]), balance_terms(x, share)[tokens], rtol=1e-6, atol=0
    )
