"""How fast the code sandbox is, and whether it leaves anything: `python scripts/bench_sandbox.py [rate|row|load|fuzz]`.

rate    executions per second and latency on two workers, for programs of ~0 and of 50 ms CPU time, against
        subprocess.run of a bare interpreter on the same program; the two take turns, so that other load hits both
row     --count executions in a row on one sandbox: processes, files and memory before and after
load    --count verdicts through VerifierPool on two workers, a quarter time-outs and a quarter crashes: how many
        are right, and wall time over what the same verdicts take one at a time on an idle worker
fuzz    --count random programs (system calls with random arguments, forks, limits, signals, files), from seed --first
        on: after each an honest one must pass, and the machine have no process, file, mount or segment more
"""

from __future__ import annotations

import argparse
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))

from ringrl.rewards import VerifierPool
from ringrl.sandbox.box import Job, Limits, Sandbox, isolation

WORKERS, ROUNDS = 2, 5
TRIVIAL = "print(int(input()) + 1)"
BUSY = "import time\nend = time.process_time() + 0.05\nwhile time.process_time() < end: pass\nprint(int(input()) + 1)"


def timed(run: Callable[[], str]) -> float:
    """Milliseconds of one execution, whose output must be right."""
    started = time.perf_counter()
    assert run() == "2\n"
    return 1000 * (time.perf_counter() - started)


def on_two_workers(runs: list[Callable[[], str]], count: int) -> tuple[float, list[float]]:
    """Seconds, and each execution's milliseconds."""
    started = time.perf_counter()
    with ThreadPoolExecutor(len(runs)) as pool:
        parts = pool.map(lambda run: [timed(run) for _ in range(count // len(runs))], runs)
        latencies = [ms for part in parts for ms in part]
    return time.perf_counter() - started, latencies


def rate(count: int) -> None:
    print(f"isolation: {isolation()}")
    print("| program | how | executions/s | p50 ms | p99 ms | against bare |\n|---|---|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        boxes = [Sandbox() for _ in range(WORKERS)]
        assert all(box.level for box in boxes)  # starts the hosts, which end with the thread that started them
        for name, code, per_round in (("trivial", TRIVIAL, count), ("50 ms", BUSY, max(count // 5, WORKERS))):
            file = Path(folder) / "program.py"
            file.write_text(code)
            sandboxed = [lambda b=b: b.run(Job("script", code, "1"), Limits()).stdout for b in boxes]  # noqa: B023
            ways = {
                "sandbox": sandboxed,
                "bare": [bare([], file)] * WORKERS,
                "bare -I -S": [bare(["-I", "-S"], file)] * WORKERS,
            }
            show(name, ways, per_round)
        for box in boxes:
            box.close()


def bare(flags: list[str], file: Path) -> Callable[[], str]:
    """An interpreter of its own for a program, without any isolation."""
    command = [sys.executable, *flags, str(file)]
    return lambda: subprocess.run(command, input="1", capture_output=True, text=True).stdout


def show(name: str, ways: dict[str, list[Callable[[], str]]], count: int) -> None:
    for runs in ways.values():
        on_two_workers(runs, WORKERS * 3)  # starts hosts, fills caches
    seconds, latencies = dict.fromkeys(ways, 0.0), {way: [] for way in ways}
    for _ in range(ROUNDS):
        for way, runs in ways.items():
            took, times = on_two_workers(runs, count)
            seconds[way] += took
            latencies[way] += times
    rates = {way: len(latencies[way]) / seconds[way] for way in ways}
    for way, per_second in rates.items():
        p = statistics.quantiles(latencies[way], n=100)
        ratio = per_second / rates["bare"]
        print(f"| {name} | {way} | {per_second:.0f} | {p[49]:.1f} | {p[98]:.1f} | {ratio:.1f} |")


def left() -> dict[str, float]:
    """Processes below this one and their memory, ours, open files, and what lies in temporary folders."""
    me = psutil.Process()
    family = [me, *me.children(recursive=True)]
    folders = (tempfile.gettempdir(), "/dev/shm", "/var/tmp")
    return {
        "processes": len(family),
        "our memory, MiB": round(me.memory_info().rss / 2**20, 1),
        "the host's memory, MiB": round(sum(p.memory_info().rss for p in family[1:]) / 2**20, 1),
        "our open files": me.num_fds(),
        "sandbox files": sum(1 for f in folders for p in Path(f).iterdir() if p.lstat().st_uid >= 60_000),
        "mounts": len(Path("/proc/self/mounts").read_text().splitlines()),
        "shared-memory segments": len(Path("/proc/sysvipc/shm").read_text().splitlines()) - 1,
    }


MESSY = """
import os, tempfile
open('file', 'w').write('x'); open('/dev/shm/file', 'w').write('x'); tempfile.mkdtemp()
if os.fork() == 0:
    os.setsid()
    os.execv('/bin/sleep', ['sleep', '600'])
print(int(input()) + 1)
"""


def row(count: int) -> None:
    with Sandbox() as box:
        for _ in range(200):
            timed(lambda: box.run(Job("script", MESSY, "1"), Limits()).stdout)
        before = left()
        for i in range(count):
            code = MESSY if i % 2 else TRIVIAL
            timed(lambda: box.run(Job("script", code, "1"), Limits()).stdout)  # noqa: B023
        after = left()
    print(f"| {count} executions, half of them leaving files and a daemon | before | after |\n|---|---:|---:|")
    for name, value in before.items():
        print(f"| {name} | {value} | {after[name]} |")


KINDS = {
    "pass": ("print(2 * int(input()))", "tests"),
    "wrong": ("print(3 * int(input()))", "wrong"),
    "sleeps": ("import time; time.sleep(60)", "timeout"),
    "loops": ("while True: pass", "timeout"),
    "raises": ("print(1 // 0)", "runtime"),
    "crashes": ("import os; os.kill(os.getpid(), 11)", "runtime"),
}


def load(count: int) -> None:
    names = random.Random(0).choices(list(KINDS), [2, 2, 1, 1, 1, 1], k=count)
    reference = {"tests": [{"input": "2", "output": "4"}], "time_limit_s": 0.25}
    with VerifierPool(WORKERS, 20.0) as pool:

        def submit(name: str):
            return pool.submit("code", f"```python\n{KINDS[name][0]}\n```", reference)

        for future in [submit("pass") for _ in range(50)]:  # until both workers are there
            future.result()
        alone = {}
        for name in KINDS:
            times = []
            for _ in range(20):
                started = time.perf_counter()
                submit(name).result()
                times.append(time.perf_counter() - started)
            alone[name] = statistics.median(times)
        started = time.perf_counter()
        futures = [submit(name) for name in names]
        verdicts = [future.result() for future in futures]
        wall = time.perf_counter() - started
    wrong = [(n, v) for n, v in zip(names, verdicts, strict=True) if v.reason != KINDS[n][1]]
    ideal = sum(alone[name] for name in names) / WORKERS
    stopped = sum(KINDS[n][1] in ("timeout", "runtime") for n in names)
    print(f"{count} verdicts, {stopped} of them time-outs and crashes: {count - len(wrong)} right")
    print(
        f"{wall:.1f} s; one at a time {ideal * WORKERS:.1f} s, over {WORKERS} workers {ideal:.1f} s: {wall / ideal:.2f}"
    )
    for name, verdict in wrong[:10]:
        print(name, verdict)


def fuzz(count: int, first: int) -> None:
    from tests.sandbox.test_hostile import HOME
    from tests.sandbox.test_reach import fuzz as programs

    HOME.mkdir()
    with Sandbox() as box:
        print(f"isolation: {isolation()}")
        for begin in range(first, first + count, 100):
            end = min(begin + 100, first + count)
            programs(box, range(begin, end))
            print(f"seeds {begin} to {end - 1}: every honest program passed, nothing was left", flush=True)
    HOME.rmdir()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", default="rate", choices=["rate", "row", "load", "fuzz"])
    parser.add_argument("--count", type=int, default=0, help="executions (rate: per round and way)")
    parser.add_argument("--first", type=int, default=0, help="fuzz: the first seed")
    given = parser.parse_args()
    if given.what == "fuzz":
        fuzz(given.count or 2000, given.first)
        sys.exit()
    {"rate": rate, "row": row, "load": load}[given.what](given.count or (100 if given.what == "rate" else 10_000))
