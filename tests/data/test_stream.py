"""A stream is permutations one after another, and where it is, is one number."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from ringrl.data.stream import FLOOR, Stream

ITEMS = list("abcdefghijk")


@pytest.mark.parametrize("size", [1, 3, 11, 40])
def test_every_pass_is_a_permutation(size: int):
    stream, taken = Stream(ITEMS, seed=0), []
    while len(taken) < 4 * len(ITEMS):
        batch = stream.take(size)
        assert len(batch) == size
        taken += batch
    for i in range(4):
        assert sorted(taken[i * len(ITEMS) : (i + 1) * len(ITEMS)]) == ITEMS


def test_passes_and_seeds_differ():
    first, second = Stream(ITEMS, seed=0), Stream(ITEMS, seed=1)
    orders = [first.take(len(ITEMS)) for _ in range(3)] + [second.take(len(ITEMS))]
    assert len({tuple(o) for o in orders}) == 4
    assert orders[0] != ITEMS


def test_the_size_of_a_batch_does_not_change_the_order():
    whole, parts, rng = Stream(ITEMS, seed=3), Stream(ITEMS, seed=3), random.Random(0)
    sizes = [rng.randint(0, 7) for _ in range(20)]
    assert [x for n in sizes for x in parts.take(n)] == whole.take(sum(sizes))


@pytest.mark.parametrize("taken", [0, 1, 10, 11, 12, 35])
def test_a_stream_made_again_with_taken_goes_on_with_the_same_items(taken: int):
    stream = Stream(ITEMS, seed=5)
    stream.take(taken)
    assert stream.taken == taken
    assert Stream(ITEMS, seed=5, taken=taken).take(30) == stream.take(30)


def test_an_empty_stream_is_refused():
    with pytest.raises(AssertionError):
        Stream([], seed=0)


RATES = [i / 10 for i in range(11)]


def passes(curriculum: str, n: int, seed: int = 0) -> list[list[int]]:
    stream = Stream(range(11), seed, 0, curriculum, RATES)
    return [stream.take(11) for _ in range(n)]


@pytest.mark.parametrize("curriculum", ["easy-first", "around-half"])
def test_a_curriculum_is_a_permutation_that_goes_on_where_it_was(curriculum: str):
    whole = [x for each in passes(curriculum, 3) for x in each]
    assert all(sorted(whole[i : i + 11]) == list(range(11)) for i in (0, 11, 22))
    for taken in (0, 5, 11, 20):
        stream = Stream(range(11), 0, taken, curriculum, RATES)
        parts = stream.take(3) + stream.take(4)
        assert parts == whole[taken : taken + 7]


def test_easy_first_goes_from_high_to_low_and_shuffles_ties():
    assert passes("easy-first", 2) == [list(range(10, -1, -1))] * 2
    stream = Stream(range(40), 0, 0, "easy-first", [1.0] * 20 + [0.5] * 20)
    first, second = stream.take(40), stream.take(40)
    assert set(first[:20]) == set(second[:20]) == set(range(20))
    assert first != second


def test_around_half_draws_first_by_weight():
    n = 4000
    firsts = Counter(order[0] for order in passes("around-half", n))
    weights = [4 * p * (1 - p) + FLOOR for p in RATES]
    for i, weight in enumerate(weights):
        p = weight / sum(weights)
        assert abs(firsts[i] / n - p) < 4 * (p * (1 - p) / n) ** 0.5
    seconds = Counter(order[1] for order in passes("around-half", n) if order[0] == 5)  # without replacement
    p = weights[4] / (sum(weights) - weights[5])
    assert seconds[5] == 0
    assert abs(seconds[4] / seconds.total() - p) < 4 * (p * (1 - p) / seconds.total()) ** 0.5


def test_a_curriculum_needs_a_pass_rate_for_each():
    with pytest.raises(AssertionError):
        Stream(ITEMS, 0, 0, "easy-first", RATES[:3])
