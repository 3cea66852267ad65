"""Plain data as JSON and back, types kept: what passes between a program and its judges. Decoding runs no code."""

from __future__ import annotations

import functools
import json
import math
import operator
from collections import Counter, OrderedDict, deque, namedtuple
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

FAULT = b"fault: "  # begins a report on tests that failed themselves
TOLERANCE = 1e-6  # absolute or relative, for expected values written as decimals
_EXACT_BITS = 256  # larger integers travel in hexadecimal: decimal digits take quadratic time, and have a limit


class NotPlain(TypeError):
    """The value is none of the types below."""


def encode(value: Any, other: Callable[[Any], dict[str, Any]] | None = None) -> Any:
    """What `json` can carry; `other` encodes what is no plain data.

    Raises:
        NotPlain: there is no `other`.
        RecursionError: a value that contains itself.
    """
    if value is None or isinstance(value, (bool, str)):
        return value if value is None or isinstance(value, bool) else str.__str__(value)
    if isinstance(value, int):
        value = int(value)
        return value if value.bit_length() <= _EXACT_BITS else {"int": hex(value)}
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"float": float.__repr__(value)}
    if isinstance(value, list):
        return [encode(v, other) for v in value]
    if isinstance(value, dict) and not isinstance(value, (Counter, OrderedDict)):
        return {"dict": [[encode(k, other), encode(v, other)] for k, v in value.items()]}
    fields = getattr(type(value), "_fields", None)
    if isinstance(value, tuple) and isinstance(fields, tuple):
        return {"named": [type(value).__name__, encode(list(fields)), [encode(v, other) for v in value]]}
    for name, (kind, out, _) in _OTHERS.items():
        if isinstance(value, kind):
            return {name: encode(out(value), other)}
    if other is None:
        raise NotPlain(f"a result of type {type(value).__name__} is no plain data")
    return other(value)


def decode(data: Any, other: Callable[[str, Any], Any] | None = None) -> Any:
    """The inverse of `encode`; `other` decodes what the other `other` encoded.

    Raises:
        ValueError, TypeError, LookupError, ArithmeticError, RecursionError: not what `encode` makes.
    """
    if isinstance(data, list):
        return [decode(v, other) for v in data]
    if not isinstance(data, dict):
        return data
    ((name, content),) = data.items()
    if name == "int":
        return int(content, 16)
    if name == "float":
        return float(content)
    if name == "dict":
        return {decode(k, other): decode(v, other) for k, v in content}
    if name == "named":
        return _named(content[0], tuple(content[1]))(*decode(content[2], other))
    if name in _OTHERS:
        return _OTHERS[name][2](decode(content, other))
    if other is None:
        raise ValueError(f"unknown kind {name!r}")
    return other(name, content)


def untupled(data: Any) -> Any:
    """A tuple, encoded, as the list of its items; other values as they are."""
    if not isinstance(data, dict) or data.keys() - {"tuple", "named"}:
        return data
    return data["tuple"] if "tuple" in data else data["named"][2]


def equal(data: Any, expected: Any, strict: bool = False) -> bool:
    """Whether an encoded value is one of plain JSON; takes as long as that is, whatever the value claims to be.

    Tuples equal lists, keys are compared as JSON writes them, floats within TOLERANCE; none of it if `strict`.

    Raises:
        ValueError, TypeError, LookupError, AttributeError: not what `encode` makes.
    """
    ((kind, content),) = data.items() if isinstance(data, dict) else [("", data)]
    if isinstance(expected, (list, tuple)):
        items = content if kind == "" or (not strict and kind == "tuple") else content[2] if kind == "named" else None
        if not isinstance(items, list) or len(items) != len(expected) or (strict and kind):
            return False
        return all(equal(i, e, strict) for i, e in zip(items, expected, strict=True))
    if isinstance(expected, dict):
        if kind in ("counter", "ordered"):
            ((kind, content),) = content.items()
        if kind != "dict" or len(content) != len(expected):
            return False
        pairs = {_key(key, strict): value for key, value in content}
        wanted = {str(key): value for key, value in expected.items()}
        return pairs.keys() == wanted.keys() and all(equal(pairs[key], v, strict) for key, v in wanted.items())
    return kind in _NUMBERS and _equal_plain(kind, content, expected, strict)


def _key(key: Any, strict: bool) -> str:
    if isinstance(key, str):
        return key
    if not strict and isinstance(key, (bool, int, float, type(None))):
        return str(key)
    if not strict and "tuple" in key and not any(isinstance(item, (list, dict)) for item in key["tuple"]):
        return str(tuple(key["tuple"]))
    return f"\0{json.dumps(key)}"  # nothing that JSON has for a key


def _equal_plain(kind: str, content: Any, expected: Any, strict: bool) -> bool:
    if kind == "int" and isinstance(expected, int) and abs(4 * len(content) - expected.bit_length()) > 16:
        return False
    actual = decode({kind: content}) if kind else content
    if not strict and isinstance(expected, float) and isinstance(actual, (int, float)):
        try:
            return math.isclose(actual, expected, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
        except OverflowError:  # an integer that no float can hold
            return False
    return isinstance(actual, (bool, int, float, str, type(None))) and bool(actual == expected)


_NUMBERS = ("", "int", "float")


@functools.lru_cache(maxsize=64)
def _named(name: str, fields: tuple[str, ...]) -> Any:
    return namedtuple(name, fields)


_OTHERS: dict[str, tuple[Any, Callable[[Any], Any], Callable[[Any], Any]]] = {
    "counter": (Counter, dict, Counter),
    "ordered": (OrderedDict, dict, OrderedDict),
    "tuple": (tuple, list, tuple),
    "set": (set, list, set),
    "frozenset": (frozenset, list, frozenset),
    "deque": (deque, list, deque),
    "bytes": (bytes, lambda v: v.decode("latin-1"), lambda v: v.encode("latin-1")),
    "bytearray": (bytearray, lambda v: v.decode("latin-1"), lambda v: bytearray(v.encode("latin-1"))),
    "complex": (complex, lambda v: [v.real, v.imag], lambda v: complex(*v)),
    "range": (range, lambda v: [v.start, v.stop, v.step], lambda v: range(*v)),
    "fraction": (Fraction, lambda v: [v.numerator, v.denominator], lambda v: Fraction(*map(operator.index, v))),
    "decimal": (Decimal, str, Decimal),
    "keys": (type({}.keys()), list, lambda v: dict.fromkeys(v).keys()),
    "values": (type({}.values()), list, list),
    "items": (type({}.items()), list, lambda v: dict(v).items()),
}
