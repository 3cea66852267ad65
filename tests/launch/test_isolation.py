"""Which runs need isolated programs, and what is asked of the machine and of the data then."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ringrl.config.commands import EvalConfig
from ringrl.config.sections import Source
from ringrl.errors import ConfigError, DataError
from ringrl.launch import start
from ringrl.launch.opening import Origin, open_run
from ringrl.rewards import VerifierPool, code, pool
from ringrl.sandbox.box import Isolation

CODE = {"domain": "code", "problem": "Echo.", "tests": [{"input": "1", "output": "1"}]}


def config(tmp_path: Path, **verify: str) -> EvalConfig:
    (tmp_path / "code.jsonl").write_text(json.dumps(CODE) + "\n")
    bench = {"name": "code", "data": str(tmp_path / "code.jsonl")}
    raw = {"run": str(tmp_path / "run"), "model": "m", "benchmarks": [bench], "verify": verify}
    return EvalConfig.model_validate(raw)


def refused(level: str) -> Isolation:
    raise ConfigError(f"verify.isolation: expected at least {level}")


def test_programs_are_asked_about_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start, "at_least", refused)
    assert start._isolation(config(tmp_path), {"math", "science"}) is None
    assert start._isolation(config(tmp_path, remote="http://sandbox"), {"code"}) is None
    with pytest.raises(ConfigError, match="expected at least namespaces"):
        start._isolation(config(tmp_path), {"math", "code"})
    with pytest.raises(ConfigError, match="expected at least uid"):
        start._isolation(config(tmp_path, isolation="uid"), {"code"})


def test_a_pool_refuses_programs_that_are_isolated_less(monkeypatch: pytest.MonkeyPatch) -> None:
    """Data of the hub are read when a run has begun; so is what a library's user hands over."""
    monkeypatch.setattr(pool, "at_least", refused)
    with VerifierPool(1, 10.0) as verifiers:
        assert verifiers.submit("math", r"\boxed{1}", {"answer": "1"}).result(timeout=60).kind == "pass"
        with pytest.raises(ConfigError, match="expected at least namespaces"):
            verifiers.submit("code", "", CODE)


def test_asserts_run_here_whatever_service_runs_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code, "at_least", refused)
    verdict = code.verify_code(
        "```python\nf = abs\n```", {"tests": "assert f(-1) == 1"}, remote="http://none", isolation="uid"
    )
    assert (verdict.kind, verdict.reason) == ("error", "sandbox: verify.isolation: expected at least uid")


def test_lineage_says_how_programs_are_isolated(tmp_path: Path) -> None:
    run = open_run(config(tmp_path), Origin("m", isolation="user-namespaces, system call filter"), None)
    assert json.loads((run.path / "lineage.json").read_text())["isolation"] == "user-namespaces, system call filter"


def test_data_that_everybody_may_read_are_refused_where_programs_are_somebody(tmp_path: Path) -> None:
    file = tmp_path / "tests.jsonl"
    file.write_text("{}\n")
    file.chmod(0o600)
    start._check_private([Source(files=(str(file),))])
    file.chmod(0o644)
    ways = [way for way in tmp_path.resolve().parents if not way.stat().st_mode & 0o001]
    if ways or not tmp_path.stat().st_mode & 0o001:  # a folder on the way is closed, so that the file is, too
        start._check_private([Source(files=(str(file),))])
        return
    with pytest.raises(DataError, match=r"tests.jsonl: everybody may read it.*chmod o-r"):
        start._check_private([Source(files=(str(file),))])
