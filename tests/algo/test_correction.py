"""Corrections of the mismatch between sampler and trainer against plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ringrl.algo.correction import binary_kl, correction
from ringrl.config.loss import BOUNDS, Correction
from tests.algo import plain

ALL = [m for m in BOUNDS if m != "none"]


def expected(y: plain.Response, method: str, low: float, high: float) -> list[float]:
    rho = [math.exp(o - s) for o, s in zip(y["old"], y["sampler"], strict=True)]
    if method == "tis":
        return [min(r, high) for r in rho]
    if method == "token_mis":
        return [r if r <= high else 0.0 for r in rho]
    if method == "icepop":
        return [r if low <= r <= high else 0.0 for r in rho]
    if method == "kpop":

        def d(p: float, q: float) -> float:
            return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))

        pairs = [(math.exp(o), math.exp(s)) for o, s in zip(y["old"], y["sampler"], strict=True)]
        return [float(d(p, q) <= high and d(q, p) <= high) for p, q in pairs]
    product = math.prod(rho)
    if method == "sequence_mis":
        return [product if product <= high else 0.0] * len(rho)
    assert method == "geometric"
    return [float(low <= product ** (1 / len(rho)) <= high)] * len(rho)


def batch(seed: int, gap: float) -> list[plain.Response]:
    return [y for group in plain.batch(seed, gap=gap) for y in group]


def got(y: list[plain.Response], method: str, low: float, high: float) -> torch.Tensor:
    old, sampler = (torch.tensor([x for r in y for x in r[k]], dtype=torch.float64) for k in ("old", "sampler"))
    segments = torch.tensor([i for i, r in enumerate(y) for _ in r["old"]])
    result = correction(method, old.requires_grad_(), sampler, segments, low, high)
    assert not result.requires_grad
    return result


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("method", "low", "high", "gap"),
    [
        ("tis", 0.7, 2, 1.0),
        ("token_mis", 0, 2, 1.0),
        ("icepop", 0.5, 5, 1.0),
        ("icepop", 0.9, 1.1, 0.1),
        ("kpop", 0, 0.05, 0.5),
        ("sequence_mis", 0, 1.2, 0.4),
        ("geometric", 0.9, 1.1, 0.3),
    ],
)
def test_corrections_equal_the_loop(method: str, low: float, high: float, gap: float, seed: int):
    y = batch(seed, gap)
    want = [x for r in y for x in expected(r, method, low, high)]
    result = got(y, method, low, high)
    np.testing.assert_allclose(result, want, rtol=0, atol=1e-10)
    if method != "tis":
        assert 0 < sum(x == 0 for x in want) < len(want)


@pytest.mark.parametrize("method", ALL)
def test_a_sampler_that_agrees_needs_no_correction(method: str):
    y = batch(0, 0.0)
    assert torch.equal(got(y, method, *BOUNDS[method]), torch.ones(sum(len(r["old"]) for r in y), dtype=torch.float64))


def test_none_is_one():
    assert set(got(batch(0, 1.0), "none", 0, 0).tolist()) == {1.0}


@pytest.mark.parametrize("method", ALL)
def test_certain_and_impossible_tokens_stay_finite(method: str):
    old, sampler = torch.tensor([0.0, -1e4, 0.0, -1e-9]), torch.tensor([-1e4, 0.0, 0.0, -1e-9])
    result = correction(method, old, sampler, torch.tensor([0, 1, 2, 3]), *BOUNDS[method])
    assert result.isfinite().all()
    assert result[2:].tolist() == [1.0, 1.0]


def test_the_product_over_a_long_response_is_masked_before_it_overflows():
    old, sampler = torch.zeros(50), torch.full((50,), -15.0)  # e^750
    segments = torch.tensor([0] * 49 + [1])
    assert correction("sequence_mis", old, sampler, segments, 0.0, 1e7).tolist() == pytest.approx(
        [0.0] * 49 + [math.exp(15)], rel=1e-6
    )


def test_the_binary_divergence_in_single_precision():
    p, q = torch.tensor([0.9999, 0.3]), torch.tensor([0.999, 0.6])
    wide = binary_kl(p.double().log(), q.double().log())
    torch.testing.assert_close(binary_kl(p.log(), q.log()).double(), wide, rtol=1e-2, atol=1e-6)


def test_bounds_are_the_methods_own_unless_given():
    own = {"tis": (0, 2), "token_mis": (0, 2), "icepop": (0.5, 5), "kpop": (0, 2), "sequence_mis": (0, 2),
           "geometric": (0.999, 1.002)}  # fmt: skip
    found = {m: Correction(method=m) for m in ALL}
    assert {m: (c.low, c.high) for m, c in found.items()} == own
    assert all(Correction(**c.model_dump()) == c for c in found.values())
    given = Correction(method="icepop", high=3)
    assert (given.low, given.high) == (0.5, 3)
