"""Sequences -> microbatches. The only place where tokens are shifted by one.

Invariants, asserted by the tests: every trained token appears exactly once over all ranks; every rank gets the
same number of microbatches (each is a collective); no row exceeds `max_tokens` unless one sequence alone does;
nothing about the layout changes the sum of the loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ringrl.types import MicroBatch, Sample


@dataclass(frozen=True, slots=True)
class TokenSequence:
    """One sequence on its way into a row."""

    token_ids: tuple[int, ...]  # [N]
    trained: tuple[bool, ...]  # [N] whether this token is predicted in the loss; never the first
    weight: float  # loss weight of each trained token
    advantage: float = 0.0
    sampler_logprobs: tuple[float, ...] = ()  # [sum(trained)]; empty when there was no sampler
    routes: np.ndarray | None = None  # [>= N - 1, layers, top_k] experts that the engine's forward pass took


EMPTY = TokenSequence((0, 0), (False, False), 0.0)  # one untrained token, so that every rank can run a row
Columns = Sequence[tuple[torch.Tensor, ...]]  # [sequences] of what `_columns` returns


def sequence_of(sample: Sample, weight: float) -> TokenSequence:
    """The prompt and the trained leading part of a response; what the budget cut is not even computed."""
    n = sample.num_trained
    prompt, response = sample.prompt.token_ids, sample.completion.token_ids[:n]
    trained = (False,) * len(prompt) + (True,) * n
    logprobs, routes = sample.completion.logprobs[:n], sample.completion.routes
    return TokenSequence(prompt + response, trained, weight, sample.advantage, logprobs, routes)


def pack(
    sequences: Sequence[TokenSequence], ranks: int, max_tokens: int, packed: bool = True
) -> list[list[MicroBatch]]:
    """Spread sequences over rows of at most `max_tokens`, the same number of rows for every rank.

    Returns:
        [ranks][rows] microbatches.
    """
    lengths = [len(s.token_ids) for s in sequences]
    bins = (_bins_packed if packed else _bins_padded)(lengths, ranks, max_tokens)
    assert len(bins) % ranks == 0, (len(bins), ranks)
    make = _packed_row if packed else _padded_rows
    rows = [make([_columns(sequences[i], i) for i in b] or [_columns(EMPTY, 0)]) for b in bins]
    return [rows[r::ranks] for r in range(ranks)]


def _bins_packed(lengths: Sequence[int], ranks: int, max_tokens: int) -> list[list[int]]:
    """Indices of the sequences in each row: longest first into the emptiest row; more rows until the fullest fits."""
    order = sorted(range(len(lengths)), key=lambda i: lengths[i], reverse=True)
    count = max(ranks, -(-sum(lengths) // max(max_tokens, 1)))
    while True:
        count += -count % ranks
        bins: list[list[int]] = [[] for _ in range(count)]
        loads = [0] * count
        for i in order:
            row = loads.index(min(loads))
            bins[row].append(i)
            loads[row] += lengths[i]
        if all(load <= max_tokens or len(b) == 1 for load, b in zip(loads, bins, strict=True)):
            return bins
        count += 1


def _bins_padded(lengths: Sequence[int], ranks: int, max_tokens: int) -> list[list[int]]:
    """Indices of the sequences in each batch: by length, cut where rows x longest would exceed `max_tokens`."""
    bins: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i], reverse=True):
        if not bins or (len(bins[-1]) + 1) * lengths[bins[-1][0]] > max_tokens:
            bins.append([])
        bins[-1].append(i)
    while len(bins) % ranks or not bins:
        big = max(bins, key=len, default=[])
        half = len(big) // 2
        bins.append(big[half:] if half else [])
        del big[half or len(big) :]
    return bins


def _packed_row(columns: Columns) -> MicroBatch:
    """All sequences in one row [1, N]."""
    ends = torch.tensor([0] + [len(c[0]) for c in columns]).cumsum(0).to(torch.int32)
    flat = [torch.cat([c[k] for c in columns])[None] for k in range(len(columns[0]))]
    inputs, targets, positions, *others = flat
    return MicroBatch(inputs, targets, positions, ends, *others)


def _padded_rows(columns: Columns) -> MicroBatch:
    """One sequence a row [B, L], padded on the right."""
    stacked = [
        torch.nn.utils.rnn.pad_sequence([c[k] for c in columns], batch_first=True) for k in range(len(columns[0]))
    ]
    inputs, targets, positions, *others = stacked
    return MicroBatch(inputs, targets, positions, torch.empty(0, dtype=torch.int32), *others)


def _columns(s: TokenSequence, index: int) -> tuple[torch.Tensor, ...]:
    """inputs, targets, positions, weights, trained, segments, advantages, sampler_logprobs, each [N - 1]; routes."""
    ids = torch.tensor(s.token_ids)
    trained = torch.tensor(s.trained)[1:]
    sampler = torch.zeros(len(trained))
    if s.sampler_logprobs:
        sampler[trained] = torch.tensor(s.sampler_logprobs)
    segments = torch.full_like(ids[1:], index)
    return (ids[:-1], ids[1:], torch.arange(len(ids) - 1), trained * s.weight, trained, segments,
            trained * s.advantage, sampler, _routes(s))  # fmt: skip


def _routes(s: TokenSequence) -> torch.Tensor:
    """[N - 1, layers, top_k] int16; -1 where the engine reported none; [N - 1, 0, 0] without routes."""
    n = len(s.token_ids) - 1
    if s.routes is None:
        return torch.empty(n, 0, 0, dtype=torch.int16)
    routes = torch.from_numpy(s.routes[:n].astype(np.int16))
    return torch.nn.functional.pad(routes, (0, 0, 0, 0, 0, n - len(routes)), value=-1)
