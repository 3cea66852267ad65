"""The demo's data, made as `make demo` makes it: every planted fault is gone, and the sets are those it trains on."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import yaml

from ringrl.data import pile
from tests.conftest import lines, ringrl, write_yaml

CONFIG = Path(__file__).parents[2] / "configs" / "tiny" / "run.yaml"
SETS = {"probe": 60, "sft": 6000, "sft_val": 200, "rl_math": 1500, "rl_code": 1500, "rl_science": 1500}
RESPONSES = ("wrong response", "cut response")  # faults of no problem: it goes on without them


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_the_demo_finds_every_planted_fault(tmp_path: Path, seed: int) -> None:
    pile.write(tmp_path / "tiny", seed)
    text = CONFIG.read_text().replace("runs/tiny/", f"{tmp_path}/tiny/")
    section = {**yaml.safe_load(text)["data"], "run": str(tmp_path / "run"), "seed": seed}
    done = ringrl("data", write_yaml(tmp_path / "data.yaml", section))
    assert done.code == 0, done.text
    sets = {name: lines(tmp_path / "run" / "data" / f"{name}.jsonl") for name in SETS}
    assert {name: len(rows) for name, rows in sets.items()} == SETS
    assert Counter(row["domain"] for row in sets["sft"]) == {"math": 3000, "code": 1620, "science": 1380}
    rows = [row for some in sets.values() for row in some]
    assert {row.get("fault") for row in rows} <= {None, *RESPONSES}
    assert not [row for row in sets["sft"] + sets["sft_val"] if "fault" in row]
    texts = [row["problem"] if "problem" in row else row["messages"][0]["content"] for row in rows]
    held_out = [row["problem"] for d in pile.GOOD for row in lines(tmp_path / "tiny" / "data" / f"heldout_{d}.jsonl")]
    assert len({*texts, *held_out}) == len(texts) + len(held_out)

    dropped = [row for file in (tmp_path / "run" / "steps").glob("*/dropped.jsonl") for row in lines(file)]
    wrong = [row for row in dropped if "response" in row]
    each = sum(round(n * pile.FAULTY) for n in pile.GOOD.values())
    assert {row["reason"] for row in wrong} == {"wrong", "think tags"}
    earlier = [row for row in dropped if row.get("fault") in RESPONSES and row["step"] != "mix"]  # for their problems
    assert len(wrong) + len(earlier) == 2 * each
    good = [row for row in dropped if row["step"] not in ("read", "mix") and "fault" not in row and row not in wrong]
    assert len(good) < 0.01 * sum(pile.GOOD.values())
    lineage = json.loads((tmp_path / "run" / "lineage.json").read_text())
    assert lineage["outputs"].keys() == SETS.keys()
