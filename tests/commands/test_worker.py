"""`ringrl worker` before it loads anything: the key must be one, and the address this machine's."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from tests.conftest import Inputs, Result, ringrl, rl_config, write_yaml


@pytest.fixture
def key(tmp_path: Path) -> Path:
    file = tmp_path / "key"
    file.write_text(secrets.token_hex(32))
    file.chmod(0o600)
    return file


def worker(inputs: Inputs, folder: Path, key: Path, *more: str) -> Result:
    config = rl_config(inputs, folder / "run")
    config["rollout"] |= {"addresses": [str(folder / "address")], "key_file": str(key)}
    file = write_yaml(folder / "rl.yaml", config)
    return ringrl("worker", file, "--address-file", folder / "address", *more)


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
