r"""Science answers: an option letter, a number within a tolerance, or else what math accepts."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from ringrl.rewards.math import MAX_NUMBER_CHARS, SPACING, equal_math, last_boxed, read_number, read_reference
from ringrl.rewards.verdict import Verdict, after_thinking

RELATIVE_TOLERANCE = 1e-2  # of the reference

_WRAPPER = re.compile(r"\\(?:text|textbf|textrm|mathrm|mathbf|mathit|mathsf|operatorname)\s*\{([^{}]*)\}")
_LETTER = re.compile(r"\(?\s*([A-Za-z])\s*\)?(?:\s*[.:)].*)?", re.DOTALL)
_SCIENTIFIC = re.compile(
    r"(?P<sig>[+-]?(?:\d+\.?\d*|\.\d+))(?:[eE](?P<e>[+-]?\d{1,3})|(?:\\times|\\cdot|\*)10\^\{?(?P<p>[+-]?\d{1,3})\}?)"
)


def read_letter(text: str) -> str:
    r"""The option letter of `B`, `(B)`, `\text{B}`, `B. because`, in upper case; "" otherwise."""
    bare = _WRAPPER.sub(r"\1", text).strip("$ .")
    match = _LETTER.fullmatch(bare)
    return match[1].upper() if match else ""


def read_float(text: str) -> float:
    r"""A plain number or one in scientific notation (`1.2e3`, `1.2 \times 10^{3}`); nan otherwise."""
    number = read_number(text)
    if number is not None:
        return float(number)
    match = _SCIENTIFIC.fullmatch(SPACING.sub("", text)) if len(text) <= MAX_NUMBER_CHARS else None
    return float(f"{match['sig']}e{match['e'] or match['p']}") if match else math.nan


def verify_science(text: str, reference: Mapping[str, object]) -> Verdict:
    """Judges a response against `reference["answer"]`.

    Raises:
        Exception: as `equal_math`; the pool makes a verdict of kind `error` of it.
    """
    expected = read_reference(reference)
    if not expected:
        return Verdict("error", "the reference has no 'answer'")
    answer = last_boxed(after_thinking(text))
    if not answer:
        return Verdict("fail", "no_answer")
    letter = _WRAPPER.sub(r"\1", expected).strip("$().: ")
    if re.fullmatch(r"[A-Z]", letter):
        return Verdict("pass", "choice") if read_letter(answer) == letter else Verdict("fail", "wrong")
    right, left = read_float(expected), read_float(answer)
    if not (math.isnan(right) or math.isnan(left)):
        close = abs(left - right) <= RELATIVE_TOLERANCE * abs(right)
        return Verdict("pass", "number") if close else Verdict("fail", "wrong")
    return equal_math(answer, expected)
