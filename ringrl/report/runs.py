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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ringrl.lines import read_object, readable_lines, write_atomic
from ringrl.report import page, plots
from ringrl.report.data import data_section
from ringrl.report.page import share, show
from ringrl.report.plots import Row, has
from ringrl.report.step_counts import step_folders

__all__ = ["write_picture", "write_report"]

VERDICTS = ("pass", "fail", "error", "cut")  # classes of a response, and what it can be filtered by
SHOWN = 8  # most responses of a problem on the page
WORST = 20  # most problems listed for their errors

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
    ("without errors, %", "score_without_errors"), ("pass@k, %", "pass_k"),
    ("majority, %", "majority"), ("k", "k"), ("problems", "n"),
    ("mean length, tokens", "length_mean"), ("cut, %", "truncated_frac"), ("grader errors", "errors"),
    ("solved always", "always"), ("sometimes", "some"), ("never", "never"),
)  # fmt: skip


def write_report(run_dir: Path) -> Path:
    """Write `report.html` into the directory of a run or a pipeline, from the files that are there by now."""
    path = run_dir / "report.html"
    write_atomic(path, _page(run_dir))
    return path


def write_picture(run_dir: Path, path: Path) -> Path:
    """Save the three columns that tell a pipeline's story; the suffix of `path` is the format: .png, .svg."""
    metrics, _ = readable_lines(run_dir / "rl" / "metrics.jsonl")
    evals, _ = readable_lines(run_dir / "rl" / "evals.jsonl")
    plots.picture(path, metrics, evals, read_object(run_dir / "select" / "selection.json"))
    return path


def _page(run: Path) -> Markup:
    folders = (*(run / name for name in ("sft", "select", "rl", "general")), *sorted(run.glob("eval_*")))
    data = [run / "data"] if step_folders(run / "data") else []  # a run of `ringrl data` has a folder data/, too
    parts = data + [part for part in folders if part.is_dir()]
    if parts or (run / "summary.json").is_file():
        kind, body = "pipeline", _summary(run, [part.name for part in parts]) + _origin(run)
    else:
        kind, body = _section(run, alone=True)
    sections = [dict(zip(("name", "kind", "section"), (part.name, *_section(part)), strict=True)) for part in parts]
    return page.render("page", name=run.resolve().name, kind=kind, body=body, parts=sections, verdicts=VERDICTS)


# ---- sections: one for each kind of run ----


def _section(run: Path, alone: bool = False) -> tuple[str, Markup]:
    """What kind of run this is, told by its files, and its section; on a page of its own with more to read."""
    if step_folders(run):
        kind, section = "data", data_section(run)
    elif (run / "selection.json").is_file():
        kind, section = "checkpoint selection", _selection_section(read_object(run / "selection.json"))
    elif (run / "results.json").is_file():
        kind, section = "evaluation", _eval_section(read_object(run / "results.json"))
        section += _responses(run) if alone else ""
    else:
        kind, section = _training_section(run)
    return kind, section + _origin(run)


def _training_section(run: Path) -> tuple[str, Markup]:
    metrics, cut = readable_lines(run / "metrics.jsonl")
    evals, cut_evals = readable_lines(run / "evals.jsonl")
    notes = [f"{cut + cut_evals} line(s) could not be read and are left out."] if cut + cut_evals else []
    if not metrics + evals:
        kind, section = "run", Markup()
        notes.append("Nothing is recorded yet.")
    elif any("stage" in row for row in metrics + evals):
        kind, section = "RL", _rl_section(metrics, evals) + _rollouts(run)
    else:
        kind, section = "SFT", _sft_section(metrics, evals)
    return kind, Markup().join(Markup('<p class="soft">{}</p>').format(note) for note in notes) + section


def _sft_section(metrics: list[Row], evals: list[Row]) -> Markup:
    last = (evals or [{}])[-1] | (metrics or [{}])[-1]
    seconds = page.total(metrics, "time_step_s")
    first, *others = plots.SFT_PANELS
    figures = page.panels([first], metrics, "tokens_total")
    figures += page.panels(plots.SFT_EVAL_PANELS, evals, "tokens_total")
    figures += page.panels(others, metrics, "tokens_total")
    facts = [*page.facts(last, SFT_FACTS), ("time in steps", page.duration(seconds))]
    return page.render("section", facts=facts, above=figures)


def _selection_section(selection: Row) -> Markup:
    band = " to ".join(map(show, selection.get("band", ())))
    facts = [*page.facts(selection, SELECTION_FACTS), ("band, nats per token", band)]
    caption = "Shaded: the band asked for. Circle: the checkpoint RL starts from. Bars: one standard error."
    figure = page.figure("Entropy and score along SFT", caption, plots.draw_selection, selection, axes=2)
    rows = selection.get("rows", [])
    marked = [row["name"] for row in rows].index(selection["chosen"]) if rows else -1
    note, table = selection.get("reason", ""), page.table(SELECTION_COLUMNS, rows)
    return page.render("section", facts=facts, note=note, above=[figure], table=table, marked=marked)


def _rl_section(metrics: list[Row], evals: list[Row]) -> Markup:
    equal = sum(row.get("phi") == row.get("tokens_trained") for row in metrics)
    seconds = page.total(metrics, "time_rollout_s", "time_reward_s", "time_train_s", "time_sync_s")
    phi = ", ".join(dict.fromkeys(show(row["phi"]) for row in metrics if row.get("phi")))
    facts = [
        ("steps", (metrics or [{}])[-1].get("step")),
        ("budget Φ, tokens per step", phi),
        ("steps that train on exactly Φ", f"{equal} of {len(metrics)}" if phi else ""),
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
    verdicts = _verdicts({"all steps": metrics})
    return page.render("section", facts=facts, above=figures, verdicts=verdicts, errors=listed)


def _eval_section(results: Row) -> Markup:
    facts = [
        ("model", results.get("model", "")),
        ("sampling", ", ".join(f"{name} {value}" for name, value in results.get("sampling", {}).items())),
        ("chat template, sha256", results.get("template_sha256", "")[:12]),
    ]
    rows = []
    for name, row in results.get("benchmarks", {}).items():
        rates = [p["passed"] / p["total"] for p in row.get("problems", []) if p["total"]]
        always, never = rates.count(1.0), rates.count(0.0)
        solved = {"always": always, "some": len(rates) - always - never, "never": never}
        rows.append(row | solved | {"name": name, "score_se": row["se"]})
    caption = "Thin: one standard error over problems. Thick: over samples of the same problems."
    figures = [page.figure("Scores", caption, plots.draw_scores, rows)] if rows else []
    verdicts = _verdicts({row["name"]: [row] for row in rows})
    errors = _worst({
        (row["name"], str(problem["id"])): problem["errors"]
        for row in rows for problem in row.get("problems", []) if problem.get("errors")
    })  # fmt: skip
    table = page.table(EVAL_COLUMNS, rows)
    return page.render("section", facts=facts, table=table, verdicts=verdicts, errors=errors, below=figures)


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


def _responses(run: Path) -> Markup:
    """Every benchmark's lengths against verdicts, and its responses by problem."""
    benchmarks = []
    for path in sorted((run / "responses").glob("*.jsonl")):
        rows = [row for row in readable_lines(path)[0] if "verdict" in row]
        if not rows:
            continue
        prompts = {p["id"]: p for p in readable_lines(run / "prompts" / path.name)[0]}
        groups: dict[str, list[Row]] = {}
        for row in rows:
            groups.setdefault(row["id"], []).append(row)
        caption = "Responses in ten groups of equal size by length; bars one standard error. Falling: long ones ramble."
        lengths = page.figure("Length against correctness", caption, plots.draw_lengths, rows)
        problems = [_problem(prompts.get(i, {"id": i}), group) for i, group in groups.items()]
        benchmarks.append({"name": path.stem, "lengths": lengths, "problems": problems})
    return page.render("responses", benchmarks=benchmarks, verdicts=VERDICTS)


def _problem(prompt: Row, rows: Sequence[Row]) -> dict[str, Any]:
    """A problem and a few of its responses, wrong ones as well as right ones."""
    right = [row for row in rows if row["verdict"] == "pass"]
    wrong = [row for row in rows if row["verdict"] != "pass"]
    most = max(SHOWN - len(right), SHOWN // 2)
    shown = sorted(wrong[:most] + right[: SHOWN - min(len(wrong), most)], key=lambda row: row["sample"])
    text = "\n\n".join(m["content"] for m in prompt.get("messages", ()))
    return {
        "title": f"{prompt['id']} · {len(right)} of {len(rows)} right",
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


def _summary(run: Path, parts: Sequence[str]) -> Markup:
    """Links to the parts, and the scores of every stage with what changed since the stage above."""
    summary = read_object(run / "summary.json")
    rows = summary.get("rows", [])
    for before, row in zip([None, *rows], rows, strict=False):
        row["cells"] = [
            (
                share(score | {"score_se": score["se"]}, "score"),
                *(_change(score, before["scores"][name]) if before else ("", "")),
            )
            for name, score in row["scores"].items()
        ]
    return page.render("pipeline", names=parts, summary=summary, rows=rows)


def _change(now: Row, before: Row) -> tuple[str, str]:
    """The change of a score in points, and its CSS classes; faint within two standard errors of the difference."""
    change = now["score"] - before["score"]
    faint = " faint" if abs(change) <= 2 * math.hypot(now["se"], before["se"]) else ""
    sign = "good" if change > 0 else "bad" if change < 0 else "soft"
    return f"{change * 100:+.1f}", sign + faint


def _origin(run: Path) -> Markup:
    """What the run was made from: its configuration and its lineage, folded."""
    files = (run / "config.yaml", run / "lineage.json")
    return page.render("files", files=[file for file in files if file.is_file()])
