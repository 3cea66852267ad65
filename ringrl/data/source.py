"""Rows of all sources, checked one by one: data files, local or on the hub (`ringrl.data.files` opens them), hub
datasets and slices of them, and reasoning-gym's generators (`ringrl.data.gym`).

A problem is {"id", "domain", "problem"} plus its domain's keys: "answer" for math and science, "tests" and optional
keys such as "entry_point" for code, or what a user's domain declares (`ringrl.domains`). SFT data is {"messages":
[{"role", "content"}, ...]} (`ringrl.data.messages`), or what `ringrl.data.formats` makes that of. `columns` maps other
schemas.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from ringrl.config.sections import SUFFIXES, Prompting, Slice, Source, slices
from ringrl.data import gym
from ringrl.data.faults import Faults, bad_row
from ringrl.data.files import ENDINGS, TABLE_ROWS, TOO_DEEP, Row, Rows, file_rows, table_rows
from ringrl.data.formats import with_messages
from ringrl.data.messages import Message, messages_in
from ringrl.data.reference_keys import answer_text
from ringrl.domains import Domains
from ringrl.errors import DataError
from ringrl.lines import sha256
from ringrl.rewards.references import unusable

HUB_FILE = re.compile(r"hf://datasets/(?P<repo>[^/@]+/[^/@]+)@(?P<revision>refs/convert/parquet|[^/]+)/(?P<file>.+)")
Convert = Callable[[Row], Row | None]
T = TypeVar("T")
HUB_SET = "hub dataset"  # what is known of the contents of one


def read_problems(source: Source, domains: Domains, convert: Convert = lambda row: row) -> list[Row]:
    """All rows of a source as problems.

    Args:
        convert: turns a row of the file into a problem, or into None to skip it.

    Raises:
        DataError: names the first bad rows, also those that the verifier cannot use, and how many they are.
    """

    def problem(row: Row, where: str) -> Row | None:
        if row.get("id", "") is None:  # as in a table where others have one
            del row["id"]
        if (converted := _converted(row, where, convert)) is None:
            return None
        made = problem_of({"id": where, **converted}, where, source, domains)
        domain = domains[made["domain"]]
        domain.check(made, where)
        if fault := _unwritable(made["problem"]) or unusable(domain, domain.reference(made)):
            raise DataError(f"{fault}; `ringrl data` drops such rows")
        return made

    return list(_checked(source, problem))


def _checked(source: Source, make: Callable[[Row, str], T | None]) -> Iterator[T]:
    """What `make` makes of each row, which is None for a row to skip; one row in memory at a time.

    Raises:
        DataError: at the end, or after many of them: names the first bad rows and how many they are.
    """
    faults = Faults()
    for where, row in raw_rows(source):
        faults.rows += 1
        try:
            if isinstance(row, str):
                raise DataError(row)
            item = make(renamed(row, source.columns, where), where)
        except DataError as e:
            faults.add(where, str(e))
        except RecursionError:
            faults.add(where, TOO_DEEP)
        else:
            if item is not None:
                yield item
    faults.check()


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


def read_conversations(source: Source) -> Iterator[tuple[str, list[Message]]]:
    """("file:line", messages) of all rows, one in memory at a time. Each ends with the assistant, whose contents begin
    with the thoughts.

    Raises:
        DataError: at the end, or after many of them: names the first bad rows and how many they are.
    """

    def conversation(row: Row, where: str) -> tuple[str, list[Message]]:
        messages = messages_in(with_messages(row, source.format, where), where)
        if fault := next(filter(None, (_unwritable(m["content"]) for m in messages)), ""):
            raise DataError(fault)
        return where, messages

    return _checked(source, conversation)


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
        digests[name] = sha256(path) if path.is_file() else HUB_SET
    return digests


def check_local(sources: Iterable[Source], read: Callable[[Source], Iterable[Any]]) -> set[str]:
    """Read all local files as the run will; returns the domains of their problems. Raises DataError for the first
    fault."""
    domains: set[str] = set()
    for source in sources:
        local = tuple(f for f in source.files if is_path(f))
        if local:
            rows = 0
            for row in read(source.model_copy(update={"files": local})):
                rows += 1
                if isinstance(row, dict):
                    domains.add(row["domain"])
            if not rows:
                raise DataError(f"{local[0]}: no rows")
    return domains


def absent_file(sources: Iterable[Source]) -> str:
    """The first local file that is not there, or ""."""
    names = (f for s in sources for f in s.files if is_path(f) and not f.startswith(gym.PREFIX))
    return next((name for name in names if not Path(name).is_file()), "")


def check_readable(sources: Iterable[Source]) -> None:
    """Check that every local file has a first row, valid or not. Raises DataError."""
    for name in (f for s in sources for f in s.files if is_path(f)):
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


def is_path(name: str) -> bool:
    """Whether `name` is a local file: absolute, starting with a dot, with a data file's ending, with more parts than a
    name on the hub has, or existing; or made by a generator, which is as good as one. All others, and folders, are
    files on the hub or go to `datasets`: hub names, or folders of parquet or JSONL files."""
    if name.startswith(gym.PREFIX):
        return True
    named = (
        name.startswith(("/", ".", "~"))
        or name.lower().endswith(ENDINGS)
        or name.partition(":")[0].strip("/").count("/") > 1
    )
    return (named or Path(name).is_file()) and not name.startswith("hf://") and not Path(name).is_dir()


def raw_rows(source: Source) -> Rows:
    """("file:line", unchanged row, or a message if it is broken), at most `limit`; one row in memory at a time.

    Raises:
        DataError: a file that cannot be read at all.
    """
    rows = (item for name in source.files for item in rows_named(name, source.split))
    return islice(rows, source.limit or None)


def rows_named(name: str, split: str) -> Rows:
    """The same of one of the files or datasets of a source, of which `split` is taken."""
    return _file_rows(name) if is_path(name) or name.startswith("hf://") else _hub(name, split)


def read_rows(name: str) -> Iterator[tuple[str, Row]]:
    """("file:line", row) of a data file, local or on the hub. Raises DataError."""
    for where, row in _file_rows(name):
        if isinstance(row, str):
            raise bad_row(where, row)
        yield where, row


def _file_rows(name: str) -> Rows:
    return gym.problems(name) if name.startswith(gym.PREFIX) else file_rows(local_file(name), name)


def _hub(name: str, split: str) -> Rows:
    path, _, config = name.partition(":")  # "owner/name" or "owner/name:config"
    parts, empty = slices(split), True
    try:
        for part in parts:
            place = name if len(parts) == 1 else f"{name}:{part.split}"
            for i, row in _sliced(path, config or None, part):
                yield f"{place}[{i}]", row
                empty = False
    except Exception as e:  # any error here means: check the name or the network
        raise DataError(f"{name}: no such file, and not loadable as a hub dataset: {_first_line(e)}") from None
    if empty:
        raise DataError(f"{name}: no rows in split {split}")


def _sliced(path: str, config: str | None, part: Slice) -> Iterator[tuple[int, Row]]:
    """The rows of a slice with their numbers in the whole split, streamed unless the slice counts from the end."""
    import datasets

    if part.needs_size:
        data = datasets.load_dataset(path, config, split=part.split)
        first, end = part.bounds(len(data))
        tables = data.select(range(first, max(first, end or 0))).with_format("arrow").iter(TABLE_ROWS)
        yield from enumerate((row for table in tables for row in table_rows(table)), first)
        return
    tables = datasets.load_dataset(path, config, split=part.split, streaming=True).with_format("arrow").iter(TABLE_ROWS)
    rows = enumerate(row for table in tables for row in table_rows(table))
    yield from islice(rows, *part.bounds(None))


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


def _unwritable(text: str) -> str:
    """What is wrong with a text that has half of a character, which JSON can hold and a tokenizer cannot; else ""."""
    try:
        text.encode()
    except UnicodeEncodeError as e:
        return f"got the surrogate U+{ord(text[e.start]):04X}, half of a character, at {e.start}; expected Unicode text"
    return ""


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
