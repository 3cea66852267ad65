"""The types that flow through one RL step, in the order in which they are created.

    Prompt -> Completion -> Group -> ScoredGroup -> Sample -> MicroBatch

All are frozen and complete when created. Legend for shapes: P prompt tokens, T response tokens,
K completions of a prompt, B rows and L row length of a microbatch, N tokens of a packed row.
What there is per token is an array: 4 bytes a token id, 4 a log-prob, 1 a mask, and no Python object.
This module imports nothing from ringrl and is imported by everything; only MicroBatch holds tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

if TYPE_CHECKING:
    import torch


class PerToken:
    """A record with arrays: made from any sequences of numbers, read-only, and equal to another with equal values."""

    __slots__ = ()
    DTYPES: ClassVar[Mapping[str, type]] = {"token_ids": np.int32, "logprobs": np.float32, "trained": np.bool_,
                                            "sampler_logprobs": np.float32}  # fmt: skip
    __hash__ = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        for name, dtype in self.DTYPES.items():
            if name in self.__slots__:
                array: np.ndarray = np.asarray(getattr(self, name), dtype).view()
                array.flags.writeable = False
                object.__setattr__(self, name, array)

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        pairs = [(getattr(self, f.name), getattr(other, f.name)) for f in fields(self) if f.compare]  # type: ignore[arg-type]
        return all(np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b for a, b in pairs)


def all_of(count: int) -> np.ndarray:
    """The mask [count] of tokens that are all trained, in no memory."""
    return np.broadcast_to(np.True_, (count,))


@dataclass(frozen=True, slots=True, eq=False)
class Prompt(PerToken):
    """One problem, ready to be sampled from."""

    id: str
    domain: str  # name of a built-in or user-defined domain
    token_ids: np.ndarray  # [P] int32, chat template applied, generation prompt included
    reference: Mapping[str, Any]  # row keys for the verifier: {"answer"}, {"tests", "entry_point"}, ...


@dataclass(frozen=True, slots=True, eq=False)
class Completion(PerToken):
    """One sampled response."""

    token_ids: np.ndarray  # [T] int32 sampled tokens, end-of-sequence token included
    logprobs: np.ndarray  # [T] float32 log-probs of the sampled tokens under the sampling policy, in nats
    finish: str  # "stop" (the model ended) | "length" (cut by the limit) | "paused" (to be continued)
    version: int  # weight version that sampled the first token
    newest: int = 0  # weight version that sampled the last token; differs if carried over or updated in flight
    retained: int = 0  # rollout batches it was carried over
    routes: np.ndarray | None = field(default=None, compare=False, repr=False)  # [P + T - 1, layers, top_k] experts
    # used by the engine at each position, if requested


@dataclass(frozen=True, slots=True)
class Group:
    """K completions of one prompt; none yet when it is still to be sampled."""

    prompt: Prompt
    completions: tuple[Completion, ...]  # [K]
    seed: int | None = None  # completion i samples with seed + i; None: with the random numbers of the batch

    @property
    def done(self) -> bool:
        return bool(self.completions) and all(c.finish != "paused" for c in self.completions)


@dataclass(frozen=True, slots=True)
class ScoredGroup:
    """A group with its rewards. A verifier's own failure leaves reward 0 and is counted in `errors`."""

    group: Group
    texts: tuple[str, ...]  # [K] decoded responses, input of the verifier
    rewards: tuple[float, ...]  # [K] in [0, 1], used in training: weighted sum of the domain's rewards
    errors: tuple[str, ...]  # [K] "" or what went wrong in the verifier
    reasons: tuple[str, ...]  # [K] why the verdict is what it is: exact, wrong, no_answer, timeout, ...
    tests: tuple[tuple[str, ...], ...] = ()  # [K][tests] outcome of each test that was run, for code
    scores: tuple[float, ...] = ()  # [K] in [0, 1], the headline reward; 1 = solved; defaults to `rewards`
    parts: tuple[Mapping[str, float], ...] = ()  # [K] the domain's rewards by name; empty after an error

    def __post_init__(self) -> None:
        if not self.scores:
            object.__setattr__(self, "scores", self.rewards)

    @property
    def judged(self) -> list[float]:
        """The rewards of the responses whose verifier did not fail."""
        return self._without_errors(self.rewards)

    @property
    def solved(self) -> bool:
        """Whether every response with a verdict is fully correct."""
        return min(self._without_errors(self.scores), default=0.0) == 1

    @property
    def unsolved(self) -> bool:
        """Whether no response scored above 0."""
        return max(self._without_errors(self.scores), default=0.0) == 0

    @property
    def flat(self) -> bool:
        """Whether all rewards are equal, so that every advantage is 0."""
        return len(set(self.judged)) <= 1

    def _without_errors(self, values: tuple[float, ...]) -> list[float]:
        return [v for v, error in zip(values, self.errors, strict=True) if not error]


@dataclass(frozen=True, slots=True, eq=False)
class Sample(PerToken):
    """One response as it goes into the update."""

    prompt: Prompt
    completion: Completion
    reward: float
    advantage: float
    trained: np.ndarray  # [T] bool, which of its tokens are in the loss; the token budget takes the last of them away

    @property
    def num_trained(self) -> int:
        return int(np.count_nonzero(self.trained))


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """What one forward pass sees. Position i predicts `targets[i]`: the shift by one happens in algo.pack only.

    Packed: B = 1 and several sequences follow one another, `starts` holding their boundaries.
    Padded: B sequences, right-padded, each with one boundary.
    """

    inputs: torch.Tensor  # [B, L] int64 token ids
    targets: torch.Tensor  # [B, L] int64 next tokens; 0 where there is none
    positions: torch.Tensor  # [B, L] int64, from 0 in every sequence
    starts: torch.Tensor  # [S + 1] int32 sequence boundaries in a packed row; empty when padded
    weights: torch.Tensor  # [B, L] float32 loss weight of the prediction at i; 0 where it is not trained
    trained: torch.Tensor  # [B, L] bool, the set Ψ of Eq. 2
    segments: torch.Tensor  # [B, L] int64 index of the sequence among those that were packed together
    advantages: torch.Tensor  # [B, L] float32
    sampler_logprobs: torch.Tensor  # [B, L] float32 log-prob of targets under the sampling policy
    routes: torch.Tensor  # [B, L, layers, top_k] int16 experts used by the engine, -1 unknown; 0 layers if off
