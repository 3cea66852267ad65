"""`ringrl worker` before it loads anything: the key must be one, and the address this machine's."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ringrl.processes import descendants, group_members, state_of
from tests.conftest import ENVIRONMENT, Inputs, Result, ringrl, rl_config, until, write_yaml


@pytest.fixture
def key(tmp_path: Path) -> Path:
    file = tmp_path / "key"
    file.write_text(secrets.token_hex(32))
    file.chmod(0o600)
    return file


def command(inputs: Inputs, folder: Path, key: Path) -> list[str]:
    config = rl_config(inputs, folder / "run")
    config["rollout"] |= {"engine": "vllm", "addresses": [str(folder / "address")], "key_file": str(key)}
    return ["worker", str(write_yaml(folder / "rl.yaml", config)), "--address-file", str(folder / "address")]


def worker(inputs: Inputs, folder: Path, key: Path, *more: str) -> Result:
    return ringrl(*command(inputs, folder, key), *more)


def test_a_key_that_others_may_read_is_no_key(inputs: Inputs, tmp_path: Path, key: Path) -> None:
    key.chmod(0o644)
    result = worker(inputs, tmp_path, key)
    assert result.code == 2, result.text
    assert result.text.count("\n") == 1
    assert f"rollout.key_file: got '{key}' with mode 644" in result.text
    trainer = ringrl("rl", tmp_path / "rl.yaml")
    assert trainer.code == 2
    assert trainer.text == result.text
    assert not (tmp_path / "run").exists()


def test_an_address_of_another_machine_is_refused(inputs: Inputs, tmp_path: Path, key: Path) -> None:
    result = worker(inputs, tmp_path, key, "--host", "192.0.2.1")
    assert result.code == 2, result.text
    assert "cannot listen at 192.0.2.1:0: " in result.text
    assert result.text.count("\n") == 1


@pytest.mark.slow
def test_nothing_is_left_of_a_worker_that_is_killed_nor_when_its_launcher_is(
    inputs: Inputs, tmp_path: Path, key: Path
) -> None:
    """Nor of an engine that is a process of its own, which would keep its GPU."""
    pytest.importorskip("vllm")
    apart = {**ENVIRONMENT, "VLLM_ENABLE_V1_MULTIPROCESSING": "1"}
    launcher = subprocess.Popen([sys.executable, "-m", "ringrl", *command(inputs, tmp_path, key)], env=apart)

    def group() -> list[int]:
        return descendants(launcher.pid)[:1]  # the worker, which leads it

    try:
        until(lambda: len(group_members(group())) > 3, 300)  # with it, the one that ends it, multiprocessing's, engine
        [first], members = group(), group_members(group())
        os.kill(first, signal.SIGKILL)
        until(lambda: not any(map(state_of, members)))
        until(lambda: group() not in ([], [first]))  # the next one
        members = descendants(launcher.pid)
    finally:
        launcher.kill()
        launcher.wait()
    until(lambda: not any(map(state_of, members)))
