r"""The typography of answers: what may differ between two texts that mean the same.

`clean` makes one spelling of them: characters, spaces, fonts, colours, delimiters, sizes, names of functions, words
around the answer. Nothing here knows what a text means. No function is slower than quadratic in its text, which is at
most some thousand characters.
"""

from __future__ import annotations

import re
import unicodedata

OPEN, CLOSE = ("\\{", "{", "(", "["), ("\\}", "}", ")", "]")
SEPARATOR = re.compile(r"[,;] ?(?:and |or )?| and | or ")
_TOKEN = re.compile(r"\\.|.", re.DOTALL)
_BRACKET = re.compile(r"\\[{}]|[(){}\[\]]|\\.", re.DOTALL)
DECIMAL = re.compile(r"\d+(?:\.\d*)?|\.\d+", re.ASCII)

_CHARACTERS = {"−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-", "﹣": "-", "×": r"\times ", "·": r"\cdot ",
               "⋅": r"\cdot ", "∙": r"\cdot ", "∗": "*", "÷": "/", "∶": ":", "π": r"\pi ", "∞": r"\infty ",
               "°": r"^\circ ", "√": r"\sqrt ", "∛": r"\sqrt[3]", "≤": r"\le ", "≥": r"\ge ", "⩽": r"\le ",
               "⩾": r"\ge ", "≠": r"\ne ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "∅": r"\emptyset ",
               "∖": r"\setminus ", "±": r"\pm ", "≈": r"\approx ", "∼": r"\sim ", "µ": r"\mu ", "μ": r"\mu ",
               "Ω": r"\Omega ", "\u2126": r"\Omega ", "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}", "ℕ": r"\mathbb{N}",
               "∀": r"\forall ", "…": "...", "⋯": "...",
               "∨": r"\lor ", "∧": r"\land ", "⁻": "^-", "\u2044": "/", "／": "/", "∕": "/",
               "\u00a0": " ", "\u2009": " ", "\u202f": " ", "\u2005": " ", "\u200b": "", "\ufeff": "",
               "，": ",", "．": ".", "％": r"\%", "（": "(", "）": ")", "：": ":", "；": ";", "、": ", ", "＝": "=",
               "＋": "+", "－": "-", "′": "'", "’": "'", "‘": "'", "“": "", "”": "", "Å": r"\AA ", "\u212b": r"\AA ",
               "¥": "¥", "￥": "¥", "ħ": r"\hbar ", "ℏ": r"\hbar ", "→": r"\to ",
               "✓": "", "✔": "", "■": "", "□": "", "∎": "", "∠": r"\angle ", "△": r"\triangle "}  # fmt: skip
_GREEK = dict(zip("αβγδεζηθικλμνξπρςστυφχψω", re.findall(
    r"\w+", "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho varsigma sigma tau "
    "upsilon varphi chi psi omega"), strict=True))  # fmt: skip
_GREEK |= {"Δ": "Delta", "Γ": "Gamma", "Λ": "Lambda", "Σ": "Sigma", "Φ": "Phi", "Ψ": "Psi", "Θ": "Theta",
           "ϕ": "phi", "ϵ": "epsilon"}  # fmt: skip
_FUNCTIONS = "arcsin|arccos|arctan|arccot|arcsec|arccsc|sinh|cosh|tanh|coth|sin|cos|tan|cot|sec|csc|ln|lg|log|exp"
_END = r"(?![a-zA-Z])"
_STATED = r"(?![a-zA-Z])(?=.*(?:[=<>\d]|\\(?:le|ge|ne|in)(?![a-z])))"  # between equations and the like, not letters
_NUMBERS = {"two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7", "eight": "8", "nine": "9",
            "ten": "10", "twelve": "12", "sixteen": "16"}  # fmt: skip
_SAID = (
    r"(?:the |your )?(?:final |correct |right )?(?:answer|option|choice|value)(?: (?:choice|option))?(?: is|:| =)+:?"
)

_LARGE = r"(?<![\d.,])(\d[\d,]*(?:\.\d+)?) ?(?:\\text ?\{ ?)?([mb]illion|trillion)(?![a-z]) ?([^{}\\]*)(?:\}|$)"
_ZEROS = {"million": 6, "billion": 9, "trillion": 12}


def _multiplied(digits: str, word: str, rest: str) -> str:
    """`3.2`, `million`, `dollars` as 3200000 dollars."""
    whole, _, decimals = digits.replace(",", "").partition(".")
    places = _ZEROS[word]
    number = (whole + decimals.ljust(places, "0")[:places]).lstrip("0") + (
        f".{decimals[places:]}" if len(decimals) > places else ""
    )
    return f"{number}\\text{{ {rest.strip()}}}" if rest.strip() else number


# (a text without this needs no look, pattern, replacement), in this order
_RULES = [(trigger, re.compile(pattern), new) for trigger, pattern, new in (
    ("", r"\s+", " "),
    ("\\right", r"\\right ?\.", ""),
    ("\\left", r"\\left ?\.", ""),
    ("\\", r"(?<!\\)\\(?:left|right|middle|[bB]igg?[lrm]?|displaystyle|textstyle|scriptstyle|limits|nolimits|tiny|"
           r"small|normalsize|large|Large|LARGE|huge|Huge|bf|rm|it|sf|tt|sl|bfseries|itshape|boldmath|noindent)"
           + _END + " ?", ""),
    ("\\!", r",(?: ?\\!)+ ?(?=\d{3}(?!\d))", ""),
    ("\\!", r"\\!", ""),
    ("{,}", r"(?<=\d)\{,\} ?(?=\d{3}(?!\d))", ""),
    ("{,}", r"(?<=\d)\{,\}(?=\d)", "."),
    (",", r"\{,\}|\\text ?\{,\}", ","),
    (",\\,", r"(?<=\d),\\, ?(?=\d{3}(?!\d))", ","),
    ("\\", r"(?<!\\)\\(?:[,;:> ]|quad(?![a-zA-Z])|qquad(?![a-zA-Z])|(?:h|v)space\*? ?\{[^{}]*\})", " "),
    ("~", "~", " "),
    ("...", r"(\.\d*?(\d+?)\2+) ?\.\.\.+", r"\1\\ldots"),
    ("sqrt", r"\\sqrt ?(\d{2,})", r"\\sqrt{\1}"),
    ("\\over", r"\{([^{}]*)\\over(?![a-zA-Z])([^{}]*)\}|^([^{}]*)\\over(?![a-zA-Z])([^{}]*)$",
     lambda m: rf"\frac{{{m[1] or m[3]}}}{{{m[2] or m[4]}}}"),
    ("\\big", r"\\big(cup|cap)" + _END, r"\\\1"),
    ("\\mathring", r"\\mathring ?\{ ?(?:\\text ?\{ ?A ?\}|A) ?\}", r"\\AA "),
    (" _", r"(?<=\w) _", "_"),
    ("\\", r"\\(?:tag\*?|label|[hv]?phantom) ?\{[^{}]*\}|\\(?:checkmark|blacksquare|square|Box|qed|hfill|nonumber|"
           r"notag|mathstrut|strut)" + _END, ""),
    ("'", r"(?<=\d)'(?=\d{3}(?!\d))", ""),
    ("dots", r"\\[lc]?dots[cbmio]?" + _END, r"\\ldots"),
    ("arrow", r"\\(?:long)?rightarrow" + _END, r"\\to"),
    ("->", r"-+>", r"\\to "),
    ("^", r"\^ ?\{ ?('+) ?\}", r"\1"),
    ("\\", r"\\(?:top|intercal)" + _END, "T"),
    ("\\", r"\\(max|min|gcd|lcm) ?\\\{([^{}]*)\\\}", r"\\\1(\2)"),
    ("log", r"(?:np|numpy|math|sympy|sp)\.log(10|2|)(?= ?\()", lambda m: rf"\log_{{{m[1]}}}" if m[1] else r"\ln"),
    ("", r"(?<![\\a-zA-Z])(?:oo|inf)(?![a-zA-Z])", r"\\infty"),
    ("color", r"\\(?:text)?color ?(?:\[[^\]]*\])? ?\{[^{}]*\} ?", ""),
    ("color", r"\\color ?[a-z]+ ", ""),
    ("\\\\", r"\\\\ ?\[ ?-?[\d.]+ ?(?:pt|em|ex|mm|cm|in) ?\]", r"\\\\ "),
    ("\\\\", r"(?:\\\\ ?)+(?=\\end)", ""),
    ("\\", r"(?<!\\)\\[()\[\]]", ""),
    ("$", r"(?<!\\)\$", ""),
    ("frac", r"\\(?:[dtcs]|nice)frac" + _END, r"\\frac"),
    ("binom", r"\\[dt]binom" + _END, r"\\binom"),
    ("\\binom", r"\\binom ?(\w) ?(\w)" + _END, r"\\binom{\1}{\2}"),
    ("brace", r"\\lbrace" + _END, r"\\{"),
    ("brace", r"\\rbrace" + _END, r"\\}"),
    ("vert", r"\\[lr]?vert" + _END, "|"),
    ("\\langle", r"\\langle" + _END, "("),
    ("\\rangle", r"\\rangle" + _END, ")"),
    ("\\", r"\\varnothing" + _END + r"|\\\{\s*\\\}", r"\\emptyset"),
    ("%", r"\\%", "%"),
    ("\\&", r"\\&", " and "),
    ("pounds", r"\\pounds" + _END, "£"),
    ("euro", r"\\euro" + _END, "€"),
    ("^", r"\^\s*(?:\{\s*(?:\\circ|o)\s*\}|\\circ(?![a-zA-Z])|\\degree(?![a-zA-Z]))|\\degree(?![a-zA-Z])", r"^\\circ"),
    ("\\degree", r"\\degree" + _END, r"^\\circ"),
    ("\\", r"\\(?:approx|simeq|approxeq|doteq)" + _END, r"\\approx"),
    ("\\equiv", r"\\equiv" + _END, "="),
    ("<", r"<=", r"\\le "),
    (">", r">=", r"\\ge "),
    ("!=", r"(?<=[\w)}]) ?!= ?|^!= ?", r"\\ne "),
    ("\\not", r"\\not ?(?:=|\{=\}|\\eq)", r"\\ne "),
    ("\\not", r"\\not ?\\in" + _END, r"\\notin "),
    ("\\", r"\\(?:leq|leqslant|leqq)" + _END, r"\\le"),
    ("\\", r"\\(?:geq|geqslant|geqq)" + _END, r"\\ge"),
    ("\\neq", r"\\neq" + _END, r"\\ne"),
    ("\\lt", r"\\lt" + _END, "<"),
    ("\\gt", r"\\gt" + _END, ">"),
    ("\\colon", r"\\colon" + _END, ":"),
    ("prime", r"\^ ?\{ ?((?:\\prime ?)+)\}|\^ ?(\\prime)(?![a-zA-Z])",
     lambda m: "'" * m[0].count("prime")),
    ("prime", r"\\prime" + _END, "'"),
    ("sqrt", r"(?<![\\a-zA-Z])sqrt ?\(((?:[^()]|\([^()]*\))*)\)", r"\\sqrt{\1}"),
    ("operatorname", r"\\operatorname\*? ?\{ ?([a-zA-Z]+) ?\}", r"\\text{\1}"),
    ("\\text", rf"\\text ?\{{ ?({_FUNCTIONS}) ?\}}", r"\\\1 "),
    ("", rf"(?<![\\a-zA-Z{{])({_FUNCTIONS}|pi)(?![a-zA-Z])", r"\\\1"),
    ("np.", r"(?:np|numpy|math|sympy|sp)\.", ""),
    ("choose", r"\{ ?(\w+) ?\\choose ?(\w+) ?\}", r"\\binom{\1}{\2}"),
    ("eal", r"^(?:\\text\{)?\s*(?:[Aa]ll )?(?:[Tt]he )?[Rr]eal(?: numbers?| values?)?(?: (?:of )?)?\}? ?[a-z]?\s*\}?$",
     r"\\mathbb{R}"),
    ("text", r"^\\text ?\{([^{}]*\d[^{}]*)\}$", r"\1"),
    ("\\in", r"(?<=\S)\s*(?:[,;(]|\\text ?\{ ?,? ?(?:where|for|with|and) ?\})\s*[a-zA-Z] ?\\in ?"
             r"(?:\\(?:mathbb|text))? ?\{?[ZNRQ]\}?(?:\^?[+*])?\s*\)?$", ""),
    ("\\in", r"\\in ?(?:\\(?:mathbb|text) ?)?\{? ?([ZNRQC]) ?\}?(?![a-zA-Z])", r"\\in \\mathbb{\1}"),
    ("", r"^(?:\\text ?\{ ?(?:[Tt]hus|[Ss]o|[Hh]ence|[Tt]herefore|[Ee]xactly|[Pp]recisely) ?,? ?\}|"
         r"\\(?:therefore|implies|Rightarrow|Longrightarrow)(?![a-zA-Z])|:) ?", ""),
    ("all", r"^\\text ?\{ ?(?:for )?all ?\} ?(?=[a-z] ?(?:[<>=]|\\(?:ge|le|in|ne)))", ""),
    (")", r"(?<=[^ ,(]) ?\(([a-zA-Z] ?(?:[<>]|\\(?:ge|le|ne)(?![a-zA-Z]))[^()]*)\)$", r", \1"),
    (":", r"^[A-Z] ?: ?(?=[^=]*[a-z][^=]*=)", ""),
    ("mod", r"(?<![\w}^.])(-?\d+) ?\(? ?(?:\\[pb]?mod|\\text ?\{ ?\(? ?mod ?\}?|mod) ?\{? ?(\d+) ?\)? ?\}? ?\)?$",
     r"\1 \\pmod{\2}"),
    ("illion", _LARGE, lambda m: _multiplied(m[1], m[2], m[3])),
    ("\\forall", r" ?,? ?\(?\\forall ?[a-zA-Z](?: ?\\in ?\\(?:mathbb|text) ?\{?[ZNRQ]\}?(?:\^?[+*])?)?\)?$", ""),
    ("for all", r" ?,? ?\\text ?\{ ?,? ?for all(?: real)? ?(?:[a-z]|\}?) ?\}? ?[a-z]? ?"
                r"(?:\\in ?\\mathbb ?\{?[ZNRQ]\}?)?$", ""),
    ("constant", r" ?,? ?\(?\\text ?\{ ?,? ?(?:where|for (?:any|some)|with|and)[^{}]*\} ?\$?[a-zA-Z]?\$? ?"
                 r"(?:\\text ?\{[^{}]*constant\}|\})?\)?$", ""),
    ("an", r"\\text ?\{\s*,?\s*(?:and|or)\s*\}", " and "),
    ("or", r"\\text ?\{\s*,?\s*or\s*\}", " or "),
    ("\\", r"\\(?:lor|vee)" + _STATED, " or "),
    ("\\", r"\\(?:land|wedge)" + _STATED, " and "),
    ("frac", r"\\frac\s*(\d)\s*(\d)", r"\\frac{\1}{\2}"),
    ("frac", r"\\frac\s*(\d)\s*\{", r"\\frac{\1}{"),
    ("frac", r"(\\frac\s*\{[^{}]*\})\s*(\d)", r"\1{\2}"),
    ("{", r"([_^])\s*\{\s*(\w)\s*\}(?!\w)", r"\1\2"),
    ("\\infty", r"(?<![\w)}])\+\s*(?=\\infty)", ""),
    ("\\text", rf"^\\text ?\{{\s*(?i:{_SAID})\s*([^{{}}\s][^{{}}]*)\}}$", r"\\text{\1}"),
    ("", rf"^(?:\\text ?\{{)?\s*(?i:{_SAID})\s*\}}?\s*(?=\S)", ""),
    ("text", r"^\\text ?\{ ?(?:[Tt]here (?:are|is|were|will be)|[Tt]he (?:(?!not|least|most|than)[a-z]+ )+(?:is|are)|"
             r"[A-Z][a-z]+ (?:has|had|have|needs?|gets?)) ?\} ?(?=\S)", ""),
    ("only", r"^\\text ?\{ ?(?:only|just) ?\} ?|^only (?=\S)| ?\\text ?\{ ?only ?\}$|(?<=\d) only$", ""),
    ("", r"^(?:\\approx|\\sim|\\text ?\{ ?(?:about|approximately|approx\.?|roughly|around|nearly) ?\}|"
         r"(?:about|approximately|roughly)(?= ?[\d.\\-])) ?", ""),
    ("approx", r" ?\( ?(\\approx(?:[^()]|\([^()]*\))*)\)$", r" \1"),
    ("answer", r" ?\\text ?\{ ?(?:is )?\(?(?:the |my )?(?:final )?answer\)? ?\.?\}$", ""),
    ("inus", r"^\\text ?\{ ?(?:[Mm]inus) ?\} ?(?=[\d\\.])", "-"),
    ("egative", r"^\\text ?\{ ?(?:[Nn]egative) ?\} ?(?=[\d\\.])", "-"),
    ("base", r" ?\(?\\text ?\{ ?\(?in base ?\} ?(\d+)\)?$| ?\(?\\text ?\{ ?\(?(?:in )?base (\d+)\)? ?\}\)?$|"
             r" ?\\text ?\{ ?base ?\} ?(\d+)$",
     lambda m: f"_{m[1] or m[2] or m[3]}"),
    ("_", rf"_ ?\{{? ?\\text ?\{{ ?({'|'.join(_NUMBERS)}) ?\}} ?\}}?$", lambda m: f"_{_NUMBERS[m[1]]}"),
    ("to", r"(?<=\d) ?\\text ?\{ ?to ?\} ?(?=\d)", ":"),
    ("x", r"(?<=\d) ?[xX] ?(?=10 ?\^)", r"\\times "),
    ("\\text", r"\\text ?\{ ?([€£¥₹¢]|\\\$) ?\}", r"\1"),
    ("", r"(?<=\d)(?:st|nd|rd|th)(?![a-zA-Z])", ""),
    ("\\text", r"(?<=\d) ?(?:\^ ?\{? ?)?\\text ?\{ ?(?:st|nd|rd|th) ?\}(?: ?\}(?=$))?", ""),
    (" (", r"^(-?[\d.,/]+) \(([a-z][a-z ]+)\)$", r"\1 \\text{\2}"),
    ("\\text", r"\\text ?\{([^{}]*[^{} ,]),? (and|or) ?\}(?= ?[-\d\\])", r"\\text{\1} \2 "),
    ("\\", r"(?<!\\)\\$", ""),
    ("", r"^\s*=\s*|[\s.,;:?]*(?:\\\\)?\s*$", ""),
    ("", r"\s+", " "),
)]  # fmt: skip

_UPRIGHT = ("text", "textrm", "textnormal", "textup", "mathrm", "mbox", "hbox", "emph", "textsf", "texttt", "mathsf",
            "mathtt", "textit", "textbf")  # fmt: skip
_LETTERS = ("mathbf", "mathit", "boldsymbol", "bm", "bold", "pmb", "boldmath", "mathcal", "mathscr", "mathfrak",
            "underline", "underbar", "ensuremath", "mathnormal")  # fmt: skip
_FONT = re.compile(rf"(?<!\\)\\({'|'.join(sorted(_UPRIGHT + _LETTERS, key=len, reverse=True))})\s*(?=\{{)")
_BARE_FONT = re.compile(rf"(?<!\\)\\({'|'.join((*_UPRIGHT, *_LETTERS, 'mathbb'))}) ([A-Za-z])(?![a-zA-Z])")
_BOLD = re.compile(r"(?<![\w)}\]*])\*\*(?=[^\s*])([^*]+?)(?<=[^\s*])\*\*(?![\w({*])")
_MARKDOWN = re.compile(r"^(\*\*\*|\*\*|\*|__|`+)(?! )([^*`]+?)(?<! )\1$")
_ROOT = re.compile(r"√ ?(\d+(?:\.\d+)?|\([^()]*\))")
_SUPERSCRIPTS = re.compile(r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿⁱ]{2,}")
_SUBSCRIPTS = re.compile(r"[₀₁₂₃₄₅₆₇₈₉₊₋]+")
_CIRCLED = re.compile(r"([①-⑳])(?=[①-⑳])")


def clean(text: str) -> str:
    """The text in plain ASCII as far as possible, without sizes, spacing, fonts and final punctuation."""
    if DECIMAL.fullmatch(text):  # the common case
        return text
    if "*" in text or "`" in text or "__" in text:
        text = _BOLD.sub(r"\1", _MARKDOWN.sub(r"\2", text.strip()))
    if not text.isascii():
        text = _plain_characters(text)
    if "\\" in text:
        text = _without_fonts(text)
    for trigger, pattern, new in _RULES:
        if trigger in text:
            text = pattern.sub(new, text)
    text = text.strip()
    while text.startswith("{") and closes(text) == len(text) - 1:
        text = text[1:-1].strip()
    return text


def _without_fonts(text: str) -> str:
    r"""With `\text` for all upright fonts; other fonts are left out, but around words."""
    text = _BARE_FONT.sub(r"\\\1{\2}", text)
    at = 0
    while match := _FONT.search(text, at):
        end = match.end() + closes(text[match.end() :])
        if end < match.end():
            break
        inside = text[match.end() + 1 : end]
        if match[1] in _UPRIGHT and "\\frac" not in inside:
            new = rf"\text{{{inside}}}"
        elif len(inside) == 1 and inside.isalpha():
            new = rf"\vec{{{inside}}}" if inside in "ie" else f"{inside} "
        elif re.fullmatch(r"[A-Za-z' .-]{2,}", inside):
            new = rf"\text{{{inside}}}"
        else:
            new = f"{{{inside}}}" if len(inside) > 1 and inside[0] not in "-+" else f"{inside} "
        text = text[: match.start()] + new + text[end + 1 :]
        at = match.start() + (5 if new.startswith("\\text") else 0)
    return text


def _plain_characters(text: str) -> str:
    text = _ROOT.sub(lambda m: rf"\sqrt{{{m[1].strip('()')}}}", text)
    text = _SUPERSCRIPTS.sub(lambda m: "^{" + unicodedata.normalize("NFKC", m[0]).replace("−", "-") + "}", text)
    text = _SUBSCRIPTS.sub(lambda m: "_{" + unicodedata.normalize("NFKC", m[0]).replace("−", "-") + "}", text)
    text = _CIRCLED.sub(r"\1, ", text)
    return "".join(map(_ascii, text))


def _ascii(char: str) -> str:
    if char in _CHARACTERS or char.isascii():
        return _CHARACTERS.get(char, char)
    if char in _GREEK:
        return rf"\{_GREEK[char]} "
    if (digit := unicodedata.decimal(char, None)) is not None:
        return str(digit)
    kind, _, parts = unicodedata.decomposition(char).partition(" ")
    if kind == "<super>":
        return "^{" + chr(int(parts.split()[0], 16)) + "}"
    if kind == "<fraction>":
        above, _, below = "".join(chr(int(p, 16)) for p in parts.split()).partition("\u2044")
        return rf"\frac{{{above}}}{{{below}}}"
    if kind in ("<wide>", "<font>"):
        return chr(int(parts.split()[0], 16))
    return char


def skeleton(text: str) -> str:
    """A clean text without what never changes its meaning: fonts, and spaces but those between two digits."""
    if "\\" in text:
        text = re.sub(
            r"\\text ?\{([^{}]*)\}|\\(?:overline|vec|overrightarrow|widehat|hat) ?\{([A-Za-z]+)\}", r"\1\2", text
        )
    return re.sub(r"(?<!\d) | (?!\d)|\\(?:triangle|angle) ", "", text) if " " in text else text


def split(text: str, separator: re.Pattern[str]) -> list[str]:
    """The parts between separators that are in no bracket."""
    cuts, depth, skip = [], 0, 0
    for token in _TOKEN.finditer(text):
        depth += (token[0] in OPEN) - (token[0] in CLOSE)
        if depth == 0 and token.start() >= skip and (match := separator.match(text, token.start())):
            cuts.append(match.span())
            skip = match.end()
    starts, ends = [0, *(end for _, end in cuts)], [*(start for start, _ in cuts), len(text)]
    return [text[a:b] for a, b in zip(starts, ends, strict=True)]


def closes(text: str) -> int:
    """Where the bracket that `text` starts with is closed, by whatever kind of bracket; -1 if it is not."""
    depth = 0
    for token in _BRACKET.finditer(text):
        depth += (token[0] in OPEN) - (token[0] in CLOSE)
        if depth == 0:
            return token.start()
    return -1
