"""Programs that attack the machine, the verdict or each other: none passes, all are contained, nothing is left."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from ringrl.rewards.code import verify_code
from ringrl.sandbox.box import Execution, Job, Limits, Sandbox, SandboxError
from ringrl.sandbox.kernel import LEVELS, NAMESPACED
from ringrl.sandbox.local import Local, missing
from tests.conftest import until

FAST = Limits(wall_s=1.5, cpu_s=1, memory_bytes=256 << 20, output_bytes=1 << 20)
SLOW = replace(FAST, wall_s=30.0, cpu_s=20)  # on a busy machine
SECRET = "expected-output-" + "71c9"  # in this process's memory, environment and files
HOME = Path(tempfile.gettempdir()) / f"ringrl-hostile-{os.getpid()}"

# name: (program, the outcomes it may have); one that gets at something it must not prints ESCAPED
CONTAINED = {
    "fork bomb": ("import os\nwhile True:\n  try: os.fork()\n  except OSError: pass", "timeout memory"),
    "fork bomb that ends": ("import os\nfor _ in range(999): os.fork()", "runtime"),
    "thread bomb": (
        "import threading, time\nfor _ in range(999): threading.Thread(target=time.sleep, args=(9,)).start()",
        "runtime timeout",
    ),
    "memory bomb": ("x = []\nwhile True: x.append(bytearray(1 << 24))", "memory"),
    "memory bomb at once": ("x = bytearray(1 << 40)", "memory"),
    "memory bomb of many": (
        "import os, time\nfor _ in range(20): os.fork() or (b := bytearray(b'x') * (100 << 20), time.sleep(9))\n"
        "time.sleep(9)",
        "memory",
    ),
    "memory bomb of many that share": (
        "import mmap, os, time\nfor _ in range(6):\n  if os.fork() == 0:\n    m = mmap.mmap(-1, 100 << 20)\n"
        "    for i in range(0, 100 << 20, 4096): m[i] = 1\n    time.sleep(9)\ntime.sleep(9)",
        "memory",
    ),
    "memory that many share": (
        "import mmap, os, time\nm = mmap.mmap(-1, 100 << 20)\nfor _ in range(5):\n  if os.fork() == 0:\n"
        "    for i in range(0, 100 << 20, 4096): m[i] = 1\n    time.sleep(0.2)\n    os._exit(0)\n"
        "for _ in range(5): os.wait()",
        "ok",
    ),
    "output flood": ("while True: print('x' * 1000)", "output"),
    "flood of errors": ("import os\nwhile True: os.write(2, b'x' * 1000)", "output"),
    "endless loop": ("while True: pass", "timeout"),
    "endless loop without signals": (
        "import signal\nfor s in set(signal.Signals) - {9, 19}: signal.signal(s, signal.SIG_IGN)\nwhile True: pass",
        "timeout",
    ),
    "sleep": ("import time; time.sleep(60)", "timeout"),
    "stopped": ("import os, signal; os.kill(os.getpid(), signal.SIGSTOP)", "timeout"),
    "double fork with setsid": (
        "import os, time\nif os.fork() == 0:\n  os.setsid()\n  if os.fork() == 0: time.sleep(600)\n"
        "  os._exit(0)\nos.wait()",
        "ok",
    ),
    "daemons": (
        "import subprocess\nfor _ in range(5): subprocess.Popen(['/bin/sleep', '600'], start_new_session=True)",
        "ok",
    ),
    "thread that never joins": (
        "import threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()",
        "timeout",
    ),
    "deep recursion": (
        "import sys\nsys.setrecursionlimit(1 << 30)\ndef f(): return f()\nf()",
        "memory runtime timeout",
    ),
    "deep recursion in C": ("x = []\nfor _ in range(10**6): x = [x]\nprint(repr(x))", "runtime"),
    "closing file descriptors": ("import os\nos.closerange(0, 256)", "runtime ok"),
    "crash": ("import ctypes; ctypes.string_at(0)", "runtime"),
    "killing itself": ("import os; os.kill(os.getpid(), 9)", "memory"),
    "changing its limits": (
        "import resource\nfor r in (resource.RLIMIT_CPU, resource.RLIMIT_AS):\n"
        "  try: resource.setrlimit(r, (-1, -1)); print('ESCAPED')\n  except (OSError, ValueError): pass",
        "ok",
    ),
}  # fmt: skip

# and these against what namespaces keep from it
ISOLATED = {
    "killing the parent": (
        "import os\nfor s in (15, 9): os.kill(os.getppid(), s)\nos.kill(-1, 9)\nprint('still here')",
        "ok runtime memory",
    ),
    "seeing processes": (
        "import os\nprint('ESCAPED' * ({p for p in os.listdir('/proc') if p.isdigit()} != {'1', str(os.getpid())}))",
        "ok",
    ),
    "looking into processes": (
        f"""
import glob
for path in glob.glob('/proc/[0-9]*/*') + glob.glob('/proc/[0-9]*/fd/*'):
    if path.startswith('/proc/%d/' % __import__('os').getpid()): continue
    try: found = open(path, 'rb').read(1 << 20)
    except OSError: continue
    if {SECRET[:8].encode()!r} + {SECRET[8:].encode()!r} in found: print('ESCAPED', path)
""",
        "ok",
    ),
    "memory of the host": (
        "for n in ('mem', 'maps', 'environ'):\n  try: open(f'/proc/1/{n}', 'rb').read(); print('ESCAPED')\n"
        "  except OSError: pass",
        "ok",
    ),
    "ptrace": (
        "import ctypes\nl = ctypes.CDLL(None)\nprint('ESCAPED' * (l.ptrace(16, 1, 0, 0) == 0 or l.ptrace(0) == 0))",
        "ok",
    ),
    "process_vm_readv": (
        "import ctypes\nprint('ESCAPED' * (ctypes.CDLL(None).process_vm_readv(1, None, 0, None, 0, 0) >= 0))",
        "ok",
    ),
    "writing outside": (
        f"""
import os
for folder in ('/', '/usr/bin', '/etc', '/dev', '/proc', '/var/tmp', os.path.dirname(os.__file__), {str(HOME)!r}):
    try: open(os.path.join(folder, 'left'), 'w').write('x'); print('ESCAPED', folder)
    except OSError: pass
""",
        "ok",
    ),
    "reading the user's files": (
        f"""
import os
for root in ({str(HOME)!r}, '/work', '/home', '/var', '/boot', '/sys'):
    if os.path.exists(root): print('ESCAPED', root)
for path in ('/etc/shadow', '/etc/hostname', '/root/.bashrc', '/root/.ssh'):
    if os.path.exists(path): print('ESCAPED', path)
""",
        "ok",
    ),
    "filling the disk": (
        "for i in range(1000): open(f'/tmp/{i}', 'wb').write(bytes(1 << 19))",
        "runtime",
    ),
    "filling the disk with names": ("for i in range(10**5): open(f'/tmp/{i}', 'w').close()", "runtime"),
    "filling shared memory": ("for i in range(1000): open(f'/dev/shm/{i}', 'wb').write(bytes(1 << 19))", "runtime"),
    "network": (
        """
import socket
for address in (('127.0.0.1', %d), ('10.0.0.1', 80)):
    try: socket.create_connection(address, timeout=0.3); print('ESCAPED', address)
    except OSError: pass
try: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('8.8.8.8', 53)); print('ESCAPED')
except OSError: pass
""",
        "ok",
    ),
    "environment": (
        "import os\nprint('ESCAPED' * (set(os.environ) > set()))\n"
        "print('ESCAPED' * (b'RINGRL' in open('/proc/self/environ', 'rb').read()))",
        "ok",
    ),
    "gaining rights": (
        """
import ctypes, os
libc = ctypes.CDLL(None)
status = dict(line.split(':', 1) for line in open('/proc/self/status'))
if int(status['CapEff'], 16) or int(status['CapPrm'], 16) or int(status['NoNewPrivs']) != 1: print('ESCAPED')
for flags in (0x10000000, 0x20000, 0x40000000): print('ESCAPED' * (libc.unshare(flags) == 0))
print('ESCAPED' * (libc.mount(b'none', b'/tmp', b'tmpfs', 0, None) == 0))
for call in (os.setuid, os.setgid):
    try: call(0); print('ESCAPED')
    except OSError: pass
""",
        "ok",
    ),
    "a file in /dev/shm": ("open('/dev/shm/left', 'w').write('x')", "ok"),
    "shared memory segments": (
        "import ctypes\nprint('ESCAPED' * (ctypes.CDLL(None).shmget(1234, 1 << 20, 0o1666) >= 0))",
        "ok",
    ),
    "memory without a name": ("import os\ntry: os.memfd_create('x'); print('ESCAPED')\nexcept OSError: pass", "ok"),
    "importing us": ("try: import ringrl; print('ESCAPED')\nexcept ImportError: pass", "ok"),
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def home() -> Iterator[None]:
    HOME.mkdir()
    tempfile.tempdir = str(HOME)
    (HOME / "tests.jsonl").write_text(SECRET)
    os.environ["RINGRL_SECRET"] = SECRET
    yield
    tempfile.tempdir = None
    del os.environ["RINGRL_SECRET"]
    shutil.rmtree(HOME)


@pytest.fixture(scope="module")
def listening() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture(scope="module", params=[pytest.param(x, marks=[pytest.mark.slow] * (x != LEVELS[0])) for x in LEVELS])
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    with pytest.MonkeyPatch.context() as patch, Sandbox(request.param) as box:
        if request.param == "uid":
            patch.setattr(sys, "executable", shutil.which("python3", path="/usr/bin"))  # ours may be root's alone
        try:
            box.run(Job("script", ""), FAST)
        except (SandboxError, TypeError) as error:
            pytest.skip(str(error))
        yield box


def user(sandbox: Sandbox) -> int:
    """The user id of its programs."""
    return int(sandbox.run(Job("script", "import os; print(os.getuid())"), SLOW).stdout)


def left(uid: int) -> tuple[object, ...]:
    """Processes below this one, files of a user where anybody may write, mounts and shared-memory segments."""
    below = sorted(p.pid for p in psutil.Process().children(recursive=True))
    files = [str(p) for d in (HOME, "/tmp", "/var/tmp", "/dev/shm") for p in Path(d).iterdir() if of_ours(p, uid)]
    mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if "ringrl" in line]
    segments = Path("/proc/sysvipc/shm").read_text().count("\n")
    return below, sorted(files), mounts, segments


def of_ours(path: Path, uid: int) -> bool:
    """Whether a program made this file, and not somebody else on this machine, other sandboxes included."""
    try:
        return path.name == "left" or path.is_relative_to(HOME) or (uid != os.getuid() and path.lstat().st_uid == uid)
    except FileNotFoundError:
        return False


def attack(sandbox: Sandbox, code: str, outcomes: str) -> Execution:
    before = left(uid := user(sandbox))
    limits = FAST if "timeout" in outcomes else SLOW
    seen = sandbox.run(Job("script", code, "1\n"), limits)
    assert seen.outcome in outcomes.split(), seen
    assert "ESCAPED" not in seen.stdout
    assert left(uid) == before
    assert sandbox.run(Job("script", "print(open(0).read())", "fine"), SLOW).stdout == "fine\n"
    return seen


@pytest.mark.parametrize("name", CONTAINED)
def test_contained(sandbox: Sandbox, name: str):
    if sandbox.level == "process" and name in ("fork bomb", "fork bomb that ends", "thread bomb"):
        pytest.skip("processes are counted per user, and these are the user's")
    attack(sandbox, *CONTAINED[name])


@pytest.mark.parametrize("name", ISOLATED)
def test_isolated(sandbox: Sandbox, name: str, listening: int):
    if sandbox.level not in NAMESPACED:
        pytest.skip("needs namespaces")
    code, outcomes = ISOLATED[name]
    attack(sandbox, code % listening if name == "network" else code, outcomes)


JAVA = """
public class Main { public static void main(String[] a) throws Exception {
    if (a.length > 0) { byte[][] held = new byte[2048][]; for (int i = 0; i < 2048; i++) held[i] = new byte[1 << 20]; }
    String[][] commands = {{"%s", "-Xmx3g", "-cp", "answer.jar", "Main", "child"}, {"%s", "-c", "%s"}};
    for (String[] command : commands) System.out.println(new ProcessBuilder(command).start().waitFor()); } }
"""
SHARING = "import mmap; m = mmap.mmap(-1, 3 << 30); [m.seek(i) or m.write(b'x') for i in range(0, 3 << 30, 4096)]"


@pytest.mark.skipif(bool(missing("java")), reason="Java is not installed")
@pytest.mark.parametrize("first", [0, 1])
def test_what_a_java_program_starts_has_its_limit_of_memory(sandbox: Sandbox, first: int):
    python = shutil.which("python3", path="/usr/bin:/bin")
    if first and not python:
        pytest.skip("the system has no Python")
    code = JAVA % (shutil.which("java"), python, SHARING)
    code = code.replace("commands) ", f"java.util.List.of(commands).subList({first}, {first + 1})) ")
    local = Local(sandbox.level)
    seen = local.execute("java", code, "", replace(Limits(), wall_s=60.0, cpu_s=40))
    local.close()
    assert seen.outcome == "memory", seen


def test_programs_see_nothing_of_each_other(sandbox: Sandbox):
    """Neither files nor, in memory that the forks of one host share, text."""
    word = "left" + "-by-another"
    assert (
        sandbox.run(Job("script", f"open('x', 'w').write({word!r}); print(input())", word), SLOW).stdout == f"{word}\n"
    )
    search = """
import os, re
assert os.listdir('.') == []
ranges = [l.split()[0].split('-') for l in open('/proc/self/maps') if ' rw' in l and 'vvar' not in l]
with open('/proc/self/mem', 'rb') as memory:
    for low, high in ranges:
        memory.seek(int(low, 16))
        try: text = memory.read(int(high, 16) - int(low, 16))
        except OSError: continue
        if re.search(b'left[-]by[-]another', text): print('ESCAPED')
"""
    seen = sandbox.run(Job("script", search), SLOW)
    assert (seen.outcome, seen.stdout) == ("ok", ""), seen


def test_nothing_outlives_the_host(sandbox: Sandbox):
    before = {p.pid for p in psutil.Process().children(recursive=True)}

    def new() -> list[psutil.Process]:
        return [p for p in psutil.Process().children(recursive=True) if p.pid not in before]

    with Sandbox(sandbox.level) as other:
        other.begin(Job("script", "import os, time\nos.fork() or os.setsid()\ntime.sleep(60)"), Limits())
        until(lambda: len(new()) >= 3)
        ours = new()
    assert psutil.wait_procs(ours, timeout=10)[1] == []


def test_hosts_do_not_share_their_limit_of_processes(sandbox: Sandbox):
    """Verifiers judge at the same time: one response's processes are not taken from another's."""
    if sandbox.level == "process":
        pytest.skip("processes are counted per user, and these are the user's")
    many = "import os, time\nfor _ in range(50): os.fork() or time.sleep(60)\n"
    before = len(psutil.Process().children(recursive=True))
    with Sandbox(sandbox.level) as other:
        other.begin(Job("script", many + "time.sleep(60)"), SLOW)
        until(lambda: len(psutil.Process().children(recursive=True)) > before + 50)
        seen = sandbox.run(Job("script", many + "print('all')"), SLOW)
    assert (seen.outcome, seen.stdout) == ("ok", "all\n"), seen


# ---- the verdict -------------------------------------------------------------------------------------------

STDIN = [{"input": "2\n", "output": "4\n"}]
CALL = [{"input": [2], "output": 4}, {"input": [3], "output": 6}]
ASSERT = ["assert f(2) == 4", "assert not f(3) == 4", "assert f(3) - 6 == 0", "assert 4 in [f(2)]"]
ASSERT += [
    "assert all(map(lambda t: f(t[0]) == t[1], [(2, 4), (3, 6)]))",
    "assert sorted([f(3), f(2)]) == sorted([4, 6])",
]
ASSERT += ["assert abs(f(4) - 8.0) < 1e-6", "assert f(5) > 9", "assert [f(6)] == [12]"]
EQUAL = """
class Any(int):
    def _yes(self, *other): return True
    __eq__ = __ne__ = __lt__ = __gt__ = __le__ = __ge__ = __contains__ = __bool__ = _yes
    def _self(self, *other): return self
    __sub__ = __rsub__ = __add__ = __getattr__ = __abs__ = __hash__ = _self
"""
CHEATS = {
    "leaving": "import os\ndef f(x): os._exit(0)\nos._exit(0)",
    "exit": "def f(x): exit(0)\nexit(0)",
    "leaving when called": "import os\ndef f(x): os._exit(0)\nif __name__ == '__main__': f(2)",
    "a word to the parent": "import os\nfor fd in range(9):\n  try: os.write(fd, b'ok')\n  except OSError: pass",
    "equal to all": EQUAL + "def f(x): return Any()\nif __name__ == '__main__': print(Any())",
    "equal to all, no int": EQUAL.replace("(int)", "") + "def f(x): return Any()",
    "equal to all, in a list": EQUAL.replace("(int)", "") + "def f(x): return [Any()]",
    "patched builtins": "import builtins\nfor n in ('int', 'str', 'bool', 'list', 'len', 'abs', 'AssertionError'):\n"
    "  setattr(builtins, n, type('T', (), {'__eq__': lambda s, o: True, '__init__': lambda s, *a: None}))\n"
    "def f(x): return builtins.int()",
    "patched operators": "import operator, math\noperator.eq = math.isclose = lambda *a, **k: True\ndef f(x): return 5",
    "patched json": "import json\njson.dumps = json.loads = lambda *a, **k: '4'\ndef f(x): return 5",
    "caller's frame": """
import sys
def f(x):
    frame = sys._getframe()
    while frame:
        for v in (frame.f_globals, frame.f_locals):
            for k in list(v):
                if k not in ('f', '__builtins__', 'frame', 'v', 'k'):
                    try: v[k] = lambda *a, **b: 4
                    except Exception: pass
        frame = frame.f_back
    return 5
if __name__ == '__main__': f(2)
""",
    "all objects": "import gc\ndef f(x):\n  for o in gc.get_objects():\n    if isinstance(o, dict) and 'proof' in o: "
    "__import__('os').write(3, o['proof'].encode())\n  return 5",
    "raising assertion": "def f(x): raise AssertionError\n",
    "ending our iterations": "def f(x): raise StopIteration\n",
    "ending them by a class of its own": "class End(StopIteration): pass\ndef f(x): raise End\n",
    "its own builtins": "def f(x): return 5\ndef abs(x): return 0\ndef sorted(x): return 0\ndef all(x): return True\n",
    "its own tools": "def f(x): return 5\ndef gcd(*x): return 1\nany = max = min = isinstance = lambda *x: True\n",
    "more names than it has": """
import json, os, socket
line = socket.socket(fileno=5).makefile('rwb')
def tell(message): line.write(json.dumps(message).encode() + b'\\n'); line.flush()
names = ('f', '__builtins__', '__counted_condition__', '__name__', 'a b')
tell({'value': [['value', name, {'mine': 0} if name == 'f' else {'dict': []}] for name in names]})
while text := line.readline():
    tell({'value': True, 'changed': []})
os._exit(0)
""",
    "another interpreter": "import os, sys\ndef f(x): os.execv('/bin/true', ['true'])\nf(2)",
}


@pytest.mark.parametrize("name", CHEATS)
def test_cheats_pass_nothing(name: str):
    text = f"```python\n{CHEATS[name]}\n```"
    for tests, entry in ((STDIN, ""), (CALL, "f"), (ASSERT, ""), (ASSERT, "f")):
        verdict = verify_code(text, {"tests": tests, "entry_point": entry})
        assert verdict.kind == "fail", (tests, verdict)


GCD = "def gcd(a, b):\n    while b: a, b = b, a % b\n    return a\n"
NAMED = [  # (program, tests, verdict): names that the library has, too
    (GCD, "assert all(gcd(a, b) == c for a, b, c in ((12, 18, 6), (7, 5, 1)))", "pass"),
    ("def gcd(a, b): return 0\ndef all(x): return True", "assert all(gcd(a, b) == 6 for a, b in ((12, 18),))", "fail"),
    ("def sum(x):\n    t = 0\n    for v in x: t += v\n    return t", "assert abs(sum([1.5, 2.5]) - 4) < 1e-9", "pass"),
    ("def sum(x): return 9\ndef abs(x): return 0", "assert abs(sum([1.5, 2.5]) - 4) < 1e-9", "fail"),
    ("def f(x): return 0\ndef abs(x): return 0", "import solution\nassert abs(solution.f(4) - 8.0) < 1e-6", "fail"),
    ("def f(x): return 8.0\ndef abs(x): return 9", "import solution\nassert abs(solution.f(4) - 8.0) < 1e-6", "pass"),
    (
        "def f(n):\n    for i in range(n): yield i",
        "assert list(f(3)) == [0, 1, 2]\nassert next(iter(f(1))) == 0",
        "pass",
    ),
]


@pytest.mark.parametrize(("program", "tests", "kind"), NAMED)
def test_names_mean_the_library_unless_they_are_what_is_tested(program: str, tests: str, kind: str) -> None:
    assert verify_code(f"```python\n{program}\n```", {"tests": tests}).kind == kind
