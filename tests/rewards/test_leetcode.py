"""Canonical solutions in LeetCode's style, with nothing imported: they pass in every mode, and fail without a body."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
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
SAMPLE = CASES[::19]  # every shape, run by default


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    local = Local()
    with service(lambda request: run_code(local, request)) as address:
        yield address
    local.close()


def modes(code: str, a: Any, b: Any, result: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """(program, reference) for each way in which a problem may be stated."""
    owner = "Solution()." if "class Solution" in code else ""
    pairs = [{"input": [a, b], "output": result}]
    lines = {"input": f"{json.dumps(a)}\n{json.dumps(b)}", "output": json.dumps(result)}
    yield code, {"tests": pairs, "entry_point": "solve"}
    yield code, {"tests": json.dumps({"fn_name": "solve", "inputs": [[a, b]], "outputs": [result]})}
    yield code, {"tests": [lines], "entry_point": "solve", "compare": "exact"}
    yield code, {"tests": f"assert {owner}solve({a!r}, {b!r}) == {result!r}"}
    check = f"def check(candidate):\n    assert candidate({a!r}, b = {b!r}) == {result!r}"
    yield code, {"tests": check, "entry_point": f"{owner}solve"}
    yield f"{code}\nprint(json.dumps({owner}solve(*map(json.loads, sys.stdin))))", {"tests": [lines]}


ALL = range(6)
REMOTE = (0, 5)  # the modes in which a service runs the program


def judged(code: str, reference: dict[str, Any], remote: str = "") -> str:
    verdict = verify_code(f"```python\n{code}\n```", reference, remote=remote)
    return f"error: {verdict.reason}" if verdict.kind == "error" else verdict.kind


def verdicts(code: str, arguments: Sequence[Any], which: Sequence[int], url: str) -> set[str]:
    """The verdicts on a program in some of the modes, from our sandbox and, where a service can run it, from there."""
    stated = [(i, *mode) for i, mode in enumerate(modes(code, *arguments)) if i in which]
    judges = [(code, reference, remote) for i, code, reference in stated for remote in {"", url if i in REMOTE else ""}]
    return {judged(*judge) for judge in judges}


def test_there_are_two_hundred():
    assert len(CASES) >= 200
    assert {shape.replace("from typing import Optional\n", "") for shape, _ in SAMPLE} == set(SHAPES.values())


def test_canonical_solutions_pass_in_every_mode_and_empty_bodies_fail(url: str):
    for shape, (expression, *arguments) in SAMPLE:
        assert verdicts(shape.replace("{}", expression), arguments, ALL, url) == {"pass"}, (shape, expression)
        assert verdicts(shape.replace("{}", "None"), arguments, ALL, url) == {"fail"}, shape


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_all_canonical_solutions_pass_in_every_mode(part: int, url: str):
    """The first two modes, which differ in the reference only, by turns."""
    for i, (shape, (expression, *arguments)) in enumerate(CASES[part::4]):
        which = [i % 2, *ALL[2:]]
        assert verdicts(shape.replace("{}", expression), arguments, which, url) == {"pass"}, (shape, expression)
        assert verdicts(shape.replace("{}", "None"), arguments, [i % 6], "") == {"fail"}, shape


# whole solutions: (code, result of solve(*arguments), arguments)
WHOLE: dict[str, tuple[str, Any, list[Any]]] = {
    "two sum": ("""
    def solve(self, nums: List[int], target: int) -> List[int]:
        seen: Dict[int, int] = {}
        for i, x in enumerate(nums):
            if target - x in seen:
                return [seen[target - x], i]
            seen[x] = i""", [0, 1], [[2, 7, 11], 9]),
    "k closest points": ("""
    def solve(self, points: List[List[int]], k: int) -> List[List[int]]:
        heap = []
        for x, y in points:
            heappush(heap, (-hypot(x, y), x, y))
            if len(heap) > k:
                heappop(heap)
        return sorted([x, y] for _, x, y in heap)""", [[-2, 2]], [[[1, 3], [-2, 2]], 1]),
    "a list, reversed": ("""
    def solve(self, values: List[int]) -> List[int]:
        head: Optional[ListNode] = None
        for v in reversed(values):
            head = ListNode(v, head)
        before = None
        while head:
            head.next, before, head = before, head, head.next
        out = []
        while before:
            out.append(before.val)
            before = before.next
        return out""", [3, 2, 1], [[1, 2, 3]]),
    "depth of a tree": ("""
    def solve(self, values: List[Optional[int]]) -> int:
        nodes = [v if v is None else TreeNode(v) for v in values]
        rest = deque(nodes[1:])
        for node in filter(None, nodes):
            node.left, node.right = (rest.popleft() if rest else None for _ in range(2))
        def depth(root: Optional[TreeNode]) -> int:
            return 1 + max(depth(root.left), depth(root.right)) if root else 0
        return depth(nodes[0])""", 3, [[3, 9, 20, None, None, 15, 7]]),
    "coins": ("""
    def solve(self, coins: List[int], amount: int) -> int:
        @cache
        def best(left: int) -> int:
            return 0 if left == 0 else min((best(left - c) + 1 for c in coins if c <= left), default=inf)
        return -1 if best(amount) == inf else best(amount)""", 3, [[1, 2, 5], 11]),
    "shortest path": ("""
    def solve(self, edges: List[Tuple[int, int, int]], n: int) -> List[int]:
        graph = defaultdict(list)
        for u, v, w in edges:
            graph[u].append((v, w))
        best, heap = {0: 0}, [(0, 0)]
        while heap:
            far, u = heapq.heappop(heap)
            for v, w in graph[u]:
                if far + w < best.get(v, inf):
                    best[v] = far + w
                    heapq.heappush(heap, (best[v], v))
        return [best.get(i, -1) for i in range(n)]""", [0, 1, 3, -1], [[[0, 1, 1], [1, 2, 2], [0, 2, 5]], 4]),
    "anagrams": ("""
    def solve(self, words: List[str]) -> List[List[str]]:
        groups: DefaultDict[str, List[str]] = collections.defaultdict(list)
        for word in words:
            groups["".join(sorted(word))].append(word)
        return sorted(groups.values(), key=lambda g: (-len(g), g))""", [["ab", "ba"], ["c"]], [["ab", "c", "ba"]]),
    "longest increasing subsequence": ("""
    def solve(self, nums: List[int]) -> int:
        tails: List[int] = []
        for x in nums:
            i = bisect_left(tails, x)
            tails[i:i + 1] = [x]
        return len(tails)""", 4, [[10, 9, 2, 5, 3, 7, 101, 18]]),
}  # fmt: skip


@pytest.mark.parametrize("name", WHOLE)
def test_whole_solutions(name: str, url: str):
    body, result, args = WHOLE[name]
    empty = f"{body.splitlines()[1]}\n        pass"
    told = ", ".join(map(repr, args))
    for code, kind in ((body, "pass"), (f"\n{empty}", "fail")):
        program = f"class Solution:{code}"
        for remote in ("", url):
            called = {"tests": [{"input": args, "output": result}], "entry_point": "solve"}
            assert judged(program, called, remote) == kind
        assert judged(program, {"tests": f"assert Solution().solve({told}) == {result!r}"}) == kind
        assert judged(program, {"tests": f"def check(candidate):\n    assert candidate({told}) == {result!r}"}) == kind


def test_programs_of_standard_input_have_the_names_too(url: str):
    reference = {"tests": [{"input": "12 18\n", "output": "6\n"}]}
    code = "from __future__ import annotations\na, b = map(int, input().split())\nprint(gcd(a, b))"
    for remote in ("", url):
        assert judged(code, reference, remote) == "pass"
        assert judged(code.replace("gcd", "lcm"), reference, remote) == "fail"
