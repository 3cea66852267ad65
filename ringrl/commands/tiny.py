"""`ringrl tiny`: the demo's inputs, made here: a tiny MoE with its tokenizer, and tasks in three domains."""

from __future__ import annotations

import json
from pathlib import Path

from ringrl.data.tasks import write
from ringrl.data.tiny import build_model
from ringrl.errors import DataError


def build(folder: Path, seed: int) -> list[str]:
    """FOLDER/data/*.jsonl and FOLDER/model; both depend on the seed alone. Returns lines to show.

    Raises:
        DataError: the folder exists.
    """
    if folder.exists():
        raise DataError(f"{folder}: exists; remove it, or choose another folder")
    data = folder / "data"
    counts = write(data, seed)
    rows = [json.loads(line) for line in (data / "sft.jsonl").read_text().splitlines()]
    build_model(folder / "model", (m["content"] for row in rows for m in row["messages"]), seed)
    return [f"{data}/{name}: {n} rows" for name, n in counts.items()] + [f"{folder / 'model'}: the start model"]
