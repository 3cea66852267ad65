"""The report of a run: `RUN/report.html`, one self-contained file, and the headline picture of a pipeline.

Lives here: reading what a run directory holds, drawing it, laying it out. Not here: measuring. Every number
shown stands in a file of the run, or is a count, a sum or a difference of such numbers.

Invariants the tests assert:
1. any subset of the files gives a report, also a line cut in the middle; it counts the lines it left out;
2. text from a run is escaped, in HTML and in the pictures;
3. the same files give the same bytes; the page loads nothing from elsewhere;
4. a step recorded twice (a resumed run) is shown once, as recorded last.
"""

from __future__ import annotations

import html
import io
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

__all__ = ["write_picture", "write_report"]

Row = dict[str, Any]
INK, AXIS, GRID, CARD = "#23272e", "#8a9099", "#e4e6ea", "#ffffff"
PALETTE = ("#2f6db5", "#d17a22", "#2b9475", "#8659b5", "#c2484d", "#6f7782")
CSS_NAMES = {INK: "ink", AXIS: "axis", GRID: "grid", CARD: "card"}
CSS_NAMES |= {color: f"c{i}" for i, color in enumerate(PALETTE)}
PLOT_STYLE: Any = {
    "svg.fonttype": "none", "text.parse_math": False, "font.size": 9, "text.color": INK,
    "axes.labelcolor": INK, "xtick.color": AXIS, "ytick.color": AXIS, "xtick.labelcolor": INK,
    "ytick.labelcolor": INK, "axes.edgecolor": AXIS,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
    "grid.color": GRID, "axes.axisbelow": True, "lines.linewidth": 1.5,
    "axes.formatter.limits": (-3, 5), "axes.formatter.useoffset": False, "legend.frameon": False,
    "legend.fontsize": 8.5,
}  # fmt: skip
CSS = """
:root { color-scheme: light dark; --page:#f5f6f8; --card:#ffffff; --ink:#23272e; --soft:#5c6470;
--axis:#8a9099; --grid:#e4e6ea; --good:#1c7c54; --bad:#b3363b; --mark:#eaf1fa; --c0:#2f6db5; --c1:#d17a22;
--c2:#2b9475; --c3:#8659b5; --c4:#c2484d; --c5:#6f7782 } @media (prefers-color-scheme: dark) { :root {
--page:#15181c; --card:#1d2126; --ink:#dfe3e8; --soft:#9aa3af; --axis:#757e8a; --grid:#2f353d;
--good:#5cc596; --bad:#ec7f83; --mark:#24344a; --c0:#6ea8e8; --c1:#e9a258; --c2:#56bf9f; --c3:#b48ee0;
--c4:#e57b80; --c5:#9aa3af } } * { box-sizing:border-box } body { margin:0; background:var(--page);
color:var(--ink); font:15px/1.5 system-ui,sans-serif } main { max-width:1320px; margin:0 auto; padding:32px
24px 64px } h1 { font-size:26px; margin:0 } h2 { font-size:20px; margin:44px 0 12px; padding-top:16px;
border-top:1px solid var(--grid) } h2 small { color:var(--soft); font-weight:400 } h3 { font-size:14px;
margin:0 0 4px } p { margin:6px 0 } .soft, figcaption { color:var(--soft); font-size:13px } nav a {
color:var(--c0); text-decoration:none; margin-right:16px } .tiles { display:flex; flex-wrap:wrap; gap:12px
36px; margin:12px 0 20px } .tiles div { color:var(--soft); font-size:13px } .tiles b { display:block;
color:var(--ink); font-size:17px; font-weight:600; font-variant-numeric:tabular-nums; overflow-wrap:anywhere
} .plots { display:grid; grid-template-columns:repeat(auto-fill,minmax(min(390px,100%),1fr)); gap:16px;
align-items:start } figure, .sheet { margin:0; background:var(--card); border:1px solid var(--grid);
border-radius:8px; padding:14px 16px } .sheet { overflow-x:auto; margin:12px 0 } svg { display:block;
width:100%; height:auto } svg text { fill:var(--ink) } table { border-collapse:collapse; width:100%;
font-variant-numeric:tabular-nums; font-size:14px } th { text-align:left; color:var(--soft);
font-weight:500; font-size:13px } td, th { padding:6px 14px 6px 8px; border-bottom:1px solid var(--grid);
white-space:nowrap } tr:last-child td { border-bottom:0 } tr.marked td { background:var(--mark);
font-weight:600 } .good { color:var(--good) } .bad { color:var(--bad) } .faint { opacity:.62 } details {
margin:8px 0 } summary { cursor:pointer; color:var(--soft) } details.card { border:1px solid var(--grid);
border-radius:6px; padding:4px 12px; background:var(--card) } pre { white-space:pre-wrap;
overflow-wrap:anywhere; font:12.5px/1.5 ui-monospace,monospace } @media (min-width:880px) { .wide {
grid-column:span 2 } }
"""


@dataclass(frozen=True)
class Panel:
    """One plot of metrics.jsonl: which keys, under which names, and how to read it."""

    title: str
    ylabel: str
    curves: tuple[tuple[str, str], ...]  # (key of a metrics row, name in the legend)
    caption: str
    stacked: bool = False
    ticks: str = "plain"  # or "percent", "tokens"


SFT_EVAL_PANELS = (
    Panel("Validation loss", "loss (nats per token)", (("val_loss", "validation"),),
          "On held-out data. Turning up while the training loss falls is overfitting."),
    Panel("Validation entropy", "entropy (nats per token)", (("val_entropy", "entropy"),),
          "Falls as SFT goes on, and with it the room that RL has to explore."),
)  # fmt: skip
SFT_PANELS = (
    Panel("Training loss", "loss (nats per token)", (("loss", "training"),),
          "One point a step, before the step. Drops at the start of an epoch are data seen again."),
    Panel("Gradient norm", "gradient norm (L2)", (("grad_norm", "gradient norm"),),
          "Before clipping. Spikes that do not return to the level before them are a warning."),
    Panel("Learning rate", "learning rate", (("lr", "learning rate"),), "The schedule as it was applied."),
    Panel("Router losses", "loss (no unit)", (("balance_loss", "balance"), ("z_loss", "z")),
          "Balance: lower is more even use of the experts. z: size of the router's logits."),
    Panel("Throughput", "tokens per second", (("tokens_per_s", "tokens per second"),),
          "Higher is faster; dips are evaluations, checkpoints or a shared machine.", ticks="tokens"),
)  # fmt: skip
RL_PANELS = (
    Panel("Reward", "mean reward (0 to 1)", (("reward_mean", "reward"),),
          "Mean over all samples of a step. Stages have other prompts: compare within one stage."),
    Panel("Entropy", "entropy (nats per token)", (("entropy", "entropy"),),
          "Of the policy on the trained tokens. A fall to zero is collapse, a steady rise is noise."),
    Panel("Response length", "tokens", (("response_length_mean", "mean length"),),
          "Mean sampled tokens of a response.", ticks="tokens"),
    Panel("Gradient norm", "gradient norm (L2)", (("grad_norm", "gradient norm"),),
          "Before clipping. Steady is healthy; a swinging token count per step would show here."),
    Panel("Groups", "groups per step", (("groups_solved", "all right"), ("groups_mixed", "mixed"),
          ("groups_unsolved", "all wrong")),
          "Only mixed groups carry an advantage: the middle area is what teaches.", stacked=True),
    Panel("Time per phase", "seconds per step", (("time_rollout_s", "rollout"), ("time_reward_s", "reward"),
          ("time_train_s", "train"), ("time_sync_s", "sync")),
          "Height of an area: seconds in that phase.", stacked=True),
    Panel("Throughput", "tokens per second", (("tokens_per_s", "tokens per second"),),
          "Tokens over the time of the whole step; higher is faster.", ticks="tokens"),
    Panel("Cut, clipped and masked", "share", (("truncated_frac", "responses cut at the limit"),
          ("clip_frac", "tokens clipped"), ("masked_frac", "tokens masked")),
          "Responses that met the length limit; tokens whose ratio was clipped or masked. Low is good.",
          ticks="percent"),
    Panel("Distance", "KL (nats per token)", (("kl", "reference"), ("mismatch_kl", "sampler to trainer")),
          "The second is the two engines' disagreement about the same weights: it should stay near zero."),
    Panel("Router losses", "loss (no unit)", (("balance_loss", "balance"), ("z_loss", "z")),
          "Balance: lower is more even use of the experts. z: size of the router's logits."),
)  # fmt: skip
SFT_FACTS = (
    ("steps", "step", "count"), ("SFT tokens", "tokens_total", "count"), ("epochs", "epoch", "number"),
    ("training loss, last", "loss", "number"), ("validation loss, last", "val_loss", "number"),
    ("validation entropy, last", "val_entropy", "number"),
)  # fmt: skip
SELECTION_FACTS = (
    ("chosen", "chosen", "text"), ("rule", "rule", "text"), ("best by score alone", "by_score", "text"),
    ("RL to SFT tokens", "rl_sft_token_ratio", "number"),
)  # fmt: skip
SELECTION_COLUMNS = (
    ("checkpoint", "name", "text"), ("step", "step", "count"), ("epoch", "epoch", "number"),
    ("SFT tokens", "sft_tokens", "count"), ("entropy", "entropy", "number"), ("in band", "in_band", "text"),
    ("score, %", "score", "share"), ("pass@k, %", "pass_k", "share"), ("k", "k", "count"),
    ("mean length, tokens", "length_mean", "count"), ("cut, %", "truncated_frac", "share"),
)  # fmt: skip
EVAL_COLUMNS = (
    ("benchmark", "name", "text"), ("avg@k, %", "avg", "share"), ("pass@k, %", "pass_k", "share"),
    ("k", "k", "count"), ("problems", "n", "count"), ("mean length, tokens", "length_mean", "count"),
    ("cut, %", "truncated_frac", "share"), ("grader errors", "errors", "count"),
    ("solved always", "always", "count"), ("sometimes", "some", "count"), ("never", "never", "count"),
)  # fmt: skip


# ---- reading: what is missing or broken reads as empty ----


def _records(path: Path, *key: str, limit: int | None = None) -> tuple[list[Row], int]:
    """Rows of a JSONL file, the last one for each value of `key`, and how many lines could not be read."""
    rows: list[Row] = []
    skipped = 0
    if path.is_file():
        with path.open(encoding="utf-8", errors="replace") as lines:
            for line in islice(lines, limit):
                row = _parsed(line)
                rows += [row] if row else []
                skipped += bool(line.strip()) and not row
    latest = {tuple(str(row.get(k)) for k in key) if key else i: row for i, row in enumerate(rows)}
    return list(latest.values()), skipped


def _parsed(text: str) -> Row:
    try:
        return _dict(json.loads(text))
    except (ValueError, RecursionError):
        return {}


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _dict(value: Any) -> Row:
    return value if isinstance(value, dict) else {}


def _dicts(value: Any) -> list[Row]:
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and abs(value) < 1e300 else math.nan


def _column(rows: Iterable[Row], key: str) -> list[float]:
    return [_number(row.get(key)) for row in rows]


def _has(rows: Iterable[Row], *keys: str) -> bool:
    return any(not math.isnan(_number(row.get(key))) for row in rows for key in keys)


# ---- drawing: every function puts one thing on matplotlib axes ----


def _svg(name: str, draw: Callable[..., None], rows: Sequence[Row] = (), axes: int = 1) -> Html:
    """One figure of `axes` plots above each other, stages as in `rows`: SVG in the colours of the page."""
    import matplotlib
    from matplotlib.figure import Figure

    buffer = io.StringIO()
    with matplotlib.rc_context({**PLOT_STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(5.0, 3.0) if axes == 1 else (8.4, 4.4), layout="constrained")
        plots = figure.subplots(axes, 1, sharex=True, squeeze=False)[:, 0]
        draw(*plots)
        for ax in plots:
            _finish(ax, rows, below=axes == 1)
        figure.align_ylabels()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = re.sub(r"<metadata>.*?</metadata>", "", buffer.getvalue(), flags=re.DOTALL)
    text = re.sub(r' id="[\w.]*_\d+"', "", text[text.index("<svg") :])
    text = re.sub(r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', r'<svg \1 role="img">', text, count=1)
    text = re.sub(r"(fill|stroke): (#[0-9a-f]{6})", _themed, text)
    return Html(re.sub(r"'DejaVu Sans'[^;\"]*", "system-ui, sans-serif", text))


def _themed(match: re.Match[str]) -> str:
    name = CSS_NAMES.get(match[2])
    return f"{match[1]}: var(--{name})" if name else match[0]


def _ticks(axis: Any, kind: str) -> None:
    from matplotlib.ticker import EngFormatter, PercentFormatter

    if kind != "plain":
        axis.set_major_formatter(EngFormatter(sep="") if kind == "tokens" else PercentFormatter(1.0))


def _finish(ax: Any, rows: Sequence[Row], below: bool = True, names: bool = True) -> None:
    """Stage boundaries of `rows` as dotted lines, and a legend where there is more than one curve."""
    starts: dict[str, float] = {}
    for row in rows:
        stage = row.get("stage", "")
        starts.setdefault(stage if isinstance(stage, str) else f"stage {stage}", _number(row.get("step")))
    for i, (name, step) in enumerate(starts.items() if len(starts) > 1 else ()):
        if i:
            ax.axvline(step, color=AXIS, linestyle=":", linewidth=1.2)
        if names and ax.get_xlim()[0] <= step <= ax.get_xlim()[1]:
            ax.text(step, 1.02, name, transform=ax.get_xaxis_transform(), fontsize=8, color=INK)
    if len(ax.get_legend_handles_labels()[1]) > 1:
        place = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.2), "ncols": 4} if below else {"loc": "best"}
        ax.legend(handlelength=1.4, **place)


def _line(ax: Any, x: Sequence[float], y: Sequence[float], color: str, label: str, **more: Any) -> None:
    few = {"marker": "o", "markersize": 3.5} if len(x) <= 40 else {}
    ax.plot(x, y, **({"color": color, "label": label} | few | more))


def _bars(ax: Any, x: str, rows: Sequence[Row], y: str, se: str, color: str, label: str) -> None:
    """A curve with its standard errors; a point without one has no bar."""
    errors = [max(0.0, error) for error in _column(rows, se)]
    style: Row = {"color": color, "marker": "o", "markersize": 3.5, "elinewidth": 1, "capsize": 2}
    ax.errorbar(_column(rows, x), _column(rows, y), errors, label=label, **style)


def _draw_panel(ax: Any, panel: Panel, rows: Sequence[Row], x: str) -> None:
    steps = _column(rows, x)
    curves = [(key, name) for key, name in panel.curves if _has(rows, key)]
    if panel.stacked:
        heights = [[max(0.0, value) for value in _column(rows, key)] for key, _ in curves]
        colors = (PALETTE[2], PALETTE[0], PALETTE[1], *PALETTE[3:])
        ax.stackplot(steps, *heights, labels=[name for _, name in curves], colors=colors, alpha=0.8)
    else:
        for (key, name), color in zip(curves, PALETTE, strict=False):
            _line(ax, steps, _column(rows, key), color, name)
    ax.set(xlabel="SFT tokens" if x == "tokens_total" else "optimizer step", ylabel=panel.ylabel)
    _ticks(ax.yaxis, panel.ticks)
    _ticks(ax.xaxis, "tokens" if x == "tokens_total" else "plain")


def _draw_held_out(ax: Any, evals: Sequence[Row], pass_k: bool = True) -> None:
    """avg@k per domain with its standard error; pass@k dashed."""
    domains = list(dict.fromkeys(str(row["domain"]) for row in evals if "domain" in row))
    for i, domain in enumerate(domains):
        rows, color = [row for row in evals if str(row.get("domain")) == domain], PALETTE[i % len(PALETTE)]
        _bars(ax, "step", rows, "avg", "se", color, f"{domain} avg@{rows[0].get('k', 'k')}")
        if pass_k and _has(rows, "pass_k"):
            ax.plot(_column(rows, "step"), _column(rows, "pass_k"), color=color, linestyle="--", linewidth=1)
    ax.set(xlabel="optimizer step", ylabel="held-out score")
    _ticks(ax.yaxis, "percent")


def _draw_tokens(ax: Any, rows: Sequence[Row]) -> None:
    """Tokens trained on, against the budget and against what was sampled."""
    steps = _column(rows, "step")
    if _has(rows, "tokens_generated"):
        _line(ax, steps, _column(rows, "tokens_generated"), PALETTE[5], "generated", linewidth=1, marker="")
    if any(phi > 0 for phi in _column(rows, "phi")):
        _line(ax, steps, _column(rows, "phi"), PALETTE[1], "budget Φ", linewidth=6, alpha=0.4, marker="")
    _line(ax, steps, _column(rows, "tokens_trained"), PALETTE[0], "trained", marker="")
    ax.set(xlabel="optimizer step", ylabel="tokens per step")
    ax.set_ylim(bottom=0)
    _ticks(ax.yaxis, "tokens")


def _band(selection: Row) -> list[float]:
    edges = selection.get("band")
    numbers = [_number(edge) for edge in edges] if isinstance(edges, list) else []
    return numbers if len(numbers) == 2 and not any(map(math.isnan, numbers)) else []


def _draw_selection(top: Any, bottom: Any, selection: Row) -> None:
    """Entropy with the band, score with its standard error, against SFT tokens; the choice marked in both."""
    rows = sorted(_dicts(selection.get("rows")), key=lambda row: _number(row.get("sft_tokens")))
    chosen = [row for row in rows if row.get("name") == selection.get("chosen")]
    ring: Row = {
        "marker": "o",
        "markersize": 10,
        "fillstyle": "none",
        "markeredgewidth": 1.8,
        "linestyle": "",
    }
    if band := _band(selection):
        top.axhspan(*band, color=PALETTE[2], alpha=0.16, linewidth=0, label="band")
    _bars(top, "sft_tokens", rows, "entropy", "entropy_se", PALETTE[0], "entropy")
    _bars(bottom, "sft_tokens", rows, "score", "score_se", PALETTE[1], "score")
    for ax, key in ((top, "entropy"), (bottom, "score")):
        for row in chosen:
            ax.axvline(_number(row.get("sft_tokens")), color=AXIS, linestyle=":", linewidth=1.2)
            ax.plot(_column([row], "sft_tokens"), _column([row], key), color=PALETTE[4], label="chosen", **ring)
    top.set(ylabel="entropy (nats per token)")
    bottom.set(xlabel="SFT tokens", ylabel="score")
    _ticks(bottom.xaxis, "tokens")
    _ticks(bottom.yaxis, "percent")


# ---- words: numbers as text, text as HTML ----


class Html(str):
    """Text that is HTML already; any other text is escaped on its way into the page."""


def _esc(value: Any) -> Html:
    return value if isinstance(value, Html) else Html(html.escape(str(value)))


def _show(value: Any, pattern: str = "{:.4g}") -> str:
    number = _number(value)
    return "–" if math.isnan(number) else pattern.format(number)


def _count(value: Any) -> str:
    return _show(value, "{:,.0f}")


def _share(row: Row, key: str) -> str:
    """A share in percent, with its standard error where the row has one (`se` belongs to `avg`)."""
    error = _number(row.get("se" if key == "avg" else f"{key}_se"))
    return _show(_number(row.get(key)) * 100, "{:.1f}") + ("" if math.isnan(error) else f" ± {error * 100:.1f}")


def _fact(row: Row, key: str, kind: str) -> str:
    """One value of a row as text: a share, a count, a number, or as it stands."""
    value = row.get(key)
    if kind == "share":
        return _share(row, key)
    if kind == "text":
        return {"None": "–", "True": "yes", "False": "no"}.get(str(value), str(value))
    return _count(value) if kind == "count" else _show(value)


def _facts(row: Row, spec: Iterable[tuple[str, str, str]]) -> list[tuple[str, str]]:
    return [(name, _fact(row, key, kind)) for name, key, kind in spec]


def _duration(seconds: Any) -> str:
    if not (number := _number(seconds)) >= 60:
        return _show(number, "{:.1f} s")
    minutes, rest = divmod(round(number), 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min {rest:02d} s"


def _total(rows: Iterable[Row], *keys: str) -> float:
    return sum(v for row in rows for v in (_number(row.get(key)) for key in keys) if not math.isnan(v))


def _delta(now: Row, before: Row) -> Html:
    """The change of a score since the row above; faint within two standard errors of the difference."""
    change = _number(now.get("avg")) - _number(before.get("avg"))
    if math.isnan(change):
        return Html("")
    error = math.hypot(*(max(0.0, se) for se in _column((now, before), "se")))
    faint = " faint" if abs(change) <= 2 * error else ""
    sign = "good" if change > 0 else "bad" if change < 0 else "soft"
    return Html(f' <span class="{sign}{faint}">{change * 100:+.1f}</span>')


def _table(columns: Sequence[tuple[str, str, str]], rows: Iterable[Row], marked: int = -1) -> Html:
    return _grid([name for name, _, _ in columns], [[v for _, v in _facts(row, columns)] for row in rows], marked)


def _grid(header: Sequence[str], rows: Iterable[Sequence[Any]], marked: int = -1) -> Html:
    head = "".join(f"<th>{_esc(cell)}</th>" for cell in header)
    body = ""
    for i, row in enumerate(rows):
        opening = '<tr class="marked">' if i == marked else "<tr>"
        body += opening + "".join(f"<td>{_esc(cell)}</td>" for cell in row) + "</tr>"
    return Html(f'<div class="sheet"><table><tr>{head}</tr>{body}</table></div>')


def _tiles(*facts: tuple[str, Any]) -> Html:
    shown = "".join(f"<div>{_esc(name)}<b>{_esc(value)}</b></div>" for name, value in facts if value not in ("", "–"))
    return Html(f'<div class="tiles">{shown}</div>')


def _plot(title: str, svg: Html, caption: str, wide: bool = False) -> str:
    opening = '<figure class="wide">' if wide else "<figure>"
    return f"{opening}<h3>{_esc(title)}</h3>{svg}<figcaption>{_esc(caption)}</figcaption></figure>"


def _plots(figures: Iterable[str]) -> str:
    return f'<div class="plots">{"".join(figures)}</div>'


def _panels(panels: Iterable[Panel], rows: Sequence[Row], x: str) -> list[str]:
    shown = [panel for panel in panels if _has(rows, *(key for key, _ in panel.curves))]
    return [_plot(p.title, _svg(p.title, lambda ax, p=p: _draw_panel(ax, p, rows, x), rows), p.caption) for p in shown]


def _unread(skipped: int) -> str:
    return f'<p class="soft">{skipped} line(s) could not be read and are left out.</p>' if skipped else ""


# ---- sections: one for each kind of run ----


def _sft_section(run: Path) -> str:
    metrics, skipped = _records(run / "metrics.jsonl", "step")
    evals, skipped_evals = _records(run / "evals.jsonl", "step")
    last = (evals or [{}])[-1] | (metrics or [{}])[-1]
    tiles = _tiles(*_facts(last, SFT_FACTS), ("time in steps", _duration(_total(metrics, "time_step_s"))))
    figures = [
        *_panels(SFT_PANELS[:1], metrics, "tokens_total"),
        *_panels(SFT_EVAL_PANELS, evals, "tokens_total"),
        *_panels(SFT_PANELS[1:], metrics, "tokens_total"),
    ]
    return tiles + _unread(skipped + skipped_evals) + _plots(figures)


def _selection_section(run: Path) -> str:
    selection = _parsed(_text(run / "selection.json"))
    rows = _dicts(selection.get("rows"))
    band = " to ".join(_show(edge) for edge in _band(selection))
    tiles = _tiles(*_facts(selection, SELECTION_FACTS), ("band, nats per token", band))
    svg = _svg("selection", lambda top, bottom: _draw_selection(top, bottom, selection), axes=2)
    caption = "Shaded: the band asked for. Circle: the checkpoint RL starts from. Bars: one standard error."
    picture = _plot("Entropy and score along SFT", svg, caption, wide=True)
    marked = next((i for i, row in enumerate(rows) if row.get("name") == selection.get("chosen")), -1)
    table = _table(SELECTION_COLUMNS, rows, marked)
    reason = f"<p>{_esc(selection.get('reason', ''))}</p>"
    return tiles + reason + (_plots([picture]) + table if rows else "")


def _rl_section(run: Path) -> str:
    metrics, skipped = _records(run / "metrics.jsonl", "step")
    evals, skipped_evals = _records(run / "evals.jsonl", "step", "domain")
    equal = sum(_number(row.get("phi")) == _number(row.get("tokens_trained")) for row in metrics)
    seconds = _total(metrics, "time_rollout_s", "time_reward_s", "time_train_s", "time_sync_s")
    phi = ", ".join(dict.fromkeys(_count(row["phi"]) for row in metrics if _number(row.get("phi")) > 0))
    tiles = _tiles(
        ("steps", _count((metrics or [{}])[-1].get("step"))),
        ("budget Φ, tokens per step", phi),
        ("steps that train on exactly Φ", f"{equal} of {len(metrics)}" if phi else ""),
        ("tokens trained", _count(_total(metrics, "tokens_trained"))),
        ("tokens generated", _count(_total(metrics, "tokens_generated"))),
        ("grader errors", _count(_total(metrics, "reward_errors"))),
        ("time in phases", _duration(seconds)),
    )
    figures = _panels(RL_PANELS[:1], metrics, "step")
    if evals:
        svg = _svg("held out", lambda ax: _draw_held_out(ax, evals), metrics)
        caption = "Solid: avg@k, bars one standard error. Dashed: pass@k. Within the bars nothing is gained yet."
        figures.append(_plot("Held-out score", svg, caption))
    if _has(metrics, "tokens_trained"):
        svg = _svg("tokens", lambda ax: _draw_tokens(ax, metrics), metrics)
        caption = "Under C3PO the trained line should lie flat on Φ, however much is sampled."
        figures.append(_plot("Tokens per step", svg, caption))
    figures += _panels(RL_PANELS[1:], metrics, "step")
    return tiles + _unread(skipped + skipped_evals) + _plots(figures) + _rollouts(run)


def _eval_section(run: Path) -> str:
    results = _parsed(_text(run / "results.json"))
    sampling = ", ".join(f"{name} {value}" for name, value in _dict(results.get("sampling")).items())
    tiles = _tiles(
        ("model", results.get("model", "")),
        ("sampling", sampling),
        ("chat template, sha256", str(results.get("template_sha256", ""))[:12]),
    )
    rows = []
    for name, row in ((name, _dict(value)) for name, value in _dict(results.get("benchmarks")).items()):
        rates = [(_number(p.get("passed")), _number(p.get("total"))) for p in _dicts(row.get("problems"))]
        always, never = sum(a == b for a, b in rates), sum(a == 0 for a, b in rates)
        some = sum(0 < a < b for a, b in rates)
        rows.append(row | {"name": name, "always": always, "some": some, "never": never})
    return tiles + _table(EVAL_COLUMNS, rows)


def _rollouts(run: Path, shown: int = 4) -> str:
    """A few responses of the first and the last step, evenly spaced and not chosen by what they say."""
    files = sorted((run / "rollouts").glob("step_*.jsonl"))
    text = ""
    for path in dict.fromkeys(files[:1] + files[-1:]):
        rows, _ = _records(path, limit=256)
        text += f"<h3>Responses of {_esc(path.stem.replace('_', ' '))}</h3>" if rows else ""
        for row in rows[:: max(1, -(-len(rows) // shown))]:
            answer = str(row.get("text", ""))
            cut = f"{answer[:3000]}\n\n[… {len(answer) - 4500:,} characters left out …]\n\n{answer[-1500:]}"
            head = [row.get("prompt_id", "–"), row.get("domain", "–"), f"reward {_show(row.get('reward'))}"]
            head += [f"advantage {_show(row.get('advantage'))}", f"{_count(row.get('length'))} tokens"]
            head += [f"finish: {row.get('finish', '–')}", f"weights {row.get('version', '–')}"]
            text += _folded(" · ".join(map(str, head)), answer if len(answer) <= 5000 else cut)
    summary = "<summary>Sample of responses, first and last step</summary>"
    return f"<details>{summary}{text}</details>" if text else ""


def _folded(title: str, text: str) -> str:
    summary = f"<summary>{_esc(title)}</summary>"
    return f'<details class="card">{summary}<pre>{_esc(text)}</pre></details>' if text else ""


def _origin(run: Path) -> str:
    """What the run was made from: its configuration and its lineage, folded."""
    text = _text(run / "lineage.json")
    lineage = json.dumps(_parsed(text), indent=2, ensure_ascii=False) if _parsed(text) else text
    return _folded("config.yaml", _text(run / "config.yaml")) + _folded("lineage.json", lineage)


def _run_section(run: Path) -> tuple[str, str]:
    """What kind of run this is, told by its files, and its section."""
    if (run / "selection.json").is_file():
        kind, section = "checkpoint selection", _selection_section(run)
    elif (run / "results.json").is_file():
        kind, section = "evaluation", _eval_section(run)
    else:
        rows = _records(run / "metrics.jsonl", limit=1)[0] + _records(run / "evals.jsonl", limit=1)[0]
        is_rl = any("stage" in row for row in rows)
        kind, section = ("RL", _rl_section(run)) if is_rl else ("SFT", _sft_section(run))
        if not rows:
            kind, section = "run", '<p class="soft">Nothing is recorded yet.</p>'
    return kind, section + _origin(run)


def _summary(run: Path) -> str:
    """The table at the top of a pipeline: scores of every stage, and what changed since the stage above."""
    summary = _parsed(_text(run / "summary.json"))
    rows = _dicts(summary.get("rows"))
    scores = [_dict(row.get("scores")) for row in rows]
    domains = {domain: _dict(score) for row in reversed(scores) for domain, score in row.items()}
    header = ["after", "model"]
    header += [f"{name} avg@{s.get('k', 'k')}, % (n = {_count(s.get('n'))})" for name, s in domains.items()]
    cells = []
    for i, (row, now) in enumerate(zip(rows, scores, strict=True)):
        before = scores[i - 1] if i else {}
        pairs = [(_dict(now.get(domain)), _dict(before.get(domain))) for domain in domains]
        changes = [Html(_esc(_share(new, "avg")) + _delta(new, old)) for new, old in pairs]
        cells.append([row.get("stage", "–"), row.get("model", "–"), *changes])
    seconds = _dict(summary.get("seconds"))
    tiles = _tiles(
        ("budget Φ, tokens per step", _count(summary.get("phi"))),
        ("seed", summary.get("seed", "")),
        *((f"time, {name}", _duration(value)) for name, value in seconds.items()),
    )
    note = (
        "Score ± one standard error, then the change since the row above in points; faint: within two "
        "standard errors of the difference, the samples taken as independent."
    )
    return tiles + (_grid(header, cells) + f'<p class="soft">{note}</p>' if rows else "")


def _parts(run: Path) -> list[Path]:
    """The runs inside a pipeline's directory in the order they were made; none for a single run."""
    return [p for p in (run / "sft", run / "select", run / "rl", *sorted(run.glob("eval_*"))) if p.is_dir()]


def _page(run: Path) -> str:
    name, parts = _esc(run.resolve().name), _parts(run)
    if parts or (run / "summary.json").is_file():
        links = "".join(f'<a href="#{_esc(part.name)}">{_esc(part.name)}</a>' for part in parts)
        kind, own = "pipeline", f"<nav>{links}</nav>{_summary(run)}{_origin(run)}"
    else:
        kind, own = _run_section(run)
    for part in parts:
        part_kind, section = _run_section(part)
        own += f'<h2 id="{_esc(part.name)}">{_esc(part.name)} <small>{part_kind}</small></h2>{section}'
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{name}: {kind}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<style>{CSS}</style></head>\n<body><main><h1>{name}</h1><p class="soft">ringrl, {kind}</p>{own}'
        "</main></body></html>\n"
    )


# ---- what others call ----


def write_report(run_dir: Path) -> Path:
    """Write `report.html` into the directory of a run or a pipeline, from the files that are there by now."""
    path = run_dir / "report.html"
    part = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    part.write_text(_page(run_dir), encoding="utf-8", errors="replace")
    os.replace(part, path)
    return path


def write_picture(run_dir: Path, path: Path) -> Path:
    """Save the three columns that tell a pipeline's story; the suffix of `path` is the format: .png, .svg."""
    import matplotlib
    from matplotlib.figure import Figure

    rl = run_dir / "rl" if (run_dir / "rl").is_dir() else run_dir
    select = run_dir / "select" if (run_dir / "select").is_dir() else run_dir
    metrics, _ = _records(rl / "metrics.jsonl", "step")
    evals, _ = _records(rl / "evals.jsonl", "step", "domain")
    panels = {panel.title: panel for panel in RL_PANELS}
    titles = (
        "The SFT checkpoint for RL",
        "RL: reward and held-out score",
        "C3PO: tokens against Φ, and gradients",
    )
    part = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with matplotlib.rc_context({**PLOT_STYLE, "svg.hashsalt": "picture"}):
        figure = Figure(figsize=(15, 5.6), layout="constrained", facecolor=CARD)
        axes = figure.subplots(2, 3, sharex="col")
        _draw_selection(axes[0, 0], axes[1, 0], _parsed(_text(select / "selection.json")))
        _draw_panel(axes[0, 1], panels["Reward"], metrics, "step")
        _draw_held_out(axes[1, 1], evals, pass_k=False)
        _draw_tokens(axes[0, 2], metrics)
        _draw_panel(axes[1, 2], panels["Gradient norm"], metrics, "step")
        for i, ax in enumerate(axes.flat):
            _finish(ax, metrics if i % 3 else (), below=False, names=i < 3)
        for ax, title in zip(axes[0], titles, strict=True):
            ax.set(xlabel="")
            ax.set_title(title, loc="left", fontsize=11.5, fontweight="bold", pad=18)
        figure.align_ylabels()
        figure.savefig(part, format=path.suffix[1:], dpi=150)
    os.replace(part, path)
    return path
