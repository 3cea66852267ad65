"""Rules on the text of a problem alone: broken characters and missing images. Each returns its evidence, or "".

They favour precision over recall: a rule looks for the exact form of a fault, because words like "figure", "graph" or
"shown" occur in good problems too. All are fast on problems without a fault.
"""

from __future__ import annotations

import re

NEAR = 30  # characters of context in a detail


def excerpt(match: re.Match[str] | None) -> str:
    """The passage around a match, on one line; "" without a match."""
    if match is None:
        return ""
    passage = match.string[max(0, match.start() - NEAR // 2) : match.end() + NEAR // 2]
    return " ".join(passage.split())[: 4 * NEAR]


def has(text: str, words: tuple[str, ...]) -> bool:
    """Whether a text contains one of these words, ignoring case; avoids running slow patterns on most problems."""
    lower = text.lower()
    return any(word in lower for word in words)


def any_of(*patterns: str) -> re.Pattern[str]:
    """One case-insensitive pattern that matches any of these."""
    return re.compile("|".join(patterns), re.IGNORECASE)


# ---- characters --------------------------------------------------------------------------------------------

_BREAK = re.compile(r"\r\n?|\x85|\u2028|\u2029")
_BLANK = re.compile("[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")
_NOTHING = re.compile(
    "[\u00ad\u200b\u200e\u200f\u2060\ufeff]|(?<=[\x00-\x7f])[\u200c\u200d]|[\u200c\u200d](?=[\x00-\x7f])"
)
_BROKEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ue000-\uf8ff\ufdd0-\ufdef\ufff9-\uffff"
                     "\U000f0000-\U0010ffff]")  # fmt: skip
_BIDI = re.compile("[\u202a-\u202e\u2061-\u2064\u2066-\u2069]")
_EATEN = re.compile("\t(?:imes|heta|ext(?:bf|it|rm)?\\{|riangle|frac|an(?:[({\\\\^]| \\d))"
                    "|\r(?:ight\\b|ightarrow|ho\\b)"
                    "|\n(?:eq\\b ?[\\d{\\\\]|abla\\b|otin\\b)")  # fmt: skip
_SECOND = "[\x80-\xbf" + "".join(bytes([b]).decode("cp1252", "ignore") for b in range(0x80, 0xA0)) + "]"
_MOJIBAKE = re.compile(f"[ÂÃÎÏÐÑ]{_SECOND}|[âã]{_SECOND}{_SECOND}|ï[»¼½¿]{_SECOND}|ðŸ{_SECOND}{_SECOND}")


def repaired(text: str) -> str:
    """Normalises line breaks and blanks and removes zero-width characters; a reader sees no difference."""
    if (text.isascii() and "\r" not in text) or _EATEN.search(text):  # the \r is part of a LaTeX command
        return text
    return _BLANK.sub(" ", _BREAK.sub("\n", _NOTHING.sub("", text)))


def invalid_characters(text: str) -> str:
    """Control characters, U+FFFD, surrogates, private use; LaTeX whose \\t was read as a tab; wrongly decoded text."""
    if match := _BROKEN.search(text):
        kind = "control" if match[0] < "\xa0" else "replacement" if match[0] == "\ufffd" else "no"
        return f"{kind} character U+{ord(match[0]):04X} at {match.start()}"
    if match := _EATEN.search(text):
        return f"an escape that was read as white space: {excerpt(match)}"
    if text.isascii():
        return ""
    if match := _BIDI.search(text):
        return f"invisible character U+{ord(match[0]):04X} at {match.start()}"
    match = _MOJIBAKE.search(text)
    return f"UTF-8 that was read as Windows-1252: {excerpt(match)}" if match else ""


# ---- images ------------------------------------------------------------------------------------------------

_SUFFIX = r"\.(?:png|jpe?g|gif|svg|webp|bmp|tiff?)\b"
_EMBEDDED = any_of(
    r"!\[[^\]\n]*\] ?\(|!\[\]",
    r"<(?:img|image|figure|svg|picture)\b[^<>\n]*>",
    r"\[/?(?:img|image|asy|attachment)\b[^\]\n]{0,200}\]",
    r"\\(?:includegraphics|epsfig|epsfbox|psfig)\b",
    r"\\begin ?\{(?:asy|tikzpicture|picture|pspicture|figure)\*?\}",
    rf"(?:https?://|www\.)[^\s<>\"]+{_SUFFIX}|data:image/|\bcdn\.mathpix\.com/",
    rf"(?<![\w./-])[\w.-]+/[\w./-]*{_SUFFIX}",
    rf"\b(?:fig(?:ure)?|ima?ge?|diagram|graph|picture|pic)[\w-]*(?:{_SUFFIX}|\.pdf\b)",
)
_MARKS = ("![", "<img", "<im", "<fig", "<svg", "<pic", "[im", "[/im", "[as", "[/as", "[att", "\\incl", "\\eps", "\\psf",
          "\\begin", ".png", ".jp", ".gif", ".svg", ".webp", ".bmp", ".tif", ".pdf", "data:im", "mathpix")  # fmt: skip

_PICTURE = r"(?:figures?|diagrams?|pictures?|images?|illustrations?|drawings?|photographs?|sketch(?:es)?)"
_PLOT = rf"(?:{_PICTURE}|graphs?|charts?|bar graph|pie chart|histogram|scatter ?plot|number line|map)"
_THE = r"(?:the|this|these|each|that)"
_BESIDE = r"(?:following|adjoining|accompanying|attached|adjacent)"
_WHICH = rf"(?:(?:{_BESIDE}|given|above|first|second|left|right)[ -])?"
_NOT_OF = r"(?! (?:the|a|an|this|that|each|its|it|which|sea|zero|average)\b| ?[$\\\d])"  # above the x-axis
_WHERE = rf"(?:below|above|at (?:the )?(?:right|left)|(?:on|to) the (?:right|left)){_NOT_OF}"
_SHOWN = r"(?:shown|depicted|illustrated|pictured|drawn|displayed|indicated|labell?ed|seen|sketched|marked)"
_SEE = r"(?:see|refer(?:ring)? to|consider|look at|use|using|based on|according to)"
_SHAPE = (
    r"(?:\w+ )?(?:figure|diagram|graph|picture|image|grid|shape|solid|triangle|square|rectangle|quadrilateral|trapezoid"
    r"|parallelogram|polygon|pentagon|hexagon|octagon|circle|semicircle|cube|pyramid|cylinder|cone|circuit|board|spinner"
    r"|region|line|curve|network)s?"
)
_SHOWS = r"(?:shows?|depicts?|illustrates?|represents?)"
_REFERRED = any_of(
    rf"\b{_SHOWN}(?: \w+){{0,3}}? (?:in|by|on|from) {_THE} {_WHICH}{_PLOT}\b(?! of\b)",
    rf"\b{_THE} {_WHICH}(?:\w+ )?{_PLOT} (?:(?:is|are|as) )?(?:(?:shown|given|drawn|depicted) )?{_WHERE}",
    r"\b(?:shown|depicted|illustrated|pictured|drawn|sketched) (?:below|above|here|at right|(?:on|to) the right)"
    r"(?=[.,;]? [^\n]*$|[.,;]|$)",
    rf"\b{_THE} {_WHICH}{_SHAPE} (?:shown|pictured|depicted)\b(?! (?:in|by|that|to|on)\b|:| ?\$)",
    r"\b(?:graph|sketch) of [^.?!\n]{1,60} shown\b(?! to\b)",
    r"\battached (?:figure|diagram|picture|image|graph|file)\b",
    r"\bof the (?:figure|diagram|picture|shape) (?:is|are) (?:shaded|colou?red|unshaded)\b",
    r"\b(?:in|on) the (?:picture|photo|photograph|image|drawing)\?",
    rf"\baccording to the {_PLOT}\b(?! of\b)",
    rf"\b{_THE} {_BESIDE} {_PICTURE}\b",
    rf"\b(?:in|from|by|on|per) the {_WHICH}(?:figures?|diagrams?)(?: (?:shown|given))?"
    r"(?=,|\.(?:\s|$)|\?| to the (?:right|left)| (?:the|we|let|has|have|is|are|point|line|triangle|circle|angle)\b)",
    rf"\b{_SEE} the {_WHICH}{_PICTURE}(?=[.,;:)]|\s*$| (?:below|above|shown|on|at|to|and|where|in)\b)",
    rf"\(see (?:the )?{_PICTURE}\b",
    rf"\b{_SEE} the {_PLOT} (?:{_WHERE}|shown)",
    r"\b(?:in|see|from|as in|refer to) fig(?:ure|\.)? ?\(?\d|\((?:see )?fig(?:ure|\.) ?\d",
    rf"\bfig(?:ure|\.) ?\d+[a-z]? {_SHOWS}\b",
    rf"\bthe {_WHICH}(?:figure|diagram) (?:{_SHOWS}|consists|is made)\b",
    rf"\bthe (?:picture|graph|image|drawing|(?:pie )?chart|histogram) (?:below|above|at right|here) {_SHOWS}\b",
    r"\b(?:the|a) (?:\w+ )?(?:graph|sketch) of [^.?!\n]{1,80} (?:is|are) (?:shown|sketched|pictured|displayed)\b",
)
_PICTURES = ("fig", "diagram", "picture", "image", "illustrat", "drawing", "drawn", "photo", "sketch", "graph", "chart",
             "histogram", "scatter", "number line", "map", "shown", "depicted")  # fmt: skip
_NAMED = any_of(_PLOT, r"\bfig\b")
_SHOWN_IN_TEXT = re.compile(r"\$\$|\\\[|\\begin|\||```|:\s*\n|\n.*\n.*\n")  # tables and formulas are shown as well


def embedded_image(text: str) -> str:
    """An image, a link to one, or code that draws one, in a problem of any domain."""
    return excerpt(_EMBEDDED.search(text)) if has(text, _MARKS) else ""


def image_referred_to(text: str) -> str:
    """A reference to an image in words, such as "as shown in the figure". Anything shown below may also be a table or
    a formula in the text."""
    if not has(text, _PICTURES):
        return ""
    for match in _REFERRED.finditer(text):
        if _NAMED.search(match[0]) or not _SHOWN_IN_TEXT.search(text, match.end()):
            return excerpt(match)
    return ""
