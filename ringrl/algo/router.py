"""Router losses (Eq. 5-6) and instruments, over the trained tokens Ψ, averaged over layers:

    B = E Σ_i f_i P_i    f_i share of token-to-expert assignments, P_i mean router probability
    Z = mean_t (log Σ_j exp z_tj)²

    softmax routers   P_t = softmax(z_t)
    sigmoid routers   P_t = σ(z_t) / Σ_j σ(z_tj)                              DeepSeek-V3 (arXiv 2412.19437)

f is a constant. Taken over the whole batch, all microbatches and ranks, it lets a microbatch be unbalanced as long as
the batch is not (Demons in the Detail, arXiv 2501.11873), and B is linear in the tokens: it does not depend on
how they are split. Taken over a microbatch it is what most trainers do. P and Z divide by the same constant as
everything else. The paper leaves the scaling of f open; with this one B = 1 at balance.
"""

from __future__ import annotations

import torch


def expert_counts(chosen: torch.Tensor, experts: int) -> torch.Tensor:
    """How often each expert was chosen: chosen [layers, n, top_k] integer -> [layers, experts] float32."""
    flat = chosen.flatten(1).long()
    ones = torch.ones_like(flat, dtype=torch.float32)
    return torch.zeros(chosen.shape[0], experts, device=chosen.device).scatter_add_(1, flat, ones)


def shares(counts: torch.Tensor) -> torch.Tensor:
    """f: counts [..., experts] -> shares that sum to 1 (to 0 when nothing was counted)."""
    return counts / counts.sum(-1, keepdim=True).clamp(min=1)


def load(counts: torch.Tensor) -> torch.Tensor:
    """The fullest expert's load over the mean: counts [layers, experts] -> [layers], 1 to experts; 0 without counts."""
    return counts.max(-1).values / counts.mean(-1).clamp(min=1e-9)


def probabilities(router_logits: torch.Tensor, scoring: str) -> torch.Tensor:
    """P_t: router_logits [..., experts] -> float32 of the same shape, sums 1; scoring "softmax" or "sigmoid"."""
    if scoring == "softmax":
        return router_logits.float().softmax(-1)
    assert scoring == "sigmoid", scoring
    scores = router_logits.float().sigmoid()
    return scores / scores.sum(-1, keepdim=True)


def balance_terms(router_logits: torch.Tensor, share: torch.Tensor, scoring: str) -> torch.Tensor:
    """Per-token contributions to B: router_logits [layers, n, E], share f [layers, E] -> [n]."""
    return router_logits.shape[-1] * (probabilities(router_logits, scoring) * share[:, None]).sum(-1).mean(0)


def z_terms(router_logits: torch.Tensor) -> torch.Tensor:
    """Per-token contributions to Z: [layers, n, E] -> [n]."""
    return router_logits.float().logsumexp(-1).square().mean(0)


def router_entropy(router_logits: torch.Tensor, scoring: str) -> torch.Tensor:
    """Entropy of P_t in nats, mean over layers: [layers, n, E] -> [n]."""
    return torch.special.entr(probabilities(router_logits, scoring)).sum(-1).mean(0)


def gates(
    router_logits: torch.Tensor, chosen: torch.Tensor, scoring: str, normalise: bool, scale: float
) -> torch.Tensor:
    """Weights of given experts, as their router would give them: what routing replay computes anew from the
    training logits, for experts chosen elsewhere (arXiv 2507.18071, 2510.11370).

    Args:
        router_logits: [n, E].
        chosen: [n, top_k] int64.
        normalise: divide by the sum over the chosen.
        scale: the router's scaling factor.

    Returns:
        [n, top_k] float32.
    """
    logits = router_logits.float()
    picked = (logits.softmax(-1) if scoring == "softmax" else logits.sigmoid()).gather(-1, chosen)
    return picked / (picked.sum(-1, keepdim=True) + 1e-20) * scale if normalise else picked * scale
