"""The section of a `ringrl data` run: what is left of the rows and in which files, what was dropped and why, and what
the rest looks like. Not here: what was dropped (`dropped.py`), where numbers come from
(`step_counts.py`), the order and the markup (`templates/data.html.jinja`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ringrl.config.data import DataConfig, Output
from ringrl.config.load import load
from ringrl.errors import ConfigError
from ringrl.report import page, plots, step_counts
from ringrl.report.dropped import dropped_section
from ringrl.report.page import Figure, percent
from ringrl.report.plots import Row
from ringrl.report.settings import Settings
from ringrl.report.step_counts import Account, Tally

VALUES = 15  # most values of a label that are listed


def data_section(run: Path, settings: Settings) -> Markup:
    steps = step_counts.accounts(run)
    finished = [step.folder for step in steps]
    without = [folder.name for folder in step_counts.step_folders(run) if folder not in finished]
    if not steps:
        return page.render("data", steps=(), without=without, settings=settings)
    config = _config(run)
    outputs = step_counts.outputs(run)
    wanted = [o for o in config.mix.outputs if o.name in outputs] if config and "mix" in config.steps else []
    return page.render(
        "data",
        steps=steps,
        without=without,
        sources=list(steps[0].came | steps[-1].kept),
        outputs=outputs,
        wanted_shares=_wanted(outputs, wanted),
        settings=settings,
        dropped=dropped_section(run, steps),
        difficulty=[grade for step in steps if step.name == "grade" if (grade := _difficulty(step))],
        content=_content(run, steps, outputs, config),
    )


def _wanted(outputs: Row, wanted: Sequence[Output]) -> list[tuple[Any, ...]]:
    """Shares and caps asked for, next to those there are."""
    rows: list[tuple[Any, ...]] = []
    for output in wanted:
        domains, sources = (Counter[str](outputs[output.name].get(key, {})) for key in ("domains", "sources"))
        whole, problems = sum(output.weights.values()), domains.total()
        for domain, weight in output.weights.items():
            share = percent(domains[domain], problems)
            rows.append((output.name, domain, f"{percent(weight, whole)} %", share, domains[domain]))
        for source, cap in output.caps.items():
            rows.append((output.name, source, f"at most {cap:,}", percent(sources[source], problems), sources[source]))
    return rows


# ---- what is left ----


def _difficulty(step: Account) -> dict[str, Any]:
    """Pass rates of the graded problems, and the teachers' averages; empty without pass rates."""
    dropped_files = [f for f in (step.folder / "dropped.jsonl",) if f.is_file()]
    every = step_counts.stride([*step.files, *dropped_files])
    kept, dropped = step_counts.tally(step.files, every), step_counts.tally(dropped_files, every)
    figures = [
        page.figure(
            f"Difficulty, {domain}" if domain else "Difficulty",
            "Pass rates of the first teacher. What is always or never solved teaches RL nothing.",
            plots.draw_rates,
            kept.rates.get(domain, Counter()),
            dropped.rates.get(domain, Counter()),
        )
        for domain in dict.fromkeys([*kept.rates, *dropped.rates])
    ]
    return {"every": every, "figures": figures, "teachers": _teachers([kept, dropped])} if figures else {}


def _teachers(tallies: Sequence[Tally]) -> list[tuple[Any, ...]]:
    """Name, number of problems, and means over them, in the order of `step_counts.TEACHERS`."""
    rows = []
    for teacher in dict.fromkeys(name for t in tallies for name in t.teachers):
        means: Row = {}
        problems = 0
        for _, name in step_counts.TEACHERS:
            sums = [t.teachers.get(teacher, {}).get(name, (0.0, 0)) for t in tallies]
            number = sum(n for _, n in sums)
            means[name] = sum(total for total, _ in sums) / number if number else None
            problems = max(problems, number)
        shares = [page.share(means, key) for key in ("pass rate", "agreement")]
        rows.append((teacher, problems, *shares, means["tokens"]))
    return rows


def _content(run: Path, steps: Sequence[Account], outputs: Row, config: DataConfig | None) -> dict[str, Any]:
    """Lengths and labels of the outputs, or of the rows that the last step kept; empty without rows."""
    sets = {name: [run / "data" / f"{name}.jsonl"] for name in outputs if (run / "data" / f"{name}.jsonl").is_file()}
    labels = _labels(config) if sets else ("domain", "source", *_labels(config))
    sets = sets or {"": steps[-1].files}
    every = step_counts.stride([f for files in sets.values() for f in files])
    tally = Tally()
    for name, files in sets.items():
        for line in step_counts.lines(files, every):
            tally.add(line, labels, name if len(sets) > 1 else "")
    if not tally.rows and not tally.broken:
        return {}
    figures, lengths = _lengths({"problems": tally.problems, "responses": tally.responses})
    values = {label: _values(counts) for label, counts in tally.labels.items()}
    return {"every": every, "broken": tally.broken, "figures": figures, "lengths": lengths, "labels": values}


def _lengths(kinds: dict[str, dict[str, Counter[int]]]) -> tuple[list[Figure], list[tuple[Any, ...]]]:
    caption = "On a logarithmic scale; every curve in shares of its own."
    figures, rows = [], []
    for kind, groups in kinds.items():
        if groups:
            figures.append(page.figure(f"Length of {kind}", caption, plots.draw_characters, groups))
        for name, counts in groups.items():
            ends = (step_counts.quantile(counts, 0.5), step_counts.quantile(counts, 0.95), max(counts))
            rows.append((f"{kind}, {name}" if name else kind, counts.total(), *ends))
    return figures, rows


def _values(counts: Counter[str]) -> list[tuple[str, int]]:
    """A label's values, the most frequent first."""
    most = counts.most_common(VALUES)
    others = counts.total() - sum(n for _, n in most)
    return [*most, (step_counts.OTHERS, others)] if others else most


def _labels(config: DataConfig | None) -> tuple[str, ...]:
    """The names of all labels that rows may have."""
    names = ["level", "topic"]
    if config:
        names += [*config.annotate.rules, *config.annotate.values, *(k for s in config.sources for k in s.labels)]
    return tuple(dict.fromkeys(names))


def _config(run: Path) -> DataConfig | None:
    """None if it is not there, or of another version."""
    try:
        return load(DataConfig, run / "config.yaml")
    except (ConfigError, OSError):
        return None
