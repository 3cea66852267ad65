"""Problems written differently: what a duplicate looks like, and what only looks like one."""

from __future__ import annotations

import random
import re
import string
from collections.abc import Callable, Sequence

from ringrl.curate.text import numbers

SPLIT = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
PRICE = r"(?!\d[^$]*\s\$)"  # what follows the sign of a price, before another one
MATH = re.compile(rf"(\$\$.+?\$\$|\${PRICE}[^$]+\$|\\\(.*?\\\)|\\\[.*?\\\])", re.DOTALL)
WORDS = ("is", "if", "or", "to", "of", "in", "cm", "at", "ln")
NAME = re.compile(r"\\(?:begin|end|text|mathrm|operatorname)\s*\{[^{}]*\}|\\[a-zA-Z]+|[a-zA-Z]+")
VOCABULARY = ("later", "several", "people", "carefully", "together", "during", "friend", "market", "yellow", "always")


def spaced(text: str, draw: random.Random) -> str:
    """Other white space."""
    return "  " + "".join(draw.choice((" ", "  ", "\n", "\t ")) if c == " " else c for c in text) + "\n"


def recased(text: str, draw: random.Random) -> str:
    """Without capitals and final marks, and commas and quotes gone, outside of formulas."""
    parts = MATH.split(text)
    parts[::2] = [re.sub(r"(?<!\d)[,;:?\"](?!\d)|\.(?=\s|$)", " ", p).lower() for p in parts[::2]]
    return "".join(parts) + draw.choice(("", ".", " ?", " !"))  # 2025! is another number


def retyped(text: str, draw: random.Random) -> str:
    """Formulas in other LaTeX."""
    for old, new in ((r"\frac", r"\dfrac"), (r"\le ", r"\leq "), (r"\cdot", r"\times"), (r"\ldots", r"\dots")):
        text = text.replace(old, new)
    text = re.sub(r"\^(\w)", r"^{\1}", text)
    return re.sub(rf"(?<!\$)\$(?!\$){PRICE}([^$]+)\$(?!\$)", r"\\(\\displaystyle \1\\)", text)


def renamed(text: str, draw: random.Random) -> str:
    """Other letters for the variables and points of formulas, also within names such as that of triangle ABC."""
    if "\\begin" in text:  # has formulas of another kind
        return text
    found = [
        n
        for p in MATH.findall(text)
        for n in NAME.findall(p)
        if n.isalpha() and (len(n) < 3 or n.isupper()) and n not in WORDS
    ]
    names = sorted(set("".join(found)))
    new: dict[str, str] = {}
    for letters in (string.ascii_lowercase, string.ascii_uppercase):
        own = [n for n in names if n in letters]
        free = [c for c in letters if c not in names and c not in "aAI"]
        if len(own) > len(free):
            return text
        new |= dict(zip(own, draw.sample(free, len(own)), strict=True))

    def rename(name: re.Match[str]) -> str:
        return "".join(map(new.__getitem__, name[0])) if name[0] in found else name[0]

    return MATH.sub(lambda formula: NAME.sub(rename, formula[0]), text)


def reordered(text: str, draw: random.Random) -> str:
    """Two neighbouring sentences in the other order, the question left where it is if there are others."""
    parts = SPLIT.split(text)
    at = draw.randrange(max(1, len(parts) - 2)) if len(parts) > 2 else 0
    parts[at : at + 2] = parts[at : at + 2][::-1]
    return " ".join(parts)


def reworded(words: int) -> Callable[[str, random.Random], str]:
    """Some words, of no number, replaced by any others."""

    def change(text: str, draw: random.Random) -> str:
        parts = re.split(r"(\$[^$]+\$|\s+)", text)
        places = [i for i, p in enumerate(parts) if re.fullmatch(r"[a-z]{3,}", p) and not numbers([p])]
        for i in draw.sample(places, min(words, len(places))):
            parts[i] = draw.choice(VOCABULARY)
        return "".join(parts)

    return change


def renumbered(text: str, draw: random.Random) -> str:
    """Another problem: one number is another one."""
    found = list(re.finditer(r"(?<![\w.])\d+(?![\w.]*\d)", text))
    if not found:
        return text
    at = draw.choice(found)
    return text[: at.start()] + str(int(at[0]) + draw.randint(1, 9)) + text[at.end() :]


KINDS: dict[str, Callable[[str, random.Random], str]] = {
    "spaced": spaced, "recased": recased, "retyped": retyped, "renamed": renamed, "reordered": reordered,
    "one word": reworded(1), "two words": reworded(2), "three words": reworded(3), "renumbered": renumbered,
}  # fmt: skip


def plant(problems: Sequence[str], kinds: Sequence[str], seed: int = 0) -> list[tuple[int, str, str]]:
    """(number of the problem, kind, its text) of every kind that changes it."""
    draw = random.Random(seed)
    made = [(n, kind, KINDS[kind](text, draw)) for n, text in enumerate(problems) for kind in kinds]
    return [(n, kind, text) for n, kind, text in made if text != problems[n]]
