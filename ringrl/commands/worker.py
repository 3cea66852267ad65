"""`ringrl worker`: a vLLM worker for a controller on another machine."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from ringrl.launch.command import WorkerSpec
from ringrl.launch.crew import POLL_S, WORKER, Child, interrupts, stop
from ringrl.launch.machine import listening, shares, worker_env
from ringrl.rollout.channel import bound

ATTEMPTS = 3


def serve_worker(sampler: WorkerSpec, key: str, host: str, port: int, address_file: Path) -> int:
    """Run a worker for a controller on another machine, and restart it whenever it ends, until stopped.

    Returns:
        1 if it ended ATTEMPTS times in a row without becoming ready, 130 when stopped.

    Raises:
        UserError: `host` is no address of this machine, or the port is taken.
    """
    bound(host, port).close()
    name = socket.gethostname() if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    spec = {**sampler.worker(key, host, port, name), "address_file": str(address_file)}
    env = worker_env(0, 0, sampler.rollout, shares(1, 0, 1, at_once=False)[1]) | listening(host)
    failures = 0
    with interrupts() as interrupted:
        while not interrupted and failures < ATTEMPTS:
            address_file.unlink(missing_ok=True)
            process = subprocess.Popen(
                [sys.executable, "-u", "-c", WORKER.format(launcher=os.getpid())],
                stdin=subprocess.PIPE,
                env={**env, **os.environ},
                start_new_session=True,
                text=True,
            )
            assert process.stdin is not None
            process.stdin.write(json.dumps(spec) + "\n")
            process.stdin.close()
            while process.poll() is None and not interrupted:
                time.sleep(POLL_S)
            stop([Child("worker", process, Path())], patience_s=2.0)
            failures = 0 if address_file.is_file() else failures + 1
        address_file.unlink(missing_ok=True)
    return 130 if interrupted else 1
