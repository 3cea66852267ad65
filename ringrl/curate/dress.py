r"""What copies of one problem differ in besides their words: markup, look-alike letters, headings, instructions.

    plain("John&#39;s <p>аge</p>")                  John's age: entities, tags, homoglyphs (that а was Cyrillic)
    bare("Example 7. (10 points) Ann ... .")        Ann ...: without numbers, points, contests, instructions

`plain` is what `cleanse` repairs in what is kept; `bare` is only for comparing.
"""

from __future__ import annotations

import html
import re
import unicodedata

_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][\da-fA-F]{1,6}|[a-zA-Z]{2,31}\d{0,2});")
_PAIRED = re.compile(
    r"<(p|b|i|u|s|a|div|span|em|strong|font|center|td|tr|th|table|tbody|ul|ol|li|h[1-6])(?:\s[^<>]*)?>"
)
_TAG = r"</?(?:{}|br|hr)(?:\s[^<>]*)?/?>"
_ORDERED = re.compile(r"<ol(?:\s+type=[\"']?([aA1])[\"']?)?(?:\s[^<>]*)?>((?:(?!<ol).){0,4000}?)</ol>", re.DOTALL)
_RAISED = re.compile(r"<(su[bp])>([^<>]{0,40})</\1>")
_INVISIBLE = re.compile(
    "[\u00ad\u200b\u200e\u200f\u2060-\u2064\ufeff]|(?<=[\x00-\x7f])[\u200c\u200d]|[\u200c\u200d](?=[\x00-\x7f])"
)
_WORD = re.compile(r"[^\W\d_]+")
_FOREIGN = re.compile("[Ͱ-ϿЀ-ԯ]+")
_LOOK_ALIKE = str.maketrans(
    "аеорсухіјѕһԁԛԝАВЕКМНОРСТУХІЈЅΑΒΕΖΗΙΚΜΝΟΡΤΥΧο", "aeopcyxijshdqwABEKMHOPCTYXIJSABEZHIKMNOPTYXo"
)  # not ν, τ and υ: in hν and kτ they are symbols


def plain(text: str) -> str:
    """HTML entities and formatting tags as characters; what no reader sees gone; words in one alphabet."""
    if "&" in text:
        text = _ENTITY.sub(lambda m: html.unescape(m[0]), text)
    if "<" in text:
        text = _untagged(text)
    return text if text.isascii() else without_homoglyphs(unseen_gone(text))


def unseen_gone(text: str) -> str:
    """Without soft hyphens, marks of no width and invisible operators."""
    return text if text.isascii() else _INVISIBLE.sub("", text)


def _untagged(text: str) -> str:
    r"""Tags that are closed somewhere, so that $a<b>c$ stays; <sup>2</sup> becomes ^{2}."""
    text = _RAISED.sub(lambda m: f"{'^' if m[1] == 'sup' else '_'}{{{m[2]}}}", text)
    text = _ORDERED.sub(_lettered, text)
    names = {m[1] for m in _PAIRED.finditer(text) if f"</{m[1]}>" in text}
    if names or re.search(r"<[bh]r ?/?>", text):
        text = re.sub(_TAG.format("|".join(names) or "br"), "\n", text)
        text = re.sub(r" *\n[ \n]*", "\n", text).strip("\n")
    return text


def _lettered(items: re.Match[str]) -> str:
    """The items of an ordered list behind the letters or numbers that a browser shows."""
    first = ord({"a": "a", "A": "A"}.get(items[1] or "", "1"))
    parts = re.split(r"<li(?:\s[^<>]*)?>", items[2])[1:]
    return (
        "".join(f"\n{chr(first + n)}) {part.replace('</li>', '').strip()}" for n, part in enumerate(parts[:9])) + "\n"
    )


def without_homoglyphs(text: str) -> str:
    """Cyrillic and Greek letters as the Latin ones they look like, in words or texts that are Latin otherwise."""
    foreign = _FOREIGN.findall(text)
    if not foreign:
        return text
    text = _WORD.sub(_in_latin, text)
    if sum(map(str.isascii, filter(str.isalpha, text))) > 4 * sum(map(len, _FOREIGN.findall(text))):
        alone = rf"(?<![^\W\d_])[{''.join(map(chr, range(0x400, 0x530)))}]+(?![^\W\d_])"
        text = re.sub(alone, lambda m: new if (new := m[0].translate(_LOOK_ALIKE)).isascii() else m[0], text)
    return text


def _in_latin(word: re.Match[str]) -> str:
    has_latin = any(c.isascii() for c in word[0])
    return word[0].translate(_LOOK_ALIKE) if has_latin and _FOREIGN.search(word[0]) else word[0]


def digits(text: str) -> str:
    """Decimal digits of other scripts as ASCII ones."""
    return "".join(str(unicodedata.decimal(c)) if c.isdecimal() and not c.isascii() else c for c in text)


# ---- headings and instructions -----------------------------------------------------------------------------

_OPEN, _CLOSE = r"[(\[【（「]", r"[)\]】）」]"
_NEXT = r"(?=[A-Z\d$\\\"“'(\[]|[^\x00-\x7f])"  # what a problem may begin with
_CONTEST = (
    r"(?:AMC|AHSME|AJHSME|AIME|IMO|ISL|USAMO|USAJMO|USAMTS|HMMT|PUMaC|CMIMC|BMT|SMT|BMO|APMO|EGMO|CMO|Putnam|MATHCOUNTS"
    r"|Mathcounts|Kangaroo|CEMC|UKMT|Olympiads?|Olympics|Contest|Competition|Tournament|Championship|Cup|Exam(?:ination)?|Test"
    r"|Shortlist|Longlist|TST|Round|Problem|Question|SAT|GRE|GMAT|Gaokao"
    r"|高考|中考|竞赛|联赛|模拟|真题|考试|期末|期中|[省市县区卷题]|·)"
)
_YEAR = r"(?:19|20)\d\d"
_HEADINGS = tuple(map(re.compile, (
    r"[\W_]{0,3}(?:[Ee]xample|[Pp]roblem|[Qq]uestion|[Ee]xercise|[Tt]ask|[Pp]uzzle|[Ii]tem|EXAMPLE|PROBLEM|QUESTION"
    r"|Prob|Ex|Q|No|№|#"
    r"|例题?|题目?|问题|练习|习题|第)[ .]{0,2}#?\d{1,4}(?:[.-]\d{1,3}){0,2} ?(?:题|問|問題)?"
    rf"(?:[.:)：、．]|\s-|\s—|\s–)*\s*{_NEXT}",
    r"\W{0,4}(?:Problem|Question|Exercise|Task|Instructions?|Input|User|Human|Q|题目|问题|试题|解答题|填空题|应用题|計算題|问)\W{0,3}[:：】]\W{0,4}(?=\S)",
    rf"\(?\d{{1,3}}(?:\.\d{{1,3}}){{0,2}}(?:[.)：、．]|\s?[-—–]\s)(?!\d)(?:\s+|(?=[^\x00-\x7f])){_NEXT}",
    rf"{_OPEN}[^()\[\]\n]{{0,12}}?\d{{1,3}} ?(?:points?|pts?\.?|marks?|credits?|分){_CLOSE}[\s.:]*",
    rf"{_OPEN}(?=[^()\n]*{_YEAR})(?=[^()\n]*{_CONTEST})[^()\n]{{4,80}}?{_CLOSE}[\s.:]*",
    rf"(?:{_YEAR} )?(?:[A-Z]\w+ ){{0,3}}{_CONTEST}\b[^.:\n]{{0,40}}\d[^.:\n ]{{0,8}}[.:] ?{_NEXT}",
    r"[★☆*•▪■◆]+\s*",
)))  # fmt: skip
_HEADED = re.compile(rf"[A-Z][a-z]*\.? ?#?\d|[A-Za-z]{{1,12}} ?[:：\n]|[^\x00-\x7f]|(?:[A-Z]\w+ ){{0,3}}{_CONTEST}")
_ENDINGS = tuple(map(re.compile, (
    rf"\s*{_OPEN}[^()\[\]\n]{{0,12}}?\d{{1,3}} ?(?:points?|pts?\.?|marks?|credits?|分){_CLOSE}\s*$",
    rf"\s*{_OPEN}(?=[^()\n]*{_YEAR})(?=[^()\n]*{_CONTEST})[^()\n]{{4,80}}?{_CLOSE}\s*$",
    r"\s+[#*\s]{0,4}(?:Answer|Solution|Response|Assistant|A|答案|解答|解|答)\W{0,3}[:：]?\W{0,3}$(?<=[:：#*])",
)))  # fmt: skip
_INSTRUCTION = re.compile(
    r"\bstep[- ]by[- ]step\b|\\+boxed\s*\{ ?\}|\b(?:last|final) line of your\b|^you are an? \w+"
    r"|\byour (?:final )?(?:answer|response|solution|reasoning|work|steps)\b"
    r"(?=.*\b(?:within|in|inside|on|should|of the form|format|line|show|give|enclose|box)\b)"
    r"|^solve (?:the|this) (?:following )?(?:\w+ )?(?:problem|question)\b"
    r"|\bshow (?:all )?(?:of )?your (?:work|steps|reasoning|working)\b|^(?:please )?(?:answer"
    r"|solve) the following\b(?=.*:)|"
    r"\bfinal answer (?:within|in|inside|after)\b|逐步|一步一步|一步步|最终答案|方框|写出(?:解题|解答|计算)?过程"
    r"|ステップ|단계별",
    re.IGNORECASE,
)
_INSTRUCTS = ("step", "boxed", "your", "you are a", "solve", "answer",
              "逐步", "一步", "最终答案", "方框", "写出", "ステップ", "단계별")  # fmt: skip
_FIRST = re.compile(r"[^.!?。！？\n]{4,400}(?:[.!?。！？]+(?:\s+|(?<=[。！？])|$)|\n+)")
_LAST = re.compile(
    r"(?<=[.!?。！？\n])\s*([^.!?。！？\n]{4,300}(?:\\boxed\s*\{\s*\})?[^.!?。！？\n]{0,80}[.!?。！？]*)\s*$"
)
_FENCED = re.compile(
    r"^(?:<\|[^|<>]{1,30}\|>\s*|#{1,4}\s+\w[\w ]{0,20}:?\s*\n\s*)+"
    r"|\s*(?:<\|[^|<>]{1,30}\|>|\n#{1,4}\s+\w[\w ]{0,20}:?)\s*$"
)


def bare(text: str) -> str:
    """A problem without its number, points, source and instructions; unchanged if nothing else is left."""
    left = text.strip()
    for _ in range(4):
        before = left
        if left.startswith(("#", "<|")) or left[-40:].rfind("\n#") >= 0 or left.endswith("|>"):
            left = _FENCED.sub("", left)
        if not left[:1].isalpha() or _HEADED.match(left):
            for pattern in _HEADINGS:
                if match := pattern.match(left):
                    left = left[match.end() :]
        if (match := _FIRST.match(left)) and _instructs(match[0]):
            left = left[match.end() :]
        left = _tail_cut(left).strip()
        if left == before:
            break
    return left if len(left) > 3 else text


def _tail_cut(text: str) -> str:
    head, tail = text[:-400], text[-400:]
    if tail.endswith((")", "]", "】", "）", ":", "：", "*", "#")):
        for pattern in _ENDINGS:
            tail = pattern.sub("", tail)
    if _may_instruct(tail) and (match := _LAST.search(tail)) and _instructs(match[1]):
        tail = tail[: match.start()]
    return head + tail


def _instructs(sentence: str) -> bool:
    """Whether a sentence tells how to answer, and nothing about the problem: it has no number."""
    return _may_instruct(sentence) and not re.search(r"\d", sentence) and bool(_INSTRUCTION.search(sentence.strip()))


def _may_instruct(text: str) -> bool:
    lower = text.lower()
    return any(word in lower for word in _INSTRUCTS)
