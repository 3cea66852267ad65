r"""Expressions in LaTeX: read into a tree and compared by their values.

Two rational numbers are compared exactly. Anything else is evaluated with mpmath at two precisions: a difference that
shrinks with the precision is rounding, one that stays is a difference, however small. Letters take several values.
Nothing here solves, expands or simplifies, so the work is bounded by the size of the text, but for powers and
factorials, which are refused above `MAX_BITS` and `MAX_DIGITS`.
"""

from __future__ import annotations

import functools
import math
import re
import zlib
from collections.abc import Callable
from fractions import Fraction
from typing import Any

MAX_BITS = 400_000  # of an exact integer
MAX_DIGITS = 20_000  # precision that a comparison may need; larger numbers equal only what is written like them
MAX_DEPTH = 60  # brackets in brackets
POINTS = 7  # values that the letters of an expression take; the last ones are negative for some letters

Tree = tuple[Any, ...]  # (name, argument, ...): a Fraction or a letter is a leaf, ("number", value), ("letter", name)


class Unreadable(ValueError):
    """Not an expression that this module knows."""


class TooLarge(Unreadable):
    """A number with too many digits to compare."""


_TRIGONOMETRIC = ("sin", "cos", "tan", "cot", "sec", "csc")
_FUNCTIONS = {
    *_TRIGONOMETRIC, *(f"{name}h" for name in _TRIGONOMETRIC), *(f"arc{name}" for name in _TRIGONOMETRIC),
    "ln", "log", "exp", "lg",
}  # fmt: skip
_GREEK = frozenset(
    re.findall(
        r"\w+",
        "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi rho sigma tau upsilon phi "
        "chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega hbar ell vartheta varrho "
        "varsigma nabla partial",
    )
)
_SPELLINGS = {"varepsilon": "epsilon", "varphi": "phi", "imath": "i", "jmath": "j"}
_ACCENTS = ("dot", "ddot", "bar", "tilde", "vec", "hat", "widehat", "widetilde", "overline", "overrightarrow",
            "underline")  # fmt: skip
_SILENT_ACCENTS = ("vec", "hat", "widehat", "overline", "overrightarrow", "underline")  # as fonts: no other letter
_NUMBER = re.compile(r"\d+(?:\.\d*)?|\.\d+", re.ASCII)
_COMMAND = re.compile(r"\\([A-Za-z]+)")
_SUBSCRIPT = re.compile(r"_ ?(?:\{((?:[^{}]|\{[^{}]*\})*)\}|(\\[A-Za-z]+ ?(?:\{[^{}]*\})?|[A-Za-z\d*]))")
_DERIVATIVE = re.compile(
    r"\\frac ?\{ ?(?:d|\\partial) ?(\^ ?\{? ?\d ?\}?)? ?(\\?[A-Za-z]+(?:_\w)?)? ?\} ?"
    r"\{ ?(?:d|\\partial) ?(\\?[A-Za-z]+) ?(?:\^ ?\{? ?\d ?\}?)? ?\}"
)
_APPLIED = re.compile(r" ?\( ?([txnszk]) ?\)")
_NO_FACTOR = {"", "\\}", *"+-=<>,;)]}|!^_'&:%"}
_CLOSING = {"(": ")", "[": "]", "{": "}", "\\{": "\\}", "|": "|", r"\lfloor": r"\rfloor", r"\lceil": r"\rceil"}


class _Reader:
    """Recursive descent over a clean text."""

    def __init__(self, text: str) -> None:
        self.text, self.at, self.depth = text, 0, 0

    def whole(self) -> Tree:
        tree = self.sum()
        if self.peek():
            raise Unreadable(self.text[self.at :])
        return tree

    def peek(self) -> str:
        while self.text.startswith(" ", self.at):
            self.at += 1
        if match := _COMMAND.match(self.text, self.at):
            return match[0]
        if self.text.startswith(("\\{", "\\}", "\\|"), self.at):
            return self.text[self.at : self.at + 2]
        return self.text[self.at : self.at + 1]

    def take(self, token: str) -> bool:
        if token and self.peek() == token:
            self.at += len(token)
            return True
        return False

    def expect(self, token: str) -> None:
        if not self.take(token):
            raise Unreadable(f"expected {token}")

    def sum(self) -> Tree:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise Unreadable("brackets in brackets")
        tree = self.product(signed=True)
        while (token := self.peek()) in ("+", "-"):
            self.at += 1
            right = self.product(signed=True)
            tree = ("add", tree, right if token == "+" else ("neg", right))
        self.depth -= 1
        return tree

    def product(self, signed: bool = False) -> Tree:
        if signed and self.take("-"):
            return ("neg", self.product(signed=True))
        if signed and self.take("+"):
            return self.product(signed=True)
        tree = self.power()
        while True:
            token = self.peek()
            if token in ("*", r"\cdot", r"\times", "/", r"\div"):
                self.at += len(token)
                right = ("neg", self.power()) if self.take("-") else self.power()
                tree = ("div" if token in ("/", r"\div") else "mul", tree, right)
            elif self.starts_factor(token):
                tree = self.joined(tree)
            else:
                return tree

    def joined(self, left: Tree) -> Tree:
        """The product with the factor written beside `left`; of a number and a fraction of numbers, their sum."""
        before = self.text[: self.at].rstrip()
        fraction = self.peek() == r"\frac"
        digits = self.text[self.at : self.at + 1].isdigit()
        right = self.power()
        if digits and before[-1:].isalnum() and left[0] == "number":
            raise Unreadable("two numbers side by side")
        if fraction and left[0] == "number" and left[1].denominator == 1 and _is_fraction(right):
            return ("add", left, right)
        return ("mul", left, right)

    def starts_factor(self, token: str) -> bool:
        if token in _NO_FACTOR:
            return False
        if token.startswith("\\") and len(token) > 2:
            return self.known(token[1:])
        return True

    def known(self, name: str) -> bool:
        return (name in _FUNCTIONS or name in _GREEK or name in _SPELLINGS or name in _ACCENTS
                or name in ("frac", "sqrt", "binom", "pi", "text", "lfloor", "lceil", "odot"))  # fmt: skip

    def power(self) -> Tree:
        base = self.factor()
        while True:
            if self.peek() == "!" and not self.text.startswith("!=", self.at):
                double = self.text.startswith("!!", self.at)
                self.at += 1 + double
                base = ("double_factorial" if double else "factorial", base)
            elif self.take("^"):
                if self.take(r"\circ"):
                    base = ("mul", base, ("div", ("pi",), ("number", Fraction(180))))
                elif self.text.startswith(" ", self.at) and not self.peek():
                    raise Unreadable("no exponent")
                else:
                    return self.raised(base)
            else:
                return base

    def raised(self, base: Tree) -> Tree:
        exponent = self.exponent()
        if self.peek() == "!" and not self.text.startswith("!=", self.at):
            raise Unreadable("a factorial of a power or of its exponent")
        if self.take("^"):  # towers are read from the top
            exponent = self.raised(exponent)
        return ("pow", base, exponent)

    def exponent(self) -> Tree:
        token = self.peek()
        if token in ("-", "+"):
            self.at += 1
            tree = self.exponent()
            return ("neg", tree) if token == "-" else tree
        if token == "*":
            raise Unreadable("an adjoint")
        return self.factor()

    def argument(self) -> Tree:
        r"""The argument of a command such as `\sqrt`: a group, a command, or one character."""
        token = self.peek()
        if token == "{":
            return self.group(token)
        if token.isdigit():
            self.at += 1
            return ("number", Fraction(token))
        return self.factor()

    def group(self, opening: str) -> Tree:
        self.expect(opening)
        tree = self.sum()
        self.expect(_CLOSING[opening])
        return tree

    def factor(self) -> Tree:
        token = self.peek()
        if token in _CLOSING and token != "\\{":
            tree = self.group(token)
            return {"|": ("abs", tree), r"\lfloor": ("floor", tree), r"\lceil": ("ceil", tree)}.get(token, tree)
        if match := _NUMBER.match(self.text, self.at):
            self.at = match.end()
            if len(match[0]) > MAX_DIGITS:
                raise TooLarge(match[0][:20])
            return ("number", Fraction(match[0]))
        if len(token) == 1 and token.isalpha():
            self.at += 1
            return self.letter(token)
        if token.startswith("\\") and len(token) > 2:
            return self.command(token[1:])
        raise Unreadable(self.text[self.at :][:20])

    def command(self, name: str) -> Tree:
        if name == "frac" and (match := _DERIVATIVE.match(self.text, self.at)):
            self.at = match.end()
            return ("letter", re.sub(r"[ {}\\]", "", match[0]))
        self.at += len(name) + 1
        if name == "frac":
            return ("div", self.argument(), self.argument())
        if name == "binom":
            return ("binomial", self.argument(), self.argument())
        if name == "sqrt":
            degree = self.group("[") if self.peek() == "[" else ("number", Fraction(2))
            return ("root", self.argument(), degree)
        if name == "pi":
            return ("pi",)
        if name in _FUNCTIONS:
            return self.function(name)
        if name in _ACCENTS:
            return self.accented(name)
        if name == "text":
            return self.upright()
        if name in _GREEK or name in _SPELLINGS:
            return self.letter(_SPELLINGS.get(name, name))
        raise Unreadable(name)

    def accented(self, name: str) -> Tree:
        match = re.compile(r" ?(?:\{ ?(\\?[A-Za-z]+)(?:_(\w))? ?\}|(\\[A-Za-z]+|[A-Za-z]))").match(self.text, self.at)
        if not match:
            raise Unreadable(name)
        self.at = match.end()
        base = _SPELLINGS.get((match[1] or match[3]).strip("\\"), (match[1] or match[3]).strip("\\"))
        if name in ("vec", "overrightarrow") and len(base) == 2:  # from A to B, and not from B to A
            line: Tree = ("letter", "vec " + "".join(sorted(base)))
            return line if base == "".join(sorted(base)) else ("neg", line)
        if name in _SILENT_ACCENTS and len(base) > 1 and base not in _GREEK:  # a line between A and B
            tree: Tree = ("letter", base[0])
            for letter in base[1:]:
                tree = ("mul", tree, ("letter", letter))
            return tree
        prefix = (
            ""
            if name in _SILENT_ACCENTS and base not in ("i", "e")
            else f"{'vec' if name in _SILENT_ACCENTS else name} "
        )
        return self.letter(prefix + base + (f"_{match[2]}" if match[2] else ""))

    def upright(self) -> Tree:
        match = re.compile(r" ?\{ ?([^{}]*?) ?\}").match(self.text, self.at)
        if not match or not re.fullmatch(r"[^\W\d_]+", match[1]):
            raise Unreadable("text")
        self.at = match.end()
        return self.letter(match[1])

    def letter(self, name: str) -> Tree:
        """The letter with its subscript and primes, and the values in brackets that it is a function of."""
        plain = name
        if match := _SUBSCRIPT.match(self.text, self.at):
            self.at = match.end()
            name += "_" + re.sub(r"\\(?:text|mathrm)(?![a-zA-Z])|[\\{} ]", "", match[1] or match[2])
        while self.text.startswith("'", self.at):
            self.at += 1
            name += "'"
        if name == "e":
            return ("e",)
        if name == "i":
            return ("i",)
        if (plain in tuple("fghFGH") and self.peek() == "(") or (
            (match := _APPLIED.match(self.text, self.at)) and match[1] != plain
        ):
            self.expect("(")
            arguments = [self.sum()]
            while self.take(","):
                arguments.append(self.sum())
            self.expect(")")
            return ("apply", name, *arguments)
        return ("letter", name)

    def function(self, name: str) -> Tree:
        base: Tree | None = None
        power: Tree | None = None
        for _ in range(2):
            if self.take("_"):
                base = self.number_or_argument()
            elif self.take("^"):
                power = self.number_or_argument()
        bracketed = self.peek() in ("(", "[", "{")
        value = self.function_argument() if not bracketed else self.group(self.peek())
        if name in ("log", "lg"):
            tree: Tree = ("log", value, base or ("number", Fraction(10)))
        elif power == ("neg", ("number", Fraction(1))) and f"arc{name}" in _FUNCTIONS:
            return (f"arc{name}", value)
        else:
            tree = (name, value)
        return ("pow", tree, power) if power else tree

    def number_or_argument(self) -> Tree:
        """What stands as an index or a power of a function: a group or one token, so that `log_2 8` has two."""
        if self.peek() == "-":
            self.at += 1
            return ("neg", self.number_or_argument())
        if match := re.compile(r" ?\d+(?= )|10").match(self.text, self.at):
            self.at = match.end()
            return ("number", Fraction(match[0]))
        if self.peek().isalpha():
            self.at += 1
            name = self.text[self.at - 1]
            return ("e",) if name == "e" else ("letter", name)
        return self.argument()

    def function_argument(self) -> Tree:
        """The factors without a sign between them, up to the next function: 2x in `sin 2x cos x`."""
        if self.take("-"):
            return ("neg", self.function_argument())
        tree = self.power()
        while (
            self.starts_factor(token := self.peek()) and token.strip("\\") not in _FUNCTIONS and token not in ("(", "[")
        ):
            if token in ("*", r"\cdot", r"\times", "/", r"\div"):
                break
            tree = self.joined(tree)
        return tree


def _is_fraction(tree: Tree) -> bool:
    return tree[0] == "div" and tree[1][0] == "number" and tree[2][0] == "number"


@functools.lru_cache(4096)
def read_expression(text: str) -> Tree:
    """The tree of a clean text. Raises Unreadable."""
    if r"\infty" in text:
        raise Unreadable("infinity is no number")
    return _Reader(text.replace("**", "^").replace(r"\prime", "'")).whole()


# ---- exact values --------------------------------------------------------------------------------------------


def exact(tree: Tree) -> Fraction | None:
    """The value if it is rational and found without letters or roots. Raises TooLarge, Unreadable."""
    name, *arguments = tree
    if name == "number":
        return arguments[0]  # type: ignore[no-any-return]
    if name not in ("add", "mul", "div", "neg", "pow", "factorial", "binomial", "abs", "floor", "ceil", "root"):
        return None
    values = [exact(argument) for argument in arguments]
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return None
    value = _exact(name, known)
    if value is not None and max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_BITS:
        raise TooLarge(name)
    return value


def _exact(name: str, v: list[Fraction]) -> Fraction | None:
    if name == "add":
        return v[0] + v[1]
    if name == "mul":
        return v[0] * v[1]
    if name == "div":
        return v[0] / _nonzero(v[1])
    if name == "neg":
        return -v[0]
    if name == "pow":
        return _exact_power(*v)
    if name == "root":
        return _exact_root(*v)
    if name == "factorial":
        return Fraction(math.factorial(_small(v[0]))) if v[0].denominator == 1 and v[0] >= 0 else None
    if name == "binomial":
        whole = v[0].denominator == v[1].denominator == 1 and min(v) >= 0
        return Fraction(math.comb(_small(v[0]), int(v[1]))) if whole else None
    return {"abs": abs(v[0]), "floor": Fraction(math.floor(v[0])), "ceil": Fraction(math.ceil(v[0]))}[name]


def _small(value: Fraction) -> int:
    if value > 30_000:
        raise TooLarge("a factorial")
    return int(value)


def _nonzero(value: Fraction) -> Fraction:
    if not value:
        raise Unreadable("a division by zero")
    return value


def _exact_power(base: Fraction, exponent: Fraction) -> Fraction | None:
    if base in (0, 1, -1) and exponent.denominator == 1:  # however large the exponent
        if exponent < 0:
            _nonzero(base)
        return Fraction(1) if not exponent else base ** (2 - int(exponent) % 2)
    if exponent.denominator != 1:
        root = _exact_root(base, Fraction(exponent.denominator)) if base >= 0 else None
        return None if root is None else _exact_power(root, Fraction(exponent.numerator))
    bits = max(base.numerator.bit_length(), base.denominator.bit_length())
    if abs(exponent) * bits > MAX_BITS:
        raise TooLarge("a power")
    return base ** int(exponent)


def _exact_root(value: Fraction, degree: Fraction) -> Fraction | None:
    if degree.denominator != 1 or not 2 <= degree <= 64 or (value < 0 and degree % 2 == 0):
        return None
    n, sign = int(degree), -1 if value < 0 else 1
    above, below = _whole_root(abs(value.numerator), n), _whole_root(value.denominator, n)
    return None if above is None or below is None else Fraction(sign * above, below)


def _whole_root(value: int, n: int) -> int | None:
    if n == 2:
        root = math.isqrt(value)
    else:
        root = 1 << -(-value.bit_length() // n)
        while value and (next_root := ((n - 1) * root + value // root ** (n - 1)) // n) < root:
            root = next_root
        root = root if value else 0
    return root if root**n == value else None


# ---- values to many digits -----------------------------------------------------------------------------------


class _Point:
    """An evaluation at one choice of the letters' values, with mpmath's precision as it is set."""

    def __init__(self, mp: Any, number: int) -> None:
        self.mp, self.number, self.digits = mp, number, 0

    def value(self, tree: Tree) -> Any:
        name, *arguments = tree
        if name == "number":
            value = self.mp.mpf(arguments[0].numerator) / arguments[0].denominator
        elif name == "letter":
            value = self.letter(arguments[0])
        elif name == "apply":
            value = self.apply(arguments[0], [self.value(a) for a in arguments[1:]])
        elif not arguments:
            value = {"pi": +self.mp.pi, "e": +self.mp.e, "i": self.mp.mpc(0, 1)}[name]
        else:
            value = getattr(self, f"_{name}", None) or functools.partial(self.by_name, name)
            value = value(*(self.value(a) for a in arguments))
        if not self.mp.isfinite(value):
            raise Unreadable("not finite")
        if value:
            self.digits = max(self.digits, int(abs(self.mp.mag(value)) * 0.302))
            if self.digits > MAX_DIGITS:
                raise TooLarge(name)
        return value

    def letter(self, name: str) -> Any:
        seed = zlib.crc32(f"{self.number} {name}".encode())
        negative = self.number >= POINTS - 3 and seed & 1
        value = self.mp.mpf(1 + seed % 9973) / 3989  # up to 2.5
        return -value if negative else value

    def apply(self, name: str, values: list[Any]) -> Any:
        """Some function of this name: nothing is known about it but that equal arguments give equal values."""
        seed = zlib.crc32(name.encode())
        total = self.mp.mpf(1 + seed % 997) / 499
        for place, value in enumerate(values, 1):
            total += self.mp.cos(value * (1 + seed % (7 + place)) / 3 + place) * place
        return total

    def by_name(self, name: str, value: Any) -> Any:
        if name.startswith("arc"):
            return self.inverse(name[3:], value)
        return getattr(self.mp, {"abs": "fabs", "ln": "log"}.get(name, name))(value)

    def inverse(self, name: str, value: Any) -> Any:
        if name in ("cot", "sec", "csc"):
            if name == "cot":
                return self.mp.pi / 2 - self.mp.atan(value)
            return getattr(self.mp, {"sec": "acos", "csc": "asin"}[name])(1 / value)
        return getattr(self.mp, f"a{name}")(value)

    def _add(self, a: Any, b: Any) -> Any:
        return a + b

    def _mul(self, a: Any, b: Any) -> Any:
        return a * b

    def _neg(self, a: Any) -> Any:
        return -a

    def _div(self, a: Any, b: Any) -> Any:
        return a / b

    def _pow(self, a: Any, b: Any) -> Any:
        if a and b and abs(self.mp.log(abs(a))) * abs(b) > MAX_DIGITS * 3:
            raise TooLarge("a power")
        return a**b

    def _root(self, value: Any, degree: Any) -> Any:
        if degree == 2:
            return self.mp.sqrt(value)
        if not self.mp.im(value) and self.mp.re(value) < 0 and degree % 2 == 1:
            return -self._pow(-value, 1 / degree)
        return self._pow(value, 1 / degree)

    def _log(self, value: Any, base: Any) -> Any:
        return self.mp.log(value) / self.mp.log(base)

    def _factorial(self, value: Any) -> Any:
        if abs(value) > 10_000:
            raise TooLarge("a factorial")
        return self.mp.gamma(value + 1)

    def _double_factorial(self, value: Any) -> Any:
        if abs(value) > 10_000:
            raise TooLarge("a factorial")
        return self.mp.fac2(value)

    def _binomial(self, n: Any, k: Any) -> Any:
        if max(abs(n), abs(k)) > 10_000:
            raise TooLarge("a binomial")
        return self.mp.binomial(n, k)


@functools.cache
def _mpmath() -> Any:
    import mpmath

    return mpmath


def _at(tree: Tree, number: int, digits: int) -> tuple[Any, int]:
    """The value at a point, and the digits that the numbers on the way to it have; what is computed next has as many
    digits as the value. Raises Unreadable."""
    _mpmath().mp.dps = digits
    return _evaluated(tree, number, digits)


@functools.lru_cache(256)  # a comparison needs each value several times
def _evaluated(tree: Tree, number: int, digits: int) -> tuple[Any, int]:
    mpmath = _mpmath()
    point = _Point(mpmath.mp, number)
    try:
        return point.value(tree), point.digits
    except (ZeroDivisionError, OverflowError, mpmath.libmp.NoConvergence, TypeError) as error:
        raise Unreadable(str(error)) from None
    except ValueError as error:
        raise error if isinstance(error, Unreadable) else Unreadable(str(error)) from None


def letters(tree: Tree) -> frozenset[str]:
    """The letters and functions in an expression."""
    if tree[0] in ("number", "letter"):
        return frozenset([tree[1]] if tree[0] == "letter" else [])
    inner = [letters(argument) for argument in tree[1:] if isinstance(argument, tuple)]
    return frozenset([tree[1]] if tree[0] == "apply" else []).union(*inner)


def replaced(tree: Tree, name: str, value: Fraction) -> Tree:
    """The expression with a number for a letter."""
    if tree == ("letter", name):
        return ("number", value)
    return tuple(replaced(part, name, value) if isinstance(part, tuple) else part for part in tree)


def is_zero(tree: Tree, number: int = 0) -> bool:
    """Whether the value at a point is zero. Raises Unreadable."""
    _, digits = _at(tree, number, 50)
    low = 50 + 2 * digits
    if low > MAX_DIGITS:
        raise TooLarge("precision")
    coarse, fine = abs(_at(tree, number, low)[0]), abs(_at(tree, number, low + 70)[0])
    return bool(not fine or fine <= max(coarse, _mpmath().mpf(10) ** -low) * _mpmath().mpf(10) ** -35)


def real(tree: Tree) -> Any:
    """The value of an expression without letters to 50 digits, None if it is no real number."""
    try:
        if letters(tree):
            return None
        value, _ = _at(tree, 0, 50)
    except Unreadable:
        return None
    return None if _mpmath().im(value) else _mpmath().re(value)


def equal_values(a: Tree, b: Tree) -> bool:
    """Whether two expressions are equal wherever both have a real value. Raises TooLarge."""
    if a == b:
        return True
    left, right = exact(a), exact(b)
    if left is not None and right is not None:
        return left == right
    return _holds_everywhere([a, b], lambda n: is_zero(("add", a, ("neg", b)), n))


def _holds_everywhere(trees: list[Tree], holds: Callable[[int], bool]) -> bool:
    """Whether it holds at all points where all values are real, or at all where they are finite if there are none."""
    free = frozenset[str]().union(*map(letters, trees))
    points = range(POINTS) if free else range(1)
    real_points, finite = [], []
    for n in points:
        try:
            values = [_at(tree, n, 50)[0] for tree in trees]
        except TooLarge:
            raise
        except Unreadable:
            continue
        finite.append(n)
        if not any(_mpmath().im(value) for value in values):
            real_points.append(n)
    chosen = real_points if len(real_points) >= 2 or (real_points and not free) else finite
    return bool(chosen) and all(holds(n) for n in chosen)


def proportional(a: Tree, b: Tree, positive: bool = False) -> bool:
    """Whether one expression is a constant, not zero, times the other: a positive one, if `positive`. So are the
    differences of the sides of two equations that say the same. Raises TooLarge."""
    free = letters(a) | letters(b)
    if letters(a) != letters(b) and not (letters(a) and letters(b)):
        return False
    anchor = next((n for n in range(POINTS if free else 1) if _nonzero_at(a, n) and _nonzero_at(b, n)), None)
    if anchor is None:
        return False
    x, y = _at(a, anchor, 60)[0], _at(b, anchor, 60)[0]
    if positive and (_mpmath().im(x) or _mpmath().im(y) or x * y < 0):
        return False

    def holds(n: int) -> bool:
        # The anchor's values are found again at each precision, as is_zero needs.
        return _cross(a, b, anchor, n)

    return _holds_everywhere([a, b], holds)


def _nonzero_at(tree: Tree, number: int) -> bool:
    try:
        return not is_zero(tree, number)
    except TooLarge:
        raise
    except Unreadable:
        return False


def _cross(a: Tree, b: Tree, anchor: int, number: int) -> bool:
    """Whether a/b is the same at two points."""
    digits = max(_at(tree, n, 50)[1] for tree in (a, b) for n in (anchor, number))
    low = 50 + 2 * digits
    if low > MAX_DIGITS:
        raise TooLarge("precision")
    rest = []
    for precision in (low, low + 70):
        a0, b0, a1, b1 = (_at(tree, n, precision)[0] for n in (anchor, number) for tree in (a, b))
        rest.append(abs(a1 * b0 - a0 * b1))
    small = _mpmath().mpf(10)
    return bool(not rest[1] or rest[1] <= max(rest[0], small**-low) * small**-35)
