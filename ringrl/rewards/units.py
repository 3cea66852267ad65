"""Units of measurement: reads a text as a factor and dimensions, by a table small enough to see what is a unit.

A word that is not in the table is a dimension of its own: 3 apples are 3 apples. Scales with another zero (degrees
Celsius) are dimensions of their own too, and so are currencies: none is converted into another.
"""

from __future__ import annotations

import functools
import math
import re
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction

RADIAN = Fraction(180 / math.pi)  # stands for 180/π degrees, which is no fraction
_SHORT = {"f": -15, "p": -12, "n": -9, "µ": -6, "u": -6, "m": -3, "c": -2, "d": -1, "h": 2, "k": 3, "M": 6, "G": 9,
          "T": 12}  # fmt: skip
_LONG = {"femto": -15, "pico": -12, "nano": -9, "micro": -6, "milli": -3, "centi": -2, "deci": -1, "hecto": 2,
         "kilo": 3, "mega": 6, "giga": 9, "tera": 12}  # fmt: skip

# (names that take short prefixes, names that take long ones, names that take none, factor, definition);
# a definition with a colon is a dimension of its own
_UNITS: list[tuple[str, str, str, str, str]] = [
    ("m", "meter metre", "", "1", ":m"), ("g", "gram gramme", "", "0.001", ":kg"), ("s", "second", "sec", "1", ":s"),
    ("A", "ampere amp", "", "1", ":A"), ("K", "kelvin", "", "1", ":K"), ("mol", "mole", "", "1", ":mol"),
    ("cd", "candela", "", "1", ":cd"), ("Hz", "hertz", "", "1", "s^-1"), ("N", "newton", "", "1", "kg m s^-2"),
    ("Pa", "pascal", "", "1", "N m^-2"), ("J", "joule", "", "1", "N m"), ("W", "watt", "", "1", "J s^-1"),
    ("C", "coulomb", "", "1", "A s"), ("V", "volt", "", "1", "W A^-1"), ("F", "farad", "", "1", "C V^-1"),
    ("Ω", "ohm", "", "1", "V A^-1"), ("S", "siemens", "", "1", "A V^-1"), ("Wb", "weber", "", "1", "V s"),
    ("T", "tesla", "", "1", "Wb m^-2"), ("H", "henry", "", "1", "Wb A^-1"), ("L l", "liter litre", "", "0.001", "m^3"),
    ("M", "molar", "", "1000", "mol m^-3"), ("eV", "electronvolt", "", "1.602176634e-19", "J"),
    ("bar", "", "", "100000", "Pa"), ("cal", "calorie", "", "4.184", "J"),
    ("", "", "Cal", "4184", "J"), ("", "", "t ton tonne", "1000", "kg"),
    ("", "", "min minute", "60", "s"), ("", "", "h hr hrs hour", "3600", "s"), ("", "", "day", "24", "hour"),
    ("", "", "week", "7", "day"), ("", "", "yr yrs year", "1", ":year"), ("", "", "month", "1/12", "year"),
    ("", "", "in inch", "0.0254", "m"), ("", "", "ft foot feet", "12", "in"), ("", "", "yd yard", "3", "ft"),
    ("", "", "mi mile", "1760", "yd"), ("", "", "lb lbs pound", "0.45359237", "kg"), ("", "", "oz ounce", "1/16", "lb"),
    ("", "", "mph", "1", "mi hour^-1"), ("", "", "kph kmh", "1", "km hour^-1"), ("", "", "atm", "101325", "Pa"),
    ("Wh", "", "", "3600", "J"), ("", "", "Å angstrom ångström ångstrom", "1e-10", "m"),
    ("", "", "mpg", "1", ":mpg"), ("", "", "dyn dyne", "1e-5", "N"), ("", "", "erg", "1e-7", "J"),
    ("", "", "gauss G", "1e-4", "T"),
    ("", "poise", "", "0.1", "Pa s"),
    ("", "", "AU", "149597870700", "m"), ("", "", "ly lightyear", "9.4607304725808e15", "m"),
    ("", "", "rev revolution", "1", ":rev"), ("", "", "rpm", "1", "rev min^-1"),
    ("Bq", "becquerel", "", "1", ":Bq"), ("Gy", "gray", "", "1", "J kg^-1"), ("Sv", "sievert", "", "1", ":Sv"),
    ("lm", "lumen", "", "1", ":lm"), ("pc", "parsec", "", "3.0856775814913673e16", "m"),
    ("", "", "psi", "6894.757", "Pa"), ("", "", "hp horsepower", "745.69987", "W"), ("", "", "ppm", "1/1000000", ":"),
    ("", "", "gal gallon", "3.785411784", "L"), ("", "", "acre", "4046.8564224", "m^2"),
    ("", "", "knot", "1.852", "km hour^-1"), ("", "", "ha hectare", "10000", "m^2"),
    ("", "", "quart", "1/4", "gal"), ("", "", "pint", "1/8", "gal"), ("", "", "cc", "1", "cm^3"),
    ("", "", "mmHg torr", "101325/760", "Pa"), ("", "", "amu u", "1.66053906660e-27", "kg"),
    ("", "", "% percent percentage pct", "1/100", ":"), ("", "", "° deg degree", "1", ":°"),
    ("", "", "rad radian", str(RADIAN), "°"), ("", "", "°C celsius °celsius", "1", ":°C"),
    ("", "", "°F fahrenheit °fahrenheit", "1", ":°F"),
    ("", "", "$ dollar usd buck", "1", ":$"), ("", "", "¢ cent", "1/100", "$"),
    ("", "", "€ euro eur", "1", ":€"), ("", "", "£ gbp", "1", ":£"),
    ("", "", "¥ yen jpy yuan rmb 元", "1", ":¥"), ("", "", "₹ rupee inr rs", "1", ":₹"),
]  # fmt: skip
_BY_NAME = [{name: (Fraction(row[3]), row[4]) for row in _UNITS for name in row[i].split()} for i in range(3)]
_FACTOR = re.compile(
    r"\s*(?P<op>/|\bper\b|[*·]|-(?=[^\W\d_]))?\s*(?P<name>light[- ]years?|electron[- ]volts?|[^\W\d_°]+|"
    r"[%°$€£¥¢₹](?:[Cc]elsius|[Ff]ahrenheit|[CF])?|1(?=/))(?:\^?\{?(?P<power>-?\d)\}?)?\s*"
)
_WORDS = re.compile(r"[^\W\d_](?:[^\W\d_]|[.' -])*[^\W\d_.]\.?|[\u0e00-\uffdc]")
_POWERS = {"squared": "^2", "cubed": "^3"}
_NO_UNITS = frozenset(  # words that say something about a number, or make another one of it
    re.findall(
        r"[a-z']+",
        "or and not to more less maybe than through vs is are was isn't no wrong incorrect false invalid at "
        "most least fewer greater smaller over under above below negative minus plus squared cubed if "
        "when where unless except for other half double twice triple thousand million billion trillion "
        "hundred dozen remainder modulo mod factorial approximately about between from but never nor neither "
        "either instead without inverse reciprocal root log power exponent prime undefined impossible "
        "infinite correct true answer solution solutions each because since so then",
    )
)


@dataclass(frozen=True)
class Unit:
    """`factor` times a product of powers."""

    factor: Fraction
    dimensions: frozenset[tuple[str, int]]

    def times(self, other: Unit) -> Unit:
        powers = Counter(dict(self.dimensions))
        powers.update(dict(other.dimensions))
        return Unit(self.factor * other.factor, frozenset((name, n) for name, n in powers.items() if n))


NO_UNIT = Unit(Fraction(1), frozenset())


def read_unit(text: str) -> Unit | None:
    """`m/s^2`, `J/(mol K)`, `square feet`, `apples`; None for what cannot be one.

    A stroke divides by the next factor only, or by all of a bracket.
    """
    text = re.sub(r"\b(?:square|sq\.?)\s+([A-Za-z]+)", r"\1^2", text)
    text = re.sub(r"\b(?:cubic|cu\.?)\s+([A-Za-z]+)", r"\1^3", text)
    text = re.sub(r"(?<=\bper )([A-Za-z]+) (squared|cubed)\b", lambda m: m[1] + _POWERS[m[2]], text)
    text = re.sub(r"\b(?:degrees?|deg\.?) (?=(?:[CF]|[Cc]elsius|[Ff]ahrenheit)\b)", "°", text).replace("% ", "percent ")
    text = text.replace("\\cdot", "*").replace("⋅", "*").strip(" .")
    if not text or _NO_UNITS & set(re.split(r"[\s,;:.!?]+", text.casefold())):
        return None
    text = re.sub(r"/\s*\(([^()]*)\)", lambda m: "/" + re.sub(r"\s*[*\s]\s*", "/", m[1].strip()), text)
    unit = _product(text) or ("." in text and _product(re.sub(r"\.(?=[^\W\d_])", "*", text))) or None
    return unit or _word(text)


def _product(text: str) -> Unit | None:
    """A product of powers of units of the table."""
    factor, powers, at = Fraction(1), Counter[str](), 0
    while at < len(text):
        if not (match := _FACTOR.match(text, at)):
            return None
        power = int(match["power"] or 1) * (-1 if match["op"] in ("/", "per") else 1)
        if not (unit := NO_UNIT if match["name"] == "1" else _lookup(re.sub("[- ]", "", match["name"]))):
            return None
        factor *= unit.factor**power
        powers.update({name: n * power for name, n in unit.dimensions})
        at = match.end()
    return Unit(factor, frozenset((name, n) for name, n in powers.items() if n))


def _word(text: str) -> Unit | None:
    """Things that are counted, such as apples."""
    text = re.sub(r"\^\d", "", text)
    if not _WORDS.fullmatch(text):
        return None
    words = [_singular(word) for word in re.sub(r"[.']", "", text.casefold()).split()]
    return Unit(Fraction(1), frozenset([(" ".join(words), 1)]))


def _singular(word: str) -> str:
    if word.endswith(("ches", "shes", "xes")):
        return word[:-2]
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


@functools.lru_cache(1024)
def _lookup(name: str) -> Unit | None:
    """A name of the table, in the singular or the plural, with a prefix or without."""
    lower = name.casefold() if len(name) > 2 else name
    for word in dict.fromkeys((name, _singular(name), lower, _singular(lower))):
        for table in _BY_NAME:
            if word in table:
                return _made_of(*table[word])
        for prefixes, table in zip((_SHORT, _LONG), _BY_NAME, strict=False):
            for prefix, power in prefixes.items():
                if word.startswith(prefix) and (base := word[len(prefix) :]) in table:
                    factor, definition = table[base]
                    return _made_of(factor * Fraction(10) ** power, definition)
    return None


def _made_of(factor: Fraction, definition: str) -> Unit:
    if definition.startswith(":"):
        return Unit(factor, frozenset([(definition[1:], 1)] if definition[1:] else []))
    unit = read_unit(definition)
    assert unit, definition
    return Unit(factor * unit.factor, unit.dimensions)
