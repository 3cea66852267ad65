"""Code answers: runs the program of a response (see `blocks`) against all tests. One failed test fails the response.

`code_tests` says what `reference["tests"]` may be: texts that a program reads and writes, calls of a function with
their results, or Python that asserts. With `compare` "exact" programs are run and compared as LiveCodeBench does: no
tolerance for floats. `language` is python (default), cpp or java, the last two with standard input only. `checker`,
trusted Python that defines `check(input, output, expected)`, judges output with several valid forms; one that fails on
an output, and not on what is expected, has judged it wrong. `time_limit_s` is the CPU time of one test, in seconds; the
wall clock allows twice that, and a compiler has time of its own.

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

from ringrl.errors import ConfigError
from ringrl.rewards.blocks import extract_code
from ringrl.rewards.code_tests import LIMITS, CodeTests, Pair, read_tests
from ringrl.rewards.livecodebench import DEEPER, same_decimals, unpacked
from ringrl.rewards.verdict import Verdict, after_thinking
from ringrl.sandbox import values
from ringrl.sandbox.box import Execution, Limits, SandboxError, TestsError, at_least
from ringrl.sandbox.box import isolation as granted
from ringrl.sandbox.kernel import LEVELS
from ringrl.sandbox.local import Local
from ringrl.sandbox.remote import SandboxService

TOTAL_S = 30.0  # time for all tests of one response
WALL_SHARE = 0.8  # share of the remaining time that a program may take; the rest is patience on a busy machine
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
    """Compares lines, and tokens of lines that differ, with a tolerance for decimals. Empty lines around are none."""
    left, right = ([line.rstrip() for line in text.strip().splitlines()] for text in (actual, expected))
    return len(left) == len(right) and all(a == b or _same_line(a, b) for a, b in zip(left, right, strict=True))


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
    return _close(actual, expected)


def _close(actual: str, expected: str) -> bool:
    left, right = float(actual), float(expected)
    if math.isinf(left) or math.isinf(right):  # beyond what floats hold
        return Decimal(actual) == Decimal(expected)
    return math.isclose(left, right, rel_tol=values.TOLERANCE, abs_tol=values.TOLERANCE)


# ---- verdicts ----------------------------------------------------------------------------------------------


def verify_code(
    text: str, reference: Mapping[str, object], *, total_s: float = TOTAL_S, remote: str = "", every: bool = False,
    isolation: str = LEVELS[-1],
) -> Verdict:  # fmt: skip
    """Judges a response by `reference["tests"]`, within `total_s` seconds for all of them.

    `remote` is the URL of a sandbox service to run programs on, except those with assert text, which run here with
    `isolation` at least. Without `every`, testing
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
        if not remote or task.texts:
            at_least(isolation)
        outcomes = _outcomes(task, code, executor, total_s, every)
    except TestsError as error:
        return Verdict("error", f"unusable tests: {error}")
    except (SandboxError, ConfigError) as error:
        return Verdict("error", f"sandbox: {error}")
    failed = next((o for o in outcomes if o != "ok"), "")
    return Verdict("fail" if failed else "pass", failed or "tests", outcomes)


def _outcomes(
    task: CodeTests, code: str, executor: SandboxService | Local, total_s: float, every: bool
) -> tuple[str, ...]:
    deadline = time.monotonic() + total_s
    if isinstance(executor, Local):
        patience_s = min(task.limits.patience_s, (1 - WALL_SHARE) * total_s)
        if failed := executor.build(task.language, code, WALL_SHARE * total_s, patience_s):
            return (failed,) * (len(task.pairs) if every else 1)
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
        return execution.outcome if execution.outcome != "ok" else _compare_result(execution, pair, task.exact)
    execution = executor.execute(task.language, code, pair.given, limits)
    if execution.outcome != "ok":
        return execution.outcome
    if task.checker:
        return _ask_checker(task.checker, pair, execution.stdout)
    same = same_decimals if task.exact else same_output
    return "ok" if same(execution.stdout, pair.expected) else "wrong"


def _compare_result(execution: Execution, pair: Pair, exact: bool) -> str:
    """Compares what a function returned without building it, so that it takes no more than what is expected does."""
    try:
        result = json.loads(execution.report)
        if exact:  # LiveCodeBench converts a top-level tuple to a list
            return "ok" if values.equal(values.untupled(result), pair.expected, strict=True) else "wrong"
        same = values.equal(result, pair.expected)
        return "ok" if same or (pair.wrapped and values.equal(result, pair.expected[0])) else "wrong"
    except (ValueError, TypeError, LookupError, ArithmeticError, RecursionError, AttributeError):
        return "runtime"  # it exited before its result was written, or wrote something else


def _ask_checker(checker: str, pair: Pair, output: str) -> str:
    """One that fails on the program's output has judged it wrong, unless it fails on what is expected, too."""
    execution = _checked(checker, pair, output)
    if execution.report in (b"yes", b"no"):
        return "ok" if execution.report == b"yes" else "wrong"
    proof = _checked(checker, pair, pair.expected)
    if proof.report not in (b"yes", b"no"):
        raise TestsError(f"the checker failed: {proof.outcome} {proof.stderr.strip()[-200:]}")
    return "wrong"


def _checked(checker: str, pair: Pair, output: str) -> Execution:
    case = json.dumps({"input": pair.given, "output": output, "expected": pair.expected})
    return _local().trusted(checker + _ASK_CHECKER, case, LIMITS)


def warm_up() -> None:
    """Starts the sandbox and prints its isolation to standard error, before the clock of a response runs."""
    try:
        print(f"code sandbox: {granted()}", file=sys.stderr)
        assert _local().sandbox.level
    except SandboxError as error:
        print(f"code sandbox: none: {error}", file=sys.stderr)  # every verdict will repeat this


@functools.cache
def _local() -> Local:
    local = Local()
    atexit.register(local.close)
    return local
