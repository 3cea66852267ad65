"""Benchmarks by name: where their files are on the hub, and how their rows become problems.

A new benchmark is an entry of BENCHMARKS and its first prompt in tests/evals/test_benchmarks.py. Files are read as
they are, at a pinned revision. Repositories, revisions, file names and columns were taken from public code that reads
them; `unchecked` names whatever no such code confirms. `comparison` and `source` are in docs/evaluation.md too.
"""

from __future__ import annotations

import contextlib
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
from ringrl.data.files import ENDINGS
from ringrl.data.reference_keys import answer_text, read_tolerance
from ringrl.data.source import Row, read_problems
from ringrl.errors import ConfigError, DataError

DEFAULT_SAMPLES = 32  # k for a user's own problems
LETTERS = "ABCDEFGHIJ"
MINERVA_TOLERANCE = 0.01
OLYMPIAD_PRECISION = "1e-8"  # for an answer without an error of its own among others that have one


@dataclass(frozen=True, slots=True)
class Benchmark:
    """What `ringrl eval --show NAME` prints."""

    files: tuple[str, ...]
    domain: str  # selects the verifier
    samples: int  # k of avg@k: the paper's for AIME, elsewhere [ours], larger for smaller sets
    columns: Mapping[str, str] = field(default_factory=dict)  # our key -> column of the file
    convert: Callable[[Row], Row] = dict  # makes a problem of a row with our keys
    comparison: str = ""  # when an answer is right
    source: str = ""  # the paper or the public grader that says so
    tolerance: Callable[[Row], Row] = lambda problem: {}  # of a problem that has none of its own
    releases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # release -> files
    release: str = ""
    since: str = ""  # first and last day of the window, for problems with a date
    until: str = ""
    deadline_s: float = 0.0  # verifier deadline per response, if longer than usual
    unchecked: str = ""  # parts of the entry that could not be confirmed


def hub(repo: str, revision: str, *files: str) -> tuple[str, ...]:
    return tuple(f"hf://datasets/{repo}@{revision}/{file}" for file in files)


def _choices(row: Row) -> Row:
    """GPQA: shuffles the four answers, seeded by the question alone."""
    right = row["Correct Answer"].strip()
    answers = [right, *(row[f"Incorrect Answer {i}"].strip() for i in (1, 2, 3))]
    random.Random(zlib.crc32(row["Question"].encode())).shuffle(answers)
    options = "\n".join(f"{letter}. {answer}" for letter, answer in zip(LETTERS, answers, strict=False))
    ask = "Choose one option, and give its letter as the answer."
    problem = f"{row['Question'].strip()}\n\n{options}\n\n{ask}"
    return {"id": row.get("Record ID") or None, "problem": problem, "answer": LETTERS[answers.index(right)]}


def _olympiad(row: Row) -> Row:
    unit = f" Give the answer in {row['unit']}." if row.get("unit") else ""
    several = " Give all answers, separated by commas." if row.get("is_multiple_answer") else ""
    return {**row, "problem": row["problem"] + unit + several, "answer": row["final_answer"]}


def _error_column(problem: Row) -> Row:
    """OlympiadBench: an absolute tolerance, or several between commas; points and other tuples have none."""
    error = problem.get("error")
    if not error or "Tuple" in str(problem.get("answer_type")):
        return {}
    parts = str(error).strip("[]").split(",")
    absolute = [part.strip(" '\"") or OLYMPIAD_PRECISION for part in parts]
    tolerance = {"absolute": absolute if len(absolute) > 1 else absolute[0]}
    try:
        read_tolerance(tolerance)
    except ValueError:
        raise ValueError(f"error: got {error!r}, expected a number, or one for each answer, with commas") from None
    return tolerance


def _numeric(problem: Row) -> Row:
    """Minerva: 1 % for an answer that `float` can read."""
    with contextlib.suppress(ValueError):
        float(answer_text(problem["answer"]))
        return {"relative": MINERVA_TOLERANCE}
    return {}


def _humaneval(row: Row) -> Row:
    problem = f"Complete this function. Give the whole program, imports included.\n\n```python\n{row['prompt']}```"
    return {"id": row["task_id"], "problem": problem, "tests": row["test"], "entry_point": row["entry_point"]}


def _mbpp(row: Row) -> Row:
    tests = [t for t in [row.get("test_setup_code", ""), *row["test_list"]] if t.strip()]
    problem = f"{row['problem']} It must pass these tests:\n\n```python\n" + "\n".join(row["test_list"]) + "\n```"
    return {"id": f"mbpp-{row['task_id']}", "problem": problem, "tests": tests}


def _livecodebench(row: Row) -> Row:
    """Keeps the tests packed; the verifier process unpacks them."""
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
        comparison="equal integers",
        source="MAA: answers are integers from 0 to 999",
    ),
    "aime25": Benchmark(
        hub("math-ai/aime25", "563bb8404243c5f09de6ec262f2db674fe5bce9b", "test.jsonl"), "math", 32,
        comparison="equal integers",
        source="MAA: answers are integers from 0 to 999",
    ),
    "amc23": Benchmark(
        hub("math-ai/amc23", "80815d37005feb82cd7f8fbc6901d5d3eff43057", "test-00000-of-00001.parquet"),
        "math", 32, QUESTION,
        comparison="equal numbers",
        source="QwenLM/Qwen2.5-Math evaluation/grader.py, which allows 1e-4",
    ),
    "math500": Benchmark(
        hub("HuggingFaceH4/MATH-500", "6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be", "test.jsonl"),
        "math", 4,
        comparison="equal values",
        source="openai/prm800k prm800k/grading/grader.py",
    ),
    "cnmo24": Benchmark(
        hub("opencompass/LiveMathBench", PARQUET, "v202412_CNMO_en/test/0000.parquet"), "math", 32, QUESTION,
        unchecked="file name and revision; the configuration and its columns are",
        comparison="equal values, where its authors ask a model",
        source="open-compass/opencompass opencompass/datasets/livemathbench",
    ),
    "livemathbench": Benchmark(
        hub("opencompass/LiveMathBench", PARQUET, *(f"v202412_{n}_en/test/0000.parquet" for n in LIVEMATH)),
        "math", 8, QUESTION,
        unchecked="file names and revision; the configurations and their columns are",
        comparison="equal values, where its authors ask a model",
        source="open-compass/opencompass opencompass/datasets/livemathbench",
    ),
    "minerva": Benchmark(
        hub("math-ai/minervamath", "main", "test.jsonl"), "math", 4, QUESTION, unchecked="revision",
        comparison="numbers within 1 %, else equal values", tolerance=_numeric,
        source="Lewkowycz et al. 2022; deepseek-ai/DeepSeek-Math evaluation/eval/ocwcourses_eval_utils.py",
    ),
    "olympiadbench": Benchmark(
        hub("Hothan/OlympiadBench", "91184b52131e7fc9455fef848035173aea8cc01a",
            "OlympiadBench/OE_TO_maths_en_COMP/OE_TO_maths_en_COMP.parquet"),
        "math", 4, QUESTION, _olympiad,
        comparison="numbers within the row's `error`, else equal values", tolerance=_error_column,
        source="OpenBMB/OlympiadBench inference/judge.py and inference/code/math_judger.py",
    ),
    "gsm8k": Benchmark(
        hub("openai/gsm8k", "740312add88f781978c0658806c59bc2815b9866", "main/test-00000-of-00001.parquet"),
        "math", 4, QUESTION,
        comparison="equal numbers",
        source="openai/grade-school-math grade_school_math/dataset.py",
    ),
    "gpqa_diamond": Benchmark(  # gated: the hub wants a token
        hub("Idavidrein/gpqa", "633f5ee89ab8ad4522a9f850766b73f62147ffdd", "gpqa_diamond.csv"),
        "science", 8, convert=_choices,
        comparison="the same letter",
        source="openai/simple-evals gpqa_eval.py",
    ),
    "livecodebench": Benchmark(
        (), "code", 8, convert=_livecodebench, deadline_s=120.0, release="v5", since="2024-08-01", until="2025-01-31",
        releases={
            f"v{n}": hub("livecodebench/code_generation_lite", "0fe84c3912ea0c4d4a78037083943e8f0c4dd505",
                         *("test.jsonl", *(f"test{i}.jsonl" for i in range(2, n + 1))))
            for n in range(1, 7)
        },
        comparison="all tests pass",
        source="LiveCodeBench/LiveCodeBench lcb_runner/evaluation/testing_util.py",
    ),
    "humaneval": Benchmark(
        hub("openai/openai_humaneval", "7dce6050a7d6d172f3cc5c32aa97f52fa1a2e544",
            "openai_humaneval/test-00000-of-00001.parquet"),
        "code", 8, convert=_humaneval,
        comparison="check(candidate) passes",
        source="openai/human-eval human_eval/execution.py",
    ),
    "mbpp": Benchmark(
        hub("google-research-datasets/mbpp", "4bb6404fdc6cacfda99d4ac4205087b89d32030c",
            "full/test-00000-of-00001.parquet"),
        "code", 4, {"problem": "text"}, _mbpp,
        comparison="all asserts pass",
        source="google-research/google-research mbpp/README.md",
    ),
}  # fmt: skip


def definition(bench: Bench, cfg: EvalConfig) -> Benchmark:
    """The benchmark with the release and window of the configuration.

    Raises:
        ConfigError: the name is unknown and no data is given; a release or date is set for a benchmark without any.
    """
    known = BENCHMARKS.get(bench.name)
    if known is None and not given_file(bench, cfg):
        raise ConfigError(
            f"benchmarks: got {bench.name!r}, expected one of {', '.join(BENCHMARKS)}, or a name with its `data`"
        )
    if known and bench.domain != "row":
        raise ConfigError(f"benchmarks.{bench.name}.domain: got {bench.domain!r}, expected none: it is {known.domain}")
    known = known or Benchmark((), "math", DEFAULT_SAMPLES)
    overrides = {k: getattr(bench, k) for k in ("release", "since", "until") if getattr(bench, k)}
    for key, value in overrides.items():
        if not known.releases:
            raise ConfigError(f"benchmarks.{bench.name}.{key}: got {value!r}, expected none: it has no releases")
    known = dataclasses.replace(known, **overrides)
    return dataclasses.replace(known, files=known.releases[known.release]) if known.releases else known


def samples_of(bench: Bench, cfg: EvalConfig) -> int:
    """k: from the entry in the configuration, else the whole configuration, else the benchmark."""
    return bench.samples or cfg.samples or definition(bench, cfg).samples


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
    existing = [f for suffix in ENDINGS if (f := folder / f"{bench.name}{suffix}").is_file()]
    return str(existing[0] if existing else folder / f"{bench.name}.jsonl")


def source_of(bench: Bench, cfg: EvalConfig) -> Source:
    """Source of a benchmark's problems: the user's file, or the hub."""
    own, benchmark = given_file(bench, cfg), definition(bench, cfg)
    if not own:
        return Source(files=benchmark.files, domain=benchmark.domain)
    domain = benchmark.domain if bench.name in BENCHMARKS else bench.domain
    return Source(files=(own,), columns=bench.columns, domain=domain, split="test")


def read_benchmark(bench: Bench, cfg: EvalConfig) -> list[Row]:
    """The problems of a benchmark, each with a unique `id`.

    Rows with our keys (`problem`, and `answer` or `tests`) are used as they are, others are converted.

    Raises:
        DataError: a row is malformed (names file and line), two problems share an id, or none is in the window.
    """
    benchmark = definition(bench, cfg)
    rows = read_problems(source_of(bench, cfg), cfg.known_domains, functools.partial(_as_problem, benchmark))
    rows = [{**r, "id": f"{bench.name}-{i}" if r["id"] is None else str(r["id"])} for i, r in enumerate(rows)]
    ids: set[str] = set()
    for row in rows:
        if row["id"] in ids:
            raise DataError(f"{bench.name}: two problems have the id {row['id']!r}")
        ids.add(row["id"])
    if not rows:
        window = f" from {benchmark.since} to {benchmark.until}" if benchmark.since else ""
        raise DataError(f"{bench.name}: no problems{window} in {', '.join(source_of(bench, cfg).files)}")
    return rows


def _as_problem(entry: Benchmark, row: Row) -> Row | None:
    if entry.since and (day := str(row.get("contest_date") or "")[:10]) and not entry.since <= day <= entry.until:
        return None
    if not ("problem" in row and ("answer" in row or "tests" in row)):
        row = entry.convert({**row, **{key: row[column] for key, column in entry.columns.items()}})
    tolerance = {} if row.get("tolerance") else entry.tolerance(row)
    return {"id": None, **row, **({"tolerance": tolerance} if tolerance else {})}


def describe_benchmark(bench: Bench, cfg: EvalConfig) -> list[tuple[str, str]]:
    """(name, value) of everything that the scores depend on."""
    benchmark, files = definition(bench, cfg), source_of(bench, cfg).files
    facts = [
        ("files", "\n".join(files)),
        ("not verified", "" if given_file(bench, cfg) else benchmark.unchecked),
        ("columns", ", ".join(f"{key}: {column}" for key, column in {**benchmark.columns, **bench.columns}.items())),
        ("release", benchmark.release),
        ("window", f"{benchmark.since} to {benchmark.until}" if benchmark.since else ""),
        ("verifier", benchmark.domain),
        ("comparison", benchmark.comparison),
        ("source", benchmark.source),
        ("metric", f"avg@{samples_of(bench, cfg)}"),
        ("sampling", f"temperature {cfg.temperature:g}, top-p {cfg.top_p:g}, {cfg.max_total_tokens:,} tokens"),
    ]
    return [(name, value) for name, value in facts if value]
