"""Bands find what is similar, in any shards, and nothing that has other numbers."""

from __future__ import annotations

import functools
import random
from pathlib import Path

import numpy as np
import pytest

from ringrl.curate.lsh import (
    BANDS,
    KEY,
    OFFSET,
    PERMUTATIONS,
    QUALITY,
    LSHIndex,
    candidates,
    hash_of,
    rows_per_band,
    save,
    sharing,
    sketch,
    sketch_file,
    text_of,
)  # fmt: skip
from ringrl.curate.shards import Row, Shards
from ringrl.domains import Domains


def row(n: int, problem: str, **more: str) -> Row:
    return {"id": f"a/{n}", "source": "a", "domain": "math", "problem": problem, "answer": "1", **more}


def indexed(folder: Path, rows: list[Row], size: int, threshold: float = 0.7) -> LSHIndex:
    shards = Shards(folder / "before")
    (folder / "sketches").mkdir()
    answer, quality = (lambda r, d: ("", r["answer"])), (lambda r, d: int(r["answer"]))
    make = functools.partial(sketch, threshold, Domains(), answer, quality, shards)
    for n, start in enumerate(range(0, len(rows), size)):
        shards.write(n, "s", rows[start : start + size])
        save(sketch_file(folder / "sketches", n), make(n))
    return LSHIndex(shards, folder / "sketches")


def mutated(tokens: list[str], share: float, draw: random.Random) -> str:
    return " ".join(t if draw.random() > share else f"other{draw.randrange(10**6)}" for t in tokens)


def pairs(index: LSHIndex, chosen: np.ndarray | None = None) -> set[tuple[int, int]]:
    everything = np.arange(len(index))
    return {(int(a), int(b)) for a, b in candidate_pairs(index, everything if chosen is None else chosen, everything)}


def candidate_pairs(index: LSHIndex, chosen: np.ndarray, rank: np.ndarray) -> np.ndarray:
    bands = range(index.bands if len(chosen) else 0)
    return candidates(index, rank, (sharing(index, chosen, rank[chosen], band) for band in bands))


def test_signatures_are_the_same_everywhere():
    assert hash_of("x") == 0x4F586EF96743DF4A


@pytest.mark.parametrize(
    ("threshold", "rows"), [(0.5, 3), (0.6, 4), (0.7, 5), (0.8, 6), (0.9, 10), (0.2, 3), (1.0, 10)]
)
def test_as_many_rows_in_a_band_as_the_threshold_allows(threshold: float, rows: int):
    assert rows_per_band(threshold) == rows
    if threshold >= 0.6:
        assert 1 - (1 - threshold**rows) ** (PERMUTATIONS // rows) >= 0.98


def test_rows_are_read_back_by_number(tmp_path: Path):
    rows = [row(n, f"é \ud800 {'x' * n} problem {n}") for n in range(11)]
    index = indexed(tmp_path, rows, 4)
    assert len(index) == 11
    assert [index.row(n) for n in range(11)] == rows
    assert index.bands == 2 * (PERMUTATIONS // 5)
    assert index.line(QUALITY).tolist() == [1] * 11
    assert index.line(OFFSET)[[0, 4, 8]].tolist() == [0, 0, 0]
    assert index.line(KEY).tolist() == [hash_of(text_of(r, Domains()).key) for r in rows]


def test_a_sketch_of_no_rows(tmp_path: Path):
    index = indexed(tmp_path, [row(0, "one")], 1)
    index.shards.write(1, "s", [])
    empty = sketch(0.7, Domains(), lambda r, d: ("", ""), lambda r, d: 0, index.shards, 1)
    save(sketch_file(tmp_path / "sketches", 1), empty)
    again = LSHIndex(index.shards, tmp_path / "sketches")
    assert (len(again), again.bands) == (1, index.bands)
    assert again._sketch(1).shape == (BANDS + index.bands, 0)
    assert not pairs(again)
    assert not pairs(again, np.empty(0, np.int64))


@pytest.mark.parametrize("threshold", [0.6, 0.7, 0.8])
def test_similar_rows_share_a_band(tmp_path: Path, threshold: float):
    """1000 pairs of every similarity: those from the threshold on are candidates, but for as few as promised."""
    draw = random.Random(0)
    rows: list[Row] = []
    for _ in range(1000):
        tokens = [f"word{draw.randrange(10**6)}" for _ in range(40)]
        rows += [row(0, " ".join(tokens)), row(0, mutated(tokens, draw.random() * 0.12, draw))]
    # letters only, so that no numbers tell them apart
    for r in rows:
        r["problem"] = r["problem"].translate({ord(str(d)): chr(ord("q") + d) for d in range(10)})
    found = pairs(indexed(tmp_path, rows, 300, threshold))
    texts = [text_of(r, Domains()) for r in rows]
    alike = [n for n in range(0, 2000, 2) if texts[n].similarity(texts[n + 1]) >= threshold]
    assert len(alike) > 400
    missed = [n for n in alike if (n, n + 1) not in found]
    assert len(missed) <= 0.01 * len(alike)
    assert len(found) < 1.5 * 1000


def test_other_numbers_share_none(tmp_path: Path):
    text = "A train goes from here to there in {} hours and comes back in the same time; how fast is it?"
    index = indexed(tmp_path, [row(n, text.format(n + 10)) for n in range(50)], 20)
    assert not pairs(index)
    assert text_of(row(0, text.format(10)), Domains()).similarity(text_of(row(0, text.format(11)), Domains())) == 0.0


def test_code_and_answers_are_never_alike(tmp_path: Path):
    rows = [row(0, "Write a program that adds two numbers."), row(1, "Write a program that adds two numbers.")]
    rows[1]["domain"] = "code"
    index = indexed(tmp_path, rows, 2)
    assert not pairs(index)
    assert len(set(index.line(KEY).tolist())) == 2


def test_pairs_do_not_grow_with_the_square_of_a_cluster(tmp_path: Path):
    text = "the quick brown fox jumps over the lazy dog near the quiet river bank every single morning before sunrise"
    rows = [row(n, f"{text} {'z' * (n + 2)}") for n in range(400)]
    index = indexed(tmp_path, rows, 100)
    found = pairs(index)
    assert {b for _, b in found} == set(range(1, 400))
    assert len(found) < 400 * 20
    assert all(a < b for a, b in found)


def test_only_chosen_rows_are_paired(tmp_path: Path):
    index = indexed(tmp_path, [row(n, "the very same words in all of these rows") for n in range(6)], 2)
    assert {n for pair in pairs(index, np.array([1, 3, 4])) for n in pair} == {1, 3, 4}


def test_the_better_is_first_and_pairs_come_by_rank(tmp_path: Path):
    index = indexed(tmp_path, [row(n, "the very same words in all of these rows") for n in range(4)], 2)
    rank = np.array([3, 0, 2, 1])
    found = candidate_pairs(index, np.arange(4), rank)
    assert all(rank[a] < rank[b] for a, b in found)
    assert (np.diff(rank[found[:, 1]]) >= 0).all()
    assert {(1, 0), (1, 2), (1, 3)} <= {(int(a), int(b)) for a, b in found}
