"""What SFT's data costs besides the model: seconds to the first step, and memory of rank 0, against the tokens it has.

    python scripts/bench_tokens.py OUT --millions 1,10,50

For each size rows of about 180 tokens are made up, and `ringrl sft` of a tiny model is started twice, one rank: the
first start tokenises, the second finds the tokens on disk. Each runs until STEPS steps are done. Memory is VmRSS of the
rank after these, and its highest. Prints a table, whose last line is the growth from the smallest size to the largest,
and writes OUT/tokens.json with machine and versions.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from ringrl.data.tiny import build_model
from ringrl.processes import descendants

STEPS = 20
LIMIT_S = 3600.0
BYTES = 1.86  # of text, to a token of this tokenizer
WORDS = ["".join(random.Random(i).choices("abcdefghijklmnop", k=3 + i % 5)) for i in range(400)]


def build(folder: Path, millions: float) -> None:
    rng = random.Random(0)
    left = millions * 1e6 * BYTES
    with (folder / "rows.jsonl").open("w") as file:
        while left > 0:
            text = " ".join(rng.choices(WORDS, k=int(min(1000, 1 + rng.lognormvariate(3.7, 0.8)))))
            talk = [{"role": "user", "content": "Go on."}, {"role": "assistant", "content": text}]
            file.write(json.dumps({"messages": talk}) + "\n")
            left -= len(text) + 20
    build_model(folder / "model", WORDS, 0, layers=1, hidden=32, experts=2, moe_intermediate=32)
    config = {"run": str(folder / "run"), "model": str(folder / "model"),
              "data": {"files": [str(folder / "rows.jsonl")]},
              "trainer": {"ranks": 1, "dtype": "float32", "microbatch_tokens": 4096}, "epochs": 1, "batch_examples": 16,
              "prompting": {"suffix": {}}, "max_tokens": 4096, "save_every": 10**9}  # fmt: skip
    (folder / "sft.yaml").write_text(yaml.safe_dump(config))


def start(folder: Path) -> dict[str, float]:
    """Seconds to the first step, and MiB of the rank after STEPS of them."""
    shutil.rmtree(folder / "run", ignore_errors=True)
    environment = os.environ | {"RINGRL_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    began = time.monotonic()
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([sys.executable, "-m", "ringrl", "sft", str(folder / "sft.yaml")], env=environment,
                                   stdout=log, stderr=log)  # fmt: skip
    found: dict[str, float] = {}
    while (done := steps(folder / "run" / "metrics.jsonl")) < STEPS:
        if process.poll() is not None or time.monotonic() - began > LIMIT_S:
            raise SystemExit(f"no {STEPS} steps: {(folder / 'log').read_text()[-2000:]}")
        if done and "first_step_s" not in found:
            found["first_step_s"] = time.monotonic() - began
        time.sleep(0.05)
    rank = next(
        pid for pid in descendants(process.pid) if b"ringrl.launch.rank" in Path(f"/proc/{pid}/cmdline").read_bytes()
    )
    status = Path(f"/proc/{rank}/status").read_text().splitlines()
    sizes = {line.split(":")[0]: int(line.split()[1]) / 1024 for line in status if line.startswith(("VmRSS", "VmHWM"))}
    process.terminate()
    process.wait(LIMIT_S)
    return found | {"rss_mib": sizes["VmRSS"], "highest_mib": sizes["VmHWM"]}


def steps(file: Path) -> int:
    return file.read_bytes().count(b"\n") if file.is_file() else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--millions", default="1,10,50")
    options = parser.parse_args()
    out, rows = options.out.absolute(), []
    for millions in map(float, options.millions.split(",")):
        shutil.rmtree(folder := out / f"{millions:g}M", ignore_errors=True)
        folder.mkdir(parents=True)
        build(folder, millions)
        for nth in ("first", "second"):
            row: dict[str, Any] = {"start": nth, **start(folder)}
            about = json.loads(next((folder / "cache").glob("*/about.json")).read_text())
            rows.append({"tokens": about["tokens"] // 4, "examples": about["counts"]["sequences"], **row})
            print(json.dumps(rows[-1]), flush=True)
        shutil.rmtree(folder)
    machine = {"machine": platform.platform(), "cores": os.cpu_count()}
    versions = {name: version(name) for name in ("torch", "transformers", "tokenizers", "numpy")}
    (out / "tokens.json").write_text(json.dumps({**machine, "versions": versions, "rows": rows}, indent=1))
    print("| tokens | examples | start | seconds to the first step | MiB of the rank | at its highest |")
    print("|---:|---:|---|---:|---:|---:|")
    for row in rows:
        print(f"| {row['tokens']:,} | {row['examples']:,} | {row['start']} | {row['first_step_s']:.1f} | "
              f"{row['rss_mib']:,.0f} | {row['highest_mib']:,.0f} |")  # fmt: skip
    for nth in ("first", "second"):
        some = [row["rss_mib"] for row in rows if row["start"] == nth]
        print(f"{nth} start: {some[-1] - some[0]:+.0f} MiB from the smallest to the largest")


if __name__ == "__main__":
    main()
