"""One data file, row by row: JSON lines, a JSON array, CSV, TSV, parquet or Arrow, as it is or compressed.

Compression, parquet and Arrow are told by the content, the other formats by the ending of the name. Texts are in UTF-8,
or in UTF-16 with a byte order mark. A row that cannot be read comes as a message that says why, and does not hide the
rows behind it; a file that cannot be read is a DataError.
"""

from __future__ import annotations

import bz2
import codecs
import csv
import datetime
import gzip
import io
import json
import lzma
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from ringrl.errors import DataError

if TYPE_CHECKING:
    import pyarrow

Row = dict[str, Any]
Rows = Iterator[tuple[str, Row | str]]  # ("file:line", the row or what is wrong with it)

FORMATS = (".jsonl", ".json", ".parquet", ".csv", ".tsv", ".arrow", ".ndjson", ".feather")
PACKED = (".gz", ".bz2", ".xz", ".zst")
ENDINGS = tuple(ending + packed for packed in ("", *PACKED) for ending in FORMATS)
BOM, LF = codecs.BOM_UTF8, b"\n"
WIDE = {codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32",
        codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}  # fmt: skip
OTHERS = {  # how files of other kinds begin, and what they are
    b"PK\x03\x04": "a ZIP archive or an Excel file",
    b"version https://git-lfs": "a pointer of Git LFS, whose file is still to be fetched with `git lfs pull`",
    b"<!DOCTYPE": "a web page",
    b"<!doctype": "a web page",
    b"<html": "a web page",
}
TABLE_ROWS = 1000  # rows of a parquet file or of a hub dataset that are converted together
LONGEST_FIELD = 2**31 - 1  # characters of a field of a CSV file, which are 131,072 unless said otherwise
UNPACKED, RATIO = 1 << 30, 500  # a compressed file may hold so many bytes, or so many times its own size
SPACE = re.compile(r"\s*")
CONVERTED = re.compile("binary|decimal|time|date|duration|map|extension|union")  # column types that JSON lacks
TOO_DEEP = "values are nested too deeply"


def file_rows(path: Path, name: str) -> Rows:
    """The rows of a file, one at a time except from a JSON array.

    Args:
        name: what the file is called in the places of its rows.

    Raises:
        DataError: it cannot be read at all, or it is damaged.
    """
    if not path.is_file():
        raise DataError(f"{name}: no such data file")
    try:
        with path.open("rb") as packed, _unpacked(packed, name) as file:
            yield from _reader(file, name)
    except OSError as e:
        raise DataError(f"{name}: {e.strerror or e}") from None


def _reader(file: io.BufferedReader, name: str) -> Rows:
    head, ending = file.peek(64), _ending(name)
    if kind := next((kind for begin, kind in OTHERS.items() if head.startswith(begin)), ""):
        raise DataError(f"{name}: got {kind}, expected one of {', '.join(FORMATS)}, or one of them compressed")
    if head.startswith(b"PAR1") or ending == ".parquet":
        return _tables(file, name, _parquet)
    if head.startswith((b"ARROW1", b"FEA1", b"\xff\xff\xff\xff")):
        return _tables(file, name, _arrow)
    if wide := next((encoding for mark, encoding in WIDE.items() if head.startswith(mark)), ""):
        try:
            file = io.BufferedReader(io.BytesIO(file.read().decode(wide).encode()))  # type: ignore[arg-type]
        except UnicodeError as e:
            raise DataError(f"{name}: not {wide.upper()}: {e}") from None
    return _csv(file, name, ending) if ending in (".csv", ".tsv") else _json(file, name)


def _ending(name: str) -> str:
    """The ending that tells the format: ".csv" of "a.CSV.gz"."""
    path = Path(name.lower())
    return path.with_suffix("").suffix if path.suffix in PACKED else path.suffix


# ---- compressed files


class _Unpacked(io.RawIOBase):
    """The content of a compressed file, as far as its size is credible."""

    def __init__(self, content: IO[bytes], packed: int, name: str) -> None:
        self.content, self.name = content, name
        self.left = max(UNPACKED, RATIO * packed)  # bytes

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            part = self.content.read(len(buffer))
        except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as e:
            raise DataError(f"{self.name}: damaged: {' '.join(str(e).split())}") from None
        self.left -= len(part)
        if self.left < 0:
            raise DataError(f"{self.name}: uncompressed it has more than {UNPACKED >> 20:,} MiB and {RATIO} times its "
                            f"size, expected less of a file of data; uncompress it yourself")  # fmt: skip
        buffer[: len(part)] = part
        return len(part)


def _unpacked(file: io.BufferedReader, name: str) -> io.BufferedReader:
    head = file.peek(8)
    size = Path(file.name).stat().st_size
    unpack = next((unpack for begin, unpack in UNPACK.items() if head.startswith(begin)), None)
    return io.BufferedReader(_Unpacked(unpack(file), size, name), 1 << 20) if unpack else file


def _zstd(file: IO[bytes]) -> Any:
    import pyarrow

    return pyarrow.CompressedInputStream(file, "zstd")


UNPACK: dict[bytes, Callable[[Any], Any]] = {
    b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open, b"\x28\xb5\x2f\xfd": _zstd,
}  # fmt: skip


# ---- tables of Arrow


def _tables(file: io.BufferedReader, name: str, read: Callable[[Any], Iterable[pyarrow.RecordBatch]]) -> Rows:
    import pyarrow

    content = file if file.seekable() else pyarrow.BufferReader(file.read())
    first = 0
    try:
        for table in read(content):
            for i, row in enumerate(table_rows(table), first):
                yield f"{name}[{i}]", row
            first += table.num_rows
    except (pyarrow.ArrowException, OSError) as e:
        kind = "parquet" if read is _parquet else "Arrow"
        raise DataError(f"{name}: not {kind}: {_first_line(e)}") from None
    except ValueError as e:
        raise DataError(f"{name}: {e}") from None


def _parquet(content: Any) -> Iterable[pyarrow.RecordBatch]:
    import pyarrow.parquet

    return pyarrow.parquet.ParquetFile(content).iter_batches(TABLE_ROWS)


def _arrow(content: Any) -> Iterable[pyarrow.RecordBatch]:
    """Batches of an Arrow file, or of a stream, which is how `datasets` keeps its caches."""
    import pyarrow

    if content.read(6) == b"ARROW1":
        content.seek(0)
        reader = pyarrow.ipc.open_file(content)
        return (reader.get_batch(i) for i in range(reader.num_record_batches))
    content.seek(0)
    return pyarrow.ipc.open_stream(content)


def table_rows(table: pyarrow.RecordBatch | pyarrow.Table) -> Iterator[Row]:
    """The rows of a table in types that JSON has; bytes that are no text are only counted.

    Raises:
        ValueError: two columns have one name.
    """
    names = table.schema.names
    if twice := next((n for n in names if names.count(n) > 1), ""):
        raise ValueError(f"got two columns {twice!r}, expected one")
    columns = [_values(column) for column in table.columns]
    return (dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True))


def _values(column: Any) -> list[Any]:
    import pyarrow

    kind = column.type
    if pyarrow.types.is_temporal(kind) and not pyarrow.types.is_duration(kind):
        return column.cast(pyarrow.string()).to_pylist()  # Python's own types end before the year 10,000
    values: list[Any] = column.to_pylist()
    return [_plain(value) for value in values] if CONVERTED.search(str(kind)) else values


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return f"{len(value):,} bytes"
    return value.isoformat() if isinstance(value, datetime.date | datetime.time) else str(value)


# ---- texts


def _csv(file: io.BufferedReader, name: str, ending: str) -> Rows:
    """Rows by the first line of each; fields are separated by that of comma, semicolon and tab which splits the header
    most, or by what Excel's first line `sep=;` says."""
    csv.field_size_limit(LONGEST_FIELD)
    with io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
        first, skipped = text.readline(), 0
        separator = max(",;\t", key=lambda s: len(next(csv.reader([first], delimiter=s), [])))
        if said := re.fullmatch(r'"?sep=(.)"?\s*', first):
            first, skipped, separator = text.readline(), 1, said[1]
        lines = csv.reader(chain([first], text), delimiter="\t" if ending == ".tsv" else separator, strict=True)
        header: list[str] = []
        while True:
            where = f"{name}:{lines.line_num + skipped + 1}"
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
                header = [field.strip() for field in fields]
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


def _json(file: io.BufferedReader, name: str) -> Rows:
    """One object a line, or one array of objects."""
    blank: list[bytes] | None = []  # lines before the first that is not blank
    for number, line in enumerate(file, 1):
        content = line.removeprefix(BOM).strip() if number == 1 else line.strip()
        if content.startswith(b"[") and blank is not None:
            yield from _array(b"".join([*blank, line, file.read()]).removeprefix(BOM), name)
            return
        if content:
            blank = None
            yield f"{name}:{number}", _parsed(content)
        elif blank is not None:
            blank.append(line)


def _array(content: bytes, name: str) -> Rows:
    """The objects of a JSON array, in memory all at once; nothing is read behind a fault."""
    rows, decoder = 0, json.JSONDecoder()
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


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
