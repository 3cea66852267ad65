"""The demo over several seeds: held-out avg@8 after every stage, gains, and their standard errors over seeds.

    python scripts/bench_demo.py --seeds 0,1,2 --out runs/bench

Each seed makes its own inputs (data, tokenizer, start model) and its own run. Finished seeds are not run again.
Prints a Markdown table and writes OUT/bench_demo.json with machine and versions.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import yaml

CONFIG = Path(__file__).parents[1] / "configs" / "tiny" / "run.yaml"


def run_seed(seed: int, out: Path) -> dict:
    """The summary of one seed's run, with the checks over its metrics."""
    inputs, run = out / f"inputs_{seed}", out / f"seed_{seed}"
    ringrl = [sys.executable, "-m", "ringrl"]
    if not inputs.exists():
        subprocess.run([*ringrl, "tiny", str(inputs), "--seed", str(seed)], check=True)
    config = out / f"seed_{seed}.yaml"
    text = CONFIG.read_text().replace("runs/tiny/", f"{inputs}/").replace("runs/demo", str(run))
    config.write_text(yaml.safe_dump({**yaml.safe_load(text), "seed": seed}))
    if not (run / "summary.json").is_file():
        subprocess.run([*ringrl, "run", str(config), "--resume"], check=True)
    summary = json.loads((run / "summary.json").read_text())
    metrics = [json.loads(line) for line in (run / "rl" / "metrics.jsonl").read_text().splitlines()]
    selection = json.loads((run / "select" / "selection.json").read_text())
    chosen = next(r for r in selection["rows"] if r["name"] == selection["chosen"])
    return {
        "seed": seed,
        "rows": summary["rows"],
        "seconds": sum(summary["seconds"].values()),
        "chosen": {k: chosen[k] for k in ("name", "epoch", "entropy", "score", "in_band")},
        "best_score_would_choose": selection["by_score"],
        "steps_with_exactly_phi": [sum(r["tokens_trained"] == r["phi"] for r in metrics), len(metrics)],
        "reward_errors": sum(r["reward_errors"] for r in metrics),
        "largest_parity": max(r["parity"] for r in metrics),
    }


def mean_se(values: list[float]) -> str:
    """In points, with the standard error over seeds."""
    se = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else float("nan")
    return f"{100 * statistics.fmean(values):.1f} ± {100 * se:.1f}"


def table(results: list[dict]) -> str:
    """Stages down, domains across; then the gains that the demo promises."""
    stages = [r["stage"] for r in results[0]["rows"]]
    domains = list(results[0]["rows"][0]["scores"])
    score = {
        (stage, d): [r["rows"][i]["scores"][d]["score"] for r in results]
        for i, stage in enumerate(stages)
        for d in domains
    }
    lines = ["| after | " + " | ".join(domains) + " |", "|---|" + "---:|" * len(domains)]
    lines += [f"| {s} | " + " | ".join(mean_se(score[s, d]) for d in domains) + " |" for s in stages]
    first, middle, last = stages[0], stages[1], stages[-1]

    def gain(d: str, a: str, b: str) -> list[float]:
        return [y - x for x, y in zip(score[a, d], score[b, d], strict=True)]

    both = [(x + y) / 2 for x, y in zip(gain("code", middle, last), gain("science", middle, last), strict=True)]
    lines += [
        "",
        f"math, {first} to {middle}: {mean_se(gain('math', first, middle))} points",
        f"code + science, {middle} to {last}: {mean_se(both)} points",
        f"math, {middle} to {last}: {mean_se(gain('math', middle, last))} points",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--out", type=Path, default=Path("runs/bench"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    results = [run_seed(int(s), args.out) for s in args.seeds.split(",")]
    machine = {"cores": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
    versions = {p: version(p) for p in ("torch", "transformers", "deepspeed", "ringrl")}
    (args.out / "bench_demo.json").write_text(
        json.dumps({"machine": machine, "versions": versions, "results": results}, indent=2)
    )
    print(table(results))
    for r in results:
        exact, steps = r["steps_with_exactly_phi"]
        start = r["chosen"]
        print(
            f"seed {r['seed']}: {r['seconds'] / 60:.1f} min; start {start['name']} (epoch {start['epoch']:.1f}, "
            f"entropy {start['entropy']:.3f}; best score would choose {r['best_score_would_choose']}); "
            f"exactly Φ in {exact} of {steps} steps; reward errors {r['reward_errors']}; "
            f"largest parity gap {r['largest_parity']:.1e}"
        )


if __name__ == "__main__":
    main()
