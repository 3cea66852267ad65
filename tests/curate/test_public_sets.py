"""Files with the columns and quirks of public sets, a few rows each, through the whole chain."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from ringrl.commands.data import STEPS
from ringrl.config.data import DataConfig
from ringrl.curate import outputs, read
from ringrl.curate.chain import phases
from tests.conftest import lines

Row = dict[str, Any]
ASK = "Solve the following math problem step by step. The last line of your response should be: Answer: $Answer."
SAY = 'Remember to put your answer on its own line after "Answer:".'
DOUBLE, SUM = "print(2 * int(input()))", "print(sum(map(int, input().split())))"
TWICE = "def twice(n):\n    return 2 * n"


def response(answer: int, thought: str = "So it is.") -> str:
    return f"<think>{thought}</think>The answer is \\boxed{{{answer}}}."


def openr1() -> list[Row]:
    """Several generations a problem, some wrong or unfinished; null columns; `messages` besides."""
    base = {"solution": None, "problem_type": "Algebra", "source": "olympiads", "is_reasoning_complete": [True, True],
            "correctness_llama": None, "finish_reasons": None}  # fmt: skip
    return [
        {**base, "problem": f"Find $x$ if $x + {n} = {2 * n + 1}$.", "answer": str(n + 1),
         "generations": [response(n + 1), response(n + 2), "<think>I begin with"],
         "messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}
        for n in (11, 12, 13)
    ]  # fmt: skip


def numina() -> list[Row]:
    """Sentinels as answers, options, and proofs."""
    problems = [
        ("Let $n > 1$. Prove that $n^2 > n$.", "proof"),
        ("Find all $k$ with $k^3 = 27$.", "3"),
        ("How many sides has a heptagon?", "notfound"),
        ("What is $4 + 9$?\nA. 11\nB. 12\nC. 13\nD. 14", "C"),
        ("## Task 12. A wall of 96 bricks has 8 rows. How many bricks has a row?", "12"),
        ("As shown in the figure, $AB = 7$. Find $BC$.", "9"),
    ]
    return [{"problem": p, "answer": a, "solution": "...", "problem_is_valid": "Yes", "synthetic": False}
            for p, a in problems]  # fmt: skip


def dapo() -> list[Row]:
    """The prompt is a conversation with instructions around the problem, and every row comes many times."""
    texts = [
        ("In how many ways can 5 people sit in a row?", "120"),
        ("Compute $7^{5}$ modulo 10.", "7"),
    ]
    return [{"data_source": "math_dapo", "prompt": [{"role": "user", "content": f"{ASK}\n\n{text}\n\n{SAY}"}],
             "ability": "MATH", "reward_model": {"ground_truth": answer, "style": "rule-lighteval/MATH_v2"},
             "extra_info": {"index": f"u-{n}"}} for n in range(20) for text, answer in texts]  # fmt: skip


def deepscaler() -> list[Row]:
    """One JSON array; LaTeX; a problem that NuminaMath has, with another heading."""
    return [
        {"problem": "Find all $k$ with $k^{3}=27$.", "answer": "3", "solution": ""},
        {"problem": "What is the area of a circle of radius $\\sqrt{3}$?", "answer": "3\\pi", "solution": ""},
        {"problem": "Evaluate $\\frac{1}{2} + \\frac{1}{3}$.", "answer": "\\frac{5}{6}", "solution": "$\\frac56$"},
    ]


def taco() -> list[Row]:
    """Tests and programs as JSON text; programs that fail; no programs."""
    io = json.dumps({"inputs": ["3\n", "5\n"], "outputs": ["6\n", "10\n"]})
    return [
        {"question": "Read a number and print its double.", "solutions": json.dumps([DOUBLE, "print(7)"]),
         "input_output": io, "difficulty": "EASY", "starter_code": "", "raw_tags": "['Math']"},
        {"question": "Read a number and print twice as much.", "solutions": "[]", "input_output": io,
         "difficulty": "UNKNOWN_DIFFICULTY", "starter_code": "", "raw_tags": "[]"},
    ]  # fmt: skip


def apps() -> list[Row]:
    """A function to write; solutions that are an empty text; no tests at all."""
    io = json.dumps({"fn_name": "twice", "inputs": [[3], [4]], "outputs": [6, 8]})
    return [
        {"problem_id": 0, "question": "Write twice(n), which returns the double of a whole number n.", "url": "",
         "solutions": json.dumps([TWICE]), "input_output": io, "difficulty": "introductory", "starter_code": ""},
        {"problem_id": 1, "question": "Print the number of vowels of a word.", "url": "", "solutions": "",
         "input_output": "", "difficulty": "interview", "starter_code": ""},
    ]  # fmt: skip


def contests() -> list[Row]:
    """Programs of several languages by number; limits as numbers that nobody asked for."""
    return [
        {"name": "1_A. Sum", "description": "Read two numbers on one line and print their sum.",
         "private_tests": {"input": ["1 2\n", "5 6\n"], "output": ["3\n", "11\n"]}, "cf_rating": 800,
         "solutions": {"language": [2, 3, 3], "solution": ["int main(){}", SUM, "print(0)"]},
         "time_limit": {"seconds": 2, "nanos": 0}, "memory_limit_bytes": 256000000, "input_file": ""}
    ]  # fmt: skip


def parquet(file: Path, rows: list[Row]) -> None:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)


def jsonl(file: Path, rows: list[Row]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def array(file: Path, rows: list[Row]) -> None:
    file.write_text(json.dumps(rows, indent=1))


SETS: dict[str, tuple[str, Callable[[Path, list[Row]], None], list[Row], dict[str, str], str]] = {
    "openr1": ("train.parquet", parquet, openr1(), {"responses": "generations"}, "math"),
    "numina": ("train.parquet", parquet, numina(), {}, "math"),
    "dapo": ("dapo.parquet", parquet, dapo(), {"problem": "prompt.0.content", "answer": "reward_model.ground_truth"},
             "math"),
    "deepscaler": ("deepscaler.json", array, deepscaler(), {}, "math"),
    "taco": ("taco.jsonl", jsonl, taco(), {"problem": "question", "tests": "input_output"}, "code"),
    "apps": ("apps.jsonl", jsonl, apps(), {"problem": "question", "tests": "input_output"}, "code"),
    "contests": ("contests.parquet", parquet, contests(), {"problem": "description", "tests": "private_tests"}, "code"),
}  # fmt: skip


def over(name: str, function: Callable[[Any], Any], items: Sequence[Any], in_process: bool = False) -> Iterator[Any]:
    return ((item, function(item)) for item in items)


def test_public_sets_go_through_the_whole_chain(tmp_path: Path) -> None:
    sources = []
    for name, (file, write, rows, columns, domain) in SETS.items():
        (tmp_path / name).mkdir()
        write(tmp_path / name / file, rows)
        sources.append({"name": name, "files": [str(tmp_path / name / file)], "columns": columns, "domain": domain})
    (tmp_path / "known.jsonl").write_text(json.dumps({"problem": "In how many ways can 5 people sit in a row?"}) + "\n")
    steps = ["cleanse", "deduplicate", "decontaminate", "distil", "annotate", "mix"]
    known = {"benchmarks": [], "files": [str(tmp_path / "known.jsonl")]}
    cfg = DataConfig.model_validate({"run": str(tmp_path), "sources": sources, "steps": steps, "decontaminate": known})
    for phase in phases(cfg):
        if phase.before is None:
            for n, results in read.shards(cfg.sources, cfg.known_domains, cfg.shard_rows):
                phase.shards.write(n, "read", results)
        else:
            step = STEPS[phase.step](cfg, phase.before, phase.shards, over)
            for n in phase.before.numbers:
                phase.shards.write(n, phase.step, step(n, phase.before.rows(n)))
        phase.shards.close(0.0)
    outputs.write(cfg, lambda done, total: None)

    kept = {row["id"]: row for row in lines(tmp_path / "data" / "train.jsonl")}
    assert kept.keys() == {"openr1/0", "openr1/1", "openr1/2", "numina/1", "numina/4", "dapo/1", "deepscaler/1",
                           "deepscaler/2", "taco/0", "apps/0", "contests/0"}  # fmt: skip
    dropped = [row for file in tmp_path.glob("steps/*/dropped.jsonl") for row in lines(file)]
    why = {row["id"]: row["reason"] for row in dropped if "response" not in row}
    assert len(kept) + len(why) == sum(len(rows) for _, _, rows, _, _ in SETS.values())
    assert [why[f"numina/{n}"] for n in (0, 2, 3, 5)] == ["proof", "no answer", "multiple choice", "image"]
    assert why["dapo/0"] == "n-grams in common with a known problem"
    assert {why[f"dapo/{n}"] for n in range(2, 40)} == {"exact duplicate"}
    assert why["deepscaler/0"] == "exact duplicate"
    assert (why["taco/1"], why["apps/1"]) == ("no solution", "no tests")
    assert {row["reason"] for row in dropped if row["id"] == "openr1/0"} == {"wrong", "think tags"}
    solved = {row["id"]: row for row in lines(tmp_path / "steps/1_cleanse/kept/000000.jsonl") if row.get("solutions")}
    assert {name: row["solutions"] for name, row in solved.items()} == {
        "taco/0": [DOUBLE], "apps/0": [TWICE], "contests/0": [SUM]
    }  # fmt: skip
