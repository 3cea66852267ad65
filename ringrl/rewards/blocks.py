"""Which block of a response is its program: the same rule in training, evaluation and curation.

The program is the last closed block whose language is the one asked for, or, if none is, the last closed block without
a language: what follows a program without one is its output. The language is the first word behind the fence, whatever
its case, brackets and version: `Python 3`, `py3`, `{.python}`, `c++17`, `java8`.

A fence is three or more backticks or tildes. A block ends at the next line that holds only a fence of the same kind, as
long or longer, and that stands no four columns further in; in Python, not inside a string with triple quotes.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator

_FENCE = re.compile(r"(?P<fence>`{3,}|~{3,})(?P<info>.*)")
_TAG = re.compile(r"[{.\s]*([\w+#-]+)")
_LANGUAGES = {
    "python": re.compile(r"(python|py|pypy|cpython)[-\d]*"),
    "cpp": re.compile(r"(c\+\+|cpp|cc|cxx|g\+\+|gnu\+\+)[-\w]*"),
    "java": re.compile(r"java[-\d]*"),
}
_TOKEN = re.compile(r'#[^\n]*|"""|\'\'\'|"(?:\\.|[^"\\\n])*"?|\'(?:\\.|[^\'\\\n])*\'?', re.DOTALL)
_INDENT = 4  # columns from which a fence belongs to the text of the block


def extract_code(text: str, language: str = "python") -> str:
    """The program of a response, or "" if there is none."""
    tagged, untagged = "", ""
    for tag, block in _blocks(text):
        if not tag:
            untagged = block
        elif _LANGUAGES[language].fullmatch(tag):
            tagged = block
    return textwrap.dedent(tagged or untagged)


def _blocks(text: str) -> Iterator[tuple[str, str]]:
    """(language as it is written, in lower case, text) of each closed block."""
    lines = text.splitlines(keepends=True)
    at = 0
    while at < len(lines):
        fence = _FENCE.fullmatch(lines[at].strip())
        at += 1
        if fence is None or (fence["fence"][0] == "`" and "`" in fence["info"]):
            continue
        tag = _TAG.match(fence["info"].lower())
        end = _end(lines, at, fence["fence"], _column(lines[at - 1]), bool(tag and _is_python(tag[1])))
        if end is None:
            continue
        yield tag[1] if tag else "", "".join(lines[at:end])
        at = end + 1


def _end(lines: list[str], start: int, fence: str, column: int, python: bool) -> int | None:
    """The line that closes a block: the first that no open string holds, or else the first."""
    first, quote, read = None, "", start
    for at in range(start, len(lines)):
        line = lines[at].strip()
        if not line.startswith(fence) or line.strip(fence[0]) or _column(lines[at]) >= column + _INDENT:
            continue
        if first is None:
            first = at
        quote = _open_quote("".join(lines[read:at]), quote) if python else ""
        read = at
        if not quote:
            return at
    return first


def _open_quote(code: str, quote: str) -> str:
    """The triple quotes that are open behind a piece of Python, before which `quote` were."""
    at = 0
    while at < len(code):
        if quote:
            end = re.compile(rf"(?:\\.|(?!{quote}).)*", re.DOTALL).match(code, at)
            at = end.end() if end else len(code)
            if at >= len(code):
                return quote
            at, quote = at + 3, ""
            continue
        token = _TOKEN.search(code, at)
        if token is None:
            return ""
        at = token.end()
        quote = token[0] if token[0] in ('"""', "'''") else ""
    return quote


def _column(line: str) -> int:
    return len(line.expandtabs(_INDENT)) - len(line.expandtabs(_INDENT).lstrip())


def _is_python(tag: str) -> bool:
    return _LANGUAGES["python"].fullmatch(tag) is not None
