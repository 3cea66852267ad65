"""What a row is dropped for, and what a dropped row says."""

from __future__ import annotations

import json
import pickle
import random
from pathlib import Path

import pytest

from ringrl.config.data import DataConfig
from ringrl.curate.decontaminate import IN_RESPONSE, MEANING, NEAR, NGRAMS, Decontaminated, prepare
from ringrl.curate.shards import Dropped, Row, Shards
from tests.curate.contaminate import CHANGES
from tests.curate.test_deduplicate import over
from tests.curate.test_embed import Endpoint, endpoint, served  # noqa: F401  (a fixture)
from tests.curate.test_known import story

KNOWN = [story(random.Random(n)) for n in range(30)]


def step(folder: Path, *known: str) -> Decontaminated:
    (folder / "held_out.jsonl").write_text("".join(json.dumps({"problem": k}) + "\n" for k in known))
    cfg = DataConfig.model_validate({
        "run": str(folder), "sources": [{"name": "pile", "files": ["pile.jsonl"]}],
        "decontaminate": {"benchmarks": [], "files": [str(folder / "held_out.jsonl")] if known else []},
    })  # fmt: skip
    made = prepare(cfg, Shards(folder / "before"), Shards(folder / "after"), over)
    assert prepare(cfg, Shards(folder / "before"), Shards(folder / "after"), over) == made  # as after a kill
    return pickle.loads(pickle.dumps(made))


def row(n: int, problem: str, *responses: str) -> Row:
    return {
        "id": f"pile/{n}",
        "source": "pile",
        "problem": problem,
        "responses": [{"text": r, "teacher": ""} for r in responses],
    }


def test_every_row_is_kept_or_dropped_in_order_with_a_reason(tmp_path: Path):
    rng = random.Random(100)
    fresh = [story(rng) for _ in range(4)]
    some = KNOWN[2].split()
    near = " ".join(w for i in range(len(some) - 5, -1, -5) for w in some[i : i + 5])
    rows = [
        row(0, fresh[0], "The answer is 7.", fresh[1]),
        row(1, CHANGES["variables"](KNOWN[1], rng)),
        row(2, near),
        row(3, fresh[2], "The answer is 7.", f"I recall: {KNOWN[3]} So 7."),
        row(4, KNOWN[4], KNOWN[5]),
        row(5, fresh[3]),
    ]
    out = list(step(tmp_path, *KNOWN)(0, rows))
    assert [(o.row if isinstance(o, Dropped) else o) for o in out] == rows
    dropped = {o.row["id"]: o for o in out if isinstance(o, Dropped)}
    assert {i: o.reason for i, o in dropped.items()} == {
        "pile/1": NGRAMS, "pile/2": NEAR, "pile/3": NGRAMS + IN_RESPONSE, "pile/4": NGRAMS,
    }  # fmt: skip
    file = tmp_path / "held_out.jsonl"
    assert {i: o.more["twin"] for i, o in dropped.items()} == {f"pile/{n}": f"{file}:{n + 1}" for n in range(1, 5)}
    assert all(o.more["twin_text"] == KNOWN[int(i[-1])][:300] for i, o in dropped.items())
    assert dropped["pile/4"].more["share"] == 1
    assert dropped["pile/4"].more["passage"].startswith(KNOWN[4].split()[0].lower())
    assert len(dropped["pile/4"].more["passage"].split()) == 13
    assert dropped["pile/4"].more["passage"] in dropped["pile/4"].more["detail"]
    assert 0.5 <= dropped["pile/2"].more["similarity"] < 1
    assert json.dumps([o.more for o in dropped.values()])


def test_of_the_same_meaning(tmp_path: Path, endpoint: Endpoint):  # noqa: F811
    known = ["cat cat dog, in how many ways?", "house, so what then, if there is a tree?"]
    (tmp_path / "held_out.jsonl").write_text("".join(json.dumps({"problem": k}) + "\n" for k in known))
    cfg = DataConfig.model_validate({
        "run": str(tmp_path), "sources": [{"name": "pile", "files": ["pile.jsonl"]}],
        "decontaminate": {"benchmarks": [], "files": [str(tmp_path / "held_out.jsonl")],
                          "embedding": served(endpoint).model_dump()},
    })  # fmt: skip
    before = Shards(tmp_path / "before")
    rows = [row(0, "Four trees"), row(1, "Of a dog, or a cat, or even a cat: which?"), row(2, "cat, house, tree"),
            row(3, known[1])]  # fmt: skip
    before.write(0, "read", rows[:1])
    before.write(1, "read", rows[1:])
    made = prepare(cfg, before, Shards(tmp_path / "after"), over)
    assert list(made(0, rows[:1])) == rows[:1]
    alike, other, same = made(1, rows[1:])
    assert isinstance(alike, Dropped)
    assert (alike.reason, alike.more["twin"], alike.more["similarity"]) == (
        MEANING,
        f"{tmp_path}/held_out.jsonl:1",
        1.0,
    )
    assert other == rows[2]
    assert isinstance(same, Dropped)
    assert same.reason == NGRAMS


@pytest.mark.parametrize("rows", [[], [row(0, KNOWN[0])], [row(0, "?"), row(1, "$$", "")]])
def test_with_nothing_to_keep_out_all_rows_stay(tmp_path: Path, rows: list[Row]):
    assert list(step(tmp_path)(0, rows)) == rows


def test_texts_of_no_words_stay(tmp_path: Path):
    rows = [row(0, "?"), row(1, "$$", "", "...")]
    assert list(step(tmp_path, *KNOWN)(0, rows)) == rows
    assert list(step(tmp_path, "x", "?")(0, rows[1:])) in (rows[1:], [Dropped(rows[1], NEAR, {})])
    assert list(step(tmp_path, *KNOWN)(0, [])) == []


def test_a_row_does_not_depend_on_the_rows_beside_it(tmp_path: Path):
    rng = random.Random(101)
    rows = [
        row(n, rng.choice([story(rng), CHANGES["numbers"](rng.choice(KNOWN), rng)]), story(rng)) for n in range(200)
    ]
    made = step(tmp_path, *KNOWN)
    together = list(made(0, rows))
    assert [next(iter(made(0, [r]))) for r in rows] == together
    assert 50 < sum(isinstance(o, Dropped) for o in together) < 150
