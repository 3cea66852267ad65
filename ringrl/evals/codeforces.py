"""The rating that a model would earn in contests, and the share of their participants rated below it.

A contest is {"contest", "problems": {problem id: points}, "standings": [[rating, points], ...]}. A sample of all its
problems takes part once: its points give it a place, 1 + those above it + half of those tied with it; its rating r is
the one for which this is the expected place under the Elo model that Codeforces uses,

    place = 1 + sum_i 1 / (1 + 10^((r - r_i) / 400))

The model's rating is the mean over contests and samples, its standard error that over contests.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ringrl.data.source import Row, read_rows
from ringrl.errors import DataError

LOWEST, HIGHEST = 0.0, 4000.0  # rating of a model that comes last or first


@dataclass(frozen=True, slots=True)
class Contest:
    name: str
    problems: Mapping[str, float]  # id -> points
    standings: tuple[tuple[float, float], ...]  # rating, points


def read_contests(file: str) -> list[Contest]:
    """Raises DataError."""
    return [_contest(row, where) for where, row in read_rows(file)]


def rate(contests: Sequence[Contest], solved: Mapping[str, Sequence[bool]]) -> dict[str, Any]:
    """Rating, its standard error, and the percentage of participants below it.

    Args:
        solved: problem id -> whether each sample solved it, for every problem of the contests.

    Raises:
        DataError: a contest has a problem that is missing from `solved`.
    """
    ratings = [statistics.fmean(_ratings(contest, solved)) for contest in contests]
    rating = statistics.fmean(ratings)
    people = [r for contest in contests for r, _ in contest.standings]
    return {
        "contests": len(contests),
        "rating": rating,
        "rating_se": statistics.stdev(ratings) / math.sqrt(len(ratings)) if len(ratings) > 1 else None,
        "percentile": 100 * sum(r < rating for r in people) / len(people),
    }


def rating_of(points: float, standings: Sequence[tuple[float, float]]) -> float:
    """The rating whose expected place is the place that these points earn."""
    above, beside = (sum(test(p) for _, p in standings) for test in (lambda p: p > points, lambda p: p == points))
    place = 1 + above + beside / 2
    low, high = LOWEST, HIGHEST
    while high - low > 0.01:
        middle = (low + high) / 2
        expected = 1 + sum(1 / (1 + 10 ** ((middle - rating) / 400)) for rating, _ in standings)
        low, high = (middle, high) if expected > place else (low, middle)
    return (low + high) / 2


def _ratings(contest: Contest, solved: Mapping[str, Sequence[bool]]) -> list[float]:
    """One rating per sample."""
    if unknown := [p for p in contest.problems if p not in solved]:
        raise DataError(f"contest {contest.name}: problem {unknown[0]!r} is not in the benchmark")
    samples = zip(*(solved[p] for p in contest.problems), strict=True)
    points = [sum(v for v, right in zip(contest.problems.values(), s, strict=True) if right) for s in samples]
    known = {p: rating_of(p, contest.standings) for p in set(points)}
    return [known[p] for p in points]


def _contest(row: Row, where: str) -> Contest:
    try:
        problems = {str(k): float(v) for k, v in row["problems"].items()}
        standings = tuple((float(rating), float(points)) for rating, points in row["standings"])
    except (KeyError, TypeError, ValueError, AttributeError):
        problems, standings = {}, ()
    if not problems or not standings:
        raise DataError(
            f'{where}: expected {{"contest", "problems": {{id: points}}, "standings": [[rating, points], ...]}}'
        )
    return Contest(str(row.get("contest", where)), problems, standings)
