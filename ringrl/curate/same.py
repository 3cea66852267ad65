"""Whether two texts of similar words ask the same, which a similarity alone cannot tell.

The texts are aligned word by word, sentences in whatever order. They differ in meaning if the numbers differ or stand
in another order, if a sign of a formula or a word that turns the question (`TURNING`: maximum and minimum, sine and
cosine, hours and days) is another one, a negation is more or less, or no renaming of letters and people makes them
one: "solve for T" and "solve for V". If nobody knows whether the answers agree, or if numbers could be hidden in words
of a language that is not known here, words may be spelled otherwise or added, but not replaced.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from ringrl.curate.text import canonical, is_number, is_variable, people, valued, words

MAX_WORDS = 3000  # longer texts are compared without being aligned
ADDED = 0.15  # largest share of words that one text may have more, if the answers are not known to agree
MOVED = 8  # words of the shortest passage that may stand elsewhere
ALIKE = 0.8  # similarity of two spellings of one word
_SENTENCE = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])|\n+")
_CJK = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


_ENGLISH = _set("""
    there such that let be all which when where from number value than both each if real positive integer integers point
    the a an of and is are to in how many much what find if for with that has have it he she at on by
""")
NEGATIONS = _set("""
    not no never without except non nor neither none cannot dont doesnt isnt arent wont cant 不 没 無 无 非 未
""")
TURNING = _set("""
    maximum minimum max min maximal minimal largest smallest greatest least most fewest more fewer less lower higher
    taller shorter longer older younger heavier lighter bigger smaller tallest shortest longest oldest youngest
    heaviest lightest biggest highest lowest faster slower fastest slowest cheapest before after first last
    increasing decreasing increase decrease increased decreased even odd positive negative nonnegative nonpositive
    sum product difference quotient remainder average mean median mode total area perimeter volume circumference
    radius diameter length width height depth hypotenuse side edge face vertex angle sin cos tan cot sec csc arcsin
    arccos arctan sinh cosh tanh log ln exp left right top bottom up down north south east west inside outside add
    subtract multiply divide added subtracted multiplied divided plus minus times real imaginary complex rational
    irrational prime composite and or all some any exactly inscribed circumscribed numerator denominator bought sold
    buy sell gain loss profit cost revenue won lost win lose gained boy girl man woman male female adult child
    second minute hour day week month year decade century inch foot feet yard mile meter centimeter millimeter
    kilometer gram kilogram milligram pound ounce ton liter milliliter gallon pint quart dollar cent degree radian
    percent fraction ratio monday tuesday wednesday thursday friday saturday sunday january february march april may
    june july august september october november december bar hat vec overline floor lfloor lceil cup cap subset
    supset ascending descending convex concave domain range open closed horizontal vertical row column union
    intersection begin end start used remain remaining
    大 小 多 少 和 差 积 商 正 负 奇 偶 甲 乙 丙 丁 男 女 长 宽 高 深 上 下 左 右 前 后 加 减 乘 除 米 分
    秒 时 天 周 月 年 元 角 面 体 快 慢 增 减 余 根 首 末
""")
_SHORT = {
    "min": "minute", "mins": "minute", "h": "hour", "hr": "hour", "hrs": "hour", "sec": "second", "secs": "second",
    "s": "second", "km": "kilometer", "kilometre": "kilometer", "m": "meter", "metre": "meter", "cm": "centimeter",
    "centimetre": "centimeter", "mm": "millimeter", "millimetre": "millimeter", "kg": "kilogram", "g": "gram",
    "mg": "milligram", "lb": "pound", "lbs": "pound", "oz": "ounce", "ft": "foot", "feet": "foot", "in": "inch",
    "inches": "inch", "yd": "yard", "mi": "mile", "l": "liter", "litre": "liter", "ml": "milliliter",
    "millilitre": "milliliter", "usd": "dollar", "buck": "dollar", "wk": "week", "yr": "year", "men": "man",
    "women": "woman", "children": "child", "vertices": "vertex", "maths": "math",
}  # fmt: skip


def asks_the_same(one: str, two: str, agreed: bool) -> bool:
    """Whether two texts are one problem, as far as that can be seen.

    Args:
        one, two: problems without headings and instructions, of similar words.
        agreed: whether their answers are known to be equal.
    """
    agreed = agreed and _counts_are_known(one) and _counts_are_known(two)
    if _is_caseless(one) != _is_caseless(two):
        one, two = one.lower(), two.lower()
    named = (people(one) | people(two)) - TURNING
    left, right = _sentences(one), _sentences(two)
    a, b = _flat(left), _flat(right)
    if max(len(a), len(b)) > MAX_WORDS:
        return list(filter(is_number, a)) == list(filter(is_number, b))
    if _agree(a, b, agreed, named):
        return True
    return min(len(left), len(right)) > 1 and _agree(a, _flat(_in_order_of(left, right)), agreed, named)


def _is_caseless(text: str) -> bool:
    """Whether somebody wrote everything but formulas in small letters."""
    prose = re.sub(r"\$[^$]*\$|\\\(.*?\\\)|\\\[.*?\\\]", " ", text, flags=re.DOTALL)
    return prose == prose.lower()


def _counts_are_known(text: str) -> bool:
    """Whether a text is English, Chinese or Japanese, whose words for numbers `curate.text` reads."""
    if _CJK.search(text):
        return True
    found = re.findall(r"[^\W\d_]{2,}", re.sub(r"\\[a-zA-Z]+", " ", text.lower()))
    return len(found) < 4 or sum(word in _ENGLISH for word in found) > 0.1 * len(found)


def _sentences(text: str) -> list[list[str]]:
    return [tokens for part in _SENTENCE.split(text) if (tokens := words(part))]


def _flat(sentences: Iterable[Sequence[str]]) -> list[str]:
    return valued([token for sentence in sentences for token in sentence])


def _in_order_of(left: Sequence[list[str]], right: Sequence[list[str]]) -> list[list[str]]:
    """The sentences of `right`, each where its likest in `left` is, numbers aside; the others at the end."""
    bags = [{t for t in canonical(sentence) if not is_number(t)} for sentence in right]
    rest = list(range(len(right)))
    out = []
    for sentence in left:
        own = {t for t in canonical(sentence) if not is_number(t)}
        best = max(rest, key=lambda n: (len(own & bags[n]) / (len(own | bags[n]) or 1), -n), default=None)
        if best is not None and 2 * len(own & bags[best]) >= len(own):
            rest.remove(best)
            out.append(right[best])
    return [*out, *(right[n] for n in rest)]


def _agree(a: Sequence[str], b: Sequence[str], agreed: bool, named: set[str]) -> bool:
    one, two = ([_class(token, named) for token in tokens] for tokens in (a, b))
    renamed: list[tuple[str, str]] = []
    added = 0
    gone, come = Counter[tuple[str, ...]](), Counter[tuple[str, ...]]()
    for kind, i, j, k, m in difflib.SequenceMatcher(None, one, two, autojunk=False).get_opcodes():
        if kind == "equal":
            renamed += zip(a[i:j], b[k:m], strict=True)
            continue
        left, right = a[i:j], b[k:m]
        if kind != "replace" and len(left) + len(right) >= MOVED:
            gone[tuple(left)] += bool(left)
            come[tuple(right)] += bool(right)
            continue
        if _signs(left, a, i) != _signs(right, b, k):
            return False
        more = _other_words(left, right, named, agreed)
        if more is None:
            return False
        added += more
    for part in [*(gone - come), *(come - gone)]:  # what was not only moved
        more = _other_words(part, (), named, agreed) if part else 0
        if more is None or (part and _signs(part, part, 0)):
            return False
        added += more
    return (agreed or added <= max(2, ADDED * min(len(a), len(b)))) and _is_renaming(renamed, named)


def _class(token: str, named: set[str]) -> str:
    if is_variable(token):
        return "v"
    return "N" if token in named else token


def _signs(part: Sequence[str], whole: Sequence[str], start: int) -> list[str]:
    """Numbers, operators, brackets and variables, without dashes between words."""
    out = []
    for n, token in enumerate(part, start):
        if token == "one":
            out.append("1")
        elif token == "-":
            around = [*whole[max(0, n - 1) : n], *whole[n + 1 : n + 2]]
            if not all(len(t) > 1 and t.isalpha() for t in around):
                out.append(token)
        elif is_number(token) or not (token[0].isalnum() or len(token) > 2):
            if token != ",":
                out.append(token)
        elif is_variable(token) and token not in ("i", *_SHORT):
            out.append("v")
    return out


def _other_words(left: Sequence[str], right: Sequence[str], named: set[str], agreed: bool) -> int | None:
    """How many words one side has more, None if the difference matters."""
    own, other = (Counter(map(_root, filter(str.isalpha, part))) for part in (left, right))
    own, other = own - other, other - own
    if any((own + other)[word] for word in NEGATIONS):
        return None
    gone, new = ({word for word in side if word in TURNING} for side in (own, other))
    if (gone and new) or (not agreed and (gone or new)):
        return None
    if agreed:
        return 0
    rest = [word for word in own if word not in _ENGLISH]
    fresh = [word for word in other if word not in _ENGLISH]
    for word in list(rest):
        twin = next((w for w in fresh if _alike(word, w) or (word in named and w in named)), None)
        if twin is not None:
            rest.remove(word)
            fresh.remove(twin)
    return None if rest and fresh else len(rest) + len(fresh)


def _root(word: str) -> str:
    """A word without its plural, and units in full."""
    word = _SHORT.get(word, word)
    if len(word) > 3 and word.endswith("s") and not word.endswith("ss"):
        word = _SHORT.get(word[:-1], word[:-1])
    return word


def _alike(one: str, two: str) -> bool:
    """Whether two words are one in other spelling: colour and color, earns and a scan's eams."""
    one, two = one.replace("rn", "m"), two.replace("rn", "m")
    if one == two:
        return True
    return min(len(one), len(two)) > 4 and difflib.SequenceMatcher(None, one, two, autojunk=False).ratio() >= ALIKE


def _is_renaming(pairs: Iterable[tuple[str, str]], named: set[str]) -> bool:
    """Whether letters were renamed one for one, and people at least in one direction."""
    forth: dict[str, set[str]] = defaultdict(set)
    back: dict[str, set[str]] = defaultdict(set)
    for one, two in pairs:
        if one in named or is_variable(one):
            forth[one].add(two)
            back[two].add(one)
    letters = [len(to) for sides in (forth, back) for name, to in sides.items() if name not in named]
    people = [max((len(to) for name, to in sides.items() if name in named), default=1) for sides in (forth, back)]
    return max(letters, default=1) == 1 and min(people) == 1
