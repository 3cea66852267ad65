"""Tests of code in the forms of public data sets: each passes a right program, fails a wrong one, or is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ringrl.rewards.blocks import extract_code
from ringrl.rewards.code import verify_code
from ringrl.rewards.code_tests import check_tests, read_tests

GOOD = "def f(x):\n    return x + 1"
WRONG = "def f(x):\n    return 0"
TWO = [{"input": [1], "output": 2}, {"input": [2], "output": 3}]


def judge(code: str, tests: Any, **reference: str) -> str:
    verdict = verify_code(f"```python\n{code}\n```", {"tests": tests, **reference})
    return verdict.kind if verdict.kind != "error" else f"error: {verdict.reason}"


FORMS: dict[str, Any] = {
    "pytest function": "from solution import f\n\ndef test_a():\n    assert f(1) == 2\n\n"
    "def test_b():\n    assert f(3) == 4",
    "pytest class": "class TestIt:\n    def setup_method(self):\n        self.x = 4\n    def test_it(self):\n"
    "        assert f(self.x) == 5",
    "pytest raises": "import pytest\nwith pytest.raises(TypeError):\n    f('a')",
    "unittest": "import unittest\n\nclass T(unittest.TestCase):\n    def setUp(self):\n        self.x = 1\n"
    "    def test_one(self):\n        self.assertEqual(f(self.x), 2)\n        with self.assertRaises(TypeError):\n"
    "            f('a')\n\nif __name__ == '__main__':\n    unittest.main()",
    "check without an entry point": "METADATA = {}\n\ndef check(candidate):\n    assert candidate(5) == 6",
    "main guard": "def main():\n    assert f(7) == 8\n\nif __name__ == '__main__':\n    main()",
    "doctest": ">>> f(1)\n2\n>>> x = f(2)\n>>> x\n3\n",
    "doctest in a docstring": '"""\n>>> [f(1),\n...  f(2)]\n[2, 3]\n"""',
    "a branch that only fails": "if f(1) != 2:\n    raise AssertionError('no')",
    "an exception that is wanted": "try:\n    f('a')\n    assert False\nexcept TypeError:\n    pass",
    "NumPy": "import numpy as np\nnp.testing.assert_allclose(f(1.0), 2.0)\nassert np.isclose(f(2), 3)",
    "HumanEval's assert of True": "assert f(1) == 2\nassert True, 'This prints if this assert fails'",
    "texts that share a name": ["def test_a():\n    assert f(1) == 2", "def test_a():\n    assert f(2) == 3"],
    "JSON of texts": json.dumps(["assert f(1) == 2", "assert f(4) == 5"]),
    "JSON in JSON in JSON": json.dumps([json.dumps(["assert f(1) == 2"])]),
    "columns": {"fn_name": "f", "inputs": [[1], [2]], "outputs": [2, 3]},
    "columns as APPS wraps them": json.dumps({"fn_name": "f", "inputs": [[1], [2]], "outputs": [[2], [3]]}),
    "a function in the metadata": [
        {"input": "1", "output": "2", "testtype": "functional", "metadata": {"func_name": "f"}}
    ],
    "rows that are JSON": [json.dumps({"input": [1], "output": 2, "fn_name": "f"})],
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_forms(form: str):
    check_tests({"tests": FORMS[form]})
    assert judge(GOOD, FORMS[form]) == "pass"
    assert judge(WRONG, FORMS[form]) == "fail"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("code", ["print('nonsense')", "f = 2", "class f(Exception): pass", "import sys; sys.exit(0)"])
def test_no_form_is_passed_or_made_an_error_by_what_is_no_function(form: str, code: str):
    assert judge(code, FORMS[form]) == "fail"


def test_pytest_runs_fixtures_and_parameters():
    tests = (
        "import pytest\n\n@pytest.fixture\ndef two():\n    return 2\n\n"
        "@pytest.mark.parametrize('a,b', [(1, 3), (2, {})])\ndef test_f(a, b, two):\n    assert f(a) + two - 1 == b"
    )
    assert judge(GOOD, tests.format(4)) == "pass"
    assert judge(GOOD, tests.format(5)) == "fail"


def test_programs_of_standard_input_in_columns():
    tests = {"inputs": ["2\n", ["3", "4"]], "outputs": ["2\n", ["3", "4"]]}
    assert judge("import sys\nprint(sys.stdin.read())", json.dumps(tests)) == "pass"
    assert judge("print(input())", tests) == "fail"
    assert [p.given for p in read_tests({"tests": tests}).pairs] == ["2\n", "3\n4"]


NOTHING = {
    "a comparison": "f(1) == 2",
    "one among asserts": ["assert f(1) == 2", "f(2) == 3"],
    "a tuple": "assert (f(1) == 2, 'message')",
    "a call": "f(1)",
    "a constant": "assert True\nassert 'f(1) == 2'",
    "a list": "assert [f(1) == 2]",
    "a docstring": '"""f(1) is 2"""',
    "an example without a result": '"""\n>>> f(1)\n"""',
    "a number": "2",
    "a module that nobody has": "import a_module_nobody_has\nassert f(1) == 2",
    "output that stays in the sandbox": "def test_f(capsys):\n    f(1)\n    assert capsys.readouterr().out == ''",
    "a set of other keys": {"ground_truth": ["assert f(1) == 2"]},
    "columns of two lengths": {"inputs": ["1"], "outputs": []},
    "two names": [{"input": [1], "output": 2, "fn_name": "f"}, {"input": [1], "output": 2, "fn_name": "g"}],
}


@pytest.mark.parametrize("what", NOTHING)
def test_what_can_assert_nothing_is_refused_before_it_runs(what: str):
    with pytest.raises(ValueError):  # noqa: PT011 (the reasons differ)
        check_tests({"tests": NOTHING[what]})
    assert judge(GOOD, NOTHING[what]).startswith("error: unusable tests")


@pytest.mark.parametrize(
    "tests",
    [
        "for a, b in []:\n    assert f(a) == b",
        "def helper():\n    assert f(1) == 2",
        "for a, b in zip([1, 2], []):\n    assert f(a) == b",
        "import unittest\nclass T(unittest.TestCase):\n    @unittest.skip('no')\n    def test_it(self):\n"
        "        self.assertEqual(f(1), 2)",
        "try:\n    f('a')\n    assert False\nexcept Exception:\n    pass",
        "assert 1 + 1 == 2",
        "try:\n    assert f(1) == 2\nexcept AssertionError:\n    print('no')",
        "try:\n    assert f(1) == 2\nexcept:\n    ok = False",
        "from contextlib import suppress\nwith suppress(Exception):\n    assert f(1) == 2",
        "def check(x):\n    assert f(x) == 2\nf(1)\nif False:\n    check(1)",
    ],
)
def test_a_test_that_ran_no_assertion_is_an_error(tests: str):
    assert judge(GOOD, tests).startswith("error: unusable tests")


@pytest.mark.parametrize(
    ("tests", "kind"),
    [
        ("x = 1 / 0\nassert f(1) == 2", "error"),
        ("assert f(1) == 2\nassert f(1 / 0) == 2", "error"),
        ("assert f(int('a')) == 2", "error"),
        ("def helper():\n    return {}['a']\nassert f(helper()) == 2", "error"),
        ("assert same_tree(f(1), 2)", "error"),
        ("assert f(1) == EXPECTED", "error"),
        ("assert g(1) == 2", "fail"),
        ("from solution import g\nassert g(1) == 2", "fail"),
        ("import solution\nassert solution.g(1) == 2", "fail"),
        ("assert f(1)[0] == 2", "fail"),
        ("r = f(1)\nassert len(r) == 2", "fail"),
        ("assert f('a') == 2", "fail"),
        ("assert f(helper(3)) == 2\nassert helper(f(1))", "error"),
        ("assert unf(f(1)) == 1", "fail"),
        ("try:\n    assert f(1) == 2\nexcept AssertionError:\n    raise SystemExit(1)", "pass"),
        ("assert f(1) == 2\ndef later():\n    return {}['a']\nlater()", "error"),
        ("import statistics_of_mine\nassert f(1) == 2", "error"),
        ("assert f(1).real.nothing == 2", "fail"),
    ],
)
def test_who_is_to_blame(tests: str, kind: str):
    assert judge(GOOD, tests).partition(":")[0] == kind


# programs with which the test's own statements fail, or run no assertion: it is the program that is wrong
HIDING = {
    "in a helper": ("def f(x): pass", "def run(x):\n    return f(x)\nassert run(1)[0] == 2"),
    "in a container": (
        "def f(x): pass",
        "found = []\nfound.append(f(1))\ndef get():\n    return found[0]\nassert get()[0] == 2",
    ),
    "in an attribute": ("def f(x): pass", "class T: pass\nT.x = f(1)\nassert T.x[0] == 2"),
    "in a module's variable": ("def f(x): pass", "R = f(1)\ndef test_it():\n    assert R[0] == 2"),
    "in a fixture": (
        "def f(x): pass",
        "import pytest\n@pytest.fixture(scope='module')\ndef r(): return f(1)\n"
        "def test_a(r): pass\ndef test_b(r): assert r[0] == 2",
    ),
    "in setUpClass": (
        "def f(x): pass",
        "import unittest\nclass T(unittest.TestCase):\n    @classmethod\n    def setUpClass(cls): cls.r = f(1)\n"
        "    def test_a(self): self.assertEqual(self.r + 1, 3)",
    ),
    "a number that signals": (
        "from decimal import Decimal\ndef f(x): return Decimal('sNaN')",
        "def run(x):\n    r = f(x)\n    return sorted([r])\nassert run(1) == [2]",
    ),
    "no function, called by another": ("f = 3", "def run(g, x):\n    return g(x)\nassert run(f, 1) == 2"),
    "no function, in functools": ("g = 3", "from functools import partial\ng = partial(f, 1)\nassert g() == 2"),
    "no function, of a module": ("f = 3", "import solution\nassert solution.f(1) == 2"),
    "an exception": ("class f(Exception): pass", "r = f(1)\nassert r + 1 == 3"),
    "a module": ("import math as f", "assert f(1) == 2"),
    "no results": ("def f(x): return []", "for x in f(3):\n    assert x > 0"),
    "fewer results": ("def f(x): return []", "for x, y in zip(f(3), [1, 2]):\n    assert x == y"),
    "a result that skips": ("def f(x): pass", "r = f(1)\nif r is not None:\n    assert r == 2"),
    "an exception that skips": (
        "def f(x): 1 / 0",
        "try:\n    r = f(1)\nexcept Exception:\n    r = None\nif r: assert r == 2",
    ),
    "what the judge has, too": ("pass", "assert gcd(4, 6) == 2"),
}  # fmt: skip


@pytest.mark.parametrize("how", HIDING)
def test_a_program_cannot_hide_in_an_error(how: str):
    code, tests = HIDING[how]
    assert judge(code, tests) == "fail"


def test_an_entry_point_is_the_programs():
    tests = "def check(candidate):\n    assert candidate(4, 6) == 2"
    good = "def gcd(a, b): return a if not b else gcd(b, a % b)"
    assert judge(good, tests, entry_point="gcd") == "pass"
    method = "class Solution:\n  def gcd(self, a, b): return math.gcd(a, b)"
    for entry in ("gcd", "Solution.gcd", "Solution().gcd"):
        assert judge(method, tests, entry_point=entry) == "pass"
    for code in ("pass", "gcd = 2", "class Solution: pass", "from math import lcm as gcd"):
        assert judge(code, tests, entry_point="gcd") == "fail", code


VALUES = {
    "a named tuple": ("from collections import namedtuple\nP = namedtuple('P', 'x y')\ndef f(x): return P(x, 2)",
                      "assert f(1) == (1, 2) and f(1).y == 2 and f(1)._asdict() == {'x': 1, 'y': 2}"),
    "a counter": ("def f(x): return Counter(x)", "assert f('aab').most_common(1) == [('a', 2)] and f('')['z'] == 0"),
    "a coroutine": ("async def f(x): return x + 1", "import asyncio\nassert asyncio.run(f(1)) == 2"),
    "an async test": ("async def f(x): return x + 1", "async def test_it():\n    assert await f(1) == 2"),
    "a context": ("class C:\n  def __enter__(s): return 5\n  def __exit__(s, *a): return True",
                  "with C() as c:\n    assert c == 5\n    raise ValueError"),
    "a derived class": ("class A:\n  def __init__(s, n): s.n = n\n  def hi(s): return s.n",
                        "class B(A):\n    def two(self): return self.hi() + self.n\nassert B(2).two() == 4"),
    "nodes that the judge supplies": ("class Solution:\n  def make(s, n): return TreeNode(n, None, TreeNode(n + 1))",
                                      "r = Solution().make(1)\nassert r.val == 1 and r.right.val == 2 and not r.left"),
    "a name of the standard library": ("def add(a, b): return [*a, *b]\ndef f(x): return x",
                                       "x = [1]\nassert add(x, [2]) == [1, 2]\nassert f(1) == 1"),
}  # fmt: skip


@pytest.mark.parametrize("what", VALUES)
def test_values_of_the_program(what: str):
    code, tests = VALUES[what]
    assert judge(code, tests) == "pass"
    assert judge(code, f"{tests}\nassert not asserted_at_last") != "pass"


def test_numbers_as_they_are_told():
    huge = "1" + "0" * 5000
    assert judge("def f(x): return 10 ** 5000", [{"input": "1", "output": huge}], entry_point="f") == "pass"
    assert judge("def f(x): return 10 ** 5000 + 1", [{"input": "1", "output": huge}], entry_point="f") == "fail"
    assert judge("def f(x): return {(1, 2): 3.0000001}", [{"input": [1], "output": {"(1, 2)": 3.0}}], entry_point="f") == "pass"  # fmt: skip  # noqa: E501


FORGED = ['{"fraction": ["1e40000000"]}', '{"set": [0, 2305843009213693951]}', "[" * 10**5, "1" * 10**6,
          '{"int": "zz"}', '{"decimal": "1e999999999"}', '{"dict": [[{"fraction": ["1e40000000"]}, 1]]}', '{"dict": 3}',
          "{}", '{"named": ["P", ["x"]]}', '{"int": "0x' + "f" * 10**6 + '"}',
          '{"range": [0, 1000000000000, 1]}']  # fmt: skip


@pytest.mark.parametrize("i", range(len(FORGED)))
def test_a_forged_report_is_a_fail(i: int):
    forge = f"import os\ndef f(x):\n    os.write(3, {FORGED[i].encode()!r})\n    os._exit(0)"
    for expected in (2, 2.0, [2], {"a": 2}):
        assert judge(forge, [{"input": [1], "output": expected}], entry_point="f") == "fail"


BLOCKS = [
    ("```{}\nq\n```", tag, language)
    for language, tags in {
        "python": ["Python 3", "py3", "{.python}", "python3.11", "python:main.py", "PYTHON title='a'", "pypy3"],
        "cpp": ["c++17", "CPP", "cc", "C++ 20", "gnu++17", "cpp20"],
        "java": ["Java", "java8", "Java 17", "{java}", "java 21"],
    }.items()
    for tag in tags
]


@pytest.mark.parametrize(("text", "tag", "language"), BLOCKS)
def test_tags_as_people_write_them(text: str, tag: str, language: str):
    assert extract_code(text.format(tag), language) == "q\n"
    assert extract_code(text.format(tag).replace("```", "~~~~"), language) == "q\n"
    others = {"python", "cpp", "java"} - {language}
    assert [extract_code(text.format(tag), other) for other in others] == ["", ""]


@pytest.mark.parametrize("tag", ["javascript", "pycon", "text", "c", "json", "pyt", "output", "bash"])
def test_other_languages_are_none(tag: str):
    assert [extract_code(f"```{tag}\nq\n```", language) for language in ("python", "cpp", "java")] == [""] * 3


DOCSTRING = "def f():\n    {0}\n{1}```\n{1}f()\n{1}```\n    {0}\n    return 1\n"


@pytest.mark.parametrize("quotes", ['"""', "'''"])
@pytest.mark.parametrize("indent", ["", "    ", "        "])
def test_fences_in_docstrings_and_output_behind(quotes: str, indent: str):
    code = DOCSTRING.format(quotes, indent)
    assert extract_code(f"Here:\n```python\n{code}```\nprints\n```\n4\n```\n") == code
    assert extract_code(f"````python\n{code}````\n~~~\n4\n~~~") == code


def test_the_last_block_of_its_kind_counts():
    assert extract_code("```python\n1\n```\n```python\n2\n```\n```\n3\n```") == "2\n"
    assert extract_code("```\n1\n```\n```\n2\n```\n```text\n3\n```") == "2\n"
    assert extract_code("~~~python\n1\n```\n~~~") == "1\n```\n"
    assert extract_code('```python\ns = """ never closed\n```\n```python\n2\n```') == "2\n"
    assert extract_code("```python\n1\n```\n```python\n2") == "1\n"
