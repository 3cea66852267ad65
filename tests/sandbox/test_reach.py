"""What programs could reach of the machine, of their host and of the next program, and what they use together."""

from __future__ import annotations

import json
import os
import random
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from ringrl.errors import ConfigError
from ringrl.sandbox import box, filter, kernel
from ringrl.sandbox.box import Execution, Isolation, Job, Limits, Sandbox, SandboxError, at_least
from ringrl.sandbox.host import remove_tree
from ringrl.sandbox.kernel import NAMESPACED
from ringrl.sandbox.local import Local
from tests.sandbox.test_hostile import FAST, SLOW, attack, home, left, sandbox, user

__all__ = ["home", "sandbox"]

CALL = "import ctypes, errno, os\nlibc = ctypes.CDLL(None, use_errno=True)\n"
REFUSED = {  # x86-64
    "personality": (135, 0x40000), "modify_ldt": (154, 0, 0, 0), "syslog": (103, 10, 0, 0), "io_setup": (206, 1, 0),
    "name_to_handle_at": (303, -100, 0, 0, 0, 0), "inotify_init": (253,), "inotify_init1": (294, 0),
    "fanotify_init": (300, 0, 0), "landlock_create_ruleset": (444, 0, 0, 1), "get_mempolicy": (239, 0, 0, 0, 0, 0),
    "pkey_alloc": (330, 0, 0), "process_mrelease": (448, -1, 0), "vmsplice": (278, -1, 0, 0, 0), "flock": (73, 0, 6),
    "setxattr": (188, 0, 0, 0, 0, 0), "remap_file_pages": (216, 0, 0, 0, 0, 0), "memfd_secret": (447, 0),
    "seccomp": (317, 0, 0, 0), "bpf": (321, 0, 0, 0), "userfaultfd": (323, 0), "perf_event_open": (298, 0, 0, 0, 0, 0),
    "keyctl": (250, 0, 0, 0, 0, 0), "ptrace": (101, 16, 1, 0, 0), "kcmp": (312, 1, 1, 0, 0, 0), "sync": (162,),
    "sched_setscheduler": (144, 0, 3, 0), "mincore": (27, 0, 0, 0), "acct": (163, 0), "reboot": (169, 0, 0, 0),
}  # fmt: skip

ANYWHERE = {
    "calls that nobody needs": (
        CALL + f"for name, (number, *args) in {REFUSED!r}.items():\n"
        "    if libc.syscall(number, *args) >= 0 or ctypes.get_errno() != errno.EPERM: print('ESCAPED', name)",
        "ok",
    ),
    "calls that are newer than the list": (
        CALL + "print('ESCAPED' * (libc.syscall(900) >= 0 or ctypes.get_errno() != errno.ENOSYS))",
        "ok",
    ),
    "sockets of other families": (
        "import errno, socket\n"
        "for family in {*range(50)} - {socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK}:\n"
        "    for kind in (1, 2, 3, 5):\n"
        "        try: socket.socket(family, kind, 0); print('ESCAPED', family)\n"
        "        except OSError as error:\n"
        "            if error.errno != errno.EPERM: print('ESCAPED', family, error)",
        "ok",
    ),
    "a name that is no text": (
        CALL + "libc.prctl(15, b'\\xff\\xfe\\xfd', 0, 0, 0)\n"
        "for _ in range(6): os.fork() or (bytearray(b'x') * (60 << 20), __import__('time').sleep(9))\n"
        "for _ in range(6): os.wait()",
        "memory",
    ),
    "memory that forks fill together": (
        "import mmap, os, time\n"
        "for _ in range(6):\n    if os.fork() == 0:\n        m = mmap.mmap(-1, 60 << 20)\n"
        "        for at in range(0, 60 << 20, 4096): m[at] = 1\n        time.sleep(9)\n"
        "for _ in range(6): os.wait()",
        "memory",
    ),
    "memory in the buffers of sockets": (
        "import os, socket, time\nfor _ in range(16):\n    if os.fork() == 0:\n        held = []\n"
        "        for _ in range(24):\n            pair = socket.socketpair(); held += pair\n"
        "            for end in pair:\n                end.setblocking(False)\n"
        "                try:\n                    while True: end.send(bytes(1 << 16))\n"
        "                except OSError: pass\n        time.sleep(9)\n"
        "for _ in range(16): os.wait()",
        "memory",
    ),
    "folders in folders": (
        "import os\nfor _ in range(3000):\n    try: os.mkdir('d'); os.chdir('d')\n    except OSError: break",
        "ok runtime output",
    ),
    "folders that are closed": ("import os\nos.makedirs('a/b/c')\nos.chmod('a/b', 0)\nos.chmod('a', 0)", "ok"),
    "locks of ours": (
        "import socket\nfor i in range(60_001, 64_001):\n"
        "    try: socket.socket(socket.AF_UNIX).bind(f'\\0ringrl-sandbox-uid-{i}')\n    except OSError: break\n",
        "ok",
    ),
}
HOST = {
    "signals to the host": (
        "import os, signal, time\nfor number in {*signal.valid_signals()} - {signal.SIGKILL}:\n"
        "    try: os.kill(os.getppid(), number)\n    except OSError: pass\ntime.sleep(0.3)",
        "ok runtime",
    ),
    "limits of the host": (
        "import os, resource\nfor kind in range(16):\n"
        "    try: resource.prlimit(os.getppid(), kind, (1, 1)); print('ESCAPED', kind)\n    except OSError: pass",
        "ok",
    ),
    "places of the host": (
        CALL + "parent = os.getppid()\n"
        "print('ESCAPED' * (libc.setpriority(0, parent, 19) == 0))\n"
        "print('ESCAPED' * (libc.syscall(203, parent, 8, bytes([1] * 8)) == 0))",
        "ok",
    ),
}
MACHINE = {
    "names of the machine": (
        "import os\nif os.uname().nodename != 'sandbox': print('ESCAPED', os.uname())\n"
        "for path in ('sys/kernel/random/boot_id', 'cmdline', 'self/cgroup', 'self/mountinfo', 'self/mounts',\n"
        "             'version', 'meminfo', '1/mountinfo', '1/environ', '1/cgroup'):\n"
        "    try: print('ESCAPED', path, open(f'/proc/{path}').read()[:50])\n    except OSError: pass",
        "ok",
    ),
    "paths of the machine": (
        "for who in (1, 'self'):\n    if open(f'/proc/{who}/cmdline').read().strip('\\0'): print('ESCAPED', who)",
        "ok",
    ),
    "locks on what others see": (
        "import fcntl\nfile = open('/usr/bin/env', 'rb')\n"
        "for how in (lambda: fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB),\n"
        "            lambda: fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB), lambda: fcntl.fcntl(file, 1024, 0)):\n"
        "    try: how(); print('ESCAPED')\n    except OSError: pass",
        "ok",
    ),
}
HONEST = {  # what programs do every day, under the same filter
    "subprocesses": (
        "import subprocess\nprint(subprocess.run(['/bin/sh', '-c', 'echo $((20 + 22)) | cat'], capture_output=True, "
        "text=True).stdout)",
        "42",
    ),
    "pools": (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "with ThreadPoolExecutor(4) as threads:\n"
        "    print(sum(threads.map(abs, range(-9, 0))))",
        "45",
    ),
    "asyncio": (
        "import asyncio\nasync def f(x):\n    await asyncio.sleep(0.01)\n    return x\n"
        "async def main(): return sum(await asyncio.gather(*map(f, range(5))))\nprint(asyncio.run(main()))",
        "10",
    ),
    "files": (
        "import os, pathlib, shutil, tempfile\nwith tempfile.TemporaryDirectory() as folder:\n"
        "    path = pathlib.Path(folder, 'a')\n    path.write_text('text')\n    shutil.copy2(path, folder + '/b')\n"
        "    os.replace(folder + '/b', folder + '/c')\n    print(sorted(os.listdir(folder)))",
        "['a', 'c']",
    ),
    "standard input by its name": ("print(open('/dev/stdin').read())", "1"),
    "databases in memory": (
        "import sqlite3\nd = sqlite3.connect(':memory:')\nd.execute('create table t (x)')\n"
        "d.execute('insert into t values (7)')\nprint(d.execute('select x from t').fetchone()[0])",
        "7",
    ),
    "signals and timers": (
        "import signal\nsignal.signal(signal.SIGALRM, lambda *_: print('rang'))\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.01)\nsignal.pause()",
        "rang",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ANYWHERE)
def test_contained_at_every_level(sandbox: Sandbox, name: str) -> None:
    code, outcomes = ANYWHERE[name]
    if name == "sockets of other families" and not filter.machine():
        pytest.skip("no filter for this machine")
    attack(sandbox, code, outcomes)


@pytest.mark.parametrize("name", HOST)
def test_the_host_is_out_of_reach(sandbox: Sandbox, name: str) -> None:
    if sandbox.level == "process":
        pytest.skip("no security boundary")
    attack(sandbox, *HOST[name])


@pytest.mark.parametrize("name", MACHINE)
def test_the_machine_is_out_of_sight(sandbox: Sandbox, name: str) -> None:
    if sandbox.level not in NAMESPACED:
        pytest.skip("needs namespaces")
    attack(sandbox, *MACHINE[name])


@pytest.mark.parametrize("name", HONEST)
def test_honest_programs_run_under_the_filter(sandbox: Sandbox, name: str) -> None:
    code, said = HONEST[name]
    seen = sandbox.run(Job("script", code, "1\n"), SLOW)
    assert (seen.outcome, seen.stdout.strip()) == ("ok", said), seen


def test_time_of_children_that_are_ignored_counts(sandbox: Sandbox) -> None:
    """Children of a parent that ignores their end leave their time to nobody."""
    burn = "import time\nwhile time.process_time() < 0.4: pass"
    code = (
        "import os, signal\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\nfor _ in range(40):\n"
        f"    r, w = os.pipe()\n    if os.fork() == 0:\n        exec({burn!r})\n        os._exit(0)\n"
        "    os.close(w); os.read(r, 1)\nprint('ESCAPED')"
    )
    seen = sandbox.run(Job("script", code), replace(FAST, wall_s=25.0))
    assert seen.outcome == "timeout", seen


def test_files_on_disk_have_a_limit_together(sandbox: Sandbox) -> None:
    code = "import time\nfor i in range(400): open(f'f{i}', 'wb').write(bytes(1 << 19)); time.sleep(0.002)"
    seen = sandbox.run(Job("script", code), SLOW)
    assert seen.outcome in ("runtime", "output"), seen


@pytest.mark.parametrize("shape", ["deep", "closed", "wide"])
def test_folders_of_any_shape_are_removed(tmp_path: Path, shape: str) -> None:
    top = tmp_path / "top"
    top.mkdir()
    here = os.getcwd()
    try:
        os.chdir(top)
        for _ in range(2500 if shape == "deep" else 20):
            os.mkdir("d")
            for name in ("e", "f", "g")[: 3 * (shape == "wide")]:
                os.mkdir(name)
                Path(name, "file").touch()
            os.chdir("d")
    finally:
        os.chdir(here)
    if shape == "closed":
        (top / "d").chmod(0)
    remove_tree(str(top))
    assert list(tmp_path.iterdir()) == []


def test_a_host_whose_limits_changed_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    told = json.loads

    def touched(text: bytes) -> dict[str, object]:
        return told(text) | ({"touched": True} if b"cpu_s" in text else {})

    with Sandbox() as one:
        one.run(Job("script", ""), SLOW)
        before = one._process
        monkeypatch.setattr(box.json, "loads", touched)
        one.run(Job("script", ""), SLOW)
        monkeypatch.undo()
        assert one.run(Job("script", "print('fine')"), SLOW).stdout == "fine\n"
        assert one._process is not before


@pytest.mark.parametrize("level", NAMESPACED)
def test_an_interpreter_that_its_programs_could_not_see_is_refused(level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "__file__", "/tmp/python/lib/python3.11/os.py")
    with pytest.raises(OSError, match="the interpreter lies in /tmp"):
        kernel.enter(level, "", (), ())


@pytest.mark.parametrize(("lost", "outcome"), [(1, "ok"), (2, "runtime"), (3, None)])
def test_a_program_that_ends_hosts_is_to_blame(monkeypatch: pytest.MonkeyPatch, lost: int, outcome: str | None) -> None:
    """One lost host may have been bad luck, two are the program's work, and three are a sandbox that does not work."""
    local, run, calls = Local(), Sandbox.run, []

    def ends(self: Sandbox, job: Job, limits: Limits) -> Execution:
        calls.append(job)
        if len(calls) <= lost:
            self.close()
            raise SandboxError("the host is gone")
        return run(self, job, limits)

    monkeypatch.setattr(Sandbox, "run", ends)
    try:
        if outcome is None:
            with pytest.raises(SandboxError, match="the host is gone"):
                local.execute("python", "print(2)", "", SLOW)
        else:
            assert local.execute("python", "print(2)", "", SLOW).outcome == outcome
    finally:
        local.close()


def test_less_isolation_than_asked_for_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    granted = Isolation("uid", "", ("user-namespaces: refused", "namespaces: needs root"))
    monkeypatch.setattr(box, "isolation", lambda: granted)
    assert at_least("uid") is granted
    assert at_least("process") is granted
    with pytest.raises(
        ConfigError,
        match=r"grants uid \(user-namespaces: refused; namespaces: needs root\), expected at "
        r"least namespaces, or verify.remote; with verify.isolation=uid programs read",
    ):
        at_least("namespaces")  # fmt: skip


@pytest.mark.skipif(not Path("/usr/include/asm-generic/unistd.h").is_file(), reason="no headers of the kernel here")
@pytest.mark.parametrize(("name", "header"), [("x86_64", "x86_64-linux-gnu/asm/unistd_64.h"),
                                              ("aarch64", "asm-generic/unistd.h")])  # fmt: skip
def test_numbers_are_those_of_the_kernel(name: str, header: str) -> None:
    """Those of the two machines' headers; the newest calls may be missing there."""
    if not Path("/usr/include", header).is_file():
        pytest.skip("no headers of this machine")
    wanted = "-D__ARCH_WANT_SET_GET_RLIMIT -D__ARCH_WANT_RENAMEAT -D__ARCH_WANT_SYS_CLONE3 -D__BITS_PER_LONG=64"
    told = subprocess.run(
        ["gcc", "-E", "-dM", *wanted.split(), "-include", f"/usr/include/{header}", "-x", "c", os.devnull],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    defined = dict(line.split()[1:3] for line in told.splitlines() if line.startswith("#define __NR"))
    numbers = filter.numbers(name)
    found = {call: defined.get(f"__NR_{call}", "") for call in numbers}
    found = {call: defined.get(value, value) for call, value in found.items()}  # __NR3264_...
    assert len([call for call in found if found[call]]) > 150
    assert {call: value for call, value in found.items() if value and int(value) != numbers[call]} == {}


FUZZ = """
import ctypes, os, random, resource, signal
rng, libc = random.Random({seed}), ctypes.CDLL(None)
def number(): return rng.choice((0, 1, 2, 3, 4, 5, -1, -100, 8, 64, 4096, 1 << 20, 1 << 31, 1 << 63, os.getpid(), os.getppid()))
def argument(): return rng.choice((number, lambda: ctypes.create_string_buffer(rng.randbytes(64))))()
def call(): libc.syscall(rng.randrange(470), *(ctypes.c_void_p(a) if isinstance(a, int) else a for a in (argument() for _ in range(6))))
def fork(): os.fork()
def limit(): resource.prlimit(rng.choice((0, 1, os.getppid())), rng.randrange(16), (rng.randrange(99), rng.randrange(999)))
def send(): os.kill(rng.choice((1, 0, -1, os.getppid(), os.getpid())), rng.randrange(65))
def ignore(): signal.signal(rng.randrange(1, 65), signal.SIG_IGN)
def write(): open(rng.choice(('/tmp/', '/dev/shm/', '/', '/proc/1/', './')) + str(rng.randrange(9)), 'wb').write(bytes(rng.randrange(9999)))
for _ in range({steps}):
    try: rng.choice((call, call, call, call, fork, limit, send, ignore, write))()
    except Exception: pass
"""  # noqa: E501


def fuzz(sandbox: Sandbox, seeds: range) -> None:
    before = left(uid := user(sandbox))
    for seed in seeds:
        code = FUZZ.format(seed=seed, steps=random.Random(seed).choice((1, 5, 50)))
        sandbox.run(Job("script", code), replace(FAST, wall_s=1.0, patience_s=0.5))
        honest = sandbox.run(Job("script", "print(sum(map(int, open(0).read().split())))", "40 2"), SLOW)
        assert (honest.outcome, honest.stdout) == ("ok", "42\n"), (seed, honest)
        assert left(uid) == before, seed


def test_honest_programs_pass_after_random_ones(sandbox: Sandbox) -> None:
    if sandbox.level == "process":
        pytest.skip("no security boundary")
    fuzz(sandbox, range(60 if sandbox.level == "user-namespaces" else 20))
