"""The surrogate, the KL estimator and the token weights against plain formulas and finite differences."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import numpy as np
import pytest
import torch

from ringrl.algo.loss import MAX_LOG_RATIO, clipped_surrogate, kl_k3, token_weights
from ringrl.types import Completion, Prompt, Sample

CLIP = 0.2


def random_terms(seed: int, n: int = 400) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Log-probs, old log-probs and advantages, none closer than 1e-3 to a corner of the clip."""
    rng = np.random.default_rng(seed)
    old, advantages = -rng.exponential(1.0, n), rng.normal(size=n)
    log_ratio = rng.normal(scale=0.3, size=n)
    corner = np.minimum(abs(np.exp(log_ratio) - 1 - CLIP), abs(np.exp(log_ratio) - 1 + CLIP)) < 1e-3
    log_ratio[corner] = 0.0
    return torch.tensor(old + log_ratio), torch.tensor(old), torch.tensor(advantages)


def finite_difference(f: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, h: float = 1e-6) -> torch.Tensor:
    """Of an elementwise f, by central differences."""
    return (f(x + h) - f(x - h)) / (2 * h)


def reference_surrogate(new: float, old: float, advantage: float) -> tuple[float, bool]:
    r = math.exp(new - old)
    if advantage >= 0:
        clipped = r > 1 + CLIP
        return -(1 + CLIP if clipped else r) * advantage, clipped
    clipped = r < 1 - CLIP
    return -(1 - CLIP if clipped else r) * advantage, clipped


def test_surrogate_equals_the_formula_case_by_case():
    new, old, advantages = random_terms(0)
    terms = clipped_surrogate(new, old, advantages, CLIP)
    expected = [reference_surrogate(*x) for x in zip(new.tolist(), old.tolist(), advantages.tolist(), strict=True)]
    np.testing.assert_allclose(terms.surrogate, [e[0] for e in expected], rtol=0, atol=1e-10)
    assert terms.clipped.tolist() == [e[1] for e in expected]
    assert 20 < int(terms.clipped.sum()) < 380
    np.testing.assert_allclose(terms.ratio, np.exp(new.numpy() - old.numpy()), rtol=1e-10)


def test_surrogate_gradient_is_the_finite_difference_and_zero_where_clipped():
    new, old, advantages = random_terms(1)
    x = new.clone().requires_grad_()
    terms = clipped_surrogate(x, old, advantages, CLIP)
    terms.surrogate.sum().backward()
    numeric = finite_difference(lambda v: clipped_surrogate(v, old, advantages, CLIP).surrogate, new)
    torch.testing.assert_close(x.grad, numeric, rtol=1e-6, atol=1e-8)
    assert torch.equal(x.grad == 0, terms.clipped)


def test_on_the_sampling_policy_the_gradient_is_minus_the_advantage():
    _, old, advantages = random_terms(2)
    x = old.clone().requires_grad_()
    terms = clipped_surrogate(x, old, advantages, CLIP)
    terms.surrogate.sum().backward()
    torch.testing.assert_close(terms.surrogate, -advantages, rtol=0, atol=1e-12)
    torch.testing.assert_close(x.grad, -advantages, rtol=0, atol=1e-12)
    assert not terms.clipped.any()


def test_only_the_surrogate_carries_a_gradient():
    new, old, advantages = random_terms(3)
    terms = clipped_surrogate(new.requires_grad_(), old, advantages, CLIP)
    assert (terms.surrogate.requires_grad, terms.ratio.requires_grad, terms.clipped.requires_grad) == (
        True,
        False,
        False,
    )


def test_wild_ratios_stay_finite_and_kl_too():
    new, old = torch.tensor([0.0, -1e4]), torch.tensor([-1e4, 0.0])
    for advantage in (1.0, -1.0):
        assert clipped_surrogate(new, old, torch.full((2,), advantage), CLIP).surrogate.isfinite().all()
    assert kl_k3(new, old).isfinite().all()
    assert float(clipped_surrogate(new, old, torch.ones(2), CLIP).ratio[0]) == pytest.approx(math.exp(MAX_LOG_RATIO))


def test_kl_equals_the_formula_and_is_never_negative():
    new, ref, _ = random_terms(4)
    expected = [math.exp(r - n) - (r - n) - 1 for n, r in zip(new.tolist(), ref.tolist(), strict=True)]
    np.testing.assert_allclose(kl_k3(new, ref), expected, rtol=0, atol=1e-10)
    assert float(kl_k3(new, ref).min()) >= 0
    assert kl_k3(new, new).abs().max() == 0


def test_kl_gradient_is_the_finite_difference():
    new, ref, _ = random_terms(5)
    x = new.clone().requires_grad_()
    kl_k3(x, ref).sum().backward()
    numeric = finite_difference(lambda v: kl_k3(v, ref), new)
    torch.testing.assert_close(x.grad, numeric, rtol=1e-6, atol=1e-8)


def test_kl_is_unbiased_summed_over_a_whole_vocabulary():
    logits = torch.randn(2, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    logp, logq = logits.log_softmax(-1)
    exact = float((logp.exp() * (logp - logq)).sum())
    assert float((logp.exp() * kl_k3(logp, logq)).sum()) == pytest.approx(exact, abs=1e-10)


def ragged(seed: int) -> list[Sample]:
    rng = random.Random(seed)
    out = []
    for i in range(rng.randint(1, 15)):
        n = rng.randint(1, 20)
        completion = Completion(tuple(range(n)), (-1.0,) * n, "stop", 0)
        out.append(Sample(Prompt(f"p{i}", "math", (1,), {}), completion, 1.0, 1.0, rng.randint(1, n)))
    return out


@pytest.mark.parametrize("seed", range(5))
def test_grpo_weights_take_the_mean_over_responses_of_token_means(seed: int):
    samples, rng = ragged(seed), np.random.default_rng(seed)
    values = [rng.normal(size=s.num_trained) for s in samples]
    weights = token_weights(samples, "grpo", phi=123)
    weighted = sum(w * v.sum() for w, v in zip(weights, values, strict=True))
    assert weighted == pytest.approx(np.mean([v.mean() for v in values]), abs=1e-10)


@pytest.mark.parametrize("phi", [1, 7, 409_600])
def test_c3po_weights_divide_by_phi_whatever_was_found(phi: int):
    assert all(token_weights(ragged(seed), "c3po", phi) == [1 / phi] * len(ragged(seed)) for seed in range(5))


def test_an_unknown_method_is_refused():
    with pytest.raises(AssertionError, match="dapo"):
        token_weights(ragged(0), "dapo", 1)
