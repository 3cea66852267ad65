"""References in the shapes of HumanEval, HumanEval+, MBPP and MBPP+: canonical programs pass, emptied ones fail.

At every level of isolation that this machine grants: NumPy and pytest are there for the tests at each.
"""

from __future__ import annotations

import ast
import shutil
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from ringrl.rewards.code import verify_code
from ringrl.rewards.code_tests import check_tests
from ringrl.sandbox.box import Limits, SandboxError
from ringrl.sandbox.kernel import LEVELS
from ringrl.sandbox.local import Local

PLUS = """
import numpy as np
from math import inf

def is_floats(x) -> bool:
    # check if it is float; List[float]; Tuple[float]
    if isinstance(x, float):
        return True
    if isinstance(x, (list, tuple)):
        return all(isinstance(i, float) for i in x)
    if isinstance(x, np.ndarray):
        return x.dtype == np.float64 or x.dtype == np.float32
    return False


def assertion(out, exp, atol):
    exact_match = out == exp

    if atol == 0 and is_floats(exp):
        atol = 1e-6

    if not exact_match and atol != 0:
        assert type(out) == type(exp), f"out: {out}, exp: {exp}"
        if isinstance(exp, (list, tuple)):
            assert len(out) == len(exp), f"out: {out}, exp: {exp}"
        assert np.allclose(out, exp, rtol=1e-07, atol=atol)
    else:
        assert exact_match

"""
HEAD = "\n\nMETADATA = {\n    'author': 'jt',\n    'dataset': 'test'\n}\n\n\ndef check(candidate):\n"
LOOP = "for i, (inp, exp) in enumerate(zip(inputs, results)):\n    "
IN_CHECK = f"    {LOOP}    assertion(candidate(*inp), exp, 0)\n"

# what: (program, function, tests, entry point)
SHAPES: dict[str, tuple[str, str, Any, str]] = {
    "HumanEval": (
        "from typing import List\n\n\ndef gaps(xs: List[int]) -> List[int]:\n"
        '    """Differences of neighbours.\n    >>> gaps([1, 4, 2])\n    [3, -2]\n    """\n'
        "    return [b - a for a, b in zip(xs, xs[1:])]\n",
        "gaps",
        f"{HEAD}    assert candidate([1, 4, 2]) == [3, -2]\n    assert candidate([5]) == [], 'one'\n"
        "\n    # Check some edge cases\n    assert True, 'This prints if this assert fails 2 (also good for it!)'\n",
        "gaps",
    ),
    "HumanEval, a tolerance": (
        "def tail(x: float) -> float:\n    return x % 1.0\n",
        "tail",
        f"{HEAD}    assert candidate(3.5) == 0.5\n    assert abs(candidate(1.33) - 0.33) < 1e-6\n",
        "tail",
    ),
    "HumanEval, a helper of the program": (
        "def shift(s: str):\n    return ''.join(chr((ord(c) - 92) % 26 + 97) for c in s)\n\n\n"
        "def unshift(s: str):\n    return ''.join(chr((ord(c) - 102) % 26 + 97) for c in s)\n",
        "unshift",
        "\n\nMETADATA = {}\n\n\ndef check(candidate):\n    from random import randint, choice\n"
        "    import string\n\n    letters = string.ascii_lowercase\n    for _ in range(20):\n"
        "        text = ''.join(choice(letters) for i in range(randint(10, 20)))\n"
        "        assert candidate(shift(text)) == text\n",
        "unshift",
    ),
    "HumanEval, roots of polynomials": (
        "import math\n\n\ndef poly(xs: list, x: float):\n"
        "    return sum([c * math.pow(x, i) for i, c in enumerate(xs)])\n\n\n"
        "def root(xs: list):\n    low, high = -100.0, 100.0\n    while high - low > 1e-12:\n"
        "        middle = (low + high) / 2\n"
        "        low, high = (low, middle) if poly(xs, middle) * poly(xs, high) > 0 else (middle, high)\n"
        "    return low\n",
        "root",
        f"{HEAD}    import math\n    import copy\n    for coeffs in ([-6, 1], [1, 0, 0, 2]):\n"
        "        solution = candidate(copy.deepcopy(coeffs))\n"
        "        assert math.fabs(poly(coeffs, solution)) < 1e-4\n",
        "root",
    ),
    "HumanEval+": (
        "def within(xs, t):\n    return any(abs(a - b) < t for i, a in enumerate(xs) for b in xs[:i])\n",
        "within",
        f"{PLUS}def check(candidate):\n    inputs = [[[1.0, 2.0, 3.9], 0.3], [[1.0, 2.0, 2.2], 0.5], [[], 1.0]]\n"
        f"    results = [False, True, False]\n{IN_CHECK}",
        "within",
    ),
    "HumanEval+, floats": (
        "def halves(xs):\n    return [x / 2 + 1e-9 for x in xs]\n",
        "halves",
        f"{PLUS}def check(candidate):\n    inputs = [[[1.0, 3.0]], [[inf]]]\n"
        f"    results = [[0.5, 1.5], [inf]]\n{IN_CHECK}",
        "halves",
    ),
    "HumanEval+, a reference function": (
        "def digits(n):\n    return sum(map(int, str(abs(n))))\n",
        "digits",
        f"{PLUS}def ref_func(n):\n    total = 0\n    while n:\n        total, n = total + n % 10, n // 10\n"
        "    return total\n\n\ndef check(candidate):\n    inputs = [[n] for n in range(0, 3000, 7)]\n"
        "    for i, inp in enumerate(inputs):\n        assertion(candidate(*inp), ref_func(*inp), 0)\n",
        "digits",
    ),
    "HumanEval+, plain data of all kinds": (
        "def same(x):\n    return x\n",
        "same",
        f"{PLUS}def check(candidate):\n"
        "    inputs = [[{'a': (1, None)}], [{1, 2}], ['x\\n'], [10 ** 30], [(1.5, 'a')]]\n"
        f"    results = [{{'a': (1, None)}}, {{2, 1}}, 'x\\n', 10 ** 30, (1.5, 'a')]\n{IN_CHECK}",
        "same",
    ),
    "MBPP": (
        "def perimeter(d):\n    return 3.1415926535 * d\n",
        "perimeter",
        [
            "import math",
            "assert math.isclose(perimeter(10), 31.415, rel_tol=0.001)",
            "assert math.isclose(perimeter(0), 0)",
            "assert not math.isclose(perimeter(4), 12)",
        ],
        "",
    ),
    "MBPP, sets": (
        "def common(a, b):\n    return tuple(set(a) & set(b))\n",
        "common",
        ["assert set(common((3, 4, 5, 6), (5, 7, 4, 10))) == set((4, 5))", "assert set(common((1, 2), (3,))) == set()"],
        "",
    ),
    "MBPP+": (
        "def swap(t):\n    return (t[-1],) + t[1:-1] + (t[0],)\n",
        "swap",
        f"{PLUS}inputs = [[(1, 2, 3)], [(1.5, 2.5)]]\nresults = [(3, 2, 1), (2.5, 1.5)]\n"
        f"{LOOP}assertion(swap(*inp), exp, 0)\n",
        "",
    ),
    "MBPP+, an own comparison": (
        "def powers(n):\n    return [2 ** i for i in range(n)]\n",
        "powers",
        f"{PLUS}inputs = [[4], [0]]\nresults = [[8, 4, 2, 1], []]\n"
        f"{LOOP}assertion(sorted(powers(*inp)), sorted(exp), 0)\n",
        "",
    ),
    "numpy.testing": (
        "def scaled(xs):\n    return [2.0 * x for x in xs]\n",
        "scaled",
        "import numpy as np\nnp.testing.assert_allclose(np.array(scaled([1, 2])), np.array([2.0, 4.0]), rtol=1e-6)\n"
        "assert np.allclose(scaled([0.5]), 1.0)",
        "",
    ),
    "pytest": (
        "def root(x):\n    return x ** 0.5\n",
        "root",
        "import pytest\nfrom solution import root\n\n\n@pytest.mark.parametrize('x, y', [(4, 2.0), (2, 1.41421356)])\n"
        "def test_root(x, y):\n    assert root(x) == pytest.approx(y)\n\n\n"
        "def test_text():\n    with pytest.raises(TypeError):\n        root('4')\n",
        "",
    ),
}  # fmt: skip


@pytest.fixture(
    scope="module", params=[pytest.param(x, marks=[pytest.mark.slow] * (x != LEVELS[0])) for x in LEVELS], autouse=True
)
def level(request: pytest.FixtureRequest) -> Iterator[str]:
    local = Local(request.param)
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "uid":
            patch.setattr(sys, "executable", shutil.which("python3", path="/usr/bin"))  # ours may be root's alone
        try:
            local.trusted("", "", Limits())
        except (SandboxError, TypeError) as error:
            pytest.skip(str(error))
        patch.setattr("ringrl.rewards.code._local", lambda: local)
        yield request.param
    local.close()


def emptied(program: str, function: str) -> str:
    tree = ast.parse(program)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == function:
            node.body = [ast.Pass()]
    return ast.unparse(tree)


@pytest.mark.parametrize("shape", SHAPES)
def test_canonical_programs_pass_and_emptied_ones_fail(shape: str):
    program, function, tests, entry = SHAPES[shape]
    reference = {"tests": tests, "entry_point": entry}
    check_tests(reference)
    for code, kind in ((program, "pass"), (emptied(program, function), "fail"), ("", "fail"), ("x = 1", "fail")):
        verdict = verify_code(f"```python\n{code}\n```", reference)
        assert verdict.kind == kind, (code, verdict)
