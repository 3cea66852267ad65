"""The same loss as TRL on the same numbers, where TRL has it. Skipped only where TRL is not installed."""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ringrl.algo.loss import divisor, kl_terms, log_ratio, surrogate, token_weights
from ringrl.config.loss import Loss
from ringrl.types import Completion, Prompt, Sample, all_of

pytest.importorskip("trl")
B, T, LONGEST = 6, 9, 40  # responses, padded length, TRL's max_completion_length
LENGTHS = [9, 1, 4, 7, 2, 5]


def tensors(seed: int, spread: float) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    old = -torch.rand(B, T, generator=g, dtype=torch.float64) * 3
    mask = torch.arange(T)[None] < torch.tensor(LENGTHS)[:, None]
    return {
        "old": old,
        "new": old + spread * torch.randn(B, T, generator=g, dtype=torch.float64),
        "ref": old + 0.3 * torch.randn(B, T, generator=g, dtype=torch.float64),
        "A": torch.randn(B, generator=g, dtype=torch.float64),
        "mask": mask,
    }


def trl_loss(x: dict[str, torch.Tensor], kind: str, level: str, low: float, high: float, beta: float, unbiased: bool):
    """TRL's own loss method on a stand-in that has what the method reads, and the gradient of the log-probs."""
    from trl.trainer.grpo_trainer import GRPOTrainer

    new = x["new"].clone().requires_grad_()
    accelerator = SimpleNamespace(num_processes=1, gather=lambda t: t, reduce=lambda t, reduction: t,
                                  gather_for_metrics=lambda t: t, sync_gradients=True)  # fmt: skip
    trainer: Any = SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *a, **k: (new, torch.zeros(B, T, dtype=torch.float64), None),
        model=SimpleNamespace(training=True), aux_loss_enabled=False, top_entropy_quantile=1.0,
        off_policy_mask_threshold=None, importance_sampling_level=level, beta=beta, loss_type=kind,
        args=SimpleNamespace(use_bias_correction_kl=unbiased, delta=None, steps_per_generation=1),
        epsilon_low=low, epsilon_high=high, use_vllm=False, current_gradient_accumulation_steps=1,
        max_completion_length=LONGEST, accelerator=accelerator, _metrics=defaultdict(lambda: defaultdict(list)),
        _entropy_bonus_enabled=False, vllm_importance_sampling_correction=False,
    )  # fmt: skip
    ids = torch.zeros(B, T, dtype=torch.long)
    inputs = {"prompt_ids": ids[:, :1], "prompt_mask": ids[:, :1], "completion_ids": ids,
              "completion_mask": x["mask"].long(), "advantages": x["A"], "old_per_token_logps": x["old"],
              "ref_per_token_logps": x["ref"], "num_items_in_batch": x["mask"].sum()}  # fmt: skip
    value = GRPOTrainer._compute_loss(trainer, None, inputs)
    value.backward()
    return value.detach(), new.grad


def our_loss(x: dict[str, torch.Tensor], loss: Loss) -> tuple[torch.Tensor, torch.Tensor]:
    new = x["new"].clone().requires_grad_()
    prompt = Prompt("", "math", (1,), {})
    completions = [Completion((0,) * n, (0.0,) * n, "stop", 0) for n in LENGTHS]
    samples = [Sample(prompt, c, 0.0, 0.0, all_of(n)) for c, n in zip(completions, LENGTHS, strict=True)]
    weights = torch.tensor(
        token_weights(samples, loss.weight, divisor(loss.denominator, samples, 0, B * LONGEST)), dtype=torch.float64
    )
    m = x["mask"]
    row = torch.arange(B)[:, None].expand(B, T)[m]
    log_rho = log_ratio(new[m], x["old"][m], row, loss.ratio)
    terms = surrogate(log_rho, new[m], x["A"][row], loss.clip, loss.clip_low, loss.clip_high).surrogate
    kl = kl_terms(loss.kl_estimator, new[m], x["ref"][m], x["old"][m])
    value = (weights[row] * (terms + loss.kl * kl)).sum()
    value.backward()
    return value.detach(), new.grad


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("kind", "level", "low", "high", "spread", "more"),
    [
        ("grpo", "token", 0.2, 0.2, 0.3, {"method": "grpo", "kl": 0.0}),
        ("grpo", "token", 0.2, 0.2, 0.3, {"method": "grpo", "kl": 0.04}),
        ("grpo", "token", 0.2, 0.2, 0.3, {"method": "grpo", "kl": 0.04, "kl_estimator": "unbiased"}),
        ("dr_grpo", "token", 0.2, 0.2, 0.3, {"method": "dr_grpo"}),
        ("dapo", "token", 0.2, 0.28, 0.3, {"method": "dapo"}),
        ("cispo", "token", 0.0, 6.0, 1.5, {"method": "cispo"}),  # TRL bounds the ratio itself: 1 + 5
        ("grpo", "sequence", 3e-4, 4e-4, 1e-3, {"method": "gspo"}),
    ],
    ids=lambda v: str(v) if isinstance(v, str) else None,
)
def test_value_and_gradient_are_trls(
    kind: str, level: str, low: float, high: float, spread: float, more: dict[str, Any], seed: int
):
    loss, x = Loss(**more), tensors(seed, spread)
    value, grad = trl_loss(x, kind, level, low, high, loss.kl, loss.kl_estimator == "unbiased")
    ours, our_grad = our_loss(x, loss)
    torch.testing.assert_close(ours, value, rtol=0, atol=1e-10)
    torch.testing.assert_close(our_grad, grad, rtol=0, atol=1e-10)
    assert float(grad.abs().max()) > 1e-4


def test_on_policy_rloo_has_trls_gradient():
    """TRL writes RLOO with a clipped sequence ratio; where the ratio is one, both are REINFORCE."""
    from trl.trainer.rloo_trainer import RLOOTrainer

    x = {**tensors(0, 0.0)}
    x["new"] = x["old"]
    new = x["old"].clone().requires_grad_()
    accelerator = SimpleNamespace(gather=lambda t: t, reduce=lambda t, reduction: t)
    trainer: Any = SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *a, **k: (new, torch.zeros(B, T, dtype=torch.float64), None),
        model=SimpleNamespace(training=True), aux_loss_enabled=False, epsilon_low=0.2, epsilon_high=0.2,
        accelerator=accelerator, _metrics=defaultdict(lambda: defaultdict(list)),
    )  # fmt: skip
    ids = torch.zeros(B, T, dtype=torch.long)
    inputs = {"prompt_ids": ids[:, :1], "prompt_mask": ids[:, :1], "completion_ids": ids,
              "completion_mask": x["mask"].long(), "advantages": x["A"],
              "old_logps": (x["old"] * x["mask"]).sum(1)}  # fmt: skip
    RLOOTrainer._compute_loss(trainer, None, inputs).backward()
    _, grad = our_loss(x, Loss(method="rloo"))
    torch.testing.assert_close(grad, new.grad, rtol=0, atol=1e-10)
    assert float(grad.abs().max()) > 1e-3
