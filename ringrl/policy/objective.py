"""One C3PO update on packed rows: Eq. 1-6 over the tokens Ψ, from the pure functions in `ringrl.algo`.

    Σ_t w_t [ surrogate_t + β KL_t - α_entropy H_t + α_balance B_t + α_z Z_t ]

The weights w come with the tokens, so nothing here knows of Φ, of microbatches or of ranks.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ringrl.algo.loss import clipped_surrogate, kl_k3
from ringrl.algo.router import balance_terms, expert_counts, z_terms
from ringrl.config import Loss
from ringrl.policy.engine import Policy, to_device
from ringrl.policy.forward import PolicyModule, TokenStats
from ringrl.policy.meter import Meter
from ringrl.types import MicroBatch


@dataclass(frozen=True)
class Before:
    """What is known of one update's rows before the update, under π_old: one entry per row."""

    stats: list[TokenStats]
    reference: list[torch.Tensor]  # [n] log-probs under the reference; empty list without one
    share: torch.Tensor  # [layers, E] share of routings, over all ranks


def score_rows(policy: Policy, reference: PolicyModule | None, rows: list[MicroBatch]) -> Before:
    """Old log-probs, entropies and expert shares by the trainer itself, never the sampler's."""
    stats = policy.inspect(rows)
    with torch.no_grad():
        ref = [reference(to_device(mb, policy.device)).logprobs for mb in rows] if reference else []
    top_k = policy.module.top_k
    if not top_k:
        return Before(stats, ref, torch.zeros(0, 1))
    counts = policy.ranks.sum(torch.stack([expert_counts(s.router_logits, top_k) for s in stats]).sum(0))
    return Before(stats, ref, counts / counts.sum(-1, keepdim=True).clamp(min=1))


def update(policy: Policy, loss: Loss, rows: list[MicroBatch], before: Before, lr: float) -> dict[str, float]:
    """One optimizer step. Returns its numbers over all ranks."""
    meter, moe = Meter(), policy.module.top_k > 0

    def terms(mb: MicroBatch, stats: TokenStats, i: int) -> torch.Tensor:
        old, weights, zero = (
            before.stats[i].logprobs,
            mb.weights[mb.trained],
            torch.zeros_like(stats.logprobs),
        )
        policy_terms = clipped_surrogate(stats.logprobs, old, mb.advantages[mb.trained], loss.clip)
        kl = kl_k3(stats.logprobs, before.reference[i]) if before.reference else zero
        balance = balance_terms(stats.router_logits, before.share) if moe else zero
        z = z_terms(stats.router_logits) if moe else zero
        total = (
            policy_terms.surrogate + loss.kl * kl - loss.entropy * stats.entropy + loss.balance * balance + loss.z * z
        )
        mismatch = kl_k3(mb.sampler_logprobs[mb.trained], old)
        meter.add(
            loss=(weights * total).sum(),
            policy_loss=(weights * policy_terms.surrogate).sum(),
            kl=kl.sum(),
            entropy=stats.entropy.sum(),
            clip_frac=policy_terms.clipped.sum(),
            balance_loss=balance.sum(),
            z_loss=z.sum(),
            mismatch_kl=mismatch.sum(),
            n=mb.trained.sum(),
        )
        return total

    grad_norm = policy.update(rows, terms, lr)
    sums = meter.total(policy.ranks)
    n = max(sums.pop("n"), 1)
    whole = {"loss", "policy_loss"}  # already weighted; the others are means per trained token
    return {k: v if k in whole else v / n for k, v in sums.items()} | {"grad_norm": grad_norm, "lr": lr}
