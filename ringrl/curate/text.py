r"""The words and characters by which texts are compared, independent of typesetting.

    words("**Find** $x^{2}$ if \\dfrac{1}{2}x=3.0.")       find x ^ 2 if frac 1 2 x = 3.0
    canonical(words)                                       all single letters are the same: variables can be renamed
    numbers(words)                                         2, 1, 2, 3

White space, punctuation, Markdown, HTML, the case of words and purely visual LaTeX are removed; numbers lose thousands
separators and keep their decimal points. What changes the meaning of a formula stays: the case of its letters, primes,
bars, percents, brackets around an operation, a list, or several factors (so that (2+3)*4 is not 2+3*4, [0,1] not (0,1),
and 2^{3y} not 2^3y). Names of several letters in a formula are split into letters. A character of a language without
spaces is a word. Everything takes linear time.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TypeVar

from ringrl.curate.dress import digits, plain

VARIABLE = "v"  # replaces every single letter in `canonical`
PERSON = "N"  # replaces `people`
WORD_GRAM = 3  # words per shingle
CHAR_GRAM = 5  # characters per shingle
CACHED, LONGEST = 1 << 16, 40  # tokens whose forms are remembered, and characters of the longest of them
T = TypeVar("T")

_LOOKS = re.compile(
    r"\\(?:(?:quad|qquad|displaystyle|textstyle|left|right|[bB]igg?[lrm]?|middle|limits)(?![a-zA-Z])|[,;:! ])"
    r"|\\hspace\s*\{[^{}]*\}|\\(?:begin|end)\s*\{[^{}]*\}|\\\\(?:\[[^][]*\])?|~"
)
_SAME = tuple((re.compile(pattern), new) for pattern, new in (  # LaTeX with the same meaning
    (r"\\(?:text|textbf|textit|textrm|emph|mathrm|mathbf|mathit|mathsf|boldsymbol|operatorname|mbox|underline)\*?"
     r"\s*\{([^{}]*)\}", r" \1 "),
    (r"\\[dtc]frac(?![a-zA-Z])", r"\\frac"),
    (r"\\frac\s*(\d)\s*(\d)", r"\\frac \1 \2 "),
    (r"\\(?:leq?|leqslant)(?![a-zA-Z])", " <= "),
    (r"\\(?:geq?|geqslant)(?![a-zA-Z])", " >= "),
    (r"\\(?:neq?|not=)(?![a-zA-Z])", " != "),
    (r"\\lt(?![a-zA-Z])", " < "),
    (r"\\gt(?![a-zA-Z])", " > "),
    (r"\\(?:cdot|times|ast)(?![a-zA-Z])", " * "),
    (r"\\div(?![a-zA-Z])", " / "),
    (r"\\(?:[lcv]|d)?dots[cbmio]?(?![a-zA-Z])", " ... "),
    (r"\^\s*\{?\s*\\circ(?![a-zA-Z])\s*\}?|\\degree(?![a-zA-Z])", " degrees "),
    (r"\\pmod(?![a-zA-Z])|\\bmod(?![a-zA-Z])", " mod "),
    (r"\\implies(?![a-zA-Z])|\\to(?![a-zA-Z])", " "),
    (r"\\(?:[lr]?vert|mid)(?![a-zA-Z])", "|"),
    (r"\\(?:\||[lr]?Vert(?![a-zA-Z]))", "‖"),
    (r"\\(?:\{|lbrace(?![a-zA-Z]))", "⦃"),
    (r"\\(?:\}|rbrace(?![a-zA-Z]))", "⦄"),
    (r"\\(?:log|ln|exp|lim|max|min|sup|inf)\*?(?=[({\[])", lambda m: m[0] + " "),
))  # fmt: skip
# formulas; text that begins with a digit and ends with a blank is between two prices
_MATH = re.compile(r"\$\$?(?!\d[^$]*\s\$)([^$]*)\$\$?|\\\((.{0,2000}?)\\\)|\\\[(.{0,2000}?)\\\]", re.DOTALL)
_NAMED = re.compile(r"\\(?:text|mathrm|operatorname|mbox|begin|end)\w*\*?\s*\{[^{}]*\}")
_RUN = re.compile(r"(?<![\\a-zA-Z])[a-zA-Z]{2,}")  # two or more letters, not a command
_SENTENCE = re.compile(r"(?<![\\a-zA-Z])[a-z]{2,} [a-z]{2,} [a-z]{2,}")  # what is between two prices
_NAMES = re.compile(r"[a-zA-Z]{2}|[A-Z]{2,6}|[a-z]?[A-Z]{1,3}[a-z]?")
_FUNCTIONS = frozenset(("ln", "lg", "GCD", "LCM", "is", "to", "of", "in", "if", "or", "at", "an", "by", "on"))
_BOLD = re.compile(r"(\*\*|__)(?=[a-zA-Z]{2})([^*_\n]{2,400}?)\1")
_HYPHEN = re.compile(r"-(?:(?<=[a-zA-Z\d ]-)(?=[a-zA-Z]{2})|(?<=[a-zA-Z]{2}-)(?=\d))")
_THOUSANDS = re.compile(r"(?<=\d)(?:,|\{,\}|\\,|\\!,\\!)(?=\d{3}(?!\d))")
_LISTED = re.compile(r"(?:(?<=[(\[])|(?<![\w}^\\])\{|\\\{)\d+(?:,\d+)+(?=[)\]}\\])")  # {1,200} has two numbers
_GROUPED = re.compile(
    r"\d(?:(?<=[$€£¥].)\d{0,2}(?:\s{1,3}\d{3})+(?![\d.]*\d)|(?<![\d.,].)\d{0,2}(?:[\u00a0\u2009\u202f]\d{3})+(?!\d))"
)
_MISREAD = re.compile(
    r"[01](?:(?<=[a-z].)(?=[a-z])|(?<![\w.,].)(?=[a-z]{4})(?!\w(?:hour|minute|inch|day|week|month|year|mile|gram|lit)))"
)
_POINT_WORD = re.compile(r"(?<=\d)\.(zero|one|two|three|four|five|six|seven|eight|nine)(?![a-z])")
_PRIMES = re.compile(r"\^ ?\{ ?((?:\\prime ?)+)\}|\^ ?\\prime(?![a-zA-Z])|\\prime(?![a-zA-Z])|(?<=[\w)}\]'])'")
_PRIMED = re.compile(r"(?<![\w'’])([A-Za-z])('+)(?![A-Za-z])")  # f'(2) outside a formula
_APOSTROPHE = re.compile(r"(?<=[^\W\d_])'(?=[^\W\d_])")
_PIPES = re.compile(r"(?<!\S)\|+(?!\S)|\|[-:| ]+\|")  # of a table
_CAPITAL = re.compile(r"([B-HJ-Z](?<![^\W_].)(?![^\W_]))")  # one that may name something; not A and I
_MARKS = "\u0300-\u036f\u0591-\u05bd\u064b-\u0652\u0900-\u0903\u093a-\u094f\u0981-\u0983\u09bc-\u09cd"  # within words
NUMERALS = "零〇一二两兩三四五六七八九十百千万萬亿億"
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
_NUMBER = r"\d+(?:\.\d+)?|(?<![\w.])\.\d+"
_SIGN = r"<=|>=|!=|[-+*/^=<>]|(?<=[\d)])!|(?<=[a-z])(?<![^\W\d_]{2})!|[(){}[\]⦃⦄]|[′|‖]|,|(?<=\d):(?=\d)"
_LATIN = re.compile(rf"\\?[a-zA-Z]+|{_NUMBER}|{_SIGN}")  # tokens of a text in ASCII, and of any other
_TOKEN = re.compile(
    rf"[{NUMERALS}]+|[{_UNSPACED}]|\\?[^\W\d_{_UNSPACED}]+(?:[{_MARKS}]+[^\W\d_{_UNSPACED}]*)*|{_NUMBER}|{_SIGN}"
)
_CLOSES = {")": "(", "}": "{", "]": "[", "⦄": "⦃"}
_BRACKETS = frozenset("(){}[]⦃⦄")
_OPERATORS = frozenset(("<=", ">=", "!=", *"-+*/^=<>!"))
_NAME = re.compile(r"[A-Z](?<=[a-z,;] .)[a-z]+")
_DATES = frozenset(("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday", "january", "february",
                    "march", "april", "may", "june", "july", "august", "september", "october", "november",
                    "december"))  # fmt: skip
_LETTER = re.compile(r"[a-zA-Zα-ω]")
_SIGNS = frozenset((":", "′", "|", "‖"))  # of formulas, besides the brackets that begin with a comma
_GREEK = frozenset((
    "alpha", "beta", "gamma", "delta", "epsilon", "varepsilon", "zeta", "eta", "theta", "vartheta", "kappa", "lambda",
    "mu", "nu", "xi", "rho", "sigma", "tau", "phi", "varphi", "chi", "psi", "omega", "ell"))  # fmt: skip
_UNICODE = {ord(a): b for a, b in {
    "−": "-", "–": "-", "—": " - ", "×": "*", "·": "*", "⋅": "*", "÷": "/", "⁄": "/", "≤": "<=", "≥": ">=", "≠": "!=",
    "°": " degrees ", "′": "'", "″": "''", "’": "'", "‘": "'", "“": '"', "”": '"', "…": "...", "π": r" \pi ",
    "√": r" \sqrt "}.items()}  # fmt: skip
_ONES = {word: n for n, word in enumerate((
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"))}  # fmt: skip
_TENS = {word: 10 * n for n, word in enumerate((
    "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"), 2)}  # fmt: skip
_SHARES = {
    **{word: word for word in ("half", "first", "last", "twice", "thrice", "double", "triple", "quadruple", "dozen")},
    **{form: share for share in ("third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth", "quarter")
       for form in (share, f"{share}s")},
    "halves": "half", "halved": "half", "doubled": "double", "tripled": "triple", "doubles": "double",
    "dozens": "dozen",
}  # fmt: skip
# "one" is mostly a pronoun and counts only beside other numbers; "second" is mostly a time
_HAN_DIGITS = {
    char: n
    for n, chars in enumerate(("零〇", "一", "二两兩", "三", "四", "五", "六", "七", "八", "九"))
    for char in chars
}
_UNITS = {"十": 10, "百": 100, "千": 1000, "万": 10**4, "萬": 10**4, "亿": 10**8, "億": 10**8}
_SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12}


_SPOKEN = frozenset((*_ONES, *_TENS, *_SCALES))
_GREEK_LETTERS = dict(zip("αβγδεζηθικλμνξρστφχψωϕϵ", (
    "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu", "nu", "xi",
    "rho", "sigma", "tau", "phi", "chi", "psi", "omega", "phi", "epsilon"), strict=True))  # fmt: skip


class Memo(dict[str, T]):
    """What a function of a token has returned, up to CACHED tokens of LONGEST characters."""

    def __init__(self, function: Callable[[str], T]) -> None:
        self.function = function

    def __missing__(self, token: str) -> T:
        form = self.function(token)
        if len(token) <= LONGEST:
            if len(self) >= CACHED:
                self.clear()
            self[token] = form
        return form


def words(text: str) -> list[str]:
    """Words, numbers, operators and brackets that matter; LaTeX commands without their backslash."""
    text = plain(text)
    if not text.isascii():
        text = digits(unicodedata.normalize("NFKC", "".join(map(_ascii, _GROUPED.sub(_joined, text)))))
    if text.isupper():
        text = text.lower()
    if "$" in text:
        text = _GROUPED.sub(_joined, text)
    if "," in text:
        text = _THOUSANDS.sub("", _LISTED.sub(lambda m: m[0].replace(",", ", "), text))
    text = _without_case(text)
    if "\\" in text or "~" in text:
        text = _LOOKS.sub(" ", text)
        for pattern, new in _SAME:
            text = pattern.sub(new, text)
    if "%" in text:
        text = text.replace("\\%", "%").replace("%", " percent ")
    if "**" in text or "__" in text:
        text = _BOLD.sub(r"\2", text)
    if "-" in text:
        text = _HYPHEN.sub(" ", text)
    return _grouped(text.split())


def _joined(number: re.Match[str]) -> str:
    return re.sub(r"\D", "", number[0])


def _without_case(text: str) -> str:
    """Formulas spelled out, and everything else in lower case but for single capital letters."""
    parts, at = [], 0
    for formula in _MATH.finditer(text):
        parts += [_prose(text[at : formula.start()]), _spelled(formula)]
        at = formula.end()
    return "".join([*parts, _prose(text[at:])])


def _prose(text: str) -> str:
    """Ordinary text in lower case, with its OCR errors and apostrophes mended."""
    if not text:
        return text
    if "|" in text:
        text = _PIPES.sub(" ", text)
    if "'" in text:
        text = _APOSTROPHE.sub("", _PRIMED.sub(lambda m: m[1] + "′" * len(m[2]), text))
    kept = _CAPITAL.split(text)
    lower = "".join(part if n % 2 else part.lower() for n, part in enumerate(kept)) if len(kept) > 1 else text.lower()
    lower = f" {' '.join(lower.split())} ".replace(" a ", " an ")  # what is left is a variable
    if "." in lower:
        lower = _POINT_WORD.sub(lambda m: f".{_ONES[m[1]]}", lower)
    return _MISREAD.sub(lambda m: "l" if m[0] == "1" else "o", lower) if "0" in lower or "1" in lower else lower


def _ascii(char: str) -> str:
    """Spells out characters that NFKC would merge with their neighbours: x² is not x2, 1½ is not 11/2."""
    if char in _GREEK_LETTERS:
        return f" \\{_GREEK_LETTERS[char]} "
    if char in "²³¹⁰⁴⁵⁶⁷⁸⁹":
        return "^" + unicodedata.normalize("NFKC", char)
    if unicodedata.decomposition(char).startswith("<fraction>"):
        return " " + unicodedata.normalize("NFKC", char).translate(_UNICODE)
    return _UNICODE.get(ord(char), char)


def _spelled(formula: re.Match[str]) -> str:
    r"""A formula with names such as that of triangle ABC split into letters; text between two prices is unchanged."""
    inner = formula[1] or formula[2] or formula[3] or ""
    if "'" in inner or "prime" in inner:
        inner = _PRIMES.sub(lambda m: "′" * max(1, m[0].count("prime")), inner)
    if "|" in inner:
        inner = re.sub(r" *(\\?\|) *", r"\1", inner)
    bare = _NAMED.sub(" ", inner) if "{" in inner else inner
    if not all(_NAMES.fullmatch(run) for run in _RUN.findall(bare)):
        return f" {_prose(inner) if _SENTENCE.search(inner) else inner} "
    return f" {_RUN.sub(_letters, inner) if bare == inner else inner} "


def _letters(run: re.Match[str]) -> str:
    return run[0] if run[0] in _FUNCTIONS else " ".join(run[0])


@Memo
def _tokens(piece: str) -> list[str]:
    """The tokens of what stands between two blanks, none of which depends on what is beyond them."""
    return (_LATIN if piece.isascii() else _TOKEN).findall(piece)


@Memo
def _free(piece: str) -> list[str] | None:
    """The tokens of a piece without backslashes and case; None if there are brackets among them."""
    tokens = _tokens[piece]
    return list(map(_form.__getitem__, tokens)) if _BRACKETS.isdisjoint(tokens) else None


def _grouped(pieces: Sequence[str]) -> list[str]:
    """The tokens of all pieces without backslashes and case, and without brackets that mean nothing.

    A bracket around an operator becomes round. One around a list, in square or escaped braces, or around several
    factors keeps its kind behind a comma, as ",[", by which `canonical` knows it.
    """
    out: list[str] = []
    opened: list[_Bracket] = []
    any_brackets = False
    for piece in pieces:
        free = _free[piece]
        if free is not None and not opened:
            out += free
        else:
            any_brackets = True
            _add(out, opened, _tokens[piece])
    for bracket in opened:  # never closed
        out[bracket.start] = ""
    if any_brackets:
        out = [token for token in out if token]
    return _without_commas(out) if "," in out else out


def _add(out: list[str], opened: list[_Bracket], tokens: Sequence[str]) -> None:
    """Adds tokens to those that have come, with brackets among them or around them."""
    for token in tokens:
        if token not in _BRACKETS and not opened:
            out.append(_form[token])
        elif token in "({[⦃":
            opened.append(_Bracket(token, len(out)))
            out.append("(")
        elif token in _CLOSES:
            if opened and opened[-1].closed_by(token):
                _close(out, opened.pop(), token, opened[-1] if opened else None)
        elif token == ",":
            opened[-1].listed = True
            out.append(token)
        else:
            opened[-1].operator |= token in _OPERATORS
            opened[-1].prose |= len(token) > 1 and token[0].isalpha() and token not in _GREEK
            out.append(_form[token])


@Memo
def _form(token: str) -> str:
    """A token without backslash or case."""
    if token[0] == "\\":
        return token[1:]
    return "0" + token if token[0] == "." else token if len(token) == 1 else token.lower()


@dataclass
class _Bracket:
    """An open bracket, and what has come behind it."""

    kind: str
    start: int  # index among the tokens
    operator: bool = False
    listed: bool = False  # has a comma
    prose: bool = False  # has a word

    def closed_by(self, token: str) -> bool:
        """Whether a bracket closes this one; [0, 1) is closed by another kind."""
        return _CLOSES[token] == self.kind or (self.listed and self.kind in "([" and token in ")]")


def _close(out: list[str], bracket: _Bracket, token: str, outer: _Bracket | None) -> None:
    inside = sum(t not in ("", ",") for t in out[bracket.start + 1 :])
    keeps = bracket.listed or bracket.kind in "[⦃" or (inside > 1 and not bracket.operator)
    if keeps and not bracket.prose and inside:
        out[bracket.start] = f",{bracket.kind}"
        out.append(f",{token}")
    elif bracket.operator:
        out.append(")")
        if outer:
            outer.operator = True
    else:
        out[bracket.start] = ""
    if outer:
        outer.prose |= bracket.prose


def _without_commas(tokens: list[str]) -> list[str]:
    """Leaves out all commas but those between two numbers."""
    last = len(tokens) - 1
    return [
        t for i, t in enumerate(tokens)
        if t != "," or (0 < i < last and tokens[i - 1][0].isdigit() and tokens[i + 1][0].isdigit())
    ]  # fmt: skip


def unmarked(tokens: Sequence[str]) -> list[str]:
    """The tokens without the signs of formulas that copies often lack."""
    return [t for t in tokens if t[0] != "," and t not in _SIGNS]


def canonical(tokens: Sequence[str]) -> list[str]:
    """Unmarked, with one name for all variables."""
    return list(filter(None, map(_unnamed.__getitem__, tokens)))


def compared(tokens: Sequence[str]) -> list[str]:
    """The words of `valued`, `canonical`."""
    if _SPOKEN.isdisjoint(tokens):
        return list(filter(None, map(_compared.__getitem__, tokens)))
    return canonical(valued(tokens))


@Memo
def _compared(token: str) -> str:
    return _unnamed[_value[token]]


@Memo
def _unnamed(token: str) -> str:
    return VARIABLE if is_variable(token) else "".join(unmarked((token,)))


def people(text: str) -> set[str]:
    """Names in lower case: words with a capital letter within a sentence."""
    return {name.lower() for name in _NAME.findall(text)} - _DATES


def is_variable(token: str) -> bool:
    return (len(token) == 1 and _LETTER.match(token) is not None) or token in _GREEK


def is_number(token: str) -> bool:
    """Whether a word of `valued` is a number, or a share such as half."""
    return token[0].isdigit() or token in _SHARES


def numbers(tokens: Sequence[str]) -> list[str]:
    """The numbers in order, written in digits or as words: a problem with other numbers is another problem."""
    return numerals(valued(tokens))


def numerals(tokens: Sequence[str]) -> list[str]:
    """Those words of `valued` that are numbers."""
    return list(filter(None, map(_numeral.__getitem__, tokens)))


@Memo
def _numeral(token: str) -> str:
    return token if is_number(token) else ""


def valued(tokens: Sequence[str]) -> list[str]:
    """The tokens with numbers in one form: 3 for 3.00 and three, 24 for twenty four and 二十四; one stays."""
    values = list(map(_value.__getitem__, tokens))
    if _SPOKEN.isdisjoint(tokens):
        return values
    out: list[str] = []
    at = 0
    for n, token in enumerate(tokens):
        if n >= at and token in _SPOKEN:
            begin = n - (n > at and token in _SCALES and tokens[n - 1][0].isdigit())
            out += values[at:begin]
            value, at = _spoken(tokens, begin)
            out.append(value)
    return out + values[at:]


def _spoken(tokens: Sequence[str], at: int) -> tuple[str, int]:
    """The number that is said from a token on, and where it ends: three hundred and five, 2.5 million."""
    total, part, before, start = Decimal(0), Decimal(0), "", at
    while at < len(tokens):
        token = tokens[at]
        if token in _SCALES and before != "scale":
            if token == "hundred":
                part, before = max(part, Decimal(1)) * 100, "hundred"
            else:
                total, part, before = total + max(part, Decimal(1)) * _SCALES[token], Decimal(0), "scale"
        elif token in _TENS and before in ("", "hundred", "scale"):
            part, before = part + _TENS[token], "tens"
        elif token == "one" and before == "scale":
            break
        elif token in _ONES and (before in ("", "hundred", "scale") or (before == "tens" and _ONES[token] < 10)):
            part, before = part + _ONES[token], "ones"
        elif token[0].isdigit() and at == start:
            part, before = Decimal(token), "ones"
        elif not (token == "and" and before in ("hundred", "scale") and _said(tokens, at + 1)):
            break
        at += 1
    return "one" if tokens[start:at] == ["one"] else _value[f"{total + part:f}"], at


def _said(tokens: Sequence[str], at: int) -> bool:
    return at < len(tokens) and (tokens[at] in _ONES or tokens[at] in _TENS)


@Memo
def _value(token: str) -> str:
    if token[0].isdigit():
        return (token.rstrip("0").rstrip(".") if "." in token else token).lstrip("0") or "0"
    if token[0] in NUMERALS:
        return "one" if token == "一" else _chinese(token)
    return _SHARES.get(token, token)


def _chinese(numeral: str) -> str:
    """三百零五 as 305; digit by digit without units of ten."""
    if not any(c in _UNITS for c in numeral):
        return "".join(str(_HAN_DIGITS[c]) for c in numeral)
    total = part = digit = 0
    for char in numeral:
        if char in _HAN_DIGITS:
            digit = _HAN_DIGITS[char]
        elif _UNITS[char] < 10**4:
            part, digit = part + (digit or 1) * _UNITS[char], 0
        else:
            total, part, digit = (total + part + digit or 1) * _UNITS[char], 0, 0
    return str(total + part + digit)


def word_grams(tokens: Sequence[str], n: int = WORD_GRAM) -> set[str]:
    """All runs of n words; the whole text if it is shorter."""
    return {" ".join(tokens[i : i + n]) for i in range(max(1, len(tokens) - n + 1))}


def char_grams(tokens: Sequence[str], n: int = CHAR_GRAM) -> set[str]:
    """All runs of n characters of the words, joined without blanks."""
    text = "".join(tokens)
    return {text[i : i + n] for i in range(max(1, len(text) - n + 1))}


def jaccard(a: set[str], b: set[str]) -> float:
    """Jaccard similarity; 1 for two empty sets."""
    shared = len(a & b)
    return shared / (len(a) + len(b) - shared) if a or b else 1.0
