"""LiveCodeBench's tests and rules, and HumanEval's and MBPP's: canonical solutions pass, empty bodies fail."""

from __future__ import annotations

import base64
import json
import pickle
import zlib
from pathlib import Path
from typing import Any

import pytest

from ringrl.config.commands import EvalConfig
from ringrl.evals.benchmarks import read_benchmark
from ringrl.rewards import livecodebench
from ringrl.rewards.code import verify_code
from ringrl.rewards.livecodebench import same_decimals, unpacked


def packed(cases: list[dict[str, str]]) -> str:
    """As the files have them."""
    return base64.b64encode(zlib.compress(pickle.dumps(json.dumps(cases)))).decode()


def problem(public: list[tuple[str, str]], private: list[tuple[str, str]], name: str = "") -> dict[str, Any]:
    kind = "functional" if name else "stdin"
    both = [[{"input": i, "output": o, "testtype": kind} for i, o in cases] for cases in (public, private)]
    tests = {"public_test_cases": json.dumps(both[0]), "private_test_cases": packed(both[1]), "func_name": name or None}
    return {"tests": tests}


def judge(reference: dict[str, Any], code: str, total_s: float = 30.0) -> str:
    verdict = verify_code(f"<think>no</think>\n```python\n{code}\n```", unpacked(reference), total_s=total_s)
    return verdict.kind if verdict.kind != "fail" else verdict.reason


SUM = problem([("1 2\n", "3\n")], [("5 6\n", "11\n")])
HALF = problem([("1\n", "0.5\n")], [("3\n", "1.5\n")])
LINES = problem([("2\n", "YES\n1 2\n")], [("3\n", "YES\n1 2 3\n")])
READ = "a, b = map(int, input().split())\n"
MAIN = "def main():\n    a, b = map(int, input().split())\n    print(a + b)\nif __name__ == '__main__':\n    main()"
TWICE = problem([("[1, 2]\n3", "[3, 6]")], [("[]\n1", "[]"), ("[0]\n5", "[0]")], "scale")
RATIO = problem([("1\n3", "0.3333333333333333")], [("1\n2", "0.5")], "ratio")
WORD = problem([('"ab"\n{"k": [1]}', '"ab1"')], [('""\n{"k": [2]}', '"2"')], "join")

# (tests, program, what the public checker's rules say of it)
VERDICTS: dict[str, tuple[dict[str, Any], str, str]] = {
    "right": (SUM, f"{READ}print(a + b)", "pass"),
    "wrong on the private test": (SUM, f"{READ}print(3)", "wrong"),
    "wrong on the public test": (SUM, f"{READ}print(11)", "wrong"),
    "white space around lines": (SUM, f"{READ}print(' ', a + b, '  ')\nprint()\nprint()", "pass"),
    "an empty line between": (LINES, "n = int(input())\nprint('YES\\n')\nprint(*range(1, n + 1))", "wrong"),
    "two spaces between numbers": (LINES, "n = int(input())\nprint('YES')\nprint(*range(1, n + 1), sep='  ')", "pass"),
    "two spaces between words": (problem([("", "a b")], []), "print('a  b')", "wrong"),
    "another case": (LINES, "n = int(input())\nprint('yes')\nprint(*range(1, n + 1))", "wrong"),
    "several answers, one is expected": (LINES, "n = int(input())\nprint('YES')\nprint(*range(n, 0, -1))", "wrong"),
    "too many lines": (SUM, f"{READ}print(a + b)\nprint(0)", "wrong"),
    "nothing": (SUM, "pass", "wrong"),
    "equal decimals": (HALF, "print(f'{int(input()) / 2:.6f}')", "pass"),
    "an exponent": (HALF, "print(f'{int(input()) / 2:e}')", "pass"),
    "a decimal for an integer": (SUM, f"{READ}print(float(a + b))", "pass"),
    "off in the ninth decimal": (HALF, "print(int(input()) / 2 + 1e-9)", "wrong"),
    "a float for a large integer": (problem([("", str(10**17 + 1))], []), "print(1e17)", "wrong"),
    "not a number": (problem([("", "nan")], []), "print('nan')", "pass"),
    "an exception": (SUM, f"{READ}print(a + b)\nraise ValueError", "runtime"),
    "exit": (SUM, f"{READ}print(a + b)\nimport sys\nsys.exit()", "pass"),
    "input that is not there": (SUM, f"{READ}print(a + b)\ninput()", "runtime"),
    "a syntax error": (SUM, "print(", "compile"),
    "a main guard": (SUM, MAIN, "pass"),
    "no import": (SUM, f"{READ}print(int(sqrt((a + b) ** 2)))", "pass"),
    "imports of its own": (SUM, "import sys, math\na, b = map(int, sys.stdin.read().split())\nprint(a + b)", "pass"),
    "an endless loop": (SUM, "while True: pass", "timeout"),
    "a method": (TWICE, "class Solution:\n  def scale(s, xs: List[int], k):\n    return [k * x for x in xs]", "pass"),
    "a function": (TWICE, "def scale(xs, k):\n    return [k * x for x in xs]", "pass"),
    "a tuple for a list": (TWICE, "def scale(xs, k):\n    return tuple(k * x for x in xs)", "pass"),
    "a wrong result": (TWICE, "def scale(xs, k):\n    return xs", "wrong"),
    "None": (TWICE, "def scale(xs, k):\n    pass", "wrong"),
    "printed, not returned": (TWICE, "def scale(xs, k):\n    print([k * x for x in xs])", "wrong"),
    "another name": (TWICE, "def other(xs, k):\n    return [k * x for x in xs]", "runtime"),
    "a call that fails": (TWICE, "def scale(xs, k):\n    return [k * x for x in xs] if xs else 1 // 0", "runtime"),
    "a call that never ends": (TWICE, "def scale(xs, k):\n    while True: pass", "timeout"),
    "a float": (RATIO, "def ratio(a, b):\n    return a / b", "pass"),
    "a float off in the last place": (RATIO, "def ratio(a, b):\n    return a / b + 1e-16", "wrong"),
    "texts and dictionaries": (WORD, "def join(a, d):\n    return a + str(d['k'][0])", "pass"),
    # stricter than the public checker, which looks at the output alone
    "exit with a status": (SUM, f"{READ}print(a + b)\nexit(3)", "runtime"),
}  # fmt: skip


@pytest.mark.parametrize("what", VERDICTS)
def test_verdicts_of_livecodebench(what: str):
    reference, code, expected = VERDICTS[what]
    assert judge(reference, code, 1.5 if expected == "timeout" else 30.0) == expected


def test_private_tests_may_be_plain_json():
    reference = problem([("1", "1")], [])
    reference["tests"]["private_test_cases"] = '[{"input": "2", "output": "3"}]'
    assert judge(reference, "print(input())") == "wrong"
    assert unpacked(reference)["tests"] == [{"input": "1", "output": "1"}, {"input": "2", "output": "3"}]


def test_what_is_no_pack_of_one_text_is_refused_and_runs_nothing(tmp_path: Path):
    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    def wrap(value: Any) -> str:
        return base64.b64encode(zlib.compress(pickle.dumps(value))).decode()

    bad = [wrap(Evil()), wrap([1]), wrap("no json"), wrap(json.dumps({"a": 1})), "no base64!", "AAAA", wrap("[{}]")]
    for text in bad:
        with pytest.raises(ValueError):  # noqa: PT011 (JSON's own is one too)
            unpacked({"tests": {"public_test_cases": "[]", "private_test_cases": text}})
    assert not (tmp_path / "ran").exists()
    with pytest.raises(ValueError, match="no test cases"):
        unpacked({"tests": {"public_test_cases": "[]", "private_test_cases": "[]"}})


@pytest.mark.parametrize(
    "pickled",
    [
        b"\x82\x01.",  # a class of the registry of extensions
        b"Pabc\n.",  # an object by a name of the reader's
        b"(S'/'\nios\nmkdir\n.",
        b"cos\nmkdir\n(S'/'\ntR.",
        b"\x8c\x01ar\xff\xff\xff\x7f.",  # a place for two thousand million notes: allowed, and not made
        b"\x96\xff\xff\xff\xff\xff\xff\xff\x7f.",  # an array as long as memory
        b"\x8d\xff\xff\xff\xff\xff\xff\xff\x7fa.",  # a text as long
        b"\x8a\xff" + b"\xff" * 255 + b".",
        b"0.",
        b".",
        b"",
        b"\x8c\x01a\x8c\x01b.",
        b"\x8c\x01a]\x94.",
        b"\x8c\x02[]",  # without its end
        b"\x8c\x01\xff.",
    ],
)  # fmt: skip
@pytest.mark.parametrize("cut", [False, True])
def test_a_pickle_of_anything_but_one_string_is_one_line(pickled: bytes, cut: bool):
    zipped = zlib.compress(pickled)
    text = base64.b64encode(zipped[:-1] if cut else zipped).decode()
    with pytest.raises(ValueError, match=r"^[^\n]*$"):
        unpacked({"tests": {"public_test_cases": "[]", "private_test_cases": text}})


def test_packed_tests_have_a_limit_of_size(monkeypatch: pytest.MonkeyPatch):
    reference = problem([("1", "1")], [("2", "3" * 100_000)])
    assert len(unpacked(reference)["tests"]) == 2
    monkeypatch.setattr(livecodebench, "MAX_BYTES", 50_000)
    with pytest.raises(ValueError, match="cut short, or more than 50000 bytes"):
        unpacked(reference)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_packed_tests_of_any_protocol_of_pickle(protocol: int):
    text = json.dumps([{"input": "naïve \\ \n 日本", "output": "1" * 300}], ensure_ascii=False)
    both = {"public_test_cases": "[]"}
    both["private_test_cases"] = base64.b64encode(zlib.compress(pickle.dumps(text, protocol))).decode()
    assert unpacked({"tests": both})["tests"] == json.loads(text)


def test_same_decimals():
    assert same_decimals("1.0 2e0\n", " 1 2 ")
    assert same_decimals("", "\n")
    assert not same_decimals("1 2", "1")
    assert not same_decimals("1\n2", "1 2")
    assert not same_decimals("0.1", "0.10000001")


# in HumanEval's and MBPP's columns; the problems are our own
HUMANEVAL = [
    ('from typing import List\n\n\ndef largest(xs: List[int]) -> int:\n'
     '    """ The largest.\n    >>> largest([1])\n    1\n    """\n',
     "    best = xs[0]\n    for x in xs:\n        best = max(best, x)\n    return best\n",
     "\n\nMETADATA = {'author': 'x'}\n\n\ndef check(candidate):\n    assert candidate([1, 3, 2]) == 3\n"
     "    assert candidate([-1]) == -1\n",
     "largest"),
    ('import math\n\ndef root(x: float) -> float:\n    """ Square root. """\n',
     "    return math.sqrt(x)\n",
     "def check(candidate):\n    assert abs(candidate(2.0) - 1.41421356) < 1e-6\n",
     "root"),
    ('def helper(x):\n    return x + 1\n\ndef twice(x):\n    """ helper, twice. """\n',
     "    return helper(helper(x))\n",
     "def check(candidate):\n    assert all(candidate(i) == helper(helper(i)) for i in range(5))\n",
     "twice"),
    ('def pairs(d: dict):\n    """ Sorted items. """\n',
     "    return sorted(d.items())\n",
     "def check(candidate):\n    assert candidate({'b': 1, 'a': 2}) == [('a', 2), ('b', 1)]\n"
     "    assert candidate({}) == []\n",
     "pairs"),
]  # fmt: skip


@pytest.fixture(scope="module")
def humaneval(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    file = tmp_path_factory.mktemp("humaneval") / "humaneval.jsonl"
    keys = ("prompt", "canonical_solution", "test", "entry_point")
    rows = [dict(zip(keys, r, strict=True)) | {"task_id": f"HumanEval/{i}"} for i, r in enumerate(HUMANEVAL)]
    file.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return read_problems("humaneval", file)


def read_problems(name: str, file: Path) -> list[dict[str, Any]]:
    cfg = EvalConfig.model_validate({"run": "r", "model": "m", "benchmarks": [{"name": name, "data": str(file)}]})
    return read_benchmark(cfg.benchmarks[0], cfg)


@pytest.mark.parametrize("i", range(len(HUMANEVAL)))
def test_canonical_solutions_of_humaneval_pass_and_empty_bodies_fail(humaneval: list[dict[str, Any]], i: int):
    prompt, solution, *_ = HUMANEVAL[i]
    assert judge(humaneval[i], prompt + solution) == "pass"
    assert judge(humaneval[i], prompt + "    pass\n") in ("wrong", "runtime")


def test_mbpp(tmp_path: Path):
    row = {"task_id": 2, "text": "Write area.", "code": "", "test_setup_code": "import math",
           "test_list": ["assert area(2) == 4", "assert area(math.floor(3.5)) == 9"]}  # fmt: skip
    (tmp_path / "mbpp.jsonl").write_text(json.dumps(row) + "\n")
    (one,) = read_problems("mbpp", tmp_path / "mbpp.jsonl")
    assert judge(one, "def area(x):\n    return x * x") == "pass"
    assert judge(one, "def area(x):\n    return 4") == "wrong"
    assert judge(one, "def area(x):\n    pass") == "wrong"
