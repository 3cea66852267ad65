"""The rows of a run as they come, each once, and what a record of them holds by now."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

FILES = {"metrics": "train", "evals": "eval"}  # what is read, and how names of its numbers begin


class Feed:
    """Reads the complete lines of one file from where a record ends.

    Args:
        held: `mark` of the record; {} of an empty one.
    """

    def __init__(self, file: Path, held: Mapping[str, Any]) -> None:
        self.file, self.held = file, held
        self.read, self.hash, self.inode = 0, hashlib.sha256(), 0

    def mark(self) -> dict[str, Any]:
        """Bytes that were read, and their hash."""
        return {"bytes": self.read, "sha256": self.hash.hexdigest()}

    def rows(self) -> Iterator[dict[str, Any]]:
        """New ones. Raises TakenBack."""
        if not self.file.is_file():
            if self.read or self.held.get("bytes"):
                raise TakenBack(self.file.name)
            return
        with self.file.open("rb") as f:
            if (inode := os.fstat(f.fileno()).st_ino) != self.inode:  # seen for the first time, or written anew by
                held = self.mark() if self.read else self.held  # --resume or after a collapse
                read = held.get("bytes", 0)
                self.hash = hashlib.sha256(f.read(read))
                if read and self.hash.hexdigest() != held["sha256"]:
                    raise TakenBack(self.file.name)
                self.read, self.inode = read, inode
            f.seek(self.read)
            for line in f:
                if not line.endswith(b"\n"):  # of which the rest is to come
                    return
                self.read += len(line)
                self.hash.update(line)
                yield json.loads(line)


class TakenBack(Exception):
    """Rows that a record holds are gone from the run, or others."""


def numbers_of(kind: str, row: Mapping[str, Any]) -> dict[str, float]:
    """{"train/loss": 0.5, ...}: all finite numbers of a row, nested ones too. Those of an evaluation have its domain
    in their names. Counts by problem are left out: they would be a name for every problem."""
    at = "/".join([FILES[kind], *([str(row["domain"])] if kind == "evals" and "domain" in row else [])])
    return {key: float(value) for key, value in flat(row, at)
            if isinstance(value, int | float) and math.isfinite(value) and "/errors_of_problems/" not in key
            and not key.endswith("/step")}  # fmt: skip


def flat(value: Any, at: str) -> Iterator[tuple[str, Any]]:
    """(path, leaf) of nested mappings and lists."""
    if isinstance(value, Mapping | list):
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, item in items:
            yield from flat(item, f"{at}/{key}" if at else str(key))
    else:
        yield at, value
