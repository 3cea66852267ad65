"""The section of a `ringrl data` run: what is left of the rows and in which files, what was dropped and why, and what
the rest looks like. Lives here: what is said, in which order. Not here: what was dropped (`report_dropped.py`), where
numbers come from (`step_counts.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ringrl.config.data import DataConfig, Output
from ringrl.config.load import load
from ringrl.errors import ConfigError
from ringrl.report import page, plots, step_counts
from ringrl.report.dropped import contamination, dropped_section
from ringrl.report.page import Html, bar, esc, num, percent, show
from ringrl.report.plots import Row
from ringrl.report.step_counts import Account, Tally

VALUES = 15  # of a label, listed
REASONS = 3  # in the table of steps


def data_section(run: Path) -> str:
    steps = step_counts.accounts(run)
    config = _config(run)
    made = step_counts.outputs(run)
    without = [f.name for f in step_counts.step_folders(run) if f not in [step.folder for step in steps]]
    note = f'<p class="soft">Not finished, or without a summary: {esc(", ".join(without))}.</p>' if without else ""
    if not steps:
        return note or '<p class="soft">Nothing is recorded yet.</p>'
    return (
        _headline(steps, made)
        + _flow(steps)
        + note
        + _outputs(run, made, config)
        + _sources(steps)
        + dropped_section(run, steps)
        + "".join(contamination(step) for step in steps if step.name == "decontaminate")
        + "".join(_difficulty(step) for step in steps if step.name == "grade")
        + _content(run, steps, made, config)
    )


# ---- how many ----


def _headline(steps: Sequence[Account], made: Row) -> str:
    read, left = steps[0].came.total(), steps[-1].kept.total()
    return page.tiles(
        ("rows read", show(read)),
        ("left", f"{left:,} ({percent(left, read)} %)"),
        ("dropped", show(read - left)),
        ("sources", show(len(steps[0].came))),
        *((f"data/{name}.jsonl", f"{output.get('lines', 0):,} lines") for name, output in made.items()),
        ("time", page.duration(sum(step.seconds for step in steps))),
    )


def _flow(steps: Sequence[Account]) -> str:
    """The way of the rows through the steps, with a bar of what each left and took."""
    read = steps[0].came.total() or 1
    header = ["step", num("rows in"), num("kept"), num("dropped"), num("%"), "of all rows read: kept, dropped here",
              num("time"), num("rows/s"), "most often"]  # fmt: skip
    rows = []
    for step in steps:
        came, kept = step.came.total(), step.kept.total()
        shown = bar(kept / read, step.lost / read)
        rate = num(round(came / step.seconds)) if step.seconds else num("–")
        numbers = [num(came), num(kept), num(step.lost), num(percent(step.lost, came)), shown]
        rows.append([step.name, *numbers, num(page.duration(step.seconds)), rate, _most(step)])
    return page.grid(header, rows)


def _most(step: Account) -> Html:
    note = f" ({step.responses:,} are responses of rows that went on)" if step.responses else ""
    return Html(f'<div class="why">{esc(step.most(REASONS) + note)}</div>')


def _sources(steps: Sequence[Account]) -> str:
    """What every step left of every source."""
    names = list(steps[0].came | steps[-1].kept)
    if len(names) < 2:
        return ""
    header = ["source", num("rows"), *(num(step.name) for step in steps), num("left, %"), ""]
    rows = []
    for name in names:
        read, left = steps[0].came[name], steps[-1].kept[name]
        cells = [_change(step.kept[name], step.came[name]) for step in steps]
        rows.append([name, num(read), *cells, num(percent(left, read)), bar(left / (read or 1), short=True)])
    return '<h3 class="part">Rows left, by source</h3>' + page.grid(header, rows)


def _change(kept: int, came: int) -> Html:
    lost = f' <span class="bad">−{came - kept:,}</span>' if came > kept else ""
    return Html(f'<span class="num">{kept:,}{lost}</span>')


def _outputs(run: Path, made: Row, config: DataConfig | None) -> str:
    if not made:
        return ""
    header = ["file", num("lines"), num("problems"), "domains", "sources", "sha256"]
    rows = []
    for name, facts in made.items():
        short = facts.get("wanted", 0) > facts.get("problems", 0)
        problems = f"{facts.get('problems', 0):,}" + f" of {facts.get('wanted'):,} asked for" * short
        mixed = [_mix(facts.get(key, {})) for key in ("domains", "sources")]
        digest = str(facts.get("sha256", ""))[:12]
        rows.append([f"data/{name}.jsonl", num(facts.get("lines")), num(problems), *mixed, digest])
    wanted = [o for o in config.mix.outputs if o.name in made] if config and "mix" in config.steps else []
    return '<h3 class="part">Outputs</h3>' + page.grid(header, rows) + _wanted(made, wanted)


def _wanted(made: Row, wanted: Sequence[Output]) -> str:
    """Shares and caps asked for, against those there are."""
    rows: list[list[Any]] = []
    for output in wanted:
        domains, sources = (Counter[str](made[output.name].get(key, {})) for key in ("domains", "sources"))
        whole, problems = sum(output.weights.values()), domains.total()
        for domain, weight in output.weights.items():
            got = [num(percent(domains[domain], problems)), num(domains[domain])]
            rows.append([output.name, domain, num(percent(weight, whole) + " %"), *got])
        for source, cap in output.caps.items():
            got = [num(percent(sources[source], problems)), num(sources[source])]
            rows.append([output.name, source, num(f"at most {cap:,}"), *got])
    header = ["output", "domain or source", num("asked for"), num("there are, %"), num("rows")]
    return page.grid(header, rows, fit=True) if rows else ""


def _mix(counts: dict[str, int]) -> Html:
    total = sum(counts.values())
    said = ", ".join(f"{name or '–'} {percent(n, total)} %" for name, n in Counter(counts).most_common())
    return Html(f'<div class="why">{esc(said)}</div>')


# ---- what is left ----


def _difficulty(step: Account) -> str:
    """Pass rates of what was graded, and the teachers'."""
    rest = [f for f in (step.folder / "dropped.jsonl",) if f.is_file()]
    every = step_counts.stride([*step.files, *rest])
    kept, dropped = step_counts.tally(step.files, every), step_counts.tally(rest, every)
    drawn = []
    for domain in dict.fromkeys([*kept.rates, *dropped.rates]):
        left, gone = kept.rates.get(domain, Counter()), dropped.rates.get(domain, Counter())
        svg = plots.svg(lambda ax, a=left, b=gone: plots.draw_rates(ax, a, b))
        caption = "Pass rates of the first teacher. What is always or never solved teaches RL nothing."
        drawn.append(page.figure(f"Difficulty, {domain}" if domain else "Difficulty", svg, caption))
    if not drawn:
        return ""
    means = _teachers([kept, dropped])
    title = '<h3 class="part">Difficulty</h3>'
    return title + _sampled(every) + page.figures(drawn) + means


def _teachers(tallies: Sequence[Tally]) -> str:
    """What each made of the problems, on average."""
    rows = []
    for teacher in dict.fromkeys(name for t in tallies for name in t.teachers):
        row: Row = {"name": teacher}
        for _, name in step_counts.TEACHERS:
            parts = [t.teachers.get(teacher, {}).get(name, (0.0, 0)) for t in tallies]
            number = sum(n for _, n in parts)
            row[name] = sum(total for total, _ in parts) / number if number else None
            row["problems"] = max(row.get("problems", 0), number)
        rows.append(row)
    header = ["teacher", *map(num, ("problems", "mean pass rate, %", "mean agreement, %", "mean length, tokens"))]
    cells = []
    for r in rows:
        shares = [num(page.share(r, key)) for key in ("pass rate", "agreement")]
        cells.append([r["name"], num(r["problems"]), *shares, num(r["tokens"])])
    return page.grid(header, cells, fit=True) if rows else ""


def _content(run: Path, steps: Sequence[Account], made: Row, config: DataConfig | None) -> str:
    """Lengths and labels of the outputs, or of the rows that the last step kept."""
    sets = {name: [run / "data" / f"{name}.jsonl"] for name in made if (run / "data" / f"{name}.jsonl").is_file()}
    labels = _labels(config) if sets else ("domain", "source", *_labels(config))
    sets = sets or {"": steps[-1].files}
    every = step_counts.stride([f for files in sets.values() for f in files])
    found = Tally()
    for name, files in sets.items():
        for line in step_counts.lines(files, every):
            found.add(line, labels, name if len(sets) > 1 else "")
    lost = f'<p class="soft">{found.broken} line(s) could not be read and are left out.</p>' if found.broken else ""
    lengths = _lengths({"problems": found.problems, "responses": found.responses})
    tables = page.figures(_values(label, counts) for label, counts in found.labels.items())
    if not found.rows and not found.broken:
        return ""
    return f'<h3 class="part">What is left</h3>{_sampled(every)}{lost}{lengths}{tables}'


def _lengths(kinds: dict[str, dict[str, Counter[int]]]) -> str:
    drawn, rows = [], []
    for kind, groups in kinds.items():
        if groups:
            svg = plots.svg(lambda ax, groups=groups: plots.draw_characters(ax, groups))
            caption = "On a logarithmic scale; every curve in shares of its own."
            drawn.append(page.figure(f"Length of {kind}", svg, caption))
        for name, counts in groups.items():
            ends = (step_counts.quantile(counts, 0.5), step_counts.quantile(counts, 0.95), max(counts))
            rows.append([f"{kind}, {name}" if name else kind, num(counts.total()), *map(num, ends)])
    header = ["characters, to three digits", num("texts"), num("median"), num("95 % within"), num("longest")]
    return page.figures(drawn) + page.grid(header, rows, fit=True) if rows else ""


def _values(label: str, counts: Counter[str]) -> str:
    """A label's values, the most frequent first."""
    most, total = counts.most_common(VALUES), counts.total()
    if others := total - sum(n for _, n in most):
        most.append((step_counts.OTHERS, others))
    rows = [[value, num(n), num(percent(n, total)), bar(n / total, short=True)] for value, n in most]
    return page.grid([label, num("rows"), num("%"), ""], rows, fit=True)


def _labels(config: DataConfig | None) -> tuple[str, ...]:
    """The names of all labels that rows may have."""
    names = ["level", "topic"]
    if config:
        names += [*config.annotate.rules, *config.annotate.values, *(k for s in config.sources for k in s.labels)]
    return tuple(dict.fromkeys(names))


def _sampled(every: int) -> str:
    text = f"From a sample: one mebibyte in {every} of the files. Numbers of rows are those of the sample."
    return f'<p class="soft">{text}</p>' if every > 1 else ""


def _config(run: Path) -> DataConfig | None:
    """None if it is not there, or of another version."""
    try:
        return load(DataConfig, run / "config.yaml")
    except (ConfigError, OSError):
        return None
