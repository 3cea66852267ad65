"""Of the configurations that ship, one per command, run as scripts/check_configs.py runs all of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.check_configs import SAMPLE
from tests.conftest import ENVIRONMENT

SCRIPT = Path(__file__).parents[2] / "scripts" / "check_configs.py"


@pytest.mark.slow
def test_one_configuration_of_each_command_runs(tmp_path: Path) -> None:
    args = [sys.executable, str(SCRIPT), str(tmp_path), "--only", ",".join(SAMPLE)]
    done = subprocess.run(args, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    cases = {case["command"]: case for case in map(json.loads, (tmp_path / "cases.jsonl").read_text().splitlines())}
    assert sorted(cases) == ["data", "eval", "rl", "select-ckpt", "sft"]
    assert (cases["sft"]["steps"], cases["rl"]["steps"]) == (2, 4)
    assert cases["rl"]["trained"] > 0
