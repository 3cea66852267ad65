"""Verdicts on the responses to a shard's rows, made once and stored beside them.

    WORK/verdicts/000000.jsonl    {NAME: [[kind, reason, score], ...]} per row: verdicts on each teacher's answers;
                                  those on the row's own responses are under OWN
    WORK/verdicts/000000.json     {error: responses}, "" counting the others; written last

All are made before any row is dropped: too many errors mean a broken machine or broken references, and end the run.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ringrl.config.sections import Verify
from ringrl.curate.chain import MapShards
from ringrl.curate.sample import read, responses_of
from ringrl.curate.shards import Row, Shards
from ringrl.curate.workers import judge
from ringrl.domains import Domains
from ringrl.errors import RingError
from ringrl.evals.metrics import error_trouble
from ringrl.lines import read_lines, write_atomic
from ringrl.rollout.respond import NO_ROOM

OWN = ""
TeacherAnswers = dict[str, list[dict[str, Any]]]  # teacher -> its answers
StoredVerdict = tuple[str, str, float]  # kind, reason, headline reward (0 for an error)
RowVerdicts = dict[str, list[StoredVerdict]]  # teacher -> verdict on each of its answers


@dataclass(frozen=True)
class Verdicts:
    """Stored answers and verdicts for the rows of a step. Picklable."""

    after: Shards
    teachers: tuple[str, ...]
    verify: Verify
    domains: Domains
    own: bool = False  # include the responses that rows already have

    def answers(self, shard: int, rows: Sequence[Row]) -> Iterator[tuple[Row, TeacherAnswers]]:
        files = [read(responses_of(self.after, name) / f"{shard:06d}.jsonl") for name in self.teachers]
        for row, *answers in zip(rows, *files, strict=True):
            own = {OWN: row.get("responses", [])} if self.own else {}
            yield row, own | dict(zip(self.teachers, answers, strict=True))

    def judged(self, shard: int, rows: Sequence[Row]) -> Iterator[tuple[Row, TeacherAnswers, RowVerdicts]]:
        lines = read_lines(self._file(shard, "jsonl"))
        for (row, by_teacher), line in zip(self.answers(shard, rows), lines, strict=True):
            yield row, by_teacher, {name: [tuple(stored) for stored in v] for name, v in line.items()}

    def judge(self, before: Shards, over: MapShards, name: str) -> None:
        """Judges all responses that have no verdict yet.

        Raises:
            RingError: too many of all verdicts are errors; those are forgotten, so that --resume judges them again.
        """
        shards = before.numbers
        (self.after.work / "verdicts").mkdir(exist_ok=True)
        for _ in over(name, Judge(self, before), [n for n in shards if not self._file(n, "json").is_file()]):
            pass
        errors = {n: Counter(json.loads(self._file(n, "json").read_text())) for n in shards}
        if trouble := error_trouble(sum(errors.values(), Counter[str]()), self.verify.max_error_share):
            for shard in (n for n in shards if set(errors[n]) - {""}):
                self._file(shard, "json").unlink()
            raise RingError(f"{name}: {trouble}; --resume judges these again")

    def write(self, shard: int, verdicts: Sequence[RowVerdicts]) -> None:
        write_atomic(self._file(shard, "jsonl"), "".join(json.dumps(v) + "\n" for v in verdicts))
        errors = Counter(
            why if kind == "error" else "" for row in verdicts for stored in row.values() for kind, why, _ in stored
        )
        write_atomic(self._file(shard, "json"), json.dumps(errors, sort_keys=True))

    def _file(self, shard: int, suffix: str) -> Path:
        return self.after.work / "verdicts" / f"{shard:06d}.{suffix}"


@dataclass(frozen=True)
class Judge:
    """Judges one shard, in any process."""

    store: Verdicts
    before: Shards

    def __call__(self, shard: int) -> None:
        self.store.write(shard, [self.row(*r) for r in self.store.answers(shard, self.before.rows(shard))])

    def row(self, row: Row, by_teacher: TeacherAnswers) -> RowVerdicts:
        """Equal texts share one verdict, and NO_ROOM fails. Errors are judged a second time: a machine that was busy
        for a moment must not decide."""
        texts = dict.fromkeys(a["text"] for own in by_teacher.values() for a in own if a.get("finish") != NO_ROOM)
        settings = (self.store.verify, self.store.domains)
        reference = self.store.domains.reference(row)
        requests = [(row["domain"], text, reference) for text in texts]
        first = judge(requests, *settings)
        again = iter(judge([a for a, v in zip(requests, first, strict=True) if v.kind == "error"], *settings))
        final = [next(again) if v.kind == "error" else v for v in first]
        known: dict[str, StoredVerdict] = {
            text: (v.kind, v.reason, 0.0 if v.kind == "error" else v.headline)
            for text, v in zip(texts, final, strict=True)
        }
        return {name: [known.get(a["text"], ("fail", NO_ROOM, 0.0)) for a in own] for name, own in by_teacher.items()}
