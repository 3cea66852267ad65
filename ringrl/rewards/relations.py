r"""Equations, inequalities, and the sets of real numbers that they describe.

A set is a list of pieces from one bound to another. It is brought into one form if all its bounds are numbers, so that
the ways to write it do not matter; otherwise the pieces are compared one by one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

from ringrl.rewards.expressions import Unreadable, exact, letters, proportional, read_expression, real, replaced
from ringrl.rewards.typography import SEPARATOR, closes, skeleton, split

RELATION = re.compile(r"[=<>]|\\(?:le|ge|ne|in)(?![a-zA-Z])")
_TURNED = {"<": "<", r"\le": r"\le", ">": "<", r"\ge": r"\le"}
_NAME = r"(?:\\?[a-zA-Z]+(?:_\{?\w+\}?)?(?: ?\([a-z\d]\))?)"
_VARIABLE = re.compile(_NAME)
_SIZE = re.compile(r"\| ?([^|]+?) ?\|")
_OR = re.compile(r" or |, ?or |\\cup(?![a-zA-Z])")
_AND, _NOT = re.compile(" and "), re.compile(r"\\ne(?![a-z])")
_BUT = re.compile(r"\\(?:setminus|backslash)(?![a-zA-Z])|-(?= ?\\\{)")
_REALS = re.compile(r"\\(?:mathbb|text) ?\{? ?R ?\}?(?: ?\^? ?\{? ?([+-]) ?\}?| ?_ ?\{? ?(>|\\ge|<|\\le) ?0 ?\}?)?|R")
_DESCRIBED = re.compile(
    rf"\\\{{ ?(?P<name>{_NAME}) ?(?:\\in ?(?:\\mathbb ?\{{? ?R ?\}}?|R) ?)?(?:\||:|\\mid) ?(?P<condition>.*?) ?\\\}}"
)
_INTERVAL = re.compile(r"([\[(\]]) ?(.+) ?([\])\[])")
_OPPOSITE = {r"\infty": r"-\infty", r"+\infty": r"-\infty", r"-\infty": r"\infty", r"- \infty": r"\infty"}
_INFINITE = frozenset(_OPPOSITE)


class Span(NamedTuple):
    """The numbers between two bounds, as texts; a single number is a closed piece from itself to itself."""

    low: str
    low_in: bool
    high: str
    high_in: bool


class RealSet(NamedTuple):
    """Pieces, and the letter whose values they are ("" where it is free, as in {x | x > 3})."""

    pieces: list[Span]
    name: str


def real_set(text: str) -> RealSet | None:
    """The set that a clean text says, None if it says none."""
    text = text.strip()
    if match := _DESCRIBED.fullmatch(text):
        inner = real_set(match["condition"])
        return RealSet(inner.pieces, "") if inner and inner.name == match["name"] else None
    if len(parts := split(text, _OR)) > 1:
        sets = [real_set(part) for part in parts]
        known = [s for s in sets if s is not None]
        if len(known) < len(sets) or len({s.name for s in known if s.name}) > 1:
            if (of := re.fullmatch(rf"({_NAME}) ?\\in(?![a-z]) ?(.*)", text)) and (whole := real_set(of[2])):
                return RealSet(whole.pieces, of[1])
            return None
        return RealSet([p for s in known for p in s.pieces], next((s.name for s in known if s.name), ""))
    if " and " in text and len(parts := split(text, _AND)) > 1:
        return _intersection([real_set(part) for part in parts])
    if r"\ne" in text and (others := _excluded(text)):
        return others
    if len(parts := split(text, _BUT)) == 2:
        whole, hole = real_set(parts[0]), real_set(parts[1])
        outside = _complement(hole.pieces) if hole else None
        return RealSet(outside, whole.name) if whole and outside and whole.pieces == _ALL else None
    if match := _REALS.fullmatch(text):
        return RealSet(_of_reals(match[1], match[2]), "")
    if match := re.fullmatch(rf"({_NAME}) ?\\in(?![a-z]) ?(.*)", text):
        inner = real_set(match[2])
        return RealSet(inner.pieces, match[1]) if inner and not inner.name else None
    return _bracketed(text) or _inequality(text)


_ALL = [Span(r"-\infty", False, r"\infty", False)]


def _of_reals(sign: str | None, bound: str | None) -> list[Span]:
    if sign == "+" or bound == ">":
        return [Span("0", False, r"\infty", False)]
    if sign == "-" or bound == "<":
        return [Span(r"-\infty", False, "0", False)]
    if bound:
        return [Span("0", True, r"\infty", False) if bound == r"\ge" else Span(r"-\infty", False, "0", True)]
    return _ALL


def _bracketed(text: str) -> RealSet | None:
    if text.startswith("\\{") and closes(text) == len(text) - 2:
        items = [item.strip() for item in split(text[2:-2], SEPARATOR)]
        if any(RELATION.search(item) or re.search(r":|\\mid", item) for item in items):
            return None
        return RealSet([Span(item, True, item, True) for item in items], "") if all(items) else None
    match = _INTERVAL.fullmatch(text)
    if not match or len(bounds := split(match[2], SEPARATOR)) != 2:
        return None
    low, high = bounds[0].strip(), bounds[1].strip()
    return RealSet(
        [Span(low, match[1] == "[" and low not in _INFINITE, high, match[3] == "]" and high not in _INFINITE)], ""
    )


def sides(text: str) -> tuple[list[str], list[str]]:
    """The expressions of a chain of relations and the signs between them."""
    parts = split(text, RELATION)
    signs, at = [], 0
    for part in parts[:-1]:
        at += len(part)
        match = RELATION.match(text, at)
        assert match, text
        signs.append(match[0])
        at = match.end()
    return [part.strip() for part in parts], signs


def _intersection(sets: list[RealSet | None]) -> RealSet | None:
    known = [s for s in sets if s is not None]
    names = {s.name for s in known}
    outside = [_complement(s.pieces) for s in known]
    if len(known) < len(sets) or len(names) > 1 or None in outside:
        return None
    pieces = _complement([piece for hole in outside if hole for piece in hole])
    return RealSet(pieces, names.pop()) if pieces is not None else None


def _excluded(text: str) -> RealSet | None:
    r"""All numbers but some: `x \ne 1, 2`, `x \ne 1, x \ne 2`, `x \ne \pm 1`."""
    name, values = "", []
    for part in split(text, SEPARATOR):
        terms = [term.strip() for term in split(part, _NOT)]
        if len(terms) > 2 or (len(terms) == 2 and (not _VARIABLE.fullmatch(terms[0]) or name not in ("", terms[0]))):
            return None
        name = terms[0] if len(terms) == 2 else name
        values += [f"{sign}({terms[-1][3:]})" for sign in "+-"] if terms[-1].startswith(r"\pm") else [terms[-1]]
    outside = _complement([Span(value, True, value, True) for value in values])
    return RealSet(outside, name) if name and outside else None


def _inequality(text: str) -> RealSet | None:
    parts, signs = sides(text)
    if not all(parts) or not signs:
        return None
    if any(sign not in _TURNED for sign in signs) or len({sign in (">", r"\ge") for sign in signs}) > 1:
        return None
    closed = [_TURNED[sign] == r"\le" for sign in signs]
    if signs[0] in (">", r"\ge"):
        parts, closed = parts[::-1], closed[::-1]
    if len(parts) == 3:
        return _between(parts[1], Span(parts[0], closed[0], parts[2], closed[1]))
    if len(parts) != 2:
        return None
    (low, high), inside = parts, closed[0]
    below, above = Span(r"-\infty", False, high, inside), Span(low, inside, r"\infty", False)
    if match := _SIZE.fullmatch(low):
        return _between(match[1], Span(f"-({high})", inside, high, inside))
    if match := _SIZE.fullmatch(high):
        outer = [_between(match[1], Span(r"-\infty", False, f"-({low})", inside)), _between(match[1], above)]
        known = [piece for piece in outer if piece]
        return RealSet([p for piece in known for p in piece.pieces], known[0].name) if len(known) == 2 else None
    if _VARIABLE.fullmatch(low) and _VARIABLE.fullmatch(high):
        return None
    return (
        _between(low, below)
        or _between(high, above)
        or _between(f"({low})-({high})", Span(below.low, False, "0", inside))
    )


def _between(text: str, bounds: Span) -> RealSet | None:
    """The values of a letter for which an expression that is linear in it lies between two bounds."""
    if _VARIABLE.fullmatch(text):
        return RealSet([bounds], text)
    if not (line := _line(text)) or any(bound not in _INFINITE and _number(bound) is None for bound in bounds[::2]):
        return None
    name, slope, offset = line

    def moved(bound: str) -> str:
        if bound in _INFINITE:
            return bound if slope > 0 else _OPPOSITE[bound]
        return bound if (slope, offset) == (1, 0) else f"(({bound})-({offset}))/({slope})"

    low, high = moved(bounds.low), moved(bounds.high)
    if slope < 0:
        return RealSet([Span(high, bounds.high_in, low, bounds.low_in)], name)
    return RealSet([Span(low, bounds.low_in, high, bounds.high_in)], name)


def _line(text: str) -> tuple[str, Fraction, Fraction] | None:
    """The only letter of an expression that is linear in it, the slope and the value at 0, None for others."""
    try:
        tree = read_expression(text)
        if len(names := letters(tree)) != 1:
            return None
        (name,) = names
        values = [exact(replaced(tree, name, Fraction(at))) for at in (0, 1, 2, "7/3", -5)]
    except Unreadable:
        return None
    zero, one = values[:2]
    if zero is None or one is None or zero == one:
        return None
    slope = one - zero
    linear = values[2:] == [zero + slope * Fraction(at) for at in (2, "7/3", -5)]
    return (name, slope, zero) if linear else None


def _number(bound: str) -> Any:
    if bound.replace(" ", "") in (r"\infty", r"+\infty"):
        return float("inf")
    if bound.replace(" ", "") == r"-\infty":
        return float("-inf")
    try:
        return real(read_expression(bound))
    except Unreadable:
        return None


def _complement(pieces: list[Span]) -> list[Span] | None:
    whole = _merged(pieces)
    if whole is None:
        return None
    outside, low, low_in = [], r"-\infty", False
    for piece in whole:
        if piece.low not in _INFINITE:
            outside.append(Span(low, low_in, piece.low, not piece.low_in))
        low, low_in = piece.high, not piece.high_in
    return [*outside, Span(low, low_in, r"\infty", False)] if low not in _INFINITE or not whole else outside


def _merged(pieces: list[Span]) -> list[Span] | None:
    """The same set with no two pieces that touch, in order; None if a bound is no number."""
    numbers = [(_number(p.low), _number(p.high), p) for p in pieces]
    if any(low is None or high is None or low > high for low, high, _ in numbers):
        return None
    merged: list[tuple[Any, Any, Span]] = []
    for low, high, piece in sorted(numbers, key=lambda n: (n[0], not n[2].low_in)):
        if low == high and not (piece.low_in and piece.high_in):
            continue
        if merged and (low < merged[-1][1] or (low == merged[-1][1] and (piece.low_in or merged[-1][2].high_in))):
            _, last_high, last = merged[-1]
            if high > last_high or (high == last_high and piece.high_in):
                last, last_high = Span(last.low, last.low_in, piece.high, piece.high_in), high
            merged[-1] = (merged[-1][0], last_high, last)
        else:
            merged.append((low, high, piece))
    return [piece for _, _, piece in merged]


def same_sets(a: RealSet, b: RealSet, equal: Callable[[str, str], bool]) -> bool:
    """Whether two sets are the same, by `equal` for bounds; letters that both name must be the same."""
    if a.name and b.name and skeleton(a.name) != skeleton(b.name):
        return False
    left, right = _merged(a.pieces), _merged(b.pieces)
    if left is None or right is None:
        left, right = list(a.pieces), list(b.pieces)
    if len(left) != len(right):
        return False
    for piece in left:
        match = next((p for p in right if _same_pieces(piece, p, equal)), None)
        if match is None:
            return False
        right.remove(match)
    return True


def _same_pieces(a: Span, b: Span, equal: Callable[[str, str], bool]) -> bool:
    return (a.low_in, a.high_in) == (b.low_in, b.high_in) and equal(a.low, b.low) and equal(a.high, b.high)


def same_relations(answer: str, expected: str, equal: Callable[[str, str], bool]) -> bool:
    """Whether two equations or inequalities, or chains of them, say the same. Raises Unreadable."""
    (left, signs), (right, other_signs) = (_ascending(*sides(text)) for text in (answer, expected))
    if signs != other_signs:
        return False
    if len(signs) != 1:
        return all(equal(x, y) for x, y in zip(left, right, strict=True))
    if signs[0] == r"\in":
        return all(equal(x, y) for x, y in zip(left, right, strict=True))
    if signs == ["="] and equal(left[0], right[0]) and equal(left[1], right[1]):
        return True
    return _proportional(left, right, positive=signs[0] in ("<", r"\le"))


def _proportional(left: list[str], right: list[str], positive: bool) -> bool:
    a, b = (("add", read_expression(p[0]), ("neg", read_expression(p[1]))) for p in (left, right))
    return proportional(a, b, positive)


def _ascending(parts: list[str], signs: list[str]) -> tuple[list[str], list[str]]:
    if signs and all(sign in (">", r"\ge") for sign in signs):
        return parts[::-1], [_TURNED[sign] for sign in signs[::-1]]
    return parts, signs


def is_relation(text: str) -> bool:
    return len(split(text, RELATION)) > 1
