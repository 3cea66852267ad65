r"""Where the answers of a response are: its last `\boxed{...}`, and those that belong to it."""

from __future__ import annotations

import re

_BRACES = re.compile(r"\\+(?:boxed|fbox)\s*\{|\\boxed\s*[A-Za-z\d]|\\.|[{}]", re.DOTALL)
_ANYTHING = re.compile(r"\S")
_NAMES = r"(?:\\?[A-Za-z]+(?:_(?:\w|\{\w+\}))?(?:\([a-z]\))?)"
_DELIMITER = (
    r"\s|[,;$&.:*•]|\\\\|\\[,;:!> ()\[\]]|\\(?:q?quad|displaystyle|implies|Rightarrow|therefore|lor|land|"
    r"vee|Longrightarrow)(?![a-zA-Z])|⇒|→|=(?!\w)|-\s|\d[.)]\s|and(?![a-zA-Z])|or(?![a-zA-Z])|\\&|"
    r"\\(?:text|mbox|textrm)\s*\{\s*,?\s*(?:and|or)\s*\}"
)
_BETWEEN_BOXES = re.compile(rf"(?:{_DELIMITER})*(?:{_NAMES}\s*=\s*)?(?:\$|\\[(\[])*\s*")
_NAME_BEFORE = re.compile(rf"(?<![\\\w}}])({_NAMES})\s*=\s*$")


def boxes(text: str) -> list[tuple[int, int, int]]:
    """Positions of each box: of its command, its content and its closing brace."""
    open_at: list[tuple[int, int]] = []  # start of command and content per open brace, (-1, -1) if not a box
    closed = []
    for token in _BRACES.finditer(text):
        symbol = token.group()
        if symbol.endswith("{") and symbol != r"\{":
            open_at.append(token.span() if len(symbol) > 1 else (-1, -1))
        elif symbol == "}" and open_at:
            start, content = open_at.pop()
            if start >= 0:
                closed.append((start, content, token.start()))
        elif symbol.startswith(r"\boxed"):
            closed.append((token.start(), token.end() - 1, token.end()))
    return closed


def last_boxes(text: str) -> list[str]:
    r"""Contents of the last box whose braces balance, innermost if nested, and of those side by side with it.

    Between them stand at most delimiters, bullets, "and", "or", an equals sign and the name of the next one, which
    then is part of the answer. Empty boxes are no boxes.
    """
    ordered = sorted((box for box in boxes(text) if _ANYTHING.search(text, box[1], box[2])), key=lambda box: box[1])
    if not ordered:
        return []
    last = ordered.pop()
    start, chosen = last[0], [last]
    for before in reversed(ordered):
        if before[2] < start and _BETWEEN_BOXES.fullmatch(text, before[2] + 1, start):
            chosen.append(before)
        elif before[2] < start:
            break
        start = min(start, before[0])
    contents = [text[box[1] : box[2]].strip() for box in reversed(chosen)]
    if len(chosen) > 1:
        names = [_NAME_BEFORE.search(text, max(0, box[0] - 40), box[0]) for box in reversed(chosen)]
        contents = [f"{m[1]} = {c}" if m and "=" not in c else c for m, c in zip(names, contents, strict=True)]
    return list(dict.fromkeys(contents))


def last_boxed(text: str) -> str:
    r"""Content of the last `\boxed{...}`, or of several side by side as a list; "" if there is none."""
    return ", ".join(last_boxes(text))
