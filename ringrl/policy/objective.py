"""One update on packed rows, from the pure functions in `ringrl.algo`: Eq. 1-6 over the tokens Ψ.

    Σ_t w_t [ c_t surrogate_t + β KL_t - α_entropy H_t + α_balance B_t + α_z Z_t ]

The weights w come with the tokens, so nothing here knows of Φ, of microbatches or of ranks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from ringrl.algo.budget import top_tokens
from ringrl.algo.correction import correction
from ringrl.algo.loss import kl_terms, log_ratio, surrogate
from ringrl.algo.router import balance_terms, expert_counts, load, router_entropy, shares, z_terms
from ringrl.config.loss import Loss
from ringrl.policy.engine import Policy
from ringrl.policy.forward import PolicyModule, TokenStats, to_device
from ringrl.policy.meter import Meter
from ringrl.types import MicroBatch

WEIGHTED = {"loss", "policy_loss"}  # weighted sums; all other numbers are means per trained token


@dataclass(frozen=True)
class Before:
    """One update's rows and what is known of them before it: one entry per row."""

    rows: list[MicroBatch]
    trainer: list[torch.Tensor]  # [n] log-probs by the trainer before the first update; empty: those of the update's
    # own forward pass
    reference: list[torch.Tensor]  # [n] log-probs under the reference; empty without one
    share: torch.Tensor  # [layers, E] share of routings f of a whole batch; no layers when f is a microbatch's
    routes: list[torch.Tensor]  # [layers, B L, top_k] experts to replay; empty without replay
    kept: torch.Tensor  # [candidates of all ranks, rank by rank] bool, which `best` kept trained; empty without it


def score_rows(
    policy: Policy,
    loss: Loss,
    reference: PolicyModule | None,
    rows: list[MicroBatch],
    previous: torch.Tensor,
    moves: bool = False,
    best: int = 0,
) -> Before:
    """Everything about `rows` that does not depend on the update. Costs a forward pass over them only when something is
    wanted that the update's own cannot give.

    Args:
        previous: [layers, E] f of the update before; no layers before the first, for which it is counted.
        moves: another update will come before that on these rows, so that their π_old is not its own forward pass.
        best: keep this many tokens, those with the largest |A| H over all rows and ranks (D3S); 0 keeps all.
    """
    moe = policy.module.moe
    routes = [_engine_routes(mb) for mb in rows] if loss.router_replay == "engine" and moe else []
    share = previous if loss.balance_over == "previous" else torch.zeros(0, 1)
    counting = moe and loss.balance > 0 and loss.balance_over != "microbatch" and not len(share)
    stats: list[TokenStats] = []
    kept = torch.zeros(0, dtype=torch.bool)
    if (loss.old_logprobs == "trainer" and moves) or loss.router_replay == "trainer" or counting or best:
        stats = policy.inspect(rows, routes)
        if best:
            rows, stats, kept = keep_best(policy, rows, stats, best)
        if counting:
            share = shares(policy.ranks.sum(torch.stack([_counts(s) for s in stats]).sum(0)))
        if loss.router_replay == "trainer" and moe:
            routes = [s.routes for s in stats]
    with torch.no_grad():
        references = [reference(to_device(mb, policy.device)).logprobs for mb in rows] if reference else []
    return Before(rows, [s.logprobs for s in stats], references, share, routes, kept)


def update(policy: Policy, loss: Loss, before: Before, lr: float, alpha: float) -> tuple[dict[str, Any], torch.Tensor]:
    """One optimizer step; `alpha` is the coefficient of the entropy bonus.

    Returns:
        Its numbers over all ranks, and the share of routings [layers, E] in it; no layers for a dense model.
    """
    meter, moe, scoring = Meter(), policy.module.moe, policy.module.routers.scoring
    counted: list[torch.Tensor] = []

    def terms(mb: MicroBatch, stats: TokenStats, i: int) -> torch.Tensor:
        weights, zero = mb.weights[mb.trained], torch.zeros_like(stats.logprobs)
        segments, advantages = mb.segments[mb.trained], mb.advantages[mb.trained]
        sampler = mb.sampler_logprobs[mb.trained]
        trainer = before.trainer[i] if before.trainer else stats.logprobs.detach()
        old = trainer if loss.old_logprobs == "trainer" else sampler

        log_rho = log_ratio(stats.logprobs, old, segments, loss.ratio)
        policy_term = surrogate(log_rho, stats.logprobs, advantages, loss.clip, loss.clip_low, loss.clip_high)
        c = correction(loss.correction.method, old, sampler, segments, loss.correction.low, loss.correction.high)
        corrected = c * policy_term.surrogate
        kl = kl_terms(loss.kl_estimator, stats.logprobs, before.reference[i], old) if before.reference else zero
        total = corrected + loss.kl * kl - alpha * stats.entropy
        if moe:
            counted.append(_counts(stats))
            share = before.share.to(zero.device) if len(before.share) else shares(counted[-1])
            balance, z = balance_terms(stats.router_logits, share, scoring), z_terms(stats.router_logits)
            total = total + loss.balance * balance + loss.z * z
            meter.add(balance_loss=balance.sum(), z_loss=z.sum())
            meter.add(router_entropy=router_entropy(stats.router_logits.detach(), scoring).sum())
        good, bad = advantages > 0, advantages < 0
        meter.add(
            loss=(weights * total).sum(),
            policy_loss=(weights * corrected).sum(),
            kl=kl.sum(),
            entropy=stats.entropy.sum(),
            clip_frac=policy_term.clipped.sum(),
            clipped_good=(policy_term.clipped & good).sum(),
            clipped_bad=(policy_term.clipped & bad).sum(),
            good=good.sum(),
            bad=bad.sum(),
            masked_frac=(c == 0).sum(),
            mismatch_kl=kl_terms("k3", sampler, trainer, sampler).sum(),
            n=mb.trained.sum(),
        )
        meter.peak(ratio_max=policy_term.ratio, ratio_min=-policy_term.ratio)
        return total

    grad_norm = policy.update(before.rows, terms, lr, before.routes)
    numbers = _numbers(meter, policy) | {"grad_norm": grad_norm, "lr": lr, "entropy_coefficient": alpha}
    if moe:
        counts = policy.ranks.sum(torch.stack(counted).sum(0))
        loads = load(counts).tolist()
        return numbers | {"expert_load": loads, "expert_load_max": max(loads)}, shares(counts)
    return numbers | {"balance_loss": 0.0, "z_loss": 0.0}, torch.zeros(0, 1)


def keep_best(
    policy: Policy, rows: list[MicroBatch], stats: list[TokenStats], count: int
) -> tuple[list[MicroBatch], list[TokenStats], torch.Tensor]:
    """Only the `count` tokens with the largest |A| H over all rows and ranks stay trained. A collective.

    Returns:
        This rank's rows, their statistics, and which of all ranks' tokens stayed, rank by rank.
    """
    advantages = [mb.advantages.to(s.entropy.device)[mb.trained] for mb, s in zip(rows, stats, strict=True)]
    scores = torch.cat([a.abs() * s.entropy for a, s in zip(advantages, stats, strict=True)]).cpu()
    by_rank: list[torch.Tensor] = policy.ranks.gather(scores)
    kept = top_tokens(torch.cat(by_rank), count)
    keep = kept.split([len(x) for x in by_rank])[policy.ranks.rank]
    kept_rows, kept_stats = [], []
    for mb, s, k in zip(rows, stats, keep.split([len(s.entropy) for s in stats]), strict=True):
        trained = mb.trained.clone()
        trained[mb.trained] = k
        kept_rows.append(replace(mb, trained=trained, weights=mb.weights * trained))
        k = k.to(s.logprobs.device)
        kept_stats.append(replace(s, logprobs=s.logprobs[k], entropy=s.entropy[k],
                                  router_logits=s.router_logits[:, k], chosen=s.chosen[:, k]))  # fmt: skip
    return kept_rows, kept_stats, kept


def _numbers(meter: Meter, policy: Policy) -> dict[str, float]:
    sums, peaks = meter.total(policy.ranks), meter.peaks(policy.ranks)
    tokens = round(sums.pop("n"))
    n = max(tokens, 1)
    by_sign = {
        "clip_frac_good": sums.pop("clipped_good") / max(sums.pop("good"), 1),
        "clip_frac_bad": sums.pop("clipped_bad") / max(sums.pop("bad"), 1),
    }
    means = {k: v if k in WEIGHTED else v / n for k, v in sums.items()}
    ratios = {"ratio_max": peaks["ratio_max"], "ratio_min": -peaks["ratio_min"]} if tokens else {}
    return {
        "tokens_trained": tokens,
        "updated": tokens > 0,
        **means,
        **by_sign,
        "ratio_max": 1.0,
        "ratio_min": 1.0,
        **ratios,
    }


def _counts(stats: TokenStats) -> torch.Tensor:
    return expert_counts(stats.chosen, stats.router_logits.shape[-1])


def _engine_routes(mb: MicroBatch) -> torch.Tensor:
    """[layers, B L, top_k] experts that the engine took, -1 where it reported none."""
    return mb.routes.flatten(0, 1).transpose(0, 1)
