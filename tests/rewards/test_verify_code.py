"""The sandbox and code verdicts: what broken and cheating programs get."""

from __future__ import annotations

import psutil
import pytest

from ringrl.rewards.blocks import extract_code
from ringrl.rewards.code import same_output, verify_code
from ringrl.sandbox import values
from ringrl.sandbox.box import Job, Limits, Sandbox, SandboxError
from ringrl.sandbox.local import Local, missing

FAST = Limits(wall_s=30.0, cpu_s=1, memory_bytes=256 << 20, output_bytes=1 << 20)
DOUBLE = [{"input": "2\n", "output": "4\n"}, {"input": "5\n", "output": "10"}]


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox() as box:
        yield box


def judge(code: str, **reference) -> str:
    verdict = verify_code(f"<think>```python\nprint(4)\n```</think>\n```python\n{code}\n```\nDone.", reference)
    return verdict.reason if verdict.kind != "error" else f"error: {verdict.reason}"


def test_extract_code():
    assert extract_code("```python\na\n```\n```\nb\n```\n```cpp\nc\n```") == "a\n"
    assert extract_code("1. so\n   ```py\n   if 1:\n     x\n   ```") == "if 1:\n  x\n"
    assert extract_code("```python\nnever closed") == ""
    assert extract_code("plain") == ""
    both = "```python\na\n```\n```C++\nb\n```\n```java\nc\n```"
    assert [extract_code(both, x) for x in ("python", "cpp", "java")] == ["a\n", "b\n", "c\n"]


def test_same_output():
    assert same_output("1 \n2\n\n", "1\n2")
    assert same_output("0.3333333 x", "0.33333333 x")
    assert same_output("3.0", "3")
    assert not same_output("1000000001", "1000000000")
    assert not same_output("1 2", "1\n2")
    assert not same_output("0.334", "0.333")
    assert not same_output("", "1")
    assert same_output("1e400", "1e400")
    assert not same_output("1e9999", "1")
    assert not same_output("100000000000000000001.0", "100000000000000000000")
    assert not same_output("1e400", "2e400")
    assert not same_output("inf", "1.5")
    assert not same_output("1\0", "1")
    assert same_output("\n1", "1\n")
    assert same_output("-0.0", "0.0")
    assert same_output("1e5", "100000")
    assert not same_output("9" * 350 + ".5", "1" + "0" * 350 + ".5")
    assert same_output("9" * 10**6, "9" * 10**6)
    assert not same_output("9" * 10**6 + ".0", "9" * 10**6)


def same_value(actual, expected) -> bool:
    return values.equal(values.encode(actual), expected)


def test_same_value():
    assert same_value((1, [2.0000000001]), [1, [2.0]])
    assert same_value({1: "a"}, {"1": "a"})
    assert same_value(10**400, 10**400)
    assert not same_value(10**400, 1.0)
    assert not same_value([1], [1, 2])
    assert not same_value("1", 1)
    assert not same_value(None, [])
    assert not same_value({1, 2}, [1, 2])


def test_standard_input_mode():
    assert judge("print(2 * int(input()))", tests=DOUBLE) == "tests"
    assert judge("import sys\nprint(2 * int(sys.stdin.read()))\nexit()", tests=DOUBLE) == "tests"
    assert judge("print(4)", tests=DOUBLE) == "wrong"
    assert judge("print(2 * int(input()) // 0)", tests=DOUBLE) == "runtime"
    assert judge("print(2 * int(input())", tests=DOUBLE) == "compile"
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


ASSERTS = {
    "arguments changed in place": ("def f(x): x.sort()", "a = [2, 1]\nf(a)\nassert a == [1, 2]"),
    "a class": (
        "class Stack:\n  def __init__(self): self.x = []\n  def push(self, v): self.x.append(v)\n"
        "  def __len__(self): return len(self.x)\n  def __getitem__(self, i): return self.x[i]",
        "s = Stack()\ns.push(3)\ns.push(4)\nassert len(s) == 2 and s[1] == 4 and list(s) == [3, 4] and s.x == [3, 4]\n"
        "assert isinstance(s, Stack) and not isinstance(3, Stack)",
    ),
    "its own operators": (
        "class V:\n  def __init__(self, x): self.x = x\n  def __add__(self, o): return V(self.x + o.x)\n"
        "  def __eq__(self, o): return self.x == o.x",
        "assert V(1) + V(2) == V(3)\nassert V(1) != V(2)",
    ),
    "exceptions": (
        "class Bad(ValueError): pass\ndef f(x): raise Bad(x)\ndef g(): {}['a']",
        "for kind in (Bad, ValueError):\n  try: f('no')\n  except kind as e: assert str(e) == 'no'\n"
        "try:\n  g()\n  assert False\nexcept KeyError: pass",
    ),
    "callbacks": ("def f(g, x): return [g(v) for v in x]", "assert f(lambda v: v + 1, [1, 2]) == [2, 3]"),
    "functions returned": ("def f(n): return lambda x: x + n", "assert f(1)(2) == 3"),
    "generators": ("def f(n): yield from range(n)", "assert list(f(3)) == [0, 1, 2] and sum(f(4)) == 6"),
    "types": (
        "def f(x): return x",
        "for v in ((1, [2]), {1, 2}, {1: (2,)}, b'a', 1j, None, 2**999, float('inf'), 'ä\\n', range(3)):\n"
        "  assert f(v) == v and type(f(v)) is type(v)",
    ),
    "objects of the tests": (
        "def f(node):\n  n = 0\n  while node: node, n = node.next, n + node.value\n  return n",
        "class Node:\n  def __init__(self, value, next=None): self.value, self.next = value, next\n"
        "assert f(Node(1, Node(2))) == 3",
    ),
    "named like a builtin": ("def sum(a, b): return a * b", "assert sum(2, 3) == 6"),
    "what the program imports": ("import math\ndef f(x): return x / 3", "assert math.isclose(f(1), 1 / 3)"),
    "an import of the program": ("def f(x): return x", "from solution import f\ndef test(): assert f(1) == 1\ntest()"),
}


@pytest.mark.parametrize("name", ASSERTS)
def test_asserts_from_another_process(name):
    code, tests = ASSERTS[name]
    assert judge(code, tests=tests) == "tests"


def test_what_tests_rely_on_is_theirs():
    """A program that redefines `set` or `isclose` changes nothing of what the tests mean by them."""
    for name in ("set", "sum", "Counter", "isclose"):
        cheat = f"def f(x): return [5]\ndef {name}(*a, **k): return True"
        for test in ("set(f(1)) == set([4])", "sum(f(1)) == 4", "Counter(f(1)) == Counter([4])", "isclose(f(1)[0], 4)"):
            assert judge(cheat, tests=f"assert {test}") == "wrong", (name, test)


def test_function_call_mode():
    add = "def add(a, b):\n    print('noise')\n    return a + b"
    assert judge(add, entry_point="add", tests=[{"input": [1, 2], "output": 3}]) == "tests"
    assert judge(add, entry_point="add", tests=[{"input": "[1]\n[2]", "output": "[1, 2]"}]) == "tests"
    assert judge(add, entry_point="add", tests=[{"input": [1, 2], "output": 4}]) == "wrong"
    method = "class Solution:\n    def permutations(self, x: List[int]): return (x, {1: Counter(x)[1]})"
    tests = [{"input": "[1, 1]", "output": '[[1, 1], {"1": 2}]'}]
    assert judge(method, entry_point="permutations", tests=tests) == "tests"
    assert judge(method, entry_point="Solution.permutations", tests=tests) == "tests"
    assert judge(add, entry_point="missing", tests=tests) == "runtime"
    assert judge("def f(x): return object()", entry_point="f", tests=tests) == "runtime"
    assert judge("def f(x): return {10**5000: 1}", entry_point="f", tests=[{"input": [1], "output": {}}]) == "wrong"
    assert judge("import os\ndef f(x): os.write(3, b'{'); os._exit(0)", entry_point="f", tests=tests) == "runtime"


def test_checker():
    checker = "def check(input, output, expected):\n    return sorted(output.split()) == sorted(expected.split())"
    tests = [{"input": "", "output": "1 2"}]
    assert judge("print(2, 1)", tests=tests, checker=checker) == "tests"
    assert judge("print(2, 2)", tests=tests, checker=checker) == "wrong"
    broken = judge("print(2)", tests=tests, checker="def check(**k): return 1 / 0")
    assert broken.startswith("error: unusable tests: the checker failed")
    strict = "def check(input, output, expected):\n    return sum(map(int, output.split())) == 3"
    for garbage in ("two", "1 2.0", "", "9" * 5000, "\\x00", "1,2"):
        assert judge(f"print('{garbage}')", tests=tests, checker=strict) == "wrong", garbage


CPP = "#include <iostream>\nint main() { long a; std::cin >> a; std::cout << 2 * a; }\n"
JAVA = """
import java.util.*;
class Other { static int twice(int a) { return 2 * a; } }
public class Answer { public static void main(String[] a) {
    System.out.println(Other.twice(new Scanner(System.in).nextInt())); } }
"""


@pytest.mark.parametrize(("language", "code"), [("cpp", CPP), ("java", JAVA)])
def test_compiled_languages(language, code):
    if missing(language):
        pytest.skip(f"{missing(language)[0]} is not installed")
    reference = {"tests": DOUBLE, "language": language}
    verdict = verify_code(f"```{language}\n{code}```", reference)
    assert (verdict.reason, verdict.tests) == ("tests", ("ok", "ok"))
    assert verify_code(f"```{language}\n{code.replace('2 * a', '3 * a')}```", reference).reason == "wrong"
    assert verify_code(f"```{language}\n{code.replace(';', '')}```", reference).reason == "compile"
    assert verify_code(f"```python\n{code}```", reference).reason == "no_code"


@pytest.mark.skipif(bool(missing("cpp")), reason="g++ is not installed")
def test_a_compiler_that_does_not_work_is_our_error(monkeypatch):
    monkeypatch.setattr("ringrl.sandbox.local.BUILD", Limits(output_bytes=1))
    local = Local()
    monkeypatch.setattr("ringrl.rewards.code._local", lambda: local)
    verdict = verify_code(f"```cpp\n{CPP}```", {"tests": DOUBLE, "language": "cpp"})
    local.close()
    assert verdict.kind == "error"
    assert verdict.reason.startswith("sandbox: cpp does not compile here: ")


def test_no_compiler_is_our_error(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    verdict = verify_code("```java\nclass A {}\n```", {"tests": DOUBLE, "language": "java"})
    assert verdict.kind == "error"
    assert "java needs javac and java, which this machine does not have" in verdict.reason


def test_each_test_has_its_outcome():
    code = "```python\nx = int(input())\nprint(2 * x if x < 5 else 1 // 0)\n```"
    tests = [DOUBLE[0], DOUBLE[1], DOUBLE[0]]
    assert verify_code(code, {"tests": tests}).tests == ("ok", "runtime")
    verdict = verify_code(code, {"tests": tests}, every=True)
    assert (verdict.kind, verdict.reason, verdict.tests) == ("fail", "runtime", ("ok", "runtime", "ok"))


def test_unusable_tests_are_our_error():
    cases = [{}, {"tests": []}, {"tests": "assert ("}, {"tests": [{"input": "1"}]}, {"tests": [""]}]
    cases += [{"tests": DOUBLE, "language": "cobol"}, {"tests": "assert 1", "language": "cpp"}]
    cases += [{"tests": DOUBLE, "checker": "x = 1"}, {"tests": [{"input": 1, "output": 1}], "entry_point": "f"}]
    for reference in cases:
        assert judge("print(1)", **reference).startswith("error: unusable tests"), reference


def test_the_total_time_is_bounded():
    text = "```python\nimport time\ntime.sleep(0.4)\nprint(input())\n```"
    verdict = verify_code(text, {"tests": [{"input": "1", "output": "1"}] * 50}, total_s=1.0)
    assert verdict.reason == "timeout"
    assert verdict.tests.count("ok") <= 2


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        ("import os; os.kill(os.getpid(), 11)", "runtime"),
        ("a\0b", "compile"),
        ("import threading\nthreading.Thread(target=print, args=(1,)).start()", "ok"),
        ("from dataclasses import dataclass\n@dataclass\nclass A:\n    x: 'int'", "ok"),
        ("open('x', 'w').write('left behind')", "ok"),
        ("import os; assert not os.environ and os.listdir('.') == ['x'][1:]", "ok"),
    ],
)
def test_outcomes(sandbox, code, outcome):
    assert sandbox.run(Job("script", code), FAST).outcome == outcome


def test_odd_input_and_output(sandbox):
    huge = "x" * (64 << 20)
    assert sandbox.run(Job("script", "print(len(input()))", huge), FAST).stdout == f"{64 << 20}\n"
    assert sandbox.run(Job("script", "print('unread')", huge), FAST).stdout == "unread\n"
    seen = sandbox.run(Job("script", "import sys; sys.stdout.buffer.write(b'\\xff\\x00a')"), FAST)
    assert (seen.outcome, seen.stdout) == ("ok", "\ufffd\0a")


def test_a_lost_host_is_an_error_and_comes_back(sandbox):
    sandbox.begin(Job("script", "import time; time.sleep(60)"), Limits())
    psutil.Process(sandbox._process.pid).kill()
    with pytest.raises(SandboxError):
        sandbox.end()
    assert sandbox.run(Job("script", "print(1)"), FAST).stdout == "1\n"
