"""The files in a run directory of `ringrl eval`: responses with verdicts, and the metrics over them.

While the run goes on, `responses/NAME.jsonl` gets a line for every response as soon as it is finished and another with
its verdict, so that nothing finished is ever repeated; at the end it has one line each, in order. `prompts/NAME.jsonl`
has the problems. `results.json` follows from these and the configuration alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ringrl.config.commands import Bench, EvalConfig
from ringrl.data.source import Row, fingerprint, messages_of
from ringrl.errors import ConfigError
from ringrl.evals.benchmarks import Benchmark, definition, read_benchmark, samples_of, source_of
from ringrl.evals.codeforces import rate, read_contests
from ringrl.evals.metrics import Outcome, report
from ringrl.rewards import Verdict, VerifierPool
from ringrl.rewards.answers import after_thinking, last_boxed, read_number
from ringrl.run import Run

Key = tuple[str, int]  # problem id, sample
Responses = dict[Key, Row]


@dataclass(frozen=True)
class Task:
    """One benchmark of a run."""

    bench: Bench
    benchmark: Benchmark
    problems: list[Row]
    samples: int
    deadline_s: float  # verifier deadline per response

    @property
    def name(self) -> str:
        return self.bench.name

    @property
    def keys(self) -> list[Key]:
        return [(p["id"], i) for p in self.problems for i in range(self.samples)]


def tasks_of(cfg: EvalConfig) -> list[Task]:
    """Raises DataError as `read_benchmark`, and if contests have other problems; ConfigError for a k in `pass_k`
    without an estimate."""
    tasks = []
    for bench in cfg.benchmarks:
        samples = samples_of(bench, cfg)
        if too_large := [k for k in cfg.pass_k if not 1 <= k <= samples]:
            raise ConfigError(f"pass_k: got {too_large[0]}, expected from 1 to {samples}, the samples of {bench.name}")
        benchmark = definition(bench, cfg)
        deadline_s = max(cfg.verify.deadline_s, benchmark.deadline_s)
        problems = read_benchmark(bench, cfg)
        if bench.contests:  # fails now rather than after sampling if they do not match
            rate(read_contests(bench.contests), {p["id"]: (False,) for p in problems})
        tasks.append(Task(bench, benchmark, problems, samples, deadline_s))
    return tasks


def verifier_pool(cfg: EvalConfig, tasks: Sequence[Task]) -> VerifierPool:
    """The pool for all domains; it starts only the verifiers that are used."""
    deadline_s = max(t.deadline_s for t in tasks)
    return VerifierPool(cfg.verify.workers, deadline_s, cfg.known_domains, **cfg.verify.programs)


def load_responses(run: Run, name: str) -> Responses:
    """Loads the responses so far, with or without verdicts, and compacts the file to one line each."""
    responses: Responses = {}
    for row in run.rows(f"responses/{name}"):
        key = (row["id"], row["sample"])
        responses[key] = responses.get(key, {}) | row
    responses = {k: r for k, r in responses.items() if "text" in r}
    (run.path / "responses").mkdir(exist_ok=True)
    run.write_lines(f"responses/{name}.jsonl", responses.values())
    return responses


def verdict_fields(verdict: Verdict) -> dict[str, Any]:
    failed = verdict.kind == "error"
    return {
        "verdict": verdict.kind,
        "reward": 0.0 if failed else verdict.headline,
        "error": verdict.reason if failed else "",
        "reason": verdict.reason,
        "tests": list(verdict.tests),
        **({"rewards": {part.name: part.value for part in verdict.parts}} if len(verdict.parts) > 1 else {}),
    }


def write_results(
    run: Run, cfg: EvalConfig, tasks: Sequence[Task], responses: Mapping[str, Responses], facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Writes the responses in order, the prompts, and results.json, whose content is returned.

    facts: sampling settings beyond the configuration.
    """
    benchmarks = {}
    (run.path / "prompts").mkdir(exist_ok=True)
    for task in tasks:
        rows = [responses[task.name][key] for key in task.keys]
        run.write_lines(f"responses/{task.name}.jsonl", rows)
        run.write_lines(f"prompts/{task.name}.jsonl", (_prompt(p, cfg) for p in task.problems))
        benchmarks[task.name] = {**_numbers(task, rows, cfg), **_provenance(task, cfg)}
    settings = cfg.model_dump(mode="json", include={"temperature", "top_p", "max_total_tokens", "seed", "prompting"})
    results = {"model": cfg.model, **facts, "sampling": settings, "benchmarks": benchmarks}
    run.write("results.json", results)
    return results


def table(results: Mapping[str, Any]) -> list[dict[str, str]]:
    """Rows of the table, in percent; the first error of a score is over problems, the second over samples."""
    return [
        {
            "benchmark": name,
            "problems": str(r["n"]),
            "k": str(r["k"]),
            "avg@k %": _percent(r["score"], r["se"], r["se_samples"]),
            "pass@k %": _percent(r["pass_k"]),
            "majority %": _percent(r["majority"]),
            "length": f"{r['length_mean']:.0f}",
            "truncated %": _percent(r["truncated_frac"]),
            "errors": str(r["errors"]),
        }
        for name, r in results["benchmarks"].items()
    ]


def remarks(results: Mapping[str, Any]) -> list[str]:
    """Notes that belong below the table."""
    lines = ["avg@k ± standard error over problems ± over samples"]
    for name, r in results["benchmarks"].items():
        window = r["window"]
        if r["errors"]:
            total, without = r["errors"], _percent(r["score_without_errors"])
            lines.append(f"{name}: {total} verifier errors count as not right; {without} without them")
        if window:
            lines.append(f"{name}: release {r['release']}, {r['n']} problems from {window[0]} to {window[1]}")
        if rated := r.get("codeforces"):
            error = f" ± {rated['rating_se']:.0f}" if rated["rating_se"] is not None else ""
            lines.append(f"{name}: rating {rated['rating']:.0f}{error} over {rated['contests']} contests, above "
                        f"{rated['percentile']:.1f} % of their participants")  # fmt: skip
        points, needed = r["precision"]["points"], r["precision"]["samples"]
        if needed:
            lines.append(f"{name}: ± {points:g} points over samples need k = {needed}, here k = {r['k']}")
    return lines


def _numbers(task: Task, rows: Sequence[Row], cfg: EvalConfig) -> dict[str, Any]:
    outcomes: dict[str, list[Outcome]] = {p["id"]: [] for p in task.problems}
    boxed = {p["id"]: cfg.known_domains[p["domain"]].comparison == "answer" for p in task.problems}
    for r in rows:
        key = answer_key(r["text"]) if boxed[r["id"]] else ""
        failed, cut = r["verdict"] == "error", r["finish"] == "length"
        outcomes[r["id"]].append(Outcome(r["reward"], failed, r["length"], cut, key, r["reason"]))
    numbers = report(outcomes, cfg.pass_k, all(boxed.values()), cfg.precision)
    if task.bench.contests:
        solved = {i: [o.reward == 1 for o in samples] for i, samples in outcomes.items()}
        numbers["codeforces"] = rate(read_contests(task.bench.contests), solved)
    return numbers


def answer_key(text: str) -> str:
    """The key of a final answer in a vote: equal numbers are one answer."""
    answer = last_boxed(after_thinking(text))
    number = read_number(answer)
    return "".join(answer.split()) if number is None else str(number)


def _prompt(problem: Row, cfg: EvalConfig) -> Row:
    messages = messages_of(problem, cfg.prompting, cfg.known_domains)
    answer = problem.get(cfg.known_domains[problem["domain"]].answer, "")
    return {"id": problem["id"], "messages": messages, "answer": answer}


def _provenance(task: Task, cfg: EvalConfig) -> dict[str, Any]:
    prompts = json.dumps([_prompt(p, cfg) for p in task.problems]).encode()
    return {
        "data": fingerprint([source_of(task.bench, cfg)], fetch=True),
        "release": task.benchmark.release,
        "window": [task.benchmark.since, task.benchmark.until] if task.benchmark.since else [],
        "prompts_sha256": hashlib.sha256(prompts).hexdigest(),
    }


def _percent(value: float | None, *errors: float | None) -> str:
    return "–" if value is None else " ± ".join(f"{100 * x:.1f}" for x in [value, *errors] if x is not None)
