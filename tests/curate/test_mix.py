"""Every row goes into one output or is dropped; shares are exact; the draw depends on seed and ids alone."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from ringrl.config.data import DataConfig
from ringrl.config.load import check
from ringrl.config.sections import BOXED, Source
from ringrl.curate import mix, outputs
from ringrl.curate.chain import phases
from ringrl.curate.shards import Dropped, Row
from ringrl.data.source import read_conversations, read_problems
from ringrl.domains import Domains
from ringrl.errors import ConfigError

MATH, CODE, SCIENCE = "math", "code", "science"


def over(name: str, function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
    """Results in another order than that of the items, as processes may give them."""
    return ((item, function(item)) for item in reversed(items))


def row(source: str, n: int, domain: str, responses: int = 0) -> Row:
    reference = {"tests": [{"input": "1", "output": "1"}]} if domain == CODE else {"answer": str(n)}
    said = [{"text": f"<think>{n}</think>r{i}", "teacher": "t"} for i in range(responses)]
    more = {"responses": said} if responses else {}
    origin = {"id": f"{source}/{n}", "source": source, "where": f"x:{n}", "domain": domain}
    return {**origin, "problem": f"p {source} {n}?", "level": "hard", **reference, **more}


def rows_of(counts: dict[str, int], source: str = "a", responses: int = 0) -> list[Row]:
    domains = [d for d, n in counts.items() for _ in range(n)]
    random.Random(0).shuffle(domains)
    return [row(source, i, d, responses) for i, d in enumerate(domains)]


def config(run: Path, *wanted: dict[str, Any], seed: int = 0, **more: Any) -> DataConfig:
    sources = [{"name": name, "files": ["x.jsonl"]} for name in ("a", "b")]
    raw = {"run": str(run), "sources": sources, "steps": ["mix"], "seed": seed, "mix": {"outputs": list(wanted)}}
    return check(DataConfig, {**raw, **more}, "test")


def run_mix(cfg: DataConfig, rows: list[Row], shard_rows: int = 7) -> tuple[dict[str, list[str]], dict[str, Row]]:
    """(ids in every output's file, what was dropped by id)."""
    before, after = (phase.shards for phase in phases(cfg))
    for n in range(0, len(rows), shard_rows):
        before.write(n // shard_rows, "read", rows[n : n + shard_rows])
    step = mix.prepare(cfg, before, after, over)
    dropped: dict[str, Row] = {}
    for n in before.numbers:
        results = list(step(n, before.rows(n)))
        assert len(results) == len(before.rows(n))
        dropped |= {r.row["id"]: {"reason": r.reason, **r.more} for r in results if isinstance(r, Dropped)}
        after.write(n, "mix", results)
    facts = outputs.write(cfg, lambda done, total: None)
    files = {name: lines(Path(cfg.run) / "data" / f"{name}.jsonl") for name in facts}
    return {name: [r["id"] for r in found] for name, found in files.items()}, dropped


def lines(file: Path) -> list[Row]:
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.parametrize("seed", range(20))
def test_every_row_goes_to_one_place_and_shares_are_the_largest_exact_ones(tmp_path: Path, seed: int):
    rng = random.Random(seed)
    counts = {d: rng.randint(1, 60) for d in (MATH, CODE, SCIENCE)}
    weights = {d: rng.choice((0.092, 0.255, 0.645, 1, 0.3333)) for d in counts}
    wanted = rng.choice((0, 5, 40))
    rows = rows_of(counts)
    cfg = config(tmp_path, {"name": "one", "weights": weights, "rows": wanted}, {"name": "rest", "rows": 20})
    files, dropped = run_mix(cfg, rows)
    assert sorted([*files["one"], *files["rest"], *dropped]) == sorted(r["id"] for r in rows)
    of = {r["id"]: r["domain"] for r in rows}
    found = Counter(of[i] for i in files["one"])
    total, whole = len(files["one"]), sum(Fraction(str(w)) for w in weights.values())
    exact = {d: total * Fraction(str(w)) / whole for d, w in weights.items()}
    assert all(abs(found[d] - exact[d]) < 1 for d in counts)
    if total != wanted:  # a domain was short: one more problem would have needed more of it than there are
        more = mix.apportion({d: Fraction(str(w)) / whole for d, w in weights.items()}, total + 1)
        assert any(more[d] > counts[d] for d in counts)
        assert not wanted or total < wanted


def test_rounding_is_by_largest_remainders():
    shares = {MATH: Fraction(645, 992), CODE: Fraction(255, 992), SCIENCE: Fraction(92, 992)}
    assert mix.apportion(shares, 100) == {MATH: 65, CODE: 26, SCIENCE: 9}  # 65.02, 25.71, 9.27
    assert mix.quotas({MATH: 0.5, CODE: 0.27, SCIENCE: 0.23}, {MATH: 9999, CODE: 9999, SCIENCE: 9999}, 6000) == {
        MATH: 3000, CODE: 1620, SCIENCE: 1380,
    }  # fmt: skip
    assert mix.quotas({MATH: 1, CODE: 1}, {MATH: 10, CODE: 3}) == {MATH: 4, CODE: 3}
    assert mix.quotas({MATH: 1, CODE: 0}, {MATH: 10, CODE: 3}) == {MATH: 10}
    assert mix.quotas({MATH: 1, CODE: 1}, {MATH: 0, CODE: 3}) == {MATH: 0, CODE: 0}


def test_the_draw_depends_on_seed_and_ids_alone(tmp_path: Path):
    rows = rows_of({MATH: 40, CODE: 20, SCIENCE: 20}) + rows_of({MATH: 20}, "b")
    wanted = {"name": "one", "rows": 30, "weights": {MATH: 0.6, CODE: 0.4}}, {"name": "two", "caps": {"a": 20}}
    shuffled = random.Random(1).sample(rows, len(rows))
    first, dropped = run_mix(config(tmp_path / "1", *wanted), rows)
    assert (first, dropped) == run_mix(config(tmp_path / "2", *wanted), shuffled, shard_rows=100)
    assert (tmp_path / "1/data/two.jsonl").read_bytes() == (tmp_path / "2/data/two.jsonl").read_bytes()
    other, _ = run_mix(config(tmp_path / "3", *wanted, seed=1), rows)
    assert set(other["one"]) != set(first["one"])
    fewer, _ = run_mix(config(tmp_path / "4", {**wanted[0], "rows": 10}), rows)
    assert set(fewer["one"]) < set(first["one"])


def test_files_are_in_the_order_of_the_draw_however_many_buckets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    rows = rows_of({MATH: 300})
    whole, _ = run_mix(config(tmp_path / "1", {"name": "all"}), rows)
    monkeypatch.setattr(outputs, "BUCKET", 1000)
    assert run_mix(config(tmp_path / "2", {"name": "all"}), rows)[0] == whole
    assert whole["all"] == sorted((r["id"] for r in rows), key=lambda i: mix.key(0, i))
    assert whole["all"] != [r["id"] for r in rows]
    assert not list((tmp_path / "2" / "data").glob(".*"))


def test_why_a_row_is_in_no_output(tmp_path: Path):
    rows = rows_of({MATH: 20, CODE: 4}) + rows_of({MATH: 10, SCIENCE: 3}, "b")
    wanted = [
        {"name": "capped", "domains": [MATH], "caps": {"a": 5, "b": 0}},
        {"name": "shares", "domains": [MATH, CODE], "weights": {MATH: 1, CODE: 1}},
        {"name": "few", "domains": [CODE], "rows": 2},
    ]
    files, dropped = run_mix(config(tmp_path, *wanted), rows)  # 5 + 4: half of 9 is rounded up for math
    assert {name: len(found) for name, found in files.items()} == {
        "capped": 5,
        "shares": 9,
        "few": 0,
    }
    assert Counter((d["reason"], d["detail"]) for d in dropped.values()) == {
        ("over the share of its domain", "shares took others"): 30 - 5 - 5,
        ("left over", "no output takes such rows"): 3,
    }
    files, dropped = run_mix(config(tmp_path / "2", wanted[0], wanted[2]), rows)
    assert Counter((d["reason"], d["detail"]) for d in dropped.values()) == {
        ("over the cap of its source", "capped took others"): 25,
        ("left over", "few took others"): 2,
        ("left over", "no output takes such rows"): 3,
    }


def test_conversations_ask_as_rl_does(tmp_path: Path):
    rows = [row("a", 0, MATH, 2), row("a", 1, CODE, 1), row("a", 2, MATH)]
    cfg = config(tmp_path, {"name": "sft", "form": "conversations"})
    files, dropped = run_mix(cfg, rows)
    assert sorted(files["sft"]) == ["a/0", "a/0", "a/1"]
    assert list(dropped) == ["a/2"]
    first = next(r for r in lines(tmp_path / "data/sft.jsonl") if r["id"] == "a/0")
    assert first == {
        "id": "a/0", "source": "a", "domain": MATH, "level": "hard", "teacher": "t",
        "messages": [{"role": "user", "content": f"p a 0?\n{BOXED}"},
                     {"role": "assistant", "content": "<think>0</think>r0"}],
    }  # fmt: skip
    assert len(list(read_conversations(Source(files=(str(tmp_path / "data/sft.jsonl"),))))) == 3
    wanted = {"outputs": [{"name": "sft", "form": "conversations"}], "prompting": {"suffix": {}}}
    plain = config(tmp_path / "2", mix=wanted)
    run_mix(plain, rows)
    asked = {r["messages"][0]["content"] for r in lines(tmp_path / "2/data/sft.jsonl")}
    assert asked == {"p a 0?", "p a 1?"}


def test_problems_are_what_rl_reads(tmp_path: Path):
    rows = [{**r, "pass_rate": 0.5, "solutions": ["x"]} for r in rows_of({MATH: 3, CODE: 2}, responses=2)]
    run_mix(config(tmp_path, {"name": "rl"}), rows)
    file = tmp_path / "data" / "rl.jsonl"
    found = read_problems(Source(files=(str(file),)), Domains())
    want = {r["id"]: {k: v for k, v in r.items() if k not in ("where", "responses", "solutions")} for r in rows}
    assert {r["id"]: r for r in found} == want


def test_what_is_known_of_an_output_is_so(tmp_path: Path):
    rows = rows_of({MATH: 20, CODE: 4}, responses=3)
    cfg = config(tmp_path, {"name": "sft", "form": "conversations", "rows": 100})
    run_mix(cfg, rows)
    data = (tmp_path / "data" / "sft.jsonl").read_bytes()
    assert outputs.write(cfg, lambda done, total: None) == {
        "sft": {
            "form": "conversations", "lines": 72, "problems": 24, "wanted": 100, "bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(), "sources": {"a": 24}, "domains": {CODE: 4, MATH: 20},
            "chars": {"problems": sum(len(r["problem"]) for r in rows),
                      "responses": sum(len(s["text"]) for r in rows for s in r["responses"])},
        },
    }  # fmt: skip


def test_without_mix_the_last_step_is_the_result(tmp_path: Path):
    cfg = config(tmp_path, {"name": "unused"}, steps=[])
    (phase,) = phases(cfg)
    rows = rows_of({MATH: 5, CODE: 3})
    phase.shards.write(0, "read", rows[:6])
    phase.shards.write(1, "read", rows[6:])
    assert outputs.write(cfg, lambda done, total: None)["read"]["lines"] == 8
    assert [r["id"] for r in lines(tmp_path / "data" / "read.jsonl")] == [r["id"] for r in rows]


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ({"domains": ["cooking"]}, "mix.outputs.0.domains.0: got 'cooking', expected"),
        ({"domains": ["math"], "weights": {"code": 1}}, ".weights.code: got 1.0, expected one of domains math"),
        ({"weights": {"math": -1, "code": 2}}, ".weights: got {'math': -1.0, 'code': 2.0}, expected none below 0"),
        ({"weights": {"math": 0}}, "expected none below 0 and one above"),
        ({"weights": {"cooking": 1}}, "mix.outputs.0.weights.cooking"),
        ({"caps": {"c": 1}}, "mix.outputs.0.caps.c: expected one of sources a, b"),
        ({"caps": {"a": -1}}, "mix.outputs.0.caps: got {'a': -1}, expected none below 0"),
        ({"form": "questions"}, "mix.outputs.0.form: got 'questions', expected"),
        ({"name": "a/b"}, "mix.outputs.0.name: got 'a/b', expected"),
        ({"rows": -1}, "mix.outputs.0.rows: got -1, expected"),
    ],
)  # fmt: skip
def test_bad_outputs_are_told_in_a_line(tmp_path: Path, output: dict[str, Any], said: str):
    with pytest.raises(ConfigError) as error:
        config(tmp_path, {"name": "one", **output})
    assert said in str(error.value)
    assert "\n" not in str(error.value)
