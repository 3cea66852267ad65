"""What this machine has, and the environment variables of each kind of process. No other module reads or sets them.

Imports nothing heavy: the environment must be set before torch is loaded.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import subprocess
from pathlib import Path

from ringrl.config.sections import Rollout
from ringrl.errors import UserError

OMP = "OMP_NUM_THREADS"  # torchrun sets it to 1
WAIT = "OMP_WAIT_POLICY"


def engine_name(rollout: Rollout) -> str:
    """Which engine "auto" means on this machine.

    Raises:
        UserError: vLLM is asked for and not installed.
    """
    installed = importlib.util.find_spec("vllm") is not None
    if rollout.engine == "vllm" and not installed:
        raise UserError("rollout.engine: got vllm, which is not installed; expected transformers or auto here")
    if rollout.engine == "auto":
        return "vllm" if installed else "transformers"
    return rollout.engine


@functools.cache
def gpus() -> int:
    """Number of GPUs, determined without importing torch."""
    if shutil.which("nvidia-smi") is None:
        return 0
    done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60)
    return done.stdout.count("GPU ")


def first_gpu(ranks: int, rollout: Rollout) -> int:
    """Index of the workers' first GPU: after the GPUs of the trainer's ranks, or 0 if they are shared.

    Raises:
        UserError: there are not enough GPUs.
    """
    first = 0 if rollout.colocated else ranks
    if (available := gpus()) and first + rollout.workers * rollout.tensor_parallel > available:
        raise UserError(
            f"rollout.workers: got {rollout.workers} x tensor_parallel {rollout.tensor_parallel} behind {first} ranks, "
            f"expected at most {available} devices in all, or rollout.colocated"
        )
    return first


def read_key(file: str) -> str:
    """The secret that controller and remote workers share, as hexadecimal digits.

    Raises:
        UserError: no such file, or no key in it.
    """
    try:
        key = Path(file).read_text().strip()
        bytes.fromhex(key)
    except (OSError, ValueError) as e:
        raise UserError(f"rollout.key_file: got {file!r} ({e}), expected a file with hexadecimal digits") from None
    return key


def started_by_others() -> tuple[int, int] | None:
    """(rank, number of ranks) if torchrun, `accelerate launch` or the like started this process, else None."""
    if not {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
        return None
    return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])


def prepare_rank(threads: int) -> None:
    """Set the environment that `launch` gives its ranks, in a rank started by others. Call before importing torch."""
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    env = rank_env(0, local, shares(local, threads, 0, at_once=False)[0], 0)
    os.environ.update({k: v for k, v in env.items() if k not in os.environ or k == OMP})


def shares(ranks: int, threads: int, workers: int, at_once: bool) -> tuple[int, int]:
    """OpenMP threads of a rank (`threads`, unless 0) and of a worker, on CPUs.

    Each kind gets all cores unless both compute at once, since more threads than cores are many times slower.
    """
    cores = os.cpu_count() or 1
    if not at_once:
        return threads or max(cores // ranks, 1), max(cores // max(workers, 1), 1)
    threads = threads or max(cores // (ranks + workers), 1)
    return threads, max((cores - ranks * threads) // max(workers, 1), 1)


def worker_env(index: int, first_gpu: int, rollout: Rollout, threads: int) -> dict[str, str]:
    """Environment of a vLLM worker, by its index on this machine."""
    env = {**_common_env(), "VLLM_LOGGING_LEVEL": "WARNING"}
    if gpus():
        first = first_gpu + index * rollout.tensor_parallel
        devices = ",".join(str(g) for g in range(first, first + rollout.tensor_parallel))
        return {**env, "CUDA_VISIBLE_DEVICES": devices}
    return {
        **env,
        OMP: str(threads),
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # runs the engine inside the worker, which starts ten times faster
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # otherwise all workers bind to the same cores
        "TORCHDYNAMO_DISABLE": "1",  # otherwise the first request compiles for 20 s and needs a compiler
    }


def rank_env(rank: int, ranks: int, threads: int, port: int) -> dict[str, str]:
    """Environment of a trainer rank, one of `ranks` on this machine that meet at `port`."""
    env = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1",
           "MASTER_PORT": str(port), "ACCELERATE_USE_DEEPSPEED": "true", **_common_env()}  # fmt: skip
    if not gpus():
        env |= {"DS_ACCELERATOR": "cpu", OMP: str(threads)}
        env["TORCHDYNAMO_DISABLE"] = "1"  # nothing is compiled, and importing it through DeepSpeed takes 2 s
    return env


def _common_env() -> dict[str, str]:
    # by default OpenMP's threads spin while they wait for each other: where another process wants the same cores, both
    # become more than ten times slower
    wait = os.environ.get(WAIT, "passive")
    quiet = {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_DISABLE_TELEMETRY": "1", "VLLM_NO_USAGE_STATS": "1"}
    return {**quiet, WAIT: wait}
