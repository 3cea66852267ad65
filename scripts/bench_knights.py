"""RL on reasoning-gym's Knights and Knaves with the tiny model: held-out mean before and after, over several seeds.

    python scripts/bench_knights.py --seeds 0,1,2 --out runs/knights

Each seed has its own tokenizer, start model, SFT data, RL problems and run; the held-out problems are the same for
all. The teacher of the SFT data is right in both of its styles: at once ("Surely."), where a small model must guess,
or case by case from the statements. So supervised training copies the mixture and its own mistakes in reading, and
reinforcement learning has something to find. Continues where it was stopped; a line of OUT/results.jsonl for every
finished seed. Prints a Markdown table. docs/reasoning_gym.md has the protocol.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import random
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ringrl.data.source import read_rows

CONFIGS = Path(__file__).parents[1] / "configs" / "tiny" / "knights_knaves"
CAREFUL = 0.6  # share of careful responses
EXAMPLES, VALIDATION, LISTS = 9000, 100, 2400
SFT_SEED, RL_SEED = 10_000_000, 20_000_000  # of the generator, plus a million times the run's; held out is seed 0
PEOPLE = "ABCDEFGH"
QUOTES = re.compile(r'"([^"]+?)[.,]?"(?= |\.)|that ([^".]+)\.')  # the statements of a problem
NAMES = re.compile(r"inhabitants: (.*?)\.")  # of a problem
TRUTH = {"telling-truth": True, "lying": False}
OPPOSITE = {"telling-truth": "lying", "lying": "telling-truth"}
JOINS = {"and": "and", "or": "or", "->": "then", "<=>": "equals"}

Row = dict[str, Any]
Statement = Sequence[Any]  # as the generator's metadata have it: ["and", ["lying", 0], ["telling-truth", 1]]


# ---- the teacher -------------------------------------------------------------------------------------------


def teach(entry: Row, rng: random.Random) -> str:
    """A right response, careful or quick."""
    thought = careful(entry["question"], entry["metadata"]) if rng.random() < CAREFUL else "Surely."
    return f"<think>{thought}</think><answer>{entry['answer']}</answer>"


def careful(problem: str, puzzle: Row) -> str:
    """Everybody gets a letter, statements are quoted and said in short, then cases are gone through until one in which
    everybody's statement is as true as they are."""
    names, statements = puzzle["names"], puzzle["statements"]
    quotes = [a or b for a, b in QUOTES.findall(problem)]
    lines = [", ".join(f"{PEOPLE[i]} {name}" for i, name in enumerate(names)) + "."]
    lines += [f'{PEOPLE[i]}: "{quotes[i]}" {short(s)}.' for i, s in enumerate(statements)]
    for case in itertools.product((True, False), repeat=len(statements)):
        found = tuple(holds(s, case) for s in statements)
        lines.append(f"{words(case)}: {words(found)}" + (" good" if found == case else ";"))
        if found == case:
            break
    return " ".join(lines)


def words(values: Sequence[bool]) -> str:
    return " ".join("yes" if v else "no" for v in values)


def short(statement: Statement) -> str:
    """`A yes and B no`: the first inhabitant tells the truth, and the second lies."""
    kind, *parts = statement
    if kind == "not" and parts[0][0] in TRUTH:  # as the problem's text has it
        return short((OPPOSITE[parts[0][0]], parts[0][1]))
    if kind in TRUTH:
        return f"{PEOPLE[parts[0]]} {words([TRUTH[kind]])}"
    inner = [short(p) for p in parts]
    return f"not {inner[0]}" if kind == "not" else f" {JOINS[kind]} ".join(inner)


def holds(statement: Statement, case: Sequence[bool]) -> bool:
    """Whether a statement is true when `case` says who tells the truth."""
    kind, *parts = statement
    if kind in TRUTH:
        return case[parts[0]] == TRUTH[kind]
    inner = [holds(p, case) for p in parts]
    if kind == "->":
        return not inner[0] or inner[1]
    return {"not": not inner[0], "and": all(inner), "or": any(inner), "<=>": len(set(inner)) == 1}[kind]


# ---- one seed ----------------------------------------------------------------------------------------------


def run_seed(seed: int, out: Path) -> Row:
    """SFT and RL of one seed, as the command line runs them; what was finished before is not run again."""
    folder, begun = out / f"seed_{seed}", time.perf_counter()
    if not (folder / "model").is_dir():
        make_inputs(folder, seed)
    warm = sft(folder, "lists", folder / "model", seed, "epochs=1", "batch_examples=12", "optimizer.schedule=constant")
    start = sft(folder, "sft", warm, seed)
    problems = f"reasoning-gym:knights_knaves?size=2000&seed={RL_SEED + seed * 1_000_000}"
    ringrl("rl", f"run={folder / 'rl'}", f"model={start}", f"seed={seed}", f"stages.0.data.0.files=['{problems}']")
    evals = [json.loads(line) for line in (folder / "rl" / "evals.jsonl").read_text().splitlines()]
    steps = [json.loads(line) for line in (folder / "rl" / "metrics.jsonl").read_text().splitlines()]
    return {
        "seed": seed,
        "held_out": {row["step"]: row["avg"] for row in evals},
        "length": [steps[0]["response_length_mean"], steps[-1]["response_length_mean"]],
        "reward_errors": sum(row["reward_errors"] for row in steps),
        "largest_parity": max(row["parity"] for row in steps),
        "minutes": (time.perf_counter() - begun) / 60,
    }


def sft(folder: Path, name: str, model: Path, seed: int, *more: str) -> Path:
    """The last checkpoint of an SFT on NAME.jsonl."""
    files = {
        key: f"{key}={{files: [{folder / file}.jsonl]}}" for key, file in (("data", name), ("validation", "sft_val"))
    }
    ringrl("sft", f"run={folder / name}", f"model={model}", f"seed={seed}", *files.values(), *more)
    return sorted((folder / name / "checkpoints").glob("step_*"))[-1]


def make_inputs(folder: Path, seed: int) -> None:
    """SFT data by the teacher, and a start model whose tokenizer has read them; lists of the names that occur."""
    from ringrl.data.tiny import build_model

    folder.mkdir(parents=True, exist_ok=True)
    rows = list(conversations(seed))
    names = sorted({name for row in rows for name in NAMES.search(row["messages"][0]["content"])[1].split(", and ")})
    parts = {"sft": rows[VALIDATION:], "sft_val": rows[:VALIDATION], "lists": list(lists(names, seed))}
    for name, part in parts.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    build_model(
        folder / "model", (m["content"] for row in rows for m in row["messages"]), seed, vocab_size=768, tied=True
    )


def conversations(seed: int) -> Iterator[Row]:
    """SFT rows: a problem and the teacher's response."""
    rng = random.Random(seed)
    name = f"reasoning-gym:knights_knaves?size={EXAMPLES + VALIDATION}&seed={SFT_SEED + seed * 1_000_000}"
    for _, row in read_rows(name):
        yield conversation(row["problem"], teach(row["entry"], rng))


def lists(names: Sequence[str], seed: int) -> Iterator[Row]:
    """Names, said three times: what a raw model learns copying from in two hundred steps, and not from problems."""
    rng = random.Random(seed)
    for _ in range(LISTS):
        yield conversation("Names.", " ".join(rng.sample(names, 12) * 3))


def conversation(user: str, assistant: str) -> Row:
    return {"messages": [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]}


def ringrl(command: str, *more: str) -> None:
    config = CONFIGS / f"{command}.yaml"
    subprocess.run([sys.executable, "-m", "ringrl", command, str(config), *more, "--resume"], check=True)


# ---- all of them -------------------------------------------------------------------------------------------


def mean_error(values: Sequence[float]) -> tuple[float, float]:
    """Mean and its standard error over seeds."""
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return statistics.fmean(values), error


def table(results: list[Row]) -> str:
    """Held-out mean by step, in points, then the paired difference of last and first."""
    steps = sorted(map(int, results[0]["held_out"]))
    lines = ["| step | held-out mean | by seed |", "|---:|---:|---|"]
    scores = {step: [100 * r["held_out"][str(step)] for r in results] for step in steps}
    rows: list[tuple[str, list[float]]] = [(str(step), scores[step]) for step in steps]
    gains = [b - a for a, b in zip(scores[steps[0]], scores[steps[-1]], strict=True)]
    for name, values in [*rows, ("gain", gains)]:
        mean, error = mean_error(values)
        lines.append(f"| {name} | {mean:.1f} ± {error:.1f} | {', '.join(f'{v:.1f}' for v in values)} |")
    mean, error = mean_error(gains)
    return "\n".join([*lines, "", f"The gain is {mean / error:.1f} standard errors."])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--out", type=Path, default=Path("runs/knights"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    path, wanted = args.out / "results.jsonl", [int(s) for s in args.seeds.split(",")]
    done = {r["seed"]: r for r in map(json.loads, path.read_text().splitlines())} if path.is_file() else {}
    for seed in wanted:
        if seed not in done:
            done[seed] = json.loads(json.dumps(run_seed(seed, args.out)))
            with path.open("a") as file:
                file.write(json.dumps(done[seed]) + "\n")
    print(table([done[seed] for seed in wanted]))


if __name__ == "__main__":
    main()
