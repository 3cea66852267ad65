"""`ringrl worker`: a vLLM worker for a controller on another machine."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

from ringrl.errors import UserError
from ringrl.launch.command import WorkerSpec
from ringrl.launch.crew import POLL_S, WORKER, Child, interrupts, stop
from ringrl.launch.machine import check_engine, gpus, listening, shares, worker_env
from ringrl.processes import Scratch
from ringrl.rollout.channel import bound

ATTEMPTS = 3


def serve_worker(sampler: WorkerSpec, key: str, host: str, port: int, address_file: Path, index: int = 0) -> int:
    """Run a worker for a controller on another machine, and restart it whenever it ends, until stopped.

    Args:
        index: which of this machine's workers it is; it takes the GPUs at that place of those visible.

    Returns:
        1 if it ended ATTEMPTS times in a row without becoming ready, 130 when stopped.

    Raises:
        UserError: `host` is no address of this machine, the port is taken, or there are not enough GPUs.
    """
    check_engine(sampler.rollout)
    each = sampler.rollout.tensor_parallel
    if gpus() and (index + 1) * each > len(gpus()):
        raise UserError(f"--index: got {index}, expected one below {len(gpus()) // each}: there are "
                        f"{len(gpus())} GPUs for workers of rollout.tensor_parallel {each}")  # fmt: skip
    bound(host, port).close()
    name = socket.gethostname() if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    spec = {**sampler.worker(key, host, port, name), "address_file": str(address_file)}
    env = worker_env(index, 0, sampler.rollout, shares(1, 0, 1, at_once=False)[1]) | listening(host)
    ours = {key: env[key] for key in ("CUDA_VISIBLE_DEVICES",) if key in env}  # a share of the user's
    failures = 0
    with interrupts() as interrupted, closing(Scratch("worker")) as scratch:
        ours["TMPDIR"] = str(scratch.path)  # vLLM's processes meet in a file, which it leaves behind
        while not interrupted and failures < ATTEMPTS:
            address_file.unlink(missing_ok=True)
            process = subprocess.Popen(
                [sys.executable, "-u", "-c", WORKER.format(launcher=os.getpid())],
                stdin=subprocess.PIPE,
                env={**env, **os.environ, **ours},
                start_new_session=True,
                text=True,
            )
            assert process.stdin is not None
            process.stdin.write(json.dumps(spec) + "\n")
            process.stdin.close()
            child = Child("worker", process, Path())
            while child.code() is None and not interrupted:
                time.sleep(POLL_S)
            stop([child], patience_s=2.0)
            failures = 0 if address_file.is_file() else failures + 1
        address_file.unlink(missing_ok=True)
    return 130 if interrupted else 1
