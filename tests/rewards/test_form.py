"""Rewards for the form of a response, and verdicts by themselves."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from ringrl.domains import Domain, Reward
from ringrl.rewards import Verdict, VerifierPool, graded
from ringrl.rewards.form import FormatVerifier, LengthVerifier


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        ("<think>1 + 1</think> It is \\boxed{2}.", "right"),
        ("\n<think>1 + 1</think>\\boxed{\\frac{1}{2}}", "right"),
        ("<think>\\boxed{1}?</think>\\boxed{2}", "right"),
        ("It is \\boxed{2}.", "thought"),
        ("<think>1 + 1 \\boxed{2}", "thought"),
        ("1 + 1</think>\\boxed{2}", "thought"),
        ("<think>a</think><think>b</think>\\boxed{2}", "thought"),
        ("<think><think>a</think></think>\\boxed{2}", "thought"),
        ("Well. <think>a</think>\\boxed{2}", "thought"),
        ("</think>a<think>\\boxed{2}", "thought"),
        ("<think>a</think> It is 2.", "answers"),
        ("<think>a</think>\\boxed{1} or \\boxed{2}", "answers"),
        ("<think>\\boxed{2}</think> It is 2.", "answers"),
    ],
)
def test_one_thought_and_one_answer(response: str, reason: str):
    verdict = FormatVerifier()(response, {})
    assert (verdict.kind, verdict.reason) == ("pass" if reason == "right" else "fail", reason)


def test_a_pattern_must_match_in_full():
    verify = FormatVerifier(r"move: [a-h][1-8]\n?")
    assert [verify(t, {}).kind for t in ("move: e4", "move: e4\n", "move: e4!", "a move: e4", "move: e9")] == [
        "pass", "pass", "fail", "fail", "fail",
    ]  # fmt: skip


def test_length_falls_linearly():
    verify = LengthVerifier(10, 20)
    assert [verify("x" * n, {}).score for n in (0, 10, 11, 15, 19, 20, 1000)] == [1, 1, 0.9, 0.5, 0.1, 0, 0]
    assert [verify("x" * n, {}).reason for n in (10, 15, 20)] == ["short", "long", "too_long"]


def test_length_in_tokens(tmp_path: Path):
    words = Tokenizer(WordLevel({"?": 0, "knight": 1, "knave": 2}, unk_token="?"))
    words.pre_tokenizer = Whitespace()
    words.save(str(tmp_path / "tokenizer.json"))
    verify = LengthVerifier(2, 4, str(tmp_path))
    assert [verify("knight " * n, {}).score for n in range(1, 6)] == [1, 1, 0.5, 0, 0]
    assert LengthVerifier(2, 4)("knight", {}).score == 0  # characters
    with pytest.raises(ValueError, match=r"no such file: .*tokenizer\.json"):
        LengthVerifier(2, 4, str(tmp_path / "no"))


def test_they_stand_beside_a_headline():
    options: dict[str, Any] = {"target": 0, "limit": 100}
    rewards = (
        Reward("math", "math", 0.8),
        Reward("form", "format", 0.1),
        Reward("short", "length", 0.1, options=options),
    )
    with VerifierPool(1, 60.0, {"math": Domain("math", rewards, "math")}) as pool:
        verdict = pool.submit("math", "<think>a</think>\\boxed{2}" + " " * 25, {"answer": "2"}).result(timeout=120)
    assert (verdict.kind, verdict.reason, verdict.headline, verdict.reward) == ("pass", "exact", 1.0, 0.95)
    assert {p.name: p.value for p in verdict.parts} == {"math": 1.0, "form": 1.0, "short": 0.5}


def test_kinds_and_scores_of_a_verdict():
    assert (graded(1).kind, graded(0).kind, graded(0.5).kind) == ("pass", "fail", "partial")
    assert (Verdict("pass", "").score, Verdict("fail", "").score, Verdict("error", "").score) == (1.0, 0.0, 0.0)
    assert Verdict("partial", "", score=0.5).reward == 0.5
    bad: list[tuple[Any, float]] = [("partial", math.nan), ("partial", 0.0), ("partial", 1.0), ("pass", 0.5),
                                    ("fail", 1.0), ("good", math.nan), ("error", 1.0)]  # fmt: skip
    for kind, score in bad:
        with pytest.raises(ValueError, match=f"no verdict: kind '{kind}'"):
            Verdict(kind, "", score=score)
    for score in (-1e-9, 1 + 1e-9, math.nan, math.inf):
        with pytest.raises(ValueError, match="expected a number from 0 to 1"):
            graded(score)
