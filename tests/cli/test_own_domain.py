"""A user's own domain, from outside the package: through every command, and with a verifier that misbehaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ringrl.data.tasks import problems
from tests.conftest import Inputs, children_of_tests, lines, ringrl, rl_config, write_yaml

VERIFIER = '''
def nearness(response, row):
    """1 for an answer of the wanted number of characters, and less the further it is off."""
    answer = response.rpartition("</think>")[2].strip()
    return 1 / (1 + abs(len(answer) - row["wanted"]))
'''
SUFFIX = "So many letters."
DOMAIN = {"verifier": "my_rewards.py:nearness", "suffix": SUFFIX, "keys": ["wanted"], "required": ["wanted"]}


def rows() -> list[dict[str, Any]]:
    """Problems whose words the tiny tokenizer knows, with responses of a teacher: one right, one hardly."""
    texts = [p["problem"] for p in problems("math", 24, 3)]
    return [{"id": f"own/{i}", "domain": "letters", "problem": text, "wanted": 2 + i % 3,
             "responses": ["7" * (2 + i % 3), "7" * 20]} for i, text in enumerate(texts)]  # fmt: skip


def write_jsonl(file: Path, values: list[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(v) + "\n" for v in values))
    return file


def base(folder: Path, **more: Any) -> dict[str, Any]:
    return {"run": str(folder), "domains": {"letters": DOMAIN}, **more}


def small(inputs: Inputs, folder: Path, **more: Any) -> dict[str, Any]:
    """`rl_config` with this domain and vLLM."""
    config = {**rl_config(inputs, folder), **base(folder), **more}
    config["rollout"] |= {"engine": "vllm", "concurrent": 8}
    return config


@pytest.mark.slow
def test_a_domain_of_ten_lines_goes_through_every_command(
    inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("vllm")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_rewards.py").write_text(VERIFIER)
    pile = write_jsonl(tmp_path / "pile.jsonl", rows())
    source = {"files": ["data/data/rl.jsonl"]}

    data = base(
        Path("data"),
        sources=[{"name": "own", "files": [str(pile)]}],
        steps=["cleanse", "deduplicate", "distil", "mix"],
        mix={"outputs": [{"name": "heldout", "rows": 4}, {"name": "sft", "form": "conversations", "rows": 8},
                         {"name": "rl"}]},
    )  # fmt: skip
    result = ringrl("data", write_yaml(tmp_path / "data.yaml", data))
    assert result.code == 0, result.text
    conversations = lines(tmp_path / "data" / "data" / "sft.jsonl")
    assert all(c["messages"][0]["content"].endswith(SUFFIX) for c in conversations)
    assert {len(c["messages"][-1]["content"]) for c in conversations} <= {2, 3, 4}  # only what is right is distilled
    assert all(r["wanted"] in (2, 3, 4) for r in lines(tmp_path / "data" / "data" / "rl.jsonl"))

    sft = base(Path("sft"), model=inputs.model, data={"files": ["data/data/sft.jsonl"]}, epochs=1, batch_examples=4,
               validation={"files": ["data/data/sft.jsonl"]}, max_tokens=128,
               trainer=rl_config(inputs, tmp_path)["trainer"])  # fmt: skip
    result = ringrl("sft", write_yaml(tmp_path / "sft.yaml", sft))
    assert result.code == 0, result.text

    stage = {**rl_config(inputs, tmp_path)["stages"][0], "name": "own", "data": [source], "steps": 2, "prompts": 2,
             "max_total_tokens": 96}  # fmt: skip
    held_out = [{"name": "letters", "data": {"files": ["data/data/heldout.jsonl"]}}]
    rl = small(inputs, Path("rl"), model=inputs.model, stages=[stage], held_out=held_out, eval_samples=2)
    rl.pop("prompting")
    result = ringrl("rl", write_yaml(tmp_path / "rl.yaml", rl))
    assert result.code == 0, result.text
    metrics = lines(tmp_path / "rl" / "metrics.jsonl")
    assert [m["reward_errors"] for m in metrics] == [0, 0]
    assert all(m["rewards"] == {"letters": pytest.approx(m["reward_mean"])} for m in metrics)
    rewards = [r["reward"] for f in (tmp_path / "rl" / "rollouts").glob("*.jsonl") for r in lines(f)]
    assert any(0 < r < 1 for r in rewards), rewards
    lineage = json.loads((tmp_path / "rl" / "lineage.json").read_text())
    assert "my_rewards.py" in lineage["data"]

    unnamed = [{k: v for k, v in row.items() if k != "domain"} for row in lines(tmp_path / "data/data/heldout.jsonl")]
    write_jsonl(tmp_path / "eval.jsonl", unnamed)
    evaluation = base(Path("eval"), model=str(tmp_path / "rl" / "checkpoints" / "step_000002"), samples=2,
                      benchmarks=[{"name": "own", "data": "eval.jsonl", "domain": "letters"}], max_total_tokens=96,
                      rollout=rl["rollout"], verify={"workers": 1})  # fmt: skip
    result = ringrl("eval", write_yaml(tmp_path / "eval.yaml", evaluation))
    assert result.code == 0, result.text
    numbers = json.loads((tmp_path / "eval" / "results.json").read_text())["benchmarks"]["own"]
    assert 0 < numbers["score"] < 1
    assert numbers["errors"] == 0
    assert children_of_tests() == []


MISBEHAVING = """
import os, time
def verdict(response, row):
    match row["how"]:
        case "raises": raise KeyError("no such thing")
        case "hangs": time.sleep(1000)
        case "forks":
            if os.fork() == 0:
                time.sleep(1000)
            raise RuntimeError("after the fork")
        case "exits": os._exit(7)
        case "nan": return float("nan")
        case "too much": return 1.5
    return len(response) % 2 == 0
"""
HOWS = ("raises", "hangs", "forks", "exits", "nan", "too much", "behaves", "behaves too")


def test_a_verifier_that_misbehaves_is_an_error_in_the_metrics_and_ends_nothing(inputs: Inputs, tmp_path: Path) -> None:
    (tmp_path / "my_rewards.py").write_text(MISBEHAVING)
    texts = [p["problem"] for p in problems("math", len(HOWS), 3)]
    values = [{"id": how, "domain": "odd", "problem": t, "how": how} for how, t in zip(HOWS, texts, strict=True)]
    config = rl_config(inputs, tmp_path / "run", rollouts_kept=100)
    config |= {"domains": {"odd": {"verifier": f"{tmp_path}/my_rewards.py:verdict"}},
               "verify": {"workers": 2, "deadline_s": 3.0, "max_error_share": 1.0}}  # fmt: skip
    file = str(write_jsonl(tmp_path / "odd.jsonl", values))
    config["stages"][0] |= {"data": [{"files": [file]}], "steps": 1, "prompts": len(HOWS), "samples": 2,
                            "budget": {"phi": 60, "flat_groups": "keep"}}  # fmt: skip
    result = ringrl("rl", write_yaml(tmp_path / "rl.yaml", config))
    assert result.code == 0, result.text
    [metrics] = lines(tmp_path / "run" / "metrics.jsonl")
    assert metrics["reward_errors"] == 2 * 6
    assert metrics["tokens_trained"] == 60
    responses = lines(tmp_path / "run" / "rollouts" / "step_000001.jsonl")
    errors = {r["prompt_id"]: r["error"] for r in responses}
    assert "KeyError" in errors["raises"]
    assert "deadline of 3 s passed" in errors["hangs"]
    assert "after the fork" in errors["forks"]
    assert "died" in errors["exits"]
    assert "nan" in errors["nan"]
    assert "1.5" in errors["too much"]
    assert errors["behaves"] == errors["behaves too"] == ""
    assert children_of_tests() == []


@pytest.mark.parametrize(
    ("section", "line"),
    [
        ({"verifier": "gone.py:f"}, "domains.own.verifier: got gone.py:f, expected a file that is there"),
        ({"verifier": "my_rewards.py:f"}, "no function 'f'"),
        ({"verifier": "my_rewards.py:verdict", "options": {"colour": "red"}}, "colour"),
        ({"rewards": {"a": {"verifier": "math", "weight": 0.5}, "b": {"verifier": "format", "weight": 0.4}},
          "headline": "a"}, "a sum of 1"),
        ({"verifier": "matth"}, "matth"),
    ],
    ids=["no file", "no function", "no such option", "weights", "no such verifier"],
)  # fmt: skip
def test_bad_domains_are_one_line(
    inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, section: dict[str, Any], line: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_rewards.py").write_text(MISBEHAVING)
    config = rl_config(inputs, tmp_path / "run", domains={"own": section})
    result = ringrl("rl", write_yaml(tmp_path / "rl.yaml", config))
    assert (result.code, result.text.count("\n")) == (2, 1), result.text
    assert line in result.text
    assert not (tmp_path / "run").exists()


def test_a_domain_that_hides_a_built_in_one_and_one_that_is_not_there(inputs: Inputs, tmp_path: Path) -> None:
    config = rl_config(inputs, tmp_path / "run", domains={"math": {"verifier": "science"}})
    result = ringrl("rl", write_yaml(tmp_path / "rl.yaml", config))
    assert (result.code, result.text.count("\n")) == (2, 1), result.text
    assert "domains.math: got a domain that is built in" in result.text
    config = rl_config(inputs, tmp_path / "run")
    config["stages"][0]["data"][0]["domain"] = "mth"
    result = ringrl("rl", write_yaml(tmp_path / "rl.yaml", config))
    assert (result.code, result.text.count("\n")) == (2, 1), result.text
    assert "did you mean 'math'?" in result.text
