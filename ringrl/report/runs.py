"""The report of a run: `RUN/report.html`, one self-contained file, and the headline picture of a pipeline.

Lives here: reading what a run directory holds and laying it out. Not here: drawing (`plots.py`), measuring. Every
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

from ringrl.lines import read_object, readable_lines, write_atomic
from ringrl.report import page, plots
from ringrl.report.data import data_section
from ringrl.report.page import Html, esc, share, show
from ringrl.report.plots import Row, has
from ringrl.report.step_counts import step_folders

__all__ = ["write_picture", "write_report"]

VERDICTS = ("pass", "fail", "error", "cut")  # classes of a response, and what it can be filtered by
SHOWN = 8  # responses of a problem
FILTERS = "".join(
    f".browse:has(.only-{kind}:checked) :is(.r:not(.{kind}), .problem:not(:has(.{kind}))) {{ display:none }}\n"
    for kind in VERDICTS
)

# (what it is called, its key): a name that ends in % is a share
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
    ("benchmark", "name"), ("avg@k, %", "avg"), ("± over samples, %", "se_samples"), ("pass@k, %", "pass_k"),
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


def _page(run: Path) -> str:
    folders = (*(run / name for name in ("sft", "select", "rl", "general")), *sorted(run.glob("eval_*")))
    data = [run / "data"] if step_folders(run / "data") else []  # a run of `ringrl data` has a folder data/, too
    parts = data + [part for part in folders if part.is_dir()]
    if parts or (run / "summary.json").is_file():
        links = "".join(f'<a href="#{esc(part.name)}">{esc(part.name)}</a>' for part in parts)
        kind, own = "pipeline", f"<nav>{links}</nav>{_summary(run)}{_origin(run)}"
    else:
        kind, own = _section(run, alone=True)
    for part in parts:
        part_kind, section = _section(part)
        own += f'<h2 id="{esc(part.name)}">{esc(part.name)} <small>{part_kind}</small></h2>{section}'
    return page.document(run.resolve().name, kind, own, FILTERS)


# ---- sections: one for each kind of run ----


def _section(run: Path, alone: bool = False) -> tuple[str, str]:
    """What kind of run this is, told by its files, and its section; on a page of its own with more to read."""
    if step_folders(run):
        kind, section = "data", data_section(run)
    elif (run / "selection.json").is_file():
        kind, section = "checkpoint selection", _selection_section(read_object(run / "selection.json"))
    elif (run / "results.json").is_file():
        kind, section = "evaluation", _eval_section(read_object(run / "results.json"))
        section += _browser(run) if alone else ""
    else:
        metrics, cut = readable_lines(run / "metrics.jsonl")
        evals, cut_evals = readable_lines(run / "evals.jsonl")
        if any("stage" in row for row in metrics + evals):
            kind, section = "RL", _rl_section(metrics, evals) + _rollouts(run)
        else:
            kind, section = "SFT", _sft_section(metrics, evals)
        if not metrics + evals:
            kind, section = "run", '<p class="soft">Nothing is recorded yet.</p>'
        if cut + cut_evals:
            section = f'<p class="soft">{cut + cut_evals} line(s) could not be read and are left out.</p>' + section
    return kind, section + _origin(run)


def _sft_section(metrics: list[Row], evals: list[Row]) -> str:
    last = (evals or [{}])[-1] | (metrics or [{}])[-1]
    seconds = page.total(metrics, "time_step_s")
    tiles = page.tiles(*page.facts(last, SFT_FACTS), ("time in steps", page.duration(seconds)))
    first, *others = plots.SFT_PANELS
    figures = page.panels([first], metrics, "tokens_total")
    figures += page.panels(plots.SFT_EVAL_PANELS, evals, "tokens_total")
    return tiles + page.figures(figures + page.panels(others, metrics, "tokens_total"))


def _selection_section(selection: Row) -> str:
    band = " to ".join(map(show, selection.get("band", ())))
    tiles = page.tiles(*page.facts(selection, SELECTION_FACTS), ("band, nats per token", band))
    svg = plots.svg(lambda top, bottom: plots.draw_selection(top, bottom, selection), axes=2)
    caption = "Shaded: the band asked for. Circle: the checkpoint RL starts from. Bars: one standard error."
    picture = page.figure("Entropy and score along SFT", svg, caption, wide=True)
    rows = selection.get("rows", [])
    names = [row["name"] for row in rows]
    table = page.table(SELECTION_COLUMNS, rows, names.index(selection["chosen"])) if rows else ""
    return tiles + f"<p>{esc(selection.get('reason', ''))}</p>" + page.figures([picture]) + table


def _rl_section(metrics: list[Row], evals: list[Row]) -> str:
    equal = sum(row.get("phi") == row.get("tokens_trained") for row in metrics)
    seconds = page.total(metrics, "time_rollout_s", "time_reward_s", "time_train_s", "time_sync_s")
    phi = ", ".join(dict.fromkeys(show(row["phi"]) for row in metrics if row.get("phi")))
    tiles = page.tiles(
        ("steps", show((metrics or [{}])[-1].get("step"))),
        ("budget Φ, tokens per step", phi),
        ("steps that train on exactly Φ", f"{equal} of {len(metrics)}" if phi else ""),
        ("tokens trained", show(page.total(metrics, "tokens_trained"))),
        ("tokens generated", show(page.total(metrics, "tokens_generated"))),
        ("grader errors", show(page.total(metrics, "reward_errors"))),
        ("time in phases", page.duration(seconds)),
    )
    figures = page.panels([plots.REWARD], metrics, "step")
    if evals:
        svg = plots.svg(lambda ax: plots.draw_held_out(ax, evals), metrics)
        caption = "Solid: avg@k, bars one standard error. Dashed: pass@k. Within the bars nothing is gained yet."
        figures.append(page.figure("Held-out score", svg, caption))
    if has(metrics, "tokens_trained"):
        svg = plots.svg(lambda ax: plots.draw_tokens(ax, metrics), metrics)
        caption = "Under C3PO the trained line should lie flat on Φ, however much is sampled."
        figures.append(page.figure("Tokens per step", svg, caption))
    figures += page.panels(plots.RL_PANELS, metrics, "step")
    return tiles + page.figures(figures) + _verdicts({"all steps": metrics})


def _eval_section(results: Row) -> str:
    tiles = page.tiles(
        ("model", results.get("model", "")),
        ("sampling", ", ".join(f"{name} {value}" for name, value in results.get("sampling", {}).items())),
        ("chat template, sha256", results.get("template_sha256", "")[:12]),
    )
    rows = []
    for name, row in results.get("benchmarks", {}).items():
        rates = [p["passed"] / p["total"] for p in row.get("problems", []) if p["total"]]
        always, never = rates.count(1.0), rates.count(0.0)
        rows.append(row | {"name": name, "always": always, "some": len(rates) - always - never, "never": never})
    svg = plots.svg(lambda ax: plots.draw_scores(ax, rows)) if rows else ""
    caption = "Thin: one standard error over problems. Thick: over samples of the same problems."
    tables = page.table(EVAL_COLUMNS, rows) + _verdicts({row["name"]: [row] for row in rows})
    return tiles + tables + (page.figures([page.figure("Scores", svg, caption)]) if rows else "")


def _verdicts(judged: Mapping[str, Sequence[Row]]) -> str:
    """How often the verifiers gave each reason, over the `verdicts` of some rows."""
    counts = Counter[tuple[str, str, str]]()
    for name, rows in judged.items():
        for kind, reasons in ((k, r) for row in rows for k, r in row.get("verdicts", {}).items()):
            counts.update({(name, kind, reason): n for reason, n in reasons.items()})
    if not counts:
        return ""
    cells = [(*key, show(n)) for key, n in sorted(counts.items(), key=lambda item: (item[0][0], -item[1]))]
    return "<h3>Verdicts</h3>" + page.grid(("of", "verdict", "reason", "responses"), cells)


def _browser(run: Path) -> str:
    """Every benchmark's lengths against verdicts, and its responses by problem."""
    text = ""
    for path in sorted((run / "responses").glob("*.jsonl")):
        rows, _ = readable_lines(path)
        rows = [row for row in rows if "verdict" in row]
        if not rows:
            continue
        prompts = {p["id"]: p for p in readable_lines(run / "prompts" / path.name)[0]}
        groups: dict[str, list[Row]] = {}
        for row in rows:
            groups.setdefault(row["id"], []).append(row)
        svg = plots.svg(lambda ax, rows=rows: plots.draw_lengths(ax, rows))
        caption = "Responses in ten groups of equal size by length; bars one standard error. Falling: long ones ramble."
        problems = "".join(_problem(prompts.get(i, {"id": i}), group) for i, group in groups.items())
        text += f"<h2>{esc(path.stem)}</h2>" + page.figures([page.figure("Length against correctness", svg, caption)])
        text += f'<div class="browse">{_filters(path.stem)}{problems}</div>'
    return text


def _filters(name: str) -> str:
    """Radio buttons; which responses they leave is in CSS."""
    buttons = (
        f'<label><input type="radio" name="{esc(name)}" class="only-{kind}"{mark}> {kind}</label>'
        for kind, mark in (("all", " checked"), *((kind, "") for kind in VERDICTS))
    )
    return f'<p class="filter">show {"".join(buttons)}</p>'


def _problem(prompt: Row, rows: Sequence[Row]) -> str:
    """A problem and a few of its responses, wrong ones as well as right ones."""
    right = [row for row in rows if row["verdict"] == "pass"]
    wrong = [row for row in rows if row["verdict"] != "pass"]
    most = max(SHOWN - len(right), SHOWN // 2)
    some = sorted(wrong[:most] + right[: SHOWN - min(len(wrong), most)], key=lambda row: row["sample"])
    asked = "\n\n".join(m["content"] for m in prompt.get("messages", ()))
    expected = f"\n\n[expected] {prompt['answer']}" if prompt.get("answer") else ""
    left = len(rows) - len(some)
    note = f'<p class="soft">{left} more responses are in the run directory.</p>' if left else ""
    title = f"{prompt['id']} · {len(right)} of {len(rows)} right"
    return (
        f'<details class="card problem"><summary>{esc(title)}</summary><pre>{esc(asked + expected)}</pre>'
        f"{''.join(map(_response, some))}{note}</details>"
    )


def _response(row: Row) -> str:
    """Its verdict, its thought folded, and the rest."""
    thought, closed, rest = row["text"].rpartition("</think>")
    if not closed and rest.startswith("<think>"):
        thought, rest = rest, ""
    cut = row["finish"] == "length"
    kinds = f"{row['verdict']}{' cut' * cut}"
    title = f"sample {row['sample']} · {row['verdict']}: {row['reason']} · {show(row['length'])} tokens{' · cut' * cut}"
    folded = page.folded(f"thought, {len(thought):,} characters", page.middle_left_out(thought)) if thought else ""
    return (
        f'<details class="card r {esc(kinds)}"><summary>{esc(title)}</summary>{folded}'
        f"<pre>{esc(page.middle_left_out(rest))}</pre></details>"
    )


def _rollouts(run: Path, shown: int = 4) -> str:
    """A few responses of the first and the last step, evenly spaced and not chosen by what they say."""
    files = sorted((run / "rollouts").glob("step_*.jsonl"))
    text = ""
    for path in dict.fromkeys(files[:1] + files[-1:]):
        rows, _ = readable_lines(path)
        text += f"<h3>Responses of {esc(path.stem.replace('_', ' '))}</h3>"
        for row in rows[:: max(1, -(-len(rows) // shown))]:
            head = (
                f"{row['prompt_id']} · {row['domain']} · reward {show(row['reward'])} · "
                f"advantage {show(row['advantage'])} · {show(row['length'])} tokens · "
                f"finish: {row['finish']} · weights {row['version']}"
            )
            text += page.folded(head, page.middle_left_out(row["text"]))
    summary = "<summary>Sample of responses, first and last step</summary>"
    return f"<details>{summary}{text}</details>" if text else ""


def _summary(run: Path) -> str:
    """The table at the top of a pipeline: scores of every stage, and what changed since the stage above."""
    summary = read_object(run / "summary.json")
    rows = summary.get("rows", [])
    domains = rows[0]["scores"] if rows else {}
    header = ["after", "model", *(f"{name} avg@{s['k']}, % (n = {show(s['n'])})" for name, s in domains.items())]
    cells = []
    for i, row in enumerate(rows):
        before = rows[i - 1]["scores"] if i else {}
        changes = [share(s, "avg") + (_delta(s, before[name]) if i else "") for name, s in row["scores"].items()]
        cells.append([row["stage"], row["model"], *map(Html, changes)])
    tiles = page.tiles(
        ("budget Φ, tokens per step", show(summary.get("phi"))),
        ("seed", summary.get("seed", "")),
        *((f"time, {name}", page.duration(value)) for name, value in summary.get("seconds", {}).items()),
    )
    note = (
        "Score ± one standard error, then the change since the row above in points; faint: within two "
        "standard errors of the difference, the samples taken as independent."
    )
    return tiles + (page.grid(header, cells) + f'<p class="soft">{note}</p>' if rows else "")


def _origin(run: Path) -> str:
    """What the run was made from: its configuration and its lineage, folded."""
    files = (run / "config.yaml", run / "lineage.json")
    return "".join(page.folded(file.name, file.read_text()) for file in files if file.is_file())


def _delta(now: Row, before: Row) -> str:
    """The change of a score since the row above; faint within two standard errors of the difference."""
    change = now["avg"] - before["avg"]
    faint = " faint" if abs(change) <= 2 * math.hypot(now["se"], before["se"]) else ""
    sign = "good" if change > 0 else "bad" if change < 0 else "soft"
    return f' <span class="{sign}{faint}">{change * 100:+.1f}</span>'
