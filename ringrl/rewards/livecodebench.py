"""LiveCodeBench's tests as its files hold them, unpacked where they are run: decoded they are a hundred times larger.

`public_test_cases` is JSON; `private_test_cases` is JSON too, or base64 of zlib of a pickle of that JSON as one
string. Each test is {"input", "output", "testtype"}. A functional test has one JSON value a line for each argument,
and a JSON value as output; the function is the attribute `func_name` of a `Solution()`, or a function of the program.

The rules are those of its public checker (lcb_runner/evaluation/testing_util.py): all tests must pass, public ones
first, each within 6 seconds. Standard output is compared line by line without white space around lines and text;
lines that differ are compared as lists of decimal numbers, exactly. A function's result must equal the expected value,
a tuple counting as a list. Programs find much of the standard library imported.

Ours is stricter, and safer, in these: a program that ends with an exit status other than 0 fails whatever it printed;
the tests of a response share a deadline; memory, files and processes are limited and there is no network; code is what
stands in the last closed Python block after the thought.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import pickle
import zlib
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

PACKED = "private_test_cases"
DEEPER = "import sys; sys.setrecursionlimit(50000)\n"  # what its programs begin with


def unpacked(reference: Mapping[str, Any]) -> Mapping[str, Any]:
    """What `verify_code` reads, {"tests", "entry_point", "compare"}; what is not packed stays as it is.

    Raises:
        ValueError: the tests are packed, but not of the shape above.
    """
    tests = reference.get("tests")
    if not isinstance(tests, Mapping) or PACKED not in tests:
        return reference
    cases = [*_cases(tests["public_test_cases"]), *_cases(tests[PACKED])]
    if not cases:
        raise ValueError("no test cases")
    pairs = [{"input": c["input"], "output": c["output"]} for c in cases]
    return {"tests": pairs, "entry_point": tests.get("func_name") or "", "compare": "exact"}


def _cases(text: str) -> list[dict[str, str]]:
    """Raises ValueError."""
    try:
        cases = json.loads(text)
    except json.JSONDecodeError:
        cases = json.loads(_unpickled(text))
    if not isinstance(cases, list) or not all(isinstance(c.get(k), str) for c in cases for k in ("input", "output")):
        raise ValueError('test cases: expected a list of {"input", "output"} with texts')
    return cases


def _unpickled(text: str) -> str:
    try:
        value = _OneString(io.BytesIO(zlib.decompress(base64.b64decode(text, validate=True)))).load()
    except (binascii.Error, zlib.error, pickle.UnpicklingError, EOFError) as e:
        raise ValueError(f"test cases: neither JSON nor packed JSON: {e}") from None
    if not isinstance(value, str):
        raise ValueError(f"test cases: a pickle of {type(value).__name__}, expected of a string")
    return value


class _OneString(pickle.Unpickler):
    """Builds nothing but what needs no class: a pickle that names one is refused before anything is called."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it names {module}.{name}, expected one string")


def same_decimals(actual: str, expected: str) -> bool:
    """Whether two outputs are the same to LiveCodeBench's checker."""
    left, right = ([line.strip() for line in text.strip().split("\n")] for text in (actual, expected))
    return len(left) == len(right) and all(a == b or _equal_numbers(a, b) for a, b in zip(left, right, strict=True))


def _equal_numbers(left: str, right: str) -> bool:
    try:
        return [Decimal(token) for token in left.split()] == [Decimal(token) for token in right.split()]
    except InvalidOperation:
        return False
