"""Assigns rows to outputs by a seeded draw. Outputs are filled in order, each from the rows that earlier ones left.

A row's place in the draw is a hash of the seed and its id, so it depends neither on shards, processes and the order of
sources nor on the other rows. An output takes the first rows that pass these rules, applied in this order:

1. rows of its domains, with responses if it wants conversations, and at most `caps` per source;
2. with weights, each domain's share of the largest total, at most `rows`, for which all domains have enough rows.
   Shares are exact: problems left over by rounding down go to the largest remainders.
"""

from __future__ import annotations

import functools
import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from ringrl.config.data import DataConfig, Output
from ringrl.curate.chain import MapShards
from ringrl.curate.shards import Dropped, Row, Shards
from ringrl.lines import write_atomic

KNOWN = np.dtype([("key", "u8"), ("source", "u2"), ("domain", "u2"), ("answered", "?")])  # 13 bytes per row
TAKEN, LEFT, CAP, SHARE = range(4)
REASONS = {LEFT: "left over", CAP: "over the cap of its source", SHARE: "over the share of its domain"}


@dataclass(frozen=True)
class Mixed:
    """The step. Kept rows get the key `output`."""

    work: Path  # holds a file per shard, 000000.npy: [2, rows], verdicts and outputs
    outputs: tuple[str, ...]

    def __call__(self, shard: int, rows: Sequence[Row]) -> Iterator[Row | Dropped]:
        for row, verdict, output in zip(rows, *np.load(_file(self.work, shard)).tolist(), strict=True):
            if verdict == TAKEN:
                yield {**row, "output": self.outputs[output]}
            else:
                by = f"{self.outputs[output]} took others" if output >= 0 else "no output takes such rows"
                yield Dropped(row, REASONS[verdict], {"detail": by})


def prepare(cfg: DataConfig, before: Shards, after: Shards, over: MapShards) -> Mixed:
    names, domains = tuple(s.name for s in cfg.sources), tuple(cfg.known_domains)
    numbers = before.numbers
    by_shard = dict(over("mix: all rows", functools.partial(known, before, cfg.seed, names, domains), numbers))
    parts = [by_shard[n] for n in numbers]
    drawn = draw(np.concatenate(parts) if parts else np.empty(0, KNOWN), cfg.mix.outputs, names, domains)
    ends = np.cumsum([len(part) for part in parts])
    for n, part in zip(numbers, np.split(drawn, ends[:-1], axis=1), strict=False):
        array = io.BytesIO()
        np.save(array, part)
        write_atomic(_file(after.work, n), array.getvalue())
    return Mixed(after.work, tuple(o.name for o in cfg.mix.outputs))


def key(seed: int, row_id: str) -> int:
    """The 64-bit sort key of a row in the draw."""
    return int.from_bytes(hashlib.blake2b(f"{seed}/{row_id}".encode(), digest_size=8).digest(), "big")


def known(shards: Shards, seed: int, sources: Sequence[str], domains: Sequence[str], shard: int) -> np.ndarray:
    """[rows] KNOWN, what the draw needs to know about every row of a shard."""
    rows = [
        (key(seed, r["id"]), sources.index(r["source"]), domains.index(r["domain"]), bool(r.get("responses")))
        for r in shards.rows(shard)
    ]
    return np.array(rows, KNOWN)


def draw(rows: np.ndarray, outputs: Sequence[Output], sources: Sequence[str], domains: Sequence[str]) -> np.ndarray:
    """[2, rows] int16: TAKEN or the reason, and the output that decided, -1 for none."""
    order = np.argsort(rows["key"], kind="stable")
    rows = rows[order]
    verdict = np.full(len(rows), LEFT, np.int16)
    by = np.full(len(rows), -1, np.int16)
    for i, output in enumerate(outputs):
        wanted = output.domains or domains
        eligible = (verdict != TAKEN) & np.isin(rows["domain"], [domains.index(d) for d in wanted])
        if output.form == "conversations":
            eligible &= rows["answered"]
        free = np.flatnonzero(eligible)
        verdict[free], by[free] = CAP, i
        free = free[_first(rows["source"][free], {sources.index(s): n for s, n in output.caps.items()})]
        verdict[free] = LEFT
        if output.weights:
            free_domains = rows["domain"][free]
            available = {d: int(np.count_nonzero(free_domains == domains.index(d))) for d in output.weights}
            quota = quotas(output.weights, available, output.rows)
            if sum(quota.values()) < (output.rows or len(free)):
                verdict[free] = SHARE
            free = free[_first(free_domains, {domains.index(d): quota.get(d, 0) for d in wanted})]
        verdict[free[: output.rows or None]] = TAKEN
    out = np.empty((2, len(rows)), np.int16)
    out[:, order] = verdict, by
    return out


def quotas(weights: Mapping[Any, float], available: Mapping[Any, int], rows: int = 0) -> dict[Any, int]:
    """Problems per domain, for the largest total that all domains have enough for, at most `rows` (0: no limit)."""
    whole = sum(Fraction(str(w)) for w in weights.values())
    shares = {d: Fraction(str(w)) / whole for d, w in weights.items() if w}
    total = min(int((available[d] + 1) / share) for d, share in shares.items())  # rounding cannot reach a larger total
    quota = apportion(shares, min(total, rows) if rows else total)
    while any(n > available[d] for d, n in quota.items()):
        quota = apportion(shares, sum(quota.values()) - 1)
    return quota


def apportion(shares: Mapping[Any, Fraction], total: int) -> dict[Any, int]:
    """Whole numbers that sum to `total`: shares rounded down, but up for the largest remainders."""
    out = {d: int(total * share) for d, share in shares.items()}
    by_remainder = sorted(shares, key=lambda d: out[d] - total * shares[d])
    for d in by_remainder[: total - sum(out.values())]:
        out[d] += 1
    return out


def _first(groups: np.ndarray, most: Mapping[int, int]) -> np.ndarray:
    """[n] whether each element, given its group [n], is among the first `most[group]` of that group."""
    out = np.ones(len(groups), bool)
    for group, n in most.items():
        out[np.flatnonzero(groups == group)[n:]] = False
    return out


def _file(work: Path, shard: int) -> Path:
    return work / f"{shard:06d}.npy"
