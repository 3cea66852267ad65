r"""The words and characters by which texts are compared, independent of typesetting.

    words("**Find** $x^{2}$ if \\dfrac{1}{2}x=3.0.")       find x ^ 2 if frac 1 2 x = 3.0
    canonical(words)                                       all single letters are the same: variables can be renamed
    numbers(words)                                         2, 1, 2, 3.0

Case, white space, punctuation, Markdown and purely visual LaTeX are removed; numbers lose thousands separators and keep
their decimal points. Brackets are kept where they group an operation, so that (2+3)*4 is not 2+3*4, and names of
several letters in a formula are split into letters. Everything takes linear time.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

VARIABLE = "v"  # replaces every single letter in `canonical`
WORD_GRAM = 3  # words per shingle
CHAR_GRAM = 5  # characters per shingle

_LOOKS = re.compile(
    r"\\(?:(?:quad|qquad|displaystyle|textstyle|left|right|[bB]igg?[lr]?|limits)(?![a-zA-Z])|[,;:! ])"
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
))  # fmt: skip
# formulas; text that begins with a digit and ends with a blank is between two prices
_MATH = re.compile(r"\$\$?(?!\d[^$]*\s\$)([^$]*)\$\$?|\\\((.{0,2000}?)\\\)|\\\[(.{0,2000}?)\\\]", re.DOTALL)
_RUN = re.compile(r"(?<![\\a-zA-Z])[a-zA-Z]{2,}")  # two or more letters, not a command
_NAMES = re.compile(r"[a-zA-Z]{2}|[A-Z]{2,6}")
_FUNCTIONS = frozenset(("ln", "lg", "GCD", "LCM", "is", "to", "of", "in", "if", "or", "at", "an", "by", "on"))
_BOLD = re.compile(r"(\*\*|__)(?=[a-zA-Z]{2})([^*_\n]{2,400}?)\1")
_HYPHEN = re.compile(r"(?<=[a-zA-Z\d ])-(?=[a-zA-Z]{2})|(?<=[a-zA-Z]{2})-(?=\d)")
_THOUSANDS = re.compile(r"(?<=\d)(?:,|\{,\}|\\,|\\!,\\!)(?=\d{3}(?!\d))")
_TOKEN = re.compile(
    r"\\?[^\W\d_]+|\d+(?:\.\d+)?|(?<![\w.])\.\d+|<=|>=|!=|[-+*/^=<>]|(?<=[\d)])!|(?<=[a-z])(?<![^\W\d_]{2})!|[(){}[\]]"
)
_CLOSES = {")": "(", "}": "{", "]": "["}
_OPERATORS = frozenset(("<=", ">=", "!=", *"-+*/^=<>!"))
_LETTER = re.compile(r"[a-zα-ω]")
_GREEK = frozenset((
    "alpha", "beta", "gamma", "delta", "epsilon", "varepsilon", "zeta", "eta", "theta", "vartheta", "kappa", "lambda",
    "mu", "nu", "xi", "rho", "sigma", "tau", "phi", "varphi", "chi", "psi", "omega", "ell"))  # fmt: skip
_UNICODE = {ord(a): b for a, b in {
    "−": "-", "–": "-", "—": " - ", "×": "*", "·": "*", "⋅": "*", "÷": "/", "⁄": "/", "≤": "<=", "≥": ">=", "≠": "!=",
    "°": " degrees ", "’": "'", "‘": "'", "“": '"', "”": '"', "…": "...", "π": r" \pi ",
    "√": r" \sqrt "}.items()}  # fmt: skip
_NUMBER_WORDS = {
    "zero": "0", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7", "eight": "8",
    "nine": "9", "ten": "10", "eleven": "11", "twelve": "12", "thirteen": "13", "fourteen": "14", "fifteen": "15",
    "sixteen": "16", "seventeen": "17", "eighteen": "18", "nineteen": "19", "twenty": "20", "thirty": "30",
    "forty": "40", "fifty": "50", "sixty": "60", "seventy": "70", "eighty": "80", "ninety": "90", "hundred": "100",
    "thousand": "1000", "million": "1000000", "half": "half", "halves": "half", "third": "third", "thirds": "third",
    "fourth": "fourth", "fourths": "fourth", "quarter": "quarter", "quarters": "quarter", "fifth": "fifth",
    "fifths": "fifth", "sixth": "sixth", "seventh": "seventh", "eighth": "eighth", "ninth": "ninth", "tenth": "tenth",
    "first": "first", "last": "last", "twice": "twice", "thrice": "thrice", "double": "double", "doubled": "double",
    "triple": "triple", "tripled": "triple", "quadruple": "quadruple", "dozen": "dozen",
}  # fmt: skip
# "one" is mostly a pronoun, and "second" a time


def words(text: str) -> list[str]:
    """Words, numbers, operators and grouping brackets, in lower case; LaTeX commands without their backslash."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", "".join(map(_ascii, text)))
    text = _THOUSANDS.sub("", text)
    text = _MATH.sub(_spelled, text)
    if "\\" in text or "~" in text:
        text = _LOOKS.sub(" ", text)
        for pattern, new in _SAME:
            text = pattern.sub(new, text)
    text = _HYPHEN.sub(" ", _BOLD.sub(r"\2", text))
    return _grouped(_TOKEN.findall(text.lower()))


def _ascii(char: str) -> str:
    """Spells out characters that NFKC would merge with their neighbours: x² is not x2, 1½ is not 11/2."""
    if char in "²³¹⁰⁴⁵⁶⁷⁸⁹":
        return "^" + unicodedata.normalize("NFKC", char)
    if unicodedata.decomposition(char).startswith("<fraction>"):
        return " " + unicodedata.normalize("NFKC", char).translate(_UNICODE)
    return _UNICODE.get(ord(char), char)


def _spelled(formula: re.Match[str]) -> str:
    r"""A formula with names such as that of triangle ABC split into letters; text between two prices is unchanged."""
    inner = formula[1] or formula[2] or formula[3] or ""
    bare = re.sub(r"\\(?:text|mathrm|operatorname|mbox|begin|end)\w*\*?\s*\{[^{}]*\}", " ", inner)
    if not all(_NAMES.fullmatch(run) for run in _RUN.findall(bare)):
        return f" {inner} "
    return f" {_RUN.sub(_letters, inner) if bare == inner else inner} "


def _letters(run: re.Match[str]) -> str:
    return run[0] if run[0] in _FUNCTIONS else " ".join(run[0])


def _grouped(tokens: list[str]) -> list[str]:
    """The tokens without backslashes and without brackets around no operator; the other brackets become round."""
    out: list[str] = []
    opened: list[tuple[str, int, bool]] = []  # bracket, its index in `out`, whether an operator followed
    for token in tokens:
        if token in "({[":
            opened.append((token, len(out), False))
            out.append("(")
        elif token in _CLOSES:
            if not opened or opened[-1][0] != _CLOSES[token]:
                continue
            _, start, matters = opened.pop()
            if matters:
                out.append(")")
                if opened:
                    opened[-1] = (*opened[-1][:2], True)
            else:
                out[start] = ""
        else:
            if token in _OPERATORS and opened:
                opened[-1] = (*opened[-1][:2], True)
            out.append("0" + token if token[0] == "." else token.removeprefix("\\"))
    for _, start, _ in opened:  # never closed
        out[start] = ""
    return [token for token in out if token]


def canonical(tokens: Sequence[str]) -> list[str]:
    """The tokens with one name for all variables."""
    return [VARIABLE if (len(t) == 1 and _LETTER.match(t)) or t in _GREEK else t for t in tokens]


def numbers(tokens: Sequence[str]) -> Counter[str]:
    """How often each number occurs, written in digits or as a word: a problem with other numbers is another problem.

    Several words are several numbers: "two hundred" is not 200.
    """
    return Counter(n for t in tokens if (n := t if t[0].isdigit() else _NUMBER_WORDS.get(t)))


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
