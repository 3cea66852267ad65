"""One rank of one variant of `bench_train.py`, which starts it: makes sequences up, warms up, times, rank 0 reports."""

from __future__ import annotations

import json
import math
import platform
import random
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ringrl.config.commands import RLConfig
from ringrl.config.load import load
from ringrl.processes import die_with_parent

DEADLINE_S = 1800.0  # for a collective
OPERATORS = 8  # named by a profile


def main(spec: dict[str, Any]) -> None:
    die_with_parent(spec["parent"])
    import torch

    from ringrl.algo.pack import pack
    from ringrl.policy.engine import Policy
    from ringrl.policy.objective import score_rows, update
    from ringrl.policy.ranks import Ranks

    cfg = load(RLConfig, spec["config"], spec["overrides"])
    ranks = Ranks(DEADLINE_S)
    torch.manual_seed(cfg.seed)
    tokenizer: Any = None  # for saving only
    policy = Policy(cfg.model, tokenizer, cfg.trainer, cfg.optimizer, cfg.temperature, ranks, cfg.loss.freeze_router)
    lengths = response_lengths(spec["tokens"], spec["median"], spec["sigma"], spec["cap"], cfg.seed)
    sequences = random_sequences(lengths, spec["prompt"], policy.module.config.vocab_size, ranks)
    rows = pack(sequences, 1, cfg.trainer.microbatch_tokens, cfg.trainer.packing)[0]
    before = score_rows(policy, cfg.loss, None, rows, torch.zeros(0, 1))

    def one_update() -> None:
        update(policy, cfg.loss, before, 0.0, cfg.loss.entropy)

    def timed(work: Callable[[], Any]) -> float:
        """Seconds until the last rank has done it."""
        ranks.barrier()
        started = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        ranks.barrier()
        return time.perf_counter() - started

    for _ in range(spec["warmup"]):
        one_update()
    samples = [
        {
            "ceiling": sum(ranks.gather(ceiling(policy.device, getattr(torch, cfg.trainer.dtype), timed))),
            "logprob_s": timed(lambda: policy.inspect(rows)),
            "update_s": timed(one_update),
        }
        for _ in range(spec["updates"])
    ]
    result = {
        "samples": samples,
        "lengths": lengths,
        "peak_gib": max(ranks.gather(peak_gib())),
        "computed_tokens": sum(mb.inputs.numel() for mb in rows) * ranks.size,
        "microbatches": len(rows),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine(),
        "operators": profile(one_update) if spec["profile"] else [],
    }
    if ranks.main:
        Path(spec["result"]).write_text(json.dumps(result))
    ranks.close()


def response_lengths(total: int, median: float, sigma: float, cap: int, seed: int) -> list[int]:
    """Lognormal lengths of 1 to `cap` tokens that add up to `total`."""
    rng = random.Random(seed)
    lengths: list[int] = []
    while left := total - sum(lengths):
        n = max(round(median * math.exp(sigma * rng.gauss(0, 1))), 1)
        lengths.append(min(n, cap, left))
    return lengths


def random_sequences(lengths: list[int], prompt: int, vocab: int, ranks: Any) -> list[Any]:
    """Random tokens and advantages: for every response length a sequence_of, its prompt untrained."""
    from ringrl.algo.pack import TokenSequence

    rng, weight = random.Random(ranks.rank), 1 / (sum(lengths) * ranks.size)
    trained = [(False,) * prompt + (True,) * n for n in lengths]
    return [
        TokenSequence(tuple(rng.choices(range(vocab), k=len(t))), t, weight, rng.choice((-1.0, 1.0))) for t in trained
    ]


def ceiling(device: Any, dtype: Any, timed: Callable[[Callable[[], Any]], float]) -> float:
    """FLOP/s of this rank in the best of a few square products, while all ranks make theirs."""
    import torch

    n = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    return 2 * n**3 * 4 / min(timed(lambda: [a @ b for _ in range(4)]) for _ in range(4))


def peak_gib() -> float:
    """Peak memory of the GPU, or of the process where there is none."""
    import torch

    on_gpu = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    return (on_gpu or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024) / 2**30


def profile(work: Callable[[], Any]) -> list[dict[str, Any]]:
    """The operators that take longest, by their own time; on a GPU, by that of their kernels."""
    import torch

    with torch.profiler.profile() as recorded:
        work()
    clock = "self_device_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
    operators = [k for k in recorded.key_averages() if k.device_type == torch.autograd.DeviceType.CPU]
    operators.sort(key=lambda k: -getattr(k, clock))
    total = sum(getattr(k, clock) for k in operators)
    return [{"name": k.key, "calls": k.count, "share": getattr(k, clock) / total} for k in operators[:OPERATORS]]


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
