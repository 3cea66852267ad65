"""Difficulty by sampling: how often each teacher solves a problem, by the verifier that training will use [P §2.3].

With c the sum of the rewards of a teacher's m verdicts (verifier errors excluded), a row gets:

    pass_rates   {teacher: c / m}
    agreement    {teacher: share of the m with the most frequent final answer}, for math and science
    lengths      {teacher: mean tokens}
    pass_rate    that of the first teacher, the model that RL starts from
    bin          floor(pass_rate * bins), 0 the hardest; a rate of 1 is in the last bin

A teacher without any verdict, for example because its prompt has no room for the problem, is left out. Rows are
dropped that the first teacher always solves, that no teacher ever solves, or that the first could not be graded on.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ringrl.config.data import DataConfig
from ringrl.curate.chain import MapShards
from ringrl.curate.shards import Dropped, Row, Shards
from ringrl.curate.verdicts import RowVerdicts, StoredVerdict, TeacherAnswers, Verdicts
from ringrl.evals.results import answer_key
from ringrl.rollout.respond import NO_ROOM

TOO_LONG = "prompt too long"
ALWAYS = "solved always"
NEVER = "solved never"
OTHER = "solutions agree on another answer"
UNVERIFIABLE = "not verifiable"


def prepare(cfg: DataConfig, before: Shards, after: Shards, over: MapShards) -> Grader:
    """Raises RingError when the verifier fails too often."""
    store = Verdicts(after, tuple(t.name for t in cfg.grade.teachers), cfg.verify, cfg.known_domains)
    store.judge(before, over, "grade: verdicts")
    return Grader(store, cfg.grade.bins, cfg.grade.keep_right)


@dataclass(frozen=True)
class Judged:
    """The verdicts of one teacher on one problem."""

    right: float  # sum of rewards
    total: int  # verdicts, without errors
    answers: Counter[str]  # final answers, right and wrong; right ones all count as the reference

    @property
    def rate(self) -> float:
        return self.right / self.total


@dataclass(frozen=True)
class Grader:
    """The step."""

    store: Verdicts
    bins: int
    keep_right: bool = False

    def __call__(self, shard: int, rows: Sequence[Row]) -> Iterable[Row | Dropped]:
        for row, by_teacher, verdicts in self.store.judged(shard, rows):
            yield self.grade(row, by_teacher, verdicts)

    def grade(self, row: Row, by_teacher: TeacherAnswers, verdicts: RowVerdicts) -> Row | Dropped:
        first = self.store.teachers[0]
        if all(a["finish"] == NO_ROOM for a in by_teacher[first]):
            return Dropped(row, TOO_LONG, {"detail": f"for {first}: {by_teacher[first][0]['text']}"})
        domain = self.store.domains[row["domain"]]
        key = domain.answer if domain.comparison == "answer" else ""
        judged = {name: tally(row.get(key), by_teacher[name], verdicts[name]) for name in self.store.teachers}
        judged = {name: j for name, j in judged.items() if j.total}
        if first not in judged:
            errors = Counter(why for _, why, _ in verdicts[first])
            return Dropped(row, UNVERIFIABLE, {"detail": errors.most_common(1)[0][0]})
        graded = {**row, **numbers(by_teacher, judged, votes=bool(key))}
        if self.keep_right:
            graded["responses"] = [*row.get("responses", ()), *right(by_teacher, verdicts)]
        if not any(j.right for j in judged.values()):
            return Dropped(graded, *never(row.get(key, ""), judged))
        if judged[first].right == judged[first].total:
            return Dropped(graded, ALWAYS, {"detail": f"{judged[first].right:g} of {judged[first].total} by {first}"})
        base = judged[first]
        return {**graded, "pass_rate": base.rate, "bin": min(int(base.right * self.bins // base.total), self.bins - 1)}


def tally(reference: str | None, answers: Sequence[Mapping[str, Any]], verdicts: Sequence[StoredVerdict]) -> Judged:
    """Counts the verdicts of one teacher. Votes need a final answer and a reference."""
    votes: Counter[str] = Counter()
    right, total = 0.0, 0
    for answer, (kind, _, reward) in zip(answers, verdicts, strict=True):
        if kind == "error" or answer["finish"] == NO_ROOM:
            continue
        total += 1
        right += reward
        if reference is not None:
            votes[reference if kind == "pass" else answer_key(answer["text"])] += 1
    del votes[""]
    return Judged(right, total, votes)


def numbers(by_teacher: TeacherAnswers, judged: Mapping[str, Judged], votes: bool) -> Row:
    out: Row = {"pass_rates": {name: j.rate for name, j in judged.items()}}
    if votes:
        out["agreement"] = {name: max(j.answers.values(), default=0) / j.total for name, j in judged.items()}
    lengths = {name: [a["length"] for a in by_teacher[name] if a["finish"] != NO_ROOM] for name in judged}
    return {**out, "lengths": {name: round(statistics.fmean(tokens), 1) for name, tokens in lengths.items()}}


def right(by_teacher: TeacherAnswers, verdicts: RowVerdicts) -> Iterator[Row]:
    """Right answers as responses of the row, each with its teacher."""
    for name, stored in verdicts.items():
        for answer, (kind, *_) in zip(by_teacher[name], stored, strict=True):
            if kind == "pass":
                yield {"teacher": name, **answer}


def never(reference: str, judged: Mapping[str, Judged]) -> tuple[str, Row]:
    """Why nobody solves it: if half of all solutions, and at least two, agree, the reference is probably wrong."""
    answers = sum((j.answers for j in judged.values()), Counter[str]())
    total = sum(j.total for j in judged.values())
    most = max(answers.values(), default=0)
    detail = f"0 of {total}"
    if most < 2 or 2 * most < total:
        return NEVER, {"detail": detail}
    answer = min(a for a, n in answers.items() if n == most)
    return OTHER, {"detail": f"{detail}; {most} say {answer[:100]}, the reference says {reference[:100]}"}
