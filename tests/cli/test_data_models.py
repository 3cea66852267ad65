"""`ringrl data` with teachers: grade, distil and annotate, killed while they are sampled; from servers, too."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from ringrl.evals.respond import Ask
from tests.commands.test_eval import Script, right
from tests.conftest import Inputs, children_of_tests, lines, ringrl, ringrl_until, write_yaml

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
    files = [f for pattern in ("kept/*", "dropped.jsonl", "work/*/*/*", "work/*.done")
             for f in run.glob(f"steps/*/{pattern}") if f.is_file()]  # fmt: skip
    return {str(f.relative_to(run)): f.read_bytes() for f in files}


def killed_and_resumed(config: Path, folder: Path, *kills: str) -> dict[str, bytes]:
    """The same bytes as a run that was not killed while steps were sampled for, which are returned."""
    whole, killed = folder / "whole", folder / "killed"
    done = ringrl("data", config, f"run={whole}")
    assert done.code == 0, done.text
    for i, step in enumerate(kills):
        answers = killed / "steps" / step / "work" / "responses" / "strong"

        def some(answers: Path = answers) -> bool:
            return any(f.read_bytes() for f in answers.glob("*.part.jsonl"))

        stopped = ringrl_until(some, signal.SIGKILL, "data", config, f"run={killed}", *["--resume"][:i])
        assert stopped.code == 128 + signal.SIGKILL
    result = ringrl("data", config, f"run={killed}", "--resume")
    assert result.code == 0, result.text
    expected = bytes_of(whole)
    assert bytes_of(killed) == expected
    assert children_of_tests() == []
    return expected


@pytest.mark.timeout(900)
@pytest.mark.usefixtures("uneven_rewards")
def test_killed_while_sampling_and_resumed_it_has_the_same_bytes(inputs: Inputs, tmp_path: Path) -> None:
    rollout = {"engine": "transformers", "dtype": "float32", "concurrent": 4}
    found = killed_and_resumed(written(tmp_path, inputs, rollout), tmp_path, "1_grade")
    check(found)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("uneven_rewards")
def test_on_vllm_too(inputs: Inputs, tmp_path: Path) -> None:
    pytest.importorskip("vllm")
    rollout = {"engine": "vllm", "dtype": "float32", "concurrent": 2, "kv_cache_mib": 64}
    check(killed_and_resumed(written(tmp_path, inputs, rollout), tmp_path, "1_grade", "2_distil"))


def check(found: dict[str, bytes]) -> None:
    """The rows of a model that is right when its response has an odd number of letters."""

    def rows(*names: str) -> list[dict[str, Any]]:
        return [json.loads(line) for name in names for line in found[name].splitlines()]

    shards = [f"{n:06d}.jsonl" for n in range(2)]
    said = {
        (teacher, row["id"]): [len(a["text"]) % 2 for a in row["answers"]]
        for teacher in ("start", "strong")
        for row in rows(*(f"steps/1_grade/work/responses/{teacher}/{s}" for s in shards))
        if row["id"] != "pile/6"
    }
    graded = rows(*(f"steps/1_grade/kept/{s}" for s in shards))
    for row in graded:
        rates = {teacher: sum(said[teacher, row["id"]]) / 3 for teacher in ("start", "strong")}
        assert row["pass_rates"] == rates
        assert row["pass_rate"] == rates["start"]
        assert row["bin"] == int(10 * rates["start"])
    dropped = {r["id"]: r["reason"] for r in rows("steps/1_grade/dropped.jsonl")}
    assert dropped.pop("pile/6") == "prompt too long"
    assert len(graded) + len(dropped) == 6
    assert set(dropped.values()) <= {"solved always", "solved never", "solutions agree on another answer"}
    assert len({r["pass_rate"] for r in graded}) > 1
    assert len({tuple(v) for v in said.values()}) > 2
    labelled = rows(*(f"steps/3_annotate/kept/{s}" for s in shards))
    assert [r["id"] for r in labelled] == [r["id"] for r in graded]
    assert {r["topic"] for r in labelled} == {"sums"}
    assert {r["style"] for r in labelled} <= {"a", "e", "unknown"}


class Short(Script):
    """Without room for one of its problems."""

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, str], Any]:
        if body["messages"][-1]["content"].startswith("What is 3 + 3?"):
            return 400, {}, {"error": "This model's maximum context length is 8 tokens"}
        return super().answer(path, body)


def scripted(folder: Path, samples: int) -> tuple[Script, Path]:
    key = {f"What is {i} + {i}?": str(2 * i) for i in range(12)}
    rows = [{"id": f"p{i}", "problem": q, "answer": a} for i, (q, a) in enumerate(key.items())]
    (folder / "sums.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    script = Short(key)
    server = {"base_url": script.url, "concurrent": 4, "retries": 0}
    how = {"samples": samples, "teachers": [{"name": "served", "model": "scripted", "server": server}]}
    config = {
        "run": str(folder / "run"),
        "sources": [{"name": "sums", "files": [str(folder / "sums.jsonl")]}],
        "steps": ["grade", "distil"],
        "shard_rows": 5,
        "workers": 1,
        "verify": {"workers": 1},
        "grade": how,
        "distil": how,
    }
    return script, write_yaml(folder / "data.yaml", config)


def rights(step: str, problem: str, samples: int) -> int:
    seeds = [Ask(f"{step}/served", {"id": problem}, i).seed(0) for i in range(samples)]
    return sum(right(s) and s % 11 != 0 for s in seeds)  # each 11th is cut


@pytest.mark.timeout(600)
def test_a_server_answers_and_is_not_asked_again(tmp_path: Path) -> None:
    """Not after an interrupt, nor after it refused."""
    script, config = scripted(tmp_path, 6)
    answers = tmp_path / "run" / "steps" / "1_grade" / "work" / "responses" / "served"

    def some() -> bool:
        return any(f.read_bytes() for f in answers.glob("*.jsonl"))

    stopped = ringrl_until(some, signal.SIGINT, "data", config)
    assert stopped.code in (130, 0), stopped.text  # 0: it was faster
    script.stop_after = len(script.seen) + 10
    refused = ringrl("data", config, "--resume")
    if stopped.code:
        assert refused.code == 2
        assert "/v1/chat/completions: status 404" in refused.text
    script.stop_after = 1_000_000
    done = ringrl("data", config, "--resume")
    assert done.code == 0, done.text
    graded = {r["id"]: r for f in (tmp_path / "run/steps/1_grade/kept").glob("*") for r in lines(f)}
    dropped = {r["id"]: r for r in lines(tmp_path / "run/steps/1_grade/dropped.jsonl")}
    distilled = {r["id"]: r for f in (tmp_path / "run/steps/2_distil/kept").glob("*") for r in lines(f)}
    assert dropped["sums/3"]["reason"] == "prompt too long"
    assert "maximum context length" in dropped["sums/3"]["detail"]
    assert graded.keys() == distilled.keys()
    assert len(graded) + len(dropped) == 12
    assert len(script.asked) == (11 + len(graded)) * 6
    assert sum(n > 1 for n in script.asked.values()) <= 8  # what was under way, twice
    for name, row in graded.items():
        assert row["pass_rate"] == rights("grade", name, 6) / 6
        assert len(distilled[name]["responses"]) == min(rights("distil", name, 6), 1)  # all of them say the same
    reasons = {r["reason"] for r in lines(tmp_path / "run/steps/2_distil/dropped.jsonl")}
    assert reasons <= {"wrong", "truncated", "duplicate"}
    script.server.shutdown()
