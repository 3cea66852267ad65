"""What stands in a benchmark, or in another file of problems to keep out, is not trained on.

A row is dropped by the first of these that holds of its problem, or else of one of its responses:

    n-grams in common     `share` of the known problem's words lie in runs of `ngram` words that the row has, too
    near duplicate        `threshold` of its runs of characters, weighed by how rare they are, stand in one passage
    of the same meaning   the cosine of the two embeddings reaches `similarity`; only with a model, only of problems

The first two are defined in `curate.overlap`. A dropped row names its `twin`, with `twin_text`, and `share` with a
`passage`, or `similarity`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ringrl.curate.chain import Over
from ringrl.curate.known import Known, load, write
from ringrl.curate.overlap import Match
from ringrl.curate.shards import Dropped, Row, Shards
from ringrl.curation import DataConfig, Embedding

NGRAMS = "n-grams in common with a known problem"
NEAR = "near duplicate of a known problem"
MEANING = "of the same meaning as a known problem"
IN_RESPONSE = ", in a response"
TWIN_CHARS = 300  # of the known problem, in what is dropped


@dataclass(frozen=True)
class Decontaminated:
    """The step."""

    folder: Path  # of the index
    embedding: Embedding

    def __call__(self, shard: int, rows: Sequence[Row]) -> Iterator[Row | Dropped]:
        known = load(self.folder)
        if known is None:
            yield from rows
            return
        problems = known.index.find([row["problem"] for row in rows])
        texts = [(i, r["text"]) for i, row in enumerate(rows) if not problems[i] for r in row.get("responses", ())]
        responses: dict[int, Match] = {}
        for (i, _), found in zip(texts, known.index.find([text for _, text in texts]), strict=True):
            if found:
                responses.setdefault(i, found[0])
        for i, row in enumerate(rows):
            if problems[i]:
                yield dropped(row, known, problems[i][0])
            elif i in responses:
                yield dropped(row, known, responses[i], IN_RESPONSE)
            else:
                yield row


def prepare(cfg: DataConfig, before: Shards, after: Shards, over: Over) -> Decontaminated:
    """Builds the index, unless it is there. Raises DataError for a benchmark that is not to be had; ConfigError."""
    write(cfg.decontaminate, after.work)
    return Decontaminated(after.work, cfg.decontaminate.embedding)


def dropped(row: Row, known: Known, match: Match, where: str = "") -> Dropped:
    share = round(match.share, 3)
    twin, text = known.ids[match.problem], known.texts[match.problem]
    more = {"detail": f"{twin}: {known.told(match)}", "twin": twin, "twin_text": text[:TWIN_CHARS]}
    if match.near:
        return Dropped(row, NEAR + where, {**more, "similarity": share})
    return Dropped(row, NGRAMS + where, {**more, "share": share, "passage": known.passage(match)})
