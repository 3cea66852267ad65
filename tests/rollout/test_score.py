"""From an engine's completions to scored groups: each goes to its verifier when it comes, and all stay in order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ringrl.domains import BUILT_IN, Domain, Reward
from ringrl.rewards import Verdict, VerifierPool
from ringrl.rollout.engine import Sampling, fresh
from ringrl.rollout.score import sample, settle
from ringrl.types import Completion, Group, Prompt

K = 2
SAMPLING = Sampling(K, 1.0, 100)
PROMPTS = [Prompt(str(n), "math", (65,), {"answer": str(n)}) for n in range(3)]


class Letters:
    """A tokenizer whose tokens are characters."""

    eos_token_id = 0

    def decode(self, ids: Any, **options: Any) -> str:
        return "".join(map(chr, ids))


class Pool(VerifierPool):
    """Keeps what it was asked."""

    def __init__(self, domains: Mapping[str, Domain] = BUILT_IN) -> None:
        super().__init__(2, 60.0, domains)
        self.asked: list[tuple[str, Future[Verdict]]] = []

    def submit(self, domain: str, text: str, reference: Mapping[str, object]) -> Future[Verdict]:
        self.asked.append((text, super().submit(domain, text, reference)))
        return self.asked[-1][1]


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with Pool() as pool:
        yield pool


def completion(text: str, finish: str = "stop") -> Completion:
    ids = (*map(ord, text), *[Letters.eos_token_id] * (finish == "stop"))
    return Completion(ids, (-1.0,) * len(ids), finish, 0)


def answer(n: int) -> Completion:
    return completion(rf"\boxed{{{n}}}")


class Engine:
    """Yields what it is told; before each, waits for the verdict on the one before."""

    def __init__(self, pool: Pool, *script: tuple[int, int, Completion]) -> None:
        self.pool, self.script, self.known = pool, script, list[str]()

    def generate(self, *args: Any) -> Iterator[tuple[int, int, Completion]]:
        before = len(self.pool.asked)
        for item in self.script:
            yield item
            for _, future in self.pool.asked[before:]:
                self.known.append(future.result(timeout=60).kind)
            before = len(self.pool.asked)


def test_verdicts_are_there_while_others_are_sampled(pool: Pool):
    order = [(1, 1, answer(1)), (0, 0, answer(5)), (2, 1, answer(2)), (1, 0, answer(5)), (2, 0, answer(2)),
             (0, 1, answer(0))]  # fmt: skip
    engine, done = Engine(pool, *order), []
    pending, unfinished = sample(engine, pool, Letters(), fresh(PROMPTS), SAMPLING, 0, done.append)  # type: ignore
    assert engine.known == ["pass", "fail", "pass", "fail", "pass", "pass"]  # each before the next completion came
    assert (done, unfinished) == ([1, 2, 3], [])
    scored = settle(pending)
    assert [g.group.prompt for g in scored] == PROMPTS
    assert [g.rewards for g in scored] == [(0.0, 1.0), (0.0, 1.0), (1.0, 1.0)]
    assert [g.reasons for g in scored] == [("wrong", "exact"), ("wrong", "exact"), ("exact", "exact")]
    assert [g.texts[0] for g in scored] == [r"\boxed{5}", r"\boxed{5}", r"\boxed{2}"]


def test_a_group_that_is_carried_over_is_judged_when_it_is_whole(pool: Pool):
    paused = completion(r"\boxed{", "paused")
    engine = Engine(pool, (0, 0, answer(0)), (0, 1, paused), (1, 0, answer(1)), (1, 1, answer(1)))
    pending, unfinished = sample(engine, pool, Letters(), fresh(PROMPTS), SAMPLING, 0, enough=1)  # type: ignore
    assert [g.rewards for g in settle(pending)] == [(1.0, 1.0)]
    assert unfinished == [Group(PROMPTS[0], (answer(0), paused)), Group(PROMPTS[2], ())]
    engine = Engine(pool, (0, 0, answer(0)), (0, 1, answer(7)), (1, 0, answer(2)), (1, 1, answer(2)))
    pending, unfinished = sample(engine, pool, Letters(), unfinished, SAMPLING, 0)  # type: ignore
    assert unfinished == []
    assert [(g.group.prompt.id, g.rewards) for g in settle(pending)] == [("0", (1.0, 0.0)), ("2", (1.0, 1.0))]


MINE = """
def won(response, row):
    return response == row["answer"]

def near(response, row):
    return 1 / (1 + abs(int(response) - int(row["answer"])))
"""


def test_a_group_has_its_rewards_its_scores_and_every_part(tmp_path: Path):
    (tmp_path / "mine.py").write_text(MINE)
    rewards = (Reward("won", f"{tmp_path}/mine.py:won", 0.5), Reward("near", f"{tmp_path}/mine.py:near", 0.5))
    prompt = Prompt("p", "dice", (65,), {"answer": "4"})
    with Pool({"dice": Domain("dice", rewards, "won")}) as pool:
        said = [completion(text) for text in ("4", "5", "7", "six")]
        engine = Engine(pool, *[(0, k, c) for k, c in enumerate(said)])
        pending, _ = sample(engine, pool, Letters(), fresh([prompt]), replace(SAMPLING, samples=4), 0)  # type: ignore
        (group,) = settle(pending)
    assert group.rewards == (1.0, 0.25, 0.125, 0.0)
    assert group.scores == (1.0, 0.0, 0.0, 0.0)
    assert group.parts == ({"won": 1.0, "near": 1.0}, {"won": 0.0, "near": 0.5}, {"won": 0.0, "near": 0.25}, {})
    assert [bool(e) for e in group.errors] == [False, False, False, True]
    assert group.errors[3].startswith(
        "near: ValueError: invalid literal for int() with base 10: 'six' (mine.py, line 6)"
    )
    assert group.judged == [1.0, 0.25, 0.125]
    assert (group.solved, group.unsolved, group.flat) == (False, False, False)
