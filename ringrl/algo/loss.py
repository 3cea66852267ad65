"""The loss (Eq. 1, 2, 4):

    L = Σ_t w_t [ -min(r_t A_t, clip(r_t, 1-ε, 1+ε) A_t) + β KL_t ]  - α_entropy Σ_t w'_t H_t  + router terms
    r_t = π_θ(y_t) / π_old(y_t)

The method is in the weights w, computed before the loop and carried with the tokens, so that the gradient
depends neither on how tokens are split into microbatches nor on how many ranks there are:

    C3PO   w_t = 1 / Φ           Φ constant, whatever was found           (Eq. 2)
    GRPO   w_t = 1 / (N |y_i|)   N responses, |y_i| tokens of response i  (Eq. 1)

What we do otherwise:
1. Entropy has the exploring sign. Eq. 6 adds α H to a loss that is minimised, while the text says that the term
   encourages exploration; we follow the text.
2. KL is the k3 estimator exp(d) - d - 1 with d = log π_ref - log π_θ; the paper names none.
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
    ratio: torch.Tensor
    clipped: torch.Tensor  # bool: the clip took the gradient away


def token_weights(samples: Sequence[Sample], method: str, phi: int) -> list[float]:
    """Loss weight of each trained token of each response [len(samples)]."""
    if method == "c3po":
        return [1.0 / phi] * len(samples)
    assert method == "grpo", method
    return [1.0 / (len(samples) * max(s.num_trained, 1)) for s in samples]


def clipped_surrogate(
    logprobs: torch.Tensor, old_logprobs: torch.Tensor, advantages: torch.Tensor, clip: float
) -> TokenTerms:
    """-min(r A, clip(r) A), all [n] float32; gradients flow through `logprobs` only."""
    ratio = (logprobs - old_logprobs).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
    plain = ratio * advantages
    bounded = ratio.clamp(1 - clip, 1 + clip) * advantages
    return TokenTerms(-torch.minimum(plain, bounded), ratio.detach(), (bounded < plain).detach())


def kl_k3(logprobs: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Per-token estimate of KL(π_θ || π_ref) from samples of π_θ: exp(d) - d - 1 >= 0, d = log π_ref - log π_θ."""
    d = (reference - logprobs).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    return d.exp() - d - 1
