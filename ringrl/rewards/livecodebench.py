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
import json
import pickletools
import zlib
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

PACKED = "private_test_cases"
MAX_BYTES = 512 << 20  # of one problem's unpacked tests; more does not fit into a verifier's memory several times
_OF_A_STRING = {"PROTO", "FRAME", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "MEMOIZE", "PUT",
                "BINPUT", "LONG_BINPUT", "STOP"}  # fmt: skip
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
    """The one string in a pickle, which is read and not run. Raises ValueError for any other, and for a large one."""
    try:
        unzip = zlib.decompressobj()
        pickled = unzip.decompress(base64.b64decode(text, validate=True), MAX_BYTES)
        if not unzip.eof:
            raise ValueError(f"cut short, or more than {MAX_BYTES} bytes")
        operations = list(pickletools.genops(pickled))
    except (ValueError, zlib.error) as e:
        raise ValueError(f"test cases: neither JSON nor packed JSON: {e}") from None
    for operation, _, _ in operations:
        if operation.name not in _OF_A_STRING:
            raise ValueError(f"test cases: a pickle with {operation.name} in it, expected of one string")
    strings = [value for _, value, _ in operations if isinstance(value, str)]
    if len(strings) != 1:
        raise ValueError(f"test cases: a pickle of {len(strings)} strings, expected of one")
    return strings[0]


def same_decimals(actual: str, expected: str) -> bool:
    """Whether two outputs are the same to LiveCodeBench's checker."""
    left, right = ([line.strip() for line in text.strip().split("\n")] for text in (actual, expected))
    return len(left) == len(right) and all(a == b or _equal_numbers(a, b) for a, b in zip(left, right, strict=True))


def _equal_numbers(left: str, right: str) -> bool:
    try:
        return [Decimal(token) for token in left.split()] == [Decimal(token) for token in right.split()]
    except InvalidOperation:
        return False
