"""Sequences -> microbatches. The only place where tokens are shifted by one.

Invariants, asserted by the tests: every trained token appears exactly once over all ranks; every rank gets the
same number of microbatches (each is a collective); no row exceeds `max_tokens` unless one sequence alone does;
nothing about the layout changes the sum of the loss.

Rank 0 lays out rows of 9 bytes a token (`lay_out`), which go to the ranks as they are; each rank spreads its own out to
the 45 bytes a token that a forward pass and a loss are written in (`microbatch`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from ringrl.types import MicroBatch, PerToken, Sample


@dataclass(frozen=True, slots=True, eq=False)
class TokenSequence(PerToken):
    """One sequence on its way into a row."""

    token_ids: np.ndarray  # [N] int32
    trained: np.ndarray  # [N] bool, whether this token is predicted in the loss; never the first
    weight: float  # loss weight of each trained token
    advantage: float = 0.0
    sampler_logprobs: np.ndarray | Sequence[float] = ()  # [trained] float32; empty when there was no sampler
    routes: np.ndarray | None = field(default=None, compare=False)  # [>= N - 1, layers, top_k] experts the engine took


@dataclass(frozen=True, slots=True)
class Row:
    """Sequences, one after the other, that one forward pass sees, in little memory: N tokens, S sequences."""

    token_ids: np.ndarray  # [N] int32
    trained: np.ndarray  # [N] bool
    lengths: np.ndarray  # [S] int32
    segments: np.ndarray  # [S] int32 index of the sequence among those that were packed together
    weights: np.ndarray  # [S] float32
    advantages: np.ndarray  # [S] float32
    sampler_logprobs: np.ndarray  # [trained] float32; empty when there was no sampler
    routes: np.ndarray  # [N - S, layers, top_k] int16, -1 unknown; 0 layers if off
    packed: bool  # else every sequence is padded to the longest

    @property
    def values(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self)}


EMPTY = TokenSequence((0, 0), (False, False), 0.0)  # type: ignore[arg-type]  # nothing is trained: for a rank without rows


def sequence_of(sample: Sample, weight: float) -> TokenSequence:
    """The prompt and the response up to its last trained token; what the budget cut is not even computed."""
    prompt, response = sample.prompt.token_ids, sample.completion
    n = int(sample.trained.nonzero()[0][-1]) + 1 if sample.num_trained else 0
    mask = sample.trained[:n]
    return TokenSequence(
        np.concatenate([prompt, response.token_ids[:n]]),
        np.concatenate([np.zeros(len(prompt), bool), mask]),
        weight, sample.advantage, response.logprobs[:n][mask], response.routes,
    )  # fmt: skip


def pack(
    sequences: Sequence[TokenSequence], ranks: int, max_tokens: int, packed: bool = True
) -> list[list[MicroBatch]]:
    """[ranks][rows] of microbatches; see `lay_out`."""
    return [[microbatch(row) for row in rows] for rows in lay_out(sequences, ranks, max_tokens, packed)]


def lay_out(
    sequences: Sequence[TokenSequence], ranks: int, max_tokens: int, packed: bool = True, pair_cost: float = 0.0
) -> list[list[Row]]:
    """[ranks][rows]: sequences spread over rows of at most `max_tokens`, the same number of rows for every rank. Packed
    rows get about the same cost, a sequence of n tokens counting as n + `pair_cost` n²."""
    lengths = [len(s.token_ids) for s in sequences]
    bins = _bins_packed(lengths, ranks, max_tokens, pair_cost) if packed else _bins_padded(lengths, ranks, max_tokens)
    assert len(bins) % ranks == 0, (len(bins), ranks)
    rows = [_row([sequences[i] for i in b] or [EMPTY], b or [0], packed) for b in bins]
    return [rows[r::ranks] for r in range(ranks)]


def _bins_packed(lengths: Sequence[int], ranks: int, max_tokens: int, pair_cost: float) -> list[list[int]]:
    """Indices of the sequences in each row: longest first into the cheapest row with room, and more rows until there is
    one for each; the dearest rows first, so that ranks run those of about the same cost at a time."""
    order = sorted(range(len(lengths)), key=lambda i: lengths[i], reverse=True)
    count = max(ranks, -(-sum(lengths) // max(max_tokens, 1)))
    while True:
        count += -count % ranks
        bins: list[list[int]] = [[] for _ in range(count)]
        tokens, costs = np.zeros(count, np.int64), np.zeros(count)
        for i in order:
            n = lengths[i]
            room = (tokens + n <= max_tokens) | (tokens == 0)
            row = int(np.where(room, costs, np.inf).argmin())
            if not room[row]:
                break
            bins[row].append(i)
            tokens[row] += n
            costs[row] += n + pair_cost * n * n
        else:
            return [bins[row] for row in np.argsort(-costs, kind="stable")]
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


def _row(sequences: Sequence[TokenSequence], segments: Sequence[int], packed: bool) -> Row:
    sampled = any(len(s.sampler_logprobs) for s in sequences)
    return Row(
        np.concatenate([s.token_ids for s in sequences]),
        np.concatenate([s.trained for s in sequences]),
        np.array([len(s.token_ids) for s in sequences], np.int32),
        np.array(segments, np.int32),
        np.array([s.weight for s in sequences], np.float32),
        np.array([s.advantage for s in sequences], np.float32),
        np.concatenate([_sampler_logprobs(s) for s in sequences]) if sampled else np.empty(0, np.float32),
        np.concatenate([_routes(s) for s in sequences]),
        packed,
    )


def _sampler_logprobs(s: TokenSequence) -> np.ndarray:
    given = np.asarray(s.sampler_logprobs)
    return given if len(given) else np.zeros(np.count_nonzero(s.trained), np.float32)


def _routes(s: TokenSequence) -> np.ndarray:
    """[N - 1, layers, top_k] int16; -1 where the engine reported none; [N - 1, 0, 0] without routes."""
    n = len(s.token_ids) - 1
    if s.routes is None:
        return np.empty((n, 0, 0), np.int16)
    routes = s.routes[:n].astype(np.int16)
    return np.pad(routes, ((0, n - len(routes)), (0, 0), (0, 0)), constant_values=-1)


def microbatch(row: Row) -> MicroBatch:
    """The row with its tokens shifted, and what there is per sequence spread over its tokens."""
    starts = np.concatenate([[0], row.lengths.cumsum()])
    first, last = np.zeros(len(row.token_ids), bool), np.zeros(len(row.token_ids), bool)
    first[starts[:-1]] = last[starts[1:] - 1] = True
    counts = row.lengths - 1  # predictions of each sequence
    ends = np.concatenate([[0], counts.cumsum()])
    trained = row.trained[~first]
    sampler = np.zeros(len(trained), np.float32)
    if len(row.sampler_logprobs):
        sampler[trained] = row.sampler_logprobs
    columns = [
        torch.from_numpy(column)
        for column in (
            row.token_ids[~last].astype(np.int64),
            row.token_ids[~first].astype(np.int64),
            np.arange(len(trained)) - ends[:-1].repeat(counts),
            trained * row.weights.repeat(counts),
            trained,
            row.segments.repeat(counts).astype(np.int64),
            trained * row.advantages.repeat(counts),
            sampler,
            row.routes,
        )
    ]
    if row.packed:
        columns, boundaries = [c[None] for c in columns], torch.from_numpy(ends.astype(np.int32))
    else:
        columns = [pad_sequence(c.split(counts.tolist()), batch_first=True) for c in columns]
        boundaries = torch.empty(0, dtype=torch.int32)
    inputs, targets, positions, *others = columns
    return MicroBatch(inputs, targets, positions, boundaries, *others)
