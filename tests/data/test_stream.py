"""A stream is permutations one after another, and where it is, is one number."""

from __future__ import annotations

import random

import pytest

from ringrl.data.stream import Stream

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
