"""C3PO's budget: exactly Φ tokens, in order, only the last response cut."""

from __future__ import annotations

import itertools
import random
import statistics

import pytest
import torch

from ringrl.algo.budget import (
    drop_flat,
    fill_budget,
    fill_shares,
    informative_first,
    length_balanced,
    num_tokens,
    shuffled,
    top_tokens,
)
from ringrl.types import Completion, Group, Prompt, Sample, ScoredGroup, all_of


def ragged(rng: random.Random, count: int) -> list[Sample]:
    samples = []
    for i in range(count):
        n = rng.randint(1, 30)
        completion = Completion(tuple(range(n)), (-1.0,) * n, "stop", 0)
        advantage = rng.choice([-1.0, 0.0, 2.0])
        samples.append(Sample(Prompt(f"p{i}", "math", (7,), {}), completion, 0.0, advantage, all_of(n)))
    return samples


def names(samples: list[Sample]) -> list[str]:
    return [s.prompt.id for s in samples]


def test_exactly_phi_tokens_are_taken_or_all_there_are():
    rng = random.Random(0)
    for _ in range(300):
        samples = ragged(rng, rng.randint(0, 12))
        total = sum(len(s.completion.token_ids) for s in samples)
        phi = rng.randint(1, 250)
        assert sum(s.num_trained for s in fill_budget(samples, phi)) == min(phi, total)


def test_order_is_kept_and_only_the_last_response_is_cut():
    rng = random.Random(1)
    cut = 0
    for _ in range(300):
        samples = ragged(rng, rng.randint(1, 12))
        chosen = fill_budget(samples, rng.randint(1, 150))
        assert names(chosen) == names(samples)[: len(chosen)]
        assert all(s.num_trained == len(s.completion.token_ids) for s in chosen[:-1])
        assert 0 < chosen[-1].num_trained <= len(chosen[-1].completion.token_ids)
        cut += chosen[-1].num_trained < len(chosen[-1].completion.token_ids)
    assert cut > 100


def test_cutting_changes_nothing_but_num_trained():
    (sample,) = ragged(random.Random(2), 1)
    (cut,) = fill_budget([sample], 1)
    assert cut.num_trained == 1
    assert (cut.prompt, cut.completion, cut.reward, cut.advantage) == (
        sample.prompt,
        sample.completion,
        sample.reward,
        sample.advantage,
    )


def test_a_budget_met_at_the_end_of_a_response_takes_no_further_one():
    samples = ragged(random.Random(3), 5)
    phi = num_tokens(samples[:3])
    assert names(fill_budget(samples, phi)) == names(samples[:3])


@pytest.mark.parametrize("shares", [1, 2, 3, 4])
def test_shares_are_consecutive_parts_of_about_equal_tokens(shares: int):
    rng = random.Random(shares)
    for _ in range(50):
        samples = ragged(rng, rng.randint(shares, 40))
        total, longest = num_tokens(samples), max(s.num_trained for s in samples)
        parts = fill_shares(samples, shares * total, shares)  # a budget that cuts nothing shows the split
        assert len(parts) == shares
        assert [s for part in parts for s in part] == samples
        for k in range(1, shares):
            assert abs(sum(num_tokens(p) for p in parts[:k]) - k * total / shares) <= longest


@pytest.mark.parametrize("shares", [1, 2, 4])
def test_every_share_is_filled_with_its_part_of_phi(shares: int):
    rng = random.Random(10 + shares)
    for _ in range(50):
        samples = ragged(rng, 40)
        whole = fill_shares(samples, shares * num_tokens(samples), shares)
        phi = shares * rng.randint(1, 200)
        for part, everything in zip(fill_shares(samples, phi, shares), whole, strict=True):
            assert num_tokens(part) == min(phi // shares, num_tokens(everything))
            assert names(part) == names(everything)[: len(part)]


def test_one_share_is_the_plain_budget():
    samples = ragged(random.Random(4), 20)
    assert fill_shares(samples, 99, 1) == [fill_budget(samples, 99)]


def test_shares_of_nothing_are_empty():
    assert fill_shares([], 12, 3) == [[], [], []]


def test_phi_must_divide_into_the_shares():
    with pytest.raises(AssertionError):
        fill_shares(ragged(random.Random(5), 5), 10, 3)


def group(name: str, rewards: list[float], errors: list[str]) -> ScoredGroup:
    completions = tuple(Completion((1,), (-1.0,), "stop", 0) for _ in rewards)
    return ScoredGroup(
        Group(Prompt(name, "math", (7,), {}), completions),
        ("",) * len(rewards),
        tuple(rewards),
        tuple(errors),
        tuple(errors),
    )


def test_dropping_flat_groups_keeps_the_others_whole_and_in_order():
    fine = ["", "", ""]
    groups = [
        group("unsolved", [0.0, 0.0, 0.0], fine),
        group("mixed", [0.0, 1.0, 0.0], fine),
        group("solved", [1.0, 1.0, 1.0], fine),
        group("partial", [0.0, 0.5, 1.0], fine),
        group("one verdict", [0.0, 1.0, 0.0], ["broke", "", "broke"]),
    ]
    assert [g.group.prompt.id for g in drop_flat(groups)] == ["mixed", "partial"]
    assert [g.solved for g in groups] == [False, False, True, False, True]
    assert [g.unsolved for g in groups] == [True, False, False, False, False]


def test_shuffling_is_a_permutation_given_by_the_seed():
    samples = ragged(random.Random(7), 30)
    before = list(samples)
    assert shuffled(samples, 1) == shuffled(samples, 1) != shuffled(samples, 2)
    assert sorted(names(shuffled(samples, 1))) == sorted(names(samples))
    assert samples == before


def test_overshooting_keeps_the_last_response_whole():
    rng = random.Random(8)
    for _ in range(100):
        samples, phi = ragged(rng, 12), rng.randint(1, 100)
        chosen = fill_budget(samples, phi, overshoot=True)
        assert chosen == samples[: len(chosen)]
        assert num_tokens(chosen[:-1]) < phi or chosen == samples
        assert num_tokens(chosen) >= min(phi, num_tokens(samples))


def test_length_balanced_is_a_permutation_given_by_the_seed():
    samples = ragged(random.Random(9), 37)
    assert sorted(names(length_balanced(samples, 1))) == sorted(names(samples))
    assert length_balanced(samples, 1) == length_balanced(samples, 1) != length_balanced(samples, 2)
    assert length_balanced([], 0) == []
    assert len({length_balanced(samples, seed)[0].num_trained for seed in range(30)}) > 8  # of any class of lengths


def test_leading_parts_of_the_length_balanced_order_have_about_the_lengths_of_the_whole():
    def error(order: list[Sample]) -> float:
        mean = statistics.fmean(s.num_trained for s in order)
        return statistics.fmean(abs(statistics.fmean(s.num_trained for s in order[:n]) - mean) for n in range(8, 64, 8))

    samples = ragged(random.Random(10), 64)
    balanced = [error(length_balanced(samples, seed)) for seed in range(30)]
    assert max(balanced) < 0.5 * statistics.fmean(error(shuffled(samples, seed)) for seed in range(30))
    assert max(balanced) < 0.1 * error(sorted(samples, key=lambda s: s.num_trained))


def variance(samples: tuple[Sample, ...]) -> float:
    return statistics.pvariance([s.advantage for s in samples])


@pytest.mark.parametrize("keep", [0.1, 0.4, 0.5, 0.8, 1.0])
def test_informative_subsets_have_the_largest_variance_of_all_subsets(keep: float):
    rng = random.Random(11)
    for _ in range(20):
        sizes = [rng.randint(2, 8) for _ in range(3)]
        groups, draw = [], rng.choice([lambda: rng.gauss(0, 1), lambda: rng.choice([-0.5, 2.0])])
        for g, k in enumerate(sizes):
            prompt = Prompt(f"g{g}", "math", (7,), {})
            groups.append([Sample(prompt, Completion((1,), (-1.0,), "stop", 0), 0.0, draw(), all_of(1))
                           for _ in range(k)])  # fmt: skip
        samples = [s for group in groups for s in group]
        order = informative_first(samples, keep)
        assert sorted(map(id, order)) == sorted(map(id, samples))
        at = 0
        for group in groups:
            m = min(max(-int(-keep * len(group) // 1), 2), len(group))
            picked = tuple(order[at : at + m])
            assert {s.prompt.id for s in picked} == {group[0].prompt.id}
            best = max(variance(subset) for subset in itertools.combinations(group, m))
            assert variance(picked) == pytest.approx(best, abs=1e-12)
            at += m


def test_top_tokens_are_the_largest_and_exactly_as_many_ties_to_the_earlier():
    rng = random.Random(12)
    for _ in range(100):
        scores = [rng.randint(0, 5) / 7 for _ in range(rng.randint(0, 40))]
        count = rng.randint(0, 45)
        ranked = sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:count]
        assert top_tokens(torch.tensor(scores), count).nonzero().flatten().tolist() == sorted(ranked)
