r"""Math answers: the last `\boxed{...}` of a response against the reference.

Two plain numbers compare exactly; everything else goes to Math-Verify. Its own time limits are signals and
off here: an expression may take forever, and `VerifierPool` is what puts a deadline on it.
"""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Callable, Mapping
from fractions import Fraction

from ringrl.rewards.verdict import Verdict, after_thinking

MAX_ANSWER_CHARS = 1000  # a longer answer fails unread, unless the reference is of that order itself
MAX_NUMBER_CHARS = 100  # longer numbers are left to Math-Verify

_BRACES = re.compile(r"\\+boxed\s*\{|\\.|[{}]", re.DOTALL)
SPACING = re.compile(r"\s+|\\[,!;: ]|\$")
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(,\d{3})+(\.\d+)?")
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)")
_FRACTION = re.compile(r"(?P<sign>[+-]?)\\[dt]?frac\{(?P<num>[+-]?\d+)\}\{(?P<den>\d+)\}")
_RATIO = re.compile(r"(?P<sign>)(?P<num>[+-]?\d+)/(?P<den>\d+)")


def last_boxed(text: str) -> str:
    r"""Content of the last `\boxed{...}` whose braces balance, innermost if nested; "" if there is none."""
    open_at: list[int] = []  # per open brace: where its content starts if it is a box, else -1
    best, content = -1, ""
    for token in _BRACES.finditer(text):
        symbol = token.group()
        if symbol.endswith("{") and symbol != r"\{":
            open_at.append(token.end() if len(symbol) > 1 else -1)
        elif symbol == "}" and open_at:
            start = open_at.pop()
            if start > best:
                best, content = start, text[start : token.start()]
    return content.strip()


def read_reference(reference: Mapping[str, object]) -> str:
    r"""The reference answer as text, without `\boxed` or `$` around it; "" if the key is absent or empty."""
    answer = reference.get("answer")
    text = "" if answer is None else str(answer).strip()
    return last_boxed(text) or text.strip("$ ")


def read_number(text: str) -> Fraction | None:
    r"""`text` as an exact number if it is an integer, decimal, `a/b` or `\frac{a}{b}`; None otherwise."""
    if len(text) > MAX_NUMBER_CHARS or not text.isascii():
        return None
    text = SPACING.sub("", text) if not re.search(r"\d\s+\d", text) else text
    if _THOUSANDS.fullmatch(text):
        text = text.replace(",", "")
    if _NUMBER.fullmatch(text):
        return Fraction(text)
    ratio = _FRACTION.fullmatch(text) or _RATIO.fullmatch(text)
    if not ratio or int(ratio["den"]) == 0:
        return None
    return Fraction(int(ratio["num"]), int(ratio["den"])) * (-1 if ratio["sign"] == "-" else 1)


@functools.cache
def load_math_verify() -> tuple[Callable[..., list], Callable[..., bool]]:
    """Math-Verify's `parse` and `verify`; seconds of import, hence not at the top.

    Raises:
        ImportError: Math-Verify is not installed.
    """
    import math_verify

    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that its time limits are off
    configs = (math_verify.LatexExtractionConfig(boxed_match_priority=0), math_verify.ExprExtractionConfig())
    parse = functools.partial(math_verify.parse, extraction_config=configs, parsing_timeout=None)
    return parse, functools.partial(math_verify.verify, timeout_seconds=None, raise_on_error=True)


def equal_math(answer: str, expected: str) -> Verdict:
    """Judges an answer already taken out of its response.

    Raises:
        Exception: Math-Verify is not installed (ImportError), or failed at the comparison.
    """
    if answer == expected:
        return Verdict("pass", "exact")
    left, right = read_number(answer), read_number(expected)
    if left is not None and right is not None:
        return Verdict("pass", "exact") if left == right else Verdict("fail", "wrong")
    if len(answer) > max(MAX_ANSWER_CHARS, 4 * len(expected)):
        return Verdict("fail", "too_long")
    parse, verify = load_math_verify()
    gold = parse(f"\\boxed{{{expected}}}")
    if not gold:
        return Verdict("error", f"the reference does not parse: {expected[:80]}")
    target = parse(f"\\boxed{{{answer}}}")
    if not target:
        return Verdict("fail", "unparsable")
    return Verdict("pass", "math_verify") if verify(gold, target) else Verdict("fail", "wrong")


def verify_math(text: str, reference: Mapping[str, object]) -> Verdict:
    """Judges a response against `reference["answer"]`.

    Raises:
        Exception: as `equal_math`; the pool makes a verdict of kind `error` of it.
    """
    expected = read_reference(reference)
    if not expected:
        return Verdict("error", "the reference has no 'answer'")
    answer = last_boxed(after_thinking(text))
    return equal_math(answer, expected) if answer else Verdict("fail", "no_answer")
