"""How much the gradient norm varies from batch to batch: GRPO, DAPO, C3PO on the same recorded rollouts.

    python scripts/bench_gradient_noise.py --model runs/demo/sft/checkpoints/step_000750 \
           --data runs/demo/data/data/rl_math.jsonl --data runs/demo/data/data/rl_code.jsonl --out runs/noise

Samples one pool of groups and records it (pool.pt). With `--lengths lognormal`, the default, lengths have a heavy tail,
which those of the demo's model have not: the model writes on past its end, each response is cut at a length drawn
from a lognormal distribution, and its reward is the toss of a coin. With `--lengths own` responses end where they
end, and verifiers judge them.

Then 50 batches of groups are drawn from the pool with replacement. On each batch every method makes its own loss,
on-policy and without KL, entropy or router terms, and the norm of its gradient is taken. Two ways of drawing: alike
(every batch from the whole pool), and drifting (later batches prefer long responses, as when a policy learns to
think longer). Prints a table, writes noise.json.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import random
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ringrl.algo.advantage import group_relative
from ringrl.algo.budget import drop_flat, fill_budget, num_tokens, shuffled
from ringrl.algo.loss import divisor, log_ratio, surrogate, token_weights
from ringrl.algo.pack import pack, sequence_of
from ringrl.config.loss import Loss
from ringrl.config.sections import Prompting, Source
from ringrl.data import arrays
from ringrl.data.chat import load_tokenizer, make_prompts
from ringrl.data.source import read_problems
from ringrl.domains import Domains
from ringrl.policy.forward import PolicyModule, load_lm
from ringrl.rewards import VerifierPool
from ringrl.rl.kept import plain, scored_group
from ringrl.rollout.engine import Sampling, fresh
from ringrl.rollout.local import LocalEngine
from ringrl.rollout.score import sample_all
from ringrl.types import Completion, Group, Sample, ScoredGroup

METHODS = ("grpo", "dapo", "c3po", "c3po shuffled")  # C3PO filled prompt by prompt, and in random order


def record_pool(args: argparse.Namespace) -> list[ScoredGroup]:
    """The rollouts, from the file if they were recorded already."""
    file = args.out / "pool.safetensors"
    if file.is_file():
        return [scored_group(g) for g in arrays.read(file)]
    prompting = Prompting(suffix={})
    tokenizer = load_tokenizer(args.model, prompting)
    rows = [row for data in args.data for row in read_problems(Source(files=(data,), limit=args.prompts), Domains())]
    prompts = make_prompts(rows, tokenizer, prompting, args.max_total_tokens, Domains())
    sampling = Sampling(args.samples, args.temperature, args.max_total_tokens)
    engine = LocalEngine(args.model, "float32", 128)
    if args.lengths == "own":
        with VerifierPool(2, 20.0) as verifier:
            pool = sample_all(engine, verifier, tokenizer, prompts, sampling, args.seed)
    else:
        engine.ends = []
        sampled: dict[int, list[Completion]] = {}
        for i, _, completion in engine.generate(fresh(prompts), sampling, args.seed):
            sampled.setdefault(i, []).append(completion)
        pool = [heavy_tailed(Group(prompts[i], tuple(c)), args) for i, c in sampled.items()]
    args.out.mkdir(parents=True, exist_ok=True)
    file.write_bytes(arrays.to_bytes(plain(pool)))
    return pool


def heavy_tailed(group: Group, args: argparse.Namespace) -> ScoredGroup:
    """Each response cut at a length from a lognormal distribution with a heavy tail, rewarded by chance."""
    rng = random.Random(f"{args.seed}/{group.prompt.id}")
    cut = []
    for c in group.completions:
        n = max(min(round(args.median * math.exp(args.sigma * rng.gauss(0, 1))), len(c.token_ids)), 1)
        cut.append(replace(c, token_ids=c.token_ids[:n], logprobs=c.logprobs[:n], finish="stop"))
    rewards = tuple(float(rng.random() < 0.5) for _ in cut)
    return ScoredGroup(Group(group.prompt, tuple(cut)), ("",) * len(cut), rewards, ("",) * len(cut), ("",) * len(cut))


def draw(pool: list[ScoredGroup], count: int, phi: int, tilt: float, rng: random.Random) -> list[ScoredGroup]:
    """At least `count` groups and phi tokens, with replacement; with `tilt` > 0 long groups are preferred."""
    mean = statistics.fmean(length(g) for g in pool)
    weights = [math.exp(tilt * (length(g) / mean - 1)) for g in pool]
    groups = rng.choices(pool, weights, k=count)
    while sum(len(c.token_ids) for g in groups for c in g.group.completions) < phi:
        groups += rng.choices(pool, weights, k=1)
    return groups


def length(group: ScoredGroup) -> float:
    return statistics.fmean(len(c.token_ids) for c in group.group.completions)


def chosen_by(method: str, groups: list[ScoredGroup], count: int, phi: int, seed: int) -> list[Sample]:
    """What a method trains on: C3PO fills Φ from all groups drawn, the others take `count` groups whole."""
    if method.startswith("c3po"):
        samples = group_relative(groups)
        return fill_budget(shuffled(samples, seed) if "shuffled" in method else samples, phi)
    return group_relative(groups[:count], Loss(method=method).advantage)


def gradient_norm(policy: PolicyModule, samples: list[Sample], loss: Loss, phi: int) -> float:
    weights = token_weights(samples, loss.weight, divisor(loss.denominator, samples, phi, 0))
    policy.zero_grad()
    for mb in pack([sequence_of(s, w) for s, w in zip(samples, weights, strict=True)], 1, 8192)[0]:
        stats = policy(mb)
        old, segments = stats.logprobs.detach(), mb.segments[mb.trained]
        log_rho = log_ratio(stats.logprobs, old, segments, loss.ratio)
        advantages = mb.advantages[mb.trained]
        terms = surrogate(log_rho, stats.logprobs, advantages, loss.clip, loss.clip_low, loss.clip_high)
        (mb.weights[mb.trained] * terms.surrogate).sum().backward()
    return float(torch.stack([p.grad.norm() for p in policy.parameters() if p.grad is not None]).norm())


def cv(values: list[float]) -> tuple[float, float]:
    """Coefficient of variation and its standard error (normal approximation)."""
    x, n = statistics.stdev(values) / statistics.fmean(values), len(values)
    return x, x * math.sqrt(1 / (2 * (n - 1)) + x * x / n)


def measure(policy: PolicyModule, pool: list[ScoredGroup], phi: int, drift: float, args: Any) -> list[dict[str, Any]]:
    norms: dict[str, list[float]] = {m: [] for m in METHODS}
    tokens: dict[str, list[int]] = {m: [] for m in METHODS}
    for i in range(args.batches):
        rng = random.Random(f"{args.seed}/{i}")
        tilt = drift * (2 * i / (args.batches - 1) - 1)
        groups = draw(pool, args.groups, phi, tilt, rng)
        for method in METHODS:
            samples = chosen_by(method, groups, args.groups, phi, i)
            norms[method].append(gradient_norm(policy, samples, Loss(method=method.split()[0]), phi))
            tokens[method].append(num_tokens(samples))
    rows = []
    for m in METHODS:
        value, error = cv(norms[m])
        rows.append({"drawn": "drifting" if drift else "alike", "method": m, "norm_mean": statistics.fmean(norms[m]),
                     "cv": value, "cv_se": error, "tokens_mean": statistics.fmean(tokens[m]),
                     "tokens_cv": cv([float(t) for t in tokens[m]])[0], "norms": norms[m]})  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", action="append", required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/noise"))
    parser.add_argument("--lengths", choices=("lognormal", "own"), default="lognormal")
    parser.add_argument("--median", type=float, default=48, help="tokens, of the lognormal distribution")
    parser.add_argument("--sigma", type=float, default=1.0, help="of its logarithm")
    parser.add_argument("--prompts", type=int, default=32, help="per data file")
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--max-total-tokens", type=int, default=512)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--groups", type=int, default=8, help="in a batch")
    parser.add_argument("--batches", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    everything = record_pool(args)
    pool = drop_flat(everything)
    lengths = sorted(len(c.token_ids) for g in pool for c in g.group.completions)
    quantile = {q: lengths[min(int(q * len(lengths)), len(lengths) - 1)] for q in (0.5, 0.9, 0.99, 1.0)}
    phi = round(0.9 * args.groups * args.samples * statistics.fmean(lengths))
    print(f"{len(pool)} of {len(everything)} groups have mixed rewards; response lengths: "
          + ", ".join(f"{q:.0%} {v}" for q, v in quantile.items()) + f"; Φ = {phi}")  # fmt: skip
    policy = PolicyModule(load_lm(args.model, "float32", "packed"), args.temperature).eval()
    rows = [row for drift in (0.0, 2.0) for row in measure(policy, pool, phi, drift, args)]
    print(f"{'batches':10} {'method':14} {'|gradient|':>11} {'CV of it, %':>14} {'tokens':>8} {'CV, %':>7}")
    for r in rows:
        spread = f"{100 * r['cv']:.1f} ± {100 * r['cv_se']:.1f}"
        print(f"{r['drawn']:10} {r['method']:14} {r['norm_mean']:11.4f} {spread:>14} {r['tokens_mean']:8.0f} "
              f"{100 * r['tokens_cv']:7.1f}")  # fmt: skip
    machine = {"cpus": os.cpu_count(), "machine": platform.machine(), "torch": torch.__version__}
    settings = {k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items()}
    result = {"settings": settings, "phi": phi, "lengths": quantile, "rows": rows, "machine": machine}
    (args.out / "noise.json").write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
