"""Router losses (Eq. 5-6), over the trained tokens Ψ, averaged over layers:

    B = E Σ_i f_i P_i    f_i share of token-to-expert assignments, P_i mean router probability (softmax routers)
    Z = mean_t (log Σ_j exp z_tj)²

f is taken over the whole batch (all microbatches and ranks) in the pass that computes the old log-probs and
carries no gradient, so B is linear in the tokens: it does not depend on how they are split. P and Z divide by
the same constant as everything else. The paper leaves the scaling of f open; with this one B = 1 at balance.
"""

from __future__ import annotations

import torch


def expert_counts(router_logits: torch.Tensor, top_k: int) -> torch.Tensor:
    """How many of the [layers, n, E] routings chose each expert: [layers, E] float32."""
    chosen = router_logits.topk(top_k, dim=-1).indices
    return torch.zeros(router_logits.shape[0], router_logits.shape[-1], device=router_logits.device).scatter_add_(
        1, chosen.flatten(1), torch.ones_like(chosen, dtype=torch.float32).flatten(1)
    )


def balance_terms(router_logits: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """Per-token contributions to B: router_logits [layers, n, E], share f [layers, E] summing to 1 -> [n]."""
    probs = router_logits.float().softmax(-1)
    return router_logits.shape[-1] * (probs * share[:, None]).sum(-1).mean(0)


def z_terms(router_logits: torch.Tensor) -> torch.Tensor:
    """Per-token contributions to Z: [layers, n, E] -> [n]."""
    return router_logits.float().logsumexp(-1).square().mean(0)
