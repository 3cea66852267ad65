"""Rules on the text of a problem alone: broken characters and missing images. Each returns its evidence, or "".

They favour precision over recall: a rule looks for the exact form of a fault, because words like "figure", "graph" or
"shown" occur in good problems too. All are fast on problems without a fault.
"""

from __future__ import annotations

import re

from ringrl.curate.dress import plain, unseen_gone

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
_BROKEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ue000-\uf8ff\ufdd0-\ufdef\ufff9-\uffff"
                     "\U000f0000-\U0010ffff]")  # fmt: skip
_BIDI = re.compile("[\u202a-\u202e\u2066-\u2069]")
_EATEN = re.compile("\t(?:imes|heta|ext(?:bf|it|rm)?\\{|riangle|frac|an(?:[({\\\\^]| \\d))"
                    "|\r(?:ight\\b|ightarrow|ho\\b)"
                    "|\n(?:eq\\b ?[\\d{\\\\]|abla\\b|otin\\b)")  # fmt: skip
_SECOND = "[\x80-\xbf" + "".join(bytes([b]).decode("cp1252", "ignore") for b in range(0x80, 0xA0)) + "]"
_LETTERS = "[ÂÃÎÏÐÑ]"  # the last but one of a word, before a quotation mark, they may be what they are
_MOJIBAKE = re.compile(
    f"{_LETTERS}(?![“”‘’](?![^\\W\\d_])){_SECOND}|Ë[š†œ™]|[âã]{_SECOND}{_SECOND}|ï[»¼½¿]{_SECOND}|ðŸ{_SECOND}{_SECOND}"
)


def repaired(text: str, markup: bool = True) -> str:
    """Normalises line breaks and blanks and removes what is not seen.

    Args:
        markup: whether HTML entities and tags, and letters of another alphabet within words, are mended, too.
    """
    if _EATEN.search(text):  # its \\r is part of a LaTeX command
        return text
    text = plain(text) if markup else unseen_gone(text)
    return text if text.isascii() and "\r" not in text else _BLANK.sub(" ", _BREAK.sub("\n", text))


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

_SUFFIX = r"\.(?:png|jpe?g|gif|svg|webp|bmp|tiff?|heic|eps)\b"
_EMBEDDED = any_of(
    r"!\[[^\]\n]*\] ?\(|!\[\]",
    r"<\|?(?:img|image|figure|svg|picture)(?:\b|_)[^<>\n]*>",
    r"```(?:tikz|asy|asymptote|svg|dot|mermaid|graphviz)\b|\b(?:iVBORw0KGgo|R0lGOD|/9j/4)[A-Za-z0-9+/]{20}",
    rf"\b(?:file|image|picture|figure|fig\.?|see):? ?[\w-]+{_SUFFIX}",
    r"\[/?(?:img|image|asy|attachment|图片?)(?:\b|_)[^\]\n]{0,200}\]",
    r"\\(?:includegraphics|epsfig|epsfbox|psfig)\b",
    r"\\begin ?\{(?:asy|tikzpicture|picture|pspicture|figure)\*?\}",
    rf"(?:https?://|www\.)[^\s<>\"]+{_SUFFIX}|data:image/|\bcdn\.mathpix\.com/",
    rf"(?<![\w./-])[\w.-]+/[\w./-]*{_SUFFIX}",
    rf"\b(?:fig(?:ure)?|ima?ge?|diagram|graph|picture|pic)[\w-]*(?:{_SUFFIX}|\.pdf\b)",
)
_BASE64 = re.compile(r"[A-Za-z0-9+/]{300}")
_MARKS = ("![", "<img", "<im", "<fig", "<svg", "<pic", "[im", "[/im", "<|im", "<|fig", "<|pic", "```",
          "[as", "[/as", "[att", "[图", "/9j/", "ivbor", "r0lgod", ".heic", ".eps", "\\incl", "\\eps",
          "\\psf", "\\begin", ".png", ".jp", ".gif", ".svg", ".webp", ".bmp", ".tif", ".pdf", "data:im",
          "mathpix")  # fmt: skip

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
    r"\b(?:in|see|from|as in|refer to|using|use|consider|by) fig(?:ure|\.)? ?\(?\d|\((?:see )?fig(?:ure|\.) ?\d",
    rf"\bfig(?:ure|\.) ?\d+[a-z]? {_SHOWS}\b",
    rf"\bthe {_WHICH}(?:figure|diagram) (?:{_SHOWS}|consists|is made)\b",
    rf"\bthe (?:picture|graph|image|drawing|(?:pie )?chart|histogram) (?:below|above|at right|here) {_SHOWS}\b",
    r"\b(?:the|a) (?:\w+ )?(?:graph|sketch) of [^.?!\n]{1,80} (?:is|are) (?:shown|sketched|pictured|displayed)\b",
)
_MISSING = any_of(  # what is not in the text, whatever else is
    r"(?:^|[.!?]\s+)(?:the|this) (?:picture|diagram|figure|image|drawing|photo(?:graph)?|sketch|(?:bar |line "
    r"|pie )?(?:graph|chart)"
    r"|histogram|illustration|plot) (?:shows|gives|represents|displays|depicts|illustrates|describes)\b",
    r"\b(?:diagram|figure|drawing|picture|it)s? (?:is|are) not (?:drawn )?to scale\b|\bnot (?:drawn )?to scale\b"
    r"|\boverleaf\b",
    r"[(\[](?:the )?(?:diagram|figure|image|picture|graph|chart|drawing)s? (?:is |are )?"
    r"(?:omitted|missing|removed|unavailable|lost|deleted|not \w+)[^)\]]{0,40}[)\]]",
    rf"\b(?:in|from|on|at) (?:this|these) {_PLOT}\b|\b(?:see|in) (?:the )?attachment\b",
    rf"\b(?:the|this|these) {_SHAPE} (?:below|above)(?= (?:is|are) (?:shaded|colou?red|divided|made|labell?ed)\b)",
    r"\b(?:the|following) table (?:below |above |on the right )?(?:shows|gives|lists|summari[sz]es)\b(?![^$]*(?:["
    r"|&\t:]|\\begin|\n.*\n))",
    r"\b(?:en|de|según) (?:la|el|esta|este) (?:figura|gráfic[oa]|dibujo|imagen|diagrama)\b|\b(?:figura"
    r"|gráfico) adjunt[oa]\b",
    r"\b(?:dans|sur|de) (?:la|le|cette|ce) (?:figure|dessin|schéma|graphique) (?:ci-(?:dessous|dessus|contre)"
    r"|suivant)|\bci-contre\b",
    r"\bin der (?:abbildung|zeichnung|skizze)\b|\bna (?:figura|imagem)\b|\b(?:на|см\.?|по) (?:рисунк|рис\.|чертеж"
    r"|графику)"
    r"|図のよう|[上下右左]の図|図に示|그림과 같|그림에서|trong hình",
    r"如[上下左右]?图(?!书|片库)|(?:[左右附]|(?<![以之])[上下])图(?![书案形象像钉章版])|看图(?!书)|(?<![地版])图(?:中|示)(?!书)|图所示|图略|见[上下左右附]?图(?![书片馆章])"
    r"|第\s?\d+\s?题图|[（(]图[）)]|图\s?[1-9①-⑨一二三](?![\d册书本个])|(?:统计|条形|扇形|折线|示意|树状|流程)图(?:[中如]|给出|提供|信息|回答|表示|显示|所)",
)
_MISSED = ("diagram", "figure", "image", "picture", "graph", "chart", "drawing", "photo", "sketch", "histogram", "plot",
           "illustration", "to scale", "overleaf", "attachment", "the table ", "following table ", "below is ",
           "below are ", "above is ", "above are ", "figura", "gráfic", "dibujo", "imagen", "imagem", "dessin",
           "schéma",
           "ci-contre", "abbildung", "zeichnung", "skizze", "рис", "черт", "график", "図", "图", "그림",
           "hình")  # fmt: skip
_PICTURES = ("fig", "diagram", "picture", "image", "illustrat", "drawing", "drawn", "photo", "sketch",
             "graph", "chart", "histogram", "scatter", "number line", "map", "shown", "depicted")  # fmt: skip
_GOES_ON = {"map": "(?![a-z])", "fig": "(?![a-tv-z])"}  # maple, fight
_PICTURED = {w: re.compile(rf"{w}(?<!\w{w}){_GOES_ON.get(w, '')}") for w in _PICTURES}  # at the beginning of a word
_NAMED = any_of(_PLOT, r"\bfig\b")
_SHOWN_IN_TEXT = re.compile(r"\$\$|\\\[|\\begin|\||```|:\s*\n|\n.*\n.*\n")  # tables and formulas are shown as well


def embedded_image(text: str) -> str:
    """An image, a link to one, or code that draws one, in a problem of any domain."""
    match = _EMBEDDED.search(text) if has(text, _MARKS) else None
    long = len(text) > 1000 and any(len(part) >= 300 for part in text.split())
    return excerpt(match or (_BASE64.search(text) if long else None))


def image_referred_to(text: str) -> str:
    """A reference to an image in words, such as "as shown in the figure". Anything shown below may also be a table or
    a formula in the text."""
    if has(text, _MISSED) and (match := _MISSING.search(text)):
        return excerpt(match)
    lower = text.lower()
    if not any(word in lower and pattern.search(lower) for word, pattern in _PICTURED.items()):
        return ""
    for match in _REFERRED.finditer(text):
        if _NAMED.search(match[0]) or not _SHOWN_IN_TEXT.search(text, match.end()):
            return excerpt(match)
    return ""


# ---- what is not here --------------------------------------------------------------------------------------

_TASK = r"(?:problem|question|exercise|example|part|task|worksheet|puzzle)"
_EARLIER = any_of(
    rf"\b(?<!solved )(?:in|from|of|to|with|under|using|by|see|repeat|redo|recall|after|as|at) (?:the |your (?:answers?"
    rf"|results?|work|solutions?) "
    rf"(?:to|from|in|of) )?(?:the )?(?:conditions? of |setting of |result of |numbers (?:of|in|from) )?(?:the )?"
    rf"(?:previous|preceding|prior|above|earlier|last) {_TASK}s?\b(?! (?:on|of) (?:the|a|his|her|their) (?:test"
    rf"|quiz|exam|homework))",
    rf"\b(?:repeat|redo|see|use|using|as in|under the conditions of|from|refer to|back to|continu\w+|to|assume|of) "
    rf"(?:the \w+ (?:of|in|from) )?(?:{_TASK}|theorem|lemma) \(?(?:\d+(?:\.\d+)?|[a-d]\))(?! (?:of|on) (?:the|a"
    rf"|his|her) | (?:hour|minute|second|day|time|week|month|mile)s?\b|\d| \w+ (?:is|are|costs?)\b)",
    rf"\b(?:{_TASK}) (?:above|\d+(?:\.\d+)?,? \(?continued)|^\W*\(?(?:continued|continuation|cont'?d)\b",
    r"(?:上|前)[一]?(?:小)?题|同上题|上一问|前一问|接上|承上题",
)
_BEFORE = ("problem", "question", "exercise", "example", "part ", "part(", "task", "worksheet", "puzzle", "theorem",
           "lemma",           "continu", "cont'd", "contd", "题", "问", "接上")  # fmt: skip


def earlier_problem(text: str) -> str:
    """A reference to another problem, without which this one cannot be solved."""
    return excerpt(_EARLIER.search(text)) if has(text, _BEFORE) else ""
