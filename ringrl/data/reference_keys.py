"""What the keys of a final answer's reference say: `answer`, and `tolerance`, by which a row's numbers are judged."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

ABSENT = ("", "nan", "null", "<na>", "n/a", "#n/a", "nat", "\\n")  # what tables write where there is nothing
EXPECTED = 'expected {"relative": number below 1} or {"absolute": number, or a list of one for each answer}'


@dataclass(frozen=True)
class Tolerance:
    """How far a number may be from the reference; `absolute` has a value for each answer, or one for all of them."""

    relative: Fraction = Fraction(0)
    absolute: tuple[Fraction, ...] = ()

    def allows(self, difference: Any, expected: Any) -> bool:
        """Whether numbers that differ so much agree; only with one absolute value, or none."""
        limit = self.absolute[0] if self.absolute else self.relative
        return bool(abs(difference) * limit.denominator <= limit.numerator * (1 if self.absolute else abs(expected)))


def read_tolerance(raw: Any) -> Tolerance | None:
    """The tolerance of a row, None for a row without one. Raises ValueError for one that cannot be read."""
    if raw is None or raw in ("", {}):
        return None
    try:
        given = json.loads(raw) if isinstance(raw, str) else raw  # a text is a field of a CSV file
    except (ValueError, RecursionError):
        given = raw
    known = {k: v for k, v in given.items() if v is not None} if isinstance(given, dict) else {"": given}
    if not known:
        return None
    kind, value = next(iter(known.items()))
    try:
        if len(known) == 1 and kind == "relative" and (relative := _number(value)) < 1:
            return Tolerance(relative=relative)
        if len(known) == 1 and kind == "absolute":
            return Tolerance(absolute=tuple(map(_number, value if isinstance(value, list) else [value])))
    except ValueError:
        pass
    raise ValueError(f"tolerance: got {str(raw)[:80]}, {EXPECTED}")


def _number(value: Any) -> Fraction:
    """Raises ValueError unless it is a finite number of at least 0, or the text of one."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError
    number = float(value)
    if not 0 <= number < math.inf:
        raise ValueError
    return Fraction(repr(number))


def answer_text(raw: Any) -> str:
    """An answer as a text, "" if there is none: 5.0 is 5, and a list holds several answers that are all wanted.

    Raises:
        ValueError: it is neither a text nor a number, nor a list of these.
    """
    if isinstance(raw, list):
        return ", ".join(text for item in raw if (text := _text(item)))
    return _text(raw)


def _text(raw: Any) -> str:
    if raw is None or (isinstance(raw, float) and math.isnan(raw)):
        return ""
    if isinstance(raw, str) and raw.strip().lower() in ABSENT:  # "None" is an answer
        return ""
    if isinstance(raw, float) and raw.is_integer():
        return str(int(raw)) if abs(raw) < 1 << 53 else repr(raw)
    if isinstance(raw, str | int | Decimal) or (isinstance(raw, float) and math.isfinite(raw)):
        return str(raw)
    raise ValueError(f"got {str(raw)[:80]} of type {type(raw).__name__}, expected a text, a number, or a list of them")
