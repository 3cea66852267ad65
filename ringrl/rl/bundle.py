"""`rollouts/step_000012.npz`: a rollout batch as arrays, for whoever wants to compute its step again.

NumPy reads it, without pickle and without ringrl: `numpy.load(file)` gives the arrays below by name. Responses stand in
the order of `step_000012.jsonl`, which holds the first of them; that of `token_ids`, and of everything with N elements,
is response after response, response r being `offsets[r]:offsets[r + 1]`. G prompts, R responses, N sampled tokens.

    format              int64            FORMAT; readers refuse one that they do not know
    step, updates       int64            the first optimizer step on this batch, and their number
    weights_version     int64            version of the weights before the first of them
    phi                 int64            token budget of an update, its divisor with `loss.denominator: phi`
    prompt_ids          [G] str          as in the data
    domains             [G] str
    prompt_offsets      [G + 1] int64    prompt g is `prompt_token_ids[prompt_offsets[g]:prompt_offsets[g + 1]]`
    prompt_token_ids    [..] int32
    groups              [R] int32        the response's prompt
    offsets             [R + 1] int64
    rewards, scores     [R] float64      what is trained on, and the headline reward; 0 when `errors`
    errors              [R] bool         the verifier failed: no part of its group's mean
    advantages          [R] float64      0 for those that may not be trained on
    update              [R] int32        which update trained on it, from 0; -1: none
    finish              [R] str          stop, length
    version, newest     [R] int32        of the weights that sampled its first and last token
    retained            [R] int32        rollout batches it was carried over
    token_ids           [N] int32        sampled tokens
    logprobs            [N] float32      their log-probs under the weights and temperature that sampled them, nats
    trained             [N] bool         the set Ψ: tokens in the loss

New arrays may be added under the same format; what one of these means changes with a new one.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ringrl.algo.pack import Row
from ringrl.lines import replacing
from ringrl.rl.sampler import ScoredRollout
from ringrl.types import Sample

FORMAT = 1
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Batch:
    """A rollout with what is trained on of it."""

    rollout: ScoredRollout
    samples: list[Sample]  # all that could be trained on, with their advantages
    chosen: list[list[Sample]]  # [updates] what fills the budget
    shares: list[list[list[Row]]]  # [ranks][updates][rows]
    kept: list[torch.Tensor]  # [updates] which of all ranks' trained tokens in `shares` were kept, in order; empty: all
    phi: int  # tokens per update


def write(file: Path, arrays: Arrays) -> None:
    """Write an .npz, atomically."""
    file.parent.mkdir(exist_ok=True)
    with replacing(file) as out:
        np.savez(out, **arrays)  # type: ignore[arg-type]


def bundle(batch: Batch, step: int, weights_version: int) -> Arrays:
    """The arrays of a batch whose first optimizer step is `step`."""
    scored = batch.rollout.scored
    groups = [g.group for g in scored]
    responses = [c for g in groups for c in g.completions]
    index = {id(c): r for r, c in enumerate(responses)}
    advantages: np.ndarray = np.zeros(len(responses))
    update: np.ndarray = np.full(len(responses), -1, np.int32)
    for s in batch.samples:
        advantages[index[id(s.completion)]] = s.advantage
    for u, chosen in enumerate(batch.chosen):
        update[[index[id(s.completion)] for s in chosen]] = u
    offsets = _offsets(len(c.token_ids) for c in responses)
    return {
        "format": np.array(FORMAT, np.int64),
        "step": np.array(step, np.int64),
        "updates": np.array(len(batch.chosen), np.int64),
        "weights_version": np.array(weights_version, np.int64),
        "phi": np.array(batch.phi, np.int64),
        "prompt_ids": np.array([g.prompt.id for g in groups], str),
        "domains": np.array([g.prompt.domain for g in groups], str),
        "prompt_offsets": _offsets(len(g.prompt.token_ids) for g in groups),
        "prompt_token_ids": _flat([g.prompt.token_ids for g in groups], np.int32),
        "groups": np.repeat(np.arange(len(groups), dtype=np.int32), [len(g.completions) for g in groups]),
        "offsets": offsets,
        "rewards": np.array([r for g in scored for r in g.rewards], np.float64),
        "scores": np.array([r for g in scored for r in g.scores], np.float64),
        "errors": np.array([bool(e) for g in scored for e in g.errors], bool),
        "advantages": advantages,
        "update": update,
        "finish": np.array([c.finish for c in responses], str),
        "version": np.array([c.version for c in responses], np.int32),
        "newest": np.array([c.newest for c in responses], np.int32),
        "retained": np.array([c.retained for c in responses], np.int32),
        "token_ids": _flat([c.token_ids for c in responses], np.int32),
        "logprobs": _flat([c.logprobs for c in responses], np.float32),
        "trained": trained(batch, {key: int(offsets[r]) for key, r in index.items()}, int(offsets[-1])),
    }


def trained(batch: Batch, starts: Mapping[int, int], tokens: int) -> np.ndarray:
    """Which of the sampled tokens [tokens] the updates trained on, as their rows say.

    Args:
        starts: index of the first token of each response, by the id of its completion.
    """
    mask: np.ndarray = np.zeros(tokens, bool)
    for u, chosen in enumerate(batch.chosen):
        first = np.array([starts[id(s.completion)] - len(s.prompt.token_ids) for s in chosen], np.int64)
        at = np.concatenate([_places(row, first) for of_rank in batch.shares for row in of_rank[u]])
        mask[at[batch.kept[u].numpy()] if len(batch.kept[u]) else at] = True
    return mask


def _places(row: Row, first: np.ndarray) -> np.ndarray:
    """Where the row's trained tokens stand, when sequence i begins at first[i]."""
    begin = row.lengths.cumsum() - row.lengths
    shift = np.zeros(len(begin), np.int64) if not row.trained.any() else first[row.segments] - begin
    return (np.arange(len(row.trained)) + shift.repeat(row.lengths))[row.trained]


def _offsets(lengths: Iterable[int]) -> np.ndarray:
    return np.array([0, *itertools.accumulate(lengths)], np.int64)


def _flat(values: Sequence[np.ndarray], dtype: type) -> np.ndarray:
    return np.concatenate([np.empty(0, dtype), *values])
