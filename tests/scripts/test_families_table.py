"""A sample of the table in docs/models.md; scripts/families.py makes all of it."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent
SAMPLE = ("granitemoe", "gpt_oss", "qwen3_next", "deepseek_v2", "minimax_m2", "gemma2", "jamba")


def script() -> Any:
    spec = importlib.util.spec_from_file_location("families", ROOT / "scripts" / "families.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


families = script()


def documented() -> dict[str, list[str]]:
    lines = (ROOT / "docs" / "models.md").read_text().split("<!-- families -->")[1].strip().splitlines()[2:]
    cells = [[c.strip() for c in line.strip("|").split("|")] for line in lines]
    return {row[0]: row[2:] for row in cells}


def test_the_documented_table_has_every_family_and_nothing_wrong():
    table = documented()
    assert list(table) == list(families.FAMILIES)
    for name, cells in table.items():
        if cells[0].startswith("refused: "):
            continue
        row = dict(zip(families.COLUMNS, cells, strict=True))
        numbers = {k: float(v) for k, v in row.items() if v[0].isdigit()}
        assert families.wrong(numbers) == [], name
        assert "padded" in numbers, name


def test_a_sample_is_as_documented(tmp_path: Path):
    out = tmp_path / "rows.jsonl"
    rows = families.run(SAMPLE, out)
    table = documented()
    for row in rows:
        assert families.wrong(row) == [], row
        assert ("refused" in row) == table[row["family"]][0].startswith("refused"), row
        if "refused" not in row:
            assert (row["packed"] is None) == (table[row["family"]][0] == "–"), row
            assert str(row["replay"] or "–") == table[row["family"]][5] or isinstance(row["replay"], float), row
    stamp = out.read_text()
    assert families.run(SAMPLE, out) == [json.loads(line) for line in stamp.splitlines()]
    assert out.read_text() == stamp  # nothing is measured twice


@pytest.mark.parametrize("column", families.LIMITS)
def test_a_difference_is_found(column: str):
    assert families.wrong({column: 0.01}) == [column]
    assert families.wrong({column: float("nan")}) == [column]
    assert families.wrong({column: 1e-6}) == families.wrong({column: None}) == families.wrong({"refused": "so"}) == []
