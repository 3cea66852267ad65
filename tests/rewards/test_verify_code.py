"""The sandbox and code verdicts: what broken and cheating programs get."""

from __future__ import annotations

import time

import psutil
import pytest

from ringrl.rewards.code import extract_code, same_output, verify_code
from ringrl.rewards.sandbox import Limits, Sandbox, SandboxError

FAST = Limits(wall_s=1.5, cpu_s=1, memory_bytes=256 << 20, output_bytes=1 << 20)
DOUBLE = [{"input": "2\n", "output": "4\n"}, {"input": "5\n", "output": "10"}]


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox() as box:
        yield box


def judge(code: str, **reference) -> str:
    verdict = verify_code(f"<think>```python\nprint(4)\n```</think>\n```python\n{code}\n```\nDone.", reference)
    return verdict.reason if verdict.kind != "error" else f"error: {verdict.reason}"


def test_extract_code():
    assert extract_code("```python\na\n```\n```\nb\n```\n```cpp\nc\n```") == "b\n"
    assert extract_code("1. so\n   ```py\n   if 1:\n     x\n   ```") == "if 1:\n  x\n"
    assert extract_code("```python\nnever closed") == ""
    assert extract_code("plain") == ""


def test_same_output():
    assert same_output("1 \n2\n\n", "1\n2")
    assert same_output("0.3333333 x", "0.33333333 x")
    assert same_output("3.0", "3")
    assert not same_output("1000000001", "1000000000")
    assert not same_output("1 2", "1\n2")
    assert not same_output("0.334", "0.333")
    assert not same_output("", "1")


def test_standard_input_mode():
    assert judge("print(2 * int(input()))", tests=DOUBLE) == "tests"
    assert judge("import sys\nprint(2 * int(sys.stdin.read()))\nexit()", tests=DOUBLE) == "tests"
    assert judge("print(4)", tests=DOUBLE) == "wrong"
    assert judge("print(2 * int(input()) // 0)", tests=DOUBLE) == "runtime"
    assert judge("print(2 * int(input())", tests=DOUBLE) == "syntax"
    assert verify_code("no code here", {"tests": DOUBLE}).reason == "no_code"
    assert verify_code("<think>```\nprint(4)\n```", {"tests": DOUBLE}).reason == "no_code"


def test_assert_mode():
    good, bad = "def f(x):\n    return x + 1", "def f(x):\n    return x"
    assert judge(good, tests=["assert f(1) == 2", "assert f(2) == 3"]) == "tests"
    assert judge(bad, tests=["assert f(1) == 1", "assert f(2) == 3"]) == "wrong"
    check = "def check(candidate):\n    assert candidate(1) == 2\n"
    assert judge(good, tests=check, entry_point="f") == "tests"
    assert judge(bad, tests=check, entry_point="f") == "wrong"
    assert judge(good, tests=check, entry_point="g") == "runtime"
    assert judge("if __name__ == '__main__':\n    input()\n" + good, tests="assert f(1) == 2") == "tests"


@pytest.mark.parametrize(
    "cheat",
    [
        "exit(0)",
        "import os; os._exit(0)",
        "print('ok'); raise SystemExit",
        "import os; os.write(3, b'ok'); exit(0)",
    ],
)
def test_leaving_early_passes_no_assert(cheat):
    assert judge(cheat, tests="assert f(1) == 2") == "runtime"
    body = cheat.replace("; ", "\n    ")
    assert judge(f"def f(x):\n    {body}", tests="assert f(1) == 2") == "runtime"


def test_unusable_tests_are_our_error():
    cases = [{}, {"tests": []}, {"tests": "assert ("}, {"tests": [{"input": "1"}]}, {"tests": [""]}]
    for reference in cases:
        assert judge("print(1)", **reference).startswith("error: unusable tests"), reference


def test_the_total_time_is_bounded():
    started = time.monotonic()
    text = "```python\nimport time\ntime.sleep(0.4)\nprint(input())\n```"
    verdict = verify_code(text, {"tests": [{"input": "1", "output": "1"}] * 50}, total_s=1.0)
    assert verdict.reason == "timeout"
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        ("while True: pass", "timeout"),
        ("import time; time.sleep(60)", "timeout"),
        ("x = bytearray(1 << 40)", "memory"),
        ("x = []\nwhile True: x.append(bytearray(1 << 24))", "memory"),
        ("while True: print('x' * 1000)", "output"),
        ("import os\nwhile True: os.write(2, b'x' * 1000)", "output"),
        ("import os; os.kill(os.getpid(), 11)", "runtime"),
        ("a\0b", "syntax"),
        ("x = '\ud800'", "syntax"),
        ("import threading\nthreading.Thread(target=print, args=(1,)).start()", "ok"),
        ("from dataclasses import dataclass\n@dataclass\nclass A:\n    x: 'int'", "ok"),
        ("open('x', 'w').write('left behind')", "ok"),
        ("import os; assert not os.environ and os.listdir('.') == ['x'][1:]", "ok"),
    ],
)
def test_outcomes(sandbox, code, outcome):
    assert sandbox.run(code, limits=FAST).outcome == outcome


FORKS = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.write(1, b"%d" % os.getpid())
    time.sleep(600)
time.sleep(0.3)
"""


def test_nothing_outlives_a_program(sandbox):
    seen = sandbox.run(FORKS, limits=FAST)
    assert seen.outcome == "ok"
    assert not psutil.pid_exists(int(seen.stdout))


def test_a_lost_host_is_an_error_and_comes_back(sandbox):
    with pytest.raises(SandboxError):
        sandbox.run("import os; os.kill(os.getppid(), 9)", limits=FAST)
    assert sandbox.run("print(1)").stdout == "1\n"
    kill = "```python\nimport os; os.kill(os.getppid(), 9)\n```"
    assert verify_code(kill, {"tests": DOUBLE}).reason.startswith("sandbox: ")
