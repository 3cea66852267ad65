"""Step 0: rows of all sources in one form, with their origin.

    id         SOURCE/n, n counting the source's rows from 0; the row's own id is `own_id`
    source     name of the source
    where      "file:line"
    domain     name of a known domain
    problem    text
    answer     math and science: text, "" if there is none
    tests      code: the tests and the keys that go with them
    solutions  code: programs, if there are any
    responses  [{"text", "teacher"}], if there are any

and the source's labels. All other keys of a row are kept as they are, but for those of `OPTIONAL` that hold null, which
is the same as no key. A row that cannot be read, or has no problem, is malformed and dropped; quality is for later
steps. A file in which all rows are malformed ends the run: it is another one than was meant, or has other columns.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from ringrl.config.data import Pile
from ringrl.curate.schemas import solutions_of, tests_of
from ringrl.curate.shards import Dropped, Row
from ringrl.data.faults import Faults, bad_row, shorten
from ringrl.data.files import TOO_DEEP
from ringrl.data.formats import with_messages
from ringrl.data.messages import THINK, THOUGHT, messages_in
from ringrl.data.source import is_path, problem_of, renamed, rows_named
from ringrl.domains import Domains
from ringrl.errors import DataError

MALFORMED = "malformed"
SHARD_CHARS = 16 << 20  # a step holds about ten times as much of a shard
OPTIONAL: dict[str, type] = {"solutions": object, "responses": object, "language": str, "entry_point": str,
                             "pass_rates": dict, "agreement": dict, "lengths": dict}  # fmt: skip
RESERVED = ("id", "own_id", "source", "where", "step", "reason")  # keys that the chain sets


def read(sources: Iterable[Pile], domains: Domains) -> Iterator[Row | Dropped]:
    """Every row of every source, in order. Raises DataError for a file that cannot be read, or gives no row."""
    for source in sources:
        n = 0
        for name in source.files:
            if source.limit and n == source.limit:
                break
            kept, faults = 0, Faults(enough=0)
            for where, raw in islice(rows_named(name, source.split), source.limit - n if source.limit else None):
                row = read_row(source, domains, n, where, raw)
                n += 1
                faults.rows += 1
                if isinstance(row, Dropped):
                    faults.add(where, row.more["detail"])
                else:
                    kept += 1
                yield row
            if not kept:
                raise DataError(f"source {source.name}: no row of {name} can be read: {faults}" if faults.rows else
                                f"{name}: no rows")  # fmt: skip


def check(sources: Iterable[Pile], domains: Domains) -> None:
    """Checks that every local file gives a row, which is the first in most. Raises DataError."""
    for source in sources:
        for name in filter(is_path, source.files):
            only = source.model_copy(update={"files": (name,)})
            next((row for row in read((only,), domains) if not isinstance(row, Dropped)), None)


def shards(sources: Iterable[Pile], domains: Domains, rows: int) -> Iterator[tuple[int, list[Row | Dropped]]]:
    """Numbered shards of `rows` rows, or fewer that reach SHARD_CHARS characters."""
    shard, batch, size = 0, list[Row | Dropped](), 0
    for result in read(sources, domains):
        batch.append(result)
        size += _size(result.row if isinstance(result, Dropped) else result)
        if len(batch) == rows or size >= SHARD_CHARS:
            yield shard, batch
            shard, batch, size = shard + 1, [], 0
    if batch:
        yield shard, batch


def _size(value: Any) -> int:
    """Characters of all texts in a value."""
    if isinstance(value, dict):
        return sum(map(_size, value.values()))
    return len(value) if isinstance(value, str) else sum(map(_size, value)) if isinstance(value, list) else 1


def read_row(source: Pile, domains: Domains, n: int, where: str, raw: Row | str) -> Row | Dropped:
    origin = {"id": f"{source.name}/{n}", "source": source.name, "where": where}
    if isinstance(raw, str):
        return Dropped(origin, MALFORMED, {"detail": f"{where}: {shorten(raw)}"})
    try:
        row = _without_nulls(renamed(raw, source.columns, where), where)
        own = {k: v for k, v in row.items() if k not in RESERVED}
        if row.get("id") is not None:
            origin["own_id"] = str(row["id"])
        return {**origin, **own, **source.labels, **_content(row, source, domains, where)}
    except DataError as e:
        return Dropped({**origin, "raw": raw}, MALFORMED, {"detail": str(bad_row(where, str(e)))})
    except RecursionError:
        return Dropped(origin, MALFORMED, {"detail": f"{where}: {TOO_DEEP}"})


def _without_nulls(row: Row, where: str) -> Row:
    """The row without those of the optional keys that hold null. Raises DataError for another type than they have."""
    for key, kind in OPTIONAL.items():
        if not isinstance(row.get(key, kind()), kind) and row[key] is not None:
            raise DataError(f"{where}: {key}: got {row[key]!r}, expected {'a text' if kind is str else 'an object'}")
    row = {key: value for key, value in row.items() if value is not None or key not in OPTIONAL}
    for key in ("pass_rates", "agreement", "lengths"):  # {teacher: number}
        row |= {key: {k: v for k, v in row[key].items() if v is not None}} if key in row else {}
        if bad := [v for v in row.get(key, {}).values() if not isinstance(v, int | float)]:
            raise DataError(f"{where}: {key}: got {bad[0]!r}, expected numbers")
    return row


def _content(row: Row, source: Pile, domains: Domains, where: str) -> Row:
    """The checked keys. Raises DataError."""
    if row.get("problem") is None and (source.format != "messages" or row.get("messages")):
        row = {**row, **_of_conversation(with_messages(row, source.format, where), where)}
    row = problem_of(row, where, source, domains)
    domain, text = domains[row["domain"]], row["problem"]
    for pattern in source.remove:
        text = re.sub(pattern, "", text)
    out: Row = {"domain": domain.name, "problem": text.strip()}
    if domain.comparison == "program":
        out |= tests_of(row.get("tests"))
    elif domain.comparison == "answer":
        out[domain.answer] = row[domain.answer]
    if row.get("solutions") and domain.comparison != "equal":
        solutions = solutions_of(row["solutions"], row.get("language") or "python")
        out["solutions"] = _texts(solutions, f"{where}: solutions")
    if row.get("responses"):
        out["responses"] = [_response(r, where) for r in _list(row["responses"], f"{where}: responses")]
    return out


def _of_conversation(row: Row, where: str) -> Row:
    """Problem and response of a single-turn conversation; a system message is left out."""
    turns = [m for m in messages_in(row, where) if m["role"] != "system"]
    if [m["role"] for m in turns] != ["user", "assistant"]:
        roles = ", ".join(m["role"] for m in turns)
        raise DataError(f"{where}: messages: got roles {roles}, expected user, assistant")
    if "weight" in turns[1]:
        raise DataError(f"{where}: messages: weight: got 0, expected a turn to train on")
    return {"problem": turns[0]["content"], "responses": [turns[1]["content"]]}


def _response(response: Any, where: str) -> Row:
    """A text, or {"text", "teacher"}. Restores the <think> that was part of the prompt it was sampled from."""
    given = {"text": response} if isinstance(response, str) else response
    if isinstance(given, dict) and isinstance(text := given.get("text"), str):
        opened = THOUGHT in text and THINK not in text
        return {"teacher": "", **given, "text": THINK + text if opened else text}
    raise DataError(f"{where}: responses: got {type(response).__name__}, expected texts")


def _texts(value: Any, where: str) -> list[str]:
    texts = _list(value, where)
    if wrong := [t for t in texts if not isinstance(t, str)]:
        raise DataError(f"{where}: got {type(wrong[0]).__name__}, expected texts")
    return texts


def _list(value: Any, where: str) -> list[Any]:
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list):
        raise DataError(f"{where}: got {type(value).__name__}, expected a list")
    return [item for item in value if item is not None]
