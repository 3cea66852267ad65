"""Every named method against its published formula, from the rewards on: value, gradient, and the numbers it has."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch

from ringrl.algo.advantage import group_relative
from ringrl.algo.budget import fill_budget
from ringrl.algo.loss import divisor, kl_terms, log_ratio, surrogate, token_weights
from ringrl.config.loss import PRESETS, Loss
from ringrl.types import Completion, Group, Prompt, ScoredGroup
from tests.algo import plain

PHI, PROMPT = 61, (1, 2)

FORMULAS: dict[str, Callable[[plain.Batch, plain.Batch], float]] = {
    "c3po": lambda b, at: plain.c3po(b, at, PHI),
    "grpo": plain.grpo,
    "dr_grpo": plain.dr_grpo,
    "dapo": plain.dapo,
    "gspo": plain.gspo,
    "gspo_token": plain.gspo_token,
    "cispo": plain.cispo,
    "rloo": plain.rloo,
}
SPREAD = {"gspo": 2e-3, "gspo_token": 2e-3, "cispo": 1.5}  # of log π_θ around log π_old, so that clips are met


def scored(b: plain.Batch) -> list[ScoredGroup]:
    out = []
    for i, group in enumerate(b):
        completions = tuple(Completion(tuple(range(len(y["new"]))), tuple(y["sampler"]), "stop", 0) for y in group)
        rewards, none = tuple(y["reward"] for y in group), ("",) * len(group)
        out.append(ScoredGroup(Group(Prompt(str(i), "math", PROMPT, {}), completions), none, rewards, none, none))
    return out


def ours(b: plain.Batch, loss: Loss) -> tuple[torch.Tensor, torch.Tensor, int]:
    """The policy and KL terms under the dials, the log-probs to differentiate by, and how many were clipped."""
    samples = group_relative(scored(b), loss.advantage, loss.overlong_buffer, plain.ROOM + len(PROMPT))
    most = len(samples) * plain.ROOM
    if loss.denominator == "phi":
        samples = fill_budget(samples, PHI)
    weights = token_weights(samples, loss.weight, divisor(loss.denominator, samples, PHI, most))
    flat = [y for group in b for y in group]
    rows = [(i, s, flat[i], t) for i, s in enumerate(samples) for t in range(s.num_trained)]
    new, old, ref = (torch.tensor([y[k][t] for *_, y, t in rows], dtype=torch.float64) for k in ("new", "old", "ref"))
    new.requires_grad_()
    segments = torch.tensor([i for i, *_ in rows])
    advantages = torch.tensor([s.advantage for _, s, *_ in rows], dtype=torch.float64)
    log_rho = log_ratio(new, old, segments, loss.ratio)
    terms = surrogate(log_rho, new, advantages, loss.clip, loss.clip_low, loss.clip_high)
    kl = kl_terms(loss.kl_estimator, new, ref, old)
    w = torch.tensor(weights, dtype=torch.float64)[segments]
    return (w * (terms.surrogate + loss.kl * kl)).sum(), new, int(terms.clipped.sum())


def numeric_gradient(f: Callable[[plain.Batch, plain.Batch], float], b: plain.Batch, h: float) -> list[float]:
    out = []
    for i, j, t in [(i, j, t) for i, group in enumerate(b) for j, y in enumerate(group) for t in range(len(y["new"]))]:
        values = []
        for step in (h, -h):
            moved = copy.deepcopy(b)
            moved[i][j]["new"][t] += step
            values.append(f(moved, b))
        out.append((values[0] - values[1]) / (2 * h))
    return out


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("method", FORMULAS)
def test_the_loss_is_the_published_one(method: str, seed: int):
    b = plain.batch(seed, spread=SPREAD.get(method, 0.3))
    value, new, clipped = ours(b, Loss(method=method))
    assert float(value.detach()) == pytest.approx(FORMULAS[method](b, b), abs=1e-10)
    assert 0 < clipped < len(new) or method == "rloo"


@pytest.mark.parametrize("method", FORMULAS)
def test_the_gradient_is_that_of_the_published_formula(method: str):
    b = plain.batch(7, spread=SPREAD.get(method, 0.3))
    value, new, _ = ours(b, Loss(method=method))
    (grad,) = torch.autograd.grad(value, new)
    formula = plain.reinforce if method == "rloo" else FORMULAS[method]
    numeric = numeric_gradient(formula, b, h=1e-6)
    assert grad.tolist() == pytest.approx(numeric[: len(new)], abs=1e-8)
    assert numeric[len(new) :] == [0.0] * (plain.tokens(b) - len(new))  # what the budget left out
    assert (len(new) == PHI < plain.tokens(b)) == (method == "c3po")
    assert float(grad.abs().max()) > 1e-4


@pytest.mark.parametrize("seed", range(3))
def test_gspo_token_has_gspos_value_and_gradient(seed: int):
    """With one advantage for all tokens of a response the token form is the sequence form."""
    (a, x, _), (b, y, _) = (ours(plain.batch(seed, spread=1e-3), Loss(method=m)) for m in ("gspo", "gspo_token"))
    torch.testing.assert_close(b, a, rtol=0, atol=1e-12)
    torch.testing.assert_close(torch.autograd.grad(b, y), torch.autograd.grad(a, x), rtol=0, atol=1e-12)


COLUMNS = ["advantage", "ratio", "clip", "clip_low", "clip_high", "weight", "denominator", "kl", "entropy",
           "overlong_buffer"]  # fmt: skip
EXPECTED: dict[str, tuple[Any, ...]] = {
    "c3po": ("standardized", "token", "ppo", 0.2, 0.2, "token", "phi", 1e-3, 5e-4, 0),
    "grpo": ("standardized", "token", "ppo", 0.2, 0.2, "response", "responses", 1e-3, 0, 0),
    "dr_grpo": ("centered", "token", "ppo", 0.2, 0.2, "token", "max_tokens", 0, 0, 0),
    "dapo": ("standardized", "token", "ppo", 0.2, 0.28, "token", "tokens", 0, 0, 0.2),
    "gspo": ("standardized", "sequence", "ppo", 3e-4, 4e-4, "response", "responses", 0, 0, 0),
    "gspo_token": ("standardized", "sequence_token", "ppo", 3e-4, 4e-4, "response", "responses", 0, 0, 0),
    "cispo": ("standardized", "token", "cispo", 1, 5, "token", "tokens", 0, 0, 0),
    "rloo": ("leave_one_out", "none", "none", 0.2, 0.2, "token", "responses", 0, 0, 0),
}


@pytest.mark.parametrize("method", PRESETS)
def test_presets_carry_the_published_numbers(method: str):
    loss = Loss(method=method)
    assert tuple(getattr(loss, c) for c in COLUMNS) == EXPECTED[method]
    assert (loss.kl_estimator, loss.balance, loss.z) == ("k3", 1e-5, 1e-7)
    assert (loss.kl == 0) == (loss.reference == "none")
    assert loss.correction.method == loss.router_replay == "none"


@pytest.mark.parametrize("method", PRESETS)
def test_a_dial_that_is_set_wins_and_what_is_written_is_what_is_read(method: str):
    preset = Loss(method=method)
    given = {"advantage": "centered" if preset.advantage != "centered" else "standardized", "overlong_buffer": 0.3,
             "clip_high": 0.11, "kl": 0.5, "reference": "stage", "entropy": 0.7}  # fmt: skip
    loss = Loss(method=method, **given)
    changed = {k for k, v in loss.model_dump().items() if v != preset.model_dump()[k]}
    assert changed == set(given)
    assert {k: getattr(loss, k) for k in given} == given
    assert Loss(**loss.model_dump()) == Loss.model_validate_json(loss.model_dump_json()) == loss
