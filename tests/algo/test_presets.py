"""Every named method against its published formula: value, gradient, and the numbers that come with it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch

from ringrl.algo.budget import fill_budget
from ringrl.algo.loss import divisor, kl_terms, log_ratio, surrogate, token_weights
from ringrl.dials import PRESETS, Loss
from ringrl.types import Completion, Prompt, Sample
from tests.algo import plain
from tests.algo.plain import Response

PHI, MOST = 31, 9 * 40


def samples_of(batch: list[Response]) -> list[Sample]:
    out = []
    for i, y in enumerate(batch):
        completion = Completion(tuple(range(len(y["new"]))), tuple(y["sampler"]), "stop", 0)
        out.append(Sample(Prompt(str(i), "math", (1,), {}), completion, 0.0, y["A"], len(y["new"])))
    return out


def ours(batch: list[Response], loss: Loss) -> tuple[torch.Tensor, torch.Tensor]:
    """The whole loss under the dials, and the log-probs to differentiate by, flat."""
    samples = samples_of(batch)
    if loss.denominator == "phi":
        samples = fill_budget(samples, PHI)
    cut = [(y, s.num_trained) for y, s in zip(batch, samples, strict=False)]
    weights = token_weights(samples, loss.weight, divisor(loss.denominator, samples, PHI, MOST))
    flat = {k: torch.tensor([x for y, n in cut for x in y[k][:n]], dtype=torch.float64) for k in ("new", "old", "ref")}
    new = flat["new"].requires_grad_()
    segments = torch.tensor([i for i, (_, n) in enumerate(cut) for _ in range(n)])
    advantages = torch.tensor([y["A"] for y, n in cut for _ in range(n)], dtype=torch.float64)
    w = torch.tensor([w for w, (_, n) in zip(weights, cut, strict=True) for _ in range(n)], dtype=torch.float64)
    log_rho = log_ratio(new, flat["old"], segments, loss.ratio)
    terms = surrogate(log_rho, new, advantages, loss.clip, loss.clip_low, loss.clip_high).surrogate
    kl = kl_terms(loss.kl_estimator, new, flat["ref"], flat["old"])
    return (w * (terms + loss.kl * kl)).sum(), new


def numeric_gradient(f: Callable[[list[Response]], float], batch: list[Response], h: float = 1e-6) -> list[float]:
    out = []
    for i, y in enumerate(batch):
        for t in range(len(y["new"])):
            values = []
            for sign in (1, -1):
                moved = copy.deepcopy(batch)
                moved[i]["new"][t] += sign * h
                values.append(f(moved))
            out.append((values[0] - values[1]) / (2 * h))
    return out


FORMULAS: dict[str, Callable[[list[Response]], float]] = {
    "c3po": lambda b: plain.c3po(b, PHI, beta=1e-3),
    "grpo": lambda b: plain.grpo(b, beta=1e-3),
    "dr_grpo": lambda b: plain.dr_grpo(b, MOST),
    "dapo": plain.dapo,
    "gspo": plain.gspo,
    "cispo": plain.cispo,
}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("method", FORMULAS)
def test_the_loss_is_the_published_one(method: str, seed: int):
    batch = plain.responses(seed, spread=1e-3 if method == "gspo" else 0.3)
    value, _ = ours(batch, Loss(method=method))
    assert float(value.detach()) == pytest.approx(FORMULAS[method](batch), abs=1e-10)


@pytest.mark.parametrize("method", FORMULAS)
def test_the_gradient_is_that_of_the_published_formula(method: str):
    batch = plain.responses(7, spread=1e-3 if method == "gspo" else 0.3)
    value, new = ours(batch, Loss(method=method))
    value.backward()
    formula = FORMULAS[method]
    if method == "cispo":  # its ratio is stopped
        fixed = [plain.ratios(y) for y in batch]
        formula = lambda b: plain.cispo(b, fixed)  # noqa: E731
    numeric = numeric_gradient(formula, batch, h=1e-7 if method == "gspo" else 1e-6)
    assert new.grad is not None
    assert new.grad.tolist() == pytest.approx(numeric[: len(new)], abs=1e-7)
    assert float(new.grad.abs().max()) > 1e-4


def test_reinforce_with_leave_one_out_has_the_gradient_of_its_formula():
    batch = plain.responses(3)
    value, new = ours(batch, Loss(method="rloo"))
    value.backward()
    assert new.grad is not None
    assert new.grad.tolist() == pytest.approx(numeric_gradient(plain.rloo, batch), abs=1e-8)


@pytest.mark.parametrize("seed", range(3))
def test_gspo_token_has_gspos_value_and_gradient(seed: int):
    """With one advantage for all tokens of a response the token form is the sequence form."""
    batch = plain.responses(seed, spread=1e-3)
    results = [ours(batch, Loss(method=m)) for m in ("gspo", "gspo_token")]
    for value, _ in results:
        value.backward()
    (a, x), (b, y) = results
    torch.testing.assert_close(b, a, rtol=0, atol=1e-12)
    torch.testing.assert_close(y.grad, x.grad, rtol=0, atol=1e-12)


EXPECTED: dict[str, dict[str, Any]] = {
    "c3po": {"advantage": "standardized", "clip_low": 0.2, "clip_high": 0.2, "kl": 1e-3, "entropy": 5e-4,
             "balance": 1e-5, "z": 1e-7, "denominator": "phi", "weight": "token"},
    "grpo": {"advantage": "standardized", "clip_low": 0.2, "clip_high": 0.2, "denominator": "responses", "entropy": 0},
    "dr_grpo": {"advantage": "centered", "denominator": "max_tokens", "kl": 0},
    "dapo": {"clip_low": 0.2, "clip_high": 0.28, "denominator": "tokens", "overlong_buffer": 0.2, "kl": 0},
    "gspo": {"ratio": "sequence", "clip_low": 3e-4, "clip_high": 4e-4, "denominator": "responses", "kl": 0},
    "gspo_token": {"ratio": "sequence_token", "clip_low": 3e-4, "clip_high": 4e-4},
    "cispo": {"clip": "cispo", "clip_low": 1.0, "clip_high": 5.0, "denominator": "tokens"},
    "rloo": {"advantage": "leave_one_out", "ratio": "none", "clip": "none", "denominator": "responses"},
}  # fmt: skip


@pytest.mark.parametrize("method", PRESETS)
def test_presets_carry_the_published_numbers(method: str):
    loss = Loss(method=method)
    assert {k: getattr(loss, k) for k in EXPECTED[method]} == EXPECTED[method]
    assert (loss.kl == 0) == (loss.reference == "none")


@pytest.mark.parametrize("method", PRESETS)
def test_a_dial_that_is_set_wins_and_what_is_written_is_what_is_read(method: str):
    loss = Loss(method=method, balance=0.5, **({"clip_low": 0.7} if method != "rloo" else {}))
    assert loss.balance == 0.5
    assert loss.clip_low == (0.7 if method != "rloo" else 0.2)
    assert Loss(**loss.model_dump()) == loss
