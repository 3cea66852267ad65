"""The checks for a GPU: docs/gpu.md lists them in order, and one that lacks something, fails or ends says so."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
import check_gpu
from check_gpu import CORE, ROOT, VLLM, Here, Skipped, results


def test_the_page_lists_every_part_in_order():
    rows = re.findall(r"^\| [\d–]+ \| ([\w, ]+) \|", (ROOT / "docs/gpu.md").read_text(), re.MULTILINE)
    assert ", ".join(rows).split(", ") == [*CORE, *VLLM]


def test_only_a_part_that_did_it_all_is_ok(monkeypatch: pytest.MonkeyPatch):
    def lacks(here: Here) -> dict[str, Any]:
        import no_such_package

        return {"made": no_such_package}

    def not_here(here: Here) -> dict[str, Any]:
        raise Skipped("needs a GPU")

    def wrong(here: Here) -> dict[str, Any]:
        check_gpu.close("a gap", 2.0, 1.0)
        return {}

    def ends(here: Here) -> dict[str, Any]:
        os._exit(3)

    def hangs(here: Here) -> dict[str, Any]:
        while True:
            pass

    monkeypatch.setenv("MASTER_PORT", "0")  # so that it is taken away again
    parts = {f.__name__: f for f in (lacks, not_here, wrong, ends)} | {"good": lambda here: {"n": 3}}
    found = {line["part"]: line for line in results(parts, "cpu")}
    monkeypatch.setattr(check_gpu, "LIMIT_S", 0.5)
    found |= {line["part"]: line for line in results({"hangs": hangs}, "cpu")}
    assert {name: line["verdict"] for name, line in found.items()} == {
        "lacks": "skipped", "not_here": "skipped", "wrong": "failed", "ends": "failed", "hangs": "failed", "good": "ok",
    }  # fmt: skip
    assert found["lacks"]["why"] == "no_such_package is missing"
    assert found["wrong"]["why"] == "AssertionError: a gap: got 2, expected at most 1"
    assert found["good"]["n"] == 3
