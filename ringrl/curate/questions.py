"""Rules on questions and answers: several questions at once, options, guessable answers, nothing to verify.

A list in a problem is parsed in every way its labels allow, `(a)`, `a)`, `A.`, `ii)`, `Part 1:`; whether its items and
the text before them ask for something tells options, parts, and conditions of one question apart.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

from ringrl.curate.wording import NEAR, any_of, excerpt, has

# ---- parts and options -------------------------------------------------------------------------------------

_LISTS = ("ABCDEFGHIJ", "abcdefghij", "123456789", ("i", "ii", "iii", "iv", "v", "vi"), ("I", "II", "III", "IV", "V"),
          "①②③④⑤⑥⑦⑧⑨", "ⒶⒷⒸⒹⒺ", "АБВГД", "абвгд", "甲乙丙丁",
          ("One", "Two", "Three", "Four"), ("一", "二", "三", "四"))  # fmt: skip
_LABEL = r"(?P<label>[A-Ja-j]|[1-9]|i{1,3}|iv|vi?|I{1,3}|IV|V|[А-Да-д]|One|Two|Three|Four)"
_WIDE = str.maketrans({"（": " (", "）": ")", "：": ":", "．": ".", "？": "?", "，": ",", "；": ";",
                       "Ⅰ": "I", "Ⅱ": "II", "Ⅲ": "III", "Ⅳ": "IV", "Ⅴ": "V",
                       **{chr(0xFF21 + n): chr(65 + n) for n in range(10)}})  # fmt: skip
_PART = r"(?:Part|PART|Question|QUESTION|Q|Task|Subquestion)"
_SHAPES = {
    "(a)": re.compile(
        rf"(?<![\w)\]}}^_\\(])\({_LABEL}\)(?=\s+[^\s+=<>*/^,.;)-]|\s+-?[\d\\$.]|[A-Z\d$\\]|\s*\n|[^\x00-\x7f])"
    ),
    "a)": re.compile(rf"(?:^|(?<=[\s;,.?!。;]|[^\x00-\x7f])){_LABEL}\)(?=\s+\S|[A-Z\d$\\]|[^\x00-\x7f])"),
    "a.": re.compile(rf"(?:^[ \t]*|(?<=[.?!:;] )){_LABEL}\.(?=\s)", re.MULTILINE),
    "A.": re.compile(r"(?P<label>[A-J])(?<!\S.)\.(?=\s)"),
    "A.1": re.compile(r"(?P<label>[A-J])(?<![^\s()。?].)[.、:](?=\S)"),
    "A、": re.compile(rf"(?:^|(?<=[\s。?])){_LABEL}、", re.MULTILINE),
    "①": re.compile(r"(?P<label>[①-⑨Ⓐ-Ⓔ])"),
    "a/": re.compile(r"(?:^|(?<=\s))(?P<label>[A-Ja-j1-9])/(?=\s)"),
    "1°": re.compile(r"(?:^|(?<=\s))(?P<label>[1-9])°(?=\s+[^\W\d_]{3})"),
    "Option 1": re.compile(
        r"(?:^|(?<=\s))(?:Option|Choice|Answer|Alternative|选项|問題|问题) ?(?P<label>[A-J1-9])[:.)](?=\s|\S)"
    ),
    "[A]": re.compile(r"(?:^|(?<=\s))\[(?P<label>[A-J])\](?=\s)"),
    "a:": re.compile(rf"^[ \t]*(?:[-*•] )?{_LABEL}:(?=\s)", re.MULTILINE),
    "一、": re.compile(r"(?P<label>[一二三四])、"),
    "Part a": re.compile(rf"(?:^|(?<=[\s.;*])){_PART}\s?\(?{_LABEL}\)?(?:\s?[:.)]|\s?\n| [-–—] )", re.MULTILINE),
}
_MARKED: dict[str, Sequence[str]] = {  # of which a text with such items has one
    "(a)": "(", "a)": ")", "A、": "、", "a/": "/", "1°": "°", "[A]": "[", "a:": ":", "一、": "、",
    "Option 1": ("Option", "Choice", "Answer", "Alternative", "选项", "問題", "问题"), "Part a": "PQTS",
}  # fmt: skip
_DRESS = re.compile(
    r"\\(?:textbf|mathbf|mathrm|textrm|textsf|text|bf|rm)\s*\{\s*(\(?[A-Ja-j][).:]\)?)\s*:?\s*\}(?:\\ ?|~|\s|\$)*"
    r"|\*\*(\(?[A-Ja-j][).:])\*\*:?|\\boxed\s*\{\s*([A-Ja-j])\s*\}|^\*\*([a-j])\*\*(?=\s)",
    re.MULTILINE,
)
_SPACE = re.compile(r"\\q?quad\b|\\hspace\*?\{[^{}]*\}|\\\\|\\ |~|<br ?/?>")
_COMMAND = (
    r"(?:find|determine|calculate|compute|evaluate|solve|prove|show that|show|estimate|express|give|state|explain|list"
    r"|describe|derive|sketch|draw|write|simplify|factor|obtain|deduce|verify|use|identify|name|graph"
    r"|calculer|déterminer|trouver|montrer|résoudre|calcular?|hallar?|determinar?|berechne|bestimme|zeige"
    r"|найдите|найти|вычислите|докажите|определите|решите|сколько)"
)
_ASKS_ZH = r"[？吗呢]|求|计算|证明|写出|判断|解方程|解不等式|试|多少|[是有]几|什么|哪"
_WONDER = r"(?:what|how|which|who|when|where|why|for (?:what|which)|in how|at what|by what|to what|hence,?|if so)"
_ASKS = re.compile(
    rf"\?|{_ASKS_ZH}|(?:^|[.!;:\n,]\s{0, 9})(?:and |then |also |hence |now )?{_COMMAND}\b", re.IGNORECASE
)
_BEGINS = re.compile(
    rf"[\s:.*$-]*(?:then |also |hence |now |next,? )?(?:{_COMMAND}|{_WONDER})\b|\s*(?:{_ASKS_ZH})", re.IGNORECASE
)
_ASKED_ZH = re.compile(r"[？吗]|(?:^|[,，。;；则若])(?:试?求|计算|证明|写出|判断)|多少|几[何个种次]")
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
        return sum(bool("?" in t or _BEGINS.match(t) or _ASKED_ZH.search(t)) for t in self.texts)


_SECOND_LABEL = re.compile(
    r"(?:B|b(?<![a-jlmo-su-z\d]b)|2(?<![\d^_]2))(?:[).:\]、．\n/°*}：）]|\s[:.)\n–—-]|\s+\})"
    r"|ii|II|[②ⒷⅡ乙БбＢ]|二、|Two|\\item"
)


def items_of(text: str) -> list[Items]:
    """All readings of a text as a list, with at least two items."""
    if not _SECOND_LABEL.search(text):
        return []
    if not text.isascii():
        text = text.translate(_WIDE)
    if "\\item" in text:
        count = itertools.count(1)
        text = re.sub(r"\\(?:begin|end)\s*\{enumerate\}(?:\[[^]]*\])?", "\n", text)
        text = re.sub(r"\\item(?![a-zA-Z])\s*(?:\[[^]]*\])?", lambda _: f"\n{next(count)}) ", text)
    text = _DRESS.sub(lambda m: f" {m[1] or m[2] or f'{m[3] or m[4]})'} ", text)
    text = _SPACE.sub(" ", text)
    readings = []
    for name, shape in _SHAPES.items():
        marks = list(shape.finditer(text)) if name not in _MARKED or any(c in text for c in _MARKED[name]) else []
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


_AGAIN = re.compile(
    rf"(?:^|[.!?;]\s+)(?:(?:also|additionally|in addition|finally|moreover|then also|and also),? )(?:{_COMMAND}"
    rf"|what|how)\b"
    rf"|[;,.] (?:also|and also) (?:find|determine|calculate|compute|give)\b|(?:另外|此外"
    rf"|并且?)[,，]?\s?(?:再)?(?:求|计算|写出)",
    re.IGNORECASE,
)
_BULLETS = re.compile(r"^[ \t]*[-*•–] ?[^\n]*\?[ \t]*$", re.MULTILINE)


def asks_again(text: str) -> str:
    """Several questions without labels: "Also find ...", or one behind each of several bullets."""
    if len(_BULLETS.findall(text)) > 1:
        return excerpt(_BULLETS.search(text))
    match = (
        _AGAIN.search(text) if has(text, ("also", "addition", "finally", "moreover", "另外", "此外", "并")) else None
    )
    return excerpt(match) if match and _ASKS.search(text[: match.start() + 1]) else ""


def several_parts(lists: Sequence[Items]) -> str:
    for items in lists:
        for_each = _ASKS_FOR_EACH.search(items.lead) and all(items.texts) and "?" not in items.lead
        if items.asking > 1 or (for_each and items.asking == 0 and max(map(len, items.texts)) < 200):
            return f"{len(items.labels)} parts: ({items.labels[0]}) {items.texts[0][:NEAR]} ..."
    return ""


_WHICH_OF = any_of(
    r"(?:^|[.!?:;,\n]\s*|\b(?:determine|identify|find|state|tell|select|choose|in|for|at|by|to|on"
    r"|of) )which(?: one| ones| two)?(?: \w+)?,?(?: if any,)? of (?:the following|these"
    r"|the (?:options|choices|statements|answers)(?: below)?)\b",
    r"\b(?:options|choices|alternatives|possible answers|answer choices)\s*[:：=]\s*[^\s,;/|]+(?:\s*[/"
    r"|,;、]\s*[^\s,;/|]+){2,}",
    r"(?:^|[.!?]\s+)(?:choose|select|pick|circle|tick) ?:|下列[^。？?\n]{0,24}(?:正确|错误|不正确|成立|符合|最大"
    r"|最小|属于)的?(?:是|有|一项)"
    r"|(?:选出|选择)(?:一个)?(?:正确|恰当)|какое из (?:следующих|чисел)|cu[aá]l de (?:los|las) siguientes|lequel des",
    r"\bwhich (?:option|choice|answer|statement)s? (?:(?:is|are) (?:true|false|(?:in)?correct|right|wrong|not)|best)\b",
    r"\b(?:choose|select|pick|mark|tick) (?:the |one |all |an? )?(?:\w+ )?"
    r"(?:(?:in)?correct|right|best|true|false|wrong) (?:answer|option|choice|statement|alternative|response)s?\b",
    r"\b(?:select|choose|check|mark) all that apply\b|\bthe correct (?:option|choice|answer) is\b|\banswer choices\b",
)
_CHOOSING = ("下列", "选", "какое", "siguientes", "lequel", "options", "choices", "alternatives",
             "possible answers", "circle", "which", "choose", "select", "pick", "mark", "tick",
             "correct", "answer choices")  # fmt: skip
_LETTER = re.compile(
    r"(?:\\text\s*\{|\\mathrm\s*\{|\$|\*\*)*\s*(?:[Oo]ption |[Cc]hoice )?\(?([A-Ja-jА-Да-д①-⑨Ⓐ-Ⓔ甲乙丙丁]|I{1,3}"
    r"|(?<=ption )[1-9])\)?\s*[.:]?\s*(?:\}|\$|\*\*)*"
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
    r"(?:\\(?:text|mathrm|textbf)\s*\{|[\s\"'*$(])*(?:yes|no|true|false|correct|incorrect|oui|non|sí|ja|nein|да|нет"
    r"|是的?|否|不是|对|不对|错误?|正确|不正确|能|不能|可以|不可以|はい|いいえ)(?: statement)?(?=[\s\"'*$)}.!。]*$"
    r"|[,;:.，。] | ?[(（])",
    re.IGNORECASE,
)
_GUESSING = ("for yes", "if yes", "true", "yes", "t/f", "right or", "correct or")  # fmt: skip
_T_F = re.compile(r"[TtFfYyNn01]")
_TRUE_OR_FALSE = any_of(
    r"(?P<begin>^\W*(?:true or false|true/false|t/f|yes or no|right or wrong)\b\W*(?=.))",
    r"\b(?:true or false|true/false|yes or no|yes/no)\W*$",
    r"\b(?:answer|respond|reply|say|write|state|enter) (?:only |with |either )*[\"'“]?(?:yes|true)[\"'”]?"
    r" or [\"'“]?(?:no|false)\b",
    r"\b(?:determine|decide|state|say|indicate) (?:whether|if) (?:the following|the given|the|this|each|it)"
    r"(?: (?:statements?|claims?|propositions?|sentences?))?(?: (?:is|are))?"
    r" (?:true or false|correct or (?:incorrect|not))",
    r"\b(?:answer|write|enter|use|print) [\"']?(?:1|y|t)[\"']? (?:for|if) (?:yes|true)\b",
)
_POLAR = re.compile(
    r"(?:^|[.!?]\s+)(?:then |so )?(?:is|are|does|do|can|will|was|were|has|have|must|could|should)(?: not"
    r"|n't)?\b[^.?!]*\?\s*$",
    re.IGNORECASE,
)
_ONE_WORD = re.compile(r"(?:\\text\s*\{|[\s\"'*$(])*([a-z]{1,20})[\s\"'*$)}.!]*", re.IGNORECASE)


def yes_or_no(text: str, answer: str) -> str:
    """Evidence for a yes-or-no question in its answer or its words; "" without any."""
    if _YES_NO.match(answer):
        return f"the answer is {answer.strip()[:NEAR]}"
    if (word := _ONE_WORD.fullmatch(answer)) and _POLAR.search(text):
        said = word[1].lower()
        if said in ("y", "n", "t", "f", "neither", "both") or (len(said) > 3 and said[:5].rstrip("es") in text.lower()):
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
    r"(?:^|[.!?:]\s+)show \$[^$\n]*\$ (?:is|are|has|divides|equals|holds|converges|diverges)\b",
    r"(?:^|[.!?:]\s+|, )(?:deduce|conclude|infer|argue|confirm|convince yourself|derive the fact|explain why"
    r"|justify why|justify"
    r"|explain in detail why|give (?:a )?(?:reason|argument|justification)s? (?:why|that|for)) (?:that\b|\$"
    r"|the (?:inequality|claim|statement|identity)"
    r"|(?:no|every|there|the|a|any|it|this|each)\b)",
    r"(?:^|[.!?:]\s+|, )(?:establish|verify|demonstrate|justify|derive|deduce) (?:this|these|it|your claim"
    r"|the (?:following|inequality|identity"
    r"|formula|claim|statement|result|equality))\b",
    r"(?:^|[。,，:：;；\n.])\s{0,3}(?:试|请)?(?:求证|证明)(?!书|件|信|材料|文件|人)|докажите|доказать,? что"
    r"|показать,? что|покажите,? что"
    r"|(?:^|[.!?] )(?:montrer|démontrer|prouver|demostrar|demuestr[ae]|probar|pruebe|mostre|prove) que\b"
    r"|\b(?:beweisen? sie|man beweise|zeigen? sie),? dass\b|を証明せよ|を示せ|증명하",
    r"(?:^|[.!?:]\s+)show \$[^$\n]*(?:\\geq?\b|\\leq?\b|\\neq?\b|[=<>])[^$\n]*\$[.\s]*$",
)
_PROVING = ("deduce", "conclude", "infer", "argue", "confirm", "convince", "derive", "explain",
            "reason", "argument", "证", "докаж", "доказ", "показ", "покаж", "montrer", "prouver",
            "demostr", "demuest", "probar", "prueb", "mostre", "beweis", "zeig", "証", "示せ", "증명",
            "prove", "proof", "show", "demonstr", "establish", "verify", "justify")  # fmt: skip
_VALUE = any_of(
    r"[?？]|求(?!证)|多少|计算|[是有]几|найдите|вычислите|calculer|hallar|calcular",
    r"(?:^|[.!;:\n,]\s{0,9}|\b(?:and|then|hence|also) )(?:(?:then|hence|also|thus) )?"
    r"(?:find|determine|compute|calculate|evaluate|what|how many|enter|report|express|give(?! an? (?:\w+ )?proof))\b",
)


def asks_for_proof(text: str) -> str:
    """The words that ask for a proof, unless the problem also asks for a value that can be verified."""
    match = _PROVE.search(text) if has(text, _PROVING) else None
    return "" if match is None or _VALUE.search(text) else excerpt(match)


_CAPTION = re.compile(r"^\W*(?:(?:problem|question|exercise|example|task|q)\W*\d*|\d+(?=[.:)]))\W*", re.IGNORECASE)
_PLACEHOLDER = re.compile(
    r"\W*(?:deleted|removed|null|none|nan|n/?a|todo|tbd|same as above|see above|lorem ipsum|test(?:ing)?"
    r"|placeholder|empty|略|无|暂无"
    r"|(?:problem|question|content|text|statement) (?:was |has been |is )?(?:removed|deleted|omitted|unavailable"
    r"|missing|not available)\b.{0,60}"
    r"|(?:please )?(?:solve|answer|find|evaluate|simplify|compute"
    r"|calculate)(?: each of)?(?: the)? following(?: \w+)?)\W*",
    re.IGNORECASE,
)
_NO_ANSWER = re.compile(
    r"\W*(?:(?:answer\W+)?(?:proof|proved|proven|q\.?e\.?d\.?|trivial|obvious|omitted|undefined|answer|solution|image|picture|unk|error|pending"
    r"|placeholder|blank|empty|unsolved|unanswered|none of (?:the above|these)|#?(?:value|ref|name|num|div/0|null)[!?]"
    r"|to be (?:added|done|determined|completed)|left (?:to the reader|as an exercise|blank)|voir .{1,20}"
    r"|ver (?:soluci[oó]n|resposta)|siehe .{1,20}"
    r"|не определено|нет ответа|неизвестно|доказано|нет|无|略|答案略|证明略|解略|过程略|暂无|未知|不详|缺失?|空"
    r"|同上|省略|待定|待补充|无答案|没有答案"
    r"|[见看](?:解析|答案|上|下|详解|教材|图)|详?见.{0,8}|参考答案.{0,4}|証明略|省略|なし|없음"
    r"|(?:the )?(?:solution|answer|proof)s? (?:is |are |was )?(?:omitted|missing|pending|unavailable|unknown"
    r"|not \w+|left .{1,20}|provided|below|above)"
    r"|null|none|nan|n/?a|tbd|todo|unknown|not ?found|missing|no answer(?: \w+)?"
    r"|answers? (?:will|may) vary"
    r"|(?:answer )?not (?:found|given|provided|available|applicable)"
    r"|(?:see|refer to)(?: the)? (?:solution|explanation|proof|text|answer|above|below)s?(?: above| below)?)\W*)?",
    re.IGNORECASE,
)


_PRINTED = re.compile(
    r"\[\s*(['\"]).*\1\s*,?\s*\]|\{\s*(['\"])\w+\2\s*:.*\}|\$*\s*\\f?boxed\s*\{\s*\}\s*\$*\.?", re.DOTALL
)  # ['7'], {'value': 7}: of a program; an empty box


def is_empty(text: str) -> bool:
    """Whether there is nothing besides a caption or a placeholder."""
    return not re.search(r"\w", _CAPTION.sub("", text)) or bool(_PLACEHOLDER.fullmatch(text))


def is_no_answer(answer: str) -> bool:
    return (len(answer) < 60 and bool(_NO_ANSWER.fullmatch(answer))) or bool(_PRINTED.fullmatch(answer.strip()))
