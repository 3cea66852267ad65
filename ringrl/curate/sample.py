"""Samples a teacher's answers for all rows, before the step that needs them is prepared.

    WORK/responses/TEACHER/000000.part.jsonl  answers as they come, in any order, while a shard is in progress
    WORK/responses/TEACHER/000000.jsonl       {"id", "answers": [{"text", "length", "finish"}]} for every row, in order

Every answer has its own seed (`Ask.seed`) and is written as soon as it is finished: a kill loses only unfinished
answers, and sampling them again gives the same. A row whose prompt is too long gets answers with finish NO_ROOM.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ringrl.config.data import Sampled
from ringrl.curate.chain import Phase
from ringrl.curate.shards import Row, Shards
from ringrl.errors import UserError
from ringrl.lines import read_lines, replacing
from ringrl.rollout.respond import NO_ROOM, Answer, Ask, Model

Asking = Callable[[Row], Sequence[Ask]]  # the questions about a row; each has a different (problem id, sample)
Key = tuple[str, int]  # problem id, sample


def solutions(phase: Phase, cfg: Sampled) -> Asking:
    """The problem itself, `cfg.samples` times."""
    assert phase.teacher
    name = f"{phase.step}/{phase.teacher.name}"
    return lambda row: [Ask(name, row, i) for i in range(cfg.samples)]


def sample(phase: Phase, asking: Asking, model: Model, show: Callable[[int, int, Answer | None], None]) -> None:
    """Samples all answers that are still missing.

    Args:
        show: called with the number of answers so far, the number expected if all rows need as many as those so far,
            and the newest answer or None; an exception from it ends the sampling.

    Raises:
        UserError: no prompt at all leaves room for an answer.
        RingError: the model failed.
    """
    assert phase.before
    assert phase.teacher
    folder = responses_of(phase.shards, phase.teacher.name)
    folder.mkdir(parents=True, exist_ok=True)
    rows_all = sum(phase.before.size(n) for n in phase.before.numbers)
    rows_done = done = room = 0
    why = ""
    for shard in phase.before.numbers:
        rows = phase.before.rows(shard)
        asks = [asking(row) for row in rows]
        wanted = sum(map(len, asks))
        rows_done += len(rows)
        total = round((done + wanted) * rows_all / max(rows_done, 1))
        part = AnswerFile(folder / f"{shard:06d}.part.jsonl")
        final = folder / f"{shard:06d}.jsonl"
        if not final.is_file():
            missing = [a for row_asks in asks for a in row_asks if _key(a) not in part.places]
            show(done + wanted - len(missing), total, None)
            for n, (ask, answer) in enumerate(model.answers(missing), 1):
                part.append(ask, answer)
                show(done + wanted - len(missing) + n, total, answer)
            part.finish(final, rows, asks)
        part.close()
        done += wanted
        if not room:
            refused = [a["text"] for answers in read(final) for a in answers if a["finish"] == NO_ROOM]
            room, why = wanted - len(refused), next(iter(refused), why)
    if why and not room:
        raise UserError(f"{phase.step}: {phase.teacher.name}: no prompt leaves room for an answer, the first: {why}")


def responses_of(after: Shards, teacher: str) -> Path:
    return after.work / "responses" / teacher


def read(file: Path) -> Iterator[list[dict[str, Any]]]:
    """The answers to each row of a shard, in order, one row in memory at a time."""
    return (row["answers"] for row in read_lines(file))


class AnswerFile:
    """Answers of one shard on disk, appended as they come. A line that was cut off by a kill is discarded."""

    def __init__(self, path: Path) -> None:
        self.path, self.file = path, path.open("a+b")
        self.places: dict[Key, int] = {}  # byte offset of each answer's line
        end = 0
        for record, size in zip(read_lines(path, cut=True), map(len, path.open("rb")), strict=False):
            self.places[record["id"], record["sample"]] = end
            end += size
        self.file.truncate(end)

    def append(self, ask: Ask, answer: Answer) -> None:
        fields = {"text": answer.text, "length": answer.length, "finish": answer.finish}
        place = self.file.seek(0, os.SEEK_END)
        self.file.write(json.dumps({"id": _key(ask)[0], "sample": ask.sample, **fields}).encode() + b"\n")
        self.file.flush()
        self.places[_key(ask)] = place

    def finish(self, final: Path, rows: Sequence[Row], asks: Sequence[Sequence[Ask]]) -> None:
        """Writes the final file, in order, when all answers are there."""
        with replacing(final) as out:
            for row, row_asks in zip(rows, asks, strict=True):
                answers = [self._answer(ask) for ask in row_asks]
                out.write(json.dumps({"id": row["id"], "answers": answers}).encode() + b"\n")

    def close(self) -> None:
        """Closes and deletes the file."""
        self.file.close()
        self.path.unlink()

    def _answer(self, ask: Ask) -> dict[str, Any]:
        self.file.seek(self.places[_key(ask)])
        record = json.loads(self.file.readline())
        return {k: record[k] for k in ("text", "length", "finish")}


def _key(ask: Ask) -> Key:
    return str(ask.problem["id"]), ask.sample
