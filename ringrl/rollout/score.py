"""Prompts to scored groups: a completion is handed to its verifier as soon as it is finished."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from transformers import PreTrainedTokenizerBase

from ringrl.rewards import Verdict, VerifierPool
from ringrl.rollout.engine import RolloutEngine, Sampling, fresh
from ringrl.types import Completion, Group, Prompt, ScoredGroup


@dataclass(frozen=True, slots=True)
class Pending:
    """A group being sampled, whose finished responses are being judged."""

    group: Group  # as it was before this call
    size: int  # K
    completions: dict[int, Completion] = field(default_factory=dict)  # index in the group -> completion
    texts: dict[int, str] = field(default_factory=dict)  # index -> text, finished responses only
    verdicts: dict[int, Future[Verdict]] = field(default_factory=dict)

    @property
    def grown(self) -> Group:
        return Group(self.group.prompt, tuple(self.completions[k] for k in sorted(self.completions)))


def sample(
    engine: RolloutEngine,
    verifier: VerifierPool,
    tokenizer: PreTrainedTokenizerBase,
    groups: Sequence[Group],
    sampling: Sampling,
    seed: int,
    on_group: Callable[[int], None] = lambda done: None,
    enough: int = 0,
) -> tuple[list[Pending], list[Group]]:
    """Completed groups in order with verdicts pending, and those left unfinished once there were `enough` tokens.

    `on_group` is called with the number of completed groups.
    """
    pending = [Pending(g, len(g.completions) or sampling.samples) for g in groups]
    done = 0
    for index, k, completion in engine.generate(groups, sampling, seed, enough):
        p = pending[index]
        p.completions[k] = completion
        if completion.finish == "paused":
            continue
        prompt = p.group.prompt
        p.texts[k] = thinking_prefix(prompt, tokenizer) + read(completion, tokenizer)
        p.verdicts[k] = verifier.submit(prompt.domain, p.texts[k], prompt.reference)
        if len(p.verdicts) == p.size:
            done += 1
            on_group(done)
    unfinished = [p for p in pending if len(p.verdicts) < p.size]
    for future in (v for p in unfinished for v in p.verdicts.values()):
        future.cancel()  # judged again once its group is complete
    return [p for p in pending if len(p.verdicts) == p.size], [p.grown for p in unfinished]


def sample_all(
    engine: RolloutEngine,
    verifier: VerifierPool,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    seed: int,
    on_group: Callable[[int], None] = lambda done: None,
) -> list[ScoredGroup]:
    """Every prompt sampled and judged, in order."""
    pending, _ = sample(engine, verifier, tokenizer, fresh(prompts), sampling, seed, on_group)
    return settle(pending)


def settle(pending: Sequence[Pending]) -> list[ScoredGroup]:
    """Waits for the verdicts; the pool enforces the deadlines."""
    return [_scored(p) for p in pending]


def read(completion: Completion, tokenizer: PreTrainedTokenizerBase) -> str:
    """What the verifier reads: everything but the token that ended generation, which may be one of several."""
    token_ids = completion.token_ids[:-1] if completion.finish == "stop" else completion.token_ids
    return tokenizer.decode(token_ids, skip_special_tokens=False)


def thinking_prefix(prompt: Prompt, tokenizer: PreTrainedTokenizerBase) -> str:
    """ "<think>" when the chat template ends by opening the thought, so that a truncated thought counts as open."""
    tail = tokenizer.decode(prompt.token_ids[-8:])
    return "<think>" if tail.rstrip().endswith("<think>") else ""


def _scored(p: Pending) -> ScoredGroup:
    verdicts = [p.verdicts[k].result() for k in range(p.size)]
    failed = [v.kind == "error" for v in verdicts]
    return ScoredGroup(
        p.grown,
        tuple(p.texts[k] for k in range(p.size)),
        tuple(0.0 if error else v.reward for v, error in zip(verdicts, failed, strict=True)),
        tuple(v.reason if error else "" for v, error in zip(verdicts, failed, strict=True)),
        tuple(v.reason for v in verdicts),
        tests=tuple(v.tests for v in verdicts),
        scores=tuple(v.score for v in verdicts),
        parts=tuple({part.name: part.value for part in v.parts} for v in verdicts),
    )
