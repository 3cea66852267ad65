"""Data sets of the hub's shape, a folder with parquet files and their configurations in README.md: slices of splits,
and the data of every configuration that ships."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ringrl.commands.table import command_of, load_any
from ringrl.config.commands import EvalConfig, PipelineConfig, SelectConfig, SFTConfig
from ringrl.config.data import DataConfig, Pile
from ringrl.config.load import Knobs
from ringrl.config.sections import Slice, Source, slices
from ringrl.curate.read import read
from ringrl.curate.shards import Dropped
from ringrl.data.source import raw_rows, read_conversations, read_problems
from ringrl.domains import Domains
from ringrl.errors import DataError
from scripts.check_configs import publish

Rows = list[dict[str, Any]]
CONFIGS = Path(__file__).parents[2] / "configs"
N = 600  # rows, more than any slice begins at


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("split", "numbers"),
    [
        ("train", range(20)),
        ("train[:3]", range(3)),
        ("train[17:]", range(17, 20)),
        ("train[5:7]", range(5, 7)),
        ("train[15:900]", range(15, 20)),
        ("train[-3:]", range(17, 20)),
        ("train[:-18]", range(2)),
        ("train[10%:]", range(2, 20)),
        ("train[:10%]", range(2)),
        ("train[-10%:]", range(18, 20)),
        ("train[50%:75%]", range(10, 15)),
        ("train[:33%]", range(7)),
        ("train[:2]+train[18:]", [0, 1, 18, 19]),
        ("test", range(100, 104)),
        ("train[:2]+test[-1:]", [0, 1, 103]),
    ],
)
def test_slices_are_those_of_the_library(tmp_path: Path, split: str, numbers: Any) -> None:
    import datasets

    rows = [[{"problem": f"p{i}", "answer": i} for i in part] for part in (range(20), range(100, 104))]
    publish(tmp_path / "owner" / "name", main={"train": rows[0], "test": rows[1]})
    found = list(raw_rows(Source(files=("owner/name:main",), split=split)))
    assert [row["answer"] for _, row in found if isinstance(row, dict)] == list(numbers)
    assert len({where for where, _ in found}) == len(found)
    if split.count("train") == 1 and "+" not in split:
        assert [where for where, _ in found] == [f"owner/name:main[{i}]" for i in numbers]
    assert datasets.load_dataset("owner/name", "main", split=split)["answer"] == list(numbers)


def test_a_slice_is_limited_in_rows(tmp_path: Path) -> None:
    publish(tmp_path / "owner" / "name", default={"train": [{"problem": f"p{i}"} for i in range(9)]})
    for split, limit, first in (("train[4:]", 2, 4), ("train[-3:]", 2, 6), ("train", 2, 0)):
        found = list(raw_rows(Source(files=("owner/name",), split=split, limit=limit)))
        assert [row["problem"] for _, row in found if isinstance(row, dict)] == [f"p{first}", f"p{first + 1}"]


def test_columns_of_any_type_are_read_or_said(tmp_path: Path) -> None:
    import datetime

    row = {"problem": "p", "answer": "2", "image": {"bytes": b"\xff\xd8", "path": None},
           "when": datetime.datetime(2025, 1, 2)}  # fmt: skip
    publish(tmp_path / "owner" / "name", default={"train": [row, row]})
    for _, found in raw_rows(Source(files=("owner/name",))):
        assert isinstance(found, dict)
        assert found["image"] == {"bytes": "2 bytes", "path": None}
        assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize(
    ("name", "split", "said"),
    [
        ("owner/name", "validation", "Bad split: validation. Available splits"),
        ("owner/name", "validation[-2:]", "Unknown split"),
        ("owner/name:other", "train", "'other' not found"),
        ("owner/name", "train[2:2]", r"no rows in split train\[2:2\]"),
        ("owner/name", "train[-1:2]", r"no rows in split train\[-1:2\]"),
        ("owner/gone", "train", "owner/gone: no such file, and not loadable as a hub dataset"),
    ],
)
def test_what_is_not_there_is_one_line(tmp_path: Path, name: str, split: str, said: str) -> None:
    publish(tmp_path / "owner" / "name", default={"train": [{"problem": "p"}] * 4})
    with pytest.raises(DataError, match=said) as error:
        list(raw_rows(Source(files=(name,), split=split)))
    assert str(error.value).startswith(f"{name}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text", ["", "train[", "train[5]", "train[a:b]", "train[:5]]", "train[::2]", "train test", "+train"]
)
def test_what_is_no_split(text: str) -> None:
    with pytest.raises(ValueError, match="expected a split such as"):
        slices(text)


def test_a_slice_by_numbers_alone_needs_no_size() -> None:
    assert slices("a[1:2]+b[:5%]+c") == (Slice("a", "1", "2"), Slice("b", "", "5%"), Slice("c", "", ""))
    assert [part.needs_size for part in slices("a[1:2]+a[:5%]+a[-1:]+c")] == [False, True, True, False]


# ---- the configurations that ship


def talk(i: int) -> Rows:
    return [{"role": "user", "content": f"{i}?", "tool_calls": None}, {"role": "assistant", "content": f"so {i}"}]


def number(i: int) -> dict[str, Any]:
    return {"problem": f"What is {i} + {i}?", "answer": str(2 * i), "solution": f"It is {2 * i}."}


TESTS = json.dumps({"inputs": ["1\n"], "outputs": ["2\n"]})
HUB: dict[str, dict[str, dict[str, Rows]]] = {  # columns as the sets have them
    "inclusionAI/Ring-lite-sft-data": {"default": {"train": [{"id": i, "messages": talk(i)} for i in range(N)]}},
    "open-r1/OpenR1-Math-220k": {"default": {"train": [
        {**number(i), "generations": [f"<think>so</think>{i}"], "messages": talk(i)} for i in range(N)]}},
    "zwhe99/DeepMath-103K": {"default": {"train": [
        {"question": f"{i}?", "final_answer": str(i), "difficulty": 5.0, "r1_solution_1": "so"} for i in range(N)]}},
    "agentica-org/DeepScaleR-Preview-Dataset": {"default": {"train": [number(i) for i in range(8)]}},
    "SynthLabsAI/Big-Math-RL-Verified": {"default": {"train": [
        {**number(i), "domain": ["Algebra"], "llama8b_solve_rate": None if i else 0.5} for i in range(8)]}},
    "BytedTsinghua-SIA/DAPO-Math-17k": {"default": {"train": [
        {"prompt": [{"role": "user", "content": f"Solve this. {i}?"}], "ability": "MATH",
         "reward_model": {"ground_truth": str(i), "style": "rule"}} for i in range(8)]}},
    "BAAI/TACO": {"default": {"train": [
        {"question": f"Print {i}.", "input_output": TESTS, "solutions": '["print(2)"]', "time_limit": "2.0 seconds",
         "difficulty": "EASY", "date": None} for i in range(8)]}},
    "HuggingFaceH4/aime_2024": {"default": {"train": [{"id": i, **number(i), "year": "2024"} for i in range(8)]}},
    "math-ai/aime25": {"default": {"test": [{"id": str(i), **number(i)} for i in range(8)]}},
    "openai/gsm8k": {name: {split: [{"question": f"{i}?", "answer": f"so\n#### {i}"} for i in range(8)]
                            for split in ("train", "test")} for name in ("main", "socratic")},
}  # fmt: skip
PROBLEM = {"id": "a", "problem": "p?", "answer": "2", "tests": [{"input": "1", "output": "2"}]}


def stages_of(cfg: Any) -> Iterator[Knobs]:
    yield from (cfg.stage(name, "m") for name in cfg.sections) if isinstance(cfg, PipelineConfig) else (cfg,)


@pytest.fixture
def world(tmp_path: Path) -> None:
    for name, configs in HUB.items():
        publish(tmp_path / name, **configs)
    talks = {"id": "a", "messages": [m | {"tool_calls": []} for m in talk(1)]}
    for name in ("data/rl/code", "data/rl/science", "data/gsm8k/train", "data/gsm8k/test", "data/sft/science",
                 "data/sft/general", "data/sft/general_val"):  # fmt: skip
        file = tmp_path / f"{name}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        row = talks if "general" in name else {**PROBLEM, "question": "p?"}
        file.write_text(json.dumps(row) + "\n")


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize("path", sorted((CONFIGS).rglob("*.yaml")), ids=lambda p: str(p.relative_to(CONFIGS)))
def test_the_data_of_every_configuration_that_ships(path: Path) -> None:
    """All of it but what earlier commands write below `runs/`, and the benchmarks, which tests/evals opens."""
    seen = 0
    for cfg in stages_of(load_any(str(path))):
        if isinstance(cfg, EvalConfig):
            continue
        needs = command_of(cfg).needs
        assert needs
        for source in (cfg.probe,) if isinstance(cfg, SelectConfig) else needs(cfg).sources:
            if any(f.startswith(("runs/", "reasoning-gym:")) for f in source.files):
                continue
            seen += 1
            if isinstance(cfg, DataConfig):
                assert isinstance(source, Pile)
                assert not any(isinstance(row, Dropped) for row in read([source], Domains()))
            elif isinstance(cfg, SFTConfig):
                rows = list(read_conversations(source))
                first = int(slices(source.split)[0].first or 0)
                assert rows[0][1][0]["content"] == ("1?" if source.files[0].endswith(".jsonl") else f"{first}?")
            else:
                assert read_problems(source, Domains())
    if path.stem in ("sft", "rl", "data", "data_sft", "general") and "tiny" not in path.parts:
        assert seen
