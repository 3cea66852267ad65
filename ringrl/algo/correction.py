"""Corrections for a sampler μ whose probabilities are not the trainer's, from ρ_t = π_old(y_t) / μ(y_t):

    tis            c_t = min(ρ_t, high)                                      truncated importance sampling
    token_mis      c_t = ρ_t 1[low <= ρ_t <= high]                           masked importance sampling
    icepop         c_t = ρ_t 1[low <= ρ_t <= high]                           IcePop (arXiv 2510.18855), (0.5, 5)
    kpop           c_t = 1[D(π‖μ) <= high] 1[D(μ‖π) <= high]                 KPop (arXiv 2606.15079)
                   D(p‖q) = p log(p/q) + (1-p) log((1-p)/(1-q))              the sampled token against all others
    sequence_mis   c_t = R_i 1[low <= R_i <= high],   R_i = Π_t ρ_t
    geometric      c_t = 1[low <= R_i^(1/|y_i|) <= high]                     length-free rejection

c is constant in θ: both policies are those at the time of the rollout. A token with c = 0 keeps its place in the
denominator of the loss. Log-ratios are clamped to ±20, so the worst token cannot overflow a product's mask.
"""

from __future__ import annotations

import torch

from ringrl.algo.loss import MAX_LOG_RATIO, segment_mean, segment_sum


def correction(
    method: str, old: torch.Tensor, sampler: torch.Tensor, segments: torch.Tensor, low: float, high: float
) -> torch.Tensor:
    """c_t [n] of each trained token, 0 where it is masked, without gradient.

    Args:
        old, sampler: [n] float, log-probs of the tokens under π_old and μ.
        segments: [n] int64, which response a token belongs to.
    """
    if method == "none":
        return torch.ones_like(old)
    gap = (old - sampler).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).detach()
    if method == "kpop":
        worst = torch.maximum(binary_kl(old.detach(), sampler), binary_kl(sampler, old.detach()))
        return (worst <= high).to(old.dtype)
    if method == "geometric":
        mean = segment_mean(gap, segments).exp()
        return ((mean >= low) & (mean <= high)).to(old.dtype)
    if method == "sequence_mis":
        gap = segment_sum(gap, segments).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    rho = gap.exp()
    if method == "tis":
        return rho.clamp(max=high)
    assert method in ("token_mis", "icepop", "sequence_mis"), method
    return rho * ((rho >= low) & (rho <= high))


def binary_kl(logp: torch.Tensor, logq: torch.Tensor) -> torch.Tensor:
    """D(p‖q) of two Bernoulli distributions given by the log-probs [n] of one outcome."""
    p = logp.exp()
    return p * (logp - logq) + (1 - p) * (_log_rest(logp) - _log_rest(logq))


def _log_rest(logp: torch.Tensor) -> torch.Tensor:
    """log(1 - p), finite also at p = 1."""
    return torch.log((-torch.expm1(logp)).clamp(min=torch.finfo(logp.dtype).tiny))
