"""Packed attention with windows, sinks and caps, against the definition on a dense score matrix."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch

from ringrl.errors import DataError
from ringrl.models import attention

HEADS, KV_HEADS, WIDTH = 4, 2, 16
LENGTHS = (70, 9, 33)
CASES = list(product([None, 1, 8, 64, 1000], [None, 3.0], [False, True]))


def inputs(length: int) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    shapes = [(1, h, length, WIDTH) for h in (HEADS, KV_HEADS, KV_HEADS)]
    return [torch.randn(s, generator=draw, dtype=torch.float64).requires_grad_() for s in shapes]


def dense(q: Any, k: Any, v: Any, starts: Any, window: int | None, softcap: float | None, sinks: Any) -> torch.Tensor:
    """Every score of the row, masked."""
    place = torch.arange(q.shape[2])
    owner = torch.bucketize(place, starts[1:], right=True)
    behind = place[:, None] - place
    seen = (behind >= 0) & (owner[:, None] == owner)
    if window:
        seen &= behind < window
    k, v = k.repeat_interleave(2, 1), v.repeat_interleave(2, 1)
    scores = q @ k.transpose(2, 3) / WIDTH**0.5
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    weights = scores.masked_fill(~seen, -torch.inf).exp()
    total = weights.sum(-1, keepdim=True)
    if sinks is not None:
        total = total + sinks.exp()[None, :, None, None]
    return (weights / total @ v).transpose(1, 2)


@pytest.mark.parametrize(("window", "softcap", "sunk"), CASES)
@pytest.mark.parametrize("block", [16, 256])
def test_a_packed_row_is_the_dense_matrix(
    window: int | None, softcap: float | None, sunk: bool, block: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(attention, "BLOCK", block)
    q, k, v = row = inputs(sum(LENGTHS))
    starts = torch.tensor([0, *LENGTHS]).cumsum(0)
    sinks = torch.tensor([0.5, -1.0, 2.0, 0.0], dtype=torch.float64).requires_grad_() if sunk else None
    more = {"softcap": softcap, "s_aux": sinks}
    got, _ = attention.packed_attention(torch.nn.Module(), *row, window, cu_seq_lens_q=starts, **more)
    expected = dense(q, k, v, starts, window, softcap, sinks)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)  # scores with a cap or a sink are float32
    leaves = [*row, sinks] if sunk else row
    draw = torch.Generator().manual_seed(1)
    weight = torch.randn(got.shape, generator=draw, dtype=torch.float64)
    for ours, theirs in zip(*(torch.autograd.grad((x * weight).sum(), leaves) for x in (got, expected)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_a_mask_that_is_no_window_is_refused():
    class Config:
        model_type = "some"
        attention_chunk_size = 64

    assert attention.window(local_size=8, config=Config()) == 8
    assert attention.window(config=Config()) is None
    for mask in ({"local_size": 64}, {"use_vmap": True}, {"attention_mask": torch.ones(1, 4)}):
        with pytest.raises(DataError, match=r"trainer\.attention: got packed, expected sdpa with model_type some"):
            attention.window(config=Config(), **mask)
