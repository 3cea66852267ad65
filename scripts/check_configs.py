"""Runs every configuration under configs/ on this CPU, with a small stand-in for its model, its data and its servers.

    python scripts/check_configs.py OUT                       all of them; goes on where it was stopped
    python scripts/check_configs.py OUT --only ring_lite/sft,single_gpu/run

Each is resolved as it is by --dry-run, then run with two steps of `sft` and of every stage of `rl`, and once otherwise.
`overrides` has every key that is set besides: devices, sizes, and where servers and the hub's files are; all others are
those of the file. Stand-ins are of the model's architecture with two layers, taught to answer in the form that is asked
for, so that some answers are right; data sets have the columns of those on the hub, in folders of the same names.
OUT/cases.jsonl has a line a case.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

sys.path.insert(0, str(ROOT := Path(__file__).resolve().parent.parent))

from ringrl.commands.table import command_of, load_any
from ringrl.config.commands import EvalConfig, PipelineConfig, RLConfig, SelectConfig, SFTConfig
from ringrl.config.data import DataConfig
from ringrl.config.load import Knobs
from ringrl.config.sections import BOXED, FENCED

CONFIGS = ROOT / "configs"
DEADLINE_S = 900.0  # of one command
ROWS = 50  # of a data set
PILE = 300  # of each source of the demo
LENGTH = 512  # tokens of prompt and response
TRAINER = {"microbatch_tokens": 1024, "threads": 1}
ROLLOUT = {"workers": 1, "tensor_parallel": 1, "concurrent": 16, "kv_cache_mib": 32, "deadline_s": 600}
SIZES: dict[type[Knobs], dict[str, Any]] = {  # and device keys
    SFTConfig: {"epochs": 1, "batch_examples": 4, "max_tokens": LENGTH, "data.limit": 8, "validation.limit": 4},
    SelectConfig: {"samples": 2, "max_total_tokens": LENGTH, "probe.limit": 4},
    RLConfig: {"eval_every": 2, "eval_samples": 2, "save_every": 2},
    EvalConfig: {"max_total_tokens": LENGTH},
    DataConfig: {"workers": 1, "shard_rows": 50},
}
STAGE = {"steps": 2, "prompts": 4, "samples": 8, "max_total_tokens": LENGTH, "budget.phi": 100}
TEACHER = {"samples": 2, "max_total_tokens": LENGTH}
RANKS = 2  # at most, with experts shared out as in the file
PROMPT = 400  # tokens at most

# ---------------------------------------------------------------- data

NAMES = ("Ann", "Ben", "Cho", "Dev", "Eva", "Fay", "Gus", "Hua", "Ian", "Joy")
THINGS = ("apples", "books", "coins", "drums", "eggs", "figs", "gems", "hats", "inks", "jars")
FIRST = range(ROWS)


def number(i: int) -> tuple[str, str]:
    """A problem and its answer, one of five digits."""
    name, thing, left, gone = NAMES[i % 10], THINGS[i // 10 % 10], i * 7 // 3 % 5, i // 3 % 7 + 1
    start = f"{name} has {left + gone} {thing} in box {i}"
    return f"{start} and gives {gone} of them away. How many {thing} are left in the box?", str(left)


def program(i: int) -> tuple[str, str]:
    name, thing, inside = NAMES[i % 10], THINGS[i // 10 % 10], i * 3 % 5
    text = (
        f"{name} keeps {inside} {thing} in box {i}. Write a program that reads one line and prints how many there are."
    )
    return text, json.dumps({"inputs": ["x\n"], "outputs": [f"{inside}\n"]})


def talk(i: int, thought: bool = True) -> list[dict[str, Any]]:
    problem, answer = number(i)
    said = f"It is \\boxed{{{answer}}}."
    return [{"role": "user", "content": f"{problem}\n{BOXED}"},
            {"role": "assistant", "content": f"<think>\nso\n</think>\n\n{said}" if thought else said}]  # fmt: skip


def published() -> dict[str, dict[str, dict[str, list[dict[str, Any]]]]]:
    """Data sets as they are on the hub: name -> configuration -> split -> rows."""
    numbers = [dict(zip(("problem", "answer"), number(i), strict=True)) for i in range(600)]  # splits begin at 512
    few = [row | {"solution": "so"} for row in numbers]
    deepscaler, bigmath, dapo = (few[i : i + ROWS] for i in (20, 60, 100))  # of which some are also in others
    grade = [{"question": row["problem"], "answer": f"so\n#### {row['answer']}"} for row in few[:ROWS]]
    code = [dict(zip(("question", "input_output"), program(i), strict=True)) for i in FIRST]
    sets = {
        "inclusionAI/Ring-lite-sft-data": {"train": [{"id": i, "messages": talk(i)} for i in range(600)]},
        "open-r1/OpenR1-Math-220k": {"train": [
            row | {"generations": [talk(i)[1]["content"]], "messages": talk(i)} for i, row in enumerate(numbers)]},
        "zwhe99/DeepMath-103K": {"train": [
            {"question": r["problem"], "final_answer": r["answer"], "difficulty": 5.0} for r in few[:ROWS]]},
        "agentica-org/DeepScaleR-Preview-Dataset": {"train": deepscaler},
        "SynthLabsAI/Big-Math-RL-Verified": {"train": [r | {"domain": ["Algebra"], "source": "x"} for r in bigmath]},
        "BytedTsinghua-SIA/DAPO-Math-17k": {"train": [
            {"prompt": [{"role": "user", "content": r["problem"]}], "ability": "MATH",
             "reward_model": {"ground_truth": r["answer"], "style": "rule"}} for r in dapo]},
        "BAAI/TACO": {"train": [r | {"solutions": '["print(2)"]', "difficulty": "EASY", "date": None} for r in code]},
        "HuggingFaceH4/aime_2024": {"train": [r | {"id": i} for i, r in enumerate(few[:4])]},
        "math-ai/aime25": {"test": [r | {"id": str(i)} for i, r in enumerate(few[:4])]},
    }  # fmt: skip
    return {name: {"default": splits} for name, splits in sets.items()} | {
        "openai/gsm8k": {"main": {"train": grade, "test": grade[:4]}}
    }


def files() -> dict[str, list[dict[str, Any]]]:
    """What the user brings, below data/."""
    numbers = [dict(zip(("problem", "answer"), number(i), strict=True)) for i in FIRST]
    code = [{"id": i, "problem": p, "tests": json.loads(t)} for i, (p, t) in ((i, program(i)) for i in FIRST)]
    grade = [{"question": r["problem"], "answer": f"so\n#### {r['answer']}"} for r in numbers]
    general = [{"messages": talk(i, thought=i % 2 == 0)} for i in FIRST]
    return {"rl/code": code, "rl/science": numbers, "sft/science": numbers, "sft/general": general,
            "sft/general_val": general[:4], "gsm8k/train": grade, "gsm8k/test": grade[:8]}  # fmt: skip


def benchmarks() -> dict[str, list[dict[str, Any]]]:
    """Benchmarks in the columns of their files, below data/eval."""
    row = {"id": 0, "problem": "P?", "question": "P?", "answer": "4", "solution": "s"}
    lcb = {"question_id": "a", "question_content": "Print 4.", "contest_date": "2024-09-01T00:00:00", "metadata": "{}",
           "starter_code": "", "public_test_cases": '[{"input": "", "output": "4", "testtype": "stdin"}]',
           "private_test_cases": "[]"}  # fmt: skip
    gpqa = {
        "Record ID": "r",
        "Question": "Which?",
        "Correct Answer": "r",
        **{f"Incorrect Answer {i}": f"w{i}" for i in (1, 2, 3)},
    }
    humaneval = {"task_id": "HumanEval/0", "prompt": "def f(x):\n", "test": "def check(f):\n    assert f(1) == 1\n",
                 "entry_point": "f"}  # fmt: skip
    mbpp = {"task_id": 11, "text": "Write f.", "code": "", "test_list": ["assert f(1) == 1"], "test_setup_code": ""}
    same = ("aime24", "aime25", "amc23", "math500", "cnmo24", "livemathbench", "minerva")
    return {name: [row] for name in same} | {
        "olympiadbench": [row | {"final_answer": ["4"], "is_multiple_answer": False, "error": None}],
        "gsm8k": [row | {"answer": "so\n#### 4"}], "gpqa_diamond": [gpqa], "livecodebench": [lcb],
        "humaneval": [humaneval], "mbpp": [mbpp]}  # fmt: skip


def publish(folder: Path, **configs: Mapping[str, Sequence[Mapping[str, Any]]]) -> Path:
    """A data set as the hub has them: {configuration: {split: rows}}, two files a split."""
    import pyarrow
    import pyarrow.parquet
    import yaml

    head = []
    for config, splits in configs.items():
        (folder / config).mkdir(parents=True)
        for split, rows in splits.items():
            for i, part in enumerate((rows[: len(rows) // 2], rows[len(rows) // 2 :])):
                table = pyarrow.Table.from_pylist(part)
                pyarrow.parquet.write_table(table, folder / config / f"{split}-0000{i}-of-00002.parquet")
        places = [{"split": split, "path": f"{config}/{split}-*"} for split in splits]
        head.append({"config_name": config, "data_files": places})
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump({'configs': head})}---\n# A data set\n")
    return folder


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


# ---------------------------------------------------------------- models

LING = {"model_type": "bailing_moe", "architectures": ["BailingMoeForCausalLM"], "num_shared_experts": 2,
        "use_bias": False, "norm_head": True, "rope_theta": 600000}  # fmt: skip
MODELS = {"ring_lite": "models/Ling-lite-1.5", "ring_lite_8gpu": "models/Ling-lite-1.5",
          "single_gpu": "models/OLMoE-1B-7B-0125"}  # fmt: skip
SHAPES: dict[str, dict[str, Any]] = {"models/Ling-lite-1.5": LING, "models/OLMoE-1B-7B-0125": {"model_type": "olmoe"}}
COMMON = {"hidden_size": 64, "intermediate_size": 64, "moe_intermediate_size": 32, "num_hidden_layers": 2,
          "head_dim": 32, "num_attention_heads": 2, "num_key_value_heads": 2, "num_experts": 8,
          "num_experts_per_tok": 2, "max_position_embeddings": 32768, "vocab_size": 512, "pad_token_id": 0,
          "eos_token_id": 0, "initializer_range": 0.05}  # fmt: skip
LESSONS, LESSON = 200, 12  # steps, rows of each


def teach(folder: Path, name: str) -> None:
    """A small model of an architecture that answers in the form it is asked for, with a digit of its own choice."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    import ringrl.models.bailing_moe  # noqa: F401  (registers Ling)
    from ringrl.data import tiny

    template = (ROOT / "ringrl/data/templates/ring-lite.jinja").read_text()
    turn = {"chat_template": template, "tokenize": False, "add_generation_prompt": True}
    texts = [text for i in FIRST for text in (f"{number(i)[0]}\n{BOXED}", f"{program(i)[0]}\n{FENCED}")]
    answers = [said(text, i) for i, text in enumerate(texts)]
    tiny.build_model(folder, [*texts, *answers, "detailed thinking on"], 0, layers=1, hidden=32, moe_intermediate=32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    torch.manual_seed(0)
    lm = AutoModelForCausalLM.from_config(AutoConfig.for_model(**COMMON | SHAPES[name]))
    if getattr(
        lm.config, "norm_head", False
    ):  # no token of a model as small as this could have more than 0.85 otherwise
        lm.model.norm.weight.data.fill_(3.0)
    optimizer = torch.optim.AdamW(lm.parameters(), lr=7e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, LESSONS)
    rng = random.Random(0)
    for _ in range(LESSONS):
        chosen = rng.choices(texts, k=LESSON)
        prompts = [tokenizer.apply_chat_template([{"role": "user", "content": text}], **turn) for text in chosen]
        tail = [said(text, rng.randrange(5)) + tokenizer.eos_token for text in chosen]
        whole = tokenizer([p + t for p, t in zip(prompts, tail, strict=True)], padding=True, return_tensors="pt",
                          add_special_tokens=False)  # fmt: skip
        first = torch.tensor([len(tokenizer(p, add_special_tokens=False).input_ids) for p in prompts])
        at = torch.arange(whole.input_ids.shape[1])
        trained = (at >= first[:, None]) & whole.attention_mask.bool()
        labels = whole.input_ids.masked_fill(~trained, -100)
        lm(input_ids=whole.input_ids, attention_mask=whole.attention_mask, labels=labels).loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    lm.generation_config.eos_token_id = lm.generation_config.pad_token_id = tokenizer.eos_token_id
    lm.to(torch.bfloat16).save_pretrained(folder)
    own = folder / "chat_template.jinja"  # a base model has none
    if name == "models/Ling-lite-1.5":
        shutil.copy(ROOT / "ringrl/data/templates/ling-lite-1.5.jinja", own)
    else:
        own.unlink()


def said(text: str, i: int) -> str:
    form = f"```python\nprint({i % 5})\n```" if text.endswith(FENCED) else f"It is \\boxed{{{i % 5}}}."
    return f"so\n</think>\n\n{form}"


# ---------------------------------------------------------------- the world that the configurations name


@contextmanager
def teacher() -> Iterator[str]:
    """The URL of an OpenAI-compatible server that answers as `said` does."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            content = said(body["messages"][-1]["content"], body["seed"]).partition("</think>\n\n")[2]
            message = {"content": content, "reasoning_content": "so"}
            choices = [{"message": message, "finish_reason": "stop"}]
            data = json.dumps({"choices": choices, "usage": {"completion_tokens": 9}}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()


def build_data(folder: Path) -> None:
    """Data sets in folders of their names, and the user's files."""
    for name, configs in published().items():
        publish(folder / name, **configs)
    for name, rows in files().items():
        write_rows(folder / f"data/{name}.jsonl", rows)
    for name, rows in benchmarks().items():
        write_rows(folder / f"data/eval/{name}.jsonl", rows)


def build_model(folder: Path, group: str) -> None:
    """What the configurations of one folder start from."""
    if group not in MODELS:
        subprocess.run([sys.executable, "-m", "ringrl", "tiny", "runs/tiny"], cwd=folder, env=environment(), check=True)
        knights = folder / "runs/knights/seed_0"
        shutil.copytree(folder / "runs/tiny/model", knights / "model")
        for name in ("sft", "sft_val"):
            write_rows(knights / f"{name}.jsonl", [{"messages": talk(i)} for i in range(8)])
        return
    if not (model := folder / MODELS[group]).exists():
        teach(model, MODELS[group])
    for name in ("start", "final"):
        shutil.copytree(model, folder / "runs" / group / name)


@contextmanager
def once(made: Path) -> Iterator[bool]:
    """Whether something is still to be made, whose end `made` marks."""
    yield not made.is_file()
    made.touch()


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


# ---------------------------------------------------------------- cases


def overrides(cfg: Any, before: str, url: str) -> Iterator[tuple[str, Any]]:
    """(key, value) of what is smaller here, and of the places that are elsewhere."""
    if isinstance(cfg, PipelineConfig):
        for name in cfg.sections:
            yield from overrides(cfg.stage(name, "m"), f"{name}.", url)
        return
    for key, value in SIZES[type(cfg)].items():
        if "." not in key or getattr(cfg, key.partition(".")[0]) is not None:
            yield before + key, value
    if (prompting := getattr(cfg, "prompting", None)) and prompting.max_tokens > PROMPT:
        yield f"{before}prompting.max_tokens", PROMPT
    if trainer := getattr(cfg, "trainer", None):
        for key, value in TRAINER.items():
            yield f"{before}trainer.{key}", value
        yield f"{before}trainer.ranks", (ranks := min(trainer.ranks, RANKS))
        yield f"{before}trainer.parallel.expert", min(trainer.parallel.expert, ranks)
    if hasattr(cfg, "rollout"):
        for key, value in ROLLOUT.items():
            yield f"{before}rollout.{key}", value
    if hasattr(cfg, "verify"):
        yield f"{before}verify.workers", 1
    if isinstance(cfg, RLConfig):
        for i in range(len(cfg.stages)):
            for key, value in STAGE.items():
                yield f"{before}stages.{i}.{key}", value
        for i in range(len(cfg.held_out)):
            yield f"{before}held_out.{i}.data.limit", 2
    if isinstance(cfg, EvalConfig):
        for i, bench in enumerate(cfg.benchmarks):
            yield f"{before}benchmarks.{i}.samples", 2
            if not bench.data:
                yield f"{before}benchmarks.{i}.data", f"data/eval/{bench.name}.jsonl"
    if isinstance(cfg, DataConfig):
        for i, source in enumerate(cfg.sources):
            yield f"{before}sources.{i}.limit", PILE if source.files[0].endswith(".jsonl") else ROWS
        for i, output in enumerate(cfg.mix.outputs):
            if output.rows > ROWS:
                yield f"{before}mix.outputs.{i}.rows", ROWS
        if cfg.decontaminate.benchmarks:
            yield f"{before}decontaminate.data", "data/eval"
        for step in ("grade", "distil"):
            for i, one in enumerate(getattr(cfg, step).teachers if step in cfg.steps else ()):
                for key, value in TEACHER.items():
                    yield f"{before}{step}.{key}", value
                if one.server.base_url:
                    yield f"{before}{step}.teachers.{i}.server.base_url", url
                else:
                    for key, value in ROLLOUT.items():
                        yield f"{before}{step}.teachers.{i}.rollout.{key}", value


# configuration -> what is set besides, since it follows from a size or is set by scripts/bench_knights.py
FOLLOWS = {"ring_lite/general": {"model": "runs/ring_lite/rl/checkpoints/step_000004"},
           "ring_lite_8gpu/general": {"model": "runs/ring_lite_8gpu/rl/checkpoints/step_000004"},
           "tiny/knights_knaves/rl": {"model": "runs/knights/seed_0/model"}}  # fmt: skip
ORDER = ("sft", "rl", "select", "general", "eval")  # some start from what others made
SAMPLE = ("ring_lite/sft", "ring_lite/select", "ring_lite_8gpu/rl", "ring_lite/eval", "ring_lite/data_sft")
PIPELINE = "run"  # the name of configurations whose run directory has those of the others below it


def names() -> list[str]:
    """Of all configurations, each after those that it needs."""
    found = sorted(str(p.relative_to(CONFIGS).with_suffix("")) for p in CONFIGS.rglob("*.yaml"))
    return sorted(found, key=lambda n: ORDER.index(stem) if (stem := Path(n).name) in ORDER else len(ORDER))


def call(world: Path, *args: str) -> tuple[int, str]:
    done = subprocess.run([sys.executable, "-m", "ringrl", *args], cwd=world, env=environment(), stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=DEADLINE_S, check=False)  # fmt: skip
    return done.returncode, done.stdout


def perform(name: str, out: Path) -> dict[str, Any]:
    """Runs one configuration."""
    path, world, group = CONFIGS / f"{name}.yaml", out / "world", name.partition("/")[0]
    with once(out / "data_is_made") as missing:
        if missing:
            shutil.rmtree(world, ignore_errors=True)
            build_data(world)
    with once(out / f"{group}_is_made") as missing:
        if missing:
            build_model(world, group)
    began = time.monotonic()
    cfg = load_any(str(path))
    command = command_of(cfg).name
    if Path(name).name == PIPELINE:
        world = Path(tempfile.mkdtemp(dir=out))
        for entry in (out / "world").iterdir():
            if entry.name != "runs":
                (world / entry.name).symlink_to(entry)
        (world / "runs").mkdir()
        (world / "runs/tiny").symlink_to(out / "world/runs/tiny")  # of the demo
    shutil.rmtree(world / cfg.run, ignore_errors=True)
    case = {"name": name, "command": command}
    follows = FOLLOWS.get(name, {})
    code, text = call(world, command, str(path), "--dry-run", *(f"{key}={value}" for key, value in follows.items()))
    if code == 0:
        with teacher() as url:
            case["set"] = dict(overrides(cfg, "", url)) | follows
            code, text = call(world, command, str(path), *(f"{key}={value}" for key, value in case["set"].items()))
    metrics = sorted((world / cfg.run).rglob("metrics.jsonl")) if code == 0 else []
    rows = [json.loads(line) for file in metrics for line in file.read_text().splitlines()]
    return case | {"code": code, "steps": len(rows), "trained": sum(row.get("tokens_trained", 0) for row in rows),
                   "seconds": round(time.monotonic() - began, 1), "text": text[-2000:]}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", default="", help="names, with commas between")
    options = parser.parse_args()
    out = options.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    file = out / "cases.jsonl"
    done = {}
    if file.is_file():
        done = {case["name"]: case for case in map(json.loads, file.read_text().splitlines())}
    for name in options.only.split(",") if options.only else names():
        if name in done:
            continue
        done[name] = perform(name, out)
        with file.open("a") as lines:
            lines.write(json.dumps(done[name]) + "\n")
        print(json.dumps(done[name] | {"set": len(done[name].get("set", {}))}), flush=True)
    return int(any(case["code"] for case in done.values()))


if __name__ == "__main__":
    sys.exit(main())
