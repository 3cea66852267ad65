"""What a policy update costs: tokens/s, and its share of the FLOP/s that a bare matrix product reaches on this machine.

    python scripts/bench_train.py CONFIG [key.sub=value ...]              an RL or pipeline configuration
    python scripts/bench_train.py --model DIR [trainer.ranks=2 ...]       any model, RL defaults
    python scripts/bench_train.py --shape ling-lite --layers 8 [...]      random weights of that shape (bfloat16)

Variants: packed and padded rows; with more than one rank also the experts on one rank and on all. Each runs in its own
processes, started as `ringrl rl` starts its ranks, round after round. Sequences are made up: a prompt, and a response
whose length comes from a capped lognormal distribution; every rank gets the same lengths, together Φ / ranks trained
tokens. The learning rate is 0, so that all updates do the same.

FLOPs are those of `ringrl.plan.shape`. An update is three forward passes: MFU. HFU adds what is computed twice: the
head always (its logits are not kept), the layers with `trainer.recompute`. Padding counts nowhere. The log-prob pass
is one forward pass, timed by itself; a run with a KL term makes a second one. The ceiling is the best of a few square
products in the configuration's dtype, on all ranks at once, in the same processes and threads, anew before every timed
update.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ringrl.commands.table import load_any
from ringrl.config.commands import PipelineConfig, RLConfig
from ringrl.config.load import dump, resolve
from ringrl.errors import ConfigError
from ringrl.launch.machine import rank_env, shares
from ringrl.plan.shape import Cost, read_shape
from ringrl.processes import free_port

STAGE = {"name": "bench", "data": [{"files": ["none.jsonl"]}], "steps": 1, "budget": {"phi": 16384, "scope": "rank"}}
RANK = Path(__file__).with_name("bench_train_rank.py")


def build_shape(args: argparse.Namespace, folder: Path) -> None:
    """Random weights of Ling-lite's shape, as a Hugging Face folder."""
    import torch
    from transformers import AutoModelForCausalLM

    from ringrl.models.bailing_moe import BailingMoeConfig

    config = BailingMoeConfig(
        vocab_size=args.vocab, hidden_size=args.hidden, num_hidden_layers=args.layers, num_experts=args.experts,
        num_attention_heads=args.hidden // 128, num_key_value_heads=max(args.hidden // 512, 1), use_bias=False,
        num_experts_per_tok=min(6, args.experts), moe_intermediate_size=1408, num_shared_experts=2, pad_token_id=None,
        attention_dropout=0.0, rms_norm_eps=1e-6, rope_theta=600000, dtype="bfloat16",
    )  # fmt: skip
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)


def settings(args: argparse.Namespace) -> RLConfig:
    """The configuration to measure. Raises ConfigError."""
    overrides = [w for w in args.words if "=" in w]
    files = [w for w in args.words if "=" not in w]
    if len(files) + bool(args.model) + bool(args.shape) != 1:
        raise ConfigError(f"got {len(files)} CONFIG, --model {args.model!r}, --shape {args.shape!r}; expected one")
    if files:
        cfg: Any = load_any(files[0], overrides)
        cfg = cfg.stage("rl", cfg.model) if isinstance(cfg, PipelineConfig) else cfg
        if not isinstance(cfg, RLConfig):
            raise ConfigError(f"{files[0]}: expected an RL or pipeline configuration")
    else:
        model = args.model or str(args.out / "model")
        cfg = resolve(RLConfig, {"run": "bench", "model": model, "stages": [STAGE]}, overrides, "bench")
    if cfg.loss.router_replay == "engine":
        raise ConfigError("loss.router_replay: got engine, expected none or trainer: no engine runs here")
    return cfg


def run_variant(name: str, spec: dict[str, Any], trainer: Any, logs: Path) -> dict[str, Any]:
    """One round of a variant in its processes. Raises SystemExit if one of them fails."""
    port, ranks, name = free_port(), [], name.replace(", expert ", "_expert")
    result = logs / f"{name}.json"
    for rank in range(trainer.ranks):
        threads, _ = shares(trainer.ranks, trainer.threads, 0, at_once=False)
        env = {**os.environ, **rank_env(rank, trainer.ranks, threads, port)}
        command = [sys.executable, str(RANK), json.dumps({**spec, "result": str(result)})]
        with (logs / f"{name}_rank{rank}.log").open("w") as log:
            ranks.append(subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT))
    while None in (codes := [r.poll() for r in ranks]) and not any(codes):
        time.sleep(0.05)
    if any(codes):
        for r in ranks:
            r.kill()
        raise SystemExit(f"{name}: a rank failed, see {logs}/{name}_rank*.log")
    return json.loads(result.read_text())


def summary(rounds: list[dict[str, Any]], work: Cost, prompt: int, trainer: Any) -> dict[str, Any]:
    """Medians over all updates; each is compared with the ceiling just before it, so that a busy machine cancels."""
    samples, lengths = [s for r in rounds for s in r["samples"]], rounds[0]["lengths"]
    positions = [prompt + n - 1 for n in lengths]  # the last token is a target only
    once = sum(work.forward(positions, sum(lengths))) * trainer.ranks
    own, computed = (f * trainer.ranks for f in work.update(positions, sum(lengths), trainer.recompute))
    seconds, logprob_s = (statistics.median(s[k] for s in samples) for k in ("update_s", "logprob_s"))

    def share(flops: float, of: str) -> float:
        return statistics.median(flops / s[of] / s["ceiling"] for s in samples)

    return {
        "trained_per_s": sum(lengths) * trainer.ranks / seconds,
        "all_per_s": sum(positions) * trainer.ranks / seconds,
        "full": sum(positions) * trainer.ranks / rounds[0]["computed_tokens"],
        "update_s": seconds,
        "update_tflop": own / 1e12,
        "mfu": share(own, "update_s"),
        "hfu": share(computed, "update_s"),
        "logprob_s": logprob_s,
        "logprob_mfu": share(once, "logprob_s"),
        "ceiling_gflops": max(s["ceiling"] for s in samples) / 1e9,
        "peak_gib": max(r["peak_gib"] for r in rounds),
        "rounds": rounds,
    }


def table(rows: dict[str, dict[str, Any]]) -> str:
    heads = ("variant", "trained tokens/s", "all tokens/s", "not padding", "update", "MFU", "HFU", "log-probs",
             "MFU of it", "memory a rank")  # fmt: skip
    lines = [f"| {' | '.join(heads)} |", "|---|" + "---:|" * (len(heads) - 1)]
    for name, r in rows.items():
        full, mfu, hfu, logprob = (f"{100 * r[k]:.1f} %" for k in ("full", "mfu", "hfu", "logprob_mfu"))
        cells = (name, f"{r['trained_per_s']:,.0f}", f"{r['all_per_s']:,.0f}", full, f"{r['update_s']:.3f} s",
                 mfu, hfu, f"{r['logprob_s']:.3f} s", logprob, f"{r['peak_gib']:.2f} GiB")  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", metavar="CONFIG or key=value")
    parser.add_argument("--model", default="")
    parser.add_argument("--shape", default="", choices=("", "ling-lite"))
    for name, value in (("layers", 28), ("experts", 64), ("hidden", 2048), ("vocab", 126_464)):
        parser.add_argument(f"--{name}", type=int, default=value, help="of --shape")
    parser.add_argument("--tokens", type=int, default=0, help="trained, per rank and update; 0 = Φ / ranks")
    parser.add_argument("--prompt", type=int, default=32, help="tokens before every response, not trained")
    parser.add_argument("--median", type=float, default=0, help="response length; 0 = max_total_tokens / 6")
    parser.add_argument("--sigma", type=float, default=0.8, help="of the logarithm of response lengths")
    for name, count in (("rounds", 3), ("warmup", 1), ("updates", 3)):
        parser.add_argument(f"--{name}", type=int, default=count)
    parser.add_argument("--profile", action="store_true", help="the operators that take longest, of one more update")
    parser.add_argument("--out", type=Path, default=Path("runs/bench_train"))
    return parser.parse_intermixed_args()


def report(cfg: RLConfig, work: Cost, rows: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Print what was measured, and return the whole of it."""
    first = next(iter(rows.values()))["rounds"][0]
    lengths, ceiling = first["lengths"], max(r["ceiling_gflops"] for r in rows.values())
    print(f"{cfg.trainer.ranks} rank(s) of {first['threads']} thread(s) on {first['device']}, {cfg.trainer.dtype}; a "
          f"token meets {(work.layers + work.head) / 1e6:,.2f} M weights; each rank has {len(lengths)} responses of "
          f"{min(lengths)} to {max(lengths)} tokens, {sum(lengths)} in all; ceiling {ceiling:,.0f} GFLOP/s\n",
          )  # fmt: skip
    print(table(rows))
    for name, r in rows.items():
        if operators := r["rounds"][0]["operators"]:
            named = (f"{o['name']} {100 * o['share']:.1f} % ({o['calls']} calls)" for o in operators)
            print(f"\n{name}: {', '.join(named)}")
    machine = {"device": first["device"], "cores": os.cpu_count(), "threads_per_rank": first["threads"]}
    versions = {p: version(p) for p in ("torch", "transformers", "deepspeed", "ringrl")}
    return {"command": sys.argv, "machine": machine, "versions": versions, "cost": asdict(work), "rows": rows}


def main() -> None:
    args = parse()
    (logs := args.out / "logs").mkdir(parents=True, exist_ok=True)
    try:
        cfg = settings(args)
    except ConfigError as e:
        raise SystemExit(str(e)) from None
    if args.shape:
        build_shape(args, args.out / "model")
    (config := args.out / "config.yaml").write_text(dump(cfg))
    stage, trainer, work = cfg.stages[0], cfg.trainer, read_shape(cfg.model).cost
    spec = {
        "parent": os.getpid(), "config": str(config), "prompt": args.prompt, "sigma": args.sigma,
        "tokens": args.tokens or cfg.update_phi(stage) // trainer.ranks, "cap": stage.max_total_tokens - args.prompt,
        "median": args.median or stage.max_total_tokens / 6, "warmup": args.warmup, "updates": args.updates,
    }  # fmt: skip
    variants = [(packing, expert) for expert in sorted({1, trainer.ranks}) for packing in (True, False)]
    rounds: dict[str, list[dict[str, Any]]] = {}
    for i in range(args.rounds):
        for packing, expert in variants:
            name = f"{'packed' if packing else 'padded'}, expert {expert}"
            overrides = [f"trainer.packing={packing}", f"trainer.parallel.expert={expert}"]
            own_spec = {**spec, "overrides": overrides, "profile": args.profile and i == 0}
            rounds.setdefault(name, []).append(run_variant(name, own_spec, trainer, logs))
            print(f"round {i + 1} of {args.rounds}: {name}", file=sys.stderr)
    rows = {name: summary(r, work, args.prompt, trainer) for name, r in rounds.items()}
    (args.out / "bench_train.json").write_text(json.dumps(report(cfg, work, rows), indent=1))


if __name__ == "__main__":
    main()
