"""Log-probabilities and entropies in chunks against NumPy in float64, values and gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ringrl.algo.entropy import adapt, token_stats

N, WIDTH, VOCABULARY = 11, 4, 23


def inputs(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    hidden = torch.randn(N, WIDTH, generator=g)
    return hidden, torch.randint(VOCABULARY, (N,), generator=g), torch.randn(VOCABULARY, WIDTH, generator=g)


def reference(
    hidden: np.ndarray, targets: np.ndarray, head: np.ndarray, temperature: float
) -> tuple[np.ndarray, np.ndarray]:
    logprobs, entropies = [], []
    for h, t in zip(hidden, targets, strict=True):
        logits = [sum(a * b for a, b in zip(row, h, strict=True)) / temperature for row in head]
        log_sum = math.log(sum(math.exp(z) for z in logits))
        logprobs.append(logits[t] - log_sum)
        entropies.append(-sum(math.exp(z - log_sum) * (z - log_sum) for z in logits))
    return np.array(logprobs), np.array(entropies)


@pytest.mark.parametrize("temperature", [1.0, 0.7, 2.0])
def test_values_equal_the_definition(temperature: float):
    hidden, targets, head = inputs()
    logprobs, entropy = token_stats(hidden, targets, lambda h: h @ head.T, temperature, chunk=4)
    expected = reference(hidden.double().numpy(), targets.numpy(), head.double().numpy(), temperature)
    assert logprobs.dtype == entropy.dtype == torch.float32
    np.testing.assert_allclose(logprobs, expected[0], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(entropy, expected[1], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("which", [0, 1])
def test_gradients_equal_finite_differences(which: int):
    hidden, targets, head = inputs(1)
    weights = np.linspace(-1, 2, N)
    x = hidden.clone().requires_grad_()
    stat = token_stats(x, targets, lambda h: h @ head.T, 0.8, chunk=4)[which]
    (stat * torch.tensor(weights, dtype=torch.float32)).sum().backward()

    base, numeric, step = hidden.double().numpy(), np.zeros((N, WIDTH)), 1e-5
    for j in range(WIDTH):  # tokens do not see each other, so a whole column moves at once
        moved = [base.copy(), base.copy()]
        moved[0][:, j] += step
        moved[1][:, j] -= step
        up, down = (reference(m, targets.numpy(), head.double().numpy(), 0.8)[which] for m in moved)
        numeric[:, j] = weights * (up - down) / (2 * step)
    np.testing.assert_allclose(x.grad, numeric, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("chunk", [1, 3, 10, 11, 12, 2048])
def test_the_chunk_changes_neither_value_nor_gradient(chunk: int):
    results = []
    for size in (N, chunk):
        hidden, targets, head = (t.clone() for t in inputs(2))
        hidden.requires_grad_()
        head.requires_grad_()
        logprobs, entropy = token_stats(hidden, targets, lambda h, w=head: h @ w.T, 1.3, chunk=size)
        (logprobs.square() + 0.3 * entropy).sum().backward()
        results.append((logprobs.detach(), entropy.detach(), hidden.grad, head.grad))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-5)


def test_no_more_than_a_chunk_of_logits_is_made_at_once():
    hidden, targets, head = inputs(3)
    seen: list[int] = []

    def counting(h: torch.Tensor) -> torch.Tensor:
        seen.append(len(h))
        return h @ head.T

    token_stats(hidden.requires_grad_(), targets, counting, 1.0, chunk=4)[0].sum().backward()
    assert sorted(seen) == [3, 3, 4, 4, 4, 4]  # once forward, once again in backward


def test_without_gradients_the_values_are_the_same():
    hidden, targets, head = inputs(4)
    with_graph = token_stats(hidden.clone().requires_grad_(), targets, lambda h: h @ head.T, 1.0, chunk=5)
    with torch.no_grad():
        without = token_stats(hidden, targets, lambda h: h @ head.T, 1.0, chunk=5)
    assert all(torch.equal(a.detach(), b) for a, b in zip(with_graph, without, strict=True))


def test_entropy_is_log_v_when_all_is_possible_and_zero_when_one_is():
    targets = torch.zeros(2, dtype=torch.int64)
    _, uniform = token_stats(torch.zeros(2, WIDTH), targets, lambda h: h @ torch.ones(WIDTH, VOCABULARY), 1.0)
    assert uniform.tolist() == pytest.approx([math.log(VOCABULARY)] * 2, rel=1e-6)
    one_hot = 1e4 * torch.eye(VOCABULARY)[:2]
    logprobs, sharp = token_stats(one_hot, torch.tensor([0, 1]), lambda h: h, 1.0)
    assert logprobs.abs().max() == 0
    assert sharp.abs().max() == 0


def test_no_tokens_give_no_statistics():
    logprobs, entropy = token_stats(torch.zeros(0, WIDTH), torch.zeros(0, dtype=torch.int64), lambda h: h, 1.0)
    assert logprobs.shape == entropy.shape == (0,)


def test_the_coefficient_rises_below_the_target_falls_above_and_never_under_zero():
    c, seen = 0.0, []
    for entropy in (0.3, 0.2, 0.1, 0.1, 0.3, 0.3, 0.3, 0.1):
        c, alpha = adapt(c, entropy, target=0.2, delta=0.01)
        seen.append((round(c, 10), round(alpha, 10)))
    assert seen == [(0, 0), (0.01, 0.01), (0.02, 0.02), (0.03, 0.03), (0.02, 0), (0.01, 0), (0, 0), (0.01, 0.01)]
