r"""Which of a set of known problems a text repeats, in whole or in part.

Two measures, both shares of the known problem, so that it may stand anywhere in a longer text, and both over canonical
words (`curate.text`), so that typesetting and the names of variables do not matter:

    n-grams      share of its words that lie in runs of n words which the text has, too
    similarity   share of its runs of CHARS characters, weighted by ln((N + 1) / df), that occur in one passage of the
                 text at most WIDER times as long as the problem; df of the N problems have the run

Boilerplate is no evidence ("where m and n are relatively prime positive integers"): a run of words in more than COMMON
different problems counts neither way; for runs of characters the weights take care of it. A problem with fewer than
n words is one n-gram. One with fewer than SHORTEST matches only a text that consists of nothing else.

The index is exact: no pair above the thresholds is missed. Rare runs of characters propose a pair, all runs decide
(prefix filtering: Chaudhuri et al. 2006, Bayardo et al. 2007). Runs are compared by 64-bit hashes.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from ringrl.curate.runs import TextItems, sorted_set
from ringrl.curate.text import canonical, words

COMMON = 2  # a run of words in more problems than this is boilerplate
SHORTEST = 5  # words in the shortest problem that is recognised within a longer text
CHARS = 5  # characters per run

WIDER = 2  # length of a passage relative to the problem
FEW, FEW_SHARE = 40, 0.9  # with fewer runs a problem needs this share: a changed number is much of it
PROPOSED = 0.1  # share of a problem's weight in rare runs that proposes a text
CELLS = 4_000_000  # texts times problems per batch
BATCH_CHARS = 250_000  # characters per batch


@dataclass(frozen=True, slots=True)
class Match:
    """A known problem in a text."""

    problem: int  # number in the index
    share: float
    at: int  # index of the problem's word where the first common run begins; -1 for a match by characters

    @property
    def near(self) -> bool:
        """Whether it was found by similarity, not by n-grams."""
        return self.at < 0

    @property
    def rank(self) -> tuple[bool, float, int]:
        """Sorts matches; the smallest is the best."""
        return self.near, -self.share, self.problem


@dataclass(frozen=True)
class Texts:
    """Canonical words and characters of texts."""

    tokens: list[list[str]]
    words: TextItems
    chars: TextItems

    @staticmethod
    def of(texts: Sequence[str]) -> Texts:
        tokens = [canonical(words(text)) for text in texts]
        return Texts(tokens, TextItems.words(tokens), TextItems.chars(map("".join, tokens)))


@dataclass(frozen=True)
class OverlapIndex:
    """The known problems, indexed: P problems, G runs of words that are evidence, V runs of characters."""

    ngram: int
    share: float
    threshold: float
    gram_keys: np.ndarray  # [G] uint64, sorted; one entry per occurrence of a run
    gram_problem: np.ndarray  # [G]
    gram_at: np.ndarray  # [G] index of its first word in the problem
    gram_words: np.ndarray  # [P] words per run
    counts: np.ndarray  # [words] bool: the word lies in evidence and not in boilerplate
    counts_from: np.ndarray  # [P + 1]
    char_keys: np.ndarray  # [V] uint64, sorted
    weight: np.ndarray  # [V] float64
    own: np.ndarray  # runs of characters of each problem, ascending, one problem after the other
    own_from: np.ndarray  # [P + 1]
    total: np.ndarray  # [P] weight of all runs of the problem
    length: np.ndarray  # [P] characters in the problem
    rare: np.ndarray  # problems that a rare run proposes, one run after the other
    rare_from: np.ndarray  # [V + 1]

    @staticmethod
    def build(texts: Sequence[str], ngram: int, share: float, threshold: float) -> OverlapIndex:
        """Indexes at least one text, all with different canonical words."""
        data = Texts.of(texts)
        sizes = np.array([len(t) for t in data.tokens])
        grams = _evidence(data, sizes, np.minimum(sizes, ngram))
        return OverlapIndex(ngram, share, threshold, *grams, *_characters(data, sizes, threshold))

    def save(self, path: Path) -> None:
        with path.open("wb") as file:
            np.savez(file, **{f.name: getattr(self, f.name) for f in fields(self)})

    @staticmethod
    def load(path: Path) -> OverlapIndex:
        with np.load(path) as arrays:
            values = {name: arrays[name] for name in arrays}
        return OverlapIndex(**{k: v.item() if v.ndim == 0 else v for k, v in values.items()})

    def __post_init__(self) -> None:
        object.__setattr__(self, "_grams", _Sorted(self.gram_keys))
        object.__setattr__(self, "_chars", _Sorted(self.char_keys))

    def find(self, texts: Sequence[str]) -> list[list[Match]]:
        """Known problems in each text, best first: matches by n-grams, then matches by similarity of problems without
        one."""
        out: list[list[Match]] = []
        for batch in self._batches(texts):
            data = Texts.of(batch)
            matches: list[list[Match]] = [[] for _ in batch]
            for text, match in self._by_words(data):
                matches[text].append(match)
            for text, match in self._by_characters(data):
                if not any(m.problem == match.problem for m in matches[text]):
                    matches[text].append(match)
            out += [sorted(m, key=lambda match: match.rank) for m in matches]
        return out

    def _batches(self, texts: Sequence[str]) -> Iterator[Sequence[str]]:
        most = max(1, CELLS // len(self.length))
        begin = chars = 0
        for i, text in enumerate(texts):
            chars += len(text)
            if i > begin and (chars > BATCH_CHARS or i - begin >= most):
                yield texts[begin:i]
                begin, chars = i, len(text)
        if texts:
            yield texts[begin:]

    def _by_words(self, data: Texts) -> Iterator[tuple[int, Match]]:
        shared_words: dict[tuple[int, int], set[int]] = defaultdict(set)  # (text, problem) -> words in common
        for n in np.unique(self.gram_words).tolist():
            keys, begins = data.words.runs(n)
            hits, firsts = self._grams.look_up(keys)  # type: ignore[attr-defined]
            for hit, first in zip(hits.tolist(), firsts.tolist(), strict=True):
                text = int(data.words.owner[begins[hit]])
                for g in range(first, int(np.searchsorted(self.gram_keys, keys[hit], "right"))):
                    problem, at = int(self.gram_problem[g]), int(self.gram_at[g])
                    if self.gram_words[problem] == n and (n >= SHORTEST or len(data.tokens[text]) == n):
                        shared_words[text, problem].update(range(at, at + n))
        for (text, problem), common in shared_words.items():
            counts = self.counts[self.counts_from[problem] : self.counts_from[problem + 1]]
            share = float(counts[sorted(common)].sum() / max(1, counts.sum()))
            if share >= self.share:
                yield text, Match(problem, share, min(common))

    def _by_characters(self, data: Texts) -> Iterator[tuple[int, Match]]:
        keys, begins = data.chars.runs(CHARS)
        hits, slots = self._chars.look_up(keys)  # type: ignore[attr-defined]
        begins = begins[hits]
        texts = data.chars.owner[begins]
        pairs = sorted_set(texts * len(self.char_keys) + slots)  # each run once per text
        text_of, slot_of = np.divmod(pairs, len(self.char_keys))
        for text, problem in self._proposed(len(data.tokens), text_of, slot_of):
            own = self.own[self.own_from[problem] : self.own_from[problem + 1]]
            unique_runs = slice(*np.searchsorted(text_of, [text, text + 1]))
            wanted = FEW_SHARE if len(own) < FEW else self.threshold
            share = self.weight[own[_isin(own, slot_of[unique_runs])]].sum() / self.total[problem]
            if share < wanted:
                continue
            all_runs = slice(*np.searchsorted(texts, [text, text + 1]))
            common = _isin(slots[all_runs], own)
            width = WIDER * int(self.length[problem])
            at, which = begins[all_runs][common], slots[all_runs][common]
            if at[-1] - at[0] > width:
                share = _densest(at.tolist(), which.tolist(), self.weight[which].tolist(), width) / self.total[problem]
            if share >= wanted:
                yield text, Match(problem, min(1.0, float(share)), -1)

    def _proposed(self, texts: int, text_of: np.ndarray, slot_of: np.ndarray) -> Iterator[tuple[int, int]]:
        """(text, problem) pairs with enough rare runs of characters in common."""
        owners = self.rare_from[slot_of + 1] - self.rare_from[slot_of]
        text = np.repeat(text_of, owners)
        problem = self.rare[_ranges(self.rare_from[slot_of], owners)]
        cells = text * len(self.length) + problem
        have = np.bincount(cells, np.repeat(self.weight[slot_of], owners), texts * len(self.length))
        have = have.reshape(texts, len(self.length))
        yield from np.argwhere(have > self.total * PROPOSED * (1 - 1e-9)).tolist()


def _evidence(data: Texts, sizes: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, ...]:
    """The fields gram_keys to counts_from."""
    starts = np.concatenate([[0], np.cumsum(sizes)])
    parts = []
    evidence, boilerplate = np.zeros(len(data.words.hashes), bool), np.zeros(len(data.words.hashes), bool)
    for n in np.unique(lengths).tolist():
        keys, begins = data.words.runs(n)
        owner = data.words.owner[begins]
        distinct, which = np.unique(keys, return_inverse=True)
        pairs = sorted_set(which * len(sizes) + owner)
        common = (np.bincount(pairs // len(sizes), minlength=len(distinct)) > COMMON)[which]
        own = lengths[owner] == n
        for j in range(n):
            evidence[begins[own & ~common] + j] = True
            boilerplate[begins[own & common] + j] = True
        own &= ~common
        parts.append((keys[own], owner[own], (begins - starts[owner])[own]))
    keys, owner, at = (np.concatenate(part) for part in zip(*parts, strict=True))
    order = np.lexsort((at, owner, keys))
    return keys[order], owner[order], at[order], lengths, evidence & ~boilerplate, starts


def _characters(data: Texts, sizes: np.ndarray, threshold: float) -> tuple[np.ndarray, ...]:
    """The fields char_keys to rare_from."""
    problems = len(sizes)
    keys, begins = data.chars.runs(CHARS)
    vocabulary, slots = np.unique(keys, return_inverse=True)
    v = max(1, len(vocabulary))
    owner, own = np.divmod(sorted_set(data.chars.owner[begins] * v + slots), v)
    df = np.bincount(own, minlength=v)
    weight = np.log((problems + 1) / np.maximum(df, 1))
    own_from = np.searchsorted(owner, np.arange(problems + 1))
    total = np.bincount(owner, weight[own], problems)
    order = np.lexsort((own, df[own], owner))  # the rarest first, within a problem
    before = np.cumsum(weight[own[order]]) - weight[own[order]]
    before -= np.repeat(before[own_from[:-1][np.diff(own_from) > 0]], np.diff(own_from)[np.diff(own_from) > 0])
    wanted = np.where(np.diff(own_from) < FEW, FEW_SHARE, threshold)
    known = sizes >= SHORTEST
    first = order[(before <= (1 - wanted + PROPOSED)[owner] * total[owner]) & known[owner]]
    first = first[np.lexsort((owner[first], own[first]))]
    rare_from = np.searchsorted(own[first], np.arange(v + 1))
    length = np.bincount(data.chars.owner, minlength=problems)
    return vocabulary, weight, own, own_from, total, length, owner[first], rare_from


class _Sorted:
    """Ascending keys that are evenly distributed, and where those with the same leading bits begin."""

    def __init__(self, keys: np.ndarray) -> None:
        bits = len(keys).bit_length() + 2
        self.keys, self.shift = keys, np.uint64(64 - bits)
        sizes = np.bincount((keys >> self.shift).astype(np.int64), minlength=1 << bits)
        self.begins = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)

    def look_up(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(indices of those keys that are among these, their first positions there)."""
        leading = (keys >> self.shift).astype(np.int64)
        slots = self.begins[leading]
        possible = np.flatnonzero(self.begins[leading + 1] > slots)
        slots, wanted = slots[possible], keys[possible]
        behind = np.flatnonzero(self.keys[slots] < wanted)
        slots[behind] = np.searchsorted(self.keys, wanted[behind])
        hit = self.keys[np.minimum(slots, max(0, len(self.keys) - 1))] == wanted
        return possible[hit], slots[hit]


def _isin(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Mask of the elements of a that are in b, which is ascending and not empty."""
    return b[np.minimum(np.searchsorted(b, a), len(b) - 1)] == a


def _ranges(begins: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """begins[0], begins[0] + 1, ... (sizes[0] of them), begins[1], ..."""
    return np.arange(sizes.sum()) + np.repeat(begins - (np.cumsum(sizes) - sizes), sizes)


def _densest(at: list[int], which: list[int], weight: list[float], width: int) -> float:
    """The largest total weight of distinct runs that begin within `width` characters."""
    inside: Counter[int] = Counter()
    best = have = 0.0
    left = 0
    for right, place in enumerate(at):
        inside[which[right]] += 1
        have += weight[right] if inside[which[right]] == 1 else 0.0
        while at[left] < place - width:
            inside[which[left]] -= 1
            have -= weight[left] if inside[which[left]] == 0 else 0.0
            left += 1
        best = max(best, have)
    return best
