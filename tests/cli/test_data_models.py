"""`ringrl data` with teachers: grade, distil and annotate, killed while they are sampled."""

from __future__ import annotations

import json
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Inputs, children_of_tests, lines, ringrl, ringrl_until, write_yaml

SHARDS = ("000000.jsonl", "000001.jsonl")
LONG = "What is 1 + 1? " * 20


def written(folder: Path, inputs: Inputs, rollout: dict[str, Any]) -> Path:
    """Six problems and one that no prompt has room for, for a model that knows nothing."""
    rows = [*lines(Path(inputs.data("rl_math")))[:6], {"id": "long", "problem": LONG, "answer": "2"}]
    rows[0]["responses"] = ["<think>I know.</think>\\boxed{1}"]
    (folder / "pile.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    models = [{"name": name, "model": inputs.model, "rollout": rollout} for name in ("start", "strong")]
    how = {"samples": 3, "max_total_tokens": 64, "prompting": {"suffix": {}}}
    return write_yaml(
        folder / "data.yaml",
        {
            "run": str(folder / "run"),
            "sources": [{"name": "pile", "files": [str(folder / "pile.jsonl")], "labels": {"topic": "sums"}}],
            "steps": ["grade", "distil", "annotate"],
            "shard_rows": 4,
            "workers": 1,
            "verify": {"workers": 1},
            "grade": {**how, "teachers": models},
            "distil": {**how, "teachers": models[1:]},
            "annotate": {"teacher": models[0], "values": {"style": ["a", "e"]}, "max_total_tokens": 240},
        },
    )


def bytes_of(run: Path) -> dict[str, bytes]:
    """Of all that came out, what was left out, and what teachers said."""
    files = [f for pattern in ("kept/*", "dropped.jsonl", "work/*/*/*")
             for f in run.glob(f"steps/*/{pattern}") if f.is_file()]  # fmt: skip
    return {str(f.relative_to(run)): f.read_bytes() for f in files}


def killed_and_resumed(config: Path, folder: Path, kills: Sequence[str], *more: str) -> dict[str, bytes]:
    """The same bytes as a run that was not killed while steps were sampled for, which are returned."""
    whole, killed = folder / "whole", folder / "killed"
    done = ringrl("data", config, f"run={whole}", *more)
    assert done.code == 0, done.text
    for i, step in enumerate(kills):
        answers = killed / "steps" / step / "work" / "responses" / "strong"

        def some(answers: Path = answers) -> bool:
            return any(f.read_bytes() for f in answers.glob("*.part.jsonl"))

        stopped = ringrl_until(some, signal.SIGKILL, "data", config, f"run={killed}", *more, *["--resume"][:i])
        assert stopped.code == 128 + signal.SIGKILL
    result = ringrl("data", config, f"run={killed}", *more, "--resume")
    assert result.code == 0, result.text
    expected = bytes_of(whole)
    assert bytes_of(killed) == expected
    assert children_of_tests() == []
    return expected


@pytest.mark.slow
@pytest.mark.usefixtures("uneven_rewards")
def test_killed_while_sampling_and_resumed_it_has_the_same_bytes(inputs: Inputs, tmp_path: Path) -> None:
    rollout = {"engine": "transformers", "dtype": "float32", "concurrent": 4}
    found = killed_and_resumed(written(tmp_path, inputs, rollout), tmp_path, ["1_grade", "2_distil"])
    check_grades(found)
    check_labels(found)


@pytest.mark.slow
@pytest.mark.usefixtures("uneven_rewards")
def test_on_vllm_too(inputs: Inputs, tmp_path: Path) -> None:
    pytest.importorskip("vllm")
    rollout = {"engine": "vllm", "dtype": "float32", "concurrent": 2, "kv_cache_mib": 64}
    check_grades(killed_and_resumed(written(tmp_path, inputs, rollout), tmp_path, ["1_grade"], "steps=[grade]"))


def rows(found: dict[str, bytes], folder: str) -> list[dict[str, Any]]:
    return [json.loads(line) for shard in SHARDS for line in found[f"steps/{folder}/{shard}"].splitlines()]


def check_grades(found: dict[str, bytes]) -> None:
    """Of models that are right when their response has an odd number of letters."""
    said = {
        (teacher, row["id"]): [len(a["text"]) % 2 for a in row["answers"]]
        for teacher in ("start", "strong")
        for row in rows(found, f"1_grade/work/responses/{teacher}")
        if row["id"] != "pile/6"
    }
    graded = rows(found, "1_grade/kept")
    for row in graded:
        rates = {teacher: sum(said[teacher, row["id"]]) / 3 for teacher in ("start", "strong")}
        assert row["pass_rates"] == rates
        assert row["pass_rate"] == rates["start"]
        assert row["bin"] == int(10 * rates["start"])
    dropped = {r["id"]: r["reason"] for r in map(json.loads, found["steps/1_grade/dropped.jsonl"].splitlines())}
    assert dropped.pop("pile/6") == "prompt too long"
    assert len(graded) + len(dropped) == 6
    assert set(dropped.values()) <= {"solved always", "solved never", "solutions agree on another answer"}
    assert len({r["pass_rate"] for r in graded}) > 1
    assert len({tuple(v) for v in said.values()}) > 2


def check_labels(found: dict[str, bytes]) -> None:
    labelled = rows(found, "3_annotate/kept")
    assert [r["id"] for r in labelled] == [r["id"] for r in rows(found, "1_grade/kept")]
    assert {r["topic"] for r in labelled} == {"sums"}
    assert {r["style"] for r in labelled} <= {"a", "e", "unknown"}
