"""The verdicts of reasoning-gym's scorers, on the generators' own answers and on everything else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("reasoning_gym")
from reasoning_gym.factory import DATASETS

from ringrl.data import gym
from ringrl.rewards.gym import GymVerifier, final_answer, may_be_evaluated

ODD = ("", "garbage", "0", "-1", "[[1, 2], [3]]", "{'a': 1}", "None", "1/0", "((((", "[1,", "\x00", "é漢字", "1e999",
       "nan", "a, b\nc d", "True", "x" * 3000, "9" * 5000)  # fmt: skip


@pytest.fixture(scope="module")
def verify() -> GymVerifier:
    return GymVerifier(total_s=10.0)


def row_of(task: str, **options: Any) -> dict[str, Any]:
    """As `gym.problems` makes it, in this process."""
    entry = gym.plain(gym.dataset(task, {"size": 1, "seed": 7, **options})[0])
    return {"task": task, "options": options, "entry": entry}


@pytest.mark.parametrize("task", sorted(DATASETS.keys() - gym.UNSUPPORTED))
def test_the_generators_answer_is_right_and_odd_ones_are_no_error(task: str, verify: GymVerifier) -> None:
    row = row_of(task)
    right = verify(f"<think>Easy.</think><answer>{row['entry']['answer']}</answer>", row)
    assert (right.kind, right.reason) == ("pass", "right")
    odd = {answer: verify(f"<answer>{answer}</answer>", row) for answer in ODD}
    passed = {answer for answer, verdict in odd.items() if verdict.kind == "pass"}
    assert passed <= {"0", "-1", "True"}, passed  # which may be right, or near enough
    assert not {v.kind for v in odd.values()} & {"error"}


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("<answer>7</answer>", "7"),
        ("<think>is it <answer>6</answer>?</think>So <answer> 7\n</answer>.", "7"),
        ("<answer>6</answer> or rather <answer>7</answer>", "7"),
        ("<answer>6 or <answer>7</answer>", "7"),
        ("<answer></answer>", ""),
        ("<think>it is <answer>7</answer>", None),
        ("<answer>7", None),
        ("It is \\boxed{7}.", None),
    ],
)
def test_the_final_answer_is_the_last_one_after_the_thought(response: str, answer: str | None) -> None:
    assert final_answer(response) == answer


def test_a_response_without_an_answer_fails(verify: GymVerifier) -> None:
    row = row_of("chain_sum")
    verdict = verify(f"It is {row['entry']['answer']}.", row)
    assert (verdict.kind, verdict.reason) == ("fail", "no_answer")


def test_an_answer_that_hangs_its_scorer_fails() -> None:
    verify, row = GymVerifier(total_s=1.0), row_of("countdown")
    for _ in range(2):
        verdict = verify("<answer>9**9**9**9</answer>", row)
        assert (verdict.kind, verdict.reason) == ("fail", "timeout")
    assert verify(f"<answer>{row['entry']['answer']}</answer>", row).kind == "pass"


@pytest.mark.parametrize("task", ["string_insertion", "countdown"])
def test_an_answer_is_evaluated_only_when_it_does_nothing_but_arithmetic(
    task: str, verify: GymVerifier, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    for attack in (f"open({str(mark)!r}, 'w').write('x')", f"exp(\"open({str(mark)!r}, 'w')\")"):
        verdict = verify(f"<answer>{attack}</answer>", row_of(task))
        assert (verdict.kind, verdict.reason) == ("fail", "not_evaluated")
    assert not mark.exists()


@pytest.mark.parametrize(
    ("task", "answer", "allowed"),
    [
        ("countdown", "(3 + 4)*5/2 - 1", True),
        ("countdown", "2**3", True),
        ("countdown", "().__class__", False),
        ("countdown", "exit()", False),
        ("countdown", "sin('1')", False),
        ("countdown", "exp(x)(y)", False),
        ("countdown", "lambda: 0", False),
        ("countdown", "5! + ().__class__", False),
        ("simple_integration", "x**2/2 + exp(2*x) + C", True),
        ("binary_matrix", "[[0, 1], [1, 2]]", True),
        ("binary_matrix", "0 1\n1 2", True),
        ("binary_matrix", "[[0 for _ in range(9)]]", False),
        ("string_insertion", "ABBA", True),
        ("string_insertion", "['A', 'B']", True),
        ("string_insertion", "list('AB')", False),
        ("caesar_cipher", "exit()", True),
    ],
)
def test_what_may_be_evaluated(task: str, answer: str, allowed: bool) -> None:
    assert may_be_evaluated(answer, task) is allowed


@pytest.mark.parametrize(
    "change",
    [
        {"task": "no_such_task"},
        {"options": {"no_such_option": 1}},
        {"entry": {}},
        {"entry": {"question": "?", "answer": "7", "metadata": {}}},
    ],
)
def test_a_bad_row_is_an_error_whatever_the_response_says(change: dict[str, Any], verify: GymVerifier) -> None:
    row = {**row_of("countdown"), **change}
    for response in ("<answer>7</answer>", "nothing"):
        with pytest.raises((ValueError, KeyError)):
            verify(response, row)


def test_a_scorer_goes_by_the_options_that_made_its_entry(verify: GymVerifier) -> None:
    row = row_of("knights_knaves", n_people=4)
    assert verify(f"<answer>{row['entry']['answer']}</answer>", row).kind == "pass"
