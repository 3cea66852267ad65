"""`ringrl tiny`: generates the demo's inputs: a tiny MoE with its tokenizer, and raw tasks in three domains."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from ringrl.data import pile
from ringrl.data.tiny import build_model
from ringrl.errors import DataError

CORPUS = {"math": 3000, "code": 1620, "science": 1380}  # rows to train the tokenizer on, in the demo's SFT mix


def build(folder: Path, seed: int) -> list[str]:
    """Writes FOLDER/pile, FOLDER/data and FOLDER/model, which depend on the seed alone. Returns lines to show.

    Raises:
        DataError: the folder exists.
    """
    if folder.exists():
        raise DataError(f"{folder}: exists; remove it, or choose another folder")
    part = folder.with_name(f".{folder.name}.part")  # an interrupt leaves no partial folder
    shutil.rmtree(part, ignore_errors=True)
    counts = pile.write(part, seed)
    build_model(part / "model", _corpus(seed), seed)
    os.replace(part, folder)
    return [f"{folder / name}: {n} rows" for name, n in counts.items()] + [f"{folder / 'model'}: the start model"]


def _corpus(seed: int) -> Iterator[str]:
    for domain, n in CORPUS.items():
        for row in pile.good_rows(domain, seed)[:n]:
            yield row["problem"]
            yield row["responses"][0]["text"]
