"""What the files of a `ringrl data` run record, for its report and the terminal: numbers of every step, and rows.

Invariants the tests assert:
1. any subset of the files gives an account; lines that cannot be read are counted;
2. memory does not grow with the rows: files are streamed, lengths are counted to three digits, labels are limited;
3. of a set of more than MOST_BYTES only every n-th block of BLOCK bytes is read: the lines that start in it, so that
   a long line has the same chance as a short one.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ringrl.lines import parsed, read_object

Row = dict[str, Any]
MOST_BYTES = 256 << 20  # larger sets are sampled; parsing this much takes seconds
BLOCK = 1 << 20
MOST_VALUES = 1000  # values of a label that are counted apart; the rest are OTHERS
OTHERS = "(others)"
TEACHERS = (("pass_rates", "pass rate"), ("agreement", "agreement"), ("lengths", "tokens"))  # keys of graded rows
ROLES = ("user", "assistant")


@dataclass(frozen=True)
class Account:
    """One finished step: rows by source."""

    name: str
    folder: Path
    came: Counter[str]
    kept: Counter[str]
    dropped: dict[str, Counter[str]]  # by reason; responses of rows that went on are in here too
    examples: dict[str, list[Row]]
    seconds: float

    @property
    def lost(self) -> int:
        """Rows that came and went no further."""
        return self.came.total() - self.kept.total()

    @property
    def responses(self) -> int:
        """Number of dropped responses whose rows went on."""
        return max(0, self.reasons.total() - self.lost)

    @property
    def reasons(self) -> Counter[str]:
        return Counter({reason: sources.total() for reason, sources in self.dropped.items()})

    def most(self, n: int) -> str:
        """The n most frequent reasons, with their counts."""
        parts = [f"{reason} {count:,}" for reason, count in self.reasons.most_common(n)]
        return ", ".join(parts + ["…"] * (len(self.dropped) > n))

    @property
    def files(self) -> list[Path]:
        """The shards with the rows kept."""
        return sorted((self.folder / "kept").glob("*.jsonl"))


def step_folders(run: Path) -> list[Path]:
    """The folders of all steps, in the order of the chain."""
    folders = [f for f in (run / "steps").glob("*_*") if f.name.split("_")[0].isdigit()]
    return sorted(folders, key=lambda f: int(f.name.split("_")[0]))


def accounts(run: Path) -> list[Account]:
    """The accounts of all steps that have a summary."""
    out: list[Account] = []
    for folder in step_folders(run):
        summary = read_object(folder / "summary.json")
        if "kept" not in summary:
            continue
        index, _, name = folder.name.partition("_")
        kept = Counter[str](summary["kept"])
        dropped = {reason: Counter[str](sources) for reason, sources in summary.get("dropped", {}).items()}
        follows = out and int(out[-1].folder.name.split("_")[0]) == int(index) - 1
        came = out[-1].kept if follows else sum(dropped.values(), kept.copy())
        out.append(
            Account(name, folder, came, kept, dropped, summary.get("examples", {}), summary.get("seconds") or 0.0)
        )
    return out


def outputs(run: Path) -> dict[str, Row]:
    """Name -> what is known of data/NAME.jsonl."""
    return read_object(run / "data" / "outputs.json")


def problems(run: Path, folder: Path, ids: Iterable[str]) -> dict[str, str]:
    """Texts of rows that step `folder` kept, else as they were read; only the shards that they are in are opened."""
    wanted = {i for i in ids if i.rpartition("/")[2].isdigit()}
    texts: dict[str, str] = {}
    rows_before = Counter[str]()
    first = run / "steps" / "0_read"
    for file in sorted((first / "counts").glob("*.json")) if wanted else ():
        counts = read_object(file)
        here = sum(map(Counter[str], counts.get("dropped", {}).values()), Counter[str](counts.get("kept", {})))
        wanted_here = {i for i in wanted if 0 <= int(i.rpartition("/")[2]) - rows_before[_source(i)] < here[_source(i)]}
        for shards in (folder, first):
            texts |= _texts(shards / "kept" / f"{file.stem}.jsonl", wanted_here - texts.keys())
        rows_before += here
    return texts


def _source(row_id: str) -> str:
    return row_id.rpartition("/")[0]


def _texts(file: Path, ids: set[str]) -> dict[str, str]:
    if not ids or not file.is_file():
        return {}
    marks = [json.dumps(i).encode() for i in ids]
    with file.open("rb") as lines:
        rows = [parsed(line.decode(errors="replace")) for line in lines if any(m in line for m in marks)]
    return {row["id"]: row.get("problem", "") for row in rows if row.get("id") in ids}


# ---- many rows, once through ----


def stride(files: Sequence[Path], most: int = MOST_BYTES) -> int:
    """n such that reading every n-th block reads at most about `most` bytes."""
    return max(1, math.ceil(sum(f.stat().st_size for f in files) / most))


def lines(files: Iterable[Path], every: int = 1) -> Iterator[bytes]:
    """The lines that start in every n-th block, counted over all files."""
    block = 0
    for file in files:
        with file.open("rb") as text:
            size = file.stat().st_size
            for start in range(0, size, BLOCK):
                if block % every == 0:
                    yield from _of_block(text, start, min(start + BLOCK, size))
                block += 1


def _of_block(text: Any, start: int, end: int) -> Iterator[bytes]:
    at = max(0, start - 1)
    text.seek(at)
    if start:
        at += len(text.readline())  # the end of a line that starts before
    while at < end:
        line = text.readline()
        at += len(line)
        yield line


@dataclass
class Tally:
    """Counts over the rows of one set, by group."""

    rows: Counter[str] = field(default_factory=Counter)
    problems: dict[str, Counter[int]] = field(default_factory=dict)  # characters -> problems
    responses: dict[str, Counter[int]] = field(default_factory=dict)
    rates: dict[str, Counter[float]] = field(default_factory=dict)  # pass rate -> problems
    teachers: dict[str, dict[str, tuple[float, int]]] = field(default_factory=dict)  # name -> TEACHERS -> (sum, number)
    labels: dict[str, Counter[str]] = field(default_factory=dict)  # label -> value -> rows, over all groups
    broken: int = 0  # lines that could not be read

    def add(self, line: bytes, labels: Sequence[str] = (), group: str = "") -> None:
        """group: the row's domain, unless one is given."""
        row = parsed(line.decode(errors="replace"))
        if not row:
            self.broken += 1
            return
        group = group or str(row.get("domain", ""))
        self.rows[group] += 1
        problem, answers = _problem_and_responses(row)
        if problem:
            self.problems.setdefault(group, Counter())[three_digits(len(problem))] += 1
        for answer in answers:
            self.responses.setdefault(group, Counter())[three_digits(len(answer))] += 1
        rates = row.get("pass_rates") or {}
        if (rate := row.get("pass_rate", next(iter(rates.values()), None))) is not None:
            self.rates.setdefault(group, Counter())[round(rate, 2)] += 1
        for key, name in TEACHERS:
            for teacher, value in (row.get(key) or {}).items():
                total, n = self.teachers.setdefault(teacher, {}).get(name, (0.0, 0))
                self.teachers[teacher][name] = (total + value, n + 1)
        for label in labels:
            if (value := row.get(label)) is not None:
                counts = self.labels.setdefault(label, Counter())
                counts[str(value) if str(value) in counts or len(counts) < MOST_VALUES else OTHERS] += 1


def tally(files: Iterable[Path], every: int = 1, labels: Sequence[str] = ()) -> Tally:
    counts = Tally()
    for line in lines(files, every):
        counts.add(line, labels)
    return counts


def three_digits(n: int) -> int:
    """Rounded down, so that there are few values however many rows there are."""
    unit = 10 ** max(0, len(str(n)) - 3)
    return n // unit * unit


def quantile(counts: Mapping[int, int], share: float) -> int:
    """The smallest value that `share` of the counted are not above."""
    left = share * sum(counts.values())
    for value in sorted(counts):
        left -= counts[value]
        if left <= 0:
            return value
    return 0


def _problem_and_responses(row: Row) -> tuple[str, list[str]]:
    """The problem and the responses of a row of the chain or of a conversation."""
    if messages := row.get("messages"):
        texts = {role: [str(m.get("content", "")) for m in messages if m.get("role") == role] for role in ROLES}
        return "\n".join(texts["user"]), texts["assistant"]
    return str(row.get("problem", "")), [str(r.get("text", "")) for r in row.get("responses") or ()]
