"""`ringrl data` with a teacher behind a server: nothing is asked twice, and pass rates are what the seeds say."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

from ringrl.rollout.respond import Ask
from tests.commands.test_eval import Script, right
from tests.conftest import lines, ringrl, ringrl_until, write_yaml


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
