"""avg@k, its standard error and pass@k against enumeration; errors are no verdicts."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from ringrl.evals.metrics import Outcome, part_means, pass_at_k, report, samples_needed, summarize, too_many_errors
from ringrl.types import Completion, Group, Prompt, ScoredGroup


def group(rewards: list[float], errors: list[str] | None = None, lengths: list[int] | None = None) -> ScoredGroup:
    lengths = lengths or [1] * len(rewards)
    completions = tuple(Completion((5,) * n, (-1.0,) * n, "length" if n >= 10 else "stop", 0) for n in lengths)
    prompt = Prompt("p", "math", (1,), {"answer": "1"})
    texts = ("",) * len(rewards)
    failed = tuple(errors or texts)
    reasons = tuple(e or ("exact" if r == 1 else "wrong") for e, r in zip(failed, rewards, strict=True))
    return ScoredGroup(Group(prompt, completions), texts, tuple(rewards), failed, reasons)


@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_pass_at_k_is_the_share_of_subsets_with_a_right_one(n: int):
    for correct in range(n + 1):
        right = [i < correct for i in range(n)]
        for k in range(1, n + 1):
            subsets = list(combinations(right, k))
            assert pass_at_k(n, correct, k) == pytest.approx(sum(map(any, subsets)) / len(subsets), abs=1e-12)


def test_average_and_standard_error_are_over_problems():
    rng = random.Random(0)
    groups = [group([float(rng.randint(0, 1)) for _ in range(6)]) for _ in range(9)]
    numbers = summarize(groups)
    means = [sum(g.rewards) / 6 for g in groups]
    centre = sum(means) / 9
    variance = sum((m - centre) ** 2 for m in means) / 8
    assert numbers["avg"] == pytest.approx(centre, abs=1e-12)
    assert numbers["se"] == pytest.approx(math.sqrt(variance / 9), abs=1e-12)
    assert (numbers["k"], numbers["n"], numbers["errors"]) == (6, 9, 0)
    assert numbers["pass_k"] == pytest.approx(sum(any(g.rewards) for g in groups) / 9, abs=1e-12)


def test_errors_are_counted_and_left_out_of_every_score():
    with_errors = [
        group([1.0, 0.0, 0.0, 0.0], ["", "deadline", "", "crash"]),
        group([0.0, 0.0, 0.0, 0.0], ["x", "x", "x", "x"]),
        group([0.0, 1.0, 1.0, 0.0]),
    ]
    numbers = summarize(with_errors)
    clean = summarize([group([1.0, 0.0]), group([0.0, 1.0, 1.0, 0.0])])
    assert (numbers["errors"], numbers["n"], numbers["k"]) == (6, 3, 4)
    assert (numbers["avg"], numbers["se"], numbers["pass_k"]) == (clean["avg"], clean["se"], clean["pass_k"])
    assert numbers["avg"] == 0.5


def test_verdicts_are_counted_by_kind_and_reason():
    late = "deadline of 20 s passed"
    groups = [
        group([1.0, 0.0, 0.0, 0.0], ["", late, "", "the reference does not parse: }{"]),
        group([0.0, 0.0], ["the reference does not parse: ^", ""]),
    ]
    assert summarize(groups)["verdicts"] == {
        "pass": {"exact": 1},
        "fail": {"wrong": 2},
        "error": {"the reference does not parse": 2, late: 1},
    }


def test_too_many_errors_are_a_share_and_a_number():
    def message(errors: int, total: int, share: float) -> str:
        return too_many_errors([group([0.0] * total, ["late"] * errors + [""] * (total - errors))], share)

    assert message(4, 4, 0.1) == ""  # too few to tell
    assert message(10, 100, 0.1) == ""
    assert message(11, 100, 0.1).startswith("the verifiers failed on 11 of 100 responses, expected at most verify.max_")
    assert "11 times 'late'" in message(11, 100, 0.1)
    assert message(5, 5, 1.0) == ""
    assert message(5, 5000, 0.0)
    assert too_many_errors([], 0.0) == ""


def test_what_is_published_counts_an_error_as_not_right():
    failed = Outcome(0.0, True, 10, False, reason="the checker failed")
    problems = {"a": [Outcome(1.0, False, 10, False), failed, failed, failed], "b": [failed] * 4}
    numbers = report(problems, (), False, 0.5)
    assert (numbers["score"], numbers["score_without_errors"], numbers["errors"]) == (0.125, 1.0, 7)
    assert numbers["pass"]["2"] == 0.25
    assert numbers["problems"][1] == {"id": "b", "passed": 0, "total": 4, "reward": 0.0, "errors": 4}


def test_part_of_a_reward_is_averaged_but_does_not_pass():
    numbers = summarize([group([0.5, 0.5])])
    assert (numbers["avg"], numbers["pass_k"]) == (0.5, 0.0)
    assert numbers["verdicts"] == {"pass": {}, "fail": {}, "error": {}, "partial": {"wrong": 2}}
    assert "partial" not in summarize([group([1.0, 0.0])])["verdicts"]


def with_scores(rewards: list[float], scores: list[float], errors: list[str] | None = None) -> ScoredGroup:
    return replace(group(rewards, errors), scores=tuple(scores))


def test_solved_and_unsolved_go_by_the_headline_and_flat_by_the_reward():
    def kinds(g: ScoredGroup) -> tuple[bool, bool, bool]:
        return g.solved, g.unsolved, g.flat

    assert kinds(with_scores([1.0, 0.75], [1.0, 1.0])) == (True, False, False)
    assert kinds(with_scores([0.25, 0.0], [0.0, 0.0])) == (False, True, False)
    assert kinds(with_scores([0.5, 0.5], [1.0, 0.0])) == (False, False, True)
    assert kinds(with_scores([0.5, 0.5], [0.5, 0.5])) == (False, False, True)
    assert kinds(with_scores([0.0, 0.75], [0.0, 1.0], ["late", ""])) == (True, False, True)
    assert kinds(with_scores([0.0], [0.0], ["late"])) == (False, True, True)
    for rewards in ([1.0, 1.0], [0.0, 0.0], [0.0, 1.0]):  # with one reward, as ever
        assert group(rewards).scores == tuple(rewards)
        assert kinds(group(rewards)) == (rewards == [1, 1], rewards == [0, 0], rewards != [0, 1])


def test_scores_are_summarized_and_not_rewards():
    numbers = summarize([with_scores([0.9, 0.1], [1.0, 0.5]), with_scores([0.7, 0.7], [0.0, 0.5])])
    assert (numbers["avg"], numbers["pass_k"]) == (0.5, 0.5)


def test_parts_are_averaged_by_name_over_what_was_judged():
    one = replace(group([0.5, 0.0], ["", "late"]), parts=({"won": 1.0, "short": 0.0}, {}))
    two = replace(group([1.0, 0.25]), parts=({"won": 1.0, "short": 1.0}, {"won": 0.0, "short": 0.5}))
    other = replace(group([1.0]), parts=({"math": 1.0},))
    assert part_means([one, two, other]) == {"math": 1.0, "short": 0.5, "won": pytest.approx(2 / 3)}
    assert part_means([]) == {}


def test_lengths_and_truncation_count_every_response():
    numbers = summarize([group([1.0, 0.0], ["", "crash"], [4, 10]), group([0.0, 0.0], None, [10, 12])])
    assert (numbers["length_mean"], numbers["truncated_frac"]) == (9.0, 0.75)


def test_one_problem_has_no_standard_error_and_none_have_no_score():
    assert summarize([group([1.0, 0.0])])["se"] == 0.0
    nothing = dict.fromkeys(("avg", "se", "pass_k", "k", "n", "length_mean", "truncated_frac", "errors"), 0)
    assert summarize([]) == nothing | {"verdicts": {"pass": {}, "fail": {}, "error": {}}}


def outcomes(rewards: list[float], answers: list[str] | None = None) -> list[Outcome]:
    return [Outcome(r, False, 10, False, a) for r, a in zip(rewards, answers or [""] * len(rewards), strict=True)]


def test_pass_at_k_of_a_thousand_samples():
    for c in range(0, 1001, 50):
        product, before = 1.0, 1.0
        for k in range(1, 1001):  # 1 - prod (n - c - i) / (n - i), the same in floating point
            product *= max(1000 - c - (k - 1), 0) / (1000 - (k - 1))
            if k % 37 in (0, 1):
                value = pass_at_k(1000, c, k)
                assert value == pytest.approx(1 - product, abs=1e-9)
                assert 0 <= value <= 1
                assert 1 - value <= before + 1e-12
                before = 1 - value
    with pytest.raises(ValueError, match=r"^pass@k: got k = 1001, expected at most n = 1000 samples$"):
        pass_at_k(1000, 3, 1001)


def test_standard_error_over_samples_is_that_of_sampling_the_same_problems_again():
    """Against many repetitions of the whole evaluation, with known chances; the one over problems is much larger."""
    rng = np.random.default_rng(0)
    chances, k = np.linspace(0, 1, 21), 16
    runs = rng.random((4000, 21, k)) < chances[None, :, None]
    actual = runs.mean((1, 2)).std()
    groups = [{str(i): outcomes([float(x) for x in g]) for i, g in enumerate(run)} for run in runs[:40]]
    said = [report(g, (), False, 1.0) for g in groups]
    assert np.mean([s["se_samples"] for s in said]) == pytest.approx(actual, rel=0.03)
    assert all(s["se"] > 2 * s["se_samples"] for s in said)
    needed = [s["precision"]["samples"] for s in said]  # for one point
    expected = (chances * (1 - chances)).sum() / 21**2 / 0.01**2
    assert np.mean(needed) == pytest.approx(expected, rel=0.05)


def test_of_graded_scores_the_standard_error_is_that_of_their_own_spread():
    """Uniform on [0.4, 0.6] has 1/75 of the variance that yes and no of the same mean have."""
    rng = np.random.default_rng(1)
    scores = rng.uniform(0.4, 0.6, (500, 30, 8))
    actual = scores.mean((1, 2)).std()
    groups = [{str(i): outcomes([float(x) for x in g]) for i, g in enumerate(run)} for run in scores[:40]]
    said = [report(g, (), False, 1.0) for g in groups]
    assert np.mean([s["se_samples"] for s in said]) == pytest.approx(actual, rel=0.1)
    expected = 0.2**2 / 12 / 30 / 0.001**2
    assert np.mean([samples_needed(list(g.values()), 0.001) for g in groups]) == pytest.approx(expected, rel=0.1)
    assert {s["pass"]["8"] for s in said} == {0.0}
    assert {s["length_right"] for s in said} == {None}


def test_yes_and_no_have_the_binomial_error():
    rng = random.Random(3)
    judged = [outcomes([float(rng.random() < 0.4) for _ in range(7)]) for _ in range(11)]
    p = [sum(o.reward for o in g) / 7 for g in judged]
    numbers = report({str(i): g for i, g in enumerate(judged)}, (), False, 0.5)
    assert numbers["se_samples"] == pytest.approx(math.sqrt(sum(x * (1 - x) / 6 for x in p)) / 11, rel=1e-12)


def test_precision_is_unknown_with_one_sample_a_problem():
    numbers = report({"a": outcomes([1.0]), "b": outcomes([0.0])}, (), False, 0.5)
    assert numbers["se_samples"] is None
    assert numbers["precision"] == {"points": 0.5, "samples": None}
    assert report({"a": outcomes([1.0, 1.0])}, (), False, 0.5)["precision"]["samples"] == 1


@pytest.mark.parametrize(
    ("answers", "rewards", "expected"),
    [
        ("7 7 8", [1, 1, 0], 1.0),
        ("7 8 8", [1, 0, 0], 0.0),
        ("7 8", [1, 0], 1 / 2),
        ("7 8 9", [1, 0, 0], 1 / 3),
        ("7 07 8 8", [1, 1, 0, 0], 1 / 2),  # right answers are one answer, however written
        ("7 - - -", [1, 0, 0, 0], 1.0),  # who has no answer has no vote
        ("8 9", [0, 0], 0.0),
        ("7 8 8", [1, 0.9, 0.9], 0.0),  # nearly right is not right
        ("8 8", [0.9, 0.9], 0.0),
    ],
)
def test_majority_is_the_chance_that_the_most_frequent_answer_is_right(
    answers: str, rewards: list[float], expected: float
):
    voted = outcomes([float(r) for r in rewards], ["" if a == "-" else a for a in answers.split()])
    assert report({"p": voted}, (), True, 0.5)["majority"] == pytest.approx(expected)
    assert report({"p": voted}, (), False, 0.5)["majority"] is None


def test_pass_at_k_is_reported_for_powers_of_two_the_most_and_what_was_asked_for():
    groups = {"a": outcomes([1.0] * 2 + [0.0] * 4), "b": outcomes([0.0] * 6)}
    numbers = report(groups, (3,), False, 0.5)
    assert list(numbers["pass"]) == ["1", "2", "3", "4", "6"]
    assert numbers["pass"]["3"] == pytest.approx(pass_at_k(6, 2, 3) / 2)
    assert numbers["pass"]["1"] == pytest.approx(numbers["score"])
    assert numbers["problems"][0] == {"id": "a", "passed": 2, "total": 6, "reward": 2.0, "errors": 0}
    assert (numbers["length_right"], numbers["length_wrong"]) == (10, 10)
