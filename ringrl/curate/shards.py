"""What a step reads and writes: a folder of shards, each either complete or absent.

    FOLDER/kept/000000.jsonl     rows that are kept, in their order
    FOLDER/dropped/000000.jsonl  rows that are not, each with `step`, `reason` and details
    FOLDER/counts/000000.json    numbers of both; written last, so it marks the shard as finished
    FOLDER/work/                 private files of the step
    FOLDER/dropped.jsonl         all dropped rows, in order; replaces dropped/ when the step is finished
    FOLDER/summary.json          counts over all shards, examples, seconds; written last of all

Shard n of a step depends on the input of the step alone, not on timing or the number of processes, and holds rows of
shard n of the step before it: a chain that was killed anywhere and resumed ends with the same bytes.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ringrl.lines import read_lines, replacing, write_atomic

Row = dict[str, Any]
EXAMPLES = 5  # dropped rows per reason in the summary


@dataclass(frozen=True, slots=True)
class Dropped:
    """A row that goes no further, or a response of one that does."""

    row: Row
    reason: str  # the key it is counted by, one of few fixed texts
    more: Row = field(default_factory=dict)  # e.g. `detail`, a text; `twin`, an id or "benchmark/id"


class Shards:
    """The folder of one step."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def work(self) -> Path:
        path = self.folder / "work"
        path.mkdir(parents=True, exist_ok=True)
        return path

    @property
    def finished(self) -> bool:
        """Whether the whole step is finished."""
        return (self.folder / "summary.json").is_file()

    def done(self, shard: int) -> bool:
        return self._file("counts", shard, "json").is_file()

    @property
    def numbers(self) -> list[int]:
        """Numbers of the finished shards, ascending."""
        return sorted(int(f.stem) for f in (self.folder / "counts").glob("*.json"))

    def size(self, shard: int) -> int:
        """Number of rows kept."""
        return sum(json.loads(self._file("counts", shard, "json").read_text())["kept"].values())

    def file(self, shard: int) -> Path:
        """The file of the rows kept, JSON lines."""
        return self._file("kept", shard, "jsonl")

    def rows(self, shard: int) -> list[Row]:
        return list(read_lines(self.file(shard)))

    def write(self, shard: int, step: str, results: Iterable[Row | Dropped]) -> None:
        """Writes what a step returned for one shard."""
        rows: Counter[str] = Counter()
        reasons: dict[str, Counter[str]] = {}
        files = [self._file(kind, shard, "jsonl") for kind in ("kept", "dropped")]
        for file in files:
            file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(files[0]) as kept, replacing(files[1]) as dropped:
            for result in results:
                if isinstance(result, Dropped):
                    record = {**result.row, "step": step, "reason": result.reason, **result.more}
                    dropped.write(json.dumps(record).encode() + b"\n")
                    reasons.setdefault(result.reason, Counter())[result.row["source"]] += 1
                else:
                    kept.write(json.dumps(result).encode() + b"\n")
                    rows[result["source"]] += 1
        counts = {"kept": rows, "dropped": {k: reasons[k] for k in sorted(reasons)}}
        self._write(self._file("counts", shard, "json"), json.dumps(counts, sort_keys=True))

    def close(self, seconds: float) -> dict[str, Any]:
        """Finishes the step once all shards are there: gathers the dropped rows, writes and returns the summary.

        {"kept": {source: rows}, "dropped": {reason: {source: rows}}, "examples": {reason: [row]}, "seconds"}
        """
        kept: Counter[str] = Counter()
        dropped: dict[str, Counter[str]] = {}
        for shard in self.numbers:
            counts = json.loads(self._file("counts", shard, "json").read_text())
            kept.update(counts["kept"])
            for reason, sources in counts["dropped"].items():
                dropped.setdefault(reason, Counter()).update(sources)
        summary = {
            "kept": kept,
            "dropped": dict(sorted(dropped.items())),
            "examples": self._gather_dropped(),
            "seconds": round(seconds, 1),
        }
        for part in self.folder.rglob(".*.part"):  # left by a process that was killed while writing
            part.unlink()
        self._write(self.folder / "summary.json", json.dumps(summary, indent=1))
        shutil.rmtree(self.folder / "dropped", ignore_errors=True)
        return summary

    def _gather_dropped(self) -> dict[str, list[Row]]:
        """Writes dropped.jsonl. Returns the first rows for each reason."""
        examples: dict[str, list[Row]] = {}
        with replacing(self.folder / "dropped.jsonl") as out:
            for shard in self.numbers:
                with self._file("dropped", shard, "jsonl").open("rb") as lines:
                    for line in lines:
                        out.write(line)
                        first = examples.setdefault(json.loads(line)["reason"], [])
                        if len(first) < EXAMPLES:
                            first.append(json.loads(line))
        return examples

    def _file(self, kind: str, shard: int, suffix: str) -> Path:
        return self.folder / kind / f"{shard:06d}.{suffix}"

    def _write(self, path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, text)
