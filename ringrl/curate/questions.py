"""Rules on questions and answers: several questions at once, options, guessable answers, nothing to verify.

A list in a problem is parsed in every way its labels allow, `(a)`, `a)`, `A.`, `ii)`, `Part 1:`; whether its items and
the text before them ask for something tells options, parts, and conditions of one question apart.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ringrl.curate.wording import NEAR, any_of, excerpt, has

# ---- parts and options -------------------------------------------------------------------------------------

_LISTS = ("ABCDEFGHIJ", "abcdefghij", "123456789", ("i", "ii", "iii", "iv", "v", "vi"), ("I", "II", "III", "IV", "V"))
_LABEL = r"(?P<label>[A-Ja-j]|[1-9]|i{1,3}|iv|vi?|I{1,3}|IV|V)"
_PART = r"(?:Part|PART|Question|QUESTION|Q|Task|Subquestion)"
_SHAPES = {
    "(a)": re.compile(rf"(?<![\w)\]}}^_\\(])\({_LABEL}\)(?=\s+[^\s+=<>*/^,.;)-]|\s+-?[\d\\$.]|[A-Z\d$\\]|\s*\n)"),
    "a)": re.compile(rf"(?:^|(?<=[\s;,.?!])){_LABEL}\)(?=\s+\S|[A-Z\d$\\])"),
    "a.": re.compile(rf"(?:^[ \t]*|(?<=[.?!:;] )){_LABEL}\.(?=\s)", re.MULTILINE),
    "A.": re.compile(r"(?:^|(?<=\s))(?P<label>[A-J])\.(?=\s)"),
    "A、": re.compile(rf"^[ \t]*{_LABEL}[、．]", re.MULTILINE),
    "[A]": re.compile(r"(?:^|(?<=\s))\[(?P<label>[A-J])\](?=\s)"),
    "a:": re.compile(rf"^[ \t]*{_LABEL}:(?=\s)", re.MULTILINE),
    "Part a": re.compile(rf"(?:^|(?<=[\s.;*])){_PART}\s?\(?{_LABEL}\)?(?:\s?[:.)]|\s?\n| [-–—] )", re.MULTILINE),
}
_DRESS = re.compile(
    r"\\(?:textbf|mathbf|mathrm|textrm|textsf|text|bf|rm)\s*\{\s*(\(?[A-Ja-j][).:]\)?)\s*:?\s*\}(?:\\ ?|~|\s|\$)*"
    r"|\*\*(\(?[A-Ja-j][).:])\*\*:?"
)
_SPACE = re.compile(r"\\q?quad\b|\\hspace\*?\{[^{}]*\}|\\\\|\\ |~|<br ?/?>")
_COMMAND = (
    r"(?:find|determine|calculate|compute|evaluate|solve|prove|show that|show|estimate|express|give|state|explain|list"
    r"|describe|derive|sketch|draw|write|simplify|factor|obtain|deduce|verify|use|identify|name|graph)"
)
_WONDER = r"(?:what|how|which|who|when|where|why|for (?:what|which)|in how|at what|by what|to what|hence,?|if so)"
_ASKS = re.compile(rf"\?|(?:^|[.!;:\n,]\s{0, 9})(?:and |then |also |hence |now )?{_COMMAND}\b", re.IGNORECASE)
_BEGINS = re.compile(rf"[\s:.*$-]*(?:then |also |hence |now |next,? )?(?:{_COMMAND}|{_WONDER})\b", re.IGNORECASE)
_ASKS_FOR_EACH = re.compile(
    rf"(?:\b{_COMMAND}|\bwhat (?:is|are|was|were))"
    r"(?: (?:the|values?|following|each|both|of|integrals?|equations?|limits?|expressions?))*\s*:?\s*$",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Items:
    """A text with labelled items: the text before them, and each item with its label."""

    lead: str
    labels: tuple[str, ...]
    texts: tuple[str, ...]

    @property
    def asking(self) -> int:
        """Number of items that ask for something."""
        return sum(bool("?" in t or _BEGINS.match(t)) for t in self.texts)


def items_of(text: str) -> list[Items]:
    """All readings of a text as a list, with at least two items."""
    if not re.search(r"[Bb2][).:\]、．\n ]|ii", text) and "II" not in text:
        return []
    text = _SPACE.sub(" ", _DRESS.sub(lambda m: f" {m[1] or m[2]} ", text))
    readings = []
    for shape in _SHAPES.values():
        marks = list(shape.finditer(text))
        for labels in _LISTS if len(marks) > 1 else ():
            run: list[re.Match[str]] = []
            for mark in marks:
                if len(run) < len(labels) and mark["label"] == labels[len(run)]:
                    run.append(mark)
            if len(run) > 1:
                ends = [m.start() for m in run[1:]] + [len(text)]
                texts = tuple(_balanced(text[m.end() : end].strip(" \t\n;,")) for m, end in zip(run, ends, strict=True))
                readings.append(Items(text[: run[0].start()].strip(), tuple(m["label"] for m in run), texts))
    return readings


def _balanced(text: str) -> str:
    """The text without the $ of a formula that is cut in two."""
    return text.strip("$ ") if text.count("$") % 2 else text


def several_parts(lists: Sequence[Items]) -> str:
    for items in lists:
        for_each = _ASKS_FOR_EACH.search(items.lead) and all(items.texts) and "?" not in items.lead
        if items.asking > 1 or (for_each and items.asking == 0 and max(map(len, items.texts)) < 200):
            return f"{len(items.labels)} parts: ({items.labels[0]}) {items.texts[0][:NEAR]} ..."
    return ""


_WHICH_OF = any_of(
    r"\bwhich(?: one| ones| two)?(?: \w+)?,?(?: if any,)? of (?:the following|these"
    r"|the (?:options|choices|statements|answers)(?: below)?)\b",
    r"\bwhich (?:option|choice|answer)s? (?:(?:is|are) (?:true|false|(?:in)?correct|right|wrong|not)|best)\b",
    r"\b(?:choose|select|pick|mark|tick) (?:the |one |all |an? )?(?:\w+ )?"
    r"(?:(?:in)?correct|right|best|true|false|wrong) (?:answer|option|choice|statement|alternative|response)s?\b",
    r"\b(?:select|choose|check|mark) all that apply\b|\bthe correct (?:option|choice|answer) is\b|\banswer choices\b",
)
_CHOOSING = ("which", "choose", "select", "pick", "mark", "tick", "correct", "answer choices")
_LETTER = re.compile(
    r"(?:\\text\s*\{|\\mathrm\s*\{|\$|\*\*)*\s*(?:[Oo]ption |[Cc]hoice )?\(?([A-Ja-j])\)?\s*[.:]?\s*(?:\}|\$|\*\*)*"
)
_NOT_ALONE = any_of(
    r"\bwhich(?: one)? of\b|\bthe following\b|\bof these\b|\b(?:option|choice|statement|alternative)s?\b|\bclosest\b",
    r"\bbest\b|\bmost (?:likely|nearly|closely)\b|\b(?:could|can|may|might|must) (?:not )?be\b|\bexcept\b|\bnot\b",
    r"\bbelow\b|\bcorrect answer|\bis (?:true|false|correct|incorrect)\b|\bapproximately\b|\bnearest to\b",
)
_OF_OPTIONS = any_of(
    r"\b(?:all|none|both|neither|any|either|two|some) of (?:the |these)|\b(?:both|neither)\b.*\b[A-J]\b",
    r"cannot be determined|not enough information|^\(?[A-J]\)? (?:and|or) \(?[A-J]\)?$",
)


@dataclass(frozen=True)
class Choice:
    """A question with options. `question` and `answer` are set if it makes sense without them."""

    detail: str
    question: str = ""
    answer: str = ""
    options: tuple[str, ...] = ()


def multiple_choice(text: str, answer: str, lists: Sequence[Items]) -> Choice | None:
    match = _LETTER.fullmatch(answer.strip())
    letter = match[1] if match else ""
    for items in lists:
        given = letter and letter.upper() in [label.upper() for label in items.labels]
        given = given and (len(items.labels) > 2 or _ASKS.search(items.lead))
        if items.asking > 1 or (not given and not _are_options(items, answer)) or (items.asking and not given):
            continue
        options = (*items.texts[:-1], items.texts[-1].partition("\n")[0].strip())
        return _converted(items, options, letter if given else "", answer)
    if has(text, _CHOOSING) and (match := _WHICH_OF.search(text)):
        return Choice(f"no option found: {excerpt(match)}")
    return None


def _are_options(items: Items, answer: str) -> bool:
    """Whether the items are options, given that the answer is none of their labels."""
    if len(items.labels) < 3 or not (items.lead.endswith((":", "?", "is", "are", "=")) or _ASKS.search(items.lead)):
        return False
    named = answer.strip("$ .") in [t.strip("$ .") for t in items.texts]
    short = max(map(len, items.texts)) < 100 and not items.labels[0].isdigit() and items.labels[1] not in ("ii", "II")
    return named or (short and not _ASKS_FOR_EACH.search(items.lead))


def _converted(items: Items, options: tuple[str, ...], letter: str, answer: str) -> Choice:
    detail = f"{len(options)} options: ({items.labels[0]}) {options[0][:NEAR]} ..."
    right = options[[label.upper() for label in items.labels].index(letter.upper())] if letter else answer
    cannot = _NOT_ALONE.search(items.lead) or next(filter(None, map(_OF_OPTIONS.search, options)), None)
    if cannot or not right or not _ASKS.search(items.lead):
        why = f"it needs them: {excerpt(cannot)}" if cannot else "no answer among them" if not right else "no question"
        return Choice(f"{detail}; {why}", options=options)
    closed = "$" if items.lead.count("$") % 2 else ""  # the options are part of a formula
    question = items.lead.removesuffix("$").rstrip() if closed else items.lead
    return Choice(detail, question, right.strip(" ."), options)


# ---- questions that are guessed, and proofs ----------------------------------------------------------------

_YES_NO = re.compile(
    r"(?:\\(?:text|mathrm|textbf)\s*\{|[\s\"'*$(])*(?:yes|no|true|false|correct|incorrect)(?=[\s\"'*$)}.!]*$|[,;:.] )",
    re.IGNORECASE,
)
_GUESSING = ("true", "yes", "t/f", "right or", "correct or")
_T_F = re.compile(r"[TtFfYyNn01]")
_TRUE_OR_FALSE = any_of(
    r"(?P<begin>^\W*(?:true or false|true/false|t/f|yes or no|right or wrong)\b\W*(?=.))",
    r"\b(?:true or false|true/false|yes or no|yes/no)\W*$",
    r"\b(?:answer|respond|reply|say|write|state|enter) (?:only |with |either )*[\"'“]?(?:yes|true)[\"'”]?"
    r" or [\"'“]?(?:no|false)\b",
    r"\b(?:determine|decide|state|say|indicate) (?:whether|if) (?:the following|the given|the|this|each|it)"
    r"(?: (?:statements?|claims?|propositions?|sentences?))?(?: (?:is|are))?"
    r" (?:true or false|correct or (?:incorrect|not))",
)


def yes_or_no(text: str, answer: str) -> str:
    """Evidence for a yes-or-no question in its answer or its words; "" without any."""
    if _YES_NO.match(answer):
        return f"the answer is {answer.strip()[:NEAR]}"
    match = _TRUE_OR_FALSE.search(text) if has(text, _GUESSING) else None
    if match and (match["begin"] or _T_F.fullmatch(answer.strip()) or not answer.strip()):
        return excerpt(match)
    return ""


_PROVE = any_of(
    r"(?:^|[.!?:;)$]\s+|\n[ \t]*|,\s+(?:then )?)(?:\(?\d+[.)]\s*)?(?:Please |Now |Hence |Then )?"
    r"(?:prove|disprove|show|demonstrate|establish|verify|justify)(?: or disprove)?"
    r"(?:,? (?:by \w+|using [^,.]{1,40}|without [^,.]{1,40}),?)?(?:\s*:| that\b| the following\b| or disprove\b)",
    r"(?:^|[.!?]\s+)(?:prove|disprove)\b|,\s+(?:then )?prove (?:the\b|\$)",
    r"\b(?:use|using) [^.?!\n]{1,60} to (?:prove|show)\b|\bgive a (?:\w+ )?proof\b|\bprove your (?:answer|claim)\b",
    r"(?:^|[.!?:]\s+)show \$[^$\n]*(?:\\geq?\b|\\leq?\b|\\neq?\b|[=<>])[^$\n]*\$[.\s]*$",
)
_PROVING = ("prove", "proof", "show", "demonstr", "establish", "verify", "justify")
_VALUE = any_of(
    r"\?",
    r"(?:^|[.!;:\n,]\s{0,9}|\b(?:and|then|hence|also) )(?:(?:then|hence|also|thus) )?"
    r"(?:find|determine|compute|calculate|evaluate|what|how many|enter|report|express|give(?! an? (?:\w+ )?proof))\b",
)


def asks_for_proof(text: str) -> str:
    """The words that ask for a proof, unless the problem also asks for a value that can be verified."""
    match = _PROVE.search(text) if has(text, _PROVING) else None
    return "" if match is None or _VALUE.search(text) else excerpt(match)


_CAPTION = re.compile(r"^\W*(?:(?:problem|question|exercise|example|task|q)\W*\d*|\d+(?=[.:)]))\W*", re.IGNORECASE)
_PLACEHOLDER = re.compile(
    r"\W*(?:deleted|removed|null|none|nan|n/?a|todo|tbd|same as above|see above|lorem ipsum)\W*", re.IGNORECASE
)
_NO_ANSWER = re.compile(
    r"\W*(?:(?:answer\W+)?(?:null|none|nan|n/?a|tbd|todo|unknown|not ?found|missing|no answer(?: \w+)?"
    r"|answers? (?:will|may) vary"
    r"|(?:answer )?not (?:found|given|provided|available|applicable)"
    r"|(?:see|refer to)(?: the)? (?:solution|explanation|proof|text|answer|above|below)s?(?: above| below)?)\W*)?",
    re.IGNORECASE,
)


def is_empty(text: str) -> bool:
    """Whether there is nothing besides a caption or a placeholder."""
    return not re.search(r"\w", _CAPTION.sub("", text)) or bool(_PLACEHOLDER.fullmatch(text))


def is_no_answer(answer: str) -> bool:
    return len(answer) < 60 and bool(_NO_ANSWER.fullmatch(answer))
