"""Attention over packed rows where there is no variable-length kernel: registered with transformers as "packed".

transformers' own answer on the CPU is a dense [N, N] mask over the packed row, quadratic in the row. Here each
sequence of a row is one causal call: Σ n² instead. (Spreading them over a padded batch for a single call was up to
twice as slow for a whole update, since one long response pads all others.) Takes the same keyword arguments as flash
attention, so the caller does not know which of the two runs. Without `cu_seq_lens_q` the rows are ordinary
(right-padded) sequences and causal is all.

Sliding windows come as what stands for the mask, since some models name them nowhere else. With a window w the cost
of a sequence is n w; sinks (one more logit in every softmax) and caps on the scores are computed in float32.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from transformers import AttentionInterface, AttentionMaskInterface

from ringrl.errors import DataError

BLOCK = 256  # fewest queries that are scored at a time when a kernel for plain causal attention does not do


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,  # [B, heads, L, D]
    key: torch.Tensor,  # [B, kv_heads, L, D]
    value: torch.Tensor,  # [B, kv_heads, L, D]
    attention_mask: int | None,  # the window of this layer, from `window`; None: all tokens before
    scaling: float | None = None,
    dropout: float = 0.0,
    cu_seq_lens_q: torch.Tensor | None = None,  # [S + 1] sequence boundaries of a packed row (B = 1)
    softcap: float | None = None,  # scores become softcap tanh(scores / softcap)
    s_aux: torch.Tensor | None = None,  # [heads] logit of a token that every query sees and that has no value
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention that never looks across a sequence boundary. Returns [B, L, heads, D]."""
    assert attention_mask is None or isinstance(attention_mask, int), "packed attention takes boundaries, not masks"
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    attend = partial(_attend, window=attention_mask or 0, scale=scale, dropout=dropout, softcap=softcap, sinks=s_aux)
    if cu_seq_lens_q is None or len(cu_seq_lens_q) <= 2:
        return attend(query, key, value).transpose(1, 2).contiguous(), None
    lengths = cu_seq_lens_q.diff().tolist()
    parts = zip(*(x.split(lengths, dim=2) for x in (query, key, value)), strict=True)
    return torch.cat([attend(*part) for part in parts], dim=2).transpose(1, 2).contiguous(), None


def _attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, window: int, scale: float, dropout: float, softcap: float | None,
    sinks: torch.Tensor | None,
) -> torch.Tensor:  # fmt: skip
    """One sequence, or padded ones: [B, heads, n, D]."""
    n, gqa = q.shape[2], q.shape[1] != k.shape[1]
    narrow = 0 < window < n
    if not narrow and softcap is None and sinks is None:
        return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True, scale=scale, enable_gqa=gqa)
    out = []
    for first in range(0, n, step := max(window if narrow else 0, BLOCK)):
        last, start = min(first + step, n), max(first - window + 1, 0) if narrow else 0
        behind = torch.arange(first, last, device=q.device)[:, None] - torch.arange(start, last, device=q.device)
        seen = (behind >= 0) & (behind < window) if narrow else behind >= 0  # [queries, keys]
        part = q[:, :, first:last], k[:, :, start:last], v[:, :, start:last]
        if softcap is None and sinks is None:
            out.append(F.scaled_dot_product_attention(*part, seen, dropout, scale=scale, enable_gqa=gqa))
        else:
            out.append(_scored(*part, seen, scale, dropout, softcap, sinks))
    return torch.cat(out, dim=2)


def _scored(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, seen: torch.Tensor, scale: float, dropout: float,
    softcap: float | None, sinks: torch.Tensor | None,
) -> torch.Tensor:  # fmt: skip
    """What no kernel of torch computes: scores that are capped, or compete with a sink."""
    groups = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    scores = (q @ k.transpose(2, 3) * scale).float()
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    scores = scores.masked_fill(~seen, -torch.inf)
    if sinks is not None:
        column = sinks.float()[None, :, None, None].expand(*scores.shape[:3], 1)
        scores = torch.cat([scores, column], -1)
    weights = F.dropout(scores.softmax(-1)[..., : seen.shape[1]], dropout).to(v.dtype)
    return weights @ v


def window(
    attention_mask: torch.Tensor | None = None,
    local_size: int | None = None,  # of a sliding window or of a chunk
    use_vmap: bool = False,  # the model changes the mask by functions of its own
    config: Any = None,
    **_: Any,
) -> int | None:
    """What a layer of transformers gets for a mask with "packed" attention.

    Raises:
        DataError: this model's mask is neither causal nor a sliding window.
    """
    chunked = local_size is not None and local_size == getattr(config, "attention_chunk_size", None)
    if attention_mask is not None or use_vmap or chunked:
        raise DataError(f"trainer.attention: got packed, expected sdpa with model_type {config.model_type}, whose mask "
                        f"is neither causal nor a sliding window")  # fmt: skip
    return local_size


AttentionInterface.register("packed", packed_attention)
AttentionMaskInterface.register("packed", window)
