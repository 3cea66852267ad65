"""Files of JSON lines, hashes, and atomic replacement of files: readers see the old content or the new, no part."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from ringrl.errors import DataError


def read_lines(file: Path, cut: bool = False) -> Iterator[Any]:
    """The values in a file of JSON lines, one in memory at a time.

    Args:
        cut: skip a last line without its end, as a killed process may leave it.

    Raises:
        DataError: names the line that is not JSON.
    """
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                value = json.loads(line)
            except ValueError:
                if cut and not line.endswith(b"\n"):
                    return
                raise DataError(f"{file}:{number}: got a broken line, expected JSON as it was written there") from None
            yield value


def readable_lines(file: Path) -> tuple[list[dict[str, Any]], int]:
    """(rows, number of broken lines) of a file that may be missing; for reports, which show what is readable."""
    lines = [line for line in file.read_text(errors="replace").splitlines() if line] if file.is_file() else []
    rows = [row for row in map(parsed, lines) if row]
    return rows, len(lines) - len(rows)


def read_object(file: Path) -> dict[str, Any]:
    """The JSON object in a file, {} if it is missing or broken."""
    return parsed(file.read_text(errors="replace")) if file.is_file() else {}


def parsed(text: str) -> dict[str, Any]:
    """The parsed JSON object, {} if the text is none."""
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def replacing(file: Path) -> Iterator[BinaryIO]:
    """A file to write to that replaces `file` when the block ends without an error."""
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as out:
            yield out
        os.replace(part, file)
    except OSError as e:  # of a full disk, which does not say what could not be written
        e.filename = e.filename or str(file)
        raise


def write_atomic(file: Path, content: str | bytes) -> None:
    with replacing(file) as out:
        out.write(content.encode() if isinstance(content, str) else content)
