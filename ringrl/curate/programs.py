"""Code problems: removes broken tests, and programs that do not pass the tests.

The row's `removed` lists what was removed, by position in the row of the previous step, which has it in full. Texts
are normalised where no judge sees a difference: line breaks, trailing blanks, and decimals that show the rounding of a
float (0.30000000000000004). Asserts are left as they are.
"""

from __future__ import annotations

import ast
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Context
from typing import Any

from ringrl.curate.shards import Dropped, Row
from ringrl.domains import Domain, Domains
from ringrl.rewards import Verdict
from ringrl.rewards.code_tests import check_tests
from ringrl.rewards.livecodebench import PACKED, unpacked

Judge = Callable[[Iterable[tuple[str, str, Mapping[str, object]]]], list[Verdict]]

NO_TESTS, BROKEN, TRUNCATED = "no tests", "broken tests", "truncated tests"
NO_SOLUTION, NOT_RUN = "no solution", "solution not run"
FAILS, SLOW, LARGE = "solution fails", "solution too slow", "solution takes too much memory"
LACKS, UNCOMPILED = "solution lacks a module", "solution does not compile"
_OUTCOMES = {"timeout": SLOW, "memory": LARGE, "compile": UNCOMPILED, "no_code": UNCOMPILED}
_GRAVITY = (FAILS, SLOW, LARGE, LACKS, UNCOMPILED, NOT_RUN)  # breaks ties between equally frequent reasons

FLOAT_DIGITS = 15  # decimal digits a double always holds; far finer than the judge's tolerance
CUT_CHARS = 200  # longer texts may be cut off by the source, as Codeforces does

_TYPED_BREAK = re.compile(r"(?<!\\)\\r?\\?n(?=$|[\s\d+\\-])|(?<=[\d\s])\\n")
_DECIMAL = re.compile(r"(?<![\w.])-?\d+\.\d+(?![\w.])")
_NUMBERS = re.compile(r"[-+\d. \t]*")
_CUT_NOTE = re.compile(
    r"[\[<(]\s*(?:\.\.\.\s*)?(?:output |input )?(?:truncated|omitted|snip(?:ped)?)\b[^\])>\n]{0,40}[\])>]"
    r"|\.\.\.\s*\[?\d+ (?:more )?(?:chars|characters|bytes|lines|items)\b",
    re.IGNORECASE,
)
_DOTS_MATTER = re.compile(
    r"[\"'`“‘]\.[\"'`”’]|\$\.\$|\bdots?\b|\bperiods?\b|\\texttt\{\.\}|^[.#*\w]*\.\.[.#*]*$", re.MULTILINE
)
_DOTTED = re.compile(r"(?<![\d.])\.(?![\d.]*\d)|\.\.")


# ---- tests -------------------------------------------------------------------------------------------------


def with_good_tests(row: Row, domain: Domain) -> Row | Dropped:
    """The row with its good tests, normalised. The row must have tests."""
    tests = row["tests"]
    if isinstance(tests, Mapping):
        return _checked(row, domain, unpack=PACKED in tests)
    split = isinstance(tests, str) and all(t.startswith(("assert ", "assert(")) for t in _lines(tests))
    listed = _lines(tests) if split else [tests] if isinstance(tests, str) else tests
    if not isinstance(listed, list):
        return Dropped(row, BROKEN, {"detail": f"tests: got {type(tests).__name__}, expected a list or a text"})
    loose = {**domain.reference(row), "tests": listed}
    whole = not _problem(loose)
    good, removed = [], []
    for i, test in enumerate(listed):
        fault = _fault(test, row) or ("" if whole else _problem({**loose, "tests": [test]}))
        if fault:
            removed.append(f"test {i}: {fault}")
        else:
            good.append(_normalised(test, row))
    if not good:
        reason = TRUNCATED if all(": truncated" in r for r in removed) else BROKEN
        return Dropped(row, reason, {"detail": "; ".join(removed)[:500]})
    row = {**row, "tests": "\n".join(good) if isinstance(tests, str) else good}
    if removed:
        row["removed"] = [*row.get("removed", ()), *removed]
    return _checked(row, domain)


def _checked(row: Row, domain: Domain, unpack: bool = False) -> Row | Dropped:
    """The row, if the verifier accepts its tests as a whole."""
    reference = domain.reference(row)
    try:
        fault = _problem(unpacked(reference) if unpack else reference)
    except (ValueError, KeyError, TypeError, AttributeError) as error:  # packed in some other format
        fault = f"{type(error).__name__}: {error}"
    return Dropped(row, BROKEN, {"detail": fault[:500]}) if fault else row


def _problem(reference: Mapping[str, Any]) -> str:
    """Why the verifier refuses these tests, or ""."""
    try:
        check_tests(reference)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:  # the last two from deeply nested literals
        return f"{type(error).__name__}: {error}"
    return ""


def _fault(test: Any, row: Row) -> str:
    """Faults the verifier cannot see: a text that was cut off or lost its line breaks, asserts of nothing."""
    if isinstance(test, str):
        return _fault_of_asserts(test)
    if not isinstance(test, Mapping):
        return ""
    for key in ("input", "output"):
        value = test.get(key)
        if _has_gap(value):
            return f"truncated: {key} has an item '...'"
        if not isinstance(value, str):
            continue
        if is_cut_off(value, str(row["problem"])):
            return f"truncated: {key} ends with {value.rstrip()[-20:]!r}"
        if not row.get("entry_point") and has_typed_breaks(value, str(row["problem"])):
            return f"broken: {key} has \\n in letters: {value[:40]!r}"
        if "\ufffd" in value or "\x00" in value:
            return f"broken: {key} has characters that were lost"
    if not row.get("entry_point") and not row.get("checker") and test.get("output") == "" and test.get("input") == "":
        return "broken: neither input nor output"
    return ""


def _has_gap(value: Any) -> bool:
    """Whether a list of other things than texts contains "..."."""
    if not isinstance(value, list):
        return False
    dots = any(v in ("...", "…") for v in value if isinstance(v, str))
    return (dots and not all(isinstance(v, str) for v in value)) or any(map(_has_gap, value))


def _fault_of_asserts(text: str) -> str:
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        cut = is_cut_off(text, "")
        return f"truncated: ends with {text.rstrip()[-20:]!r}" if cut else f"broken: {type(error).__name__}: {error}"
    cut = any(isinstance(n, ast.Constant) and n.value is ... for n in ast.walk(tree))
    return "truncated: it has a literal ..." if cut else ""


def is_cut_off(text: str, problem: str) -> bool:
    """Whether three dots at the end mean that text was cut off.

    They belong to the data if the problem has them, as `Loading...`, and in a grid of dots.
    """
    text = text.rstrip()
    if _CUT_NOTE.search(text):
        return True
    if not text.endswith(("...", "…")) or text.endswith("...."):
        return False
    rest = text.removesuffix("...").removesuffix("…")
    if len(text) > CUT_CHARS and re.search(r"\w[ ,]*$", rest) and not _DOTTED.search(rest):
        return True
    last = text.rpartition("\n")[2].split()[-1]
    if (last != "..." and last in problem) or _DOTTED.search(rest):
        return False
    if _DOTS_MATTER.search(problem):
        return False
    return not rest.strip() or bool(re.search(r"[\w\s,\]\[(){}\"'+-]$", rest))


def has_typed_breaks(text: str, problem: str) -> bool:
    r"""Whether line breaks were written as the two characters \n: no other backslash, no line break in the text."""
    if "\\n" not in text or "\n" in text.strip() or re.search(r"backslash|escape|\\\\n|\"\\n|'\\n|`\\n", problem):
        return False
    return bool(_TYPED_BREAK.search(text)) and "\\" not in re.sub(r"\\[rn]", "", text)


def _normalised(test: Any, row: Row) -> Any:
    if not isinstance(test, Mapping):
        return test
    out = dict(test)
    for key in ("input", "output"):
        if isinstance(out[key], str):
            out[key] = _plain_lines(out[key], every=key == "output" and not row.get("checker"))
    if row.get("compare") != "exact" and not row.get("checker"):
        out["output"] = _rounded(out["output"])
    return out


def _plain_lines(text: str, every: bool) -> str:
    """Strips trailing blanks from every line, or only from lines of numbers, where they mean nothing."""
    lines = re.sub(r"\r\n?", "\n", text.removeprefix("\ufeff")).split("\n")
    return "\n".join(line.rstrip() if every or _NUMBERS.fullmatch(line) else line for line in lines)


def _rounded(value: Any) -> Any:
    """Floats, and decimals in a text, without digits that are only rounding."""
    if isinstance(value, str):
        return _DECIMAL.sub(lambda m: _decimal(m[0]), value) if "." in value else value
    if isinstance(value, float):
        return float(f"{value:.{FLOAT_DIGITS}g}")
    if isinstance(value, list):
        return [_rounded(v) for v in value]
    return {k: _rounded(v) for k, v in value.items()} if isinstance(value, dict) else value


def _decimal(text: str) -> str:
    if len(text.strip("-0").replace(".", "")) <= FLOAT_DIGITS:
        return text
    plain = format(Context(prec=FLOAT_DIGITS).create_decimal(text).normalize(), "f")
    return plain if "." in plain else f"{plain}.0"  # an integer would be compared exactly


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


# ---- solutions ---------------------------------------------------------------------------------------------


def with_good_solutions(rows: Sequence[Row], domains: Domains, judge: Judge) -> list[Row | Dropped]:
    """Each row with the solutions that pass all its tests; dropped if it has solutions and none passes."""
    tried = [(i, s) for i, row in enumerate(rows) for s in row.get("solutions") or ()]
    blocks = [fenced(solution, rows[i].get("language") or "python") for i, solution in tried]
    references = [domains.reference(row) for row in rows]
    verdicts = judge((rows[i]["domain"], block, references[i]) for (i, _), block in zip(tried, blocks, strict=True))
    faults = list(map(_fault_of_program, verdicts))
    lost = _missing_modules([s for (_, s), f in zip(tried, faults, strict=True) if f[0] in (FAILS, UNCOMPILED)], judge)
    judged: list[list[tuple[str, tuple[str, str]]]] = [[] for _ in rows]
    for (i, solution), fault in zip(tried, faults, strict=True):
        missing = next((m for m in _imported(solution) if m in lost), "") if fault[0] else ""
        judged[i].append((solution, (LACKS, missing) if missing else fault))
    return [_with_good(row, solutions) if solutions else row for row, solutions in zip(rows, judged, strict=True)]


def _with_good(row: Row, judged: Sequence[tuple[str, tuple[str, str]]]) -> Row | Dropped:
    """The row with the solutions without a fault."""
    good = [solution for solution, (reason, _) in judged if not reason]
    removed = [f"{reason}: {detail} ({i})" for i, (_, (reason, detail)) in enumerate(judged) if reason]
    if not good:
        counts = Counter(reason for _, (reason, _) in judged)
        worst = min(counts, key=lambda reason: (-counts[reason], _GRAVITY.index(reason)))
        return Dropped(row, worst, {"detail": "; ".join(removed)[:500]})
    log = {"removed": [*row.get("removed", ()), *removed]} if removed else {}
    return {**row, "solutions": good, **log}


def _fault_of_program(verdict: Verdict) -> tuple[str, str]:
    """(reason, detail); both "" if the program passes."""
    if verdict.kind == "pass":
        return "", ""
    if verdict.kind == "error":
        return NOT_RUN, verdict.reason
    detail = f"{verdict.reason} in test {len(verdict.tests) - 1}" if verdict.tests else verdict.reason
    return _OUTCOMES.get(verdict.reason, FAILS), detail


def _missing_modules(solutions: Sequence[str], judge: Judge) -> set[str]:
    """Modules that failed programs import and the sandbox lacks; tries each import in the sandbox."""
    names = sorted({name for solution in solutions for name in _imported(solution)})
    nothing = {"tests": [{"input": "", "output": ""}]}
    verdicts = judge(("code", fenced(f"import {name}", "python"), nothing) for name in names)
    return {name for name, verdict in zip(names, verdicts, strict=True) if verdict.kind == "fail"}


def _imported(solution: str) -> list[str]:
    """Modules outside the standard library that a Python program imports."""
    if "import" not in solution:
        return []
    try:
        nodes = list(ast.walk(ast.parse(solution)))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    names = [a.name for n in nodes if isinstance(n, ast.Import) for a in n.names]
    names += [n.module for n in nodes if isinstance(n, ast.ImportFrom) and n.module and not n.level]
    tops = dict.fromkeys(name.partition(".")[0] for name in names)
    return [name for name in tops if name not in sys.stdlib_module_names]


def fenced(code: str, language: str) -> str:
    """A program as a response: in a code fence."""
    return code if "```" in code else f"```{language}\n{code}\n```"
