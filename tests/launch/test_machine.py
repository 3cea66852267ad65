"""The environment of processes that share cores."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ringrl.commands.worker import serve_worker
from ringrl.config.sections import Rollout, Trainer
from ringrl.errors import UserError
from ringrl.launch.command import WorkerSpec
from ringrl.launch.machine import (
    check_attention,
    check_engine,
    check_ranks,
    first_gpu,
    gpus,
    listening,
    prepare_rank,
    rank_env,
    read_key,
    worker_env,
)


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


WHOLE = [f"GPU {i}: NVIDIA H100 80GB HBM3 (UUID: GPU-{i}a2b3c4d-0000)" for i in range(8)]
DIVIDED = ["GPU 0: NVIDIA A100 (UUID: GPU-00aa)",
           "  MIG 3g.20gb     Device  0: (UUID: MIG-1111-aa)",
           "  MIG 3g.20gb     Device  1: (UUID: MIG-2222-bb)",
           "GPU 1: NVIDIA A100 (UUID: GPU-11aa)"]  # fmt: skip
Smi = Callable[[list[str], str | None], None]


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Smi]:
    """A machine whose nvidia-smi lists these lines, with CUDA_VISIBLE_DEVICES set, or not."""

    def install(lines: list[str], visible: str | None) -> None:
        (tmp_path / "nvidia-smi").write_text("#!/bin/sh\ncat <<'END'\n" + "\n".join(lines) + "\nEND\n")
        (tmp_path / "nvidia-smi").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        if visible is None:
            monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        else:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        gpus.cache_clear()

    yield install
    gpus.cache_clear()


@pytest.mark.parametrize(
    ("lines", "visible", "names"),
    [
        (WHOLE, None, tuple("01234567")),
        (WHOLE, "4,5,6,7", tuple("4567")),
        (WHOLE, " 7, 0 ", ("7", "0")),
        (WHOLE, "", ()),
        (WHOLE, "-1", ()),
        (WHOLE, "2,9,3", ("2",)),  # as for CUDA, the list ends at what is no device
        (WHOLE, "GPU-3a2b3c4d-0000,GPU-5", ("GPU-3a2b3c4d-0000", "GPU-5")),  # the beginning of a UUID will do
        (DIVIDED, None, ("MIG-1111-aa", "MIG-2222-bb", "1")),
        (DIVIDED, "MIG-2222-bb", ("MIG-2222-bb",)),
        ([], None, ()),
        (["No devices were found"], "0", ()),
    ],
)
def test_the_gpus_are_those_that_this_process_may_use(
    nvidia_smi: Smi, lines: list[str], visible: str | None, names: tuple[str, ...]
) -> None:
    nvidia_smi(lines, visible)
    assert gpus() == names


VISIBLE = "4,5,6,7"
UUIDS = "GPU-4a2b3c4d-0000,GPU-5a2b3c4d-0000,GPU-6a2b3c4d-0000"


@pytest.mark.parametrize(
    ("lines", "visible", "ranks", "rollout", "devices"),
    [
        (WHOLE, None, 6, Rollout(workers=2), ["6", "7"]),
        (WHOLE, VISIBLE, 2, Rollout(workers=2), ["6", "7"]),
        (WHOLE, VISIBLE, 2, Rollout(workers=1, tensor_parallel=2), ["6,7"]),
        (WHOLE, None, 8, Rollout(workers=8, colocated=True), list("01234567")),
        (WHOLE, VISIBLE, 4, Rollout(workers=4, colocated=True), ["4", "5", "6", "7"]),
        (WHOLE, VISIBLE, 4, Rollout(workers=2, tensor_parallel=2, colocated=True), ["4,5", "6,7"]),
        (WHOLE, UUIDS, 1, Rollout(workers=2), UUIDS.split(",")[1:]),
        (WHOLE, UUIDS, 1, Rollout(tensor_parallel=2), [",".join(UUIDS.split(",")[1:])]),
        (DIVIDED, None, 1, Rollout(workers=2), ["MIG-2222-bb", "1"]),
        (DIVIDED, None, 1, Rollout(workers=1, colocated=True), ["MIG-1111-aa"]),
    ],
)
def test_workers_get_gpus_of_the_users_list_behind_the_ranks(
    nvidia_smi: Smi,
    lines: list[str],
    visible: str | None,
    ranks: int,
    rollout: Rollout,
    devices: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nvidia_smi(lines, visible)
    monkeypatch.delenv("VLLM_ENABLE_V1_MULTIPROCESSING", raising=False)
    check_ranks(ranks)
    first = first_gpu(ranks, rollout)
    environments = [worker_env(i, first, rollout, 1) for i in range(rollout.workers)]
    assert [e["CUDA_VISIBLE_DEVICES"] for e in environments] == devices
    assert "CUDA_VISIBLE_DEVICES" not in rank_env(0, ranks, 1)  # ranks count within the list that they inherit
    assert {e["VLLM_ENABLE_V1_MULTIPROCESSING"] for e in environments} == {"0"}


@pytest.mark.parametrize(("visible", "found"), [(None, "01234567"), ("0,1,2,3,4,5,6,7", "01234567"), ("6,7", "67")])
def test_a_rank_that_torchrun_started_sees_what_torchrun_saw(
    nvidia_smi: Smi, visible: str | None, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes the one at its LOCAL_RANK, so the list stays whole."""
    nvidia_smi(WHOLE, visible)
    given = {"RANK": "9", "LOCAL_RANK": "1", "WORLD_SIZE": "16", "LOCAL_WORLD_SIZE": "8", "MASTER_ADDR": "127.0.0.1",
             "MASTER_PORT": "1", "OMP_NUM_THREADS": "1"}  # fmt: skip
    environment = {**os.environ, **given}
    monkeypatch.setattr(os, "environ", environment)
    prepare_rank(3)
    assert gpus() == tuple(found)
    assert environment.get("CUDA_VISIBLE_DEVICES") == visible
    assert {key: environment[key] for key in given.keys() - {"OMP_NUM_THREADS"}}.items() <= given.items()
    assert environment["ACCELERATE_USE_DEEPSPEED"] == "true"
    assert environment["OMP_NUM_THREADS"] == "3"  # torchrun sets 1, too few for an optimizer on the host


SLURM = [(None, list("01234567")), ("0,1,2,3,4,5,6,7", list("01234567")), ("2,3", ["2", "3"])]


@pytest.mark.parametrize(("visible", "names"), SLURM, ids=["all GPUs of the node", "as srun sets it", "a part of it"])
@pytest.mark.parametrize("each", [1, 2])
def test_workers_by_index_share_out_what_a_slurm_step_shows_them(
    nvidia_smi: Smi, visible: str | None, names: list[str], each: int, tmp_path: Path
) -> None:
    nvidia_smi(WHOLE, visible)
    rollout = Rollout(tensor_parallel=each)
    count = len(names) // each
    devices = [worker_env(i, 0, rollout, 1)["CUDA_VISIBLE_DEVICES"] for i in range(count)]
    assert devices == [",".join(names[i * each : (i + 1) * each]) for i in range(count)]
    with pytest.raises(
        UserError, match=f"--index: got {count}, expected one below {count}: there are {len(names)} GPU"
    ):
        serve_worker(WorkerSpec("model", rollout, 8), "00", "127.0.0.1", 0, tmp_path / "address", count)


def test_the_engine_stays_in_its_worker_where_that_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "VLLM_ENABLE_V1_MULTIPROCESSING"
    kinds = [Rollout(), Rollout(tensor_parallel=2), Rollout(in_flight=True)]
    for value in (None, "0"):
        monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, value)
        for rollout in kinds:
            check_engine(rollout)
            assert worker_env(0, 0, rollout, 1)[name] == "0"
    monkeypatch.setenv(name, "1")
    for rollout in kinds[:2]:
        check_engine(rollout)
        assert worker_env(0, 0, rollout, 1)[name] == "1"
    with pytest.raises(UserError, match=f"{name}: got 1, expected 0 or nothing with rollout.in_flight: "):
        check_engine(kinds[2])


def test_more_ranks_or_workers_than_gpus_are_refused(nvidia_smi: Smi) -> None:
    nvidia_smi(WHOLE, "4,5,6,7")
    with pytest.raises(UserError, match=r"trainer\.ranks: got 5, expected at most 4: .* show 4, 5, 6, 7"):
        check_ranks(5)
    with pytest.raises(UserError, match=r"rollout\.workers: got 3 x tensor_parallel 1 behind 2 ranks, .* at most 4"):
        first_gpu(2, Rollout(workers=3))
    nvidia_smi(DIVIDED, None)
    with pytest.raises(UserError, match=r"trainer\.ranks: got 2, expected 1: .*MIG"):
        check_ranks(2)


def test_threads_are_set_with_gpus_too_and_against_torchruns_one(
    nvidia_smi: Smi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The optimizer's step may run on the host."""
    nvidia_smi(WHOLE, None)
    assert rank_env(0, 8, 3)["OMP_NUM_THREADS"] == "3"
    started = {"OMP_NUM_THREADS": "1", "LOCAL_WORLD_SIZE": "8", "MASTER_ADDR": "127.0.0.1"}
    monkeypatch.setattr(os, "environ", os.environ | started)
    prepare_rank(5)
    assert os.environ["OMP_NUM_THREADS"] == "5"


def test_kernels_that_are_not_here_are_refused(
    nvidia_smi: Smi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvidia_smi([], None)
    for attention in ("packed", "sdpa"):
        check_attention(Trainer(attention=attention))
    newest = Trainer(attention="flash_attention_3")
    with pytest.raises(UserError, match=r"^trainer\.attention: got flash_attention_3, .* flash_attn_interface is "):
        check_attention(newest)
    (tmp_path / "flash_attn_interface.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=r"^trainer\.attention: got flash_attention_3, .* without a GPU$"):
        check_attention(newest)
    nvidia_smi(WHOLE, None)
    check_attention(newest)


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
