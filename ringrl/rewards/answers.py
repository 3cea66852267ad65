r"""Verdicts, and the verifiers of final answers: the last `\boxed{...}` of a response against the reference.

Text is made plain (`ringrl.rewards.typography`), numbers and quantities are compared exactly (`ringrl.rewards.plain`),
sets and relations by what they say (`ringrl.rewards.relations`), expressions by their values to as many digits as it
takes (`ringrl.rewards.expressions`). The rules where graders differ:

1. Boxes side by side ("\boxed{1} and \boxed{2}") are one list, unless each of them is the reference. A list is wrong
   where one value is expected.
2. Equal means equal: 0.3333 is not 1/3. In science, and only there, a number has a tolerance of 1 %, if the reference
   is written with a decimal point or an exponent: 9.8 is measured, 100 is counted. In math a reference with a decimal
   point and three digits, or with an exponent, may be rounded: a rational number that rounds to it is right.
3. A unit, percent sign or number base on one side only is taken from the question: 5 cm is 5. Two units are
   converted and must agree: 5 cm is 0.05 m and not 5 m. 50 % is 0.5, and also 50, since a number above 1 may be
   a percentage without its sign.
4. Repeating the question is no answer: sums, integrals, limits and the like must be evaluated, unless the
   reference is not evaluated either.
5. Values without brackets match both a set and a point; (1, 2) and {1, 2} differ.
6. An exact value may be followed by its own rounding: \sqrt{2} ≈ 1.41. Two values that differ are a contradiction.
7. A row's `tolerance`, {"relative": r} or {"absolute": a}, takes the place of rule 2 for all its numbers.
8. The letter of a bound variable is free: {x | x > 3} is {y | y > 3}, f(x) = 2x is f(n) = 2n.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from ringrl.data.reference_keys import Tolerance, answer_text, read_tolerance
from ringrl.rewards.boxes import last_boxed, last_boxes
from ringrl.rewards.expressions import (
    TooLarge,
    Tree,
    Unreadable,
    equal_values,
    letters,
    read_expression,
    real,
)
from ringrl.rewards.formulas import same_chemistry
from ringrl.rewards.limit import OutOfTime, processor_time
from ringrl.rewards.plain import (
    Many,
    Quantity,
    Value,
    alike,
    contradicts_itself,
    grouped_digits,
    lines,
    read,
    read_number,
    right_sides,
    same,
    split_unit,
)
from ringrl.rewards.relations import RELATION, is_relation, real_set, same_relations, same_sets
from ringrl.rewards.typography import DECIMAL, clean, skeleton, split
from ringrl.rewards.units import NO_UNIT, RADIAN, Unit
from ringrl.rewards.verdict import Verdict, after_thinking

RELATIVE_TOLERANCE = Fraction(1, 100)  # science: for references with a decimal point or an exponent
SHORTER_TOLERANCE = Fraction(1, 1000)  # math: for an answer with fewer digits than such a reference
ROUNDED_DIGITS = 3  # fewest digits of a decimal that may be rounded
FLOAT_DIGITS, FLOAT_NOISE = 15, 4e-16  # a reference with so many digits was computed in floating point
EXACT_DIGITS = 6  # fewest decimals that stand for a value that no decimal has, such as a root
MAX_ANSWER_CHARS = 1000  # a longer answer fails unread, unless the reference is about as long
LIMIT_S = 2.0  # processor time for one answer; a slower one fails

_WORD = re.compile(r"\\text\s*\{([^{}\\]*)\}|[^\W\d_](?:[^\W\d_]|[' -]){2,}|[^\W\d_]|[^\W\d_a-zA-Z]+")
_PRIMED = re.compile(r"[A-Za-z]'+")
_TEXT = re.compile(
    r"\\text\s*\{[^{}\\]*\}|[A-Za-z' -]*[A-Za-z]{4}[A-Za-z' -]*|[^\W\d_a-zA-Z]+"
)  # letters that are no factors
_FORMULA = (  # a letter followed by this is a variable, not an option
    r"[=<>≤≥≈≠∈+*/^]|-(?! [A-Za-z]{2})|"
    r"\\(?:in|geq?|leq?|neq?|equiv|approx|sim|to|propto|pm|cdot|times|left)(?![A-Za-z])"
)
_LETTER = re.compile(
    rf"(?:[Oo]ption|[Cc]hoice|[Aa]nswer)? *\(?\s*([A-Za-z])\s*\)?(?P<rest>\s*[.:)].*| +(?!{_FORMULA})[^A-Za-z\s,;].*|"
    r"[,;]? +(?:because|since|as|due to) .*| is (?:the )?(?:correct|right|best|answer).*)?",
    re.DOTALL,
)
_TAKEN_BACK = re.compile(
    r"\b(?:so|thus|hence|therefore|answer|not|but)\b.*\b[A-J]\b|^\W*(?:wrong|incorrect|false|no)\b|"
    r"^\W*(?:(?:and|or)\b|[,/&])\W*[A-J]\b",
    re.DOTALL,
)
_LETTERS = re.compile(r"\(?[A-Za-z]\)?(?: ?[,;] ?\(?[A-Za-z]\)?)+")
_SEVERAL = re.compile(r"[A-H]{2,8}")
_LABEL = re.compile(r"(?:\\text ?\{ ?\(([A-J])\)\.? ?\}|\(([A-J])\)|([A-J])[.)])\.? +(?P<value>[^ ].*)")
_LABEL_ALONE = re.compile(r"\(?\\?(?:text)? ?\{? ?\(?([A-J])\)?\.? ?\}?\)?")
_QUESTION = re.compile(
    r"\\(?:sum|prod|i{1,3}nt|oint|lim|bmod|mod|max|min|gcd|lcm|det|sup|inf)(?![a-zA-Z])|\\begin\{[vV]matrix"
)
_CLOCK = re.compile(r"(\d{1,2})(?::(\d\d))? ?(?:\\text ?\{ ?)?(?:([AaPp])\.? ?[Mm]\.?)? ?\}?")
_DESCRIBED = re.compile(r"[<>|]|\\(?:le|ge|ne|mid|in|mathbb|setminus|cup|lor)(?![a-z])|^\]|\[$| or |\\text ?\{R\}")
_SET = re.compile(r"\\\{ ?(?P<elements>.*?) ?(?::|\\mid(?![a-z])|\|) ?(?P<condition>.*?) ?\\\}")
_HEAD = re.compile(r"([a-zA-Z]) ?(\( ?([a-z]) ?\)|_ ?\{?([a-z])\}?) ?=")
_POINT_NAME = re.compile(r"(?<![A-Za-z\\])[A-Z]'?(?:_\{?\d\}?)? ?(?=\([^()]*,[^()]*\))")
_MEMBER = re.compile(r"[a-zA-Z] ?\\in(?![a-z]) ?(?=\\\{)")
_SCALED = re.compile(r"(?P<scale>[^&]+?) ?(?:\\cdot ?)?(?P<matrix>\\begin ?\{[pb]?matrix\}.*?\\end ?\{[pb]?matrix\})")
_CONSTANT = re.compile(r"(?<=[+-]) ?([cC])$")
_PM = re.compile(r"\\[pm]{2}(?![a-zA-Z])")


@dataclass(frozen=True)
class Rules:
    """What differs between the domains: the relative tolerance for measured numbers, and what science writes."""

    tolerance: Fraction
    science: bool
    given: Tolerance | None = None  # the row's own, in place of the domain's and of any rounding


MATH = Rules(Fraction(0), science=False)
SCIENCE = Rules(RELATIVE_TOLERANCE, science=True)


def verify_math(text: str, reference: Mapping[str, object]) -> Verdict:
    """Judges a response against `reference["answer"]`."""
    return _verify(text, reference, MATH)


def verify_science(text: str, reference: Mapping[str, object]) -> Verdict:
    """Judges a response against `reference["answer"]`."""
    return _verify(text, reference, SCIENCE)


def check_answer(reference: Mapping[str, object], rules: Rules = MATH) -> None:
    """Raises ValueError, naming the problem, for a reference that the verifiers of answers cannot use."""
    expected = expected_answer(reference)
    if not expected.strip("$ "):
        raise ValueError("the reference has no 'answer'")
    rules = _of_row(rules, reference, expected)
    try:
        with processor_time(LIMIT_S):
            text = _plain(expected)
            _equal(f"{text} ", text, rules)
            _evaluate(read(text, texts=True), rules)
    except OutOfTime:
        raise ValueError(f"the reference takes more than {LIMIT_S:g} s to read: {expected[:80]}") from None
    except Exception as error:  # a reference can be anything, too
        raise ValueError(f"the reference cannot be read: {expected[:80]} ({type(error).__name__})") from error


def _evaluate(value: Value | None, rules: Rules) -> None:
    """Finds the values of the expressions in a reference, as a comparison with it does."""
    if isinstance(value, Many):
        for item in value.items:
            _evaluate(item, rules)
    elif isinstance(value, str) and read_number(magnitude := split_unit(value, rules.science).magnitude) is None:
        for side in split(magnitude, RELATION):
            with contextlib.suppress(Unreadable):
                tree = read_expression(side.strip())
                equal_values(tree, ("add", tree, ("number", Fraction(1))))


def expected_answer(reference: Mapping[str, object]) -> str:
    """What stands in `reference["answer"]`: without its box, the texts of a list separated by commas, "" for none.

    Raises:
        ValueError: it is neither a text nor a number, nor a list of these.
    """
    expected = answer_text(reference.get("answer")).strip()
    if expected.startswith("[") and expected.endswith("]") and ('"' in expected or "'" in expected):
        expected = _listed(expected)
    expected = expected.rpartition("####")[2].strip()  # as GSM8K writes them
    return last_boxed(expected) or expected


def _of_row(rules: Rules, reference: Mapping[str, object], expected: str) -> Rules:
    """The rules with the row's tolerance, if it has one. Raises ValueError for one that does not fit the answer."""
    given = rules.given or read_tolerance(reference.get("tolerance"))
    if given and len(given.absolute) > 1:
        text = lines(clean(expected))
        value = _with_both_signs(read(text, texts=True) or text)
        answers = value.items if isinstance(value, Many) and value.kind in ("", "{}") else (value,)
        if len(answers) != len(given.absolute) or any(isinstance(answer, Many) for answer in answers):
            raise ValueError(f"tolerance: got {len(given.absolute)} values, expected one, or one for each of several "
                             f"numbers: {expected[:80]}")  # fmt: skip
    return dataclasses.replace(rules, given=given)


def _listed(text: str) -> str:
    """The texts of a list in JSON or in Python, separated by commas; any other text as it is."""
    quoted = re.fullmatch(r"\[\s*'([^']*)'(?:\s*,\s*'[^']*')*\s*\]", text)
    if quoted:
        return ", ".join(item.replace("\\\\", "\\") for item in re.findall(r"'([^']*)'", text))
    if not re.search(r"\\\\", text):  # written with single backslashes, which JSON would read as control characters
        text = re.sub(r"\\(?!\")", r"\\\\", text)
    with contextlib.suppress(ValueError):
        items = json.loads(text)
        if isinstance(items, list) and items and all(isinstance(item, (str, int, float)) for item in items):
            return ", ".join(map(str, items))
    return text


def _verify(text: str, reference: Mapping[str, object], rules: Rules) -> Verdict:
    try:
        expected = expected_answer(reference)
        rules = _of_row(rules, reference, expected)
    except ValueError as error:
        return Verdict("error", f"the reference cannot be used: {error}")
    if not expected.strip("$ "):
        return Verdict("error", "the reference has no 'answer'")
    contents = last_boxes(after_thinking(text))
    if not contents:
        return Verdict("fail", "no_answer")
    answer = ", ".join(contents)
    if answer == expected:
        return Verdict("pass", "exact")
    if len(answer) > max(MAX_ANSWER_CHARS, 4 * len(expected)):
        return Verdict("fail", "too_long")
    target = _plain(expected)
    verdict = _judged(_plain(answer), target, rules)
    if verdict.kind == "fail" and 1 < len(contents) <= 8:
        alone = [_judged(_plain(content), target, rules) for content in contents]
        if all(v.kind == "pass" for v in alone):
            return alone[-1]
    return verdict


def _plain(text: str) -> str:
    text = clean(text)
    return lines(text) if "\\" in text else text


def _judged(answer: str, expected: str, rules: Rules) -> Verdict:
    """Whatever an answer does to its comparison, it is a fail, unless the reference does the same by itself."""
    try:
        return _judge(answer, expected, rules)
    except OutOfTime:
        reason = "too_slow"
    except Exception as error:  # an answer can be anything
        reason = f"incomparable: {type(error).__name__}"
    try:
        check_answer({"answer": expected}, rules)
    except ValueError as error:
        return Verdict("error", str(error))
    return Verdict("fail", reason)


def _judge(answer: str, expected: str, rules: Rules) -> Verdict:
    """Compares clean texts, from the cheapest comparison to the most expensive one."""
    if skeleton(answer) == skeleton(expected):
        return Verdict("pass", "exact")
    joined = _SEVERAL.fullmatch(expected) and sorted(set(expected)) == list(expected)
    if rules.science and (letter := expected if joined else _letters(expected)):
        return Verdict("pass", "choice") if _letters(answer) == letter else Verdict("fail", "wrong")
    if ":" in answer + expected and (clock := _clock(answer, expected)) is not None:
        return Verdict("pass", "time") if clock else Verdict("fail", "wrong")
    if contradicts_itself(answer):
        return Verdict("fail", "contradiction")
    if "\\approx" not in answer + expected and (verdict := _judge_quantities(*right_sides(answer, expected), rules)):
        return verdict
    if _QUESTION.search(right_sides(answer, expected)[0]) and not _QUESTION.search(expected):
        return Verdict("fail", "unevaluated")
    with processor_time(LIMIT_S):
        grouped = grouped_digits(answer), grouped_digits(expected)
        if any(_equal(*texts, rules) for texts in dict.fromkeys(((answer, expected), grouped))):
            return Verdict("pass", "equal")
    return Verdict("fail", "wrong")


# ---- quantities ------------------------------------------------------------------------------------------------


def _judge_quantities(answer: str, expected: str, rules: Rules) -> Verdict | None:
    """The verdict on two numbers with or without a unit, None for anything else."""
    left, right = _quantities(answer, expected, rules)
    if left.unit and right.unit and left.unit.dimensions != right.unit.dimensions:
        return Verdict("fail", "unit")
    if (numerals := _same_numerals(left, right)) is not None:
        return Verdict("pass", "exact") if numerals else Verdict("fail", "wrong")
    x, y = read_number(left.magnitude), read_number(right.magnitude)
    if x is None or y is None:
        return None
    equal = _equal_numbers(x, y, left, right, rules)
    return (
        Verdict("pass", "number" if rules.tolerance or rules.given else "exact") if equal else Verdict("fail", "wrong")
    )


def _quantities(answer: str, expected: str, rules: Rules) -> tuple[Quantity, Quantity]:
    left = split_unit(answer, rules.science)
    right = split_unit(expected, rules.science or left.unit is not None)
    if right.unit and not left.unit and not rules.science:
        left = split_unit(answer, bare=True)
    return left, right


def _same_numerals(left: Quantity, right: Quantity) -> bool | None:
    """Whether two numerals are the same in a base that one of them has; None where none has."""
    dimensions = (left.unit or right.unit or NO_UNIT).dimensions
    if not any(name.startswith("base ") for name, _ in dimensions):
        return None
    return left.magnitude.lstrip("0").upper() == right.magnitude.lstrip("0").upper()


def _equal_numbers(x: Fraction | float, y: Fraction | float, left: Quantity, right: Quantity, rules: Rules) -> bool:
    if isinstance(x, float) or isinstance(y, float):
        return x == y
    scales = _scales(left.unit, right.unit)
    return any(
        x * scale == y or _near(x * scale, y, (left.magnitude if scale == 1 else "", right.magnitude), rules)
        for scale in (scales[:1] if -1 <= x <= 1 else scales)  # 0.5 is 50 % and not 0.5 %
    )


def _near(x: Fraction, y: Fraction, written: tuple[str, str], rules: Rules) -> bool:
    """Whether x is near y for a reference that is measured or rounded, by how it is written."""
    if rules.given:
        return rules.given.allows(x - y, y)
    if not re.search(r"[.eE^]", written[1]):
        return False
    if rules.tolerance:
        return abs(x - y) <= rules.tolerance * abs(y)
    digits, ulp = _digits(written[1])
    if not ulp or (digits < ROUNDED_DIGITS and not re.search(r"[eE^]", written[1])):
        return False
    if abs(x - y) * 2 <= ulp:
        return True
    fewer, step = _digits(written[0])
    return ROUNDED_DIGITS <= fewer < digits and abs(x - y) * 2 <= step and abs(x - y) <= SHORTER_TOLERANCE * abs(y)


def _digits(text: str) -> tuple[int, Fraction]:
    """How many significant digits a decimal has, and the value of one in its last place; (0, 0) for anything else."""
    match = re.fullmatch(r"-?(\d*)(?:\.(\d*))?(?: ?(?:[eE]|(?:\\times|\\cdot|\*) ?10 ?\^ ?\{?) ?([+-]?\d+)\}?)?", text)
    if not match or len(match[3] or "") > 4:
        return 0, Fraction(0)
    digits = (match[1] + (match[2] or "")).lstrip("0")
    return len(digits), Fraction(10) ** (int(match[3] or 0) - len(match[2] or ""))


def _scales(left: Unit | None, right: Unit | None) -> list[Fraction]:
    """Factors from the answer's number to the reference's unit; the second assumes that a % sign was left out."""
    if left and right:
        return [left.factor / right.factor]
    unit = left or right
    if unit is None or unit.dimensions:
        return [Fraction(1)]
    factor = unit.factor if left else 1 / unit.factor
    return [factor, Fraction(1)] if unit.factor == Fraction(1, 100) else [factor]


# ---- everything else -------------------------------------------------------------------------------------------


def _equal(answer: str, expected: str, rules: Rules) -> bool:
    if (label := _labelled(answer, expected, rules)) is not None:
        return label
    answer, expected = right_sides(*_same_letters(*_without_roundings(answer, expected, rules)))
    if _POINT_NAME.search(answer) and not _POINT_NAME.search(expected):
        answer = _POINT_NAME.sub("", answer)
    if (_MEMBER.match(answer) is None) != (_MEMBER.match(expected) is None):
        answer, expected = _MEMBER.sub("", answer), _MEMBER.sub("", expected)
    if _DESCRIBED.search(answer) or _DESCRIBED.search(expected):
        left, right = real_set(answer), real_set(expected)
        if left and right:
            return same_sets(left, right, lambda a, b: _equal_leaves(a, b, rules))
        if (first := _description(answer)) and (second := _description(expected)):
            return _same_descriptions(first, second, rules)
    x, y = (_with_both_signs(_whole(text)) for text in (answer, expected))
    if isinstance(x, Many) != isinstance(y, Many):
        return False
    by_answer = _by_answer(y, rules)
    return same(x, y, lambda a, b: _equal_leaves(a, b, by_answer.get(b, rules)))


def _by_answer(expected: Value, rules: Rules) -> dict[Value, Rules]:
    """The rules of each answer, where each has a tolerance of its own."""
    if not rules.given or len(rules.given.absolute) < 2 or not isinstance(expected, Many):
        return {}
    each = [dataclasses.replace(rules, given=Tolerance(absolute=(limit,))) for limit in rules.given.absolute]
    return dict(zip(expected.items, each, strict=True))


def _whole(text: str) -> Value:
    """A text as a value, a matrix with its factor in every cell."""
    match = _SCALED.fullmatch(text) if "matrix" in text else None
    if match and isinstance(cells := read(match[2], texts=True), Many):
        rows = [row for row in cells.items if isinstance(row, Many)]
        factor = "-1" if match[1] == "-" else match[1]
        return Many(cells.kind, tuple(Many("row", tuple(f"({factor})({c})" for c in row.items)) for row in rows))
    return read(text, texts=True) or text


def _description(text: str) -> tuple[str, str] | None:
    """The elements and the condition of {elements | condition}; {x | x = 2k, k in Z} is {2k | k in Z}."""
    if not (match := _SET.fullmatch(text)):
        return None
    said = re.fullmatch(rf"{re.escape(match['elements'])} ?= ?([^,]*), ?(.*)", match["condition"])
    return (said[1], said[2]) if said else (match["elements"], match["condition"])


def _same_descriptions(answer: tuple[str, str], expected: tuple[str, str], rules: Rules) -> bool:
    """Whether two sets {elements | condition} have equal elements under the same condition."""
    elements, condition = answer
    mine, theirs = (re.match(r"([a-zA-Z]) ?\\in(?![a-z])", side[1]) for side in (answer, expected))
    if mine and theirs and mine[1] != theirs[1]:
        elements, condition = (_renamed(text, mine[1], theirs[1]) for text in answer)
    return skeleton(condition) == skeleton(expected[1]) and _equal_leaves(elements, expected[0], rules)


def _labelled(answer: str, expected: str, rules: Rules) -> bool | None:
    """The verdict where a side has the letter of an option before its value, `(C) 12`; None where none has."""
    left, right = _LABEL.fullmatch(answer), _LABEL.fullmatch(expected)
    if left and right:
        return _label(left) == _label(right) and _equal(left["value"], right["value"], rules)
    if right and (alone := _LABEL_ALONE.fullmatch(answer)):
        return alone[1] == _label(right)
    if left and (alone := _LABEL_ALONE.fullmatch(expected)):
        return alone[1] == _label(left)
    if left:
        return _equal(left["value"], expected, rules)
    return _equal(answer, right["value"], rules) if right else None


def _label(match: re.Match[str]) -> str:
    return match[1] or match[2] or match[3]


def _without_roundings(answer: str, expected: str, rules: Rules) -> tuple[str, str]:
    r"""Both without the roundings of their own value: `\sqrt{2} \approx 1.41` is \sqrt{2}.

    Raises Unreadable if what is called a rounding is none.
    """
    return _exact_side(answer, expected, rules), _exact_side(expected, answer, rules)


def _exact_side(text: str, other: str, rules: Rules) -> str:
    sides, approximate = alike(text)
    if not approximate or len(sides) < 2:
        return text
    quantities = [split_unit(side, rules.science) for side in sides]
    decimals = [q for q in quantities if "." in q.magnitude and DECIMAL.fullmatch(q.magnitude.lstrip("-"))]
    values = [
        (side, q) for side, q in zip(sides, quantities, strict=True)
        if q not in decimals and (read_number(q.magnitude) is not None or _value(q.magnitude) is not None)
    ]  # fmt: skip
    if not values or not decimals:
        return text
    for (_, exact), decimal in itertools.product(values, decimals):
        if not _rounds_to(exact, decimal):
            raise Unreadable(f"{decimal.magnitude} is no rounding of {exact.magnitude}")
    wanted = split_unit(other, rules.science).magnitude
    if any(q.magnitude == wanted for q in decimals):
        return wanted
    return values[-1][0]


def _value(text: str) -> Any:
    try:
        return real(read_expression(text))
    except Unreadable:
        return None


def _rounds_to(exact: Quantity, decimal: Quantity) -> bool:
    """Whether a decimal is the value rounded, or cut, to its digits; degrees may stand for radians."""
    value, ulp = _value(exact.magnitude), _digits(decimal.magnitude)[1]
    if value is None:
        number = read_number(exact.magnitude)
        value = number if isinstance(number, Fraction) else None
    if value is None or not ulp:
        return False
    rounded = float(decimal.magnitude)
    if decimal.unit and decimal.unit.dimensions == frozenset([("°", 1)]) and not exact.unit:
        value = value * float(RADIAN)
    return abs(float(value) - rounded) <= float(ulp) * 1.0001


def _same_letters(answer: str, expected: str) -> tuple[str, str]:
    """The answer with the bound letters of the reference: `f(n) = 2n` as `f(x) = 2x`, n π as k π, c x as k x."""
    left, right = _HEAD.match(answer), _HEAD.match(expected)
    if left and right and left[1] == right[1]:
        mine, theirs = left[3] or left[4], right[3] or right[4]
        if mine != theirs and theirs not in _bare(answer):
            answer = _renamed(answer, mine, theirs)
        return _same_parameter(answer, expected, "ckCK"), expected
    if all(r"\pi" in text or r"\circ" in text for text in (answer, expected)):
        return _same_parameter(answer, expected, "knmlz"), expected
    if (mine := _CONSTANT.search(answer)) and (theirs := _CONSTANT.search(expected)):
        return answer[: mine.start(1)] + theirs[1], expected
    return answer, expected


def _same_parameter(answer: str, expected: str, names: str) -> str:
    mine, theirs = ([name for name in names if name in _bare(text)] for text in (answer, expected))
    if len(mine) == len(theirs) == 1 and mine != theirs:
        return _renamed(answer, mine[0], theirs[0])
    return answer


def _bare(text: str) -> str:
    return re.sub(r"\\(?:text ?\{[^{}]*\}|[a-zA-Z]+)", " ", text)


def _renamed(text: str, old: str, new: str) -> str:
    return re.sub(rf"(\\[a-zA-Z]+)|{old}", lambda m: m[1] or new, text)


def _with_both_signs(value: Value) -> Value:
    r"""A value with each text that contains \pm as two, four if it contains two of them."""
    if isinstance(value, Many):
        items: list[Value] = []
        for item in value.items:
            new = _with_both_signs(item)
            items += new.items if isinstance(new, Many) and not new.kind and not isinstance(item, Many) else [new]
        return Many(value.kind, tuple(items))
    signs = _PM.findall(value) if isinstance(value, str) else []
    if not isinstance(value, str) or not signs or len(signs) > 3:
        return value
    linked = r"\mp" in signs
    texts = []
    for choice in itertools.product("+-", repeat=1 if linked else len(signs)):
        turned = iter(choice * len(signs) if linked else choice)
        parts = _PM.split(value)
        text = parts[0] + "".join(
            ("-" if (sign == "+") == (mark == r"\mp") else "+") + part
            for mark, sign, part in zip(signs, turned, parts[1:], strict=True)
        )
        texts.append(text.strip().removeprefix("+").strip())
    return Many("", tuple(texts))


def _equal_leaves(answer: str, expected: str, rules: Rules) -> bool:
    """Whether two texts without brackets around them are equal: numbers, quantities, words, relations, expressions."""
    answer, expected = right_sides(answer.strip(), expected.strip())
    if skeleton(answer) == skeleton(expected):
        return True
    if rules.science and (chemistry := same_chemistry(answer, expected)) is not None:
        return chemistry
    if (clock := _clock(answer, expected)) is not None:
        return clock
    left, right = _quantities(answer, expected, rules)
    if left.unit and right.unit and left.unit.dimensions != right.unit.dimensions:
        return False
    if (numerals := _same_numerals(left, right)) is not None:
        return numerals
    x, y = read_number(left.magnitude), read_number(right.magnitude)
    if x is not None and y is not None:
        return _equal_numbers(x, y, left, right, rules)
    if left.magnitude.casefold() == right.magnitude.casefold() and left.unit and left.unit == right.unit:
        return True
    if (ratios := _same_ratios(answer, expected)) is not None:
        return ratios
    if words := _words(expected):
        if words == _words(answer):
            return True
        if _TEXT.fullmatch(expected):
            return False
    return _equal_expressions(left, right, rules)


def _clock(answer: str, expected: str) -> bool | None:
    """Whether two times of the day agree; None if no side says a.m. or p.m. beside its minutes or beside the other."""
    left, right = _CLOCK.fullmatch(answer), _CLOCK.fullmatch(expected)
    if not left or not right:
        one = left or right
        return False if one and one[2] and one[3] else None
    if not (left[3] or right[3]) or not all(m[2] or m[3] for m in (left, right)):
        return None
    if (left[2] or "00") != (right[2] or "00"):
        return False
    if left[3] and right[3]:
        return int(left[1]) == int(right[1]) and left[3].casefold() == right[3].casefold()
    plain, said = (left, right) if right[3] else (right, left)
    afternoon = 12 if said[3] in "pP" else 0
    return int(plain[1]) in (int(said[1]), int(said[1]) % 12 + afternoon)


def _same_ratios(answer: str, expected: str) -> bool | None:
    """Whether 2:4:6 is 1:2:3, None unless both are such ratios of numbers."""
    left, right = answer.split(":"), expected.split(":")
    if len(left) != len(right) or len(left) < 2:
        return None
    x, y = ([_value(part) for part in parts] for parts in (left, right))
    if None in x or None in y or 0 in y:
        return None
    return all(
        equal_values(
            ("mul", read_expression(a), read_expression(right[0])),
            ("mul", read_expression(left[0]), read_expression(b)),
        )
        for a, b in zip(left[1:], right[1:], strict=True)
    )


def _words(text: str) -> str:
    r"""The normalised words of `\text{Yes}`, `a hyperbola`, `(C)`; "" for an expression."""
    match = None if _PRIMED.fullmatch(text) else _WORD.fullmatch(text.strip("() "))
    if match and re.fullmatch("[K-Zk-z]", match[0]):  # a variable and no option
        return match[0]
    spoken = re.findall(r"\w+", (match[1] or match[0]).casefold()) if match else []
    return " ".join(w for w in spoken if w not in ("a", "an", "the")) or " ".join(spoken)


def _equal_expressions(left: Quantity, right: Quantity, rules: Rules) -> bool:
    if is_relation(left.magnitude) or is_relation(right.magnitude):
        if not (is_relation(left.magnitude) and is_relation(right.magnitude)):
            return False

        def equal(a: str, b: str) -> bool:
            return _equal_expressions(Quantity(a, None), Quantity(b, None), rules)

        return same_relations(left.magnitude, right.magnitude, equal)
    if skeleton(left.magnitude) == skeleton(right.magnitude) and (left.unit is None or right.unit is None):
        return True
    try:
        x, y = _tree(left.magnitude), _tree(right.magnitude)
        for scale in _scales(left.unit, right.unit):
            scaled = _scaled(x, scale)
            if equal_values(scaled, y) or _near_expression(scaled, left, y, right, rules):
                return True
    except TooLarge:
        return False
    except Unreadable:
        return False
    return False


def _tree(text: str) -> Tree:
    number = read_number(text)
    return ("number", number) if isinstance(number, Fraction) else read_expression(text)


def _scaled(tree: Tree, scale: Fraction) -> Tree:
    if scale == 1:
        return tree
    if scale == RADIAN:
        return ("div", ("mul", tree, ("number", Fraction(180))), ("pi",))
    if scale == 1 / RADIAN:
        return ("div", ("mul", tree, ("pi",)), ("number", Fraction(180)))
    return ("mul", ("number", scale), tree)


def _near_expression(x: Tree, left: Quantity, y: Tree, right: Quantity, rules: Rules) -> bool:
    """Whether a number and the value of an expression that no decimal has are near, by how the number is written."""
    if letters(x) or letters(y):
        return False
    number = read_number(right.magnitude)
    value = real(x)
    if value is None or (y_value := real(y)) is None:
        return False
    if rules.given:
        return rules.given.allows(value - y_value, y_value)
    if rules.tolerance and isinstance(number, Fraction) and re.search(r"[.eE^]", right.magnitude):
        return bool(abs(value - y_value) <= abs(y_value) * float(rules.tolerance))
    for quantity in (left, right):
        digits, ulp = _digits(quantity.magnitude)
        if digits and ulp <= Fraction(1, 10**EXACT_DIGITS) and quantity.magnitude.count("."):
            noise = abs(float(y_value)) * FLOAT_NOISE if digits >= FLOAT_DIGITS else 0
            return bool(abs(value - y_value) <= max(float(ulp) / 2, noise))
    return False


def _letters(text: str) -> str:
    r"""The option letters of `B`, `(B)`, `\text{B}`, `B. because`, `C, A`, sorted; "" for anything else."""
    text = re.sub(r"\\text ?\{([^{}]*)\}", r"\1", text).strip(" .")
    if _LETTERS.fullmatch(text):
        return "".join(sorted(set(re.findall("[A-Z]", text.upper()))))
    match = _LETTER.fullmatch(text)
    if not match or _TAKEN_BACK.search(match["rest"] or ""):
        return ""
    return match[1].upper()
