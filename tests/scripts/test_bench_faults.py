"""A fixed sample of the fault loop: nothing lost, nothing wrong in silence."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ENVIRONMENT

SCRIPT = Path(__file__).parents[2] / "scripts" / "bench_faults.py"


@pytest.mark.slow
def test_every_case_of_the_sample_is_survived_or_refused_in_one_line(tmp_path: Path) -> None:
    args = [sys.executable, str(SCRIPT), str(tmp_path / "out"), "--sample"]
    environment = {**ENVIRONMENT, "PYTHONPATH": f"{SCRIPT.parents[1]}:{ENVIRONMENT.get('PYTHONPATH', '')}"}
    for _ in range(2):  # the second time there is nothing left to do
        done = subprocess.run(args, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    cases = [json.loads(line) for line in (tmp_path / "out" / "cases.jsonl").read_text().splitlines()]
    assert [case["outcome"] for case in cases] == ["survived", "stopped", "stopped"]
    assert len(cases[0]["kills"]) >= 1
    assert "| data | SIGKILL |" in done.stdout
