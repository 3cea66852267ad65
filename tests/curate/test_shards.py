"""A shard is finished whole or not there; a step's counts are those of its shards."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from ringrl.curate.shards import EXAMPLES, Dropped, Row, Shards
from ringrl.curate.workers import Workers
from ringrl.errors import ChildDied


def row(n: int, source: str = "a") -> Row:
    return {"id": f"{source}/{n}", "source": source, "problem": f"p{n} \ud800 é"}


def test_rows_come_back_as_they_were(tmp_path: Path):
    shards = Shards(tmp_path)
    shards.write(3, "cleanse", [row(1), Dropped(row(2), "image", {"detail": "x.png"}), row(3)])
    assert shards.numbers == [3]
    assert shards.rows(3) == [row(1), row(3)]
    assert not shards.finished


def test_the_summary_counts_reasons_by_source(tmp_path: Path):
    shards = Shards(tmp_path)
    shards.write(1, "s", [Dropped(row(n), "image", {"detail": str(n)}) for n in range(7)] + [row(8, "b")])
    shards.write(0, "s", [row(1), Dropped(row(2, "b"), "image"), Dropped(row(3, "b"), "empty")])
    (tmp_path / "kept" / ".000002.jsonl.77.part").write_text("half a l")
    summary = shards.close(1.25)
    assert not list(tmp_path.rglob("*.part"))
    assert summary["kept"] == {"a": 1, "b": 1}
    assert summary["dropped"] == {"empty": {"b": 1}, "image": {"a": 7, "b": 1}}
    assert len(summary["examples"]["image"]) == EXAMPLES
    written = [json.loads(line) for line in (tmp_path / "dropped.jsonl").read_text().splitlines()]
    assert [(r["id"], r["reason"]) for r in written[:3]] == [("b/2", "image"), ("b/3", "empty"), ("a/0", "image")]
    assert written[3] == {**row(1), "step": "s", "reason": "image", "detail": "1"}
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    assert shards.finished


def test_a_shard_whose_step_fails_is_not_there(tmp_path: Path):
    shards = Shards(tmp_path)

    def broken():
        yield row(1)
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        shards.write(0, "s", broken())
    assert shards.numbers == []
    assert not list(tmp_path.rglob("*.jsonl"))


def double(x: int) -> int:
    if x < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * x


def test_workers_map_and_end():
    with Workers(2) as workers:
        assert dict(workers.map(double, range(20))) == {x: 2 * x for x in range(20)}
        pids = [p.pid for p in workers._pool._processes.values()]
    assert len(pids) == 2
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_killed_worker_is_told():
    with Workers(1) as workers, pytest.raises(ChildDied, match="was killed; too little memory"):
        list(workers.map(double, [1, -1, 2]))
