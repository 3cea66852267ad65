r"""Answers in plain LaTeX: numbers read exactly, quantities split from their units, equations from their names.

It reads integers, decimals (with thousand separators, repeating, scientific), fractions, mixed numbers, ratios,
infinity, each with a unit, and lists, sets, tuples, matrices, intervals and unions of them. No function here is slower
than quadratic in its text, which is at most some thousand characters.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from ringrl.rewards.expressions import Unreadable, exact, read_expression
from ringrl.rewards.typography import CLOSE, DECIMAL, OPEN, SEPARATOR, closes, skeleton, split
from ringrl.rewards.units import Unit, read_unit

MAX_NUMBER_CHARS = 200  # longer numbers are read as expressions
MAX_POWER = 400  # numbers with a larger power of ten are read as expressions

_SIGN = re.compile(r"[+-]")
_GROUPED = re.compile(r"\d{1,3}(?:(?:,\d{3})+|(?: \d{3})+)(?:\.\d+)?|\d{1,2}(?:,\d{2})+,\d{3}", re.ASCII)
_POINTS = re.compile(r"\d{1,3}(?:\.\d{3}){2,}", re.ASCII)
_REPEATING = re.compile(
    r"(\d+)\.(\d*?) ?(?:\\(?:overline|bar) ?\{? ?(\d+) ?\}?|\((\d+)\)|(\d+?)\5+ ?(?:\.\.\.|\\[lc]?dots)"
    r"|\\dot ?\{? ?(\d) ?\}? ?(?:(\d*) ?\\dot ?\{? ?(\d) ?\}?)?)",
    re.ASCII,
)
_SCIENTIFIC = re.compile(
    r"(?:([\d.]+) ?(?:\\times|\\cdot|\*) ?)?10 ?\^ ?\{? ?([+-]?\d+) ?\}?|([\d.]+)[eE]([+-]?\d+)", re.ASCII
)
_MIXED = re.compile(r"(?:(\d+) ?)??(?:\\frac ?\{([^{}]+)\} ?\{([^{}]+)\}|(\d+)\.? ?[/:] ?(\d+))", re.ASCII)
_UNION = re.compile(r"\\cup(?![a-zA-Z])")
_ONLY_EQUALS = re.compile(r"(?<![<>!\\])=")
_EQUALS = re.compile(r"(?<![<>!\\])=|\\approx(?![a-zA-Z])")
_CONDITION = re.compile(
    r"[,;]? ?& ?(?!=)|[,;] ?(?=(?:\\text ?\{ ?(?:if|for|when|otherwise))|[^,;]*(?:[<>]|\\(?:le|ge|ne)(?![a-z])))"
)
_IF = re.compile(r"^\\text ?\{ ?(?:if|for|when) ?\} ?|^\\text ?\{ ?(?:if|for|when) (?=[^{}]*\}$)")
_ROW, _CELL = re.compile(r"\\\\"), re.compile("&")
_GROUPS = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?!\d|,\d)")
_MATRIX = re.compile(r"\\begin ?\{([a-zA-Z]*)\*?\} ?(?:\{[lcr| ]*\})? ?(.*?) ?(?:\\\\)? ?\\end ?\{\1\*?\}")
_ARRAY_IN_BRACKETS = re.compile(r"[\[(] ?\\begin ?\{array\} ?\{[lcr| ]*\}(.*?)\\end ?\{array\} ?[\])]")
_ARRAY_BEHIND_BRACE = re.compile(r"^\\\{ ?\\begin ?\{array\} ?\{[lcr| ]*\}(.*?)\\end ?\{array\}$")
_LINES = ("cases", "aligned", "align", "array", "gathered", "gather", "split", "rcases", "dcases")

_CURRENCY = re.compile(
    r"(-?) ?((?:\\text ?\{ ?)?(?:US ?)?\\\$ ?\}?|[€£¥₹]|\\text ?\{ ?(?:USD|EUR|GBP|Rs|INR) ?\.? ?\}|"
    r"(?:USD|EUR|GBP|Rs\.?|INR)(?= )) ?(.+)"
)
_CURRENCY_BEHIND = re.compile(r"(.*[\d}]) ?(\\\$|€|£|¥|₹|¢)")
_BASE = re.compile(r"\(?(?P<digits>\d[\dA-Z]*|[A-Z]+\d[\dA-Z]*|[A-Z]{2,})\)?_\{?(?P<base>\d+)\}?", re.ASCII)
_MODULUS = re.compile(r"(.+?) ?\(?\\p?mod ?\{? ?(\w+) ?\}?\)?")
_TEXT = r"\\text ?\{(?:[^{}]|\{[^{}]*\})*\}(?: ?\^ ?\{?-?\d\}?)?"
_UNIT = re.compile(
    rf"(?P<unit>(?:/ ?(?=\\text))?(?:(?:{_TEXT}|\^\\circ(?: ?[CF](?![\w]))?|%|"
    r"(?:(?<=[\d} ])[munpkMG] ?)?\\(?:mu|Omega|AA)(?![a-zA-Z]))(?: |/|\\cdot|\*|(?<=\\mu )[a-zA-Z]+)*)+)$"
)
_UNIT_FRACTION = re.compile(rf"\\frac ?\{{ ?((?:{_TEXT}|\\cdot| )+) ?\}} ?\{{ ?((?:{_TEXT}|\\cdot| )+) ?\}}")
_BARE_UNIT = re.compile(r"(.*?[\d}]) ((?:\\(?:mu|Omega|AA)|(?:sq|cu)\. |1/|[^\W\d_]|[A-Za-z])[\w/^{}\-*. \\()]*)")
_BARE_FRACTION = re.compile(r"(.*?[\d}]) ?\\frac ?\{([^{}]*[A-Za-z][^{}]*)\} ?\{([^{}]+)\}")
_PART = (  # a quantity in units that are used side by side
    r"(\d+(?:\.\d+)?) ?(?:\\text ?\{ ?)?(days?|hours?|hrs?|h|minutes?|mins?|seconds?|secs?|s|"
    r"f(?:ee|oo)?t|inch(?:es)?|in|yards?|pounds?|lbs?|ounces?|oz)\.?"
)
_PARTS = re.compile(rf"{_PART}(?: ?,? ?and ?\}}?|,| ?\}})* ?{_PART} ?\}}?")
_BRACKETED_UNIT = re.compile(r"(.*?[\d}]) ?(?:\(|\[)([A-Za-z]+(?:[/^]{1,2}-?\w+)+)[\])]")
_MINUTES = re.compile(r"(\d+) ?\^\\circ ?(\d+) ?'(?: ?(\d+) ?(?:''|\"))?")
_UNFINISHED = re.compile(r"[-+*/^_=<>(,]$|\\(?:times|cdot|pm|le|ge|ne)$")
_ANGLED = re.compile(r"\\(?:arc)?(?:sin|cos|tan|cot|sec|csc)(?![a-z])")
_NAME = re.compile(
    r"(?:(?:\\(?:vec|overline|overrightarrow|hat|dot|bar) ?\{? ?[A-Za-z]+ ?\}?|"
    r"\\(?:angle|triangle|Delta) ?\\?[A-Za-z ]+|\\?[A-Za-z]+|\\text ?\{[A-Za-z ]+\})"
    r"(?: ?_ ?(?:\w|\{[\w, +\\]*\}))?'*)(?: ?\([\w, ]*\))?|\((?:[A-Za-z], ?)+[A-Za-z]\)"
)


@dataclass(frozen=True)
class Many:
    """Several values; `kind` is their brackets ("", "{}", "()", "[)", ...), the union sign, or a name ("matrix")."""

    kind: str
    items: tuple[Value, ...]


Value = Fraction | float | str | Many  # a float is an infinity, a text is anything else


@dataclass(frozen=True)
class Quantity:
    """A text in two parts; without a unit, `unit` is None."""

    magnitude: str
    unit: Unit | None


def split_unit(text: str, bare: bool = True) -> Quantity:
    """A clean text and its unit.

    Args:
        bare: whether one letter after a number and a space, as in `5 m`, is a unit; in algebra it is a factor.
    """
    if text.isdigit():
        return Quantity(text, None)
    if "_" in text and (numeral := _numeral(text)):
        return numeral
    if "mod" in text and (match := _MODULUS.fullmatch(text)) and read_number(match[1]) is not None:
        return Quantity(match[1], Unit(Fraction(1), frozenset([(f"modulo {match[2]}", 1)])))
    if match := _CURRENCY.fullmatch(text):
        return _money(text, match[1], match[2], split_unit(match[3], bare))
    if match := _CURRENCY_BEHIND.fullmatch(text):
        return Quantity(match[1], read_unit(match[2].lstrip("\\")))
    if text[:1].isdigit() and (sum_of_parts := _in_parts(text)):
        return sum_of_parts
    if "\\frac" in text and "\\text" in text:
        text = _UNIT_FRACTION.sub(lambda m: rf"\text{{{_unit_text(m[1])}/({_unit_text(m[2])})}}", text)
    if match := _UNIT.search(text):
        magnitude = text[: match.start()].strip()
        unit = read_unit(_unit_text(match["unit"]))
        if magnitude and unit and not _ANGLED.search(magnitude) and not _UNFINISHED.search(magnitude):
            return Quantity(magnitude, unit)
        return Quantity(text, None)
    return _with_bare_unit(text, bare)


def _money(text: str, sign: str, currency: str, rest: Quantity) -> Quantity:
    """An amount, or a price: `$5 per hour`."""
    unit = read_unit(re.sub(r"\\text|US(?! ?D)|[\\{} ]", "", currency))
    if unit is None or rest.unit is None or rest.unit.dimensions == unit.dimensions:
        return Quantity(sign + rest.magnitude, rest.unit or unit)
    price = all(power < 0 for _, power in rest.unit.dimensions)
    return Quantity(sign + rest.magnitude, unit.times(rest.unit)) if price else Quantity(text, None)


def _in_parts(text: str) -> Quantity | None:
    """`12^\\circ 30'`, `1 hour 30 minutes`."""
    if "'" in text and (match := _MINUTES.fullmatch(text)):
        sixty = [Fraction(int(match[i] or 0), 60 ** (i - 1)) for i in (1, 2, 3)]
        return Quantity(_slashed(sum(sixty)), read_unit("°"))
    if not (match := _PARTS.fullmatch(text)):
        return None
    large, small = read_unit(match[2]), read_unit(match[4])
    if not large or not small or large.dimensions != small.dimensions or large.factor <= small.factor:
        return None
    return Quantity(_slashed(Fraction(match[1]) * large.factor / small.factor + Fraction(match[3])), small)


def _slashed(value: Fraction | int) -> str:
    return f"{value.numerator}/{value.denominator}"


def _with_bare_unit(text: str, bare: bool) -> Quantity:
    """A number before a unit that nothing sets apart: `5 m/s`, `5 (m/s)`, `5 \\frac{m}{s}`."""
    unit: Unit | None = None
    if bare and "\\frac" in text and (match := _BARE_FRACTION.fullmatch(text)):
        unit = read_unit(f"{_unit_text(match[2])}/({_unit_text(match[3])})")
    elif match := _BRACKETED_UNIT.fullmatch(text):
        unit = read_unit(match[2])
    elif (match := _BARE_UNIT.fullmatch(text)) and (bare or len(match[2]) > 1):
        unit = read_unit(_unit_text(match[2]))
    return Quantity(match[1], unit) if match and unit and read_number(match[1]) is not None else Quantity(text, None)


def _numeral(text: str) -> Quantity | None:
    """A numeral with its base as the unit: `2A_{11}`."""
    match = _BASE.fullmatch(re.sub(r"\\text ?\{ ?(\w+) ?\}", r"\1", text).replace(" ", "").replace(",", ""))
    if not match or int(match["base"]) > 36:
        return None
    if not match["digits"].isdigit() and max(int(digit, 36) for digit in match["digits"]) >= int(match["base"]):
        return None
    return Quantity(match["digits"], Unit(Fraction(1), frozenset([(f"base {int(match['base'])}", 1)])))


def _unit_text(text: str) -> str:
    text = re.sub(r"\\text ?\{((?:[^{}]|\{[^{}]*\})*)\}", r" \1 ", text)
    text = re.sub(r"\^ ?\\circ ?|\\circ ?", "°", text)
    text = re.sub(r"\\mu ?", "µ", text).replace(r"\Omega", "Ω").replace(r"\AA", "Å")
    text = text.replace(r"\cdot", "*").replace(r"\times", "*")
    return re.sub(r"µ\s+|°\s+(?=[CF])", lambda m: m[0].strip(), re.sub(r" +(?=\^)", "", text)).strip()


def read_number(text: str) -> Fraction | float | None:
    r"""A clean text as an exact number or an infinity, None if it is neither."""
    if len(text) > MAX_NUMBER_CHARS:
        return None
    text = text.strip()
    while text.startswith("(") and "," not in text and closes(text) == len(text) - 1:
        text = text[1:-1].strip()
    negative = text.startswith("-")
    value = _unsigned(text[1:].strip() if _SIGN.match(text) else text)
    return -value if negative and value is not None else value


def _unsigned(text: str) -> Fraction | float | None:
    if DECIMAL.fullmatch(text):
        return Fraction(text)
    if text == r"\infty" or text.casefold() in ("infinity", r"\text{infinity}"):
        return float("inf")
    if _GROUPED.fullmatch(text):
        return Fraction(re.sub("[, ]", "", text))
    if _POINTS.fullmatch(text):
        return Fraction(text.replace(".", ""))
    if m := _MIXED.fullmatch(text):
        above, below = read_number(m[2] or m[4]), read_number(m[3] or m[5])
        if not isinstance(above, Fraction) or not isinstance(below, Fraction) or not below:
            return None
        return int(m[1] or 0) + above / below
    if m := _SCIENTIFIC.fullmatch(text):
        digits, power = m[1] or m[3] or "1", m[2] or m[4]
        known = DECIMAL.fullmatch(digits) and len(power) <= 4 and abs(int(power)) <= MAX_POWER
        return Fraction(digits) * Fraction(10) ** int(power) if known else None
    if m := _REPEATING.fullmatch(text):
        digits = m[3] or m[4] or m[5] or (m[6] + (m[7] or "") + (m[8] or ""))
        tail = Fraction(int(digits), 10 ** len(digits) - 1)
        return int(m[1]) + (int(m[2] or 0) + tail) / 10 ** len(m[2])
    return None


def grouped_digits(text: str) -> str:
    """The text without the commas between groups of three digits, but in brackets, where they make a point."""
    return "".join(
        part if part.startswith(OPEN) else _GROUPS.sub(lambda m: m[0].replace(",", ""), part) for part in _outside(text)
    )


def _outside(text: str) -> list[str]:
    """The text cut into brackets, of whatever depth, and what is between them."""
    parts, at = [], 0
    for match in re.finditer(r"\(|\[|\\\{", text):
        if match.start() < at:
            continue
        end = closes(text[match.start() :])
        if end < 0:
            break
        parts += [text[at : match.start()], text[match.start() : match.start() + end + 1]]
        at = match.start() + end + 1
    return [*parts, text[at:]]


def read(text: str, grouped: bool = True, texts: bool = False) -> Value | None:
    """A clean text as a value, None where a part of it is not plain.

    Args:
        grouped: whether `1,234` is one number.
        texts: leaves all numbers, and what is not plain, as texts.
    """
    if not texts and (grouped or "," not in text) and (number := read_number(text)) is not None:
        return number
    if not texts and text.startswith(r"\pm") and (number := read_number(text[3:])) is not None:
        return Many("", (number, -number))
    if len(parts := split(text, _UNION)) > 1:
        return _read_all("\\cup", parts, texts)
    if len(parts := [p for p in split(text, SEPARATOR) if p.strip()]) > 1:
        return _read_all("", parts, texts)
    if text == r"\emptyset":
        return Many("{}", ())
    if "\\begin" in text and (match := _MATRIX.fullmatch(text)):
        return _matrix(match[1], match[2], texts)
    opening = next((b for b in OPEN if text.startswith(b)), "")
    closing = next((b for b in CLOSE if text.endswith(b)), "")
    if not opening or not closing or closes(text) != len(text) - len(closing):
        return _read_words(text) if texts else None
    inner = _read_all(
        (opening + closing).replace("\\", ""), split(text[len(opening) : -len(closing)].strip(), SEPARATOR), texts
    )
    alone = inner and len(inner.items) == 1 and inner.kind in ("{}", "()", "[]") and inner.items != (Many("{}", ()),)
    return inner.items[0] if inner and alone else inner


def _read_words(text: str) -> Value:
    r"""`\text{Ann and Tom}` as a list, anything else as it is."""
    match = re.fullmatch(r"\\text ?\{([^{}\\\d]*)\}", text)
    if match and len(parts := [p.strip() for p in split(match[1], SEPARATOR) if p.strip()]) > 1:
        return Many("", tuple(rf"\text{{{part}}}" for part in parts))
    return text


def _read_all(kind: str, parts: Sequence[str], texts: bool = False) -> Many | None:
    items: list[Value] = []
    for part in parts:
        value = read(part.strip(), texts=texts)
        if value is None:
            return None
        items += value.items if isinstance(value, Many) and not value.kind else [value]  # ± 1 in a list
    return Many(kind, tuple(items))


def _matrix(name: str, body: str, texts: bool) -> Many | None:
    kind = {"vmatrix": "determinant", "Vmatrix": "norm"}.get(name, "cases" if name in _LINES else "matrix")
    rows = [
        _read_all("row", [cell.strip() for cell in split(row, _CELL)], texts)
        for row in split(body, _ROW)
        if row.strip()
    ]
    known = [row for row in rows if row is not None]
    return Many(kind, tuple(known)) if len(known) == len(rows) else None


def lines(text: str) -> str:
    r"""A text of several lines, such as a system of equations, as a list; matrices stay, and functions by cases."""
    text = _ARRAY_IN_BRACKETS.sub(r"\\begin{pmatrix}\1\\end{pmatrix}", text)
    text = _ARRAY_BEHIND_BRACE.sub(r"\\begin{cases}\1\\end{cases}", text)
    if "matrix" in text:
        return text
    if match := _MATRIX.search(text):
        if match[1] not in _LINES:
            return text
        rows = [row.strip(" ,;.") for row in split(match[2], _ROW) if row.strip()]
        cells = [split(row, _CONDITION) for row in rows]
        if all(len(row) == 2 for row in cells):
            rows = [" & ".join(_IF.sub("", cell.strip(" ,;")) for cell in row) for row in cells]
            return text[: match.start()] + r"\begin{cases}" + r"\\".join(rows) + r"\end{cases}" + text[match.end() :]
        if match[0] != text:
            return text
        text = r"\\".join(row.replace("&", "") for row in rows)
    return re.sub(r"[,;]? ?\\\\ ?", ", ", text)


def same(a: Value, b: Value, near: Callable[[Any, Any], bool]) -> bool:
    """Whether two values are equal, numbers by `near`. What is in no brackets may be meant as a set or as a tuple."""
    if not isinstance(a, Many) or not isinstance(b, Many):
        return not isinstance(a, Many) and not isinstance(b, Many) and near(a, b)
    kinds = {a.kind, b.kind}
    if len(a.items) != len(b.items):
        return False
    if kinds <= {"", "{}"} or kinds in ({"\\cup"}, {"cases"}):
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
    if "=" not in answer and "=" not in expected and "\\approx" not in answer + expected:
        return answer, expected
    answer, expected = points(answer, expected)
    left, right = (split(text, _EQUALS) if not has_list(text) else [text] for text in (answer, expected))
    names = len(left) > 1 and len(right) > 1 and _same_name(skeleton(left[0]), skeleton(right[0]))
    if len(left) > 1 and (len(right) == 1 or names):
        answer = _value(left)
    if len(right) > 1 and (names or (len(left) == 1 and any(_NAME.fullmatch(right[i].strip()) for i in (0, -1)))):
        expected = _value(right)
    return answer, expected


def _same_name(a: str, b: str) -> bool:
    """Whether two left sides are the same; a subscript on one side only is what the question calls it."""
    bare = [re.sub(r"_(?:\w|\{[^{}]*\})|(?<=^[a-zA-Z])\([a-z]\)$", "", name) for name in (a, b)]
    return a == b or (bare[0] == bare[1] and len(bare[0]) == 1 and (bare[0] in (a, b)))


def _value(sides: list[str]) -> str:
    """The end of a chain of equations, or its beginning if the end is only a name."""
    first, last = sides[0].strip(), sides[-1].strip()
    return first if _NAME.fullmatch(last) and not _NAME.fullmatch(first) else last


def points(answer: str, expected: str) -> tuple[str, str]:
    """The values of `x = 2, y = 3` in the order of the names; of `x = 2, x = 3`, a list; anything else as it is.

    Names on one side only are in the order of the alphabet, as in a point.
    """
    left, right = _named(answer, "," in expected), _named(expected, "," in answer)
    if left and right and sorted(set(left[0])) != sorted(set(right[0])):
        unnamed = all(name.startswith(("\\angle", "\\triangle")) for name in left[0] + right[0])
        return (", ".join(left[1]), ", ".join(right[1])) if unnamed else (answer, expected)
    both = bool(left and right)
    return (_ordered(left, both) if left else answer), (_ordered(right, both) if right else expected)


def _named(text: str, beside_list: bool) -> tuple[list[str], list[str]] | None:
    """The names and the values of a list of equations; a part without a name has the name before it. `x = y = 1` is
    such a list beside another."""
    parts = [part for part in split(text, SEPARATOR) if part.strip()]
    if beside_list and len(parts) == 1 and len(equal := split(text, _EQUALS)) > 2:
        parts = [f"{name}={equal[-1]}" for name in equal[:-1]]
    if len(parts) < 2 or "=" not in parts[0]:
        return None
    names: list[str] = []
    values: list[str] = []
    for part in parts:
        sides = split(part, _EQUALS)
        if len(sides) == 1 and len(set(names)) == 1:
            sides = [names[-1], part]
        if len(sides) != 2 or not _NAME.fullmatch(sides[0].strip()):
            return None
        names.append(re.sub(r"[ {}]|\\text", "", sides[0]))
        values.append(sides[1].strip())
    return names, values


def _ordered(named: tuple[list[str], list[str]], both: bool) -> str:
    names, values = named
    if len(set(names)) == 1:
        return ", ".join(values)
    if len(set(names)) == len(names):
        ordered = ", ".join(value for _, value in sorted(zip(names, values, strict=True)))
        numbered = len({name.rstrip("0123456789") for name in names}) == 1  # x_1, x_2 are the roots, in any order
        return ordered if numbered and not both else f"({ordered})"
    return (
        ", ".join(f"({name}, {value})" for name, value in zip(names, values, strict=True))
        if both
        else ", ".join(values)
    )


def has_list(text: str) -> bool:
    return len(split(text, SEPARATOR)) > 1


def alike(text: str) -> tuple[list[str], bool]:
    """The sides of a chain of equations, and whether one of them is said to be an approximation."""
    if "=" not in text and "\\approx" not in text:
        return [text], False
    return [part.strip() for part in split(text, _EQUALS)], "\\approx" in text


def contradicts_itself(text: str) -> bool:
    """`7 = 8`: a chain of equations with two different numbers in it."""
    if "=" not in text or has_list(grouped_digits(text)):
        return False
    values = {_known(part) for part in split(text, _ONLY_EQUALS)}
    return len(values - {None}) > 1


def _known(text: str) -> Fraction | float | None:
    if (number := read_number(text)) is not None or len(text) > MAX_NUMBER_CHARS:
        return number
    with contextlib.suppress(Unreadable):
        return exact(read_expression(text.strip()))
    return None
