"""The report of a run: `RUN/report.html`, one self-contained file, and the headline picture of a pipeline.

Lives here: reading what a run directory holds. Not here: markup (`templates/`), drawing (`plots.py`), measuring. Every
number shown stands in a file of the run, or is a count, a sum or a difference of such numbers.

Invariants the tests assert:
1. any subset of the files gives a report, also a line cut in the middle; it counts the lines it left out;
2. text from a run is escaped, in HTML and in the pictures;
3. the same files give the same bytes; the page loads nothing from elsewhere.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from markupsafe import Markup

from ringrl.lines import read_object, readable_lines, write_atomic
from ringrl.report import page, plots
from ringrl.report.data import data_section
from ringrl.report.page import Figure, share, show
from ringrl.report.plots import Row, has
from ringrl.report.settings import Settings, changed, kind_of, read_config
from ringrl.report.step_counts import step_folders

__all__ = ["write_picture", "write_report", "write_reports"]

VERDICTS = ("pass", "fail", "error", "cut")  # classes of a response, and what it can be filtered by
SHOWN = 8  # most responses of a problem on the page
WORST = 20  # most problems listed for their errors
WORDS = 110  # most characters of a problem in its title
ENDS = {3: "diverged", 130: "interrupted"}  # exit codes

# (label, key of a row): a label that ends in % marks a share
SFT_FACTS = (
    ("steps", "step"), ("SFT tokens", "tokens_total"), ("epochs", "epoch"), ("training loss, last", "loss"),
    ("validation loss, last", "val_loss"), ("validation entropy, last", "val_entropy"),
)  # fmt: skip
SELECTION_FACTS = (
    ("chosen", "chosen"), ("rule", "rule"), ("best by score alone", "by_score"),
    ("RL to SFT tokens", "rl_sft_token_ratio"),
)  # fmt: skip
SELECTION_COLUMNS = (
    ("checkpoint", "name"), ("step", "step"), ("epoch", "epoch"), ("SFT tokens", "sft_tokens"), ("entropy", "entropy"),
    ("in band", "in_band"), ("score, %", "score"), ("pass@k, %", "pass_k"), ("k", "k"),
    ("mean length, tokens", "length_mean"), ("cut, %", "truncated_frac"),
)  # fmt: skip
EVAL_COLUMNS = (
    ("benchmark", "name"), ("avg@k, %", "score"), ("± over samples, %", "se_samples"),
    ("without errors, %", "without_errors"), ("pass@k, %", "pass_k"), ("majority, %", "majority"),
    ("solved always, sometimes, never", "solved"), ("problems", "n"), ("k", "k"), ("mean tokens", "length_mean"),
    ("cut, %", "truncated_frac"), ("grader errors", "errors"),
)  # fmt: skip


class Chapter(NamedTuple):
    """A stage of a pipeline, or a run by itself."""

    run: Path
    kind: str
    of: str = ""  # what of the pipeline it belongs to, where the kind does not say it all

    @property
    def title(self) -> str:
        return (self.kind if self.kind.isupper() else self.kind.capitalize()) + f" {self.of}" * bool(self.of)

    @property
    def link(self) -> str:
        return quote(f"{self.run.name}/report.html")


def write_report(run_dir: Path) -> Path:
    """Write `report.html` into the directory of a run or a pipeline, from the files that are there by now."""
    path = run_dir / "report.html"
    write_atomic(path, _page(run_dir))
    return path


def write_reports(run_dir: Path) -> list[Path]:
    """The report of a run, after those of its stages if it is a pipeline."""
    return [write_report(part) for part in (*(part.run for part in _parts(run_dir)), run_dir)]


def write_picture(run_dir: Path, path: Path) -> Path:
    """Save the three columns that tell a pipeline's story; the suffix of `path` is the format: .png, .svg."""
    metrics, _ = readable_lines(run_dir / "rl" / "metrics.jsonl")
    evals, _ = readable_lines(run_dir / "rl" / "evals.jsonl")
    plots.picture(path, metrics, evals, read_object(run_dir / "select" / "selection.json"))
    return path


def _page(run: Path) -> Markup:
    parts = _parts(run)
    if parts or (run / "summary.json").is_file():
        me, body = Chapter(run, "pipeline"), _summary(run, parts) + _origin(run)
    else:
        me = _part(run)
        body = _section(me, alone=True)
    above = "../report.html" if kind_of(read_config(run.resolve().parent)) == "pipeline" else ""
    sections = [{"part": part, "state": _state(part.run), "section": _section(part)} for part in parts]
    name, state = run.resolve().name, _state(run)
    return page.render("page", name=name, me=me, state=state, above=above, body=body, parts=sections, verdicts=VERDICTS)


def _parts(run: Path) -> list[Chapter]:
    """The stages of a pipeline that have begun, in the order in which they run; none of any other run."""
    names = ["data"] * bool(step_folders(run / "data"))  # a run of `ringrl data` has a folder data/, too
    parts = [_part(run / name) for name in (*names, "sft", "select", "rl", "general") if (run / name).is_dir()]
    metrics, _ = readable_lines(run / "rl" / "metrics.jsonl")
    stages = dict.fromkeys(["sft", *(str(row.get("stage")) for row in metrics), "general"])
    order = {f"eval_{name}": i for i, name in enumerate(stages)}
    evals = sorted(run.glob("eval_*"), key=lambda folder: (order.get(folder.name, len(order)), folder.name))
    return parts + [_part(folder) for folder in evals if folder.is_dir()]


def _part(run: Path) -> Chapter:
    """What kind of run this is, told by its configuration, else by its files."""
    kind = kind_of(read_config(run))
    if not kind:
        rows = readable_lines(run / "metrics.jsonl")[0] + readable_lines(run / "evals.jsonl")[0]
        training = "RL" if any("stage" in row for row in rows) else "SFT" if rows else "run"
        kinds = {"selection.json": "checkpoint selection", "results.json": "evaluation"}
        found = [kind for file, kind in kinds.items() if (run / file).is_file()]
        kind = "data" if step_folders(run) else found[0] if found else training
    stage = run.name.removeprefix("eval_")
    return Chapter(run, kind, f"after {stage}" if stage != run.name else stage if stage == "general" else "")


def _state(run: Path) -> str:
    """How the run ended."""
    if (run / "finished.json").is_file():
        seconds = read_object(run / "finished.json").get("seconds")
        return f"finished in {page.duration(seconds)}" if seconds else "finished"
    if (run / "summary.json").is_file():
        return "finished"
    stopped = read_object(run / "stopped.json")
    if not stopped:
        return "not finished"
    end, text = ENDS.get(stopped.get("code", 1), "failed"), str(stopped.get("text", ""))
    return page.shorten(f"not finished: {end}" + f": {text}" * bool(text))


# ---- sections: one for each kind of run ----


def _section(part: Chapter, alone: bool = False) -> Markup:
    """The section of a run; on a page of its own with more to read."""
    run, raw = part.run, read_config(part.run)
    settings = changed(raw, part.kind)
    if part.kind == "data":
        section = data_section(run, settings)
    elif part.kind == "checkpoint selection":
        section = _selection_section(read_object(run / "selection.json"), settings)
    elif part.kind == "evaluation":
        results = read_object(run / "results.json")
        responses = _responses(run, results.get("benchmarks", ())) if alone else []
        section = _eval_section(results, raw, responses)
        section += page.render("responses", benchmarks=responses, verdicts=VERDICTS)
    else:
        steps = page.total(raw.get("stages", ()), "steps")
        section = _training_section(run, steps, settings)
    return section + _origin(run)


def _training_section(run: Path, steps: int, settings: Settings) -> Markup:
    """steps: how many RL is to take, 0 if that is not known."""
    metrics, cut = readable_lines(run / "metrics.jsonl")
    evals, cut_evals = readable_lines(run / "evals.jsonl")
    note = f"{cut + cut_evals} line(s) could not be read and are left out." if cut + cut_evals else ""
    if not metrics + evals:
        return page.render("section", note=note or "Nothing is recorded yet.", settings=settings)
    if any("stage" in row for row in metrics + evals):
        more = {"note": note, "alarms": _alarms(run), "settings": settings}
        return _rl_section(metrics, evals, steps, more) + _rollouts(run)
    return _sft_section(metrics, evals, settings, note)


def _sft_section(metrics: list[Row], evals: list[Row], settings: Settings, note: str) -> Markup:
    last = (evals or [{}])[-1] | (metrics or [{}])[-1]
    seconds = page.total(metrics, "time_step_s")
    first, *others = plots.SFT_PANELS
    figures = page.panels([first], metrics, "tokens_total")
    figures += page.panels(plots.SFT_EVAL_PANELS, evals, "tokens_total")
    figures += page.panels(others, metrics, "tokens_total")
    flat = page.constants(plots.SFT_PANELS, metrics), page.constants(plots.SFT_EVAL_PANELS, evals)
    facts = [*page.facts(last, SFT_FACTS), ("time in steps", page.duration(seconds))]
    return page.render("section", facts=facts, note=note, figures=figures, flat="; ".join(filter(None, flat)),
                       settings=settings)  # fmt: skip


def _selection_section(selection: Row, settings: Settings) -> Markup:
    rows = selection.get("rows", [])
    if not rows:
        return page.render("section", note="Nothing is recorded yet.", settings=settings)
    band = " to ".join(map(show, selection.get("band", ())))
    facts = [*page.facts(selection, SELECTION_FACTS), ("band, nats per token", band)]
    caption = "Shaded: the band asked for. Circle: the checkpoint RL starts from. Bars: one standard error."
    figure = page.figure("Entropy and score along SFT", caption, plots.draw_selection, selection, axes=2)
    marked = [row["name"] for row in rows].index(selection["chosen"])
    return page.render("section", facts=facts, note=selection.get("reason", ""), figures=[figure],
                       table=page.table(SELECTION_COLUMNS, rows), marked=marked, settings=settings)  # fmt: skip


def _rl_section(metrics: list[Row], evals: list[Row], all_steps: int, more: Row) -> Markup:
    """more: further values of the template."""
    equal = sum(row.get("phi") == row.get("tokens_trained") for row in metrics)
    seconds = page.total(metrics, "time_rollout_s", "time_reward_s", "time_train_s", "time_sync_s")
    steps, budgets = (metrics or [{}])[-1].get("step"), _budgets(metrics)
    facts = [
        ("steps", f"{show(steps)} of {all_steps:,}" if steps != all_steps and all_steps else steps),
        *budgets,
        ("steps that train on exactly Φ", f"{equal} of {len(metrics)}" if budgets else ""),
        ("tokens trained", page.total(metrics, "tokens_trained")),
        ("tokens generated", page.total(metrics, "tokens_generated")),
        ("grader errors", page.total(metrics, "reward_errors")),
        ("time in phases", page.duration(seconds)),
    ]
    figures = page.panels([plots.REWARD], metrics, "step")
    if evals:
        caption = "Solid: avg@k, bars one standard error. Dashed: pass@k. Within the bars nothing is gained yet."
        figures.append(page.figure("Held-out score", caption, plots.draw_held_out, evals, stages=metrics))
    if has(metrics, "tokens_trained"):
        caption = "Under C3PO the trained line should lie flat on Φ, however much is sampled."
        figures.append(page.figure("Tokens per step", caption, plots.draw_tokens, metrics, stages=metrics))
    figures += page.panels(plots.RL_PANELS, metrics, "step")
    errors = Counter[str]()
    for row in metrics:
        errors.update(row.get("errors_of_problems", {}))
    listed = _worst({("all steps", problem): n for problem, n in errors.items()})
    flat = page.constants((plots.REWARD, *plots.RL_PANELS), metrics)
    verdicts = _verdicts({"all steps": metrics})
    return page.render("section", facts=facts, figures=figures, flat=flat, verdicts=verdicts, errors=listed, **more)


def _budgets(metrics: Sequence[Row]) -> list[tuple[str, str]]:
    """The token budget of every stage; of one stage without its name."""
    budgets = {str(row.get("stage")): show(row["phi"]) for row in metrics if row.get("phi")}
    names = [f"budget Φ, {stage}" if len(budgets) > 1 else "budget Φ" for stage in budgets]
    return [(name, f"{phi} tokens a step") for name, phi in zip(names, budgets.values(), strict=True)]


def _alarms(run: Path) -> list[tuple[Any, ...]]:
    """What the watchdog said: step, kind, whether it ended or rewound the run, and why."""
    files = sorted((run / "watchdog").glob("step_*.json"))
    return [
        (file.stem.replace("_", " "), alarm.get("kind"), alarm.get("collapse"), alarm.get("text"))
        for file in files
        for alarm in read_object(file).get("alarms", ())
    ]


def _eval_section(results: Row, raw: Row, responses: Sequence[Row]) -> Markup:
    """responses: those of every benchmark, as `_responses` returns them, to draw their lengths."""
    rows = []
    for name, row in results.get("benchmarks", {}).items():
        rates = [p["passed"] / p["total"] for p in row.get("problems", []) if p["total"]]
        always, never = rates.count(1.0), rates.count(0.0)
        solved = page.render("solved", counts=(always, len(rates) - always - never, never), all=len(rates) or 1)
        without = row.get("score_without_errors") if row.get("errors") else None
        rows.append(row | {"name": name, "solved": solved, "without_errors": without, "score_se": row.get("se")})
    caption = "Thin: one standard error over problems. Thick: over samples of the same problems."
    figures = [page.figure("Scores", caption, plots.draw_scores, rows)] if rows else []
    errors = _worst({
        (row["name"], str(problem["id"])): problem["errors"]
        for row in rows for problem in row.get("problems", []) if problem.get("errors")
    })  # fmt: skip
    facts = [("engine", results.get("engine", "")), ("dtype", results.get("dtype", "")),
             ("chat template, sha256", results.get("template_sha256", "")[:12])]  # fmt: skip
    settings = changed({"model": results.get("model", "")} | results.get("sampling", {}) | raw, "evaluation")
    figures += [benchmark["lengths"] for benchmark in responses]
    return page.render("section", lead=page.table(EVAL_COLUMNS, rows), figures=figures, facts=facts, errors=errors,
                       verdicts=_verdicts({row["name"]: [row] for row in rows}), settings=settings,
                       note="" if rows else "No results yet.")  # fmt: skip


def _verdicts(judged: Mapping[str, Sequence[Row]]) -> list[tuple[str, ...]]:
    """How often the verifiers gave each reason, over the `verdicts` of these rows by name: name, verdict, reason, n,
    and n in percent of the name's responses."""
    counts = Counter[tuple[str, str, str]]()
    for name, rows in judged.items():
        for kind, reasons in ((k, r) for row in rows for k, r in row.get("verdicts", {}).items()):
            counts.update({(name, kind, reason): n for reason, n in reasons.items()})
    totals = Counter[str]()
    for (name, _, _), n in counts.items():
        totals[name] += n
    ordered = sorted(counts.items(), key=lambda item: (item[0][0], -item[1]))
    return [(*key, show(n), f"{100 * n / (totals[key[0]] or 1):.1f}") for key, n in ordered]


def _worst(errors: Mapping[tuple[str, str], int]) -> list[tuple[str, ...]]:
    """Name, problem and number of errors of the problems with the most."""
    return [(*key, show(n)) for key, n in sorted(errors.items(), key=lambda item: -item[1])[:WORST]]


# ---- responses ----


def _responses(run: Path, names: Iterable[str]) -> list[Row]:
    """Every benchmark's lengths against verdicts, and its responses by problem, the hardest first; in the order of
    `names`, then others."""
    benchmarks, order = [], {f"{name}.jsonl": i for i, name in enumerate(names)}
    for path in sorted((run / "responses").glob("*.jsonl"), key=lambda p: (order.get(p.name, len(order)), p.name)):
        rows = _judged(path)
        if not rows:
            continue
        prompts = {p["id"]: p for p in readable_lines(run / "prompts" / path.name)[0]}
        groups: dict[str, list[Row]] = {}
        for row in rows:
            groups.setdefault(row["id"], []).append(row)
        caption = "Responses in ten groups of equal size by length; bars one standard error. Falling: long ones ramble."
        lengths = page.figure(f"Length against correctness, {path.stem}", caption, plots.draw_lengths, rows)
        problems = [_problem(prompts.get(i, {"id": i}), group) for i, group in groups.items()]
        problems.sort(key=lambda problem: problem["share"])
        benchmarks.append({"name": path.stem, "lengths": lengths, "problems": problems})
    return benchmarks


def _judged(path: Path) -> list[Row]:
    """The responses that have a verdict. While a run goes on, a response and its verdict are two lines."""
    responses: dict[tuple[str, int], Row] = {}
    for row in readable_lines(path)[0]:
        key = (row["id"], row["sample"])
        responses[key] = responses.get(key, {}) | row
    return [row for row in responses.values() if "verdict" in row and "text" in row]


def _problem(prompt: Row, rows: Sequence[Row]) -> dict[str, Any]:
    """A problem and a few of its responses, wrong ones as well as right ones."""
    right = [row for row in rows if row["verdict"] == "pass"]
    wrong = [row for row in rows if row["verdict"] != "pass"]
    most = max(SHOWN - len(right), SHOWN // 2)
    shown = sorted(wrong[:most] + right[: SHOWN - min(len(wrong), most)], key=lambda row: row["sample"])
    messages = [m["content"] for m in prompt.get("messages", ())]
    text, words = "\n\n".join(messages), " ".join(messages[-1].split()) if messages else ""
    return {
        "share": len(right) / len(rows),
        "right": f"{len(right)} of {len(rows)} right",
        "words": words if len(words) <= WORDS else (words[:WORDS].rpartition(" ")[0] or words[:WORDS]) + " …",
        "id": prompt["id"],
        "text": text + (f"\n\n[expected] {prompt['answer']}" if prompt.get("answer") else ""),
        "responses": [_response(row) for row in shown],
        "left": len(rows) - len(shown),
    }


def _response(row: Row) -> dict[str, str]:
    """Its verdict, its thought, and the rest."""
    thought, closed, rest = row["text"].rpartition("</think>")
    if not closed and rest.startswith("<think>"):
        thought, rest = rest, ""
    cut = row["finish"] == "length"
    title = f"sample {row['sample']} · {row['verdict']}: {row['reason']} · {show(row['length'])} tokens{' · cut' * cut}"
    kind = row["verdict"] if row["verdict"] in VERDICTS else "error"  # the name of a CSS class
    return {"kinds": f"{kind}{' cut' * cut}", "title": title, "thought": thought, "text": rest}


def _rollouts(run: Path, shown: int = 4) -> Markup:
    """A few responses of the first and the last step, evenly spaced and not chosen by what they say."""
    files = sorted((run / "rollouts").glob("step_*.jsonl"))
    steps = {}
    for path in dict.fromkeys(files[:1] + files[-1:]):
        rows, _ = readable_lines(path)
        steps[path.stem.replace("_", " ")] = [
            (
                f"{row['prompt_id']} · {row['domain']} · reward {show(row['reward'])} · "
                f"advantage {show(row['advantage'])} · {show(row['length'])} tokens · "
                f"finish: {row['finish']} · weights {row['version']}",
                row["text"],
            )
            for row in rows[:: max(1, -(-len(rows) // shown))]
        ]
    return page.render("rollouts", steps=steps) if steps else Markup()


# ---- the head of a pipeline, the foot of a run ----


def _summary(run: Path, parts: Sequence[Chapter]) -> Markup:
    """Links to the parts, the headline picture, and the scores of every stage with what changed since the stage
    above."""
    summary, metrics = read_object(run / "summary.json"), readable_lines(run / "rl" / "metrics.jsonl")[0]
    seconds = {part: read_object(part.run / "finished.json").get("seconds") or 0.0 for part in parts}
    rows = summary.get("rows", [])
    for before, row in zip([None, *rows], rows, strict=False):
        row["cells"] = [
            (
                share(score | {"score_se": score.get("se")}, "score"),
                *(_change(score, before["scores"].get(name, {})) if before else ("", "")),
            )
            for name, score in row["scores"].items()
        ]
        row["model"] = str(row["model"]).removeprefix(f"{run.resolve()}/")
    facts = [*_budgets(metrics), ("seed", str(read_config(run).get("seed", summary.get("seed", "")))),
             ("time", page.duration(sum(seconds.values())) if any(seconds.values()) else "")]  # fmt: skip
    times = [(part.title, page.duration(s)) for part, s in seconds.items() if s]
    headline = _headline(metrics, run)
    return page.render("pipeline", parts=parts, facts=facts, times=times, headline=headline, rows=rows)


def _headline(metrics: list[Row], run: Path) -> list[Figure]:
    """The columns of the headline picture for which there is something to draw."""
    selection, evals = read_object(run / "select" / "selection.json"), readable_lines(run / "rl" / "evals.jsonl")[0]
    below = "on held-out problems; bars one standard error." if evals else "the entropy of the policy."
    columns: Sequence[tuple[str, Callable[..., None], Sequence[Any]]] = (
        ("Shaded: the band asked for. Circle: the checkpoint RL starts from.", plots.draw_selection, (selection,)),
        (f"Above in training, below {below}", plots.draw_rewards, (metrics, evals)),
        ("The trained line lies on the budget Φ. A steady norm is healthy.", plots.draw_budget, (metrics,)),
    )
    return [
        page.figure(title, caption, draw, *values, stages=() if draw is plots.draw_selection else metrics, axes=2)
        for title, (caption, draw, values) in zip(plots.column_titles(evals), columns, strict=True)
        if values[0]
    ]


def _change(now: Row, before: Row) -> tuple[str, str]:
    """The change of a score in points, and its CSS classes; faint within two standard errors of the difference."""
    if not has([now], "score") or not has([before], "score"):
        return "", ""
    change = now["score"] - before["score"]
    faint = " faint" if abs(change) <= 2 * math.hypot(now["se"], before["se"]) else ""
    sign = "good" if change > 0 else "bad" if change < 0 else "soft"
    return f"{change * 100:+.1f}", sign + faint


def _origin(run: Path) -> Markup:
    """What the run was made from: its configuration and its lineage, folded."""
    files = (run / "config.yaml", run / "lineage.json")
    return page.render("files", files=[file for file in files if file.is_file()])
