"""The parts of `ringrl eval` that need no model: show a benchmark, judge again, compare runs, find overlaps."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from ringrl.config.commands import EvalConfig
from ringrl.config.data import Decontaminate
from ringrl.config.load import load
from ringrl.curate.known import index_of
from ringrl.curate.overlap import Match
from ringrl.data.source import messages_of, read_texts
from ringrl.errors import DataError
from ringrl.evals.benchmarks import describe_benchmark, read_benchmark
from ringrl.evals.compare import compare_runs
from ringrl.evals.results import load_responses, remarks, table, tasks_of, verdict_fields, verifier_pool, write_results
from ringrl.launch.opening import exclusive
from ringrl.launch.start import verifiers_of
from ringrl.report.runs import write_report
from ringrl.report.terminal import Display
from ringrl.run import Run
from ringrl.safe_text import printable

FACTS = ("engine", "dtype", "template_sha256")  # keys of results.json that only sampling can fill in
SHOWN = 20  # contaminated problems per benchmark listed in the terminal
AT_ONCE = 1000  # rows of the training file per batch


def show_benchmark(cfg: EvalConfig) -> int:
    """Prints definition, number of problems and first prompt of each benchmark."""
    for text in _definitions(cfg):
        print(printable(text, lines=True))
    return 0


def _definitions(cfg: EvalConfig) -> Iterator[str]:
    for bench in cfg.benchmarks:
        yield bench.name
        for name, value in describe_benchmark(bench, cfg):
            yield f"  {name:<13}" + value.replace("\n", "\n" + " " * 15)
        problems = read_benchmark(bench, cfg)
        first = problems[0]
        domain = cfg.known_domains[first["domain"]]
        yield f"  {'problems':<13}{len(problems):,}\n\nfirst problem: {first['id']}"
        for message in messages_of(first, cfg.prompting, cfg.known_domains):
            yield f"\n[{message['role']}]\n{message['content']}"
        judges = "all tests pass" if domain.comparison == "program" else ", ".join(r.verifier for r in domain.rewards)
        yield f"\n[expected]\n{first.get(domain.answer, judges)}"


def tell_difference(first: str, second: str) -> int:
    """Shows a table that compares two runs, and its meaning in words."""
    rows, notes = compare_runs(Path(first), Path(second))
    display = Display("eval --compare", f"A = {first}, B = {second}")
    display.table("paired over problems", rows)
    for line in notes:
        display.note(line)
    return 0


def rejudge(folder: str) -> int:
    """Judges all responses of a finished run again, and rewrites its results and report."""
    run = Run(folder)
    if not (run.path / "results.json").is_file():
        raise DataError(f"{folder}: no results.json, expected a finished `ringrl eval` run")
    with exclusive(run.path):
        return _rejudge(run)


def _rejudge(run: Run) -> int:
    before = json.loads((run.path / "results.json").read_text())
    cfg = load(EvalConfig, run.path / "config.yaml")
    verifiers_of(cfg)
    tasks = tasks_of(cfg)
    responses = {task.name: load_responses(run, task.name) for task in tasks}
    changed = 0
    with verifier_pool(cfg, tasks) as verifier:
        for task in tasks:
            problems = {p["id"]: p for p in task.problems}
            rows = [responses[task.name][key] for key in task.keys]
            answers = [(problems[r["id"]], r["text"]) for r in rows]
            futures = [verifier.submit(p["domain"], text, cfg.known_domains.reference(p)) for p, text in answers]
            for row, future in zip(rows, futures, strict=True):
                fields = verdict_fields(future.result())
                changed += fields["verdict"] != row["verdict"]
                row |= fields
    results = write_results(run, cfg, tasks, responses, {k: before[k] for k in FACTS if k in before})
    display = Display("eval --rescore", str(run.path))
    display.table(f"{cfg.model}, judged again", table(results))
    for line in [*remarks(results), f"{changed} verdicts changed", str(write_report(run.path))]:
        display.note(line)
    return 0


def check_contamination(cfg: EvalConfig, train: str) -> int:
    """Shows which benchmark problems `ringrl data` would find in a training file, and where."""
    display = Display("eval --check-contamination", train)
    benchmarks = {b.name: {f"{b.name}/{p['id']}": p["problem"] for p in read_benchmark(b, cfg)} for b in cfg.benchmarks}
    known = index_of({i: text for problems in benchmarks.values() for i, text in problems.items()}, Decontaminate())
    best: dict[str, tuple[Match, str]] = {}
    texts = read_texts(train)
    while batch := list(islice(texts, AT_ONCE)):
        for (where, _), matches in zip(batch, known.index.find([text for _, text in batch]), strict=True):
            for match in matches:
                name = known.ids[match.problem]
                if name not in best or match.rank < best[name][0].rank:
                    best[name] = (match, where)
    rows = []
    for bench, problems in benchmarks.items():
        contaminated = sorted((best[i][0].rank, i) for i in problems if i in best)
        near = sum(best[i][0].near for _, i in contaminated)
        rows.append({
            "benchmark": bench,
            "problems": str(len(problems)),
            f"{known.index.ngram}-grams in common": str(len(contaminated) - near),
            "near duplicates": str(near),
        })  # fmt: skip
        for _, i in contaminated[:SHOWN]:
            match, where = best[i]
            display.note(f"{i}: {known.describe(match)}, in {where}")
        if len(contaminated) > SHOWN:
            display.note(f"... and {len(contaminated) - SHOWN} more")
    display.table(f"problems that stand in {train}", rows)
    return 0
