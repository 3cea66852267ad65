"""The interface that the loops sample through."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ringrl.types import Completion, Group, Prompt

if TYPE_CHECKING:
    import torch

Bucket = tuple[Mapping[str, "torch.Tensor"], Mapping[str, str]]  # tensors under checkpoint names; device -> handle
# to map them, when they are shared


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to sample. Training needs top_p 1, since log-probs must be of the whole distribution."""

    samples: int  # K, completions per prompt
    temperature: float
    max_total_tokens: int  # prompt + response
    top_p: float = 1.0


def seed_of(*parts: object) -> int:
    """31 bits that depend on all of these."""
    return zlib.crc32("/".join(map(str, parts)).encode()) >> 1


def fresh(prompts: Sequence[Prompt]) -> list[Group]:
    """Groups without completions yet."""
    return [Group(p, ()) for p in prompts]


@dataclass(frozen=True, slots=True)
class Piece:
    """What one generation added to a completion."""

    token_ids: np.ndarray | Sequence[int]
    logprobs: np.ndarray | Sequence[float]
    finish: str  # "stop" | "length" | "paused"
    version: int  # version of the weights that sampled the first token
    newest: int  # version of the weights that sampled the last token
    routes: Any = None


def grow(before: Completion | None, piece: Piece) -> Completion:
    """A completion extended by a piece; its version stays that of its first token."""
    tokens, logprobs = np.asarray(piece.token_ids, np.int32), np.asarray(piece.logprobs, np.float32)
    if before is None or not len(before.token_ids):
        retained = before.retained if before else 0
        return Completion(tokens, logprobs, piece.finish, piece.version, piece.newest, retained, piece.routes)
    return replace(
        before,
        token_ids=np.concatenate([before.token_ids, tokens]),
        logprobs=np.concatenate([before.logprobs, logprobs]),
        finish=piece.finish,
        newest=piece.newest if len(tokens) else before.newest,
        routes=piece.routes,
    )


class RolloutEngine(Protocol):
    """Samples, and takes new weights between two calls, or in the middle of one if it can.

    Same weights, prompts, sampling and seed give the same completions, also in another process, as long as the
    number of workers is the same and no weights arrive in the middle. A group with a seed of its own gets the same
    completions whatever is sampled beside it, to the rounding of batched kernels.
    """

    name: str  # shown to the user
    resend: Callable[[], None] | None  # blocks until restarted workers have weights; called by users of `generate`

    @property
    def complete(self) -> bool:
        """Whether all workers have weights; a restarted worker has none until the next `update`."""
        ...

    def generate(
        self, groups: Sequence[Group], sampling: Sampling, seed: int, enough: int = 0
    ) -> Iterator[tuple[int, int, Completion]]:
        """Samples K completions for groups that have none, and continues those that are paused.

        Args:
            enough: stop once finished groups have this many response tokens; 0 = finish all. Unfinished completions
                are then yielded last, paused at their last token; groups not begun may yield nothing.

        Yields (index into groups, place in the group, completion) as completions are finished, each once; those that
        were finished before come first. Raises ChildDied when workers fail too often.
        """
        ...

    def probe(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        """[workers][prompts], one completion of every prompt from every worker, for the parity check.

        Empty if a worker failed: it was restarted, and the weights must be sent again.
        """
        ...

    def update(self, buckets: Iterable[Bucket], version: int) -> bool:
        """Replaces all weights in place; always consumes all buckets.

        Returns:
            False if a worker failed: it was restarted, and all weights must be sent again.
        """
        ...

    def rest(self) -> None:
        """Frees the device memory if it is shared; nothing is sampled until the next update."""
        ...

    def close(self) -> None: ...
