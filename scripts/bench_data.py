"""What `ringrl data` finds, and how fast it is.

    python scripts/bench_data.py faults --gsm8k DIR --math DIR   DIR/{train,test}.jsonl, DIR/{aime24,aime25,amc23}.jsonl
    python scripts/bench_data.py heldout --gsm8k DIR --math DIR   as `faults`
    python scripts/bench_data.py meaning --gsm8k DIR --embedding DIR   as `decontaminate.embedding.model`
    python scripts/bench_data.py rate --rows 30000,100000,300000,1000000 --processes 1,2 [--words 330]
    python scripts/bench_data.py compare --rows 50000,200000 --datatrove PYTHON   of an environment with datatrove

`faults` plants over 500 faults of all kinds (plant.py) among GSM8K's problems, runs the chain and says which were found
and what else was dropped; then what GSM8K's test set has in common with its training set. `heldout` says by
kind which of 300 faults were found and which of 300 honest neighbours were lost, none of which a rule was written for
(heldout.py), and lists both. `meaning` tells how many paraphrases of the test set, and how many rows of the training
set, an embedding model finds from which cosine on.
`rate` generates rows and says rows per second of every step, and memory: the sum over all processes of their
proportional set sizes, twice a second, at its peak. `compare` puts deduplication and decontamination of such rows
beside datatrove's (bench_datatrove.py). All print tables and write OUT/{faults,heldout,meaning,rate,compare}.json with
machine and versions.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import random
import shutil
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import heldout
import yaml
from plant import COPIES, LEAKS, plant

from ringrl.processes import descendants

Row = dict[str, Any]
EXACT = ("copy: exact", "copy: white space", "copy: case, punctuation", "copy: LaTeX retyped",
         "leak: white space", "leak: LaTeX retyped", "leak: quoted")  # fmt: skip
NEAR = tuple(f"copy: {k}" for k in COPIES) + tuple(f"leak: {k}" for k in LEAKS)
# GSM8K's test problems, paraphrased by hand
PARAPHRASES = Path(__file__).parents[1] / "tests" / "curate" / "paraphrases.jsonl"
COSINES = (0.8, 0.85, 0.9, 0.95)
SYLLABLES = [c + v for c in "bcdfghklmnprstvz" for v in "aeiou"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("faults", "heldout", "meaning", "rate", "compare"))
    parser.add_argument("--gsm8k", type=Path)
    parser.add_argument("--math", type=Path)
    parser.add_argument("--embedding", help="a model folder")
    parser.add_argument("--each", type=int, default=20, help="faults of every kind")
    parser.add_argument("--seed", type=int, default=0, help="of the faults")
    parser.add_argument("--rows", default="30000,100000,300000")
    parser.add_argument("--processes", default="1,2")
    parser.add_argument("--words", type=int, default=34, help="of a generated row, numbers aside")
    parser.add_argument("--datatrove", default="", help="an executable of Python")
    parser.add_argument("--out", type=Path, default=Path("runs/bench_data"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    benches = {"faults": faults, "heldout": held_out, "meaning": meaning, "rate": rate, "compare": compare}
    results = benches[args.what](args)
    facts = {"cores": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version(),
             "ringrl": version("ringrl"), "rensa": version("rensa")}  # fmt: skip
    file = args.out / f"{args.what}.json"
    file.write_text(json.dumps({**results, "machine": facts}, indent=1) + "\n")
    print(f"\n{file}")


# ---- faults ----


def faults(args: argparse.Namespace) -> dict[str, Any]:
    rows = [
        {k: r[k] for k in ("question", "answer")}
        for name in ("train", "test")
        for r in lines(args.gsm8k / f"{name}.jsonl")
    ]
    known = [r for name in ("aime24", "aime25", "amc23") for r in lines(args.math / f"{name}.jsonl")]
    pile = args.out / "pile.jsonl"
    planted = plant(rows, known, args.each, args.seed)
    pile.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in planted))
    source = {"name": "pile", "files": [str(pile)], "columns": {"problem": "question"}}
    cfg = {
        "sources": [source],
        "steps": ["cleanse", "deduplicate", "decontaminate", "annotate", "mix"],
        "decontaminate": {"benchmarks": ["aime24", "aime25", "amc23"], "data": str(args.math)},
    }
    run, seconds, peak = timed_run(args.out / "faults", cfg)
    kinds = judge_faults(planted, dropped_rows(run))
    faulty = sum(k["planted"] for k in kinds.values())
    print(f"{len(rows):,} problems, {faulty:,} faults: {seconds:.0f} s, {peak:.2f} GiB\n")
    print_table([{"kind": name, **row} for name, row in kinds.items()])
    shares = {name: share_found(kinds, of) for name, of in (("exact", EXACT), ("near", NEAR), ("all", tuple(kinds)))}
    others = [r for r in dropped_rows(run) if r.get("planted") is None and not is_original(r, planted)]
    right = sum(k["found"] for k in kinds.values())
    print("\nrecall:", ", ".join(f"{name} {share:.3f}" for name, share in shares.items()))
    print(f"dropped besides: {len(others)}; precision {right / (right + len(others)):.3f}")
    for row in others:
        why = row.get("detail") or row.get("twin") or ""
        print(f"  {row['step']}: {row['reason']}: {why} | {row.get('problem', '')[:150]!r}")
    return {"kinds": kinds, "recall": shares, "others": others, "seconds": seconds, "peak_gib": peak,
            "test_in_train": overlap(args)}  # fmt: skip


def overlap(args: argparse.Namespace) -> dict[str, Any]:
    """Rows of GSM8K's training set, and paraphrases of its test set, that are dropped because of the test set."""
    dropped = dropped_rows(against_test(args)[0])
    training_rows = [r for r in dropped if r["source"] == "train"]
    paraphrases = share_of_paraphrases(dropped)
    print("\nparaphrases found:", ", ".join(f"{kind} {n}" for kind, n in paraphrases.items()))
    print(f"\nGSM8K's training set against its test set: {len(training_rows)} of 7,473 rows")
    for row in training_rows:
        measure = row.get("share") or row.get("similarity")
        print(f"  {row['reason']} ({measure}), {row['where'].rpartition('/')[2]} and {row['twin']}")
        print(f"    {row['problem'][:160]!r}\n    {row.get('twin_text', '')[:160]!r}")
    return {"rows": training_rows, "paraphrases": paraphrases}


def against_test(args: argparse.Namespace, **more: Any) -> tuple[Path, float, float]:
    folder = args.out / "benchmarks"
    folder.mkdir(exist_ok=True)
    shutil.copy(args.gsm8k / "test.jsonl", folder / "gsm8k.jsonl")
    train = {"name": "train", "files": [str(args.gsm8k / "train.jsonl")], "columns": {"problem": "question"}}
    other = {"name": "paraphrases", "files": [str(PARAPHRASES)]}
    known = {"benchmarks": ["gsm8k"], "data": str(folder), **more}
    cfg = {"sources": [train, other], "steps": ["decontaminate"], "decontaminate": known}
    return timed_run(args.out / "overlap", cfg)


def share_of_paraphrases(dropped: Sequence[Row]) -> dict[str, str]:
    planted, hit = Counter(r["kind"] for r in lines(PARAPHRASES)), Counter(r.get("kind") for r in dropped)
    return {kind: f"{hit[kind]} of {n}" for kind, n in planted.items()}


def meaning(args: argparse.Namespace) -> dict[str, Any]:
    """Rows dropped by words or by meaning, for several least cosines."""
    run, seconds, peak = against_test(args, embedding={"model": args.embedding, "similarity": COSINES[0]})
    dropped = dropped_rows(run)
    cosine = {r["id"]: r["similarity"] if "same meaning" in r["reason"] else 1.0 for r in dropped}
    table = []
    for least in COSINES:
        above = [r for r in dropped if cosine[r["id"]] >= least]
        train = sum(r["source"] == "train" for r in above)
        table.append({"cosine": least, **share_of_paraphrases(above), "training rows": train})
    print(f"{seconds:.0f} s, {peak:.2f} GiB\n")
    print_table(table)
    for row in sorted(dropped, key=lambda r: -cosine[r["id"]]):
        if row["source"] == "train" and COSINES[1] <= cosine[row["id"]] < 1:
            print(f"  {cosine[row['id']]}\n    {row['problem'][:160]!r}\n    {row['twin_text'][:160]!r}")
    return {"table": table, "rows": dropped, "seconds": seconds, "peak_gib": peak}


def judge_faults(planted: Sequence[Row | str], dropped: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """How many of every kind were planted and found. A copy is found when it or its original is dropped."""
    steps: dict[str, Counter[str]] = defaultdict(Counter)
    gone = {r.get("problem"): r for r in dropped}
    for row in planted:
        if isinstance(row, str) or row.get("planted"):
            kind = "malformed line" if isinstance(row, str) else row["planted"]
            steps[kind]["planted"] += 1
            if isinstance(row, str):
                continue
            texts = [row["question"], row["copy_of"]] if kind.startswith("copy") else [row["question"]]
            if hit := next((gone[t.strip()] for t in texts if t.strip() in gone), None):
                steps[kind]["found"] += 1
                steps[kind][f"{hit['step']}: {hit['reason']}"] += 1
    steps["malformed line"]["found"] = sum(r["reason"] == "malformed" for r in dropped)
    return {
        kind: {
            "planted": c.pop("planted"),
            "found": c.pop("found", 0),
            "as": ", ".join(f"{k} {v}" for k, v in c.items()),
        }
        for kind, c in sorted(steps.items())
    }


def is_original(row: Row, planted: Sequence[Row | str]) -> bool:
    """Whether a copy was planted of this row: one of the two has to go. Malformed lines are planted as well."""
    originals = {r["copy_of"].strip() for r in planted if isinstance(r, dict) and "copy_of" in r}
    return row["reason"] == "malformed" or row.get("problem") in originals


def share_found(kinds: dict[str, dict[str, Any]], of: Iterable[str]) -> float:
    chosen = [kinds[k] for k in of]
    return sum(k["found"] for k in chosen) / sum(k["planted"] for k in chosen)


# ---- held out ----


def held_out(args: argparse.Namespace) -> dict[str, Any]:
    gsm8k = [{"problem": r["question"], "answer": r["answer"]} for r in lines(args.gsm8k / "train.jsonl")]
    contest, known, more = (lines(args.math / f"{name}.jsonl") for name in ("aime24", "aime25", "amc23"))
    rows, chinese = heldout.made(gsm8k, contest, known + more, args.seed)
    rows = heldout.shuffled(rows, args.seed)
    for name, content in (("heldout", rows), ("chinese", chinese)):
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content)
        (args.out / f"{name}.jsonl").write_text(text, encoding="utf-8")
    cfg = {
        "sources": [{"name": "heldout", "files": [str(args.out / "heldout.jsonl")]}],
        "steps": ["cleanse", "deduplicate", "decontaminate", "distil"],
        "cleanse": {"answers": "checked"},
        "decontaminate": {
            "benchmarks": ["aime25", "amc23"], "data": str(args.math), "files": [str(args.out / "chinese.jsonl")]
        },
    }  # fmt: skip
    run, seconds, peak = timed_run(args.out / "heldout", cfg)
    table, missed, lost = judge_held_out(rows, dropped_rows(run))
    print_table(table)
    for title, wrong in (("faults missed", missed), ("honest rows lost", lost)):
        print(f"\n{title}:")
        for row in wrong:
            print(f"  {row['kind']}: {row['why']} {row['text'][:160]!r} | {row['answer'][:40]!r}")
    return {"table": table, "missed": missed, "lost": lost, "seconds": seconds, "peak_gib": peak}


def judge_held_out(rows: Sequence[Row], dropped: Sequence[Row]) -> tuple[list[Row], list[Row], list[Row]]:
    """(a row of the table per kind and one for all, faults missed, honest groups of which too much was dropped)."""
    gone: dict[int, list[Row]] = defaultdict(list)
    for row in dropped:  # a response has only the id of its row
        gone[rows[int(row["id"].rpartition("/")[2])]["group"]].append(row)
    groups: dict[int, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row["group"]].append(row)
    counts: dict[tuple[str, str], Counter[bool]] = defaultdict(Counter)
    wrong: dict[str, list[Row]] = {"fault": [], "honest": []}
    for n, group in sorted(groups.items()):
        group.sort(key=lambda row: not ("fault" in row or "honest" in row))
        label, kind = next((k, group[0][k]) for k in wrong if k in group[0])
        least = {"en contradiction": 2, "en answer written otherwise": 2}.get(kind, 1)  # rows that make a difference
        hit = len(gone[n]) >= least
        counts[label, kind][hit] += 1
        if hit == (label == "honest"):
            why = ", ".join(f"[{r['step']}: {r['reason']}; {str(r.get('detail', ''))[:80]}]" for r in gone[n])
            wrong[label].append({"kind": kind, "why": why, "text": group[0]["problem"], "answer": group[0]["answer"]})
    table = [_of_kind(label, kind, c) for (label, kind), c in counts.items()]
    found, honest = (sum((c for (of, _), c in counts.items() if of == label), Counter()) for label in wrong)
    table += [_of_kind("fault", "all", found), _of_kind("honest", "all", honest)]
    table.append(_share("precision", "all", found[True], found[True] + honest[True]))
    return table, wrong["fault"], wrong["honest"]


def _of_kind(label: str, kind: str, counts: Counter[bool]) -> Row:
    return _share("found" if label == "fault" else "kept", kind, counts[label == "fault"], counts.total())


def _share(what: str, kind: str, hits: int, of: int) -> Row:
    low, high = wilson(hits, of)
    return {"what": what, "kind": kind, "n": f"{hits} of {of}", "95 %": f"{low:.2f} to {high:.2f}"}


def wilson(hits: int, of: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's interval of a share."""
    if not of:
        return 0.0, 1.0
    share, spread = hits / of, z * math.sqrt(hits * (of - hits) / of**3 + z * z / (4 * of * of))
    middle = share + z * z / (2 * of)
    return max(0.0, (middle - spread) / (1 + z * z / of)), min(1.0, (middle + spread) / (1 + z * z / of))


# ---- rate ----


def rate(args: argparse.Namespace) -> dict[str, Any]:
    table = []
    for rows in map(int, args.rows.split(",")):
        pile = args.out / f"generated_{rows}.jsonl"
        generate(pile, rows, args.words)
        for processes in map(int, args.processes.split(",")):
            cfg = {
                "sources": [{"name": "generated", "files": [str(pile)]}],
                "steps": ["cleanse", "deduplicate", "decontaminate", "mix"],
                "decontaminate": {"benchmarks": [], "files": [str(args.out / "known.jsonl")]},
                "workers": processes,
            }
            run, seconds, peak = timed_run(args.out / f"rate_{rows}_{processes}", cfg)
            steps = summaries(run)
            row = {"rows": rows, "processes": processes, "rows/s": round(rows / seconds), "peak GiB": round(peak, 2)}
            row |= {f"{name}, rows/s": round(rows / max(s["seconds"], 0.1)) for name, s in steps.items()}
            row["duplicates"] = sum(sum(s.values()) for s in steps["deduplicate"]["dropped"].values())
            row["known"] = sum(sum(s.values()) for s in steps["decontaminate"]["dropped"].values())
            table.append(row)
            shutil.rmtree(run)
            print(row, flush=True)
        pile.unlink()
    print_table(table)
    return {"table": table}


def summaries(run: Path) -> dict[str, Row]:
    """Step -> its summary."""
    return {
        f.parent.name.partition("_")[2]: json.loads(f.read_text()) for f in sorted(run.glob("steps/*/summary.json"))
    }


def compare(args: argparse.Namespace) -> dict[str, Any]:
    """The same two steps on the same rows by ringrl and by datatrove."""
    table, processes = [], int(args.processes.rpartition(",")[2])
    for rows in map(int, args.rows.split(",")):
        pile, known = args.out / f"generated_{rows}.jsonl", args.out / "known.jsonl"
        generate(pile, rows, args.words)
        cfg = {
            "sources": [{"name": "generated", "files": [str(pile)]}],
            "steps": ["deduplicate", "decontaminate"],
            "decontaminate": {"benchmarks": [], "files": [str(known)]},
            "workers": processes,
        }
        run, total, peak = timed_run(args.out / f"compare_{rows}", cfg)
        steps = summaries(run)
        kept = {name: sum(s["kept"].values()) for name, s in steps.items()}
        table.append(compared("ringrl", rows, total, peak, {n: s["seconds"] for n, s in steps.items()}, kept))
        script, work = Path(__file__).with_name("bench_datatrove.py"), args.out / f"datatrove_{rows}"
        command = [args.datatrove, str(script), str(pile), str(known), str(work), str(processes)]
        log, total, peak = watched(command, work.with_suffix(".log"))
        other = json.loads(log.splitlines()[-1])
        table.append(compared("datatrove", rows, total, peak, other["seconds"], other["kept"]))
        for folder in (run, work):
            shutil.rmtree(folder)
        print_table(table[-2:])
    print_table(table)
    return {"table": table, "words": args.words, "processes": processes}


def compared(name: str, rows: int, total: float, peak: float, seconds: Row, kept: Row) -> Row:
    rates = {f"{step}, rows/s": round(rows / max(seconds[step], 0.1)) for step in ("deduplicate", "decontaminate")}
    return {"": name, "rows": rows, "both, rows/s": round(rows / total), "peak GiB": round(peak, 2), **rates,
            "duplicates": rows - kept["deduplicate"],
            "known": kept["deduplicate"] - kept["decontaminate"]}  # fmt: skip


def generate(file: Path, rows: int, length: int) -> None:
    """Texts of random words with numbers, 34 words a sentence, in longer texts with a formula each; 1 % copies, 1 %
    near copies, 100 that known.jsonl has."""
    rng = random.Random(rows)
    words = ["".join(rng.choices(SYLLABLES, k=rng.randint(1, 4))) for _ in range(20_000)]
    known = [sentence(rng, words) for _ in range(1000)]
    (file.parent / "known.jsonl").write_text("".join(json.dumps({"problem": p, "answer": "1"}) + "\n" for p in known))
    recent: list[str] = []
    with file.open("w") as out:
        for n in range(rows):
            kind = n % 100
            text = " ".join(sentence(rng, words, formula=length >= 68) for _ in range(max(1, length // 34)))
            if kind == 7:
                text = rng.choice(recent)
            elif kind == 57:
                text = rng.choice(recent).replace(" is ", " was ", 1)
            elif n % max(1, rows // 100) == 3:
                text = rng.choice(known).replace(" ", "\n", 3)
            recent = [*recent[-999:], text]
            out.write(json.dumps({"problem": text, "answer": str(n % 1000)}) + "\n")


def sentence(rng: random.Random, words: Sequence[str], formula: bool = False) -> str:
    drawn = rng.choices(words, k=34)
    first, second = (f"{' '.join(part)} is {rng.randint(2, 999)}" for part in (drawn[:15], drawn[15:]))
    return f"{first} and {second} is ${rng.randint(2, 999)}x^2$." if formula else f"{first} and {second}. How many?"


# ---- both ----


def timed_run(folder: Path, cfg: Row) -> tuple[Path, float, float]:
    """(run directory, seconds, GiB at the peak) of `ringrl data`."""
    shutil.rmtree(folder, ignore_errors=True)
    file = folder.with_suffix(".yaml")
    file.write_text(yaml.safe_dump({"run": str(folder), **cfg}))
    _, seconds, peak = watched([sys.executable, "-m", "ringrl", "data", str(file)], folder.with_suffix(".log"))
    return folder, seconds, peak


def watched(command: list[str], file: Path) -> tuple[str, float, float]:
    """(what was shown, seconds, GiB at the peak) of a command."""
    began, peak = time.monotonic(), 0
    with file.open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        while process.poll() is None:
            peak = max(peak, sum(map(proportional_bytes, [process.pid, *descendants(process.pid)])))
            time.sleep(0.5)
    shown = file.read_text()
    if process.returncode:
        sys.exit(f"{' '.join(command)}: exit code {process.returncode}\n{shown[-2000:]}")
    return shown, time.monotonic() - began, peak / 2**30


def proportional_bytes(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/smaps_rollup") as file:
            return sum(int(line.split()[1]) << 10 for line in file if line.startswith("Pss:"))
    except OSError:  # it ended meanwhile
        return 0


def dropped_rows(run: Path) -> list[Row]:
    return [row for file in sorted(run.glob("steps/*/dropped.jsonl")) for row in lines(file)]


def lines(file: Path) -> list[Row]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]


def print_table(rows: Sequence[Row]) -> None:
    print("| " + " | ".join(rows[0]) + " |\n|" + "---|" * len(rows[0]))
    for row in rows:
        print("| " + " | ".join(f"{v:,}" if isinstance(v, (int, float)) else str(v) for v in row.values()) + " |")


if __name__ == "__main__":
    main()
