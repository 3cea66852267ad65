"""Duplicates within the set: the same words, nearly the same words and, with embeddings, the same meaning.

1. Exact: the same words and formulas (`curate.text`). If their answers differ, the verified one or the majority wins;
   without either, all are dropped, since nobody knows which is right. Nothing else is dropped for its answer.
2. Near: a Jaccard similarity of n-grams of at least the threshold, a text that asks the same (`curate.same`), and
   answers that agree, as far as there are any (`curate.agreement`). So are two tasks if the programs of each pass the
   tests of the other.
3. Same meaning: a cosine of embeddings of at least the threshold, and answers that do not contradict each other.

The best row is kept: verified first, then with a reference, then by the number of accepted programs and responses,
then the one read first. Rows are visited from best to worst, and a row is dropped only if it is itself similar to one
that stays: a chain of similar rows does not collapse to its first.

For code only the problem's text counts, not starter code or tests: a task is the same whether it reads standard input
or is a function. Code is never a duplicate of a problem with an answer, and a problem of a domain whose `comparison` is
equal never one of another domain.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ringrl.config.data import DataConfig, Embedding
from ringrl.config.sections import Verify
from ringrl.curate.agreement import Answers, final_answer
from ringrl.curate.chain import MapShards
from ringrl.curate.embed import Vectors, alike, embed_shards
from ringrl.curate.lsh import (
    ANSWER,
    KEY,
    QUALITY,
    LSHIndex,
    Text,
    candidates,
    save,
    sharing,
    sketch,
    sketch_file,
    text_of,
)
from ringrl.curate.programs import fenced
from ringrl.curate.same import asks_the_same
from ringrl.curate.shards import Dropped, Row, Shards
from ringrl.curate.workers import judge
from ringrl.domains import Domains

REASONS = ("", "exact duplicate", "near duplicate", "same meaning", "another answer to the same problem")
KEPT, EXACT, NEAR, MEANING, CONTRADICTED = range(5)
PAIRS = 5000  # pairs that one process compares at a time
TEXTS = 128  # texts whose n-grams a process keeps, about 100 times their size
SHOWN = 200  # longest excerpt of the twin's problem in the detail
TWIN_CHARS = 2000  # ... of one with the same words and another answer, for the report
Compare = Callable[[int, int], float]


@dataclass(frozen=True)
class Deduplicator:
    """The step: drops the rows that `find` marked."""

    before: Shards
    work: Path
    domains: Domains

    def __call__(self, shard: int, rows: Sequence[Row]) -> Iterable[Row | Dropped]:
        index = _index(self.before.folder, self.work)
        reasons, twins, similarities = np.load(self.work / "duplicates.npy", mmap_mode="r")
        start = int(index.starts[index.numbers.index(shard)])
        for n, row in enumerate(rows, start):
            if not reasons[n]:
                yield row
                continue
            twin = index.row(int(twins[n]))
            detail = f"{twin['id']}: {twin['problem'][:SHOWN]}"
            more = {"twin": twin["id"], "similarity": round(float(similarities[n]), 4)}
            if reasons[n] == CONTRADICTED:
                own, other = (r.get(self.domains[r["domain"]].answer, "") for r in (row, twin))
                detail = f"got {own or 'none'}; {twin['id']}: {other}"
                more["twin_text"] = twin["problem"][:TWIN_CHARS]
            yield Dropped(row, REASONS[int(reasons[n])], {"detail": detail, **more})


def prepare(cfg: DataConfig, before: Shards, after: Shards, over: MapShards) -> Deduplicator:
    """Raises UserError or RingError as the embedding model does."""
    file = after.work / "duplicates.npy"
    if not file.is_file():
        make = functools.partial(_sketch, cfg.deduplicate.threshold, cfg.known_domains, before, after.work)
        for _ in over("deduplicate: signatures", make, before.numbers):
            pass
        save(file, find(cfg, before, after.work, over))
    return Deduplicator(before, after.work, cfg.known_domains)


def _sketch(threshold: float, domains: Domains, before: Shards, work: Path, shard: int) -> None:
    if not sketch_file(work, shard).is_file():
        save(sketch_file(work, shard), sketch(threshold, domains, final_answer, quality, before, shard))


@functools.lru_cache(1)
def _index(folder: Path, work: Path) -> LSHIndex:
    return LSHIndex(Shards(folder), work)


def find(cfg: DataConfig, before: Shards, work: Path, over: MapShards) -> NDArray[np.float64]:
    """[3, rows]: reason, row number of the twin, similarity to it; kept rows have 0, their own number, 1.

    The twin is the row kept instead; if none is, a row with a contradicting answer.
    """
    index = LSHIndex(before, work)
    duplicates = Duplicates(index, Answers(cfg.verify, cfg.known_domains))
    duplicates.exact()
    chosen = duplicates.kept
    save(work / "ranks.npy", np.stack([chosen, duplicates.rank[chosen]]))
    share = functools.partial(_share_band, before.folder, work)
    bands = over("deduplicate: bands", share, range(index.bands if len(chosen) else 0))
    pairs = candidates(index, duplicates.rank, (pairs for _, pairs in bands))
    jobs = [(start, pairs[start : start + PAIRS]) for start in range(0, len(pairs), PAIRS)]
    scores = np.zeros(len(pairs))
    settings = (cfg.deduplicate.threshold, cfg.verify, cfg.known_domains)
    compare = functools.partial(_compare, before.folder, work, *settings)
    for (start, _), similarities in over("deduplicate: pairs", compare, jobs):
        scores[start : start + PAIRS] = similarities
    near = scores >= cfg.deduplicate.threshold
    duplicates.drop(NEAR, pairs[near], scores[near], cfg.deduplicate.threshold, Comparison(index, *settings))
    if cfg.deduplicate.embedding.model:
        meaning(duplicates, cfg.deduplicate.embedding, work, over)
    return np.stack([duplicates.reason, duplicates.twin, duplicates.similarity]).astype(np.float64)


def meaning(duplicates: Duplicates, cfg: Embedding, work: Path, over: MapShards) -> None:
    """Drops rows that mean the same as one that stays."""
    index = duplicates.index
    vectors = Vectors(embed_shards(cfg, index.shards, work / "embeddings", over))
    parts = alike(vectors, duplicates.kept, cfg.similarity)
    better, worse, scores = [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]
    swap = duplicates.rank[better] > duplicates.rank[worse]
    pairs = np.stack([np.where(swap, worse, better), np.where(swap, better, worse)], axis=1)

    def differ(a: int, b: int) -> bool:
        return duplicates.answers.contradict(index.row(a), index.row(b))

    agree = np.array([not differ(int(a), int(b)) for a, b in pairs], bool)
    order = np.lexsort((duplicates.rank[pairs[:, 0]], duplicates.rank[pairs[:, 1]]))
    order = order[agree[order]]

    def cosine(a: int, b: int) -> float:
        return 0.0 if differ(a, b) else float(vectors[[a]][0] @ vectors[[b]][0])

    duplicates.drop(MEANING, pairs[order], scores[order], cfg.similarity, cosine)


def _share_band(folder: Path, work: Path, band: int) -> NDArray[np.int64]:
    """Runs in a worker process."""
    chosen, ranks = np.load(work / "ranks.npy")
    return sharing(_index(folder, work), chosen, ranks, band)


def _compare(
    folder: Path, work: Path, threshold: float, verify: Verify, domains: Domains, job: tuple[int, NDArray[np.int64]]
) -> NDArray[np.float64]:
    """[pairs] similarities of one job; runs in a worker process."""
    compare = Comparison(_index(folder, work), threshold, verify, domains)
    return np.array([compare(int(a), int(b)) for a, b in job[1]])


class Comparison:
    """Similarity of the texts of two rows; 0 if they are different problems all the same."""

    def __init__(self, index: LSHIndex, threshold: float, verify: Verify, domains: Domains) -> None:
        self.index, self.threshold, self.verify, self.domains = index, threshold, verify, domains
        self.answers = Answers(verify, domains)
        self._read = functools.lru_cache(TEXTS)(lambda n: _read(index.row(n), domains))

    def __call__(self, a: int, b: int) -> float:
        (left, answered), (right, also) = self._read(a), self._read(b)
        score = left.similarity(right)
        if score < self.threshold:
            return score
        if not asks_the_same(left.text, right.text, agreed=True):
            return 0.0
        one, two = self.index.row(a), self.index.row(b)
        agreed = self.answers.agree(one, two) if answered and also else self._solve_both(one, two)
        same = agreed or (agreed is None and asks_the_same(left.text, right.text, agreed=False))
        return score if same else 0.0

    def _solve_both(self, one: Row, two: Row) -> bool | None:
        """Whether the first programs of two tasks pass each other's tests; False if one fails, None if that is not
        known both ways: no programs, no tests, or tasks that are called differently."""
        if self.domains[one["domain"]].comparison != "program" or _calling(one) != _calling(two):
            return None
        pairs = [(one, two), (two, one)]
        verdicts = judge(
            [
                (tested["domain"], fenced(solved["solutions"][0], _calling(one)[0]), self.domains.reference(tested))
                for solved, tested in pairs
                if solved.get("solutions") and tested.get("tests")
            ],
            self.verify,
            self.domains,
        )
        if any(v.kind not in ("pass", "error") for v in verdicts):
            return False
        return True if sum(v.kind == "pass" for v in verdicts) == len(pairs) else None


def _calling(row: Row) -> tuple[str, str]:
    return row.get("language") or "python", row.get("entry_point") or ""


def _read(row: Row, domains: Domains) -> tuple[Text, bool]:
    """The text, and whether the row has an answer."""
    return text_of(row, domains), bool(final_answer(row, domains)[1])


class Duplicates:
    """Reason, twin and similarity of all rows so far."""

    def __init__(self, index: LSHIndex, answers: Answers) -> None:
        self.index, self.answers = index, answers
        self.reason = np.zeros(len(index), np.int8)
        self.twin = np.arange(len(index))
        self.similarity = np.ones(len(index), np.float32)
        self.rank = np.empty(len(index), np.int64)  # 0 is the best
        self.rank[np.argsort(-index.line(QUALITY).astype(np.int64), kind="stable")] = np.arange(len(index))

    @property
    def kept(self) -> NDArray[np.int64]:
        return np.flatnonzero(self.reason == KEPT)

    def exact(self) -> None:
        """Drops all but the best of rows with the same words."""
        key, answer = self.index.line(KEY), self.index.line(ANSWER)
        order = np.lexsort((self.rank, key))
        first = np.flatnonzero(np.append(True, key[order][1:] != key[order][:-1])[: len(order)])
        sizes = np.diff(first, append=len(order))
        self.twin[order] = np.repeat(order[first], sizes)
        self.reason[self.twin != np.arange(len(order))] = EXACT
        if len(order):
            none = np.iinfo(np.uint64).max
            low = np.minimum.reduceat(np.where(answer == 0, none, answer)[order], first)
            for run in np.flatnonzero(np.maximum.reduceat(answer[order], first) > low):
                self._contested([int(n) for n in order[first[run] : first[run] + sizes[run]]])

    def _contested(self, members: list[int]) -> None:
        """Settles rows with the same words, best first, whose answers are not written the same."""
        rows = [self.index.row(n) for n in members]
        right = agreed(rows, self.answers)
        kept = next((n for n, ok in zip(members, right, strict=True) if ok), None)
        for n, row, ok in zip(members, rows, right, strict=True):
            unanswered = not final_answer(row, self.answers.domains)[1]
            self.reason[n] = EXACT if ok or (kept is not None and unanswered) else CONTRADICTED
            others = (m for m, r in zip(members, rows, strict=True) if self.answers.contradict(row, r))
            self.twin[n] = next(others, members[0]) if kept is None else kept
        if kept is not None:
            self.reason[kept] = KEPT

    def drop(
        self, reason: int, pairs: NDArray[np.int64], scores: NDArray[np.float64], threshold: float, compare: Compare
    ) -> None:
        """Drops every row that is like a better one that stays.

        Args:
            pairs: [pairs, 2] similar row numbers, the better first, ordered by the rank of the worse one.
            compare: the score of a pair that is not among them.
        """
        bounds = np.flatnonzero(np.append(True, pairs[1:, 1] != pairs[:-1, 1])[: len(pairs)])
        for start, end in zip(bounds, np.append(bounds, len(pairs))[1:], strict=True):
            row = int(pairs[start, 1])
            known = dict(zip(pairs[start:end, 0].tolist(), scores[start:end].tolist(), strict=True))
            for better in list(known):  # a dropped row is similar to its twin, and this row may be, too
                stays = int(self.twin[better])
                if stays not in known:
                    known[stays] = compare(stays, row)
            score, twin = max((s, -n) for n, s in known.items() if self.reason[n] == KEPT)
            if score >= threshold:
                self.reason[row], self.twin[row], self.similarity[row] = reason, -twin, score
        moved = self.reason[self.twin] == reason  # rows dropped earlier, whose twin was dropped just now
        self.similarity[moved] = self.similarity[self.twin[moved]]
        self.twin[moved] = self.twin[self.twin[moved]]


def quality(row: Row, domains: Domains) -> int:
    """Larger is better: verified, then with a reference, then by accepted programs and responses.

    A row is verified if a teacher solved it, or if it is code with programs, since those passed its tests.
    """
    domain, programs, responses = domains[row["domain"]], row.get("solutions", ()), row.get("responses", ())
    solved = any(rate > 0 for rate in row.get("pass_rates", {}).values())
    verified = solved or bool(domain.comparison == "program" and programs)
    if domain.comparison == "equal":
        whole = not domain.missing(row)
    else:
        whole = bool(final_answer(row, domains)[1] or row.get("tests"))
    return (verified << 17) + (whole << 16) + min(len(programs) + len(responses), (1 << 16) - 1)


def agreed(rows: Sequence[Row], answers: Answers) -> list[bool]:
    """Which rows of one problem have the verified answer, or else the majority answer; none if there is neither."""
    groups: list[list[int]] = []
    for n, row in enumerate(rows):
        if not final_answer(row, answers.domains)[1]:
            continue
        fits = (g for g in groups if answers.agree(rows[g[0]], row))
        if (group := next(fits, None)) is None:
            groups.append([n])
        else:
            group.append(n)
    verified = [g for g in groups if any(quality(rows[n], answers.domains) >> 17 for n in g)]
    most = [g for g in groups if 2 * len(g) > sum(map(len, groups))]
    [winner] = verified if len(verified) == 1 else most or [[]]
    return [n in winner for n in range(len(rows))]
