"""What rank 0 does between the GPUs' work: `python scripts/bench_controller.py [--millions 1,5,20] [--out FILE]`.

For each size one step's worth of responses, with heavy-tailed lengths, goes through the functions of the loop in a
process of its own: received from a worker over the real channel, scored, chosen (Φ = --share of the sampled tokens),
packed, and handed to --ranks processes. Seconds are CPU seconds of rank 0, so that the worker and other load do not
count; bytes are the most that rank 0 held above what it had before the first response. The last line has the slopes
over the sizes, by least squares: `slope S s and B bytes`, per million sampled tokens and per sampled token.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

SAMPLES, PROMPT = 16, 200  # responses to a prompt, and its tokens
MEDIAN, SIGMA, LONGEST = 4096, 0.8, 24_576  # of the lengths of responses
ROUTED = (16, 8)  # layers and experts a token of a routing table
KEY = b"0" * 32
PHASES = ("receive", "score", "choose", "pack", "hand over")


def lengths(millions: float) -> list[list[int]]:
    """Tokens of the responses to each prompt."""
    rng, groups, total = random.Random(0), [], 0
    while total < millions * 1e6:
        groups.append([min(int(rng.lognormvariate(math.log(MEDIAN), SIGMA)) + 1, LONGEST) for _ in range(SAMPLES)])
        total += sum(groups[-1])
    return groups


def worker(spec: dict[str, Any]) -> None:
    """Answers one request as a vLLM worker does, with made-up tokens."""
    from ringrl.lines import write_atomic
    from ringrl.rollout.channel import Listener, bound

    sock = bound("127.0.0.1", 0)
    listener = Listener(sock, KEY, 2)
    write_atomic(Path(spec["address"]), f"127.0.0.1:{sock.getsockname()[1]}")
    requests, weights = listener.accept()
    if spec["arrays"]:
        weights.receive()
        weights.send(("part", 1, 1, 1))  # the size of a cache, which nobody has
        weights.send(("done",))
    _, asked, *_ = requests.receive()
    rng, per_token = np.random.default_rng(0), (np.float32 if spec["arrays"] else np.float64)
    for index, *_ in asked:
        for place, n in enumerate(spec["lengths"][index]):
            ids, logprobs = rng.integers(0, 150_000, n, np.int32), -rng.random(n, np.float32).astype(per_token)
            routes = rng.integers(0, 64, (PROMPT + n - 1, *ROUTED), np.uint8) if spec["routes"] else None
            requests.send(("part", index, place, (ids, logprobs, "stop", 0, 0, routes)))
    requests.send(("done",))
    requests.receive()


def controller(spec: dict[str, Any]) -> dict[str, float]:
    """Rank 0's numbers for one size; as another rank, takes what it is given."""
    from ringrl.config.commands import RLConfig
    from ringrl.policy.ranks import Ranks
    from ringrl.rl import loop
    from ringrl.rollout.engine import Sampling
    from ringrl.rollout.vllm_pool import Deadlines, VLLMPool
    from ringrl.types import Group, Prompt, ScoredGroup

    ranks = Ranks(600.0, spec["folder"])
    hand_over = getattr(ranks, "scatter_rows", ranks.scatter)
    if not ranks.main:
        hand_over(None)
        return {}
    counts, parts = spec["lengths"], spec["ranks"]
    phi = int(spec["share"] * sum(map(sum, counts))) // parts * parts
    stage = {"name": "s", "data": [{"files": ["x.jsonl"]}], "steps": 1, "prompts": len(counts), "samples": SAMPLES,
             "max_total_tokens": PROMPT + LONGEST, "budget": {"phi": phi}}  # fmt: skip
    trainer = {"ranks": parts, "microbatch_tokens": 32_768}
    cfg = RLConfig.model_validate({"run": "r", "model": "m", "trainer": trainer, "stages": [stage]})
    [shape], pack = cfg.stages, getattr(loop, "rows_of", None) or loop.microbatches
    prompts = [Prompt(str(i), "math", tuple(range(PROMPT)), {}) for i in range(len(counts))]
    pool = VLLMPool([spec["address"]], KEY, 1, Deadlines(60, 600, 600, 0), str, print)
    rng, laps = random.Random(1), [time.process_time()]
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
    before = memory("VmRSS")
    found: list[dict[int, Any]] = [{} for _ in prompts]
    sampling = Sampling(SAMPLES, 1.0, shape.max_total_tokens)
    for index, place, completion in pool.generate([Group(p, ()) for p in prompts], sampling, 0):
        found[index][place] = completion
    laps.append(time.process_time())
    scored = []
    for prompt, group in zip(prompts, found, strict=True):
        completions = tuple(group[k] for k in sorted(group))
        none, rewards = ("",) * SAMPLES, tuple(float(rng.random() < 0.5) for _ in completions)
        scored.append(ScoredGroup(Group(prompt, completions), none, rewards, none, none))
    laps.append(time.process_time())
    chosen = loop.budget(cfg, shape, 0, loop.advantages(cfg, shape, scored))
    laps.append(time.process_time())
    shares = pack(cfg, shape, chosen, True)
    laps.append(time.process_time())
    hand_over(shares)
    laps.append(time.process_time())
    peak = memory("VmHWM") - before
    pool.close()
    spent = {name: b - a for name, a, b in zip(PHASES, laps, laps[1:], strict=False)}
    return {"tokens": float(sum(map(sum, counts))), **spent, "bytes": float(peak)}


def memory(what: str) -> int:
    """Bytes of this process, as the kernel counts them."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(what))
    return int(line.split()[1]) * 1024


def measure(args: argparse.Namespace, millions: float) -> dict[str, float]:
    from ringrl.launch.machine import rank_env

    with tempfile.TemporaryDirectory() as folder:
        spec = {"lengths": lengths(millions), "folder": folder, "address": f"{folder}/address", "routes": args.routes,
                "ranks": args.ranks, "share": args.share, "arrays": args.arrays}  # fmt: skip
        (file := Path(folder) / "spec.json").write_text(json.dumps(spec))
        child = [sys.executable, __file__, "--spec", str(file)]
        envs = [{**os.environ, **rank_env(r, args.ranks, 1, 1), "OMP_NUM_THREADS": "1"} for r in range(args.ranks)]
        others = [subprocess.Popen([*child, "--role", "worker"])]
        others += [subprocess.Popen([*child, "--role", "rank"], env=env) for env in envs[1:]]
        try:
            run = [*child, "--role", "rank"]
            out = subprocess.run(run, env=envs[0], check=True, stdout=subprocess.PIPE, text=True, timeout=1800).stdout
        finally:
            for process in others:
                process.kill()
                process.wait()
    return json.loads(out.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--millions", default="1,5,20", help="sampled tokens of each size")
    parser.add_argument("--share", type=float, default=0.25, help="Φ over the sampled tokens")
    parser.add_argument("--ranks", type=int, default=4)
    parser.add_argument("--routes", action="store_true", help="with the experts of every token")
    parser.add_argument("--arrays", type=int, default=1, help="0: log-probs in 8 bytes, as an older controller wants")
    parser.add_argument("--out", help="JSON lines to append to")
    parser.add_argument("--spec", help=argparse.SUPPRESS)
    parser.add_argument("--role", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.spec:
        spec = json.loads(Path(args.spec).read_text())
        print(json.dumps(worker(spec) if args.role == "worker" else controller(spec)), file=sys.stdout)
        return
    from ringrl.run import versions

    print("| M tokens | " + " | ".join(f"{p} s" for p in PHASES) + " | sum s | peak MiB | bytes a token |")
    print("|---:" * (len(PHASES) + 4) + "|")
    rows = []
    for millions in map(float, args.millions.split(",")):
        row = measure(args, millions)
        rows.append(row)
        spent = [row[p] for p in PHASES]
        numbers = [row["tokens"] / 1e6, *spent, sum(spent), row["bytes"] / 2**20, row["bytes"] / row["tokens"]]
        print("| " + " | ".join(f"{n:.3g}" for n in numbers) + " |", flush=True)
        if args.out:
            about = {"machine": platform.processor() or platform.machine(), "cores": os.cpu_count(), **versions()}
            with Path(args.out).open("a") as f:
                f.write(
                    json.dumps({**row, "share": args.share, "ranks": args.ranks, "routes": args.routes, **about}) + "\n"
                )
    if len(rows) > 1:
        tokens = [row["tokens"] for row in rows]
        seconds, _ = np.polyfit(tokens, [sum(row[p] for p in PHASES) for row in rows], 1)
        size, _ = np.polyfit(tokens, [row["bytes"] for row in rows], 1)
        print(f"slope {1e6 * seconds:.4f} s and {size:.1f} bytes of rank 0, per million sampled tokens and per token")


if __name__ == "__main__":
    main()
