"""Code answers: runs the program of a response (see `blocks`) against all tests. One failed test fails the response.

`reference["tests"]` is one of

    [{"input", "output"}, ...]                texts: a program reads standard input and writes standard output
    the same, with `entry_point`              a function, or method of the class Solution, is called: `input` is a list
                                              of arguments and `output` the result, or both are texts as in
                                              LiveCodeBench, one JSON value per line and a JSON value
    assert text, or a list of such texts      Python that calls the program's functions. `entry_point` is available as
                                              `candidate`; `check(candidate)` is called if the tests define it

With `compare` "exact" programs are run and compared as LiveCodeBench does: no tolerance for floats.
`language` is python (default), cpp or java, the last two with standard input only. `checker`, trusted Python that
defines `check(input, output, expected)`, judges output with several valid forms. `time_limit_s` is the CPU time of one
test, in seconds; the wall clock allows twice that.

Expected output never enters the sandbox of the program: outputs and results are compared here, asserts and checkers run
in a sandbox of their own (`sandbox.calls`).
"""

from __future__ import annotations

import atexit
import functools
import json
import math
import re
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any

from ringrl.rewards.blocks import extract_code
from ringrl.rewards.code_tests import LIMITS, CodeTests, Pair, read_tests
from ringrl.rewards.livecodebench import DEEPER, same_decimals, unpacked
from ringrl.rewards.verdict import Verdict, after_thinking
from ringrl.sandbox import values
from ringrl.sandbox.box import Execution, Limits, SandboxError, TestsError, isolation
from ringrl.sandbox.local import Local
from ringrl.sandbox.remote import SandboxService

TOTAL_S = 30.0  # time for all tests of one response
WALL_SHARE = 0.8  # share of the remaining time that a program may take; the rest is patience on a busy machine
FLOAT_TOLERANCE = 1e-6  # absolute or relative, for expected values written as decimals
MAX_NUMBER_CHARS = 400  # longer numbers are equal if their texts are

_INTEGER = re.compile(r"[+-]?\d+")
_DECIMAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,4})?")
_ASK_CHECKER = """
import json as _json, os as _os, sys as _sys
_told = _json.load(_sys.stdin)
_os.write(3, b"yes" if check(**_told) else b"no")
"""


# ---- comparison --------------------------------------------------------------------------------------------


def same_output(actual: str, expected: str) -> bool:
    """Compares lines, and tokens of lines that differ, with a tolerance for decimals."""
    left, right = ([line.rstrip() for line in text.rstrip().splitlines()] for text in (actual, expected))
    return len(left) == len(right) and all(a == b or _same_line(a, b) for a, b in zip(left, right, strict=True))


def same_value(actual: Any, expected: Any) -> bool:
    """Compares plain data: tuples equal lists, keys are compared as strings like JSON's, floats with a tolerance."""
    if isinstance(expected, (list, tuple)):
        listed = isinstance(actual, (list, tuple)) and len(actual) == len(expected)
        return listed and all(map(same_value, actual, expected))
    if isinstance(expected, dict):
        if not isinstance(actual, dict):
            return False
        left, right = ({str(k): v for k, v in side.items()} for side in (actual, expected))
        return left.keys() == right.keys() and all(same_value(left[k], v) for k, v in right.items())
    if isinstance(expected, float) and isinstance(actual, (int, float)):
        return _close(actual, expected)
    if isinstance(actual, (bool, int, float, str, type(None))):
        return bool(actual == expected)
    return False


def _same_line(actual: str, expected: str) -> bool:
    left, right = actual.split(), expected.split()
    return len(left) == len(right) and all(map(_same_token, left, right))


def _same_token(actual: str, expected: str) -> bool:
    if actual == expected:
        return True
    if max(len(actual), len(expected)) > MAX_NUMBER_CHARS:
        return False
    if not (_DECIMAL.fullmatch(actual) and _DECIMAL.fullmatch(expected)):
        return False
    if _INTEGER.fullmatch(expected):  # integers are exact, but 3.0 equals 3
        return not _INTEGER.fullmatch(actual) and Decimal(actual) == Decimal(expected)
    return _close(float(actual), float(expected))


def _close(actual: float, expected: float) -> bool:
    try:
        return math.isclose(actual, expected, rel_tol=FLOAT_TOLERANCE, abs_tol=FLOAT_TOLERANCE)
    except OverflowError:  # an integer no float can hold
        return False


# ---- verdicts ----------------------------------------------------------------------------------------------


def verify_code(
    text: str, reference: Mapping[str, object], *, total_s: float = TOTAL_S, remote: str = "", every: bool = False
) -> Verdict:
    """Judges a response by `reference["tests"]`, within `total_s` seconds for all of them.

    `remote` is the URL of a sandbox service to run programs on, except those with assert text. Without `every`, testing
    stops at the first failure; `Verdict.tests` has the outcome of each test that was run.
    """
    try:
        task = read_tests(unpacked(reference))
    except ValueError as error:
        return Verdict("error", f"unusable tests: {error}")
    code = extract_code(after_thinking(text), task.language)
    if not code.strip():
        return Verdict("fail", "no_code")
    if task.exact and "__future__" not in code:  # which must come first
        code = DEEPER + code
    try:
        executor = SandboxService(remote, total_s) if remote else _local()
        outcomes = _outcomes(task, code, executor, total_s, every)
    except TestsError as error:
        return Verdict("error", f"unusable tests: {error}")
    except SandboxError as error:
        return Verdict("error", f"sandbox: {error}")
    failed = next((o for o in outcomes if o != "ok"), "")
    return Verdict("fail" if failed else "pass", failed or "tests", outcomes)


def _outcomes(
    task: CodeTests, code: str, executor: SandboxService | Local, total_s: float, every: bool
) -> tuple[str, ...]:
    deadline = time.monotonic() + total_s
    outcomes: list[str] = []
    for pair in task.pairs:
        left = deadline - time.monotonic()
        wall_s = min(task.limits.wall_s, WALL_SHARE * left)
        limits = replace(task.limits, wall_s=wall_s, patience_s=min(task.limits.patience_s, left - wall_s))
        outcomes.append(_outcome(task, code, pair, executor, limits) if limits.wall_s > 0 else "timeout")
        if outcomes[-1] != "ok" and not every:
            break
    return tuple(outcomes)


def _outcome(task: CodeTests, code: str, pair: Pair, executor: SandboxService | Local, limits: Limits) -> str:
    """Outcome of one test: ok, wrong, runtime, timeout, memory, output, compile."""
    if task.texts:
        return _local().check(code, task.texts, task.entry, limits)
    if task.entry:
        execution = executor.call(code, task.entry, pair.given, limits)
        return execution.outcome if execution.outcome != "ok" else _compare_result(execution, pair.expected, task.exact)
    execution = executor.execute(task.language, code, pair.given, limits)
    if execution.outcome != "ok":
        return execution.outcome
    if task.checker:
        return _ask_checker(task.checker, pair, execution.stdout)
    same = same_decimals if task.exact else same_output
    return "ok" if same(execution.stdout, pair.expected) else "wrong"


def _compare_result(execution: Execution, expected: Any, exact: bool) -> str:
    try:
        result = values.decode(json.loads(execution.report))
        if exact:  # LiveCodeBench converts a top-level tuple to a list
            same = (list(result) if isinstance(result, tuple) else result) == expected
        else:
            same = same_value(result, expected)
        return "ok" if same else "wrong"
    except (ValueError, TypeError, LookupError, ArithmeticError, RecursionError, AttributeError):
        return "runtime"  # it exited before its result was written, or wrote something else


def _ask_checker(checker: str, pair: Pair, output: str) -> str:
    case = json.dumps({"input": pair.given, "output": output, "expected": pair.expected})
    execution = _local().trusted(checker + _ASK_CHECKER, case, LIMITS)
    if execution.outcome != "ok" or execution.report not in (b"yes", b"no"):
        raise SandboxError(f"the checker failed: {execution.outcome} {execution.stderr.strip()[-200:]}")
    return "ok" if execution.report == b"yes" else "wrong"


def warm_up() -> None:
    """Starts the sandbox and prints its isolation to standard error, before the clock of a response runs."""
    try:
        print(f"code sandbox: {isolation()}", file=sys.stderr)
        assert _local().sandbox.level
    except SandboxError as error:
        print(f"code sandbox: none: {error}", file=sys.stderr)  # every verdict will repeat this


@functools.cache
def _local() -> Local:
    local = Local()
    atexit.register(local.close)
    return local
