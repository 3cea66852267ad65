"""Fixtures that run the real thing: tiny models made on disk, and the command line in its own processes."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

SMALL = {"layers": 2, "hidden": 64, "moe_intermediate": 64}  # vLLM wants multiples of 32
TIMEOUT_S = 600  # a hang; machines differ
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # see ringrl.launch.machine; torch is not imported yet
os.environ["RINGRL_CACHE"] = (_CACHE := tempfile.TemporaryDirectory(prefix="ringrl-tests-")).name
ENVIRONMENT = {**os.environ, "RINGRL_TESTS": str(os.getpid())}  # known by this, all that the tests start


@dataclass(frozen=True)
class Result:
    code: int
    text: str  # what the terminal showed


@dataclass(frozen=True)
class Inputs:
    """A tiny model and data in three domains."""

    folder: Path

    @property
    def model(self) -> str:
        return str(self.folder / "model")

    def data(self, name: str) -> str:
        return str(self.folder / "data" / f"{name}.jsonl")

    def source(self, *names: str, **more: Any) -> dict[str, Any]:
        return {"files": [self.data(n) for n in names], **more}


# rows of math, code and science
SETS = {"sft": (128, 69, 59), "sft_val": (8, 4, 4), "probe": (3, 2, 1), "rl": (48, 48, 48), "heldout": (6, 6, 6)}


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    """Small finished sets; the demo makes its own with `ringrl data`."""
    from ringrl.data.tasks import DOMAINS, problems, teach
    from ringrl.data.tiny import build_model

    folder = tmp_path_factory.mktemp("inputs")
    rng = random.Random("teacher/0")
    files: dict[str, list[dict[str, Any]]] = {}
    for i, domain in enumerate(DOMAINS):
        rows = iter(problems(domain, sum(sizes[i] for sizes in SETS.values()), 0))
        for name, sizes in SETS.items():
            own = f"{name}_{domain}" if name in ("rl", "heldout") else name
            files.setdefault(own, []).extend(next(rows) for _ in range(sizes[i]))
    for name in ("sft", "sft_val"):
        turns = [(("user", row["problem"]), ("assistant", teach(row, rng))) for row in files[name]]
        files[name] = [{"messages": [{"role": r, "content": c} for r, c in turn]} for turn in turns]
        rng.shuffle(files[name])
    (folder / "data").mkdir()
    for name, rows_ in files.items():
        (folder / "data" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows_))
    build_model(folder / "model", (m["content"] for r in files["sft"] for m in r["messages"]), 0, **SMALL)
    return Inputs(folder)


LING = {"hidden_size": 64, "intermediate_size": 96, "moe_intermediate_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32, "num_experts": 4, "num_experts_per_tok": 2,
        "num_shared_experts": 2, "max_position_embeddings": 4096, "rope_theta": 600000, "use_bias": False,
        "attention_dropout": 0.0, "embedding_dropout": 0.0, "output_dropout": 0.0, "initializer_range": 0.05,
        "vocab_size": 96, "pad_token_id": 0, "eos_token_id": 0}  # fmt: skip


LING_2: dict[str, Any] = {
    "architectures": ["BailingMoeV2ForCausalLM"], "num_hidden_layers": 3, "first_k_dense_replace": 1,
    "num_experts": 8, "num_experts_per_tok": 3, "num_shared_experts": 1, "use_qk_norm": True, "use_rmsnorm": True,
    "partial_rotary_factor": 0.5, "score_function": "sigmoid", "moe_router_enable_expert_bias": True, "n_group": 4,
    "topk_group": 2, "routed_scaling_factor": 2.5, "router_dtype": "fp32"}  # fmt: skip


def write_ling(folder: Path, **more: Any) -> Path:
    """A tiny model of the Ling family, without a tokenizer; `more` overrides LING. Expert biases are not 0."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    import ringrl.models.bailing_moe  # noqa: F401  (registers Ling)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        lm = AutoModelForCausalLM.from_config(AutoConfig.for_model(**{"model_type": "bailing_moe"} | LING | more))
        for name, bias in lm.named_buffers():
            if "e_score" in name:
                bias.normal_(std=0.1)
        lm.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session", params=[{"norm_head": True}, LING_2], ids=["ling-lite", "ling 2.0"])
def ling(request: pytest.FixtureRequest, inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    """As `inputs`, with a Ling model of the same tokenizer."""
    folder = tmp_path_factory.mktemp("ling")
    (folder / "data").symlink_to(inputs.folder / "data")
    config = json.loads((Path(inputs.model) / "config.json").read_text())
    same = {k: config[k] for k in ("vocab_size", "pad_token_id", "eos_token_id")}
    write_ling(folder / "model", **request.param, **same)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
        shutil.copy(Path(inputs.model) / name, folder / "model")
    return Inputs(folder)


def as_rank(rank: int, size: int, port: int) -> None:
    """This process, which was spawned for it, as a rank of the trainer."""
    import torch

    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1",
                   "MASTER_PORT": str(port), "DS_ACCELERATOR": "cpu", "TORCHDYNAMO_DISABLE": "1"}  # fmt: skip
    torch.set_num_threads(1)


def ringrl(*args: str | Path, cwd: Path | None = None) -> Result:
    """The command line, as a user runs it, without a terminal."""
    done = subprocess.run(
        [sys.executable, "-m", "ringrl", *map(str, args)],
        cwd=cwd,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT_S,
    )
    return Result(done.returncode, done.stdout)


def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Waits for `condition()` to hold."""
    end = time.monotonic() + seconds
    while True:
        with suppress(FileNotFoundError):  # a file that was renamed while it was looked at
            if condition():
                return
        assert time.monotonic() < end, "the condition never held"
        time.sleep(0.01)


def ringrl_until(condition: Callable[[], object], signal_number: int, *args: str | Path) -> Result:
    """Start the command line and send it a signal as soon as `condition()` holds."""
    process = subprocess.Popen(
        [sys.executable, "-m", "ringrl", *map(str, args)],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )

    def held() -> object:
        assert process.poll() is None, process.communicate()[0]
        return condition()

    until(held, TIMEOUT_S)
    os.kill(process.pid, signal_number)
    text, _ = process.communicate(timeout=TIMEOUT_S)
    return Result(process.returncode if process.returncode >= 0 else 128 - process.returncode, text)


@contextmanager
def meddle(folder: Path, where: str, code: str) -> Iterator[None]:
    """While this lasts, processes of the command line with `where` in their command run `code` as they start."""
    folder.mkdir(exist_ok=True)
    script = f"import sys\nif {where!r} in ' '.join(sys.orig_argv):\n{textwrap.indent(textwrap.dedent(code), '    ')}"
    before = ENVIRONMENT.get("PYTHONPATH", "")
    outer = [Path(p) / "sitecustomize.py" for p in before.split(":") if p]  # only one is imported: it holds them all
    (folder / "sitecustomize.py").write_text("\n".join([*(f.read_text() for f in outer if f.is_file()), script]))
    ENVIRONMENT["PYTHONPATH"] = f"{folder}:{before}" if before else str(folder)
    try:
        yield
    finally:
        ENVIRONMENT["PYTHONPATH"] = before


VERIFIERS = "ringrl.rewards"  # the command of a verifier process names it
RANKS = "ringrl.launch.rank"  # and that of a rank
WORKERS = "ringrl.rollout.vllm_worker"  # and that of a vLLM worker
UNEVEN = """
    import ringrl.rewards.answers as answers
    from ringrl.rewards import Verdict
    def uneven(text, reference):  # what an untrained model could never earn: rewards
        return Verdict("pass" if len(text) % 2 else "fail", "")
    answers.verify_math = uneven
"""


@pytest.fixture(scope="module")
def uneven_rewards(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Every other math response is right, whatever it says, so that advantages are not all zero."""
    with meddle(tmp_path_factory.mktemp("meddle"), VERIFIERS, UNEVEN):
        yield


def write_yaml(path: Path, value: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(value))
    return path


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().split("\n") if line]


def timeless(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics file without what depends on the clock."""
    return [{k: v for k, v in r.items() if not k.startswith("time_") and k != "tokens_per_s"} for r in lines(path)]


def rl_config(inputs: Inputs, run: Path, **more: Any) -> dict[str, Any]:
    """A few C3PO steps on untrained weights; `flat_groups: keep`, since those solve nothing."""
    stage = {
        "name": "math",
        "data": [inputs.source("rl_math")],
        "steps": 4,
        "prompts": 4,
        "samples": 4,
        "max_total_tokens": 64,
        "budget": {"phi": 200, "flat_groups": "keep"},
    }
    return {
        "run": str(run),
        "model": inputs.model,
        "stages": [stage],
        "prompting": {"suffix": {}},
        "trainer": {"dtype": "float32", "attention": "packed", "microbatch_tokens": 256, "threads": 1},
        "rollout": {
            "engine": "transformers",
            "dtype": "float32",
            "concurrent": 16,
            "kv_cache_mib": 32,
            "deadline_s": 300,
        },
        "optimizer": {"lr": 1e-3},
        "verify": {"workers": 1},
        "save_every": 2,
        **more,
    }


def children_of_tests() -> list[int]:
    """Process ids of everything that was started by these tests and still runs."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                environment = (entry / "environ").read_bytes()
            except OSError:  # gone, or not ours
                continue
            if f"RINGRL_TESTS={os.getpid()}".encode() in environment:
                found.append(int(entry.name))
    return found


def listens_at() -> set[str]:
    """Addresses at which this process listens, for TCP."""
    import socket

    own = set()
    for number in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # the one of the listing
            own.add(os.readlink(f"/proc/self/fd/{number}"))
    found = set()
    for table, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in Path(f"/proc/self/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, _, _, _, _, _, inode, *_ = line.split()
            if state == "0A" and f"socket:[{inode}]" in own:  # listens
                raw = bytes.fromhex(local.split(":")[0])
                words = [raw[i : i + 4][::-1] for i in range(0, len(raw), 4)]
                found.add(socket.inet_ntop(family, b"".join(words)))
    return found
