"""`ringrl verify`: judges rows, or the responses of a run, from the shell as training and evaluation would."""

from __future__ import annotations

import json
import statistics
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from ringrl.commands.table import load_any
from ringrl.config.commands import EvalConfig, RLConfig
from ringrl.config.load import Knobs, check
from ringrl.config.sections import RunConfig, Verify
from ringrl.data.source import Row, read_problems, read_rows
from ringrl.domains import BUILT_IN, Domain, Domains
from ringrl.errors import DataError
from ringrl.evals.results import tasks_of
from ringrl.launch.start import verifiers_of
from ringrl.lines import read_lines, readable_lines, write_atomic
from ringrl.report.terminal import Display
from ringrl.rewards import Verdict, VerifierPool
from ringrl.rewards.audit import altered, interval, second_way
from ringrl.rewards.explain import explain

AHEAD = 8  # rows queued per verifier process
SHOWN = 20  # disagreements and reasons of errors in the terminal
JUDGED = ("domain", "response", "reference")  # keys of a row
KINDS = ("pass", "partial", "fail", "error")
NOT_PASS = "not pass"  # as the label of a row: fail or error


def verify(
    file: str, out: Path, cfg: Knobs | None, settings: Mapping[str, Any], *, resume: bool = False,
    audit: bool = False, explained: bool = False,
) -> int:  # fmt: skip
    """Writes the rows of a file, or the responses of a run, with their verdicts to `out`, and shows what they come to.

    Args:
        cfg: the configuration whose own domains and `verify` section are used, if any; a run has its own.
        settings: fields of `Verify` that replace its.
        explained: adds `extracted`, `expected` and `compared` to each row, and shows the first ones.

    Raises:
        DataError: a row is not {"domain", "response", "reference"}, the run has no responses, or `out` exists already
            and is not resumed, or has other rows.
    """
    run = Path(file)
    if run.is_dir() and cfg is None:
        cfg = load_any(str(run / "config.yaml"))
    domains = Domains()
    if isinstance(cfg, RunConfig):
        verifiers_of(cfg)
        domains = cfg.known_domains
    how = check(Verify, {**getattr(cfg, "verify", Verify()).model_dump(), **settings}, "command line: verify")
    if out.exists() and not resume:
        raise DataError(f"{out}: got a file that exists, expected a new one, or --resume")
    found = partial(rows_of_run, run, cfg, domains) if run.is_dir() else partial(rows_of, file, domains)
    if sum(1 for _ in found()) == 0:  # all of them are checked before the first is judged
        raise DataError(f"{file}: no rows")
    done = list(read_lines(out, cut=True)) if out.exists() else []
    for number, (row, given) in enumerate(zip(done, found(), strict=False), 1):
        if any(row.get(key) != given[key] for key in JUDGED):
            raise DataError(f"{out}:{number}: got another row than {file} has there, expected --out of the same file")
    write_atomic(out, "".join(json.dumps(row) + "\n" for row in done))
    display, judged = Display("verify", file), Totals()
    for row in done:
        judged.add(row)
    with (
        out.open("a") as lines,
        VerifierPool(how.workers, how.deadline_s, domains, **how.programs) as pool,
    ):
        for row, verdict in verdicts(islice(found(), len(done), None), pool, AHEAD * how.workers):
            if explained:
                row |= explain(domains[row["domain"]], row["response"], row["reference"], verdict)
                if judged.rows < SHOWN:
                    display.note(shown(judged.rows + 1, row))
            judged.add(row)
            lines.write(json.dumps(row) + "\n")
            lines.flush()
    display.table(str(out), judged.table())
    for line in judged.remarks():
        display.note(line)
    if audit:
        with VerifierPool(how.workers, how.deadline_s, _with_second_ways(domains), **how.programs) as pool:
            for line in audited(list(read_lines(out)), domains, pool):
                display.note(line)
    return 0


def _with_second_ways(domains: Mapping[str, Domain]) -> dict[str, Domain]:
    second = {d.name: d for domain in domains.values() if (d := second_way(domain))}
    return {**domains, **second}


def audited(rows: Sequence[Row], domains: Mapping[str, Domain], pool: VerifierPool) -> Iterator[str]:
    """Judges passes and fails once more, by other means, and says how often that disagrees."""
    for domain in dict.fromkeys(row["domain"] for row in rows):
        second = second_way(domains[domain])
        if second is None:
            yield f"{domain}: there is no second way to judge it"
            continue
        judged = [(number, row) for number, row in enumerate(rows, 1) if row["domain"] == domain]
        for kind, other, fault in (("pass", "fail", "wrong"), ("fail", "pass", "right")):
            some = [(n, row) for n, row in judged if row["kind"] == kind]
            futures = [pool.submit(second.name, row["response"], row["reference"]) for _, row in some]
            kinds = [future.result().kind for future in futures]
            differ = [n for (n, _), found in zip(some, kinds, strict=True) if found == other]
            asked = len(kinds) - kinds.count("error")
            yield f"{domain}: {_share(differ, asked)} of {kind} verdicts are {fault} by the second way"
        passes = [(n, row, a) for n, row in judged if row["kind"] == "pass"
                  and (a := altered(domains[domain], row["reference"]))]  # fmt: skip
        futures = [pool.submit(domain, row["response"], reference) for _, row, reference in passes]
        still = [n for (n, _, _), future in zip(passes, futures, strict=True) if future.result().kind == "pass"]
        yield f"{domain}: {_share(still, len(passes))} of pass verdicts hold against an altered reference"


def _share(rows: Sequence[int], of: int) -> str:
    low, high = interval(len(rows), of)
    shown = f" (rows {', '.join(map(str, rows[:SHOWN]))}{', ...' * (len(rows) > SHOWN)})" if rows else ""
    return f"{len(rows):,} of {of:,} ({100 * low:.1f} to {100 * high:.1f} %){shown}"


def shown(number: int, row: Row) -> str:
    """A row with its explanation, in one line."""
    code = BUILT_IN["code"].name == row["domain"]
    taken = "" if code else f" `{row['extracted']}` for `{row['expected']}`" if "extracted" in row else ""
    how = f": {row['compared']}" if "compared" in row else ""
    return f"row {number}: {row['kind']} ({row['reason']}){taken}{how}"


def rows_of_run(run: Path, cfg: Knobs | None, domains: Domains) -> Iterator[Row]:
    """The responses that an evaluation or an RL run kept, with the references of their problems.

    Raises:
        DataError: it is a run of another kind, or its problems are no longer the same.
    """
    if isinstance(cfg, EvalConfig):
        problems = {task.name: task.problems for task in tasks_of(cfg)}
        files = {name: [run / "responses" / f"{name}.jsonl"] for name in problems}
    elif isinstance(cfg, RLConfig):
        problems = {"": [p for stage in cfg.stages for source in stage.data for p in read_problems(source, domains)]}
        files = {"": sorted((run / "rollouts").glob("step_*.jsonl"))}
    else:
        raise DataError(f"{run}: got a run of another kind, expected one of eval or rl, or a file")
    for name, rows in problems.items():
        by_id: dict[Any, Row] = {}
        for problem in rows:
            same = by_id.setdefault(problem["id"], problem)
            if domains.reference(same) != domains.reference(problem):
                raise DataError(f"{run}: two problems of its data have the id {problem['id']!r}, by which responses "
                                f"name them; expected an id for each")  # fmt: skip
        for file in files[name]:
            for number, row in enumerate(readable_lines(file)[0], 1):
                key = row.get("id", row.get("prompt_id"))
                if "text" not in row:
                    continue
                if key not in by_id:
                    raise DataError(f"{file}:{number}: id: got {key!r}, which is no problem of the run's data any more")
                problem = by_id[key]
                reference = domains.reference(problem)
                yield {"domain": problem["domain"], "response": row["text"], "reference": reference, "id": key}


def rows_of(file: str, domains: Mapping[str, Domain]) -> Iterator[Row]:
    """Raises DataError for a row that cannot be judged."""
    for where, row in read_rows(file):
        if row.get("domain") not in domains:
            known = ", ".join(domains)
            raise DataError(f"{where}: domain: got {row.get('domain')!r}, expected one of {known}")
        for key, kind, name in (("response", str, "a text"), ("reference", dict, "an object")):
            if not isinstance(row.get(key), kind):
                raise DataError(f"{where}: {key}: got {json.dumps(row.get(key))[:100]}, expected {name}")
        yield row


def verdicts(rows: Iterable[Row], pool: VerifierPool, ahead: int) -> Iterator[tuple[Row, Verdict]]:
    """The rows with what their verdicts say, in order; at most `ahead` of them are queued."""
    queue: deque[tuple[Row, Future[Verdict]]] = deque()
    for row in rows:
        queue.append((row, pool.submit(row["domain"], row["response"], row["reference"])))
        if len(queue) >= ahead:
            yield _with_verdict(*queue.popleft())
    while queue:
        yield _with_verdict(*queue.popleft())


def _with_verdict(row: Row, future: Future[Verdict]) -> tuple[Row, Verdict]:
    verdict = future.result()
    score = {} if verdict.kind == "error" else {"score": verdict.reward}
    said = {"kind": verdict.kind, "reason": verdict.reason, **score, "seconds": round(verdict.seconds, 6)}
    return {**row, **said}, verdict


class Totals:
    """What the terminal shows of the rows judged so far."""

    def __init__(self) -> None:
        self.kinds: defaultdict[str, Counter[str]] = defaultdict(Counter)  # domain -> kind -> rows
        self._seconds: defaultdict[str, list[float]] = defaultdict(list)  # by domain
        self._errors: Counter[str] = Counter()  # domain and reason
        self.rows, self._labelled = 0, 0
        self._disagreements: list[str] = []

    def add(self, row: Row) -> None:
        kind, domain, right = row["kind"], row["domain"], row.get("right")
        self.kinds[domain][kind] += 1
        self._seconds[domain].append(row["seconds"])
        self.rows += 1
        if kind == "error":
            self._errors[f"{domain}: {row['reason']}"] += 1
        if right in (*KINDS, NOT_PASS):
            self._labelled += 1
            if kind != right and (right != NOT_PASS or kind in ("pass", "partial")):
                self._disagreements.append(f"row {self.rows}: {kind} ({row['reason']}), labelled {right}")

    def table(self) -> list[dict[str, str]]:
        return [
            {
                "domain": domain,
                "rows": f"{kinds.total():,}",
                **{kind: f"{kinds[kind]:,}" for kind in KINDS},
                "seconds, median": f"{statistics.median(self._seconds[domain]):.4f}",
                "longest": f"{max(self._seconds[domain]):.2f}",
            }
            for domain, kinds in self.kinds.items()
        ]

    def remarks(self) -> Iterator[str]:
        for reason, n in self._errors.most_common(SHOWN):
            yield f"{n:,} errors: {reason}"
        if self._labelled:
            agreeing = self._labelled - len(self._disagreements)
            yield from self._disagreements[:SHOWN]
            if len(self._disagreements) > SHOWN:
                yield f"... and {len(self._disagreements) - SHOWN:,} more"
            yield f"{agreeing:,} of {self._labelled:,} labelled rows agree"
