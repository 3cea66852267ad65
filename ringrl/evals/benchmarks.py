"""Benchmarks by name: where their files lie on the hub, and how a row of these becomes a problem.

A new benchmark is an entry of BENCHMARKS and its first prompt in tests/evals/test_benchmarks.py. Files are read as
they are, at a pinned revision. Repositories, revisions, file names and columns were looked up in public code that
reads them; where no such code pins or names the file the entry says so in `unchecked`.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import random
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ringrl.config.commands import Bench, EvalConfig
from ringrl.config.sections import Source
from ringrl.data.source import FORMATS, Row, read_problems
from ringrl.errors import ConfigError, DataError

DEFAULT_SAMPLES = 32  # k of a user's own problems
LETTERS = "ABCDEFGHIJ"


@dataclass(frozen=True, slots=True)
class Benchmark:
    """What `ringrl eval --show NAME` prints."""

    files: tuple[str, ...]
    domain: str  # whose verifier judges
    samples: int  # k of avg@k: the paper's for AIME, elsewhere [ours]: the smaller the set, the larger
    columns: Mapping[str, str] = field(default_factory=dict)  # our key -> theirs
    convert: Callable[[Row], Row] = dict  # a row with our columns to a problem
    releases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # name -> its files
    release: str = ""
    since: str = ""  # of problems with a date, the first and the last day
    until: str = ""
    deadline_s: float = 0.0  # that the verifier needs for one response, if more than usual
    unchecked: str = ""  # what of this entry nobody could verify


def hub(repo: str, revision: str, *files: str) -> tuple[str, ...]:
    return tuple(f"hf://datasets/{repo}@{revision}/{file}" for file in files)


def _choices(row: Row) -> Row:
    """GPQA: the four answers in an order that depends on the question alone."""
    right = row["Correct Answer"].strip()
    answers = [right, *(row[f"Incorrect Answer {i}"].strip() for i in (1, 2, 3))]
    random.Random(zlib.crc32(row["Question"].encode())).shuffle(answers)
    options = "\n".join(f"{letter}. {answer}" for letter, answer in zip(LETTERS, answers, strict=False))
    ask = "Choose one option, and give its letter as the answer."
    problem = f"{row['Question'].strip()}\n\n{options}\n\n{ask}"
    return {"id": row.get("Record ID") or None, "problem": problem, "answer": LETTERS[answers.index(right)]}


def _olympiad(row: Row) -> Row:
    answers = [str(a).strip() for a in row["final_answer"]]
    unit = f" Give the answer in {row['unit']}." if row.get("unit") else ""
    several = " Give all answers, separated by commas." if row.get("is_multiple_answer") else ""
    return {**row, "problem": row["problem"] + unit + several, "answer": ", ".join(answers)}


def _humaneval(row: Row) -> Row:
    problem = f"Complete this function. Give the whole program, imports included.\n\n```python\n{row['prompt']}```"
    return {"id": row["task_id"], "problem": problem, "tests": row["test"], "entry_point": row["entry_point"]}


def _mbpp(row: Row) -> Row:
    tests = [t for t in [row.get("test_setup_code", ""), *row["test_list"]] if t.strip()]
    problem = f"{row['problem']} It must pass these tests:\n\n```python\n" + "\n".join(row["test_list"]) + "\n```"
    return {"id": f"mbpp-{row['task_id']}", "problem": problem, "tests": tests}


def _livecodebench(row: Row) -> Row:
    """The tests stay packed until a verifier's process unpacks them."""
    starter, name = row["starter_code"], json.loads(row["metadata"]).get("func_name")
    if starter:
        ask = f"Use this starter code, and give the whole program.\n\n```python\n{starter}\n```"
    else:
        ask = "Write a program that reads from standard input and writes to standard output."
    packed = {k: row[k] for k in ("public_test_cases", "private_test_cases")}
    problem = f"{row['question_content'].strip()}\n\n{ask}"
    return {"id": row["question_id"], "problem": problem, "tests": {**packed, "func_name": name}}


QUESTION = {"problem": "question"}
PARQUET = "refs/convert/parquet"  # the hub's own conversion: CONFIGURATION/SPLIT/0000.parquet
LIVEMATH = ("AMC", "CCEE", "CNMO", "WLPMC")
BENCHMARKS: dict[str, Benchmark] = {
    "aime24": Benchmark(
        hub("HuggingFaceH4/aime_2024", "2fe88a2f1091d5048c0f36abc874fb997b3dd99a", "data/train-00000-of-00001.parquet"),
        "math", 32,
    ),
    "aime25": Benchmark(
        hub("math-ai/aime25", "563bb8404243c5f09de6ec262f2db674fe5bce9b", "test.jsonl"), "math", 32,
    ),
    "amc23": Benchmark(
        hub("math-ai/amc23", "80815d37005feb82cd7f8fbc6901d5d3eff43057", "test-00000-of-00001.parquet"),
        "math", 32, QUESTION,
    ),
    "math500": Benchmark(
        hub("HuggingFaceH4/MATH-500", "6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be", "test.jsonl"),
        "math", 4,
    ),
    "cnmo24": Benchmark(
        hub("opencompass/LiveMathBench", PARQUET, "v202412_CNMO_en/test/0000.parquet"), "math", 32, QUESTION,
        unchecked="file name and revision; the configuration and its columns are",
    ),
    "livemathbench": Benchmark(
        hub("opencompass/LiveMathBench", PARQUET, *(f"v202412_{n}_en/test/0000.parquet" for n in LIVEMATH)),
        "math", 8, QUESTION,
        unchecked="file names and revision; the configurations and their columns are",
    ),
    "minerva": Benchmark(
        hub("math-ai/minervamath", "main", "test.jsonl"), "math", 4, QUESTION, unchecked="revision",
    ),
    "olympiadbench": Benchmark(
        hub("Hothan/OlympiadBench", "91184b52131e7fc9455fef848035173aea8cc01a",
            "OlympiadBench/OE_TO_maths_en_COMP/OE_TO_maths_en_COMP.parquet"),
        "math", 4, QUESTION, _olympiad,
    ),
    "gsm8k": Benchmark(
        hub("openai/gsm8k", "740312add88f781978c0658806c59bc2815b9866", "main/test-00000-of-00001.parquet"),
        "math", 4, QUESTION,
    ),
    "gpqa_diamond": Benchmark(  # gated: the hub wants a token
        hub("Idavidrein/gpqa", "633f5ee89ab8ad4522a9f850766b73f62147ffdd", "gpqa_diamond.csv"),
        "science", 8, convert=_choices,
    ),
    "livecodebench": Benchmark(
        (), "code", 8, convert=_livecodebench, deadline_s=120.0, release="v5", since="2024-08-01", until="2025-01-31",
        releases={
            f"v{n}": hub("livecodebench/code_generation_lite", "0fe84c3912ea0c4d4a78037083943e8f0c4dd505",
                         *("test.jsonl", *(f"test{i}.jsonl" for i in range(2, n + 1))))
            for n in range(1, 7)
        },
    ),
    "humaneval": Benchmark(
        hub("openai/openai_humaneval", "7dce6050a7d6d172f3cc5c32aa97f52fa1a2e544",
            "openai_humaneval/test-00000-of-00001.parquet"),
        "code", 8, convert=_humaneval,
    ),
    "mbpp": Benchmark(
        hub("google-research-datasets/mbpp", "4bb6404fdc6cacfda99d4ac4205087b89d32030c",
            "full/test-00000-of-00001.parquet"),
        "code", 4, {"problem": "text"}, _mbpp,
    ),
}  # fmt: skip


def definition(bench: Bench) -> Benchmark:
    """The benchmark as it is asked for: release and window set.

    Raises:
        ConfigError: the name is unknown and no data is given; or a release or a date of what has none.
    """
    known = BENCHMARKS.get(bench.name)
    if known is None and not bench.data:
        raise ConfigError(
            f"benchmarks: got {bench.name!r}, expected one of {', '.join(BENCHMARKS)}, or a name with its `data`"
        )
    if known and bench.domain != "row":
        raise ConfigError(f"benchmarks.{bench.name}.domain: got {bench.domain!r}, expected none: it is {known.domain}")
    known = known or Benchmark((), "math", DEFAULT_SAMPLES)
    asked = {k: getattr(bench, k) for k in ("release", "since", "until") if getattr(bench, k)}
    for key, value in asked.items():
        if not known.releases:
            raise ConfigError(f"benchmarks.{bench.name}.{key}: got {value!r}, expected none: it has no releases")
    known = dataclasses.replace(known, **asked)
    return dataclasses.replace(known, files=known.releases[known.release]) if known.releases else known


def samples_of(bench: Bench, cfg: EvalConfig) -> int:
    """k: of the benchmark's entry, or the configuration's, or the benchmark's own."""
    return bench.samples or cfg.samples or definition(bench).samples


def given_file(bench: Bench, cfg: EvalConfig) -> str:
    """The user's own file for a benchmark, or "".

    Raises:
        DataError: `data` is a folder without it, or one file for several benchmarks.
    """
    if bench.data or not cfg.data:
        return bench.data
    folder = Path(cfg.data)
    if not folder.is_dir():
        if len(cfg.benchmarks) > 1:
            raise DataError(f"data: got {cfg.data}, expected a folder for {len(cfg.benchmarks)} benchmarks")
        return cfg.data
    there = [f for suffix in FORMATS if (f := folder / f"{bench.name}{suffix}").is_file()]
    return str(there[0] if there else folder / f"{bench.name}.jsonl")


def source_of(bench: Bench, cfg: EvalConfig) -> Source:
    """Where a benchmark's problems come from: the user's file, or the hub."""
    own, what = given_file(bench, cfg), definition(bench)
    if not own:
        return Source(files=what.files, domain=what.domain)
    domain = what.domain if bench.name in BENCHMARKS else bench.domain
    return Source(files=(own,), columns=bench.columns, domain=domain, split="test")


def read_benchmark(bench: Bench, cfg: EvalConfig) -> list[Row]:
    """Its problems, each with an `id` of its own.

    A row with our keys (`problem`, and `answer` or `tests`) is taken as it is, another as the hub has it.

    Raises:
        DataError: names file, line and what is wrong; two problems with one id; none in the window.
    """
    what = definition(bench)
    rows = read_problems(source_of(bench, cfg), cfg.known_domains, functools.partial(_as_problem, what))
    rows = [{**r, "id": f"{bench.name}-{i}" if r["id"] is None else str(r["id"])} for i, r in enumerate(rows)]
    seen: set[str] = set()
    for row in rows:
        if row["id"] in seen:
            raise DataError(f"{bench.name}: two problems have the id {row['id']!r}")
        seen.add(row["id"])
    if not rows:
        window = f" from {what.since} to {what.until}" if what.since else ""
        raise DataError(f"{bench.name}: no problems{window} in {', '.join(source_of(bench, cfg).files)}")
    return rows


def _as_problem(what: Benchmark, row: Row) -> Row | None:
    if what.since and (day := str(row.get("contest_date") or "")[:10]) and not what.since <= day <= what.until:
        return None
    if "problem" in row and ("answer" in row or "tests" in row):
        return {"id": None, **row}
    row = {**row, **{ours: row[theirs] for ours, theirs in what.columns.items()}}
    return {"id": None, **what.convert(row)}


def describe_benchmark(bench: Bench, cfg: EvalConfig) -> list[tuple[str, str]]:
    """Names and values of all that defines the numbers."""
    what, files = definition(bench), source_of(bench, cfg).files
    facts = [
        ("files", "\n".join(files)),
        ("not verified", "" if given_file(bench, cfg) else what.unchecked),
        ("columns", ", ".join(f"{ours}: {theirs}" for ours, theirs in {**what.columns, **bench.columns}.items())),
        ("release", what.release),
        ("window", f"{what.since} to {what.until}" if what.since else ""),
        ("verifier", what.domain),
        ("metric", f"avg@{samples_of(bench, cfg)}"),
        ("sampling", f"temperature {cfg.temperature:g}, top-p {cfg.top_p:g}, {cfg.max_total_tokens:,} tokens"),
    ]
    return [(name, value) for name, value in facts if value]
