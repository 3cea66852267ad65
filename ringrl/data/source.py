"""Rows from JSONL, JSON, parquet, CSV and TSV files, local or on the hub, from hub datasets, and from reasoning-gym's
generators (`ringrl.data.gym`), checked row by row. Texts are in UTF-8, with or without a byte order mark.

A problem is {"id", "domain", "problem"} plus its domain's keys: "answer" for math and science, "tests" and optional
keys such as "entry_point" for code, or what a user's domain declares (`ringrl.domains`). SFT data is {"messages":
[{"role", "content"}, ...]} (`ringrl.data.messages`). `columns` maps other schemas.
"""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ringrl.config.sections import SUFFIXES, Prompting, Source
from ringrl.data import gym
from ringrl.data.messages import Message, messages_in
from ringrl.data.reference_keys import answer_text
from ringrl.domains import Domains
from ringrl.errors import DataError
from ringrl.lines import sha256
from ringrl.rewards.references import unusable

PARQUET_ROWS = 1000  # rows per batch
FORMATS = (".jsonl", ".json", ".parquet", ".csv", ".tsv")
BOM, LF = b"\xef\xbb\xbf", b"\n"
LONGEST_FIELD = 2**31 - 1  # characters of a field of a CSV file, which are 131,072 unless said otherwise
HUB_FILE = re.compile(r"hf://datasets/(?P<repo>[^/@]+/[^/@]+)@(?P<revision>refs/convert/parquet|[^/]+)/(?P<file>.+)")
SPACE = re.compile(r"\s*")
TOO_DEEP = "values are nested too deeply"
Row = dict[str, Any]
Convert = Callable[[Row], Row | None]


def read_problems(source: Source, domains: Domains, convert: Convert = lambda row: row) -> list[Row]:
    """All rows of a source as problems.

    Args:
        convert: turns a row of the file into a problem, or into None to skip it.

    Raises:
        DataError: names file, line and fault; the first of those that the verifier cannot use, and how many they are.
    """
    problems, faults = [], []
    for where, row in _rows(source):
        if (converted := _converted(row, where, convert)) is not None:
            problem = problem_of({"id": where, **converted}, where, source, domains)
            domain = domains[problem["domain"]]
            try:
                domain.check(problem, where)
                fault = unusable(domain, domain.reference(problem))
            except RecursionError:
                raise DataError(f"{where}: {TOO_DEEP}") from None
            if fault:
                faults.append(f"{where}: {fault}")
            problems.append(problem)
    if faults:
        more = f" ({len(faults):,} of {len(problems):,} rows have such faults)" if len(faults) > 1 else ""
        raise DataError(f"{faults[0]}{more}; `ringrl data` drops such rows")
    return problems


def read_graded(source: Source, domains: Domains) -> list[Row]:
    """Like `read_problems`, for rows with a `pass_rate`."""
    return read_problems(source, domains, _graded)


def _graded(row: Row) -> Row:
    rate = row["pass_rate"]
    if not isinstance(rate, int | float) or not 0 <= rate <= 1:
        raise ValueError(f"pass_rate: got {rate!r}, expected a number from 0 to 1")
    return row


def messages_of(row: Row, prompting: Prompting, domains: Domains) -> list[dict[str, str]]:
    """The messages of a problem, input of the chat template."""
    domain = row["domain"]
    suffix = prompting.suffix.get(domain, "" if domain in SUFFIXES else domains[domain].suffix)
    system = [{"role": "system", "content": prompting.system}] if prompting.system else []
    return [*system, {"role": "user", "content": f"{row['problem']}\n{suffix}" if suffix else row["problem"]}]


def read_conversations(source: Source) -> list[tuple[str, list[Message]]]:
    """("file:line", messages) of all rows. Each ends with the assistant, whose contents begin with the thoughts.

    Raises:
        DataError: names file, line and fault.
    """
    return [(where, messages_in(row, where)) for where, row in _rows(source)]


def read_texts(name: str) -> Iterator[tuple[str, str]]:
    """("file:line", text) of any data file; a row's text is its conversation, or all its strings. Raises DataError."""
    for where, row in read_rows(name):
        messages = row.get("messages")
        texts = [m.get("content") for m in messages] if isinstance(messages, list) else list(row.values())
        yield where, "\n".join(s for s in texts if isinstance(s, str))


def fingerprint(sources: Iterable[Source], fetch: bool = False) -> dict[str, str]:
    """sha256 of every local file and, with `fetch`, of files on the hub; the version of reasoning-gym for what its
    generators make; the value of hub datasets is "hub dataset"."""
    digests = {}
    for name in dict.fromkeys(f for s in sources for f in s.files):
        if name.startswith(gym.PREFIX):
            digests[name] = gym.version()
            continue
        path = local_file(name) if fetch else Path(name)
        digests[name] = sha256(path) if path.is_file() else "hub dataset"
    return digests


def check_local(sources: Iterable[Source], read: Callable[[Source], Sequence[Any]]) -> set[str]:
    """Read all local files as the run will; returns the domains of their problems. Raises DataError for the first
    fault."""
    domains: set[str] = set()
    for source in sources:
        local = tuple(f for f in source.files if _is_path(f))
        if local:
            rows = read(source.model_copy(update={"files": local}))
            if not rows:
                raise DataError(f"{local[0]}: no rows")
            domains.update(row["domain"] for row in rows if isinstance(row, dict))
    return domains


def absent_file(sources: Iterable[Source]) -> str:
    """The first local file that is not there, or ""."""
    names = (f for s in sources for f in s.files if _is_path(f) and not f.startswith(gym.PREFIX))
    return next((name for name in names if not Path(name).is_file()), "")


def check_readable(sources: Iterable[Source]) -> None:
    """Check that every local file has a first row, valid or not. Raises DataError."""
    for name in (f for s in sources for f in s.files if _is_path(f)):
        if next(_file_rows(name), None) is None:
            raise DataError(f"{name}: no rows")


def local_file(name: str) -> Path:
    """Path of the file `name`, downloaded or cached if it is hf://datasets/OWNER/NAME@REVISION/FILE.

    Raises:
        DataError: no such file or revision, or the hub does not answer or requires a token.
    """
    if not name.startswith("hf://"):
        return Path(name)
    import huggingface_hub

    location = HUB_FILE.fullmatch(name)
    if location is None:
        raise DataError(f"{name}: expected hf://datasets/OWNER/NAME@REVISION/FILE")
    try:
        path = huggingface_hub.hf_hub_download(
            location["repo"], location["file"], repo_type="dataset", revision=location["revision"]
        )
    except Exception as e:  # any error here means: check the name, the network or the token
        raise DataError(f"{name}: not to be had from the hub: {_first_line(e)}") from None
    return Path(path)


def _is_path(name: str) -> bool:
    """Whether `name` is a local file: absolute, starting with a dot, with a data file's ending, or existing; or made by
    a generator, which is as good as one. All others, and folders, are files on the hub or go to `datasets`: hub names,
    or folders of parquet or JSONL files."""
    if name.startswith(gym.PREFIX):
        return True
    named = name.startswith(("/", ".")) or name.endswith(FORMATS) or Path(name).is_file()
    return named and not name.startswith("hf://") and not Path(name).is_dir()


def _rows(source: Source) -> Iterator[tuple[str, Row]]:
    """("file:line", row) with columns renamed, at most `limit`. Raises DataError."""
    for where, row in raw_rows(source):
        if isinstance(row, str):
            raise DataError(f"{where}: {row}")
        yield where, renamed(row, source.columns, where)


def raw_rows(source: Source) -> Iterator[tuple[str, Row | str]]:
    """("file:line", unchanged row, or a message if it is broken), at most `limit`; one row in memory at a time.

    Raises:
        DataError: a file that cannot be read at all.
    """
    left = source.limit or float("inf")
    for name in source.files:
        for item in _file_rows(name) if _is_path(name) or name.startswith("hf://") else _hub(name, source.split):
            yield item
            left -= 1
            if left <= 0:
                return


def read_rows(name: str) -> Iterator[tuple[str, Row]]:
    """("file:line", row) of a data file, local or on the hub. Raises DataError."""
    for where, row in _file_rows(name):
        if isinstance(row, str):
            raise DataError(f"{where}: {row}")
        yield where, row


def _file_rows(name: str) -> Iterator[tuple[str, Row | str]]:
    if name.startswith(gym.PREFIX):
        return gym.problems(name)
    path = local_file(name)
    if not path.is_file():
        raise DataError(f"{name}: no such data file")
    read = {".parquet": _parquet, ".csv": _csv, ".tsv": _csv}.get(path.suffix.lower(), _json)
    return read(path, name)


def _parquet(path: Path, name: str) -> Iterator[tuple[str, Row | str]]:
    import pyarrow
    import pyarrow.parquet

    try:
        batches = pyarrow.parquet.ParquetFile(path).iter_batches(PARQUET_ROWS)
        for i, row in enumerate(row for batch in batches for row in batch.to_pylist()):
            yield f"{name}[{i}]", row
    except (pyarrow.ArrowException, OSError) as e:
        raise DataError(f"{name}: not parquet: {_first_line(e)}") from None


def _csv(path: Path, name: str) -> Iterator[tuple[str, Row | str]]:
    """Rows by the first line of each; fields are separated by what the header has of comma, semicolon and tab."""
    csv.field_size_limit(LONGEST_FIELD)
    header: list[str] = []
    with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as text:
        first = text.readline()
        text.seek(0)
        separator = "\t" if path.suffix.lower() == ".tsv" else next((s for s in ",;\t" if s in first), ",")
        lines = csv.reader(text, delimiter=separator, strict=True)
        while True:
            where = f"{name}:{lines.line_num + 1}"
            try:
                fields = next(lines, None)
            except csv.Error as e:
                yield where, f"not CSV: {e}"
                continue
            if fields is None:
                return
            if bad := _not_utf8(fields):
                yield where, bad
            elif len(fields) < 2 and not "".join(fields).strip():
                continue  # a blank line
            elif not header:
                header = fields
                if twice := next((f for f in header if f and header.count(f) > 1), ""):
                    raise DataError(f"{where}: got two columns {twice!r}, expected one")
            elif len(fields) != len(header):
                yield where, f"got {len(fields)} fields, expected {len(header)} as in the header"
            else:
                yield where, dict(zip(header, fields, strict=True))


def _not_utf8(fields: Iterable[str]) -> str:
    """What is wrong with the first field that is not UTF-8, "" if all are."""
    for field in fields:
        try:
            field.encode()
        except UnicodeEncodeError as e:
            return f"not UTF-8: byte 0x{ord(field[e.start]) & 0xFF:02x} after {field[max(e.start - 20, 0) : e.start]!r}"
    return ""


def _json(path: Path, name: str) -> Iterator[tuple[str, Row | str]]:
    """One object a line, or one array of objects."""
    begun = False
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            content = line.removeprefix(BOM).strip() if number == 1 else line.strip()
            if content.startswith(b"[") and not begun:
                yield from _array(path, name)
                return
            if content:
                begun = True
                yield f"{name}:{number}", _parsed(content)


def _array(path: Path, name: str) -> Iterator[tuple[str, Row | str]]:
    """The objects of a JSON array, in memory all at once; nothing is read behind a fault."""
    content, rows, decoder = path.read_bytes().removeprefix(BOM), 0, json.JSONDecoder()
    try:
        text = content.decode()
    except UnicodeDecodeError as e:
        yield f"{name}:{1 + content.count(LF, 0, e.start)}", _fault(e)
        return
    try:
        at = _behind(text, text.index("["))
        while not text.startswith("]", at):
            row, at = decoder.raw_decode(text, at)
            yield f"{name}[{rows}]", _object(row)
            rows, at = rows + 1, _behind(text, at - 1)
            if text.startswith(",", at):
                at = _behind(text, at)
            elif not text.startswith("]", at):
                raise json.JSONDecodeError("Expecting ',' or ']'", text, at)
        if text[at + 1 :].strip():
            raise json.JSONDecodeError("Extra data", text, _behind(text, at))
    except (ValueError, RecursionError) as e:
        yield f"{name}[{rows}]", _fault(e)


def _behind(text: str, at: int) -> int:
    """Where the text goes on behind a character and the space that follows it."""
    match = SPACE.match(text, at + 1)
    return match.end() if match else at + 1


def _parsed(line: bytes) -> Row | str:
    try:
        return _object(json.loads(line.decode()))
    except (ValueError, RecursionError) as e:
        return _fault(e)


def _object(row: Any) -> Row | str:
    return row if isinstance(row, dict) else f"got {type(row).__name__}, expected an object"


def _fault(error: ValueError | RecursionError) -> str:
    """Why a text cannot be read as JSON."""
    if isinstance(error, json.JSONDecodeError):
        line = f"line {error.lineno}, " if error.lineno > 1 else ""
        return f"not JSON: {error.msg} at {line}column {error.colno}"
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8: {error.reason} at byte {error.start}"
    if isinstance(error, RecursionError):
        return TOO_DEEP
    return f"got an integer of more than {sys.get_int_max_str_digits():,} digits, expected it as a text"


def _hub(name: str, split: str) -> Iterator[tuple[str, Row | str]]:
    import datasets

    path, _, config = name.partition(":")  # "owner/name" or "owner/name:config"
    try:
        for i, row in enumerate(datasets.load_dataset(path, config or None, split=split, streaming=True)):
            yield f"{name}[{i}]", row
    except Exception as e:  # any error here means: check the name or the network
        raise DataError(f"{name}: no such file, and not loadable as a hub dataset: {_first_line(e)}") from None


def renamed(row: Row, columns: dict[str, str], where: str) -> Row:
    """The row with our keys added; "reward_model.ground_truth" and "prompt.0.content" address nested values.

    Raises:
        DataError: a key is missing.
    """
    return {**row, **{ours: _value_at(row, theirs, f"{where}: columns.{ours}") for ours, theirs in columns.items()}}


def _value_at(row: Row, key: str, where: str) -> Any:
    if key in row:
        return row[key]
    value: Any = row
    for part in key.split("."):
        try:
            value = value[int(part)] if isinstance(value, list) else value[part]
        except (KeyError, IndexError, TypeError, ValueError):
            raise DataError(f"{where}: no key {key!r}, the row has {sorted(row)}") from None
    return value


def _converted(row: Row, where: str, convert: Convert) -> Row | None:
    try:
        return convert(row)
    except KeyError as e:
        raise DataError(f"{where}: no key {e}, the row has {sorted(row)}") from None
    except (TypeError, ValueError, AttributeError) as e:
        raise DataError(f"{where}: {e}") from None


def problem_of(row: Row, where: str, source: Source, domains: Domains) -> Row:
    """The row as a problem, with a known domain, a text, and a final answer as a string, "" if missing.

    Raises:
        DataError: unknown domain or no problem text. The keys that the verifier needs are not checked here.
    """
    name = row.get("domain", "math") if source.domain == "row" else source.domain
    domain = domains.find(name, where)
    if not isinstance(row.get("problem"), str) or not row["problem"].strip():
        raise DataError(f"{where}: problem: got {row.get('problem')!r}, expected a text")
    row = {**row, "domain": name}
    if domain.comparison == "answer":
        try:
            answer = answer_text(row.get(domain.answer))
        except ValueError as e:
            raise DataError(f"{where}: {domain.answer}: {e}") from None
        row[domain.answer] = answer.rpartition("####")[2].strip()  # GSM8K writes "... #### 72"
    return row


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
