"""`ringrl data` through the command line: killed in every step and resumed, on other processes, the same bytes."""

from __future__ import annotations

import json
import random
import signal
from pathlib import Path
from typing import Any

import pytest

from ringrl.data.tasks import problems, teach
from tests.conftest import Inputs, children_of_tests, lines, ringrl, ringrl_until, write_yaml

STEPS = ["cleanse", "deduplicate", "decontaminate", "distil", "annotate", "mix"]


def raw_rows() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """A pile with a few faults, and problems to keep out of it."""
    rng = random.Random(0)
    rows = [row for domain, n in (("math", 160), ("code", 24), ("science", 16)) for row in problems(domain, n, 1)]
    for row in rows:
        row["responses"] = [teach(row, rng), teach(row, rng)]
        if row["domain"] == "code":
            row["solutions"] = [row["responses"][0].partition("```python\n")[2].partition("```")[0]]
    known, rows = rows[:5], rows[5:]
    faults = [
        {**rows[0], "problem": rows[0]["problem"] + " ![](a.png)"},
        {**rows[1], "answer": ""},
        {**rows[2], "problem": rows[2]["problem"].replace(" ", "  ")},
        rows[3],
        known[0],
        {"answer": "no problem"},
    ]
    rows += faults
    rng.shuffle(rows)
    return rows, [{"problem": k["problem"], "answer": k["answer"]} for k in known]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    rows, known = raw_rows()
    for name, some in (("pile", rows), ("known", known)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in some))
    return write_yaml(
        folder / "data.yaml",
        {
            "run": str(folder / "run"),
            "sources": [{"name": "pile", "files": [str(folder / "pile.jsonl")]}],
            "steps": STEPS,
            "shard_rows": 12,
            "cleanse": {"choices": "keep"},
            "decontaminate": {"benchmarks": [], "files": [str(folder / "known.jsonl")]},
            "mix": {"outputs": [{"name": "probe", "rows": 20}, {"name": "sft", "form": "conversations", "rows": 80},
                                {"name": "rl"}]},
        },
    )  # fmt: skip


def bytes_of(run: Path) -> dict[str, bytes]:
    """Of all that came out, and of all that was left out."""
    files = [*run.glob("data/*.jsonl"), *run.glob("steps/*/dropped.jsonl"), *run.glob("steps/*/kept/*.jsonl")]
    return {str(f.relative_to(run)): f.read_bytes() for f in files}


def test_killed_in_every_step_and_resumed_it_has_the_same_bytes(config: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    done = ringrl("data", config, f"run={whole}", "workers=1")
    assert done.code == 0, done.text
    expected = bytes_of(whole)
    assert {"data/probe.jsonl", "data/sft.jsonl", "data/rl.jsonl"} < expected.keys()
    for i, step in enumerate(["read", *STEPS]):
        counts = killed / "steps" / f"{i}_{step}" / "counts"
        resume = ["--resume"] if i else []
        stopped = ringrl_until(
            lambda counts=counts: any(counts.glob("*.json")), signal.SIGKILL, "data", config, f"run={killed}",
            "workers=2", *resume,
        )  # fmt: skip
        assert stopped.code == 128 + signal.SIGKILL, stopped.text
    done = ringrl("data", config, f"run={killed}", "workers=2", "--resume")
    assert done.code == 0, done.text
    assert bytes_of(killed) == expected
    assert children_of_tests() == []
    every_row_is_somewhere(killed)
    lineage = json.loads((killed / "lineage.json").read_text())
    assert set(lineage["outputs"]) == {"probe", "sft", "rl"}


def every_row_is_somewhere(run: Path) -> None:
    """The rows that were read are those that came out and those that were dropped, each once."""
    dropped = [row for file in run.glob("steps/*/dropped.jsonl") for row in lines(file)]
    out = {row["id"] for name in ("probe", "sft", "rl") for row in lines(run / "data" / f"{name}.jsonl")}
    gone = [row["id"] for row in dropped if "response" not in row]
    assert len(gone) == len(set(gone))
    assert not out & set(gone)
    assert len(out) + len(gone) == 201
    assert {row["reason"] for row in dropped} >= {"malformed", "exact duplicate"}


def test_an_interrupt_keeps_what_is_finished(config: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    counts = run / "steps" / "1_cleanse" / "counts"
    stopped = ringrl_until(lambda: any(counts.glob("*.json")), signal.SIGINT, "data", config, f"run={run}")
    assert stopped.code == 130, stopped.text
    again = f"ringrl data {config} run={run} --resume"
    assert stopped.text.endswith(f"interrupted; continue with --resume: {again}\n")
    assert "not finished: interrupted<" in (run / "report.html").read_text()
    assert ringrl("report", run).text == f"{run}/report.html\n"
    before = {f: f.stat().st_mtime_ns for f in counts.glob("*.json")}
    assert ringrl("data", config, f"run={run}", "--resume").code == 0
    assert {f: f.stat().st_mtime_ns for f in before} == before
    assert children_of_tests() == []


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("steps=[wash]", "steps.0: got 'wash', expected"),
        ("steps=[mix,cleanse]", "steps: got mix, cleanse, expected mix at the end"),
        ("steps=[grade]", "grade.teachers: got none, expected at least the model that RL starts from"),
        ("sources.0.files=[gone.jsonl]", "gone.jsonl: no such data file"),
        ("sources.0.name=a b", "sources.0.name: got 'a b', expected"),
        ("decontaminate.files=[gone.jsonl]", "gone.jsonl: no such data file"),
        ("decontaminate.benchmarks=[aime42]", "aime42"),
        ("cleanse.choises=keep", "cleanse.choises: unknown key, did you mean 'choices'?"),
    ],
)
def test_bad_input_is_one_line(config: Path, tmp_path: Path, override: str, said: str) -> None:
    result = ringrl("data", config, f"run={tmp_path / 'run'}", override)
    assert result.code == 2, result.text
    assert said in result.text
    assert "Traceback" not in result.text
    assert not (tmp_path / "run").exists()


def test_one_step_alone(config: Path, inputs: Inputs, tmp_path: Path) -> None:
    """The embeddings of a model that knows nothing; so nearly all problems mean the same to it."""
    run = tmp_path / "run"
    how = [f"deduplicate.embedding.model={inputs.model}", "deduplicate.embedding.similarity=0.5"]
    done = ringrl("data", config, f"run={run}", "steps=[deduplicate]", *how)
    assert done.code == 0, done.text
    assert "same meaning" in done.text
    assert len(lines(run / "data" / "deduplicate.jsonl")) + len(lines(run / "steps/1_deduplicate/dropped.jsonl")) == 200
    refused = ringrl("data", config, f"run={run}", "steps=[deduplicate]")
    assert refused.code == 2
    assert "exists; continue it with --resume" in refused.text
