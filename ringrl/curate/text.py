r"""What two texts are compared by: words and characters that do not depend on how a problem is typeset.

    words("Find $x^{2}$ if  \\frac{1}{2}x = 3.0.")        find x 2 if 1 2 x = 3.0
    canonical(words)                                       single letters are one and the same: variables can be renamed

Case, white space, punctuation, Markdown and LaTeX that only changes the looks of a formula are gone; numbers lose
thousands separators and keep their points. All of it is in linear time.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

VARIABLE = "v"  # what all single letters are called in `canonical`
WORD_GRAM = 3  # words to a shingle
CHAR_GRAM = 5  # characters to a shingle

_SPACES = re.compile(
    r"\\(?:[,;:! ]|quad\b|qquad\b|hspace\{[^{}]*\}|displaystyle\b|left\b|right\b|[bB]igg?[lr]?\b|limits\b)"
)
_SAME = (  # LaTeX of the same meaning
    (re.compile(r"\\[dtc]frac\b"), r"\\frac"),
    (re.compile(r"\\(?:leq?|leqslant)\b"), " <= "),
    (re.compile(r"\\(?:geq?|geqslant)\b"), " >= "),
    (re.compile(r"\\(?:neq?|not=)"), " != "),
    (re.compile(r"\\(?:cdot|times|ast)\b"), " * "),
    (re.compile(r"\\(?:ldots|cdots|dots)\b"), " ... "),
    (
        re.compile(r"\\(?:text|textbf|textit|emph|mathrm|mathbf|mathit|operatorname|mbox|underline)\s*\{([^{}]*)\}"),
        r" \1 ",
    ),
    (re.compile(r"\^\s*\{?\\circ\}?"), " degrees "),
)
_UNICODE = str.maketrans({"−": "-", "–": "-", "—": "-", "×": "*", "·": "*", "⋅": "*", "÷": "/", "≤": "<=", "≥": ">=",
                          "≠": "!=", "°": " degrees ", "’": "'", "‘": "'", "“": '"', "”": '"', "…": "..."})  # fmt: skip
_THOUSANDS = re.compile(r"(?<=\d)(?:,|\{,\}|\\,)(?=\d{3}(?!\d))")
_WORD = re.compile(r"\\?[^\W\d_]+|\d+(?:\.\d+)?|[-+*/^=<>!]+")
_LETTER = re.compile(r"\\?[^\W\d_]")


def words(text: str) -> list[str]:
    """Words, numbers and operators of a text, in lower case; LaTeX commands without their backslash."""
    text = unicodedata.normalize("NFKC", text.translate(_UNICODE))
    text = _THOUSANDS.sub("", text)
    text = _SPACES.sub(" ", text)
    for pattern, replacement in _SAME:
        text = pattern.sub(replacement, text)
    return [w.removeprefix("\\") for w in _WORD.findall(text.lower())]


def canonical(tokens: Sequence[str]) -> list[str]:
    """With one name for all variables."""
    return [VARIABLE if _LETTER.fullmatch(t) else t for t in tokens]


def numbers(tokens: Sequence[str]) -> Counter[str]:
    """How often each number occurs: a problem with other numbers is another problem."""
    return Counter(t for t in tokens if t[0].isdigit())


def word_grams(tokens: Sequence[str], n: int = WORD_GRAM) -> set[str]:
    """All runs of n words; the whole of a shorter text."""
    return {" ".join(tokens[i : i + n]) for i in range(max(1, len(tokens) - n + 1))}


def char_grams(tokens: Sequence[str], n: int = CHAR_GRAM) -> set[str]:
    """All runs of n characters of the words, set close."""
    text = "".join(tokens)
    return {text[i : i + n] for i in range(max(1, len(text) - n + 1))}


def jaccard(a: set[str], b: set[str]) -> float:
    return len(a & b) / len(a | b) if a or b else 1.0
