"""The environment of processes that share cores."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import pytest

from ringrl.config.sections import Rollout
from ringrl.errors import UserError
from ringrl.launch.machine import listening, rank_env, read_key, worker_env


@pytest.mark.parametrize(("set_by_user", "expected"), [("", "passive"), ("active", "active")])
def test_openmp_does_not_spin_unless_the_user_says_so(
    monkeypatch: pytest.MonkeyPatch, set_by_user: str, expected: str
) -> None:
    if set_by_user:
        monkeypatch.setenv("OMP_WAIT_POLICY", set_by_user)
    else:
        monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    environments = [rank_env(0, 1, 1, 0), worker_env(0, 0, Rollout(), 1)]
    assert [e["OMP_WAIT_POLICY"] for e in environments] == [expected] * 2


def key_file(tmp_path: Path, text: str, mode: int = 0o600) -> str:
    file = tmp_path / "key"
    file.write_text(text)
    file.chmod(mode)
    return str(file)


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_long_random_key_of_its_owner_alone_is_read(tmp_path: Path, mode: int) -> None:
    key = secrets.token_hex(32)
    assert read_key(key_file(tmp_path, f"{key}\n", mode)) == key


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "with 0 bytes"),
        ("\n", "with 0 bytes"),
        (bytes(range(31)).hex(), "with 31 bytes"),
        ("ab" * 32, "1 of them different"),
        ("no digits", "non-hexadecimal"),
        ("naïve", "ascii"),
        (bytes(range(32)).hex() + "0", "non-hexadecimal"),
    ],
)
def test_what_is_no_long_random_key_is_refused_and_how_to_make_one_is_said(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(UserError, match=r"to make it: \(umask 077; openssl rand -hex 32 > ") as e:
        read_key(key_file(tmp_path, text))
    assert why in str(e.value)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o601, 0o644])
def test_a_key_for_more_than_its_owner_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(UserError, match=f"with mode {mode:o} of user .*expected a file that its owner alone may read"):
        read_key(key_file(tmp_path, secrets.token_hex(32), mode))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_key_of_another_user_is_refused(tmp_path: Path) -> None:
    file = key_file(tmp_path, secrets.token_hex(32))
    os.chown(file, 12345, -1)
    with pytest.raises(UserError, match="with mode 600 of user 12345"):
        read_key(file)


def test_a_key_that_is_missing_or_no_file(tmp_path: Path) -> None:
    for place in (tmp_path / "none", tmp_path):
        with pytest.raises(UserError, match=r"rollout\.key_file: got .*expected 32 random bytes"):
            read_key(str(place))


def test_ports_are_opened_on_the_interface_of_an_address_unless_the_user_names_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    assert listening("127.0.0.1") == dict.fromkeys(names, "lo")
    assert listening("localhost") == dict.fromkeys(names, "lo")
    assert listening("0.0.0.0") == {}
    assert listening("no-such-host.invalid") == {}
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "ib0")
    assert listening("127.0.0.1") == {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "ib0"}


def test_every_process_reads_with_torch_what_holds_no_code() -> None:
    environments = [rank_env(0, 1, 1), worker_env(0, 0, Rollout(), 1)]
    assert [e["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] for e in environments] == ["1"] * 2
