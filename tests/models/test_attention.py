"""Packed attention with windows, sinks and caps, against the definition on a dense score matrix."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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


@pytest.fixture
def kernel() -> Iterator[None]:
    """torch's variable-length flash attention on the CPU, which has no kernel for it: its definition."""

    def definition(q: Any, k: Any, v: Any, starts: Any, scale: float, left: int, right: int) -> torch.Tensor:
        assert right == 0
        assert scale == WIDTH**-0.5
        heads = (x.transpose(0, 1)[None] for x in (q, k, v))
        return dense(*heads, starts, left + 1 if left >= 0 else None, None, None)[0]

    def forward(
        q: Any, k: Any, v: Any, starts: Any, _k: Any, most: int, _m: int, dropout: float, causal: bool, _debug: bool,
        scale: float, window_size_left: int, window_size_right: int, **_: Any,
    ) -> tuple[torch.Tensor, ...]:  # fmt: skip
        assert (most, causal) == (int(starts.diff().max()), window_size_left < 0)
        nothing = torch.empty(0)
        out = definition(q, k, v, starts, scale, window_size_left, window_size_right)
        return out, q.new_empty(q.shape[1], len(q), dtype=torch.float32), nothing, nothing, nothing

    def backward(
        grad: Any, q: Any, k: Any, v: Any, _out: Any, _sums: Any, starts: Any, _k: Any, _q: int, _m: int, _d: float,
        _causal: bool, _rng: Any, _unused: Any, scale: float, window_size_left: int, window_size_right: int,
    ) -> tuple[torch.Tensor, ...]:  # fmt: skip
        def derive() -> tuple[torch.Tensor, ...]:
            leaves = [x.detach().requires_grad_() for x in (q, k, v)]
            out = definition(*leaves, starts, scale, window_size_left, window_size_right)
            return torch.autograd.grad(out, leaves, grad)

        with ThreadPoolExecutor(1) as other:  # inside of a kernel this thread records no graph
            return other.submit(derive).result()

    library = torch.library.Library("aten", "IMPL")
    library.impl("_flash_attention_forward", forward, "CPU")
    library.impl("_flash_attention_backward", backward, "CPU")
    yield
    library._destroy()


@pytest.mark.parametrize("window", [None, 1, 8, 1000])
def test_the_kernel_is_told_the_same(window: int | None, kernel: None, monkeypatch: pytest.MonkeyPatch):
    """What torch's own function makes of our arguments, forward and backward, up to the kernel."""
    row = inputs(sum(LENGTHS))
    starts = torch.tensor([0, *LENGTHS]).cumsum(0).int()
    one_by_one, _ = attention.packed_attention(torch.nn.Module(), *row, window, cu_seq_lens_q=starts)
    monkeypatch.setattr(attention, "kernel_fits", lambda *_: True)
    at_once, _ = attention.packed_attention(torch.nn.Module(), *row, window, cu_seq_lens_q=starts)
    torch.testing.assert_close(at_once, one_by_one)
    found = [torch.autograd.grad(out.square().sum(), row) for out in (at_once, one_by_one)]
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(("heads", "kv_heads"), [(16, 4), (16, 16), (32, 4)], ids=["ling-lite", "olmoe", "qwen3-30b"])
def test_a_row_on_a_gpu_is_one_call_that_asks_the_device_for_nothing(
    heads: int, kv_heads: int, monkeypatch: pytest.MonkeyPatch
):
    """Reading a number off the meta device fails, so whatever would wait for a GPU fails here."""
    monkeypatch.setattr(attention, "kernel_fits", lambda *_: True)
    shapes = [(1, h, 4096, 128) for h in (heads, kv_heads, kv_heads)]
    row = [torch.empty(s, dtype=torch.bfloat16, device="meta", requires_grad=True) for s in shapes]
    starts = torch.empty(4, dtype=torch.int32, device="meta")
    more: Any = {"cu_seq_lens_q": starts, "sequence_lengths": [96, 2000, 2000]}
    out, _ = attention.packed_attention(torch.nn.Module(), *row, None, **more)
    assert (out.shape, out.dtype) == ((1, 4096, heads, 128), torch.bfloat16)
    assert out.is_contiguous()
    out.sum().backward()
    assert [x.grad.shape for x in row if x.grad is not None] == shapes


def test_what_the_kernel_cannot_compute_is_left_to_others():
    def fits(dtype: torch.dtype, width: int, value: int) -> bool:
        q, v = (torch.empty(1, 2, 4, n, dtype=dtype, device="meta") for n in (width, value))
        return attention.kernel_fits(*(_OnGpu(x) for x in (q, q, v)))  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.backends.cuda, "is_flash_attention_available", lambda: True)
        for capability, widest in (((9, 0), 256), ((8, 6), 192), ((7, 5), 0)):
            patch.setattr(torch.cuda, "get_device_capability", lambda _, c=capability: c)
            found = [w for w in (60, 64, 128, 192, 256, 512) if fits(torch.bfloat16, w, w)]
            assert found == [w for w in (64, 128, 192, 256) if w <= widest]
            assert not fits(torch.float32, 64, 64)
            assert not fits(torch.bfloat16, 192, 128)
    assert not attention.kernel_fits(*(torch.empty(1, 2, 4, 64, dtype=torch.bfloat16) for _ in range(3)))


class _OnGpu:
    """What `kernel_fits` asks a tensor, as one on a GPU would answer."""

    is_cuda, device = True, "cuda"

    def __init__(self, like: torch.Tensor) -> None:
        self.shape, self.dtype = like.shape, like.dtype


def test_a_mask_that_is_no_window_is_refused():
    class Config:
        model_type = "some"
        attention_chunk_size = 64

    assert attention.window(local_size=8, config=Config()) == 8
    assert attention.window(config=Config()) is None
    for mask in ({"local_size": 64}, {"use_vmap": True}, {"attention_mask": torch.ones(1, 4)}):
        with pytest.raises(DataError, match=r"trainer\.attention: got packed, expected sdpa with model_type some"):
            attention.window(config=Config(), **mask)
