"""Candidates for near duplicates: MinHash signatures of all shards, and the pairs that share a band.

A row has two signatures, of the character and of the word n-grams of its text, with one name for all variables. A
band is a hash of r of a signature's numbers and of the numbers *in the text*; two texts of Jaccard similarity s and the
same numbers share one of b bands with probability 1 - (1 - s^r)^b (Broder 1997; Leskovec et al., Mining of Massive
Datasets, §3.4), and texts with other numbers only by chance. The pairs are only proposed here, and compared elsewhere.

Signatures are on disk, 8 bytes per row and band; one band is sorted at a time, in some tens of bytes per row, and each
pair takes 8 bytes. There are 20 to 30 pairs per row if the whole set is one cluster, usually less than one.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rensa import RMinHash

from ringrl.curate.dress import bare, plain
from ringrl.curate.runs import TextItems, mixed
from ringrl.curate.shards import Row, Shards
from ringrl.curate.text import (
    CHAR_GRAM,
    PERSON,
    WORD_GRAM,
    char_grams,
    compared,
    jaccard,
    numerals,
    people,
    word_grams,
    words,
)
from ringrl.domains import Domain, Domains
from ringrl.lines import replacing

PERMUTATIONS = 120  # numbers in a signature
SEED = 1
BATCH = 200  # texts whose n-grams are hashed together, about 100 times their size
MISSED = 0.02  # share of pairs right at the threshold that one of the two signatures may miss; see `rows_per_band`
KEY, ANSWER, QUALITY, OFFSET, BANDS = range(5)  # lines of a shard's sketch; bands start at BANDS


def rows_per_band(threshold: float) -> int:
    """The largest number that still finds pairs at the threshold; smaller ones propose more pairs in vain.

    5 (24 bands) find 0.988 of the pairs of similarity 0.7, and 0.99994 at 0.8; 6 (20) find 0.998 at 0.8.
    """
    enough = [r for r in (3, 4, 5, 6, 8, 10) if 1 - (1 - threshold**r) ** (PERMUTATIONS // r) >= 1 - MISSED]
    return max(enough, default=3)


@dataclass(frozen=True)
class Text:
    """The parts of a row that are compared."""

    text: str  # without heading and instructions
    key: str  # equal for exact duplicates
    numbers: str  # in any order, and how often; but for 1, which is also an article
    tokens: list[str]
    unnamed: list[str]  # tokens with one name for all people

    @cached_property
    def grams(self) -> tuple[set[str], set[str]]:
        """Runs of characters, and of words."""
        return char_grams(self.tokens), word_grams(self.unnamed)

    def similarity(self, other: Text) -> float:
        """The larger Jaccard similarity of the two kinds of n-grams; 0 if the numbers differ."""
        if self.numbers != other.numbers:
            return 0.0
        return max(map(jaccard, self.grams, other.grams))


def kind_of(domain: Domain) -> str:
    """Only problems of one kind can be duplicates: a programming task never equals one with an answer."""
    return {"answer": "answer", "program": "code"}.get(domain.comparison, f"equal {domain.name}")


def text_of(row: Row, domains: Domains) -> Text:
    kind = kind_of(domains[row["domain"]])
    text = bare(plain(row["problem"]))
    tokens = words(text)
    same = compared(tokens)
    counts = Counter(numerals(same))
    counted = " ".join(f"{n}x{k}" for n, k in sorted(counts.items()) if n != "1")
    named = people(text)
    unnamed = [PERSON if token in named else token for token in same] if named else same
    return Text(text, f"{kind} {' '.join(tokens)}", f"{kind} {counted}", same, unnamed)


def hash_of(text: str) -> int:
    """A 64-bit hash that is the same on every machine."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def sketch(
    threshold: float,
    domains: Domains,
    answer: Callable[[Row, Domains], tuple[str, str]],
    quality: Callable[[Row, Domains], int],
    shards: Shards,
    shard: int,
) -> NDArray[np.uint64]:
    """[BANDS + bands, rows] of one shard: hashes of text and answer (0: none), quality, byte offset, bands."""
    lines = _lines(shards.file(shard))
    offsets = np.cumsum([0, *map(len, lines)], dtype=np.uint64)[:-1]
    rows = [json.loads(line) for line in lines]
    keys: list[int] = []
    bands = []
    for begin in range(0, max(1, len(rows)), BATCH):
        texts = [text_of(row, domains) for row in rows[begin : begin + BATCH]]
        keys += [hash_of(t.key) for t in texts]
        bands.append(_bands(texts, threshold))
    head = [
        keys,
        [hash_of(a) if (a := answer(r, domains)[1]) else 0 for r in rows],
        [quality(r, domains) for r in rows],
    ]
    lines_of = np.array(head, dtype=np.uint64).reshape(3, len(rows))
    return np.concatenate([lines_of, offsets[None], np.concatenate(bands, axis=1)])


def _bands(texts: Sequence[Text], threshold: float) -> NDArray[np.uint64]:
    """[2 * bands, rows]. A text shorter than a run is one run."""
    per_band = rows_per_band(threshold)
    salt = np.array([hash_of(t.numbers) for t in texts], dtype=np.uint64)
    chars = TextItems.chars("".join(t.tokens).ljust(CHAR_GRAM, "\0") for t in texts)
    grams = TextItems.words([t.unnamed + [""] * (WORD_GRAM - len(t.unnamed)) for t in texts])
    out: list[NDArray[np.uint64]] = []
    for items, n in ((chars, CHAR_GRAM), (grams, WORD_GRAM)):
        keys, begins = items.runs(n)
        ends = np.searchsorted(items.owner[begins], np.arange(len(texts) + 1)).astype(np.uint64)
        matrix = RMinHash.digest_matrix_from_flat_token_hashes(mixed(keys), ends, PERMUTATIONS, SEED).to_rows()
        signature = np.array(matrix, dtype=np.uint64).reshape(len(texts), PERMUTATIONS)
        for start in range(0, PERMUTATIONS - per_band + 1, per_band):
            band = salt ^ np.full_like(salt, len(out))
            for column in signature[:, start : start + per_band].T:
                band = mixed(band ^ column)
            out.append(band)
    return np.stack(out)


def _lines(file: Path) -> list[bytes]:
    with file.open("rb") as lines:
        return list(lines)


def save(path: Path, array: NDArray[np.generic]) -> None:
    """Writes an array atomically."""
    with replacing(path) as file:
        np.save(file, array)


class LSHIndex:
    """All rows of a step, numbered from 0 at the first row of the first shard; read when needed.

    Args:
        sketches: folder with the sketch of every shard, SHARD.npy.
    """

    def __init__(self, shards: Shards, sketches: Path) -> None:
        self.shards, self.sketches, self.numbers = shards, sketches, shards.numbers
        shapes = [self._sketch(n).shape for n in self.numbers]
        self.bands = shapes[0][0] - BANDS if shapes else 0
        self.starts = np.cumsum([0, *(rows for _, rows in shapes)])
        self._offsets = lru_cache(16)(lambda n: np.array(self._sketch(n)[OFFSET]))

    def __len__(self) -> int:
        return int(self.starts[-1])

    def line(self, which: int) -> NDArray[np.uint64]:
        """[rows] one line of the sketches, KEY, QUALITY, ..., over all shards."""
        return np.concatenate([self._sketch(n)[which] for n in self.numbers])

    def row(self, n: int) -> Row:
        at = int(np.searchsorted(self.starts, n, side="right")) - 1
        shard = self.numbers[at]
        with self.shards.file(shard).open("rb") as lines:
            lines.seek(int(self._offsets(shard)[n - self.starts[at]]))
            return json.loads(lines.readline())

    def _sketch(self, shard: int) -> NDArray[np.uint64]:
        """The sketch, memory-mapped and not kept open: there may be more shards than a process may open files."""
        return np.load(sketch_file(self.sketches, shard), mmap_mode="r")


def sketch_file(folder: Path, shard: int) -> Path:
    return folder / f"{shard:06d}.npy"


def candidates(index: LSHIndex, rank: NDArray[np.int64], bands: Iterable[NDArray[np.int64]]) -> NDArray[np.int64]:
    """[pairs, 2] rows that share a band, the better first, sorted by the rank of the second, then of the first.

    Args:
        rank: rank of every row, lower is better.
        bands: the pairs that `sharing` returns for each band, in any order.
    """
    pairs = np.empty(0, np.int64)
    for more in bands:
        pairs = np.union1d(pairs, more)
    order = np.empty(len(rank), np.int64)
    order[rank] = np.arange(len(rank))
    return np.stack([order[pairs % max(1, len(rank))], order[pairs // max(1, len(rank))]], axis=1)


def sharing(index: LSHIndex, chosen: NDArray[np.int64], ranks: NDArray[np.int64], band: int) -> NDArray[np.int64]:
    """Pairs of ranks that share a band, as worse * rows + better, ascending.

    Each row is paired with the best row in its band, and with a neighbour that also shares the next band if there
    is one; all pairs would be quadratic.

    Args:
        chosen: numbers of the rows that take part.
        ranks: their ranks.
    """
    column, after = (index.line(BANDS + n % index.bands)[chosen] for n in (band, band + 1))
    order = np.lexsort((after, column))
    column = column[order]
    first = np.flatnonzero(np.append(True, column[1:] != column[:-1])[: len(column)])  # starts of equal runs
    ranks = ranks[order]
    best = np.repeat(np.minimum.reduceat(ranks, first), np.diff(first, append=len(ranks)))
    before = np.roll(ranks, 1)
    before[first] = ranks[first]
    low, high = (np.concatenate([f(ranks, best), f(ranks, before)]) for f in (np.minimum, np.maximum))
    return np.unique((high * len(index) + low)[low != high])
