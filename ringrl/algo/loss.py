"""One policy loss for all methods (Eq. 1, 2, 4), a sum over the trained tokens t of all responses i:

    L = Σ_t w_t [ c_t · surrogate_t(A, ρ) + β KL_t ]  - α Σ_t w_t H_t  + router terms

Five dials tell the methods apart; each named method is a setting of them (`ringrl.config.loss.PRESETS`):

    advantage     algo.advantage
    ratio  ρ_t    token            π_θ(y_t) / π_old(y_t)                                       Eq. 1
                  sequence         s_i = (π_θ(y_i) / π_old(y_i))^(1/|y_i|)                      GSPO, arXiv 2507.18071
                  sequence_token   sg[s_i] π_θ(y_t) / sg[π_θ(y_t)]                              GSPO-token
                  none             π_θ(y_t) / sg[π_θ(y_t)]: value 1, gradient of log π_θ        REINFORCE
    clip          ppo     -min(ρ A, clip(ρ, 1-ε_low, 1+ε_high) A)                               Eq. 1
                  cispo   -sg[clip(ρ, 1-ε_low, 1+ε_high)] A log π_θ                             arXiv 2506.13585
                  none    -ρ A
    weight        token: every token the same;  response: 1/|y_i|, every response the same
    denominator   phi: Φ, constant (Eq. 2);  tokens: all that are trained (DAPO);  responses: their number N (Eq. 1);
                  max_tokens: what the step could have generated, constant (Dr.GRPO)

    w_t = weight_t / denominator

The weights are computed before the loop and carried with the tokens, so the gradient depends neither on how
tokens are split into microbatches nor on how many ranks there are. c_t is the correction for the mismatch of
sampler and trainer (algo.correction); it scales terms and never the denominator.

What we do otherwise:
1. Entropy has the exploring sign. Eq. 6 adds α H to a loss that is minimised, while the text says that the term
   encourages exploration; we follow the text.
2. The KL estimator is a choice, k3 by default; the paper names none.
3. Log-ratios are clamped to ±20 before they are exponentiated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ringrl.types import Sample

MAX_LOG_RATIO = 20.0


@dataclass(frozen=True, slots=True)
class TokenTerms:
    """Per trained token, all [n]."""

    surrogate: torch.Tensor  # what is minimised, before weighting; carries the gradient
    ratio: torch.Tensor  # ρ, without gradient
    clipped: torch.Tensor  # bool: the clip took the gradient away (ppo), or capped its weight (cispo)


def token_weights(samples: Sequence[Sample], weight: str, denominator: float) -> list[float]:
    """w of each trained token of each response [len(samples)]; `denominator` as `divisor` gives it."""
    if weight == "token":
        return [1.0 / denominator] * len(samples)
    assert weight == "response", weight
    return [1.0 / (denominator * max(s.num_trained, 1)) for s in samples]


def divisor(kind: str, samples: Sequence[Sample], phi: int, max_tokens: int) -> float:
    """What one update divides by.

    Args:
        samples: all responses of the update, over all ranks and microbatches.
        phi: its token budget Φ.
        max_tokens: the most tokens that its prompts and samples could have made.
    """
    if kind == "tokens":
        return max(sum(s.num_trained for s in samples), 1)
    if kind == "responses":
        return max(len(samples), 1)
    return {"phi": phi, "max_tokens": max_tokens}[kind]


def segment_sum(values: torch.Tensor, segments: torch.Tensor) -> torch.Tensor:
    """Sum of values [n] over the tokens of the same response, on each of its tokens [n].

    segments [n] int64: which response a token belongs to.
    """
    count = int(segments.max()) + 1 if len(segments) else 0
    return values.new_zeros(count).index_add(0, segments, values)[segments]


def segment_mean(values: torch.Tensor, segments: torch.Tensor) -> torch.Tensor:
    return segment_sum(values, segments) / segment_sum(torch.ones_like(values), segments)


def log_ratio(logprobs: torch.Tensor, old: torch.Tensor, segments: torch.Tensor, level: str) -> torch.Tensor:
    """log ρ [n], clamped to ±20; logprobs, old [n] float, segments [n] int64. Gradients through `logprobs` only."""
    plain = logprobs - old
    if level == "sequence":
        plain = segment_mean(plain, segments)
    elif level == "sequence_token":
        plain = segment_mean(plain.detach(), segments) + logprobs - logprobs.detach()
    elif level == "none":
        plain = logprobs - logprobs.detach()
    else:
        assert level == "token", level
    return plain.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)


def surrogate(
    log_rho: torch.Tensor, logprobs: torch.Tensor, advantages: torch.Tensor, clip: str, low: float, high: float
) -> TokenTerms:
    """The policy term of each token, all [n].

    Args:
        log_rho: from `log_ratio`.
        low, high: ε_low, ε_high; the ratio is bounded to [1 - low, 1 + high].
    """
    ratio = log_rho.exp()
    plain = ratio * advantages
    if clip == "none":
        return TokenTerms(-plain, ratio.detach(), torch.zeros_like(ratio, dtype=torch.bool))
    bounded = ratio.clamp(1 - low, 1 + high)
    if clip == "cispo":
        capped = bounded.detach()
        return TokenTerms(-capped * advantages * logprobs, ratio.detach(), (capped != ratio).detach())
    assert clip == "ppo", clip
    clipped = (bounded * advantages < plain).detach()
    return TokenTerms(-torch.minimum(plain, bounded * advantages), ratio.detach(), clipped)


def kl_terms(estimator: str, logprobs: torch.Tensor, reference: torch.Tensor, old: torch.Tensor) -> torch.Tensor:
    """Per-token estimates [n] of KL(π_θ || π_ref) from tokens of π_old, with d = log π_ref - log π_θ:

    k1   -d              unbiased value; as a loss its expected gradient is zero
    k2   d² / 2          biased value; its gradient is that of the KL
    k3   e^d - d - 1     unbiased value, never negative
    unbiased   (π_θ / π_old) (e^d - d - 1)      value and gradient unbiased off-policy (DeepSeek-V3.2)
    """
    d = (reference - logprobs).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    if estimator == "k1":
        return -d
    if estimator == "k2":
        return d.square() / 2
    k3 = d.exp() - d - 1
    if estimator == "k3":
        return k3
    assert estimator == "unbiased", estimator
    return (logprobs - old).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp() * k3
