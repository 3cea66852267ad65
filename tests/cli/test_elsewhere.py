"""Ranks that torchrun has started, and a worker that is given by its address."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import (
    ENVIRONMENT,
    TIMEOUT_S,
    WORKERS,
    Inputs,
    children_of_tests,
    meddle,
    ringrl,
    rl_config,
    timeless,
    until,
    write_yaml,
)

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("uneven_rewards")]

DIES_ONCE = """
    import os, signal
    from pathlib import Path
    import ringrl.rollout.vllm_worker as w
    step, flag = w.Worker.step, Path("{flag}")
    def broken(self):
        if self.version == 1 and not flag.exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        step(self)
    w.Worker.step = broken
"""


def test_torchrun_and_a_worker_elsewhere(inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("vllm")
    (own := tmp_path / "own").mkdir()
    monkeypatch.setitem(ENVIRONMENT, "TMPDIR", str(own))
    config = rl_config(inputs, tmp_path / "here")
    config["rollout"]["engine"] = "vllm"
    config["trainer"] |= {"ranks": 2, "parallel": {"expert": 2}}
    file = write_yaml(tmp_path / "rl.yaml", config)
    assert (result := ringrl("rl", file)).code == 0, result.text

    (tmp_path / "key").write_text(os.urandom(32).hex())
    (tmp_path / "key").chmod(0o600)
    address = tmp_path / "address"
    more = [f"run={tmp_path / 'there'}", f"rollout.addresses=[{address}]", f"rollout.key_file={tmp_path / 'key'}"]
    command = [sys.executable, "-m", "ringrl", "worker", str(file), *more, "--address-file", str(address)]
    with meddle(tmp_path / "meddle", WORKERS, DIES_ONCE.format(flag=tmp_path / "flag")):
        worker = subprocess.Popen(command, env=ENVIRONMENT)
    strangers = []
    try:
        until(address.is_file, TIMEOUT_S)
        place = address.read_text().split(":")
        assert place[0] == "127.0.0.1"
        for said in (b"", b"GET / HTTP/1.0\r\n\r\n", bytes(200)):  # the first stays, and says nothing
            strangers.append(socket.create_connection((place[0], int(place[1]))))
            strangers[-1].sendall(said)
        torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d",
                    "--rdzv-endpoint", "localhost:0", "-m", "ringrl", "rl", str(file), *more]  # fmt: skip
        done = subprocess.run([sys.executable, *torchrun], env=ENVIRONMENT, capture_output=True, text=True,
                              timeout=TIMEOUT_S)  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.count("starting it again") == 1
        assert "step 4/4" in done.stdout
        assert timeless(tmp_path / "there" / "metrics.jsonl") == timeless(tmp_path / "here" / "metrics.jsonl")
        assert (tmp_path / "there" / "report.html").is_file()
        bad = subprocess.run([sys.executable, *torchrun, "trainer.ranks=1", "trainer.parallel.expert=1"],
                             env=ENVIRONMENT, capture_output=True, text=True, timeout=TIMEOUT_S)  # fmt: skip
        assert "trainer.ranks: got 1, expected 2, the processes that were started" in bad.stderr
    finally:
        for stranger in strangers:
            stranger.close()
        worker.send_signal(signal.SIGINT)
        assert worker.wait(timeout=TIMEOUT_S) == 130
    time.sleep(0.5)
    assert not list(own.glob("vllm*"))  # torchrun and torch keep a folder each
    assert children_of_tests() == []


SRUN = """#!/usr/bin/env bash
while [[ $1 == --* ]]; do
    case $1 in --overlap) shift ;; --output) exec > "$2" 2>&1; shift 2 ;; *) shift 2 ;; esac
done
exec "$@"
"""


def test_the_slurm_script(inputs: Inputs, tmp_path: Path) -> None:
    """With commands of Slurm's names that run everything here: what the script says, not what Slurm does."""
    pytest.importorskip("vllm")
    config = rl_config(inputs, tmp_path / "run")
    config["rollout"]["engine"] = "vllm"
    file = write_yaml(tmp_path / "rl.yaml", config)
    (tmp_path / "bin").mkdir()
    for name, text in (("srun", SRUN), ("scontrol", "#!/bin/sh\necho localhost; echo localhost\n")):
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    path = f"{tmp_path / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    slurm = {"SLURM_JOB_NODELIST": "x", "SLURM_JOB_ID": str(os.getpid()), "TRAINER_NODES": "1", "GPUS": "1"}
    script = Path(__file__).parents[2] / "scripts" / "slurm" / "rl.sbatch"
    done = subprocess.run(
        ["timeout", "--kill-after", "5", "250", script, file, "stages.0.steps=2", "save_every=1"],
        env={**ENVIRONMENT, **slurm, "PATH": path},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert "step 2/2" in done.stdout
    assert len(timeless(tmp_path / "run" / "metrics.jsonl")) == 2
    assert not list(tmp_path.glob(".ringrl-*"))
    for process in children_of_tests():  # Slurm ends a job's other steps with its script
        os.kill(process, signal.SIGKILL)
