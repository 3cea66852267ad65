"""Keeps benchmark problems, and those of any other file listed, out of the training data.

A row is dropped for the first of these that holds for its problem, or else for one of its responses:

    n-grams in common     `share` of the known problem's words lie in runs of `ngram` words that the row has, too
    near duplicate        `threshold` of its character n-grams, weighted by rarity, occur in one passage
    of the same meaning   the cosine of the two embeddings reaches `similarity`; problems only, and only with a model

The first two are defined in `curate.overlap`. A dropped row records its `twin` and `twin_text`, with `share` and
`passage`, or `similarity`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ringrl.config.data import DataConfig, Embedding
from ringrl.curate.chain import MapShards
from ringrl.curate.embed import embed_shards
from ringrl.curate.known import Known, load, write
from ringrl.curate.overlap import Match
from ringrl.curate.shards import Dropped, Row, Shards

NGRAMS = "n-grams in common with a known problem"
NEAR = "near duplicate of a known problem"
MEANING = "of the same meaning as a known problem"
IN_RESPONSE = ", in a response"
CHUNK_ROWS = 256  # rows compared with all known problems at a time
TWIN_CHARS = 300  # longest excerpt of the known problem in a dropped row


@dataclass(frozen=True)
class Decontaminated:
    """The step."""

    folder: Path  # holds the index and the embeddings
    embedding: Embedding

    def __call__(self, shard: int, rows: Sequence[Row]) -> Iterator[Row | Dropped]:
        known = load(self.folder)
        if known is None:
            yield from rows
            return
        problems = known.index.find([row["problem"] for row in rows])
        texts = [(i, r["text"]) for i, row in enumerate(rows) if not problems[i] for r in row.get("responses", ())]
        responses: dict[int, Match] = {}
        for (i, _), matches in zip(texts, known.index.find([text for _, text in texts]), strict=True):
            if matches:
                responses.setdefault(i, matches[0])
        meanings = self._meanings(shard, known, len(rows))
        for i, row in enumerate(rows):
            if problems[i]:
                yield dropped(row, known, problems[i][0])
            elif i in responses:
                yield dropped(row, known, responses[i], IN_RESPONSE)
            elif i in meanings:
                problem, cosine = meanings[i]
                yield Dropped(row, MEANING, {**twin_of(known, problem, f"cosine {cosine}"), "similarity": cosine})
            else:
                yield row

    def _meanings(self, shard: int, known: Known, rows: int) -> dict[int, tuple[int, float]]:
        """Row -> (most similar known problem, cosine), for rows that reach the threshold."""
        if not self.embedding.model:
            return {}
        vectors = np.load(embedded(self.folder) / f"{shard:06d}.npy").astype(np.float32)
        assert len(vectors) == rows, (len(vectors), rows)
        known_vectors = known.vectors.astype(np.float32)
        out = {}
        for begin in range(0, rows, CHUNK_ROWS):
            cosines = vectors[begin : begin + CHUNK_ROWS] @ known_vectors.T
            best = cosines.argmax(1)
            for i, problem in enumerate(best.tolist()):
                if cosines[i, problem] >= self.embedding.similarity:
                    out[begin + i] = problem, round(float(cosines[i, problem]), 3)
        return out


def prepare(cfg: DataConfig, before: Shards, after: Shards, over: MapShards) -> Decontaminated:
    """Builds the index, unless it is there.

    Raises DataError for a benchmark that cannot be read; ConfigError; UserError or RingError as the embedding model.
    """
    write(cfg.decontaminate, after.work, cfg.domains)
    if cfg.decontaminate.embedding.model and load(after.work):
        embed_shards(cfg.decontaminate.embedding, before, embedded(after.work), over)
    return Decontaminated(after.work, cfg.decontaminate.embedding)


def dropped(row: Row, known: Known, match: Match, where: str = "") -> Dropped:
    share = round(match.share, 3)
    more = twin_of(known, match.problem, known.describe(match))
    if match.near:
        return Dropped(row, NEAR + where, {**more, "similarity": share})
    return Dropped(row, NGRAMS + where, {**more, "share": share, "passage": known.passage(match)})


def twin_of(known: Known, problem: int, evidence: str) -> Row:
    name = known.ids[problem]
    return {"detail": f"{name}: {evidence}", "twin": name, "twin_text": known.texts[problem][:TWIN_CHARS]}


def embedded(work: Path) -> Path:
    """Folder of the rows' embeddings, one file per shard."""
    return work / "embeddings"
