"""What this machine has, and the environment variables of each kind of process. No other module reads or sets them.

Imports nothing heavy: the environment must be set before torch is loaded.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import importlib.util
import itertools
import os
import re
import shutil
import socket
import stat
import struct
import subprocess

from ringrl.config.sections import Rollout, Trainer
from ringrl.errors import UserError

OMP = "OMP_NUM_THREADS"  # torchrun sets it to 1
WEIGHTS_ONLY = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"  # torch.load reads nothing that could run code, whoever calls it
WAIT = "OMP_WAIT_POLICY"
APART = "VLLM_ENABLE_V1_MULTIPROCESSING"  # whether vLLM's engine is another process than its worker
KEY_BYTES = 32  # in a key file
LOOPBACK = "127.0.0.1"
LOST_CODE = 4  # how a rank ends that waited for another one in vain; the launcher looks for the cause elsewhere
FLASH = {"flash_attention_2": "flash_attn", "flash_attention_3": "flash_attn_interface"}  # package of an attention
SIOCGIFADDR = 0x8915  # Linux: address of an interface


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


def check_engine(rollout: Rollout) -> None:
    """Raises UserError when updates in flight would fall into steps of an engine that runs by itself."""
    if os.environ.get(APART, "0") != "0" and rollout.in_flight:
        raise UserError(f"{APART}: got {os.environ[APART]}, expected 0 or nothing with rollout.in_flight: the engine "
                        f"runs in the worker's own process")  # fmt: skip


@functools.cache
def gpus() -> tuple[str, ...]:
    """The GPUs that this process may use, each as CUDA_VISIBLE_DEVICES names it (an index, a UUID, a MIG device);
    determined without importing torch.

    The variable's list ends, as for CUDA, at the first entry that names no device. Without the variable they are those
    that nvidia-smi lists; a GPU that is divided counts as its MIG devices.

    Raises:
        UserError: nvidia-smi, asked for the devices, did not answer.
    """
    if shutil.which("nvidia-smi") is None:
        return ()
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60).stdout
    except subprocess.TimeoutExpired:
        raise UserError("nvidia-smi -L: no answer within 60 s, expected the list of GPUs") from None
    whole: dict[str, str] = {}  # index -> UUID
    parts: dict[str, list[str]] = {}  # index -> UUIDs of its MIG devices
    for line in listed.splitlines():
        uuid = line.rpartition("UUID: ")[2].rstrip(") ")
        if gpu := re.match(r"GPU (\d+):", line):
            whole[gpu[1]], parts[gpu[1]] = uuid, []
        elif line.lstrip().startswith("MIG ") and parts:
            parts[list(parts)[-1]].append(uuid)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return tuple(name for index in whole for name in parts[index] or [index])
    uuids = [*whole.values(), *(uuid for each in parts.values() for uuid in each)]
    names = (name.strip() for name in visible.split(","))
    return tuple(itertools.takewhile(lambda n: n in whole or any(n and u.startswith(n) for u in uuids), names))


def first_gpu(ranks: int, rollout: Rollout) -> int:
    """Place in `gpus()` of the workers' first GPU: behind those of the trainer's ranks, or 0 if they are shared.

    Raises:
        UserError: there are not enough GPUs.
    """
    first = 0 if rollout.colocated else ranks
    available = len(gpus())
    if available and first + rollout.workers * rollout.tensor_parallel > available:
        raise UserError(
            f"rollout.workers: got {rollout.workers} x tensor_parallel {rollout.tensor_parallel} behind {first} ranks, "
            f"expected at most {available} devices in all, or rollout.colocated"
        )
    return first


def check_ranks(ranks: int) -> None:
    """Raises UserError when the trainer's ranks on this machine have no GPU each."""
    if gpus() and ranks > len(gpus()):
        raise UserError(f"trainer.ranks: got {ranks}, expected at most {len(gpus())}: CUDA_VISIBLE_DEVICES and "
                        f"nvidia-smi -L show {', '.join(gpus())}")  # fmt: skip
    if ranks > 1 and any(name.startswith("MIG-") for name in gpus()):
        raise UserError(f"trainer.ranks: got {ranks}, expected 1: CUDA shows a process one MIG device only")


def check_attention(trainer: Trainer) -> None:
    """Raises UserError when the kernels of `trainer.attention` are not on this machine."""
    package = FLASH.get(trainer.attention)
    if not package:
        return
    if importlib.util.find_spec(package) is None:
        raise UserError(f"trainer.attention: got {trainer.attention}, expected packed, torch's own flash attention: "
                        f"package {package} is not installed")  # fmt: skip
    if not gpus():
        raise UserError(f"trainer.attention: got {trainer.attention}, expected packed or sdpa without a GPU")


def read_key(file: str) -> str:
    """The secret that controller and remote workers share, as hexadecimal digits.

    Raises:
        UserError: no such file, others than its owner may use it, or no key in it that is long and random.
    """
    expected = f"expected {KEY_BYTES} random bytes in hexadecimal digits; to make it: "
    expected += f"(umask 077; openssl rand -hex {KEY_BYTES} > {file or 'FILE'})"
    try:
        with open(file, encoding="ascii") as opened:
            status, key = os.fstat(opened.fileno()), opened.read(1 << 16).strip()
        size, kinds = len(bytes.fromhex(key)), len(set(bytes.fromhex(key)))
    except (OSError, ValueError) as e:
        raise UserError(f"rollout.key_file: got {file!r} ({e}), {expected}") from None
    if status.st_mode & 0o077 or status.st_uid not in (os.geteuid(), 0):
        raise UserError(f"rollout.key_file: got {file!r} with mode {stat.S_IMODE(status.st_mode):03o} of user "
                        f"{status.st_uid}, expected a file that its owner alone may read: chmod 600 {file}, and a new "
                        f"key if others could read it")  # fmt: skip
    if size < KEY_BYTES or kinds < KEY_BYTES // 3:  # so few different bytes are not random
        raise UserError(f"rollout.key_file: got {file!r} with {size} bytes, {kinds} of them different, {expected}")
    return key


def interface(address: str) -> str:
    """Name of the network interface that has an address of this machine, or that other machine's address is reached
    through; "" if that is not known, as for all of them."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 9))  # sends nothing
            here = probe.getsockname()[0]
            for _, name in socket.if_nameindex() if socket.gethostbyname(address) != "0.0.0.0" else ():
                with contextlib.suppress(OSError):  # an interface without an address
                    reply = fcntl.ioctl(probe, SIOCGIFADDR, struct.pack("256s", name.encode()))
                    if socket.inet_ntoa(reply[20:24]) == here:
                        return name
    except OSError:
        pass
    return ""


def listening(address: str) -> dict[str, str]:
    """Environment in which gloo and NCCL listen on that address's interface only, unless the user has named one."""
    name = interface(address)
    return {key: os.environ.get(key, name) for key in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME") if name}


def started_by_others() -> tuple[int, int] | None:
    """(rank, number of ranks) if torchrun, `accelerate launch` or the like started this process, else None."""
    if not {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
        return None
    return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])


def prepare_rank(threads: int) -> None:
    """Set the environment that `launch` gives its ranks, in a rank started by others. Call before importing torch."""
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    env = rank_env(0, local, shares(local, threads, 0, at_once=False)[0]) | listening(os.environ["MASTER_ADDR"])
    os.environ.update({k: v for k, v in env.items() if k not in os.environ or k in (OMP, WEIGHTS_ONLY)})


def shares(ranks: int, threads: int, workers: int, at_once: bool) -> tuple[int, int]:
    """OpenMP threads of a rank (`threads`, unless 0) and of a worker without a GPU.

    Each kind gets all cores unless both compute at once, since more threads than cores are many times slower.
    """
    cores = os.cpu_count() or 1
    if not at_once:
        return threads or max(cores // ranks, 1), max(cores // max(workers, 1), 1)
    threads = threads or max(cores // (ranks + workers), 1)
    return threads, max((cores - ranks * threads) // max(workers, 1), 1)


def worker_env(index: int, first_gpu: int, rollout: Rollout, threads: int) -> dict[str, str]:
    """Environment of a vLLM worker, by its index on this machine."""
    # the engine runs inside the worker: it stops when the worker stops it, so that no step falls between two halves of
    # an update; it ends with the worker; and on a CPU it starts ten times faster
    env = {**_common_env(), "VLLM_LOGGING_LEVEL": "WARNING", APART: os.environ.get(APART, "0")}
    if gpus():
        first = first_gpu + index * rollout.tensor_parallel
        return {**env, "CUDA_VISIBLE_DEVICES": ",".join(gpus()[first : first + rollout.tensor_parallel])}
    return {
        **env,
        OMP: str(threads),
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # otherwise all workers bind to the same cores
        "TORCHDYNAMO_DISABLE": "1",  # otherwise the first request compiles for 20 s and needs a compiler
    }


def rank_env(rank: int, ranks: int, threads: int, port: int = 0) -> dict[str, str]:
    """Environment of a trainer rank, one of `ranks` on this machine that meet at `port`, unless in a folder."""
    env = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks), "MASTER_ADDR": LOOPBACK,
           "MASTER_PORT": str(port), "ACCELERATE_USE_DEEPSPEED": "true", **_common_env()}  # fmt: skip
    env[OMP] = str(threads)  # with GPUs too: the optimizer's step may run on the host
    if not gpus():
        env["DS_ACCELERATOR"] = "cpu"
        env["TORCHDYNAMO_DISABLE"] = "1"  # nothing is compiled, and importing it through DeepSpeed takes 2 s
    return env


def _common_env() -> dict[str, str]:
    # by default OpenMP's threads spin while they wait for each other: where another process wants the same cores, both
    # become more than ten times slower
    wait = os.environ.get(WAIT, "passive")
    quiet = {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_DISABLE_TELEMETRY": "1", "VLLM_NO_USAGE_STATS": "1"}
    return {**quiet, WAIT: wait, WEIGHTS_ONLY: "1"}
