"""Runs of words or characters of many texts at once, by 64-bit hashes, in numpy."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from ringrl.curate.text import Memo

_FACTORS = np.random.default_rng(2506).integers(1, 2**63, 64, dtype=np.uint64) * np.uint64(2) + np.uint64(1)


@Memo
def _hash(word: str) -> int:
    return zlib.crc32(word.encode())


@dataclass(frozen=True)
class TextItems:
    """Words or characters of texts, one text after the other."""

    hashes: NDArray[np.uint64]  # [N]
    owner: NDArray[np.int64]  # [N] index of the text

    @staticmethod
    def words(texts: Sequence[Sequence[str]]) -> TextItems:
        hashes = np.fromiter(map(_hash.__getitem__, chain.from_iterable(ws or ("",) for ws in texts)), np.uint64)
        return TextItems(hashes, np.repeat(np.arange(len(texts)), [len(ws) or 1 for ws in texts]))

    @staticmethod
    def chars(texts: Iterable[str]) -> TextItems:
        """Code units of UTF-16."""
        units = [text.encode("utf-16-le", "surrogatepass") for text in texts]
        owner = np.repeat(np.arange(len(units)), [len(u) // 2 for u in units])
        return TextItems(np.frombuffer(b"".join(units), np.uint16).astype(np.uint64), owner)

    def runs(self, n: int) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """Multilinear hashes and start positions of all runs of n items with one owner."""
        size = max(0, len(self.hashes) - n + 1)
        keys = np.zeros(size, np.uint64)
        for j in range(n if size else 0):
            keys += self.hashes[j : j + size] * _FACTORS[j]
        begins = np.flatnonzero(self.owner[:size] == self.owner[n - 1 :][:size])
        return keys[begins], begins


def mixed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """splitmix64."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def sorted_set(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Ascending, each once. By sorting: numpy.unique hashes, which takes several times as long."""
    values = np.sort(values)
    return values[np.append(True, values[1:] != values[:-1])[: len(values)]]
