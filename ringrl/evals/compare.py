"""Two evaluations of the same problems: is one model better, or is it chance?

The test is on the differences of the problems' mean rewards, d_i = b_i - a_i. If the models were equally good, the sign
of each d_i would be a coin flip: the p-value is the share of sign patterns whose sum is at least as far from 0 as the
observed one (a permutation test), over all patterns or, if there are too many, a fixed random hundred thousand.
Pairing removes the variation in how hard problems are for both models, most of `se` over problems.
"""

from __future__ import annotations

import itertools
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ringrl.errors import DataError

LEVEL = 0.05  # chance of a false difference between equal models, over all benchmarks together
EXACT = 16  # largest number of differing problems for which all sign patterns are tried
PATTERNS = 100_000
POWER = 2.8  # a difference of this many standard errors is found four times in five
SETTINGS = ("sampling", "dtype", "template_sha256")


@dataclass(frozen=True, slots=True)
class Paired:
    """Score B minus score A on the problems that both have."""

    n: int
    a: float
    b: float
    se: float  # standard error of b - a
    p: float  # p-value of the permutation test

    def words(self, tests: int) -> str:
        """The conclusion in words, when this is one of `tests` comparisons."""
        change, se = 100 * (self.b - self.a), 100 * self.se
        numbers = f"{change:+.1f} ± {se:.1f} points on {self.n} problems, p = {self.p:.2g}"
        if self.p < LEVEL / tests:
            return f"{'B' if change > 0 else 'A'} is better: {numbers}"
        return f"no difference is shown: {numbers}; one of {POWER * se:.1f} points would be found four times in five"


def compare(a: Mapping[str, float], b: Mapping[str, float]) -> Paired:
    """Compares mean rewards by problem id; at least one problem must be in both."""
    both = [i for i in a if i in b]
    assert both, (len(a), len(b))
    differences = [b[i] - a[i] for i in both]
    n = len(both)
    se = statistics.stdev(differences) / math.sqrt(n) if n > 1 else 0.0
    return Paired(n, statistics.fmean(a[i] for i in both), statistics.fmean(b[i] for i in both), se,
                  _p_value(differences))  # fmt: skip


def _p_value(differences: Sequence[float]) -> float:
    """Two-sided p-value by sign flips."""
    d = np.array([x for x in differences if x])
    observed = abs(d.sum()) - 1e-9
    if len(d) <= EXACT:
        signs = np.array(list(itertools.product((-1, 1), repeat=len(d))), dtype=np.int8)
        return float((abs(signs @ d) >= observed).mean())
    rng = np.random.default_rng(0)
    far = sum(
        int((abs((2 * rng.integers(0, 2, (1000, len(d)), dtype=np.int8) - 1) @ d) >= observed).sum())
        for _ in range(PATTERNS // 1000)
    )
    return (far + 1) / (PATTERNS + 1)


def compare_runs(a: Path, b: Path) -> tuple[list[dict[str, str]], list[str]]:
    """Table rows for the benchmarks that both runs have, and notes on them.

    Raises:
        DataError: a run has no results, or they have no benchmark or no problem in common.
    """
    first, second = _results(a), _results(b)
    names = [n for n in first["benchmarks"] if n in second["benchmarks"]]
    if not names:
        raise DataError(f"{a} and {b}: no benchmark in common, {sorted(first['benchmarks'])} and "
                        f"{sorted(second['benchmarks'])}")  # fmt: skip
    rows, notes = [], []
    for key in SETTINGS:
        if differing := _differing(first.get(key), second.get(key)):
            notes.append(f"not the same {key}: {differing}")
    for name in names:
        left, right = (_means(r["benchmarks"][name]) for r in (first, second))
        if not left.keys() & right.keys():
            raise DataError(f"{name}: {a} and {b} have no problem in common")
        if first["benchmarks"][name].get("prompts_sha256") != second["benchmarks"][name].get("prompts_sha256"):
            notes.append(f"{name}: the two were not asked the same")
        if left.keys() != right.keys():
            notes.append(f"{name}: {len(left)} problems in A, {len(right)} in B; compared on those in both")
        paired = compare(left, right)
        notes.append(f"{name}: {paired.words(len(names))}")
        rows.append(_row(name, paired))
    return rows, notes


def _row(name: str, paired: Paired) -> dict[str, str]:
    return {
        "benchmark": name,
        "problems": str(paired.n),
        "A %": f"{100 * paired.a:.1f}",
        "B %": f"{100 * paired.b:.1f}",
        "B - A": f"{100 * (paired.b - paired.a):+.1f} ± {100 * paired.se:.1f}",
        "p": f"{paired.p:.2g}",
    }


def _results(run: Path) -> dict[str, Any]:
    file = run / "results.json"
    if not file.is_file():
        raise DataError(f"{run}: no results.json, expected a finished `ringrl eval` run")
    return json.loads(file.read_text())


def _means(bench: Mapping[str, Any]) -> dict[str, float]:
    return {p["id"]: p.get("reward", p["passed"]) / p["total"] for p in bench["problems"] if p["total"]}


def _differing(a: Any, b: Any) -> str:
    """The differing settings in words, "" if there are none; seeds are ignored."""
    if isinstance(a, dict) and isinstance(b, dict):
        keys = [k for k in {**a, **b} if k != "seed" and a.get(k) != b.get(k)]
        return ", ".join(f"{k} {a.get(k)} and {b.get(k)}" for k in keys)
    return f"{str(a)[:12]} and {str(b)[:12]}" if a != b else ""
