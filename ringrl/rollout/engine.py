"""The interface that the loops sample through."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from ringrl.types import Completion, Group, Prompt

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to sample. For training top_p must be 1: the log-probs must be those of the whole distribution."""

    samples: int  # K, completions per prompt
    temperature: float
    max_total_tokens: int  # prompt + response
    top_p: float = 1.0


class RolloutEngine(Protocol):
    """Samples from one weights version at a time.

    Same weights, prompts, sampling and seed give the same completions, also in another process, as long as the
    number of workers is the same.
    """

    name: str  # what the user is shown
    version: int  # of the weights that sample now

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling, seed: int) -> Iterator[tuple[int, Group]]:
        """Yields (index into prompts, group) as groups are finished. Raises ChildDied past the deadline."""
        ...

    def probe(self, prompt: Prompt, sampling: Sampling) -> list[Completion]:
        """One completion of at most `sampling.max_total_tokens` from every worker, for the parity check."""
        ...

    def update(self, weights: Mapping[str, torch.Tensor], version: int) -> None:
        """Replace all weights in place; names are those of the Hugging Face checkpoint."""
        ...

    def close(self) -> None: ...
