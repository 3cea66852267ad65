"""Reads the tests of a code problem, in every form that public data sets use, and refuses the rest by name.

| `tests` | found in |
|---|---|
| `[{"input", "output"}]`, with `fn_name` or `metadata.func_name` in each if a function is called | DeepCoder |
| `{"inputs": [...], "outputs": [...]}`, `fn_name` if a function is called | APPS, TACO, CodeContests |
| Python text, or a list of such texts, which share their names | HumanEval, MBPP, KodCode |
| JSON text of any of these, and of their items, nested as deep as it may be | most of them, in Parquet |

A Python text asserts: `assert`, `check(candidate)`, functions and classes as pytest finds them, unittest cases,
doctest examples, all of it also behind a main guard. `entry_point` names what is called, and what `candidate` is;
where it is missing, `candidate` is the last method of the class Solution, or the last function that the program
defines. A text that can assert nothing is refused here, as are a comparison that stands alone, an assert of a tuple,
modules that are not installed, and tests of what the program prints, which stays in its sandbox.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import math
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from ringrl.rewards.livecodebench import unpacked
from ringrl.sandbox import asserts
from ringrl.sandbox.box import Limits
from ringrl.sandbox.local import LANGUAGES

LIMITS = Limits()  # limits of one test
MAX_DIGITS = 100_000  # of an integer in JSON
_COLUMNS = (("inputs", "outputs"), ("input", "output"))
_PRINTED = re.compile(
    r"\b(capsys|capfd|redirect_stdout|redirect_stderr|monkeypatch)\b|\bpatch\(\s*['\"](builtins|sys)\."
)


@dataclass(frozen=True)
class Pair:
    """A test: what goes in and what must come out."""

    given: Any
    expected: Any
    wrapped: bool = False  # `expected` may be a list around the result, as in APPS


@dataclass(frozen=True)
class CodeTests:
    """The tests of a problem: texts, or pairs."""

    language: str
    entry: str
    checker: str
    texts: tuple[str, ...]
    pairs: tuple[Pair, ...]
    limits: Limits
    exact: bool = False


def check_tests(reference: Mapping[str, object]) -> None:
    """Raises ValueError, naming the problem, for tests that `verify_code` cannot use."""
    read_tests(unpacked(reference))


def read_tests(reference: Mapping[str, object]) -> CodeTests:
    """Raises ValueError if there are no usable tests."""
    try:
        return _read(reference)
    except (SyntaxError, RecursionError, MemoryError) as error:  # the last two from deeply nested literals
        raise ValueError(f"{type(error).__name__}: {error}") from None


def _read(reference: Mapping[str, object]) -> CodeTests:
    language, checker = reference.get("language") or "python", reference.get("checker") or ""
    tests, entry = _listed(reference.get("tests"), reference.get("entry_point") or "")
    if language not in LANGUAGES:
        raise ValueError(f"language: got {language!r}, expected one of {', '.join(LANGUAGES)}")
    if not tests:
        raise ValueError("the reference has no 'tests'")
    if not isinstance(checker, str) or (checker and "check" not in asserts.defined(ast.parse(checker))):
        raise ValueError("'checker' must be Python that defines check(input, output, expected)")
    texts = [test for test in tests if isinstance(test, str)]
    if language != "python" and (entry or texts):
        raise ValueError(f"tests of {language} must be objects with 'input' and 'output', without an entry point")
    limits = _limits(reference.get("time_limit_s"))
    if texts:
        _check_texts(tests, entry)
        return CodeTests("python", entry, "", tuple(texts), (Pair("", ""),), limits)
    exact = reference.get("compare") == "exact"
    pairs = [(_arguments if entry else _texts)(test) for test in tests]
    if entry and not exact and all(isinstance(p.expected, list) and len(p.expected) == 1 for p in pairs):
        pairs = [replace(p, wrapped=True) for p in pairs]
    return CodeTests(str(language), entry, checker, (), tuple(pairs), limits, exact)


def _limits(time_limit_s: object) -> Limits:
    if time_limit_s is None:
        return LIMITS
    if not isinstance(time_limit_s, (int, float)) or not 0 < time_limit_s < math.inf:
        raise ValueError(f"time_limit_s: got {time_limit_s!r}, expected seconds")
    return replace(LIMITS, wall_s=2.0 * time_limit_s, cpu_s=math.ceil(time_limit_s))


# ---- shapes ------------------------------------------------------------------------------------------------


def _listed(tests: Any, entry: object) -> tuple[list[Any], str]:
    """The tests as a list of texts or of {"input", "output"}, and the entry point."""
    if not isinstance(entry, str):
        raise ValueError(f"entry_point: got {entry!r}, expected a name")
    tests = _unwrapped(tests)
    names = {entry} - {""}
    if isinstance(tests, Mapping):
        names |= _names(tests)
        tests = _rows(tests, bool(names))
    if not isinstance(tests, list):
        tests = [tests] if isinstance(tests, str) else []
    tests = list(_flat(tests))
    for test in tests:
        names |= _names(test) if isinstance(test, Mapping) else set()
    if len(names) > 1:
        raise ValueError(f"got the entry points {', '.join(sorted(names))}, expected one")
    entry = next(iter(names), "")
    kinds = {test.get("testtype", test.get("type")) for test in tests if isinstance(test, Mapping)}
    if kinds & {"functional", "function_call"} and not entry:
        raise ValueError("tests of a function without its name")
    return tests, entry


def _unwrapped(tests: Any) -> Any:
    """What JSON text holds, if it is a list, an object or a text; other texts as they are."""
    while isinstance(tests, str):
        try:
            inner = load(tests)
        except (ValueError, RecursionError):
            break
        if not isinstance(inner, (list, dict, str)):
            break
        tests = inner
    return tests


def _flat(tests: list[Any]) -> Iterator[Any]:
    for test in map(_unwrapped, tests):
        if isinstance(test, list):
            yield from _flat(test)
        else:
            yield test


def load(text: str) -> Any:
    """A JSON value with integers of any length up to MAX_DIGITS. Raises ValueError."""
    return json.loads(text, parse_int=_integer)


def _integer(text: str) -> int:
    if len(text) <= 4000:  # Python's own limit, which is one of time
        return int(text)
    if len(text) > MAX_DIGITS:
        raise ValueError(f"an integer of {len(text)} digits, expected at most {MAX_DIGITS}")
    return int(Decimal(text))


def _names(test: Mapping[str, Any]) -> set[str]:
    """The function that a test or a set of tests names itself."""
    found = [test.get("fn_name"), test.get("func_name")]
    metadata = _unwrapped(test.get("metadata"))
    if isinstance(metadata, Mapping):
        found.append(metadata.get("func_name"))
    return {name for name in found if isinstance(name, str) and name}


def _rows(tests: Mapping[str, Any], called: bool) -> list[Any]:
    """{"input", "output"} of each test of a set with two columns, or of a set that is one test.

    Where no function is called, a text may be the list of its lines.
    """
    for columns in _COLUMNS:
        given, expected = (tests.get(column) for column in columns)
        if given is None or expected is None:
            continue
        if columns == ("input", "output") and (called or isinstance(given, str)):
            return [{"input": given, "output": expected}]
        if isinstance(given, list) and isinstance(expected, list):
            if len(given) != len(expected):
                raise ValueError(f"got {len(given)} {columns[0]} and {len(expected)} {columns[1]}, expected as many")
            sides = zip(given, expected, strict=True)
            return [{"input": i, "output": o} if called else {"input": _text(i), "output": _text(o)} for i, o in sides]
    raise ValueError(f"tests: got an object with {', '.join(map(str, tests))[:100]}; expected 'inputs' and 'outputs'")


def _texts(test: Any) -> Pair:
    given, expected = _sides(test)
    if not isinstance(given, str) or not isinstance(expected, str):
        raise ValueError("tests must be asserts or objects with the texts 'input' and 'output', or name a function")
    return Pair(given, expected)


def _text(side: Any) -> Any:
    """A text, also where it is a list of its lines."""
    lines = isinstance(side, list) and side and all(isinstance(line, str) for line in side)
    return "\n".join(side) if lines else side


def _arguments(test: Any) -> Pair:
    given, expected = _sides(test)
    if isinstance(given, str):
        if not isinstance(expected, str):
            raise ValueError("where 'input' is a text with a JSON value a line, 'output' must be one, too")
        return Pair([load(line) for line in given.splitlines() if line.strip()], load(expected))
    if not isinstance(given, list):
        raise ValueError("'input' must be a list of arguments, or a text with a JSON value a line")
    return Pair(given, expected)


def _sides(test: Any) -> tuple[Any, Any]:
    if not isinstance(test, Mapping) or not {"input", "output"} <= test.keys():
        raise ValueError("tests must be asserts or objects with 'input' and 'output'")
    return test["input"], test["output"]


# ---- Python ------------------------------------------------------------------------------------------------


def _check_texts(tests: Sequence[Any], entry: str) -> None:
    """Raises ValueError or SyntaxError unless these texts are Python that can assert something of a program."""
    if entry:
        ast.parse(entry, mode="eval")
    found = 0
    for text in tests:
        if not isinstance(text, str) or not text.strip():
            raise ValueError("tests must be texts that are not empty, or objects with 'input' and 'output'")
        if printed := _PRINTED.search(text):
            raise ValueError(f"tests: got {printed[0]!r}, expected none: what a program prints stays in its sandbox")
        try:
            found += asserts.assertions(text)
        except SyntaxError:
            if ">>>" not in text:
                raise
            found += len(_examples(text))
            continue
        tree = ast.parse(text)
        found += sum(len(_examples(part)) for part in asserts.standing(tree))
        _check_modules(tree)
    if not found:
        raise ValueError("tests: nothing in them asserts anything")


def _examples(text: str) -> list[Any]:
    """The doctest examples that expect something. Raises ValueError, or SyntaxError for one that is no Python."""
    if ">>>" not in text:
        return []
    from doctest import DocTestParser

    examples = DocTestParser().get_examples(text)
    for example in examples:
        ast.parse(example.source)
    return [example for example in examples if example.want]


def _check_modules(tree: ast.Module) -> None:
    for name in asserts.imported(tree):
        known = name in asserts.PROGRAM or name in sys.stdlib_module_names
        if not known and importlib.util.find_spec(name) is None:
            raise ValueError(f"tests: they import {name}, which is not installed")
