r"""SFT data by rejection sampling: keeps the right and well-formed responses of teachers and of the row itself.

A response is dropped for the first of these that is true of it; the row goes on with the others, maybe none.

    prompt too long        there was no room for a response (reported once per teacher)
    truncated              cut by the token limit
    think tags             other than one pair at the start of the response, of another kind, or around nothing; none is
                           fine unless they are required
    chat tokens            of any template, or another speaker's turn; code aside
    truncated              what follows the thought is empty, or ends within a code fence, a \boxed{ or a sentence
    refusal, two answers, quotes the reference
    too short, too long    in characters
    repetition             too many of its words lie in a passage of WINDOW words that occurred twice before (once is a
                           check), or one after the other in passages that only count; thought and answer are checked
                           apart, since an answer may repeat a result of the thought
    mixed language         too many letters of a script that the problem does not use, code, formulas and a name aside
    wrong                  according to the verifier; `not verifiable` if that failed
    duplicate              equal to an earlier one except for white space
    more than asked for    beyond `most`, or not the shortest
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from ringrl.config.data import DataConfig, Distil
from ringrl.curate.chain import MapShards
from ringrl.curate.grade import TOO_LONG, UNVERIFIABLE
from ringrl.curate.shards import Dropped, Row, Shards
from ringrl.curate.verdicts import RowVerdicts, StoredVerdict, TeacherAnswers, Verdicts
from ringrl.data.messages import THINK, THOUGHT
from ringrl.rewards.answers import after_thinking
from ringrl.rollout.respond import NO_ROOM

WINDOW = 32  # words, signs and digit groups; a derivation may repeat shorter passages
COUNTED = 25  # passages in a row that differ only in a number that counts; a list of as many things is shorter
NAME_LETTERS = 4  # letters of the longest foreign name
FOREIGN = 0.005  # tolerated share of letters: a word or two in a long thought
FOREIGN_LATIN = 0.1  # higher, since names and terms are in Latin letters everywhere
PASS = ("pass", "", 1.0)  # verdict on every response when nothing is judged

_CJK = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_TOKEN = re.compile(rf"[{_CJK}\u3040-\u30ff\uac00-\ud7af]|[^\W\d_]{{1,20}}|\d{{1,3}}|[^\s\w]|_")
_SCRIPTS = {  # Greek is left out: its letters are mathematics
    "Latin": re.compile(r"(?<![A-Za-zÀ-ɏ])[A-Za-zÀ-ɏ]{3,}"),  # shorter runs are variables
    "Han": re.compile(f"[{_CJK}]+"),
    "Kana": re.compile("[\u3040-\u30ff]+"),
    "Hangul": re.compile("[\u1100-\u11ff\uac00-\ud7af]+"),
    "Cyrillic": re.compile("[\u0400-\u052f]+"),
    "Hebrew": re.compile("[\u0590-\u05ff]+"),
    "Arabic": re.compile("[\u0600-\u06ff\u0750-\u077f]+"),
    "Indic": re.compile("[\u0900-\u0dff]+"),
    "Thai": re.compile("[\u0e00-\u0e7f]+"),
}
_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`", re.DOTALL)
_OTHER_TAGS = re.compile(
    r"</?(?:thinking|thoughts?|reasoning|reflection|scratchpad|analysis|reason|plan|inner_?monologue|seed:think|think\w+)>",
    re.IGNORECASE,
)
_CHAT = re.compile(
    r"<\|[\w:./ -]{1,40}\|>|<｜[^｜<>]{1,40}｜>|</?s>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_(?:turn|text)>"
    r"|<(?:eos|bos|pad|unk)>"
    r"|<\|(?:im|endoftext|eot)\w*|^(?:Human|User|Assistant|用户|助手) ?[:：]",
    re.MULTILINE,
)
_REFUSAL = re.compile(
    r"\bas an ai(?: language)?(?: model| assistant)?\b|\bi(?:'m| am) (?:sorry|unable),? (?:but )?(?:i |to )"
    r"|\bi (?:cannot|can't|can not) "
    r"(?:help|assist|answer|solve|provide|comply)\b|作为(?:一个)?(?:ai|人工智能|语言模型)",
    re.IGNORECASE,
)
_REFERENCE = re.compile(
    r"\b(?:reference|ground[- ]truth|gold(?:en)?|provided|given|expected|official|target) (?:final )?(?:answer"
    r"|solution|label)(?: key)?"
    r"(?: (?:that |which )?(?:is|was|given|provided|says|states|i was))\b|\bground[- ]truth\b|\bthe answer key\b"
    r"|\banswer (?:i was|given to me|provided to me|in the prompt)\b"
    r"|\b(?:i|we) (?:must|need to|should|have to) (?:output|match|arrive at|end (?:up )?with) (?:the )?(?:given"
    r"|expected|reference|provided|correct)?"
    r" ?(?:answer|solution)\b|参考答案|标准答案是|给定的答案",
    re.IGNORECASE,
)
_EITHER = re.compile(r"\\boxed\s*\{([^{}]*)\}[\s.,]{0,3}(?:or|or maybe|或者?)\s[^\\]{0,20}\\boxed\s*\{([^{}]*)\}")
_OPEN_END = re.compile(
    r"[\s,](?:the|a|an|of|and|that|to|in|we|with|for|by|so|because|which|then|this|can|be|or|as|if|where|when|from|is|are|but)\s*$|[,;(=+]\s*$"
)
_NO_NAME = re.compile("[的是我们所以因为但这那然后就不了有在和可以因此如果等于则得到吗]")
_FENCE = re.compile(r"^[ \t>]*```", re.MULTILINE)
_BOX = re.compile(r"\\boxed\s*\{|\\[{}]|[{}]")
_NO_LANGUAGE = re.compile(
    r"```.*?(?:```|\Z)|`[^`\n]*`|\$\$.{0,2000}?\$\$|\$[^$\n]*\$|\\\[.{0,2000}?\\\]|\\\(.{0,2000}?\\\)|\\[A-Za-z]+|https?://\S+|</?think>",
    re.DOTALL,
)


def prepare(cfg: DataConfig, before: Shards, after: Shards, over: MapShards) -> Filter:
    """Raises RingError when the verifier fails too often."""
    store = Verdicts(after, tuple(t.name for t in cfg.distil.teachers), cfg.verify, cfg.known_domains, own=True)
    if cfg.distil.verify:
        store.judge(before, over, "distil: verdicts")
    return Filter(store, cfg.distil)


@dataclass(frozen=True)
class Filter:
    """The step."""

    store: Verdicts
    cfg: Distil

    def __call__(self, shard: int, rows: Sequence[Row]) -> Iterable[Row | Dropped]:
        if self.cfg.verify:
            judged: Iterable[tuple[Row, TeacherAnswers, RowVerdicts]] = self.store.judged(shard, rows)
        else:
            judged = ((row, by_teacher, {}) for row, by_teacher in self.store.answers(shard, rows))
        for row, by_teacher, verdicts in judged:
            responses = [
                ({"teacher": name, **answer}, verdicts[name][n] if self.cfg.verify else PASS)
                for name, answers in by_teacher.items()
                for n, answer in enumerate(answers)
            ]
            yield from self.filtered(row, responses)

    def filtered(self, row: Row, responses: Sequence[tuple[Row, StoredVerdict]]) -> Iterator[Row | Dropped]:
        """Yields every dropped response, then the row with the others. `responses` come with their verdicts."""
        right: list[Row] = []
        texts: set[str] = set()
        refused: set[str] = set()  # teachers whose prompt has no room for a response
        problem_scripts = scripts(row["problem"])
        for response, verdict in responses:
            if response.get("finish") == NO_ROOM:
                if response["teacher"] not in refused:
                    yield _dropped(row, {**response, "text": ""}, TOO_LONG, response["text"])
                refused.add(response["teacher"])
                continue
            same = " ".join(response["text"].split())
            fault = self.fault(response, problem_scripts) or _judged(*verdict) or (same in texts and ("duplicate", ""))
            if fault:
                yield _dropped(row, response, *fault)
            else:
                right.append(response)
                texts.add(same)
        chosen = self.chosen(right)
        for n in (n for n in range(len(right)) if n not in chosen):
            yield _dropped(row, right[n], "more than asked for", f"{len(chosen)} of {len(right)} are kept")
        kept = [{k: v for k, v in right[n].items() if k != "finish"} for n in chosen]
        yield {**row, "responses": kept}

    def fault(self, response: Row, problem_scripts: Mapping[str, float]) -> tuple[str, str] | None:
        """(reason, detail) of the first flaw in the form of a response, or None."""
        text, cfg = response["text"], self.cfg
        if response.get("finish") == "length":
            return "truncated", f"after {response['length']} tokens"
        if detail := unbalanced(text, cfg.think == "required"):
            return "think tags", detail
        if match := _CHAT.search(prose := _CODE.sub(" ", text)):
            return "chat tokens", match[0]
        if detail := unfinished(after_thinking(text)):
            return "truncated", detail
        if fault := _spoilt(prose, after_thinking(prose)):
            return fault
        if not cfg.min_chars <= len(text) <= cfg.max_chars:
            return "too short" if len(text) < cfg.min_chars else "too long", f"{len(text)} characters"
        if (share := max(repetition(text), counting(text))) > cfg.repetition:
            return "repetition", f"{share:.0%} of its words"
        if (detail := mixed(scripts(text), problem_scripts)) and not only_names(text):
            return "mixed language", detail
        return None

    def chosen(self, right: Sequence[Row]) -> list[int]:
        """Indices of the responses to keep, in order."""
        if self.cfg.keep == "all":
            return list(range(len(right)))[: self.cfg.most or None]
        by_length = sorted(range(len(right)), key=lambda n: len(right[n]["text"]))
        return sorted(by_length[: self.cfg.most or 1])


def _spoilt(text: str, answer: str) -> tuple[str, str] | None:
    """A response that no reader should learn from, though its answer may be right."""
    if match := _REFUSAL.search(answer):
        return "refusal", match[0]
    if (match := _EITHER.search(answer)) and match[1] != match[2]:
        return "two answers", match[0]
    if match := _REFERENCE.search(text):
        return "quotes the reference", match[0]
    return None


def _judged(kind: str, why: str, _: float) -> tuple[str, str] | None:
    return None if kind == "pass" else (UNVERIFIABLE if kind == "error" else "wrong", why)


def _dropped(row: Row, response: Row, reason: str, detail: str) -> Dropped:
    origin = {k: row[k] for k in ("id", "source", "domain", "problem")}
    return Dropped({**origin, "response": response["text"], "teacher": response["teacher"]}, reason, {"detail": detail})


def unbalanced(text: str, required: bool) -> str:
    """What is wrong with the think tags of a response, or ""."""
    if match := _OTHER_TAGS.search(_CODE.sub(" ", text)):
        return match[0]
    pairs = text.count(THINK), text.count(THOUGHT)
    if pairs == (0, 0):
        return "there are none" if required else ""
    if pairs != (1, 1):
        return f"{pairs[0]} open, {pairs[1]} close"
    if not text.lstrip().startswith(THINK):
        return "the thought is not at the beginning"
    return "" if text.partition(THOUGHT)[0].replace(THINK, "").strip() else "the thought is empty"


def unfinished(answer: str) -> str:
    """What is missing at the end of an answer, the text after the thought, or ""."""
    if not answer.strip():
        return "no answer"
    if len(_FENCE.findall(answer)) % 2:
        return "a code fence is open"
    braces: list[str] = []
    for token in _BOX.findall(answer):
        if token[-1] == "{" and token != r"\{":
            braces.append(token)
        elif token == "}" and braces:
            braces.pop()
    if any(len(b) > 1 for b in braces):
        return "a box is open"
    return f"ends with {answer.rstrip()[-20:]!r}" if _OPEN_END.search(answer.rstrip()) and " " in answer.strip() else ""


def repetition(text: str) -> float:
    """Share of the words that lie in a passage of WINDOW words seen twice before, thought and answer apart."""
    covered = total = 0
    for part in text.split(THOUGHT):
        numbers: dict[str, int] = {}
        words = [numbers.setdefault(w, len(numbers)) for w in _TOKEN.findall(part)]
        windows = Counter[tuple[int, ...]]()
        end = 0  # everything before this index is counted
        for i in range(len(words) - WINDOW + 1):
            window = tuple(words[i : i + WINDOW])
            if windows[window] > 1:
                covered += i + WINDOW - max(i, end)
                end = i + WINDOW
            windows[window] += 1
        total += len(words)
    return covered / total if total else 0.0


def counting(text: str) -> float:
    """Share of the words in the longest run of COUNTED passages or more that only count: one number, which goes up."""
    words = _TOKEN.findall(text)
    at = [i for i, word in enumerate(words) if word.isdecimal()]
    gaps = [(int(words[j]) - int(words[i]), tuple(words[i + 1 : j])) for i, j in pairwise(at)]
    longest = run = start = 0
    for n, (step, gap) in enumerate(gaps):
        same = step == 1 and len(gap) > 2 and n > start and gap == gaps[n - 1][1]
        run, start = (run, start) if same else (0, n)
        run += at[n + 1] - at[n]
        if n - start >= COUNTED:
            longest = max(longest, run)
    return longest / len(words) if words else 0.0


def scripts(text: str) -> dict[str, float]:
    """Share of the letters by script, {} without letters; code and formulas do not count."""
    prose = _NO_LANGUAGE.sub(" ", text)
    counts = {name: sum(map(len, pattern.findall(prose))) for name, pattern in _SCRIPTS.items()}
    total = sum(counts.values())
    return {name: n / total for name, n in counts.items() if n}


def only_names(text: str) -> bool:
    """Whether all that is not Latin is a name or two: few letters, none of the words that hold sentences together."""
    prose = _NO_LANGUAGE.sub(" ", text)
    runs = {run for name, pattern in _SCRIPTS.items() if name != "Latin" for run in pattern.findall(prose)}
    return 0 < len(runs) < 3 and all(len(run) <= NAME_LETTERS and not _NO_NAME.search(run) for run in runs)


def mixed(response: Mapping[str, float], problem: Mapping[str, float]) -> str:
    """Scripts foreign to the problem that a response has too much of; any main script is fine without words in it."""
    limits = {"Latin": FOREIGN_LATIN}
    used = {s for s, share in problem.items() if share > limits.get(s, FOREIGN)} or {
        max(response, key=response.__getitem__, default="")
    }
    foreign = [s for s, share in response.items() if s not in used and share > limits.get(s, FOREIGN)]
    return ", ".join(f"{response[s]:.1%} of its letters are {s}" for s in foreign)
