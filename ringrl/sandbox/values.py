"""Plain data as JSON and back, types kept: what passes between a program and its judges. Decoding runs no code."""

from __future__ import annotations

import functools
import math
from collections import Counter, OrderedDict, deque, namedtuple
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

FAULT = b"fault: "  # begins a report on tests that failed themselves
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
    "fraction": (Fraction, lambda v: [v.numerator, v.denominator], lambda v: Fraction(*v)),
    "decimal": (Decimal, str, Decimal),
    "keys": (type({}.keys()), list, lambda v: dict.fromkeys(v).keys()),
    "values": (type({}.values()), list, list),
    "items": (type({}.items()), list, lambda v: dict(v).items()),
}
