"""Canonical solutions in LeetCode's style, with nothing imported: they pass in every mode, and fail without a body."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from ringrl.rewards.code import verify_code
from ringrl.sandbox.local import Local
from tests.sandbox.test_remote import run_code, service

# an expression of `a` and `b`, and values of them and of it, that stand for a family of solutions
EXPRESSIONS: list[tuple[str, Any, Any, Any]] = [
    ("gcd(a, b)", 12, 18, 6),
    ("lcm(a, b)", 4, 6, 12),
    ("ceil(a / b)", 7, 2, 4),
    ("int(sqrt(a)) + b", 9, 1, 4),
    ("comb(a, b)", 5, 2, 10),
    ("isqrt(a) * b", 10, 2, 6),
    ("min(inf, a) + b", 3, 4, 7),
    ("pow(a, b, 7)", 3, 4, 4),
    ("Counter(a)[b]", "aab", "a", 2),
    ("sorted(Counter(a).values())[b]", "aab", 0, 1),
    ("list(accumulate(a))[b]", [1, 2, 3], 2, 6),
    ("[list(p) for p in pairwise(a)][b]", [1, 2, 3], 1, [2, 3]),
    ("[list(p) for p in product(a, b)]", [1], [2, 3], [[1, 2], [1, 3]]),
    ("len(list(permutations(a, b)))", [1, 2, 3], 2, 6),
    ("bisect_left(a, b)", [1, 3, 5], 3, 1),
    ("bisect.bisect_right(a, b)", [1, 3, 5], 3, 2),
    ("nlargest(b, a)", [1, 5, 3], 2, [5, 3]),
    ("heapq.nsmallest(b, a)", [4, 2, 9], 1, [2]),
    ("reduce(lambda x, y: x * y, a, b)", [2, 3], 2, 12),
    ("list(deque(a, maxlen=b))", [1, 2, 3], 2, [2, 3]),
    ("re.sub(b, '', a)", "abcb", "b", "ac"),
    ("ascii_lowercase.index(a) + b", "c", 1, 3),
    ("datetime.date(a, b, 1).weekday()", 2020, 1, 2),
    ("string.digits[a:b]", 1, 3, "12"),
    ("json.loads(a)[b]", "[1, 2]", 1, 2),
    ("median([a, b])", 1, 3, 2),
    ("math.hypot(a, b)", 3, 4, 5.0),
    ("OrderedDict.fromkeys(a).popitem()[0] + b", "xy", "z", "yz"),
    ("defaultdict(int, {a: 1})[b]", 1, 2, 0),
    ("deepcopy(a)[b]", [[1], [2]], 1, [2]),
    ("list(chain(a, b))", [1], [2], [1, 2]),
    ("cache(lambda x: x + b)(a)", 1, 2, 3),
    ("list(zip_longest(a, [], fillvalue=b))[0][1]", [1], 7, 7),
    ("itemgetter(b)(a)", [5, 6], 1, 6),
    ("ListNode(a, ListNode(b)).next.val", 1, 2, 2),
    ("TreeNode(a, TreeNode(b)).left.val", 1, 2, 2),
    ("StringIO(a).read() + b", "x", "y", "xy"),
    ("floor(log2(a)) + b", 9, 1, 4),
    ("sorted(a, key=cmp_to_key(lambda x, y: y - x))[b]", [1, 2], 0, 2),
    ("fmean([a, b])", 1, 2, 1.5),
]
SHAPES = {
    "method": "class Solution:\n    def solve(self, a, b) -> Optional[List[int]]:\n        return {}\n",
    "nested": "class Solution:\n    def solve(self, a: List[int], b: int) -> int:\n        @lru_cache(None)\n"
    "        def go(n: int) -> Any:\n            return {}\n        return go(0)\n",
    "function": "def solve(a, b):\n    return {}\n",
    "helper": "def helper(a, b):\n    return {}\n"
    "class Solution:\n    def solve(self, a, b):\n        return helper(a, b)\n",
    "variable": "class Solution:\n    def solve(self, a, b):\n        best: Dict[int, int] = {}\n        return best\n",
}
CASES = [
    (f"from typing import Optional\n{shape}" if i % 7 == 0 else shape, expression)
    for i, (shape, expression) in enumerate((s, e) for e in EXPRESSIONS for s in SHAPES.values())
]
PER_TEST = 10


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    local = Local()
    with service(lambda request: run_code(local, request)) as address:
        yield address
    local.close()


def modes(code: str, a: Any, b: Any, result: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    owner = "Solution()." if "class Solution" in code else ""
    pairs = [{"input": [a, b], "output": result}]
    lines = [{"input": f"{json.dumps(a)}\n{json.dumps(b)}", "output": json.dumps(result)}]
    yield "call", {"tests": pairs, "entry_point": "solve"}
    yield "columns", {"tests": json.dumps({"fn_name": "solve", "inputs": [[a, b]], "outputs": [result]})}
    yield "exact", {"tests": lines, "entry_point": "solve", "compare": "exact"}
    yield "assert", {"tests": f"assert {owner}solve({a!r}, {b!r}) == {result!r}"}
    yield "check", {"tests": f"def check(candidate):\n    assert candidate({a!r}, {b!r}) == {result!r}",
                    "entry_point": f"{owner}solve"}  # fmt: skip


def judged(code: str, reference: dict[str, Any], remote: str = "") -> str:
    return verify_code(f"```python\n{code}\n```", reference, remote=remote).kind


def test_there_are_two_hundred():
    assert len(CASES) >= 200


@pytest.mark.parametrize("start", range(0, len(CASES), PER_TEST))
def test_canonical_solutions_pass_in_every_mode_and_empty_bodies_fail(start: int, url: str):
    for shape, (expression, a, b, result) in CASES[start : start + PER_TEST]:
        code, empty = shape.replace("{}", expression), shape.replace("{}", "None")
        for mode, reference in modes(code, a, b, result):
            assert judged(code, reference) == "pass", (mode, code)
            assert judged(empty, reference) == "fail", (mode, empty)
        reference = {"tests": [{"input": [a, b], "output": result}], "entry_point": "solve"}
        assert judged(code, reference, url) == "pass", code
        assert judged(empty, reference, url) == "fail", empty


def test_programs_of_standard_input_have_the_names_too(url: str):
    reference = {"tests": [{"input": "12 18\n", "output": "6\n"}]}
    code = "from __future__ import annotations\na, b = map(int, input().split())\nprint(gcd(a, b))"
    for remote in ("", url):
        assert judged(code, reference, remote) == "pass"
        assert judged(code.replace("gcd", "lcm"), reference, remote) == "fail"
