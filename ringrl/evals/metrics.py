"""Metrics over judged responses. A verifier error is no verdict: `summarize` counts it and leaves it out of the scores;
in `report`, what is published, it counts as not right, so that no response gains by what its verifier cannot take.

A response scores its headline reward. With m_i verdicts on problem i, of mean p_i and sample variance v_i
(divisor m_i - 1), and N problems, the score is avg = mean p_i. Its two standard errors answer two questions:

    over problems:  stdev(p_i) / sqrt(N)     how much it would change with other problems of the same kind
    over samples:   sqrt(sum v_i / m_i) / N  how much it would change if the same problems were sampled again

When every score is 0 or 1, v_i / m_i is p_i (1 - p_i) / (m_i - 1). pass@k, votes and lengths of right responses need
a yes or no: only a score of 1 is right.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ringrl.types import ScoredGroup

MIN_ERRORS = 5  # fewer are tolerated, whatever their share


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the metrics need to know about one response."""

    reward: float  # headline reward in [0, 1]; 0 when the verifier failed
    failed: bool  # whether the verifier failed, not the response
    length: int  # tokens
    cut: bool  # whether it hit the token limit
    answer: str = ""  # key in a vote; "" does not vote
    reason: str = ""  # reason of the verdict


Problems = Mapping[str, Sequence[Outcome]]  # problem id -> responses


def summarize(scored: Sequence[ScoredGroup]) -> dict[str, Any]:
    """avg@k with its standard error over problems, unbiased pass@k, lengths, truncation and error counts."""
    return _basic([_outcomes(g) for g in scored])


def report(problems: Problems, pass_k: Sequence[int], votes: bool, points: float) -> dict[str, Any]:
    """What results.json says of a benchmark: `score` (avg@k) and what costs more to read, with errors as not right;
    `score_without_errors` leaves them out.

    Args:
        pass_k: values of k besides powers of two and the number of samples.
        votes: whether answers can be voted on.
        points: standard error over samples, in percent, to compute the necessary number of samples for.
    """
    groups = list(problems.values())
    numbers = _basic(groups, [[o.reward for o in g] for g in groups])
    score = numbers.pop("avg")
    return {
        "score": score,
        "score_without_errors": _basic(groups)["avg"],
        **numbers,
        "se_samples": _se_samples(groups),
        "pass": {str(k): _pass(groups, k) for k in _ks(numbers["k"], pass_k)},
        "majority": _mean([_vote(g) for g in groups]) if votes else None,
        "length_right": _mean([o.length for g in groups for o in g if o.reward == 1]),
        "length_wrong": _mean([o.length for g in groups for o in g if o.reward < 1]),
        "precision": {"points": points, "samples": samples_needed(groups, points / 100)},
        "problems": [{"id": i, **_counts(g)} for i, g in problems.items()],
    }


def pass_at_k(n: int, correct: int, k: int) -> float:
    """Unbiased estimate of the chance that one of k samples is right, from n of which `correct` are:
    1 - C(n - c, k) / C(n, k) (arXiv 2107.03374), in exact integers until the last division.

    Raises:
        ValueError: k is larger than n, where no unbiased estimate exists.
    """
    if k > n:
        raise ValueError(f"pass@k: got k = {k}, expected at most n = {n} samples")
    return 1.0 - math.comb(n - correct, k) / math.comb(n, k)


def samples_needed(judged: Sequence[Sequence[Outcome]], error: float) -> int | None:
    """The k at which the standard error over samples is `error`, given the observed variance; None if unknown."""
    variances = _variances(judged)
    return max(1, math.ceil(sum(variances) / len(variances) ** 2 / error**2 - 1e-9)) if variances else None


def verdicts(scored: Sequence[ScoredGroup]) -> dict[str, dict[str, int]]:
    """Responses by kind and reason, {"pass" | "fail" | "error": {reason: count}}, the most frequent reason first;
    "partial", for scores between 0 and 1, is present only if there are any.

    Reasons are cut at the first colon, before the details ("the reference does not parse: ...").
    """
    return _verdicts([o for g in scored for o in _outcomes(g)])


def part_means(scored: Sequence[ScoredGroup]) -> dict[str, float]:
    """{reward: mean over the responses judged by it} for every reward of the domains."""
    values: dict[str, list[float]] = {}
    for name, value in (item for g in scored for parts in g.parts for item in parts.items()):
        values.setdefault(name, []).append(value)
    return {name: statistics.fmean(rewards) for name, rewards in sorted(values.items())}


def too_many_errors(scored: Sequence[ScoredGroup], max_share: float) -> str:
    """`error_trouble` for all responses of these groups."""
    return error_trouble([e for g in scored for e in g.errors], max_share)


def error_trouble(errors: Iterable[str], max_share: float) -> str:
    """One line with the most frequent reasons when more than this share of the responses could not be judged.

    errors: the error of each response, "" for none; or a Counter of these.
    """
    counts = Counter(errors)
    total = counts.total()
    del counts[""]
    n = counts.total()
    if n < MIN_ERRORS or n <= max_share * total:
        return ""
    reasons = "; ".join(f"{count} times {error!r}" for error, count in counts.most_common(3))
    return (
        f"the verifiers failed on {n} of {total} responses, expected at most "
        f"verify.max_error_share={max_share:g} of them: {reasons}. Mend the references or the verifier's machine, or "
        f"allow more (verify.deadline_s, verify.max_error_share)"
    )


def repetition(token_ids: np.ndarray | Sequence[int], n: int = 8, last: int = 2048) -> float:
    """Share of repeated n-grams among the last tokens of a response: near 1 in a loop."""
    tail = tuple(np.asarray(token_ids[-last:]).tolist())
    grams = [tail[i : i + n] for i in range(len(tail) - n + 1)]
    return 1.0 - len(set(grams)) / len(grams) if grams else 0.0


def _outcomes(g: ScoredGroup) -> list[Outcome]:
    return [
        Outcome(score, bool(error), len(c.token_ids), c.finish == "length", reason=reason)
        for score, error, reason, c in zip(g.scores, g.errors, g.reasons, g.group.completions, strict=True)
    ]


def _basic(groups: Sequence[Sequence[Outcome]], rewards: Sequence[Sequence[float]] | None = None) -> dict[str, Any]:
    """rewards: those that count, of every group; without them, of the responses that have a verdict."""
    judged = [v for v in rewards or [[o.reward for o in g if not o.failed] for g in groups] if v]
    means = [statistics.fmean(v) for v in judged]
    k = max(map(len, groups), default=0)
    flat = [o for g in groups for o in g]
    return {
        "avg": _mean(means) or 0.0,
        "se": statistics.stdev(means) / math.sqrt(len(means)) if len(means) > 1 else 0.0,
        "pass_k": _mean([pass_at_k(len(v), sum(x == 1 for x in v), min(k, len(v))) for v in judged]) or 0.0,
        "k": k,
        "n": len(groups),
        "length_mean": _mean([o.length for o in flat]) or 0.0,
        "truncated_frac": _mean([o.cut for o in flat]) or 0.0,
        "errors": sum(o.failed for o in flat),
        "verdicts": _verdicts(flat),
    }


def _verdicts(outcomes: Sequence[Outcome]) -> dict[str, dict[str, int]]:
    counts = {kind: Counter[str]() for kind in ("pass", "fail", "error")}
    for o in outcomes:
        kind = "error" if o.failed else {1.0: "pass", 0.0: "fail"}.get(o.reward, "partial")
        counts.setdefault(kind, Counter())[o.reason.partition(":")[0]] += 1
    return {kind: dict(count.most_common()) for kind, count in counts.items()}


def _variances(judged: Sequence[Sequence[Outcome]]) -> list[float]:
    """Variance of one sample, for every problem with verdicts; [] if some problem has only one."""
    groups = [g for g in judged if g]
    return [] if any(len(g) < 2 for g in groups) else [statistics.variance(o.reward for o in g) for g in groups]


def _se_samples(judged: Sequence[Sequence[Outcome]]) -> float | None:
    groups, variances = [g for g in judged if g], _variances(judged)
    terms = [v / len(g) for v, g in zip(variances, groups, strict=True)] if variances else []
    return math.sqrt(sum(terms)) / len(terms) if terms else None


def _ks(most: int, requested: Sequence[int]) -> list[int]:
    powers = (2**i for i in range(most.bit_length()))
    return sorted({*powers, *requested, most} - {0})


def _pass(judged: Sequence[Sequence[Outcome]], k: int) -> float | None:
    """pass@k over the problems with at least k verdicts."""
    return _mean([pass_at_k(len(g), sum(o.reward == 1 for o in g), k) for g in judged if len(g) >= k])


def _vote(group: Sequence[Outcome]) -> float:
    """The chance that the most frequent answer is right, ties broken at random. Right answers count as one."""
    right = sum(o.reward == 1 for o in group)
    wrong = Counter(o.answer for o in group if o.reward < 1 and o.answer).values()
    most = max([right, *wrong])
    return 1 / (1 + sum(n == most for n in wrong)) if right and right == most else 0.0


def _counts(group: Sequence[Outcome]) -> dict[str, int | float]:
    """Counts for one problem; an error is in `total`, and not in `passed`."""
    return {
        "passed": sum(o.reward == 1 for o in group),
        "total": len(group),
        "reward": sum(o.reward for o in group),
        "errors": sum(o.failed for o in group),
    }


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None
