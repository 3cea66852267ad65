"""Who answers the problems of an evaluation: an engine of ours, or a server.

Every response is asked for by itself, with a seed of its own from (seed, problem, sample): which others are sampled
beside it, before or after, does not matter, so an evaluation can be stopped anywhere and continued.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from transformers import PreTrainedTokenizerBase

from ringrl.data.chat import make_prompts
from ringrl.data.source import Row
from ringrl.evals.score import read, thinking_prefix
from ringrl.parts import Prompting
from ringrl.rollout.engine import RolloutEngine, Sampling
from ringrl.types import Group


@dataclass(frozen=True, slots=True)
class Ask:
    """One response that is wanted."""

    bench: str
    problem: Row
    sample: int  # 0 .. k - 1

    def seed(self, seed: int) -> int:
        """31 bits that depend on the run's seed, the problem and the sample."""
        return zlib.crc32(f"{seed}/{self.bench}/{self.problem['id']}/{self.sample}".encode()) >> 1


@dataclass(frozen=True, slots=True)
class Answer:
    text: str  # what the verifier reads; a thought begins with <think>
    length: int  # tokens
    finish: str  # "stop" | "length"


class Model(Protocol):
    name: str  # what the user is shown

    def answers(self, asks: Sequence[Ask]) -> Iterator[tuple[Ask, Answer]]:
        """Each as soon as it is there, in any order. Raises RingError when there will be no more."""
        ...

    def close(self) -> None: ...


class EngineModel:
    """A model folder, through a RolloutEngine."""

    def __init__(
        self,
        engine: RolloutEngine,
        tokenizer: PreTrainedTokenizerBase,
        prompting: Prompting,
        temperature: float,
        top_p: float,
        max_total_tokens: int,
        seed: int,
    ) -> None:
        self.engine, self.tokenizer, self.prompting, self.seed = engine, tokenizer, prompting, seed
        self.sampling = Sampling(1, temperature, max_total_tokens, top_p)
        self.name = engine.name

    def answers(self, asks: Sequence[Ask]) -> Iterator[tuple[Ask, Answer]]:
        problems = {(a.bench, a.problem["id"]): a.problem for a in asks}
        made = make_prompts(list(problems.values()), self.tokenizer, self.prompting, self.sampling.max_total_tokens)
        prompts = dict(zip(problems, made, strict=True))
        groups = [Group(prompts[a.bench, a.problem["id"]], (), a.seed(self.seed)) for a in asks]
        for index, _, completion in self.engine.generate(groups, self.sampling, self.seed):
            text = thinking_prefix(groups[index].prompt, self.tokenizer) + read(completion.token_ids, self.tokenizer)
            yield asks[index], Answer(text, len(completion.token_ids), completion.finish)

    def close(self) -> None:
        self.engine.close()
