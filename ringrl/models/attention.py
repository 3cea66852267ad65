"""Attention over packed rows, registered with transformers as "packed".

On a GPU a row is one call of the flash attention for variable lengths that torch itself has. Where that does not fit
(the CPU, float32, odd widths, sinks, caps), each sequence of the row is one causal call: Σ n² instead of the N² of
transformers' dense mask over the row. (Spreading them over a padded batch for a single call was up to twice as slow for
a whole update, since one long response pads all others.) Takes the same keyword arguments as flash attention. Without
`cu_seq_lens_q` the rows are ordinary (right-padded) sequences and causal is all.

Sliding windows come as what stands for the mask, since some models name them nowhere else. With a window w the cost
of a sequence is n w; sinks (one more logit in every softmax) and caps on the scores are computed in float32.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface, AttentionMaskInterface

from ringrl.errors import DataError

BLOCK = 256  # fewest queries that are scored at a time when a kernel for plain causal attention does not do
# torch 2.13 wants to be told of fewer heads of keys than of queries; versions before it took them without a word
GQA: dict[str, Any] = {"enable_gqa": True} if "enable_gqa" in inspect.signature(varlen_attn).parameters else {}


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,  # [B, heads, L, D]
    key: torch.Tensor,  # [B, kv_heads, L, D]
    value: torch.Tensor,  # [B, kv_heads, L, D]
    attention_mask: int | None,  # the window of this layer, from `window`; None: all tokens before
    scaling: float | None = None,
    dropout: float = 0.0,
    cu_seq_lens_q: torch.Tensor | None = None,  # [S + 1] int32 sequence boundaries of a packed row (B = 1)
    sequence_lengths: Sequence[int] = (),  # their differences, known without asking the device
    softcap: float | None = None,  # scores become softcap tanh(scores / softcap)
    s_aux: torch.Tensor | None = None,  # [heads] logit of a token that every query sees and that has no value
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention that never looks across a sequence boundary. Returns [B, L, heads, D]."""
    assert attention_mask is None or isinstance(attention_mask, int), "packed attention takes boundaries, not masks"
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    local_size = attention_mask or 0
    attend = partial(_attend, window=local_size, scale=scale, dropout=dropout, softcap=softcap, sinks=s_aux)
    if cu_seq_lens_q is None or len(cu_seq_lens_q) <= 2:
        return attend(query, key, value).transpose(1, 2).contiguous(), None
    lengths = sequence_lengths or cu_seq_lens_q.diff().tolist()
    if not dropout and softcap is None and s_aux is None and kernel_fits(query, key, value):
        return varlen(query, key, value, cu_seq_lens_q, max(lengths), local_size, scale), None
    parts = zip(*(x.split(lengths, dim=2) for x in (query, key, value)), strict=True)
    return torch.cat([attend(*part) for part in parts], dim=2).transpose(1, 2).contiguous(), None


def kernel_fits(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> bool:
    """Whether torch's flash attention computes this on the device where it is; backward too."""
    width = query.shape[-1]
    if not (query.is_cuda and torch.backends.cuda.is_flash_attention_available()):
        return False
    if query.dtype not in (torch.float16, torch.bfloat16) or width % 8 or not width == key.shape[-1] == value.shape[-1]:
        return False
    capability = torch.cuda.get_device_capability(query.device)
    # backward for wide heads takes more shared memory than the smaller chips of a generation have
    return width <= (256 if capability in ((8, 0), (9, 0), (10, 0)) else 192) and capability >= (8, 0)


def varlen(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, starts: torch.Tensor, longest: int, window: int,
    scale: float,
) -> torch.Tensor:  # fmt: skip
    """A packed row in one call of the kernel: [1, heads, L, D] and [S + 1] int32 boundaries -> [1, L, heads, D]."""
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    seen = (window - 1 if window else -1, 0)  # tokens before and after a query's own; -1: all
    out = varlen_attn(q, k, v, starts, starts, longest, longest, scale=scale, window_size=seen, **GQA)
    assert isinstance(out, torch.Tensor)  # it returns more when asked for more
    return out.unsqueeze(0).contiguous()


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
