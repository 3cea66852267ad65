"""`ringrl doctor`: what this machine has, and how far untrusted programs are isolated, as seen from inside."""

from __future__ import annotations

import importlib.util
import os
import platform
from collections.abc import Iterator

from ringrl.launch.machine import gpus
from ringrl.sandbox.box import Execution, Isolation, Job, Limits, Sandbox, SandboxError, isolation
from ringrl.sandbox.kernel import LEVELS, NAMESPACED
from ringrl.sandbox.local import LANGUAGES, Local

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
    system, python = f"{platform.system()} {platform.release()}", platform.python_version()
    yield f"system     {system}, {os.cpu_count()} cores, {len(gpus())} GPUs, Python {python}"
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
