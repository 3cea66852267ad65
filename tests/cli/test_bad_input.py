"""One clear line, exit code 2, nothing overwritten."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from tests.conftest import Inputs, lines, ringrl, rl_config, write_yaml


def refused(*args: str | Path) -> str:
    """The one line that is shown besides what the run would be; asserts that there is no more."""
    result = ringrl(*args)
    assert result.code == 2, result.text
    shown = [
        line for line in result.text.splitlines() if not line.startswith(("ringrl ", "stage ", "step: ", "model: "))
    ]
    assert len(shown) == 1, result.text
    assert "Traceback" not in result.text
    return shown[0]


@pytest.fixture
def config(inputs: Inputs, tmp_path: Path) -> Path:
    return write_yaml(tmp_path / "rl.yaml", rl_config(inputs, tmp_path / "run"))


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("stages.0.stepz=3", "stages.0.stepz: unknown key, did you mean 'steps'?"),
        ("stages.0.steps=many", "stages.0.steps: got 'many', expected"),
        ("stages.0.budget.phi=100000", "expected at most 1008"),
        ("trainer.ranks=17", "trainer.ranks: got 17, expected at most 16"),
        ("loss.method=ppo", "loss.method: got 'ppo', expected"),
        ("model=/nowhere", "/nowhere: no such model folder"),
        ("stages.0.data.0.files=[gone.jsonl]", "gone.jsonl: no such data file"),
        ("stages.0.data.0.domain=mth", "stages.0.data.0.domain: got 'mth', expected one of math, code, science, "
                                       "reasoning_gym, row; did you mean 'math'?"),
        ("domains.chess.verifier=gone.py:chess", "domains.chess.verifier: got gone.py:chess, expected a file that is"),
        ("domains.math.verifier=gone.py:chess", "domains.math: got a domain that is built in, expected another name"),
    ],
)  # fmt: skip
def test_configuration(config: Path, override: str, said: str) -> None:
    assert said in refused("rl", config, override)
    assert not (config.parent / "run").exists()


def test_missing_configuration() -> None:
    assert "nowhere.yaml: no such configuration file" in refused("rl", "nowhere.yaml")


def test_malformed_line_is_named(inputs: Inputs, config: Path, tmp_path: Path) -> None:
    good = Path(inputs.data("rl_math")).read_text().splitlines()[0]
    bad = tmp_path / "bad.jsonl"
    bad.write_text(f'{good}\n{good}\n{{"id": 3,\n')
    assert f"{bad}:3: not JSON" in refused("rl", config, f"stages.0.data.0.files=[{bad}]")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("latin.csv", "problem,answer,messages\nOlé,3,\n".encode("latin-1"), ":2: not UTF-8: byte 0xe9"),
        ("huge.jsonl", b'{"answer": 1' + b"0" * 5000 + b"}", ":1: got an integer of more than 4,300 digits"),
        ("deep.json", b"[" + b'{"a":' * 90_000, "[0]: values are nested too deeply"),
    ],
)
def test_files_of_other_programs(inputs: Inputs, tmp_path: Path, name: str, content: bytes, said: str) -> None:
    file, run = tmp_path / name, tmp_path / "run"
    file.write_bytes(content)
    rl = write_yaml(tmp_path / "rl.yaml", rl_config(inputs, run))
    data = {"data": {"files": [str(file)]}, "validation": inputs.source("sft_val")}
    sft = {"run": str(run), "model": inputs.model, "batch_examples": 1, **data}
    for shown in (
        refused("rl", rl, f"stages.0.data.0.files=[{file}]"),
        refused("sft", write_yaml(tmp_path / "sft.yaml", sft)),
    ):
        assert f"{file}{said}" in shown
    assert not run.exists()


def test_a_batch_larger_than_the_data_is_refused(inputs: Inputs, tmp_path: Path) -> None:
    file, run = tmp_path / "two.jsonl", tmp_path / "run"
    file.write_text("".join(f"{line}\n" for line in Path(inputs.data("sft")).read_text().splitlines()[:2]))
    sft = {"run": str(run), "model": inputs.model, "batch_examples": 3, "data": {"files": [str(file)]},
           "trainer": {"dtype": "float32", "attention": "packed"}}  # fmt: skip
    said = refused("sft", write_yaml(tmp_path / "sft.yaml", sft))
    assert f"batch_examples: got 3, expected at most 2, the examples in {file}" in said
    assert not any(run.rglob("finished.json"))
    assert not any(run.rglob("step_*"))


def test_data_that_gives_no_row_is_one_line(tmp_path: Path) -> None:
    file, run = tmp_path / "a.jsonl", tmp_path / "run"
    for content, said in (
        ("not json\n[]\n{}\n", f"no row of {file} can be read: {file}:1: "),
        ("", ": no rows"),
    ):
        file.write_text(content)
        data = {"run": str(run), "sources": [{"name": "a", "files": [str(file)]}], "decontaminate": {"benchmarks": []}}
        assert said in refused("data", write_yaml(tmp_path / "data.yaml", data))
        assert not run.exists()


def test_references_that_no_verifier_can_use_are_named(inputs: Inputs, config: Path, tmp_path: Path) -> None:
    """Before the run directory, and by a dry run too, which says what it cannot look at."""
    good = Path(inputs.data("rl_math")).read_text().splitlines()[0]
    code = {"id": "c", "domain": "code", "problem": "Write f.", "tests": ["f(1) == 2"]}
    bad = tmp_path / "bad.jsonl"
    bad.write_text(f"{good}\n{json.dumps(code)}\n{json.dumps(code | {'tests': ['f(1)']})}\n")
    given = (f"stages.0.data.0.files=[{bad}]", "stages.0.data.0.domain=row")
    said = f"{bad}:2: `f(1) == 2` asserts nothing: it compares, and drops the result"
    text = refused("rl", config, *given)
    assert said in text
    assert f"; {bad}:3: tests: nothing in them asserts anything" in text
    assert not (tmp_path / "run").exists()
    dry = ringrl("rl", config, *given, "--dry-run")
    assert dry.code == 2
    assert said in dry.text
    dry = ringrl("rl", config, f"stages.0.data.0.files=[{tmp_path / 'later.jsonl'}]", "--dry-run")
    assert dry.code == 0
    assert f"# data not checked: {tmp_path / 'later.jsonl'}: no such file" in dry.text


def test_model_without_tokenizer(inputs: Inputs, config: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        (bare / name).write_bytes((Path(inputs.model) / name).read_bytes())
    assert f"{bare}: no tokenizer_config.json" in refused("rl", config, f"model={bare}")


def test_models_that_are_not_whole(inputs: Inputs, config: Path, tmp_path: Path) -> None:
    """Before the run directory, by every command and every dry run; what only the weights show, before it is kept."""
    model, run = Path(shutil.copytree(inputs.model, tmp_path / "model")), tmp_path / "run"
    given = f"model={model}"
    said = "got sequences of 64 tokens, expected at most 60, max_position_embeddings in"
    saved = (model / "config.json").read_text()
    (model / "config.json").write_text(json.dumps(json.loads(saved) | {"max_position_embeddings": 60}))
    assert said in refused("rl", config, given)
    (model / "config.json").write_text(saved[:-9])
    evaluation = ["eval", "--model", model, "--bench", "mine", "--data", inputs.data("rl_math"), "--run", run]
    for command in (["rl", config, given], ["rl", config, given, "--dry-run"], evaluation):
        assert f"{model}/config.json: not JSON" in refused(*command)
    (model / "config.json").write_text(saved)
    weights = load_file(model / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, model / "model.safetensors")
    for _ in range(2):  # the second time does not say that the run exists
        assert f"{model}: 1 tensor is missing: model.norm.weight" in refused("rl", config, given)
    assert not run.exists()


def test_existing_run_is_not_overwritten(config: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text("precious: true\n")
    assert "exists; continue it with --resume" in refused("rl", config)
    assert yaml.safe_load((run / "config.yaml").read_text()) == {"precious": True}


def test_too_long_prompt_is_named(inputs: Inputs, config: Path, tmp_path: Path) -> None:
    long = tmp_path / "long.jsonl"
    row: dict[str, Any] = {**lines(Path(inputs.data("rl_math")))[0], "id": "endless", "problem": "What is 1 + 1? " * 50}
    long.write_text(json.dumps(row) + "\n")
    said = refused("rl", config, f"stages.0.data.0.files=[{long}]")
    assert "endless: the prompt has" in said
    assert "expected at most 63" in said
    assert not (tmp_path / "run").exists()


def test_a_curriculum_without_pass_rates_is_named(inputs: Inputs, config: Path, tmp_path: Path) -> None:
    said = refused("rl", config, "stages.0.curriculum=easy-first")
    assert f"{inputs.data('rl_math')}:1: no key 'pass_rate', the row has ['answer', " in said
    odd = tmp_path / "odd.jsonl"
    row = lines(Path(inputs.data("rl_math")))[0]
    odd.write_text(json.dumps({**row, "pass_rate": 0.5}) + "\n" + json.dumps({**row, "pass_rate": 50}) + "\n")
    said = refused("rl", config, "stages.0.curriculum=around-half", f"stages.0.data.0.files=[{odd}]")
    assert f"{odd}:2: pass_rate: got 50, expected a number from 0 to 1" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="is for machines without GPUs")
def test_the_experts_of_an_engine_that_cannot_tell_them(config: Path) -> None:
    said = refused("rl", config, "loss.router_replay=engine", "rollout.engine=vllm")
    assert "loss.router_replay: got engine, expected trainer or none: only vLLM on GPUs" in said
