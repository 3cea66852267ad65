"""The report of a run: `RUN/report.html`, one self-contained file, and the headline picture of a pipeline.

Lives here: reading what a run directory holds, drawing it, laying it out. Not here: measuring. Every number shown stands
in a file of the run, or is a count, a sum or a difference of such numbers.

Invariants the tests assert:
1. any subset of the files gives a report, also a line cut in the middle; lines that could not be read are counted in it;
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
CSS_NAMES = {INK: "ink", AXIS: "axis", GRID: "grid", CARD: "card"} | {c: f"c{i}" for i, c in enumerate(PALETTE)}
PLOT_STYLE = {
    "svg.fonttype": "none", "text.parse_math": False, "font.size": 9, "text.color": INK, "axes.labelcolor": INK,
    "xtick.color": AXIS, "ytick.color": AXIS, "xtick.labelcolor": INK, "ytick.labelcolor": INK,
    "axes.edgecolor": AXIS, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
    "grid.color": GRID, "axes.axisbelow": True, "lines.linewidth": 1.5, "legend.frameon": False, "legend.fontsize": 8.5,
}  # fmt: skip
CSS = """
:root { color-scheme: light dark; --page:#f5f6f8; --card:#ffffff; --ink:#23272e; --soft:#5c6470; --axis:#8a9099;
  --grid:#e4e6ea; --good:#1c7c54; --bad:#b3363b; --mark:#eaf1fa; --c0:#2f6db5; --c1:#d17a22; --c2:#2b9475; --c3:#8659b5;
  --c4:#c2484d; --c5:#6f7782 }
@media (prefers-color-scheme: dark) { :root { --page:#15181c; --card:#1d2126; --ink:#dfe3e8; --soft:#9aa3af;
  --axis:#757e8a; --grid:#2f353d; --good:#5cc596; --bad:#ec7f83; --mark:#24344a; --c0:#6ea8e8; --c1:#e9a258;
  --c2:#56bf9f; --c3:#b48ee0; --c4:#e57b80; --c5:#9aa3af } }
* { box-sizing:border-box } body { margin:0; background:var(--page); color:var(--ink); font:15px/1.5 system-ui,sans-serif }
main { max-width:1320px; margin:0 auto; padding:32px 24px 64px } h1 { font-size:26px; margin:0 } h2 { font-size:20px;
  margin:44px 0 12px; padding-top:16px; border-top:1px solid var(--grid) } h2 small { color:var(--soft); font-weight:400 }
h3 { font-size:14px; margin:0 0 4px } p { margin:6px 0 } .soft, figcaption { color:var(--soft); font-size:13px }
nav a { color:var(--c0); text-decoration:none; margin-right:16px } .tiles { display:flex; flex-wrap:wrap; gap:12px 36px;
  margin:12px 0 20px } .tiles div { color:var(--soft); font-size:13px } .tiles b { display:block; color:var(--ink);
  font-size:17px; font-weight:600; font-variant-numeric:tabular-nums; overflow-wrap:anywhere }
.plots { display:grid; grid-template-columns:repeat(auto-fill,minmax(min(390px,100%),1fr)); gap:16px; align-items:start }
figure, .sheet { margin:0; background:var(--card); border:1px solid var(--grid); border-radius:8px; padding:14px 16px }
.sheet { overflow-x:auto; margin:12px 0 } svg { display:block; width:100%; height:auto } svg text { fill:var(--ink) }
table { border-collapse:collapse; width:100%; font-variant-numeric:tabular-nums; font-size:14px } th { text-align:left;
  color:var(--soft); font-weight:500; font-size:13px } td, th { padding:6px 14px 6px 0; border-bottom:1px solid var(--grid);
  white-space:nowrap } tr:last-child td { border-bottom:0 } tr.marked td { background:var(--mark); font-weight:600 }
.good { color:var(--good) } .bad { color:var(--bad) } .faint { opacity:.62 } details { margin:8px 0 } summary {
  cursor:pointer; color:var(--soft) } details.card { border:1px solid var(--grid); border-radius:6px; padding:4px 12px;
  background:var(--card) } pre { white-space:pre-wrap; overflow-wrap:anywhere; font:12.5px/1.5 ui-monospace,monospace }
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


SFT_PANELS = (
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
          ("groups_unsolved", "all wrong")), "Only mixed groups carry an advantage: the middle area is what teaches.",
          stacked=True),
    Panel("Time per phase", "seconds per step", (("time_rollout_s", "rollout"), ("time_reward_s", "reward"),
          ("time_train_s", "train"), ("time_sync_s", "sync")), "Height of an area: seconds in that phase.", stacked=True),
    Panel("Throughput", "tokens per second", (("tokens_per_s", "tokens per second"),),
          "Tokens over the time of the whole step; higher is faster.", ticks="tokens"),
    Panel("Cut, clipped and masked", "share", (("truncated_frac", "responses cut at the limit"),
          ("clip_frac", "tokens clipped"), ("masked_frac", "tokens masked")),
          "Responses that met the length limit; tokens whose ratio was clipped or masked. Low is good.", ticks="percent"),
    Panel("Distance", "KL (nats per token)", (("kl", "to the reference"), ("mismatch_kl", "sampler to trainer")),
          "The second is the two engines' disagreement about the same weights: it should stay near zero."),
    Panel("Policy loss", "loss", (("policy_loss", "policy loss"),),
          "Its size says little (advantages are centred); a trend or a spike deserves a look."),
    Panel("Router losses", "loss (no unit)", (("balance_loss", "balance"), ("z_loss", "z")),
          "Balance: lower is more even use of the experts. z: size of the router's logits."),
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
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else math.nan


def _column(rows: Iterable[Row], key: str) -> list[float]:
    return [_number(row.get(key)) for row in rows]


def _has(rows: Iterable[Row], *keys: str) -> bool:
    return any(not math.isnan(_number(row.get(key))) for row in rows for key in keys)


def _stage_starts(rows: Sequence[Row]) -> list[tuple[float, str]]:
    """First step and name of every stage, in order."""
    starts: dict[str, float] = {}
    for row in rows:
        stage = row.get("stage")
        if stage is not None:
            starts.setdefault(stage if isinstance(stage, str) else f"stage {stage}", _number(row.get("step")))
    return [(step, name) for name, step in starts.items()]


# ---- drawing: every function puts one thing on matplotlib axes ----


def _svg(name: str, draw: Callable[..., None], axes: int = 1) -> Html:
    """One figure with `axes` plots above each other, as inline SVG whose colours follow the page."""
    import matplotlib
    from matplotlib.figure import Figure

    buffer = io.StringIO()
    with matplotlib.rc_context({**PLOT_STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(5.0, 3.0 if axes == 1 else 4.6), layout="constrained")
        draw(*figure.subplots(axes, 1, sharex=True, squeeze=False)[:, 0])
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


def _legend(ax: Any, below: bool = True) -> None:
    handles, labels = ax.get_legend_handles_labels()
    if len(labels) > 1 and below:
        ax.legend(handles, labels, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3, handlelength=1.4)
    elif len(labels) > 1:
        ax.legend(handles, labels, handlelength=1.4)


def _line(ax: Any, x: Sequence[float], y: Sequence[float], color: str, label: str, **more: Any) -> None:
    few = {"marker": "o", "markersize": 3.5} if len(x) <= 40 else {}
    ax.plot(x, y, **({"color": color, "label": label} | few | more))


def _draw_stages(ax: Any, starts: Sequence[tuple[float, str]], names: bool = True) -> None:
    for i, (step, name) in enumerate(starts if len(starts) > 1 else ()):
        if i:
            ax.axvline(step, color=AXIS, linestyle=":", linewidth=1.2)
        if names:
            ax.text(step, 1.02, name, transform=ax.get_xaxis_transform(), fontsize=8, color=INK)


def _draw_panel(ax: Any, panel: Panel, rows: Sequence[Row], x: str) -> None:
    steps = _column(rows, x)
    curves = [(key, name) for key, name in panel.curves if _has(rows, key)]
    if panel.stacked:
        heights = [[0.0 if math.isnan(v) else v for v in _column(rows, key)] for key, _ in curves]
        names = [name for _, name in curves]
        ax.stackplot(steps, *heights, labels=names, colors=PALETTE[2:3] + PALETTE[:2] + PALETTE[3:], alpha=0.8)
    else:
        for (key, name), color in zip(curves, PALETTE, strict=False):
            _line(ax, steps, _column(rows, key), color, name)
    ax.set(xlabel="SFT tokens" if x == "tokens_total" else "optimizer step", ylabel=panel.ylabel)
    _ticks(ax.yaxis, panel.ticks)
    _ticks(ax.xaxis, "tokens" if x == "tokens_total" else "plain")
    _draw_stages(ax, _stage_starts(rows))
    _legend(ax)


def _draw_sft_loss(ax: Any, metrics: Sequence[Row], evals: Sequence[Row]) -> None:
    ax.plot(_column(metrics, "tokens_total"), _column(metrics, "loss"), color=PALETTE[0], label="training")
    if _has(evals, "val_loss"):
        x, y = _column(evals, "tokens_total"), _column(evals, "val_loss")
        ax.plot(x, y, color=PALETTE[1], marker="o", markersize=4, label="validation")
    ax.set(xlabel="SFT tokens", ylabel="loss (nats per token)")
    _ticks(ax.xaxis, "tokens")
    _legend(ax)


def _draw_held_out(ax: Any, evals: Sequence[Row], pass_k: bool = True) -> None:
    """avg@k per domain with its standard error; pass@k dashed."""
    domains = list(dict.fromkeys(str(row["domain"]) for row in evals if "domain" in row))
    for i, domain in enumerate(domains):
        rows, color = [row for row in evals if str(row.get("domain")) == domain], PALETTE[i % len(PALETTE)]
        steps, k = _column(rows, "step"), rows[0].get("k", "k")
        errors = [0.0 if math.isnan(se) else se for se in _column(rows, "se")]
        ax.errorbar(steps, _column(rows, "avg"), errors, color=color, marker="o", markersize=3.5, elinewidth=1,
                    capsize=2, label=f"{domain} avg@{k}")  # fmt: skip
        if pass_k and _has(rows, "pass_k"):
            ax.plot(steps, _column(rows, "pass_k"), color=color, linestyle="--", linewidth=1, label=f"{domain} pass@{k}")
    ax.set(xlabel="optimizer step", ylabel="held-out score")
    _ticks(ax.yaxis, "percent")


def _draw_tokens(ax: Any, rows: Sequence[Row]) -> None:
    """Tokens trained on, against the budget and against what was sampled."""
    steps = _column(rows, "step")
    if _has(rows, "tokens_generated"):
        _line(ax, steps, _column(rows, "tokens_generated"), PALETTE[5], "generated", linewidth=1, marker="")
    _line(ax, steps, _column(rows, "tokens_trained"), PALETTE[0], "trained", linewidth=2)
    if any(phi > 0 for phi in _column(rows, "phi")):
        _line(ax, steps, _column(rows, "phi"), PALETTE[1], "budget Φ", linestyle="--", linewidth=1.2, marker="")
    ax.set(xlabel="optimizer step", ylabel="tokens per step")
    ax.set_ylim(bottom=0)
    _ticks(ax.yaxis, "tokens")


def _draw_selection(top: Any, bottom: Any, selection: Row) -> None:
    """Entropy with the band, and score with its standard error, against SFT tokens; the choice marked in both."""
    rows = sorted(_dicts(selection.get("rows")), key=lambda row: _number(row.get("sft_tokens")))
    x, chosen = _column(rows, "sft_tokens"), [row for row in rows if row.get("name") == selection.get("chosen")]
    if len(band := _column([{"v": v} for v in selection.get("band") or ()], "v")) == 2 and not any(map(math.isnan, band)):
        top.axhspan(*band, color=PALETTE[2], alpha=0.16, linewidth=0, label="band")
    _line(top, x, _column(rows, "entropy"), PALETTE[0], "entropy", marker="o", markersize=3.5)
    errors = [0.0 if math.isnan(se) else se for se in _column(rows, "score_se")]
    bottom.errorbar(x, _column(rows, "score"), errors, color=PALETTE[1], marker="o", markersize=3.5, elinewidth=1,
                    capsize=2, label="score")  # fmt: skip
    for ax, key in ((top, "entropy"), (bottom, "score")):
        for row in chosen:
            ax.axvline(_number(row.get("sft_tokens")), color=AXIS, linestyle=":", linewidth=1.2)
            ax.plot(_column([row], "sft_tokens"), _column([row], key), color=PALETTE[4], marker="o", markersize=10,
                    fillstyle="none", markeredgewidth=1.8, linestyle="", label="chosen")  # fmt: skip
    top.set(ylabel="entropy (nats per token)")
    bottom.set(xlabel="SFT tokens", ylabel="score")
    _ticks(bottom.xaxis, "tokens")
    _ticks(bottom.yaxis, "percent")


def _draw_solve_rates(ax: Any, benchmarks: Row) -> None:
    for i, (name, result) in enumerate(benchmarks.items()):
        problems = _dicts(_dict(result).get("problems"))
        rates = sorted((_number(p.get("passed")) / max(1.0, _number(p.get("total"))) for p in problems), reverse=True)
        x = [(j + 0.5) / len(rates) for j in range(len(rates))]
        ax.plot(x, rates, drawstyle="steps-mid", color=PALETTE[i % len(PALETTE)], label=str(name))
    ax.set(xlabel="share of the problems, easiest first", ylabel="share of samples that pass", ylim=(-0.03, 1.03))
    _ticks(ax.xaxis, "percent")
    _ticks(ax.yaxis, "percent")
    _legend(ax)


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


def _score(row: Row, key: str = "avg", se: str = "se") -> str:
    """A share in percent with its standard error."""
    error = _number(row.get(se))
    return _show(_number(row.get(key)) * 100, "{:.1f}") + ("" if math.isnan(error) else f" ± {error * 100:.1f}")


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
    error = math.hypot(*(0.0 if math.isnan(se) else se for se in (_number(now.get("se")), _number(before.get("se")))))
    faint = " faint" if abs(change) <= 2 * error else ""
    sign = "good" if change > 0 else "bad" if change < 0 else "soft"
    return Html(f' <span class="{sign}{faint}">{change * 100:+.1f}</span>')


def _table(header: Sequence[Any], rows: Iterable[Sequence[Any]], marked: int = -1) -> Html:
    head = "".join(f"<th>{_esc(cell)}</th>" for cell in header)
    body = ""
    for i, row in enumerate(rows):
        cells = "".join(f"<td>{_esc(cell)}</td>" for cell in row)
        body += f'<tr class="marked">{cells}</tr>' if i == marked else f"<tr>{cells}</tr>"
    return Html(f'<div class="sheet"><table><tr>{head}</tr>{body}</table></div>')


def _tiles(*facts: tuple[str, Any]) -> Html:
    shown = "".join(f"<div>{_esc(name)}<b>{_esc(value)}</b></div>" for name, value in facts if value not in ("", "–"))
    return Html(f'<div class="tiles">{shown}</div>')


def _plot(title: str, svg: Html, caption: str) -> str:
    return f"<figure><h3>{_esc(title)}</h3>{svg}<figcaption>{_esc(caption)}</figcaption></figure>"


def _plots(figures: Iterable[str]) -> str:
    return f'<div class="plots">{"".join(figures)}</div>'


def _panels(panels: Iterable[Panel], rows: Sequence[Row], x: str) -> list[str]:
    shown = [panel for panel in panels if _has(rows, *(key for key, _ in panel.curves))]
    return [_plot(p.title, _svg(p.title, lambda ax, p=p: _draw_panel(ax, p, rows, x)), p.caption) for p in shown]


def _unread(skipped: int) -> str:
    return f'<p class="soft">{skipped} line(s) could not be read and are left out.</p>' if skipped else ""


# ---- sections: one for each kind of run ----


def _sft_section(run: Path) -> str:
    metrics, skipped = _records(run / "metrics.jsonl", "step")
    evals, skipped_evals = _records(run / "evals.jsonl", "step")
    last, last_eval = (metrics or [{}])[-1], (evals or [{}])[-1]
    tiles = _tiles(("steps", _count(last.get("step"))), ("SFT tokens", _count(last.get("tokens_total"))),
                   ("epochs", _show(last.get("epoch"))), ("training loss, last", _show(last.get("loss"))),
                   ("validation loss, last", _show(last_eval.get("val_loss"))),
                   ("validation entropy, last", _show(last_eval.get("val_entropy"))),
                   ("time in steps", _duration(_total(metrics, "time_step_s"))))  # fmt: skip
    loss = _svg("sft loss", lambda ax: _draw_sft_loss(ax, metrics, evals))
    entropy = Panel("Validation entropy", "entropy (nats per token)", (("val_entropy", "entropy"),),
                    "Falls as SFT goes on: with it goes the room that RL has to explore.")  # fmt: skip
    figures = [_plot("Loss", loss, "Validation turning up while training falls is overfitting.")] if metrics else []
    figures += _panels([entropy], evals, "tokens_total") + _panels(SFT_PANELS, metrics, "tokens_total")
    return tiles + _unread(skipped + skipped_evals) + _plots(figures)


def _selection_section(run: Path) -> str:
    selection = _parsed(_text(run / "selection.json"))
    rows, chosen = _dicts(selection.get("rows")), selection.get("chosen", "–")
    band = " to ".join(_show(edge) for edge in selection.get("band") or ())
    tiles = _tiles(("chosen", chosen), ("rule", selection.get("rule", "–")), ("band, nats per token", band),
                   ("best by score alone", selection.get("by_score", "–")),
                   ("RL to SFT tokens", _show(selection.get("rl_sft_token_ratio"))))  # fmt: skip
    header = ("checkpoint", "step", "epoch", "SFT tokens", "entropy", "in band", "score, %", "pass@k, %", "k",
              "mean length", "cut, %")  # fmt: skip
    cells = [(row.get("name", "–"), _count(row.get("step")), _show(row.get("epoch")), _count(row.get("sft_tokens")),
              _show(row.get("entropy")), "yes" if row.get("in_band") else "no", _score(row, "score", "score_se"),
              _score(row, "pass_k", ""), row.get("k", "–"), _count(row.get("length_mean")),
              _score(row, "truncated_frac", "")) for row in rows]  # fmt: skip
    svg = _svg("selection", lambda top, bottom: _draw_selection(top, bottom, selection), axes=2)
    picture = _plot("Entropy and score along SFT", svg, "Shaded: the band asked for. Circle: the checkpoint RL starts from.")
    marked = next((i for i, row in enumerate(rows) if row.get("name") == chosen), -1)
    reason = f"<p>{_esc(selection.get('reason', ''))}</p>"
    return tiles + reason + _plots([picture]) + _table(header, cells, marked) if rows else tiles + reason


def _rl_section(run: Path) -> str:
    metrics, skipped = _records(run / "metrics.jsonl", "step")
    evals, skipped_evals = _records(run / "evals.jsonl", "step", "domain")
    equal = sum(row.get("phi", 0) == row.get("tokens_trained") for row in metrics)
    seconds = _total(metrics, "time_rollout_s", "time_reward_s", "time_train_s", "time_sync_s")
    phi = ", ".join(dict.fromkeys(_count(row["phi"]) for row in metrics if "phi" in row))
    tiles = _tiles(("steps", _count((metrics or [{}])[-1].get("step"))), ("budget Φ, tokens per step", phi),
                   ("steps that train on exactly Φ", f"{equal} of {len(metrics)}" if phi else ""),
                   ("tokens trained", _count(_total(metrics, "tokens_trained"))),
                   ("tokens generated", _count(_total(metrics, "tokens_generated"))),
                   ("grader errors", _count(_total(metrics, "reward_errors"))),
                   ("time in phases", _duration(seconds)))  # fmt: skip
    figures = _panels(RL_PANELS[:1], metrics, "step")
    if evals:
        svg = _svg("held out", lambda ax: _held_out_panel(ax, evals, metrics))
        figures.append(_plot("Held-out score", svg, "Solid: avg@k with its standard error. Dashed: pass@k. Greedy eyes: "
                             "a change within the bars is not yet a gain."))  # fmt: skip
    if _has(metrics, "tokens_trained"):
        svg = _svg("tokens", lambda ax: _tokens_panel(ax, metrics))
        figures.append(_plot("Tokens per step", svg, "Under C3PO the trained line lies flat on Φ, however much is sampled."))
    figures += _panels(RL_PANELS[1:], metrics, "step")
    return tiles + _unread(skipped + skipped_evals) + _plots(figures) + _rollouts(run)
