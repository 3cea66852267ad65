"""What counts as the origin of a run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ringrl.config.commands import EvalConfig
from ringrl.launch.command import Needs
from ringrl.launch.origin import hub_revision, origin_of
from ringrl.lines import sha256


def test_whatever_names_a_file_is_hashed_but_no_key_and_no_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for name in ("bench.jsonl", "template.jinja", "key", "math", "contests.json"):
        Path(name).write_text(name)
    cfg = EvalConfig.model_validate({
        "run": "run", "model": "m", "prompting": {"template": "template.jinja"},
        "benchmarks": [{"name": "math", "data": "bench.jsonl", "domain": "math", "contests": "./contests.json"}],
        "rollout": {"addresses": ["host:1"], "key_file": f"{tmp_path}/key"},
    })  # fmt: skip
    origin = origin_of(cfg, Needs("m"), {"my.py": "1"})
    names = ("bench.jsonl", "template.jinja", "./contests.json")
    assert origin.data == {name: sha256(Path(name)) for name in names} | {"my.py": "1"}


def test_a_folder_that_is_read_as_a_hub_dataset_is_hashed_file_by_file(tmp_path: Path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "rows.jsonl").write_text("{}\n")
    before = hub_revision(str(tmp_path)), hub_revision(f"{tmp_path}:default")
    assert len(set(before)) == 1
    (tmp_path / "deep" / "rows.jsonl").write_text("[]\n")
    changed = hub_revision(str(tmp_path))
    assert changed not in before
    os.rename(tmp_path / "deep" / "rows.jsonl", tmp_path / "deep" / "others.jsonl")
    assert hub_revision(str(tmp_path)) != changed
