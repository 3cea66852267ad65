r"""Verdicts, and the verifiers of final answers: the last `\boxed{...}` of a response against the reference.

Plain LaTeX is compared exactly (`ringrl.rewards.plain`); the rest goes to Math-Verify. Its own time limits use signals
and are off here: an expression may take forever, and `VerifierPool` enforces the deadline; expressions that obviously
would are refused. The rules where graders differ:

1. Boxes side by side ("\boxed{1} and \boxed{2}") are one list. A list is wrong where one value is expected.
2. Equal means equal: 0.3333 is not 1/3. In science, and only there, a number has a tolerance, if the reference is
   written with a decimal point or an exponent: 9.8 is measured, 100 is counted.
3. A unit, percent sign or number base on one side only is taken from the question: 5 cm is 5. Two units are
   converted and must agree: 5 cm is 0.05 m and not 5 m. 50 % is 0.5, and also 50, since a number above 1 may be
   a percentage without its sign.
4. Repeating the question is no answer: sums, integrals, limits and the like must be evaluated, unless the
   reference is not evaluated either.
5. Values without brackets match both a set and a point; (1, 2) and {1, 2} differ.
"""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from ringrl.rewards.plain import (
    clean,
    contradicts_itself,
    read,
    read_number,
    right_sides,
    same,
    skeleton,
    split_unit,
)
from ringrl.rewards.units import Unit
from ringrl.rewards.verdict import Verdict, after_thinking

RELATIVE_TOLERANCE = Fraction(1, 100)  # applies to references with a decimal point or an exponent
MAX_ANSWER_CHARS = 1000  # a longer answer fails unread, unless the reference is about as long
MAX_DEPTH = 20  # deeper nesting of brackets fails, unless the reference has it too
MAX_POWER = 10_000  # a larger exponent or factorial fails, unless the reference has it too
MAX_EXPANSION = 24  # a larger power of a sum fails, unless the reference has it too

_BRACES = re.compile(r"\\+(?:boxed|fbox)\s*\{|\\boxed\s*[A-Za-z\d]|\\.|[{}]", re.DOTALL)
_BETWEEN_BOXES = re.compile(r"(?:[\s,;$&]|\\\\|\\[,; ]|\\q?quad|and|or|\\text\{\s*,?\s*(?:and|or)\s*\})*")
_WORD = re.compile(r"\\text\s*\{([^{}\\]*)\}|[A-Za-z](?:[A-Za-z' -]{2,})?")
_TEXT = re.compile(r"\\text\s*\{[^{}\\]*\}|[A-Za-z' -]*[A-Za-z]{4}[A-Za-z' -]*")  # letters that cannot be factors
_FORMULA = (  # a letter followed by this is a variable, not an option
    r"[=<>≤≥≈≠∈+*/^]|-(?! [A-Za-z]{2})|"
    r"\\(?:in|geq?|leq?|neq?|equiv|approx|sim|to|propto|pm|cdot|times|left)(?![A-Za-z])"
)
_LETTER = re.compile(
    rf"(?:[Oo]ption|[Cc]hoice)? *\(?\s*([A-Za-z])\s*\)?(?:\s*[.:)].*| +(?!{_FORMULA})[^A-Za-z\s,;].*)?", re.DOTALL
)
_LETTERS = re.compile(r"\(?[A-Za-z]\)?(?: ?[,;] ?\(?[A-Za-z]\)?)+")
_QUESTION = re.compile(r"\\(?:sum|prod|i{1,3}nt|oint|lim|bmod|mod|max|min|gcd|det|sup|inf)(?![a-zA-Z])")
_SIDE_BY_SIDE = re.compile(r"(?:^|[^_^\d.])\d[\d.]* \d")
_TOWER = re.compile(r"(?:\^|\*\*) ?[{(]* ?-?[\d.]+ ?[)}]* ?(?:\^|\*\*)")
_SMALL_TOWER = re.compile(r"(?:\^|\*\*) ?[{(]? ?(\d{1,2}) ?(?:\^|\*\*) ?[{(]? ?([0-4])(?!\d) ?[)}]? ?[)}]?")
_POWER = re.compile(r"(?:\^|\*\*) ?[{(]? ?-?(\d+)")
_FACTORIAL = re.compile(r"(\d+) ?\)* ?!|\\binom ?\{[^{}]*?(\d{5,})")
_NESTED_FACTORIAL = re.compile(r"\^ ?(?:\d+|\{[^{}]*\}) ?!|[!^][^a-zA-Z]*\) ?!|!\)* ?\(*!|\\binom ?\{[^{}]*\^")
_OF_A_SUM = re.compile(r"[)\]}] ?\^ ?\{? ?(\d+)")


def last_boxed(text: str) -> str:
    r"""Content of the last `\boxed{...}` whose braces balance, innermost if nested; "" if there is none.

    Boxes separated by at most a comma or "and" are joined to a list.
    """
    ordered = sorted(boxes(text), key=lambda box: box[1])
    if not ordered:
        return ""
    start, *content = ordered.pop()
    contents = [text[slice(*content)].strip()]
    for before in reversed(ordered):
        if before[2] < start and _BETWEEN_BOXES.fullmatch(text, before[2] + 1, start):
            contents.append(text[slice(*before[1:])].strip())
        elif before[2] < start:
            break
        start = min(start, before[0])
    return ", ".join(dict.fromkeys(reversed(contents)))


def boxes(text: str) -> list[tuple[int, int, int]]:
    """Positions of each box: of its command, its content and its closing brace."""
    open_at: list[tuple[int, int]] = []  # start of command and content per open brace, (-1, -1) if not a box
    closed = []
    for token in _BRACES.finditer(text):
        symbol = token.group()
        if symbol.endswith("{") and symbol != r"\{":
            open_at.append(token.span() if len(symbol) > 1 else (-1, -1))
        elif symbol == "}" and open_at:
            start, content = open_at.pop()
            if start >= 0:
                closed.append((start, content, token.start()))
        elif symbol.startswith(r"\boxed"):
            closed.append((token.start(), token.end() - 1, token.end()))
    return closed


@functools.cache
def load_math_verify() -> tuple[Callable[[str], list[Any]], Callable[[list[Any], list[Any]], bool]]:
    """Math-Verify's `parse` and `verify`, imported here because that takes seconds."""
    import math_verify
    from latex2sympy2_extended import NormalizationConfig

    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that its time limits are off
    normalization = NormalizationConfig(basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="all")
    latex = math_verify.LatexExtractionConfig(boxed_match_priority=0, normalization_config=normalization)
    parse = functools.partial(  # "first_match" does not fall back to a number inside text that fails to parse
        math_verify.parse, extraction_config=(latex,), extraction_mode="first_match", parsing_timeout=None
    )
    verify = functools.partial(
        math_verify.verify, timeout_seconds=None, raise_on_error=True, allow_set_relation_comp=True
    )
    return functools.lru_cache(1024)(parse), verify


def verify_math(text: str, reference: Mapping[str, object]) -> Verdict:
    """Judges a response against `reference["answer"]`; failures on our side are raised, for the pool to catch."""
    return _verify(text, reference, _equal_math)


def verify_science(text: str, reference: Mapping[str, object]) -> Verdict:
    """Judges a response against `reference["answer"]`; raises as `verify_math`."""
    return _verify(text, reference, _equal_science)


def _verify(text: str, reference: Mapping[str, object], equal: Callable[[str, str], Verdict]) -> Verdict:
    raw = reference.get("answer")
    expected = "" if raw is None else str(raw).strip()
    expected = last_boxed(expected) or expected
    if not expected.strip("$ "):
        return Verdict("error", "the reference has no 'answer'")
    answer = last_boxed(after_thinking(text))
    if not answer:
        return Verdict("fail", "no_answer")
    if answer == expected:
        return Verdict("pass", "exact")
    if len(answer) > max(MAX_ANSWER_CHARS, 4 * len(expected)):
        return Verdict("fail", "too_long")
    return equal(clean(answer), clean(expected))


def _equal_math(answer: str, expected: str) -> Verdict:
    return _judge(answer, expected, tolerance=Fraction(0), bare=False)


def _equal_science(answer: str, expected: str) -> Verdict:
    letters = _letters(expected)
    if letters:
        return Verdict("pass", "choice") if _letters(answer) == letters else Verdict("fail", "wrong")
    magnitude = split_unit(right_sides(answer, expected)[1]).magnitude
    measured = re.search(r"[.eE^]", magnitude) and read_number(magnitude) is not None
    return _judge(answer, expected, tolerance=RELATIVE_TOLERANCE if measured else Fraction(0), bare=True)


def _letters(text: str) -> str:
    r"""The option letters of `B`, `(B)`, `\text{B}`, `B. because`, `C, A`, sorted; "" for anything else."""
    text = re.sub(r"\\text ?\{([^{}]*)\}", r"\1", text).strip(" .")
    if _LETTERS.fullmatch(text):
        return "".join(sorted(re.findall("[A-Z]", text.upper())))
    match = _LETTER.fullmatch(text)
    return match[1].upper() if match else ""


def _judge(answer: str, expected: str, tolerance: Fraction, bare: bool) -> Verdict:
    """Compares clean texts, from the cheapest comparison to the most expensive one."""
    if skeleton(answer) == skeleton(expected):
        return Verdict("pass", "exact")
    if contradicts_itself(answer):
        return Verdict("fail", "contradiction")
    answer, expected = right_sides(answer, expected)
    left = split_unit(answer, bare)
    right = split_unit(expected, bare or left.unit is not None)
    left = split_unit(answer, bare or right.unit is not None)
    if left.unit and right.unit and left.unit.dimensions != right.unit.dimensions:
        return Verdict("fail", "unit")
    scales = _scales(left.unit, right.unit)
    equal = [_equal_plain(left.magnitude, right.magnitude, scale, tolerance) for scale in scales]
    if None in equal:
        n, d = scales[0].as_integer_ratio()
        scaled = left.magnitude if n == d else rf"\frac{{{n}}}{{{d}}}({left.magnitude})"
        return _equal_symbolic(scaled, right.magnitude)
    number = read_number(left.magnitude)
    if equal[0] or (any(equal) and number is not None and not -1 <= number <= 1):
        return Verdict("pass", "number" if tolerance else "exact")
    return Verdict("fail", "wrong")


def _scales(left: Unit | None, right: Unit | None) -> list[Fraction]:
    """Factors from the answer's number to the reference's unit; the second assumes that a % sign was left out."""
    if left and right:
        return [left.factor / right.factor]
    if left and not left.dimensions:
        return [left.factor, Fraction(1)]
    if right and not right.dimensions:
        return [1 / right.factor, Fraction(1)]
    return [Fraction(1)]


def _equal_plain(answer: str, expected: str, scale: Fraction, tolerance: Fraction) -> bool | None:
    """Whether the two are equal; None unless both can be read without algebra."""

    def near(x: Fraction | float, y: Fraction | float) -> bool:
        if isinstance(x, float) or isinstance(y, float):
            return x == y
        return abs(x * scale - y) <= tolerance * abs(y)

    def equal(grouped: bool) -> bool | None:
        left, right = read(answer, grouped), read(expected, grouped)
        return None if left is None or right is None else same(left, right, near)

    result = equal(grouped=True)
    return equal(grouped=False) if result is False and "," in answer + expected else result


def _equal_symbolic(answer: str, expected: str) -> Verdict:
    words = _words(expected)
    if words and words == _words(answer):
        return Verdict("pass", "text")
    if words and _TEXT.fullmatch(expected):
        return Verdict("fail", "wrong")
    if reason := _refuse(answer, expected):
        return Verdict("fail", reason)
    parse, verify = load_math_verify()
    gold = parse(f"\\boxed{{{_for_math_verify(expected)}}}")
    if not gold:
        return Verdict("error", f"the reference does not parse: {expected[:80]}")
    target = parse(f"\\boxed{{{_for_math_verify(answer)}}}")
    if not target:
        return Verdict("fail", "unparsable")
    try:
        equal = verify(gold, target)
    except Exception as error:  # sympy raises all kinds of exceptions
        if not verify(gold, gold):  # then it is not the response's fault
            raise
        return Verdict("fail", f"incomparable: {type(error).__name__}")
    return Verdict("pass", "math_verify") if equal else Verdict("fail", "wrong")


def _words(text: str) -> str:
    r"""The normalised words of `\text{Yes}`, `a hyperbola`, `(C)`; "" for an expression."""
    match = _WORD.fullmatch(text.strip("() "))
    spoken = re.findall(r"\w+", (match[1] or match[0]).casefold()) if match else []
    return " ".join(w for w in spoken if w not in ("a", "an", "the")) or " ".join(spoken)


def _for_math_verify(text: str) -> str:
    r"""Rewrites `\sin 30^\circ` and `2i` for Math-Verify, with radians and a capital I."""
    text = re.sub(r"(\d+(?:\.\d+)?)\^\\circ", r"(\1\\pi/180)", text)
    return re.sub(r"(?<![\\a-zA-Z_])i(?![a-zA-Z=])", "I", text)


def _refuse(answer: str, expected: str) -> str:
    """Why an answer must not be evaluated, or ""; anything the reference contains itself is allowed."""
    if _size(expected) == float("inf"):
        raise OverflowError(f"the reference is too large to evaluate: {expected[:80]}")
    if _QUESTION.search(answer) and not _QUESTION.search(expected):
        return "unevaluated"
    if isinstance(read(expected), Fraction) and (r"\infty" in answer or _SIDE_BY_SIDE.search(answer)):
        return "no_number"  # Math-Verify reads 6 12 as 18
    if _depth(answer) > max(MAX_DEPTH, _depth(expected)):
        return "too_deep"
    if _size(answer) > max(1, _size(expected)):
        return "too_large"
    return ""


def _depth(text: str) -> int:
    depth = most = 0
    for char in text:
        depth += (char in "({[") - (char in ")}]")
        most = max(most, depth)
    return most


def _size(text: str) -> float:
    """Above 1 if evaluating or expanding the expression may take very long."""
    text = _SMALL_TOWER.sub(lambda m: f"^{int(m[1]) ** int(m[2])}", text)
    if _TOWER.search(text) or _NESTED_FACTORIAL.search(text):
        return float("inf")
    factorials = [int((m[1] or m[2])[:9]) for m in _FACTORIAL.finditer(text)]
    powers = [int(m[1][:9]) for m in _POWER.finditer(text)]
    sums = [int(m[1][:9]) for m in _OF_A_SUM.finditer(text)]
    return max([n / MAX_POWER for n in factorials + powers] + [n / MAX_EXPANSION for n in sums], default=0.0)
