r"""Answers in plain LaTeX: cleaned of typography, and read exactly where that needs no algebra.

It reads integers, decimals (with thousand separators, repeating, scientific), fractions, mixed numbers, ratios,
infinity, each with a unit, and lists, sets, tuples, intervals and unions of them. Anything else is None and left to
another judge. No function here is slower than quadratic in its text, which is at most some thousand characters.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from ringrl.rewards.units import Unit, read_unit

MAX_NUMBER_CHARS = 200  # longer numbers are left to Math-Verify
MAX_POWER = 400  # numbers with a larger power of ten are left to Math-Verify

_CHARACTERS = {"−": "-", "–": "-", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "÷": "/", "π": r"\pi ",
               "∞": r"\infty ", "°": r"^\circ ", "√": r"\sqrt ", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ",
               "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "∅": r"\emptyset ", "±": r"\pm ", "≈": r"\approx ",
               "µ": r"\mu ", "μ": r"\mu ", "Ω": r"\Omega ", "\u2126": r"\Omega ", "θ": r"\theta ", "⁻": "^-",
               "\u2044": "/", "\u00a0": " ", "，": ",", "．": ".", "％": r"\%", "（": "(", "）": ")"}  # fmt: skip
_TYPOGRAPHY = [(re.compile(pattern), new) for pattern, new in (
    (r"\s+", " "),
    (r"(?<!\\)\\(?:left|right|[bB]igg?[lr]?|displaystyle|textstyle|limits|!)(?![a-zA-Z])", ""),
    (r"\{,\}|\\text\{,\}", ","),
    (r"(?<!\\)\\(?:[,;: ]|quad(?![a-zA-Z])|qquad(?![a-zA-Z]))|~", " "),
    (r"(?<!\\)\\[()\[\]]", ""),
    (r"(?<!\\)\$", ""),
    (r"\\[dtc]frac(?![a-zA-Z])", r"\\frac"),
    (r"\\[dt]binom(?![a-zA-Z])", r"\\binom"),
    (r"\\(?:text(?:bf|rm|it|sf|tt|up|normal)|math(?:rm|bf|it|sf|tt)|mbox|hbox|emph)\s*(?=\{)", r"\\text"),
    (r"\\lbrace(?![a-zA-Z])", r"\\{"),
    (r"\\rbrace(?![a-zA-Z])", r"\\}"),
    (r"\\langle(?![a-zA-Z])", "("),
    (r"\\rangle(?![a-zA-Z])", ")"),
    (r"\\varnothing(?![a-zA-Z])|\\\{\s*\\\}", r"\\emptyset"),
    (r"\\%", "%"),
    (r"\^\s*(?:\{\s*(?:\\circ|o)\s*\}|\\circ(?![a-zA-Z])|\\degree(?![a-zA-Z]))|\\degree(?![a-zA-Z])", r"^\\circ"),
    (r"\\(?:approx|simeq|equiv)(?![a-zA-Z])", "="),
    (r"(?<![\\a-zA-Z])sqrt ?\(([^()]*)\)", r"\\sqrt{\1}"),
    (r"(?<![\\a-zA-Z])(sin|cos|tan|cot|ln|log|pi)(?![a-zA-Z])", r"\\\1"),
    (r"\{ ?(\w+) ?\\choose ?(\w+) ?\}", r"\\binom{\1}{\2}"),
    (r"^(?:\\text\{)?\s*(?:[Aa]ll )?[Rr]eal numbers\s*\}?$", r"\\mathbb{R}"),
    (r"^\\text ?\{([^{}]*\d[^{}]*)\}$", r"\1"),
    (r"(?<=\S)\s*[,;(]\s*[a-z] ?\\in ?\\mathbb ?\{?[ZN]\}?\s*\)?$", ""),
    (r"\\text\{\s*,?\s*(and|or)\s*\}|\\l(or)(?![a-zA-Z])", r" \1\2 "),
    (r"\\frac\s*(\d)\s*(\d)", r"\\frac{\1}{\2}"),
    (r"\\frac\s*(\d)\s*\{", r"\\frac{\1}{"),
    (r"(\\frac\s*\{[^{}]*\})\s*(\d)", r"\1{\2}"),
    (r"([_^])\s*\{\s*(\w)\s*\}(?!\w)", r"\1\2"),
    (r"(?<![\w)}])\+\s*(?=\\infty)", ""),
    (r"^(?:\\text\{)?\s*(?:[Tt]he )?(?:[Ff]inal )?[Aa]nswer(?: is)?:?\s*\}?\s+(?=\S)", ""),
    (r"^\s*=\s*|[\s.,;:?]*(?:\\\\)?\s*$", ""),
    (r"\s+", " "),
)]  # fmt: skip

_SIGN = re.compile(r"[+-]")
_DECIMAL = re.compile(r"\d+(?:\.\d*)?|\.\d+", re.ASCII)
_GROUPED = re.compile(r"\d{1,3}(?:(?:,\d{3})+|(?: \d{3})+)(?:\.\d+)?", re.ASCII)
_REPEATING = re.compile(r"(\d+)\.(\d*)\s*\\(?:overline|bar|dot)\s*\{?\s*(\d+)\s*\}?", re.ASCII)
_SCIENTIFIC = re.compile(
    r"(?:([\d.]+) ?(?:\\times|\\cdot|\*) ?)?10 ?\^ ?\{? ?([+-]?\d+) ?\}?|([\d.]+)[eE]([+-]?\d+)", re.ASCII
)
_MIXED = re.compile(r"(?:(\d+) ?)??(?:\\frac ?\{([^{}]+)\} ?\{([^{}]+)\}|(\d+) ?[/:] ?(\d+))", re.ASCII)
_SEPARATOR = re.compile(r"[,;] ?(?:and |or )?| and | or ")
_UNION = re.compile(r"\\cup(?![a-zA-Z])")
_EQUALS = re.compile(r"(?<![<>!\\])=")
_OPEN, _CLOSE = ("\\{", "{", "(", "["), ("\\}", "}", ")", "]")
_TOKEN = re.compile(r"\\.|.", re.DOTALL)

_CURRENCY = re.compile(r"(-?) ?(\\\$|€|£|¥) ?(.+)")
_BASE = re.compile(r"(\d[\dA-F]*)_\{?(\d+)\}?", re.ASCII)
_MODULUS = re.compile(r"(.+?) ?\(?\\p?mod ?\{? ?(\w+) ?\}?\)?")
_TEXT = r"\\text ?\{(?:[^{}]|\{[^{}]*\})*\}(?:\^\{?-?\d\}?)?"
_UNIT = re.compile(
    rf"(?P<unit>(?:(?:{_TEXT}|\^\\circ(?: ?[CF](?![\w]))?|%|\\mu(?![a-zA-Z])|\\Omega(?![a-zA-Z]))"
    r"(?: |/|\\cdot|\*|(?<=\\mu )[a-zA-Z]+)*)+)$"
)
_BARE_UNIT = re.compile(r"(?P<magnitude>.*[\d}]) (?P<unit>(?:\\mu|\\Omega|[A-Za-z])[A-Za-z\d/^{}\-*. \\()]*)")
_NAME = re.compile(r"(?:\\?[A-Za-z]+(?:_\{?\w+\}?)?'?)(?: ?\([\w, ]*\))?|\((?:[A-Za-z], ?)+[A-Za-z]\)")


@dataclass(frozen=True)
class Many:
    """Several values; `kind` is their brackets ("", "{}", "()", "[)", ...) or the union sign."""

    kind: str
    items: tuple[Value, ...]


Value = Fraction | float | Many  # a float is an infinity


@dataclass(frozen=True)
class Quantity:
    """A text in two parts; without a unit, `unit` is None."""

    magnitude: str
    unit: Unit | None


def clean(text: str) -> str:
    """The text in plain ASCII as far as possible, without sizes, spacing, fonts and final punctuation."""
    if _DECIMAL.fullmatch(text):  # the common case
        return text
    if not text.isascii():
        text = "".join(map(_ascii, text))
    for pattern, new in _TYPOGRAPHY:
        text = pattern.sub(new, text)
    text = text.strip()
    while text.startswith("{") and _closes(text) == len(text) - 1:
        text = text[1:-1].strip()
    return text


def skeleton(text: str) -> str:
    """A clean text without what never changes its meaning: fonts, and spaces but those between two digits."""
    text = re.sub(r"\\text ?\{([^{}]*)\}|\\(?:overline|vec|overrightarrow|widehat|hat) ?\{([A-Za-z]+)\}", r"\1\2", text)
    return re.sub(r"(?<!\d) | (?!\d)|\\(?:triangle|angle) ", "", text)


def _ascii(char: str) -> str:
    if char in _CHARACTERS or char.isascii():
        return _CHARACTERS.get(char, char)
    if (digit := unicodedata.decimal(char, None)) is not None:
        return str(digit)
    kind, _, parts = unicodedata.decomposition(char).partition(" ")
    if kind == "<super>":
        return "^{" + chr(int(parts, 16)) + "}"
    if kind == "<fraction>":
        above, _, below = "".join(chr(int(p, 16)) for p in parts.split()).partition("\u2044")
        return rf"\frac{{{above}}}{{{below}}}"
    return char


def split_unit(text: str, bare: bool = True) -> Quantity:
    """A clean text and its unit.

    Args:
        bare: whether one letter after a number and a space, as in `5 m`, is a unit; in algebra it is a factor.
    """
    if match := _BASE.fullmatch(text):
        return Quantity(match[1], Unit(Fraction(1), frozenset([(f"base {int(match[2])}", 1)])))
    if (match := _MODULUS.fullmatch(text)) and read_number(match[1]) is not None:
        return Quantity(match[1], Unit(Fraction(1), frozenset([(f"modulo {match[2]}", 1)])))
    if match := _CURRENCY.fullmatch(text):
        return Quantity(match[1] + match[3], read_unit(match[2].lstrip("\\")))
    if match := _UNIT.search(text):
        magnitude = text[: match.start()].strip()
        unit = read_unit(_unit_text(match["unit"]))
        if magnitude and unit and not re.search(r"\\(?:sin|cos|tan|cot|sec|csc)(?![a-z])", magnitude):
            return Quantity(magnitude, unit)
        return Quantity(text, None)
    if (match := _BARE_UNIT.fullmatch(text)) and read_number(match["magnitude"]) is not None:
        unit = read_unit(_unit_text(match["unit"]))
        if unit and (bare or len(match["unit"]) > 1):
            return Quantity(match["magnitude"], unit)
    return Quantity(text, None)


def _unit_text(text: str) -> str:
    text = re.sub(r"\\text ?\{((?:[^{}]|\{[^{}]*\})*)\}", r" \1 ", text)
    text = re.sub(r"\^\\circ ?|\\circ ?", "°", text)
    text = re.sub(r"\\mu ?", "µ", text).replace(r"\Omega", "Ω").replace(r"\cdot", "*").replace(r"\times", "*")
    return re.sub(r"µ\s+|°\s+(?=[CF])", lambda m: m[0].strip(), re.sub(r" +(?=\^)", "", text)).strip()


def read_number(text: str) -> Fraction | float | None:
    r"""A clean text as an exact number or an infinity, None if it is neither."""
    if len(text) > MAX_NUMBER_CHARS:
        return None
    text = text.strip()
    while text.startswith("(") and "," not in text and _closes(text) == len(text) - 1:
        text = text[1:-1].strip()
    negative = text.startswith("-")
    value = _unsigned(text[1:].strip() if _SIGN.match(text) else text)
    return -value if negative and value is not None else value


def _unsigned(text: str) -> Fraction | float | None:
    if text == r"\infty" or text.casefold() in ("infinity", r"\text{infinity}"):
        return float("inf")
    if _DECIMAL.fullmatch(text):
        return Fraction(text)
    if _GROUPED.fullmatch(text):
        return Fraction(re.sub("[, ]", "", text))
    if m := _MIXED.fullmatch(text):
        above, below = read_number(m[2] or m[4]), read_number(m[3] or m[5])
        if not isinstance(above, Fraction) or not isinstance(below, Fraction) or not below:
            return None
        return int(m[1] or 0) + above / below
    if m := _SCIENTIFIC.fullmatch(text):
        digits, power = m[1] or m[3] or "1", m[2] or m[4]
        known = _DECIMAL.fullmatch(digits) and len(power) <= 4 and abs(int(power)) <= MAX_POWER
        return Fraction(digits) * Fraction(10) ** int(power) if known else None
    if m := _REPEATING.fullmatch(text):
        tail = Fraction(int(m[3]), 10 ** len(m[3]) - 1)
        return int(m[1]) + (int(m[2] or 0) + tail) / 10 ** len(m[2])
    return None


def read(text: str, grouped: bool = True) -> Value | None:
    """A clean text as a value, None where a part of it is not plain.

    Args:
        grouped: whether `1,234` is one number.
    """
    if (grouped or "," not in text) and (number := read_number(text)) is not None:
        return number
    if text.startswith(r"\pm") and (number := read_number(text[3:])) is not None:
        return Many("", (number, -number))
    if len(parts := split(text, _UNION)) > 1:
        return _read_all("\\cup", parts)
    if len(parts := [p for p in split(text, _SEPARATOR) if p.strip()]) > 1:
        return _read_all("", parts)
    if text == r"\emptyset":
        return Many("{}", ())
    opening = next((b for b in _OPEN if text.startswith(b)), "")
    closing = next((b for b in _CLOSE if text.endswith(b)), "")
    if not opening or not closing or _closes(text) != len(text) - len(closing):
        return None
    inner = _read_all(
        (opening + closing).replace("\\", ""), split(text[len(opening) : -len(closing)].strip(), _SEPARATOR)
    )
    alone = inner and len(inner.items) == 1 and inner.kind in ("{}", "()", "[]")
    return inner.items[0] if inner and alone else inner


def _read_all(kind: str, parts: Sequence[str]) -> Many | None:
    items: list[Value] = []
    for part in parts:
        value = read(part.strip())
        if value is None:
            return None
        items += value.items if isinstance(value, Many) and not value.kind else [value]  # ± 1 in a list
    return Many(kind, tuple(items))


def split(text: str, separator: re.Pattern[str]) -> list[str]:
    """The parts between separators that are in no bracket."""
    cuts, depth, skip = [], 0, 0
    for token in _TOKEN.finditer(text):
        depth += (token[0] in _OPEN) - (token[0] in _CLOSE)
        if depth == 0 and token.start() >= skip and (match := separator.match(text, token.start())):
            cuts.append(match.span())
            skip = match.end()
    starts, ends = [0, *(end for _, end in cuts)], [*(start for start, _ in cuts), len(text)]
    return [text[a:b] for a, b in zip(starts, ends, strict=True)]


def _closes(text: str) -> int:
    """Where the bracket that `text` starts with is closed, by whatever kind of bracket; -1 if it is not."""
    depth = 0
    for token in _TOKEN.finditer(text):
        depth += (token[0] in _OPEN) - (token[0] in _CLOSE)
        if depth == 0:
            return token.start()
    return -1


def same(a: Value, b: Value, near: Callable[[Fraction | float, Fraction | float], bool]) -> bool:
    """Whether two values are equal, numbers by `near`. What is in no brackets may be meant as a set or as a tuple."""
    if not isinstance(a, Many) or not isinstance(b, Many):
        return not isinstance(a, Many) and not isinstance(b, Many) and near(a, b)
    kinds = {a.kind, b.kind}
    if len(a.items) != len(b.items):
        return False
    if kinds <= {"", "{}"} or kinds == {"\\cup"}:
        left = list(b.items)
        for item in a.items:
            match = next((i for i, other in enumerate(left) if same(item, other, near)), None)
            if match is None:
                return False
            left.pop(match)
        return True
    if len(kinds) > 1 and kinds != {"", "()"}:
        return False
    return all(same(x, y, near) for x, y in zip(a.items, b.items, strict=True))


def right_sides(answer: str, expected: str) -> tuple[str, str]:
    """Both without `x =` if only one has it, or both the same; of a chain, the end. `y = 3, x = 2` becomes (2, 3)."""
    answer, expected = _point(answer), _point(expected)
    left, right = (split(text, _EQUALS) if not has_list(text) else [text] for text in (answer, expected))
    names = skeleton(left[0]) == skeleton(right[0])
    if len(left) > 1 and (len(right) == 1 or names):
        answer = _value(left)
    if len(right) > 1 and (len(left) == 1 or names) and any(_NAME.fullmatch(right[i].strip()) for i in (0, -1)):
        expected = _value(right)
    return answer, expected


def _value(sides: list[str]) -> str:
    """The end of a chain of equations, or its beginning if the end is only a name."""
    first, last = sides[0].strip(), sides[-1].strip()
    return first if _NAME.fullmatch(last) and not _NAME.fullmatch(first) else last


def _point(text: str) -> str:
    """The values of `x = 2, y = 3` in the order of the names; of `x = 2, x = 3`, a list; anything else as it is."""
    sides = [split(part, _EQUALS) for part in split(text, _SEPARATOR) if part.strip()]
    if len(sides) < 2 or any(len(s) != 2 or not _NAME.fullmatch(s[0].strip()) for s in sides):
        return text
    names = [s[0].strip() for s in sides]
    if len(set(names)) == 1:
        return ", ".join(s[1].strip() for s in sides)
    return "(" + ", ".join(s[1].strip() for s in sorted(sides)) + ")" if len(set(names)) == len(names) else text


def has_list(text: str) -> bool:
    return len(split(text, _SEPARATOR)) > 1


def contradicts_itself(text: str) -> bool:
    """`7 = 8`: a chain of equations with two different numbers in it."""
    values = {read_number(part) for part in split(text, _EQUALS)} if not has_list(text) else set()
    return len(values - {None}) > 1
