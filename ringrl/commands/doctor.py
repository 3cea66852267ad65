"""`ringrl doctor`: what this machine has, and how far untrusted programs are isolated, as seen from inside."""

from __future__ import annotations

import importlib.util
import os
import platform
import resource
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from ringrl.launch.machine import gpus
from ringrl.run import versions
from ringrl.sandbox.box import Execution, Isolation, Job, Limits, Sandbox, SandboxError, isolation
from ringrl.sandbox.kernel import LEVELS, NAMESPACED
from ringrl.sandbox.local import LANGUAGES, Local

DISKS = (Path(), Path("/tmp"), Path("/dev/shm"))  # for runs, for programs and for weights on their way to vLLM
DRIVER = 580  # first of CUDA 13
PROBE = """
import os, socket
def tried(action):
    try: action()
    except OSError: return 'no'
    return 'yes'
print('uid', os.getuid())
print('processes', sum(name.isdigit() for name in os.listdir('/proc')))
print('internet sockets', tried(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('192.0.2.1', 9))))
print('home folders', tried(lambda: os.listdir('/home')))
print('writes to', ' '.join(p for p in ('/', '/usr', '/var/tmp', '/dev/shm', '/tmp') if os.access(p, os.W_OK)))
"""


def examine() -> Iterator[str]:
    """Yields the lines of the report."""
    yield f"system     {platform.system()} {platform.release()}, {os.cpu_count()} cores, {len(gpus())} GPUs"
    yield "versions   " + ", ".join(f"{name} {version}" for name, version in versions().items())
    yield f"memory     {_memory()}"
    disks = [(path.absolute(), shutil.disk_usage(path).free) for path in DISKS if path.is_dir()]
    yield "disk       " + ", ".join(f"{_size(free)} free in {path}" for path, free in disks)
    yield from _gpu() if gpus() else ()
    yield f"engine     {'vLLM' if importlib.util.find_spec('vllm') else 'transformers: vLLM is not installed'}"
    try:
        sandbox = isolation()
    except SandboxError as error:
        yield f"sandbox    none: {error}"
        return
    yield from _sandbox(sandbox)
    local = Local()
    for language in LANGUAGES:
        problem = local.problem(language)
        yield f"{language:<10} " + (f"answers will be errors: {problem}" if problem else "yes")
    local.close()


def _gpu() -> Iterator[str]:
    """What GPU runs need besides Python packages."""
    asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    driver = (subprocess.run(asked, capture_output=True, text=True, timeout=60).stdout.split() or ["unknown"])[0]
    old = driver.partition(".")[0].isdigit() and int(driver.partition(".")[0]) < DRIVER
    yield f"driver     {driver}" + f": CUDA 13 needs {DRIVER} or newer" * old
    compiler = next(filter(None, map(shutil.which, (os.environ.get("CC", "cc"), "gcc", "clang"))), "")
    headers = (Path(sysconfig.get_paths()["include"]) / "Python.h").is_file()
    missing = ["a C compiler"] * (not compiler) + ["Python.h (python3-dev)"] * (not headers)
    yield f"compiler   {compiler or 'none'}" + f": vLLM's first start needs {' and '.join(missing)}" * bool(missing)
    pinned = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    free = pinned == resource.RLIM_INFINITY
    yield f"pinned     {'no limit' if free else _size(pinned) + ' at most (ulimit -l): offloading and NCCL pin more'}"


def _memory() -> str:
    """The machine's, and the least that a control group (a container's, a job's) leaves of it."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    text = _size(total)
    if (info := Path("/proc/meminfo")).is_file():
        rows = dict(line.split(":") for line in info.read_text().splitlines())
        text += f", {_size(int(rows['MemAvailable'].split()[0]) << 10)} available"
    for limit in (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")):
        if limit.is_file() and (value := limit.read_text().strip()).isdigit() and int(value) < total:
            text += f", of which a control group allows {_size(int(value))}"
    return text


def _size(n: int) -> str:
    return f"{n / (1 << 30):,.1f} GiB"


def _sandbox(sandbox: Isolation) -> Iterator[str]:
    yield f"sandbox    {sandbox}"
    yield from (f"           not {reason}" for reason in sandbox.refused)
    with Sandbox(sandbox.level) as box:
        execution: Execution = box.run(Job("script", PROBE), Limits())
    yield "           a program sees: " + "; ".join(execution.stdout.split("\n")).rstrip("; ")
    if sandbox.level not in NAMESPACED:
        yield f"           WARNING: {sandbox.level} is level {LEVELS.index(sandbox.level) + 1} of {len(LEVELS)}: " + (
            "programs see the machine's files and processes" if sandbox.level == "uid" else "no security boundary"
        )
