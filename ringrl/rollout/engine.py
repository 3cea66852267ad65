"""The interface that the loops sample through."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

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


def fresh(prompts: Sequence[Prompt]) -> list[Group]:
    """Groups still to be sampled."""
    return [Group(p, ()) for p in prompts]


def grow(before: Completion | None, tokens: Sequence[int], logprobs: Sequence[float], finish: str, version: int,
         routes: Any = None) -> Completion:  # fmt: skip
    """A completion with the tokens that it was continued by; its version stays that of its first token."""
    if before is None or not before.token_ids:
        return Completion(tuple(tokens), tuple(logprobs), finish, version, before.retained if before else 0, routes)
    return replace(
        before,
        token_ids=before.token_ids + tuple(tokens),
        logprobs=before.logprobs + tuple(logprobs),
        finish=finish,
        routes=routes,
    )


class RolloutEngine(Protocol):
    """Samples from one weights version at a time.

    Same weights, prompts, sampling and seed give the same completions, also in another process, as long as the
    number of workers is the same.
    """

    name: str  # what the user is shown
    version: int  # of the weights that sample now

    def generate(
        self, groups: Sequence[Group], sampling: Sampling, seed: int, enough: int = 0
    ) -> Iterator[tuple[int, Group]]:
        """Samples K completions for groups that have none, and continues those that are paused.

        Args:
            enough: stop once finished groups have this many response tokens; 0 = finish all. What is unfinished
                then is yielded last, with completions paused at their last token, or none at all.

        Yields (index into groups, group) as groups are finished. Raises ChildDied past the deadline.
        """
        ...

    def probe(self, prompt: Prompt, sampling: Sampling) -> list[Completion]:
        """One completion of at most `sampling.max_total_tokens` from every worker, for the parity check."""
        ...

    def update(self, weights: Mapping[str, torch.Tensor], version: int) -> None:
        """Replace all weights in place; names are those of the Hugging Face checkpoint."""
        ...

    def close(self) -> None: ...
