"""Attention over packed rows where there is no variable-length kernel: registered with transformers as "packed".

transformers' own answer on the CPU is a dense [N, N] mask over the packed row, quadratic in the row. Here the
sequences of a row are spread over a padded batch for the attention alone: one causal call, linear in the row.
Takes the same keyword arguments as flash attention (`cu_seq_lens_q`, `max_length_q`), so the caller does not
know which of the two runs. Without them the rows are ordinary (right-padded) sequences and causal is all.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from transformers import AttentionInterface


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,  # [B, heads, L, D]
    key: torch.Tensor,  # [B, kv_heads, L, D]
    value: torch.Tensor,  # [B, kv_heads, L, D]
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    cu_seq_lens_q: torch.Tensor | None = None,  # [S + 1] sequence boundaries of a packed row (B = 1)
    max_length_q: int = 0,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention that never looks across a sequence boundary. Returns [B, L, heads, D]."""
    assert attention_mask is None, "packed attention takes boundaries, not masks"

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return F.scaled_dot_product_attention(
            q, k, v, dropout_p=dropout, is_causal=True, scale=scaling, enable_gqa=q.shape[1] != k.shape[1]
        )

    if cu_seq_lens_q is None or len(cu_seq_lens_q) <= 2:
        return attend(query, key, value).transpose(1, 2).contiguous(), None
    starts = cu_seq_lens_q.long()
    lengths = starts.diff()
    slot = torch.arange(query.shape[2], device=query.device)
    row = torch.repeat_interleave(torch.arange(len(lengths), device=query.device), lengths)
    where = row * max_length_q + slot - starts[row]  # [L] place of each token in the padded batch

    def spread(x: torch.Tensor) -> torch.Tensor:  # [1, heads, L, D] -> [S, heads, max, D]
        x = x[0].transpose(0, 1)
        padded = x.new_zeros(len(lengths) * max_length_q, *x.shape[1:]).index_copy(0, where, x)
        return padded.view(len(lengths), max_length_q, *x.shape[1:]).transpose(1, 2)

    out = attend(spread(query), spread(key), spread(value)).transpose(1, 2).flatten(0, 1)
    return out.index_select(0, where)[None].contiguous(), None


AttentionInterface.register("packed", packed_attention)
