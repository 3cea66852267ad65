"""Responses of an engine with seeds of their own: the same whatever is sampled beside them, and fairly drawn."""

from __future__ import annotations

import pytest
import torch

from ringrl.config.sections import Prompting
from ringrl.data.chat import load_tokenizer
from ringrl.data.tiny import build_model
from ringrl.domains import Domains
from ringrl.rollout.engine import Sampling
from ringrl.rollout.local import LocalEngine, OwnNoise
from ringrl.rollout.respond import Ask, EngineModel


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> EngineModel:
    folder = tmp_path_factory.mktemp("respond") / "model"
    corpus = ["What is 12 + 34? <think>10 + 30 = 40</think> The answer is \\boxed{46}."] * 20
    build_model(folder, corpus, 0, vocab_size=320, layers=1, hidden=32, experts=2, moe_intermediate=32)
    plain = Prompting(suffix={})
    engine = LocalEngine(str(folder), "float32", 8)
    return EngineModel(engine, load_tokenizer(str(folder), plain), plain, Domains(), 1.0, 0.95, 64, 3)


def test_a_response_depends_on_its_problem_and_sample_alone(model: EngineModel):
    problems = [{"id": str(i), "domain": "math", "problem": "1+" * i + "1?", "answer": "1"} for i in range(4)]
    asks = [Ask("b", p, i) for p in problems for i in range(5)]
    whole = dict(zip([a.seed(3) for a in asks], asks, strict=True))
    assert len(whole) == 20
    answers = {a.seed(3): answer for a, answer in model.answers(asks)}
    assert len({a.text for a in answers.values()}) > 15
    some = asks[13:4:-2]
    again = {a.seed(3): answer for a, answer in model.answers(some)}
    assert again == {a.seed(3): answers[a.seed(3)] for a in some}


def test_noise_of_its_own_draws_from_the_distribution():
    n, vocabulary = 20_000, 6
    scores = torch.tensor([2.0, 1.5, 1.0, 0.0, -1.0, -6.0])
    noise = OwnNoise(range(n), Sampling(1, 0.8, 8, 0.95))
    drawn = noise(torch.zeros(n, 1, dtype=torch.long), scores.expand(n, vocabulary)).argmax(-1)
    p = torch.softmax(scores / 0.8, -1)
    p[p.cumsum(-1) - p >= 0.95] = 0  # the smallest set of tokens with 95 % stays
    p /= p.sum()
    seen = torch.bincount(drawn, minlength=vocabulary) / n
    assert torch.all((seen - p).abs() <= 4 * (p * (1 - p) / n).sqrt())
    assert (p == 0).any()
