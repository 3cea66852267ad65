"""Ratios, surrogates, KL estimators and weights against plain loops and finite differences."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import numpy as np
import pytest
import torch

from ringrl.algo.loss import (
    MAX_LOG_RATIO,
    divisor,
    kl_terms,
    log_ratio,
    segment_mean,
    segment_sum,
    surrogate,
    token_weights,
)
from ringrl.types import Completion, Prompt, Sample

LOW, HIGH = 0.2, 0.28
LEVELS = ["token", "sequence", "sequence_token", "none"]


def flat(seed: int, spread: float = 0.3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """new, old, advantages (one per response) and segments of ragged responses in shuffled reading order."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 15, 12)
    segments = rng.permutation(np.repeat(np.arange(12), sizes))
    old = -rng.exponential(1.0, len(segments))
    new = old + rng.normal(scale=spread, size=len(segments))
    advantages = rng.normal(size=12)[segments]
    return torch.tensor(new), torch.tensor(old), torch.tensor(advantages), torch.tensor(segments)


def plain_log_ratio(new: list[float], old: list[float], segments: list[int], level: str) -> list[float]:
    if level == "none":
        return [0.0] * len(new)
    gaps = [n - o for n, o in zip(new, old, strict=True)]
    if level == "token":
        return gaps
    return [sum(g for g, other in zip(gaps, segments, strict=True) if other == s) / segments.count(s) for s in segments]


def plain_surrogate(rho: float, logp: float, a: float, clip: str) -> tuple[float, bool]:
    bounded = min(max(rho, 1 - LOW), 1 + HIGH)
    if clip == "none":
        return -rho * a, False
    if clip == "cispo":
        return -bounded * a * logp, bounded != rho
    if a >= 0:
        return -min(rho, 1 + HIGH) * a, rho > 1 + HIGH and a > 0
    return -max(rho, 1 - LOW) * a, rho < 1 - LOW


@pytest.mark.parametrize("level", LEVELS)
def test_log_ratios_equal_the_loop(level: str):
    for seed in range(5):
        new, old, _, segments = flat(seed)
        expected = plain_log_ratio(new.tolist(), old.tolist(), segments.tolist(), level)
        np.testing.assert_allclose(log_ratio(new, old, segments, level), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("clip", ["ppo", "cispo", "none"])
@pytest.mark.parametrize("level", LEVELS)
def test_surrogates_equal_the_formula_case_by_case(level: str, clip: str):
    new, old, advantages, segments = flat(1)
    log_rho = log_ratio(new, old, segments, level)
    terms = surrogate(log_rho, new, advantages, clip, LOW, HIGH)
    rho = [math.exp(x) for x in plain_log_ratio(new.tolist(), old.tolist(), segments.tolist(), level)]
    expected = [plain_surrogate(*x, clip) for x in zip(rho, new.tolist(), advantages.tolist(), strict=True)]
    np.testing.assert_allclose(terms.surrogate, [e[0] for e in expected], rtol=0, atol=1e-10)
    np.testing.assert_allclose(terms.ratio, rho, rtol=1e-10)
    assert terms.clipped.tolist() == [e[1] for e in expected]
    if level == "token" and clip != "none":
        assert 5 < int(terms.clipped.sum()) < len(new) - 5


def numeric(f: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, h: float = 1e-6) -> torch.Tensor:
    """Gradient of a scalar f by central differences."""
    steps = torch.eye(len(x), dtype=x.dtype) * h
    return torch.stack([(f(x + e) - f(x - e)) / (2 * h) for e in steps])


@pytest.mark.parametrize("clip", ["ppo", "cispo", "none"])
@pytest.mark.parametrize("level", LEVELS)
def test_gradients_are_finite_differences(level: str, clip: str):
    """Stopped factors are held at their values: that is what stopping means."""
    new, old, advantages, segments = flat(2)
    at = log_ratio(new, old, segments, level).exp()
    away = (at - 1 - HIGH).abs().min(), (at - 1 + LOW).abs().min()
    assert min(away) > 1e-5  # of the corners of the clip

    def value(x: torch.Tensor) -> torch.Tensor:
        if clip == "cispo":
            return (-at.clamp(1 - LOW, 1 + HIGH) * advantages * x).sum()
        if level == "sequence":
            rho = (segment_mean(x - old, segments)).exp()
        elif level == "token":
            rho = (x - old).exp()
        else:  # the own factor moves, the others are stopped
            rho = at * (x - new).exp()
        plain = rho * advantages
        if clip == "none":
            return -plain.sum()
        return -torch.minimum(plain, rho.clamp(1 - LOW, 1 + HIGH) * advantages).sum()

    x = new.clone().requires_grad_()
    terms = surrogate(log_ratio(x, old, segments, level), x, advantages, clip, LOW, HIGH)
    terms.surrogate.sum().backward()
    torch.testing.assert_close(x.grad, numeric(value, new), rtol=1e-6, atol=1e-7)
    assert not terms.ratio.requires_grad
    assert not terms.clipped.requires_grad


@pytest.mark.parametrize("level", LEVELS)
def test_on_the_sampling_policy_every_ratio_is_one(level: str):
    _, old, advantages, segments = flat(4)
    x = old.clone().requires_grad_()
    terms = surrogate(log_ratio(x, old, segments, level), x, advantages, "ppo", LOW, HIGH)
    terms.surrogate.sum().backward()
    torch.testing.assert_close(terms.ratio, torch.ones_like(old), rtol=0, atol=1e-12)
    torch.testing.assert_close(x.grad, -advantages, rtol=0, atol=1e-12)  # sequences: A is shared, means sum up again


def test_wild_ratios_stay_finite():
    new, old, segments = torch.tensor([0.0, -1e4]), torch.tensor([-1e4, 0.0]), torch.tensor([0, 1])
    for level in LEVELS:
        log_rho = log_ratio(new, old, segments, level)
        assert log_rho.abs().max() <= MAX_LOG_RATIO
        for clip in ("ppo", "cispo", "none"):
            assert surrogate(log_rho, new, torch.tensor([1.0, -1.0]), clip, LOW, HIGH).surrogate.isfinite().all()
    for estimator in ("k1", "k2", "k3", "unbiased"):
        assert kl_terms(estimator, new, old, new).isfinite().all()


# ---- KL


PLAIN_KL: dict[str, Callable[[float, float], float]] = {
    "k1": lambda d, r: -d,
    "k2": lambda d, r: d * d / 2,
    "k3": lambda d, r: math.exp(d) - d - 1,
    "unbiased": lambda d, r: r * (math.exp(d) - d - 1),
}


@pytest.mark.parametrize("estimator", PLAIN_KL)
def test_kl_equals_the_formula_and_its_gradient_the_finite_difference(estimator: str):
    new, old, _, _ = flat(5)
    ref = new + torch.randn(len(new), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows = zip(new.tolist(), ref.tolist(), old.tolist(), strict=True)
    expected = [PLAIN_KL[estimator](r - n, math.exp(n - o)) for n, r, o in rows]
    np.testing.assert_allclose(kl_terms(estimator, new, ref, old), expected, rtol=0, atol=1e-10)
    x = new.clone().requires_grad_()
    kl_terms(estimator, x, ref, old).sum().backward()
    h = 1e-6
    slope = (kl_terms(estimator, new + h, ref, old) - kl_terms(estimator, new - h, ref, old)) / (2 * h)
    torch.testing.assert_close(x.grad, slope, rtol=1e-6, atol=1e-8)


def test_what_each_estimator_estimates():
    """Summed over a whole vocabulary: k1 and k3 on-policy, and `unbiased` off-policy, have the value of the KL; k2
    on-policy and `unbiased` its gradient; k1 none."""
    g = torch.Generator().manual_seed(0)
    logits, ref_logits, old_logits = torch.randn(3, 40, generator=g, dtype=torch.float64)
    x = logits.requires_grad_()
    logp, ref, old = x.log_softmax(-1), ref_logits.log_softmax(-1), old_logits.log_softmax(-1)
    exact = (logp.exp() * (logp - ref)).sum()
    (slope,) = torch.autograd.grad(exact, x, retain_graph=True)

    def expectation(estimator: str, policy: torch.Tensor) -> tuple[float, torch.Tensor]:
        value = (policy.detach().exp() * kl_terms(estimator, logp, ref, policy.detach())).sum()
        return float(value.detach()), torch.autograd.grad(value, x, retain_graph=True)[0]

    assert expectation("k1", logp)[0] == pytest.approx(float(exact.detach()), abs=1e-10)
    assert expectation("k3", logp)[0] == pytest.approx(float(exact.detach()), abs=1e-10)
    assert expectation("unbiased", old)[0] == pytest.approx(float(exact.detach()), abs=1e-10)
    torch.testing.assert_close(expectation("k2", logp)[1], slope, rtol=0, atol=1e-10)
    torch.testing.assert_close(expectation("unbiased", old)[1], slope, rtol=0, atol=1e-10)
    assert expectation("k1", logp)[1].abs().max() < 1e-10
    assert (expectation("k3", logp)[1] - slope).abs().max() > 1e-3


# ---- weights


def ragged(seed: int) -> list[Sample]:
    rng = random.Random(seed)
    out = []
    for i in range(rng.randint(1, 15)):
        n = rng.randint(1, 20)
        completion = Completion(tuple(range(n)), (-1.0,) * n, "stop", 0)
        out.append(Sample(Prompt(f"p{i}", "math", (1,), {}), completion, 1.0, 1.0, np.arange(n) < rng.randint(1, n)))
    return out


@pytest.mark.parametrize("seed", range(5))
def test_weights_and_denominators_make_the_means_they_are_named_after(seed: int):
    samples, rng = ragged(seed), np.random.default_rng(seed)
    values = [rng.normal(size=s.num_trained) for s in samples]

    def weighted(weight: str, kind: str) -> float:
        weights = token_weights(samples, weight, divisor(kind, samples, 123, 456))
        return sum(w * v.sum() for w, v in zip(weights, values, strict=True))

    everything = np.concatenate(values)
    assert weighted("response", "responses") == pytest.approx(np.mean([v.mean() for v in values]), abs=1e-10)
    assert weighted("token", "responses") == pytest.approx(np.mean([v.sum() for v in values]), abs=1e-10)
    assert weighted("token", "tokens") == pytest.approx(everything.mean(), abs=1e-10)
    assert weighted("token", "phi") == pytest.approx(everything.sum() / 123, abs=1e-10)
    assert weighted("token", "max_tokens") == pytest.approx(everything.sum() / 456, abs=1e-10)


@pytest.mark.parametrize("phi", [1, 7, 409_600])
def test_with_phi_every_token_weighs_the_same_whatever_the_lengths(phi: int):
    weights = {
        w for seed in range(5) for w in token_weights(ragged(seed), "token", divisor("phi", ragged(seed), phi, 0))
    }
    assert weights == {1 / phi}


def test_sums_and_means_over_segments():
    values, _, _, segments = flat(6)
    for s in range(12):
        own = [v for v, other in zip(values.tolist(), segments.tolist(), strict=True) if other == s]
        at = int((segments == s).nonzero()[0])
        assert float(segment_sum(values, segments)[at]) == pytest.approx(math.fsum(own), abs=1e-10)
        assert float(segment_mean(values, segments)[at]) == pytest.approx(math.fsum(own) / len(own), abs=1e-10)
    empty = torch.zeros(0)
    assert segment_mean(empty, empty.long()).shape == (0,)
