"""Models that answer the problems of an evaluation: an engine of ours, or a server.

Every response is sampled independently with its own seed, from (seed, problem, sample), so it does not depend on which
others are sampled before, beside or after it: an evaluation can be stopped anywhere and continued.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from ringrl.config.sections import Prompting
from ringrl.data.source import Row
from ringrl.domains import Domains
from ringrl.errors import PromptTooLong
from ringrl.rollout.engine import RolloutEngine, Sampling, seed_of
from ringrl.types import Group, Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NO_ROOM = "no_room"  # `finish` of a response whose prompt leaves no room for it


@dataclass(frozen=True, slots=True)
class Ask:
    """A request for one response."""

    bench: str
    problem: Row
    sample: int  # 0 .. k - 1

    def seed(self, seed: int) -> int:
        """It depends on the run's seed, the problem and the sample."""
        return seed_of(seed, self.bench, self.problem["id"], self.sample)


@dataclass(frozen=True, slots=True)
class Answer:
    text: str  # verifier input, a thought begins with <think>; for NO_ROOM the reason
    length: int  # tokens
    finish: str  # "stop" | "length" | NO_ROOM


class Model(Protocol):
    name: str  # shown to the user

    def answers(self, asks: Sequence[Ask]) -> Iterator[tuple[Ask, Answer]]:
        """Yields answers as they finish, in any order; NO_ROOM first where that is known.

        Raises:
            RingError: the model failed; no more answers will come.
        """
        ...

    def close(self) -> None: ...


class EngineModel:
    """A model folder, through a RolloutEngine."""

    def __init__(
        self,
        engine: RolloutEngine,
        tokenizer: PreTrainedTokenizerBase,
        prompting: Prompting,
        domains: Domains,
        temperature: float,
        top_p: float,
        max_total_tokens: int,
        seed: int,
    ) -> None:
        self.engine, self.tokenizer, self.seed = engine, tokenizer, seed
        self.prompting, self.domains = prompting, domains
        self.sampling = Sampling(1, temperature, max_total_tokens, top_p)
        self.name = engine.name

    def answers(self, asks: Sequence[Ask]) -> Iterator[tuple[Ask, Answer]]:
        from ringrl.rollout.score import read, thinking_prefix  # imported late: transformers takes seconds

        problems = {(a.bench, a.problem["id"]): a.problem for a in asks}
        prompts = {key: self._prompt(problem) for key, problem in problems.items()}
        groups: list[Group] = []
        begun: list[Ask] = []
        for ask in asks:
            prompt = prompts[ask.bench, ask.problem["id"]]
            if isinstance(prompt, str):
                yield ask, Answer(prompt, 0, NO_ROOM)
            else:
                groups.append(Group(prompt, (), ask.seed(self.seed)))
                begun.append(ask)
        for index, _, completion in self.engine.generate(groups, self.sampling, self.seed):
            text = thinking_prefix(groups[index].prompt, self.tokenizer) + read(completion, self.tokenizer)
            yield begun[index], Answer(text, len(completion.token_ids), completion.finish)

    def _prompt(self, problem: Row) -> Prompt | str:
        """The prompt, or why it leaves no room for a response."""
        from ringrl.data.chat import make_prompts

        room = self.sampling.max_total_tokens
        try:
            return make_prompts([problem], self.tokenizer, self.prompting, room, self.domains)[0]
        except PromptTooLong as e:
            return str(e)

    def close(self) -> None:
        self.engine.close()
