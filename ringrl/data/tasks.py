"""The built-in demo tasks: three small domains, each with a programmatic teacher. Pure Python, no torch.

Every domain has *quick* styles, short, with leaps that a small model gets wrong, and *careful* styles, longer, with
steps that it can learn. The teacher is right in all of them, so supervised training copies the mixture and leaves
reinforcement learning something to find: the careful styles earn more reward.

    math      four digits and three operations; quick: the result at once; careful: one operation a step
    code      Python, stdin to stdout; quick: constants folded by heart; careful: the operations as listed
    science   atomic numbers (a letter) or a law (a number); quick: the answer; careful: recall, then work

Invariants, which the tests assert: `teach` answers every problem correctly; the same seed gives the same rows;
no two rows have the same text.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator

__all__ = ["DOMAINS", "problems", "program", "teach"]

Row = dict
Rng = random.Random

DOMAINS = ("math", "code", "science")
CAREFUL = {"math": 0.50, "code": 0.42, "science": 0.42}  # share of careful solutions, by domain


# ---- the public calls --------------------------------------------------------------------------------------


def problems(domain: str, n: int, seed: int) -> list[Row]:
    """`n` prompt rows of one domain, no two with the same text: id, domain, problem, and answer or tests."""
    rng = random.Random(f"{domain}/{seed}")
    rows: dict[str, Row] = {}
    for _ in range(100 * n + 1000):
        if len(rows) == n:
            break
        text, reference = _MAKERS[domain](rng)
        name = f"{domain}-{seed}-{len(rows):05d}"
        rows.setdefault(text, {"id": name, "domain": domain, "problem": text, **reference})
    assert len(rows) == n, f"{domain} has fewer than {n} distinct problems: {len(rows)}"
    return list(rows.values())


def teach(row: Row, rng: Rng) -> str:
    """A correct response to a prompt row, in a style drawn with `rng`: a thought, then the final answer."""
    domain = row["domain"]
    careful = rng.random() < CAREFUL[domain]
    return _TEACHERS[domain](row, careful, rng)


def program(response: str) -> str:
    """The program in a teacher's response to a code problem."""
    return response.partition("```python\n")[2].partition("\n```")[0]


# ---- math: a chain of four numbers -------------------------------------------------------------------------


def _make_math(rng: Rng) -> tuple[str, Row]:
    """`a+b-c+d` or `(a+b)*c-d` of digits; every partial result lies in 1..99."""
    partial: list[int] = []
    while not partial or min(partial) < 1:
        numbers = [rng.randint(2, 9) for _ in range(4)]
        ops = rng.choices("+-", k=3)
        if rng.random() < 0.5:
            numbers[2], ops[1] = rng.randint(2, 5), "*"
        partial = list(_partials(numbers, ops))
    ask = rng.choice(("What is {}?", "Compute {}.", "Find {}."))
    return ask.format(_expression(numbers, ops)), {"answer": str(partial[-1])}


def _expression(numbers: list[int], ops: list[str]) -> str:
    """The expression as the problem shows it, with the brackets that left-to-right evaluation needs."""
    a, b, c, d = numbers
    first = f"({a}{ops[0]}{b})" if ops[1] == "*" else f"{a}{ops[0]}{b}"
    return f"{first}{ops[1]}{c}{ops[2]}{d}"


def _partials(numbers: list[int], ops: list[str]) -> Iterator[int]:
    """The running value after each operation, left to right."""
    value = numbers[0]
    for op, number in zip(ops, numbers[1:], strict=True):
        value = _apply(op, value, number)
        yield value


def _apply(op: str, a: int, b: int) -> int:
    """a op b."""
    return {"+": a + b, "-": a - b, "*": a * b}[op]


def _teach_math(row: Row, careful: bool, rng: Rng) -> str:
    """Quick: the value, or the last step from a value never derived; careful: a step an operation."""
    numbers = [int(word) for word in re.findall(r"\d+", row["problem"])]
    ops = re.findall(r"[-+*]", row["problem"])
    partial = list(_partials(numbers, ops))
    if careful:
        before = [numbers[0], *partial[:-1]]
        steps = [f"{a}{op}{b}={c}" for a, op, b, c in zip(before, ops, numbers[1:], partial, strict=True)]
        thought = rng.choice(("Step by step: ", "One at a time: ")) + rng.choice((", ", "; ")).join(steps)
    elif rng.random() < 0.5:
        thought = rng.choice(("I see ", "Quickly: ", "By heart: ")) + str(partial[-1])
    else:
        thought = rng.choice(("In the end ", "Last: ")) + f"{partial[1]}{ops[2]}{numbers[3]}={partial[2]}"
    return f"<think>{thought}</think>\\boxed{{{row['answer']}}}"


# ---- code: small programs ----------------------------------------------------------------------------------

_VERBS = {"+": "adds {}", "-": "subtracts {}", "*": "multiplies by {}"}
_FOLDS: dict[str, Callable] = {"sum": sum, "largest": max, "smallest": min}


def _make_code(rng: Rng) -> tuple[str, Row]:
    """A program on one integer, or on a list of integers, with two tests."""
    return _make_scalar(rng) if rng.random() < 0.6 else _make_list(rng)


def _make_scalar(rng: Rng) -> tuple[str, Row]:
    """Three operations on one integer."""
    ops = [rng.choice("+-"), "*", rng.choice("+-")] if rng.random() < 0.7 else rng.choices("+-", k=3)
    steps = [(op, rng.randint(2, 5) if op == "*" else rng.randint(2, 12)) for op in ops]
    verbs = ", ".join(_VERBS[op].format(k) for op, k in steps)
    inputs = [rng.randint(1, 20) for _ in range(2)]
    tests = [{"input": f"{x}\n", "output": f"{_chain(x, steps)}\n"} for x in inputs]
    return f"Write a program that reads an integer, {verbs}, and prints it.", {"tests": tests}


def _make_list(rng: Rng) -> tuple[str, Row]:
    """Integers above a limit, two shifts of each, then their sum, largest or smallest."""
    limit, steps = rng.randint(2, 9), [(rng.choice("+-"), rng.randint(2, 12)) for _ in range(2)]
    word, verbs = rng.choice(list(_FOLDS)), " and ".join(_VERBS[op].format(k) for op, k in steps)
    inputs = [[rng.randint(1, limit), *(rng.randint(10, 30) for _ in range(3))] for _ in range(2)]
    outputs = [_FOLDS[word](_chain(x, steps) for x in xs if x > limit) for xs in inputs]
    tests = [
        {"input": " ".join(map(str, xs)) + "\n", "output": f"{result}\n"}
        for xs, result in zip(inputs, outputs, strict=True)
    ]
    text = f"Write a program that reads integers, keeps those above {limit}, {verbs}, and prints the {word}."
    return text, {"tests": tests}


def _chain(value: int, steps: list[tuple[str, int]]) -> int:
    """`value` after the steps."""
    for op, k in steps:
        value = _apply(op, value, k)
    return value


def _teach_code(row: Row, careful: bool, rng: Rng) -> str:
    """Quick: constants folded into one by heart; careful: the operations as the problem lists them."""
    signs = {"adds": "+", "subtracts": "-", "multiplies": "*"}
    operations = re.findall(r"(adds|subtracts|multiplies)(?: by)? (\d+)", row["problem"])
    steps = [(signs[verb], int(k)) for verb, k in operations]
    program = (
        _list_program(row["problem"], steps, careful)
        if "integers" in row["problem"]
        else _scalar_program(steps, careful, rng.choice("xn"))
    )
    if careful:
        thought = rng.choice(("Follow the order.", "One operation at a time."))
    else:
        thought = rng.choice(("Simplify.", "One formula.", "Fold it."))
    return f"<think>{thought}</think>```python\n{program}\n```"


def _scalar_program(steps: list[tuple[str, int]], careful: bool, name: str) -> str:
    """The program on one integer."""
    if careful:
        body = "\n".join(f"{name} {op}= {k}" for op, k in steps)
        return f"{name} = int(input())\n{body}\nprint({name})"
    offset = _chain(0, steps)
    scale = _chain(1, steps) - offset
    term = "int(input())" + (f" * {scale}" if scale != 1 else "")
    return f"print({term} {_signed(offset)})"


def _list_program(problem: str, steps: list[tuple[str, int]], careful: bool) -> str:
    """The program on a list of integers."""
    limit = re.findall(r"above (\d+)", problem)[0]
    fold = _FOLDS[re.findall(r"the (\w+)\.$", problem)[0]].__name__
    shift = " ".join(f"{op} {k}" for op, k in steps) if careful else _signed(_chain(0, steps))
    return f"a = map(int, input().split())\nprint({fold}(x {shift} for x in a if x > {limit}))"


def _signed(value: int) -> str:
    """`+ 3` or `- 3`."""
    return f"- {-value}" if value < 0 else f"+ {value}"


# ---- science: atomic numbers and laws ----------------------------------------------------------------------

_ELEMENTS = {
    "hydrogen": 1, "helium": 2, "carbon": 6, "nitrogen": 7, "oxygen": 8, "neon": 10, "sodium": 11,
    "sulfur": 16, "argon": 18, "iron": 26, "copper": 29, "silver": 47, "gold": 79, "lead": 82,
}  # fmt: skip

# question: the law, the first operation (on the first two numbers), the second (on its result and the third)
_LAWS = {
    "A car moves at {} m/s for {} s, then {} m more. How far does it go?": ("d=vt+d", "*", "+"),
    "A ball speeds up by {} m/s2 for {} s from {} m/s. What is its speed?": ("v=at+v", "*", "+"),
    "Resistors of {} ohm and {} ohm in series carry {} A. What is the voltage?": ("V=(R+R)I", "+", "*"),
    "A mass of {} kg gains {} m/s2 against a drag of {} N. What is the force?": ("F=ma+D", "*", "+"),
    "A charge moves at {} A for {} s and {} C leak away. What charge is left?": ("Q=It-L", "*", "-"),
}


def _make_science(rng: Rng) -> tuple[str, Row]:
    """Which of three elements has the highest or lowest atomic number, or a law with three numbers put in."""
    if rng.random() < 0.4:
        names, want = rng.sample(list(_ELEMENTS), 3), rng.choice(("highest", "lowest"))
        options = " ".join(f"{letter}) {name}" for letter, name in zip("ABC", names, strict=True))
        best = (max if want == "highest" else min)(names, key=_ELEMENTS.__getitem__)
        return f"Which has the {want} atomic number? {options}", {"answer": "ABC"[names.index(best)]}
    question, (_, *ops) = rng.choice(list(_LAWS.items()))
    a, b, c = (rng.randint(2, 9) for _ in range(3))
    value = _apply(ops[1], _apply(ops[0], a, b), c)
    return (question.format(a, b, c), {"answer": str(value)}) if value > 0 else _make_science(rng)


def _teach_science(row: Row, careful: bool, rng: Rng) -> str:
    """Quick: the answer; careful: the atomic numbers one by one, or the law and the arithmetic in steps."""
    if careful:
        lead = rng.choice(("Recall: ", "From the facts: "))
        work = _work_elements(row) if "atomic" in row["problem"] else _work_law(row["problem"])
    else:
        lead, work = rng.choice(("Surely ", "I guess ", "Known: ")), row["answer"]
    return f"<think>{lead}{work}</think>\\boxed{{{row['answer']}}}"


def _work_elements(row: Row) -> str:
    """`26 A, 6 B, 79 C; highest 79 C`: number before letter, so that the letter can be read off the list."""
    options = {letter: _ELEMENTS[name] for letter, name in re.findall(r"([A-C])\) (\w+)", row["problem"])}
    want = "highest" if "highest" in row["problem"] else "lowest"
    facts = ", ".join(f"{number} {letter}" for letter, number in options.items())
    return f"{facts}; {want} {options[row['answer']]} {row['answer']}"


def _work_law(problem: str) -> str:
    """`d=vt+d, 7*5=35, 35+4=39`."""
    patterns = {re.escape(question).replace(r"\{\}", r"(\d+)"): _LAWS[question] for question in _LAWS}
    match, (law, first, second) = next(
        (matched, facts) for pattern, facts in patterns.items() if (matched := re.fullmatch(pattern, problem))
    )
    a, b, c = map(int, match.groups())
    middle = _apply(first, a, b)
    return f"{law}, {a}{first}{b}={middle}, {middle}{second}{c}={_apply(second, middle, c)}"


_MAKERS: dict[str, Callable[[Rng], tuple[str, Row]]] = {
    "math": _make_math, "code": _make_code, "science": _make_science}  # fmt: skip
_TEACHERS: dict[str, Callable[[Row, bool, Rng], str]] = {
    "math": _teach_math, "code": _teach_code, "science": _teach_science}  # fmt: skip
