"""What is drawn of a run: the plots of the report as SVG in the colours of its page, and the headline picture.

Lives here: which numbers, under which words, how. Not here: reading files, the page around the plots.
Invariant: a value that is missing or not finite is a gap; text from a run is never read as mark-up or maths, and is
made `printable`.
"""

from __future__ import annotations

import io
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, pairwise
from pathlib import Path
from typing import Any

from ringrl.safe_text import printable

Row = dict[str, Any]
INK, AXIS, GRID, CARD = "#23272e", "#8a9099", "#e4e6ea", "#ffffff"
PALETTE = ("#2f6db5", "#d17a22", "#2b9475", "#8659b5", "#c2484d", "#6f7782")
CSS_NAMES = {INK: "ink", AXIS: "axis", GRID: "grid", CARD: "card"} | {c: f"c{i}" for i, c in enumerate(PALETTE)}
STYLE: Any = {
    "svg.fonttype": "none", "text.parse_math": False, "font.size": 9, "text.color": INK, "axes.labelcolor": INK,
    "xtick.color": AXIS, "ytick.color": AXIS, "xtick.labelcolor": INK, "ytick.labelcolor": INK,
    "axes.edgecolor": AXIS, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
    "grid.color": GRID, "axes.axisbelow": True, "lines.linewidth": 1.5, "axes.formatter.limits": (-3, 5),
    "axes.formatter.useoffset": False, "legend.frameon": False, "legend.fontsize": 8.5, "svg.hashsalt": "ringrl",
}  # fmt: skip


@dataclass(frozen=True)
class Panel:
    """One plot of metrics.jsonl or evals.jsonl: which keys, under which names, and how to read it."""

    title: str
    ylabel: str
    curves: tuple[tuple[str, str], ...]  # (key of a row, name in the legend)
    caption: str
    stacked: bool = False
    ticks: str = "plain"  # or "percent", "tokens"


ROUTER = Panel("Router losses", "loss (no unit)", (("balance_loss", "balance"), ("z_loss", "z")),
               "Balance: lower is more even use of the experts. z: size of the router's logits.")  # fmt: skip
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
    ROUTER,
    Panel("Throughput", "tokens per second", (("tokens_per_s", "tokens per second"),),
          "Higher is faster; dips are evaluations, checkpoints or a shared machine.", ticks="tokens"),
)  # fmt: skip
REWARD = Panel("Reward", "mean reward (0 to 1)", (("reward_mean", "reward"),),
               "Mean over all samples of a step. Stages have other prompts: compare within one stage.")  # fmt: skip
RL_GRADIENT = Panel("Gradient norm", "gradient norm (L2)", (("grad_norm", "gradient norm"),),
                    "Before clipping. Steady is healthy; a swinging token count per step would show here.")  # fmt: skip
ENTROPY = Panel("Entropy", "entropy (nats per token)", (("entropy", "entropy"),),
                "Of the policy on the trained tokens. A fall to zero is collapse, a steady rise is noise.")  # fmt: skip
RL_PANELS = (
    ENTROPY,
    Panel("Response length", "tokens",
          (("response_length_mean", "all"), ("length_right", "right ones"), ("length_wrong", "wrong ones")),
          "Mean sampled tokens of a response. Wrong ones that grow alone are rambling.", ticks="tokens"),
    RL_GRADIENT,
    Panel("Groups", "groups per step",
          (("groups_solved", "all right"), ("groups_mixed", "mixed"), ("groups_unsolved", "all wrong")),
          "Only mixed groups carry an advantage: the middle area is what teaches.", stacked=True),
    Panel("Time per phase", "seconds per step",
          (("time_rollout_s", "rollout"), ("time_reward_s", "reward"), ("time_train_s", "train"),
           ("time_sync_s", "sync")),
          "Height of an area: seconds in that phase.", stacked=True),
    Panel("Throughput", "tokens per second", (("tokens_per_s", "tokens per second"),),
          "Tokens over the time of the whole step; higher is faster.", ticks="tokens"),
    Panel("Clipped and masked", "share of tokens",
          (("clip_frac_good", "clipped, A > 0"), ("clip_frac_bad", "clipped, A < 0"), ("masked_frac", "masked")),
          "By the ratio to the old policy, and to the sampler. Low is good.", ticks="percent"),
    Panel("Truncated and repeated", "share",
          (("truncated_frac", "responses cut"), ("repetition", "repeated 8-grams")),
          "Responses that met the length limit, and text that goes in loops. Low is good.", ticks="percent"),
    Panel("Distance", "KL (nats per token)", (("kl", "reference"), ("mismatch_kl", "sampler to trainer")),
          "The second is the two engines' disagreement about the same weights: it should stay near zero."),
    Panel("Step size", "change of log-probs (nats per token)", (("shift", "one update, on a fixed prompt"),),
          "How far an update moved the policy. Steady is healthy; the watchdog ends a run that leaps."),
    Panel("Experts", "fullest over mean load", (("expert_load_max", "worst layer"),),
          "1 is even use; the number of experts is one that takes all."),
    Panel("Router entropy", "nats", (("router_entropy", "mean over layers"),),
          "Low is a router that is sure of itself; zero has nothing left to learn."),
    ROUTER,
)  # fmt: skip


NAME = 18  # most characters of a stage's name above a plot


def number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else math.nan


def column(rows: Iterable[Row], key: str) -> list[float]:
    return [number(row.get(key)) for row in rows]


def has(rows: Iterable[Row], *keys: str) -> bool:
    return any(not math.isnan(number(row.get(key))) for row in rows for key in keys)


def varies(rows: Sequence[Row], panel: Panel) -> bool:
    """Whether any curve of a panel has two different values."""
    curves = ({value for value in column(rows, key) if not math.isnan(value)} for key, _ in panel.curves)
    return any(len(values) > 1 for values in curves)


def column_titles(evals: Sequence[Row]) -> tuple[str, str, str]:
    """Those of the headline picture: of `draw_selection`, `draw_rewards` and `draw_budget`."""
    scores = "held-out score" if evals else "entropy"
    return "The SFT checkpoint for RL", f"RL: reward and {scores}", "C3PO: tokens against Φ, and gradients"


def svg(draw: Callable[..., None], *values: Any, stages: Sequence[Row] = (), axes: int = 1) -> str:
    """What `draw` makes of `values` on `axes` plots above each other, with the stages of these rows of metrics, in the
    colours of the page."""
    import matplotlib
    from matplotlib.figure import Figure

    buffer = io.StringIO()
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.6, 1.0 + 1.75 * axes), layout="constrained")
        plots = figure.subplots(axes, 1, sharex=True, squeeze=False)[:, 0]
        draw(*plots, *values)
        for ax in plots:
            _finish(ax, stages, below=axes == 1)
        figure.align_ylabels()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = re.sub(r"<metadata>.*?</metadata>", "", buffer.getvalue(), flags=re.DOTALL)
    text = re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL)  # page.css has it
    text = re.sub(r' id="[\w.]*_\d+"', "", text[text.index("<svg") :])
    text = re.sub(r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', r'<svg \1 role="img">', text, count=1)
    for color, name in CSS_NAMES.items():
        text = re.sub(f"(fill|stroke): {color}", rf"\1: var(--{name})", text)
    return re.sub(r"'DejaVu Sans'[^;\"]*", "system-ui, sans-serif", text)


def picture(path: Path, metrics: Sequence[Row], evals: Sequence[Row], selection: Row) -> None:
    """Saves the three columns that tell a pipeline's story; the suffix of `path` is the format."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(15, 5.6), layout="constrained", facecolor=CARD)
        axes = figure.subplots(2, 3, sharex="col")
        draw_selection(axes[0, 0], axes[1, 0], selection)
        draw_rewards(axes[0, 1], axes[1, 1], metrics, evals)
        draw_budget(axes[0, 2], axes[1, 2], metrics)
        for i, ax in enumerate(axes.flat):
            _finish(ax, metrics if i % 3 else (), below=False, names=i < 3)
        for ax, title in zip(axes[0], column_titles(evals), strict=True):
            ax.set_title(title, loc="left", fontsize=11.5, fontweight="bold", pad=18)
        figure.align_ylabels()
        figure.savefig(path, dpi=150)


def draw_panel(ax: Any, panel: Panel, rows: Sequence[Row], x: str) -> None:
    steps = column(rows, x)
    curves = [(key, name) for key, name in panel.curves if has(rows, key)]
    if panel.stacked:
        heights = [[max(0.0, value) for value in column(rows, key)] for key, _ in curves]
        colors = (PALETTE[2], PALETTE[0], PALETTE[1], PALETTE[3])
        ax.stackplot(steps, *heights, labels=[name for _, name in curves], colors=colors, alpha=0.8)
    else:
        for (key, name), color in zip(curves, PALETTE, strict=False):
            _line(ax, steps, column(rows, key), color, name)
    ax.set(xlabel="SFT tokens" if x == "tokens_total" else "optimizer step", ylabel=panel.ylabel)
    _ticks(ax.yaxis, panel.ticks)
    _ticks(ax.xaxis, "tokens" if x == "tokens_total" else "plain")


def draw_rewards(top: Any, bottom: Any, metrics: Sequence[Row], evals: Sequence[Row]) -> None:
    """The reward in training, and below it the scores on held-out prompts, or the entropy where there are none."""
    draw_panel(top, REWARD, metrics, "step")
    if evals:
        draw_held_out(bottom, evals, pass_k=False)
    else:
        draw_panel(bottom, ENTROPY, metrics, "step")
    top.set(xlabel="")


def draw_budget(top: Any, bottom: Any, metrics: Sequence[Row]) -> None:
    """Tokens against the budget, and below them the gradient's norm."""
    draw_tokens(top, metrics)
    draw_panel(bottom, RL_GRADIENT, metrics, "step")
    top.set(xlabel="")


def draw_held_out(ax: Any, evals: Sequence[Row], pass_k: bool = True) -> None:
    """avg@k per domain with its standard error; pass@k dashed."""
    for domain, color in zip(dict.fromkeys(row.get("domain", "") for row in evals), cycle(PALETTE), strict=False):
        rows = [row for row in evals if row.get("domain", "") == domain]
        _bars(ax, "step", rows, "avg", "se", color, printable(f"{domain} avg@{rows[0].get('k', 'k')}"))
        if pass_k:
            ax.plot(column(rows, "step"), column(rows, "pass_k"), color=color, linestyle="--", linewidth=1)
    ax.set(xlabel="optimizer step", ylabel="held-out score")
    _ticks(ax.yaxis, "percent")


def draw_scores(ax: Any, rows: Sequence[Row]) -> None:
    """A benchmark a line: avg@k with its standard errors over problems and, thick, over samples."""
    places = list(range(len(rows), 0, -1))
    for key, width in (("se", 1.2), ("se_samples", 4.0)):
        errors = [0.0 if math.isnan(e) else e for e in column(rows, key)]
        ax.errorbar(
            column(rows, "score"), places, xerr=errors, fmt="o", color=PALETTE[0], elinewidth=width, markersize=4
        )
    ax.set_yticks(places, [printable(f"{row['name']} avg@{row.get('k', 'k')}") for row in rows])
    ax.set(xlabel="score", xlim=(0, 1), ylim=(0.4, len(rows) + 0.6))
    _ticks(ax.xaxis, "percent")


def draw_lengths(ax: Any, rows: Sequence[Row], groups: int = 10) -> None:
    """The share of right responses in groups of equal size by length; verifier errors left out."""
    judged = sorted((row for row in rows if row["verdict"] != "error"), key=lambda row: number(row["length"]))
    ends = [len(judged) * i // groups for i in range(groups + 1)]
    drawn = []
    for first, last in pairwise(ends):
        if group := judged[first:last]:
            share = sum(row["verdict"] == "pass" for row in group) / len(group)
            length = sum(number(row["length"]) for row in group) / len(group)
            drawn.append({"x": length, "y": share, "se": math.sqrt(share * (1 - share) / len(group))})
    _bars(ax, "x", drawn, "y", "se", PALETTE[0], "share right")
    ax.set(xlabel="length, tokens", ylabel="share right", ylim=(-0.02, 1.02))
    _ticks(ax.xaxis, "tokens")
    _ticks(ax.yaxis, "percent")


def draw_tokens(ax: Any, rows: Sequence[Row]) -> None:
    """Tokens trained on, against the budget and against what was sampled."""
    steps = column(rows, "step")
    _line(ax, steps, column(rows, "tokens_generated"), PALETTE[5], "generated", linewidth=1, marker="")
    if any(phi > 0 for phi in column(rows, "phi")):
        _line(ax, steps, column(rows, "phi"), PALETTE[1], "budget Φ", linewidth=6, alpha=0.4, marker="")
    _line(ax, steps, column(rows, "tokens_trained"), PALETTE[0], "trained", marker="")
    ax.set(xlabel="optimizer step", ylabel="tokens per step")
    ax.set_ylim(bottom=0)
    _ticks(ax.yaxis, "tokens")


def draw_characters(ax: Any, counts: Mapping[str, Mapping[int, int]], per_decade: int = 8) -> None:
    """Histograms of texts' lengths by group, {characters: texts}, in shares of a group."""
    for (name, lengths), color in zip(counts.items(), cycle(PALETTE), strict=False):
        bins = Counter[int]()
        for length, texts in lengths.items():
            bins[math.floor(math.log10(max(1, length)) * per_decade)] += texts
        places = range(min(bins), max(bins) + 1)
        heights = [bins[i] / bins.total() for i in places]
        edges = [10 ** (i / per_decade) for i in (*places, places.stop)]
        ax.stairs(heights, edges, color=color, label=printable(name) or "all", linewidth=1.5)
    ax.set(xscale="log", xlabel="characters", ylabel="share")
    _log_ticks(ax.xaxis, ax.get_xlim())
    _ticks(ax.yaxis, "percent")


def draw_rates(ax: Any, kept: Mapping[float, int], dropped: Mapping[float, int]) -> None:
    """Problems by pass rate, {rate: problems}, those dropped on top, in shares of all that were graded."""
    rates = sorted({*kept, *dropped})
    number = sum(kept.values()) + sum(dropped.values())
    width = 0.8 * min([b - a for a, b in pairwise(rates)] + [0.1])
    below = [kept.get(rate, 0) / number for rate in rates]
    above = [dropped.get(rate, 0) / number for rate in rates]
    ax.bar(rates, below, width, color=PALETTE[0], label="kept")
    if any(above):
        ax.bar(rates, above, width, below, color=PALETTE[4], label="dropped")
    ax.set(xlabel="pass rate", ylabel="share of problems", xlim=(-0.06, 1.06))
    _ticks(ax.xaxis, "percent")
    _ticks(ax.yaxis, "percent")


def draw_selection(top: Any, bottom: Any, selection: Row) -> None:
    """Entropy with the band, score with its standard error, against SFT tokens; the choice marked in both."""
    rows = sorted(selection.get("rows", []), key=lambda row: number(row.get("sft_tokens")))
    chosen = [row for row in rows if row["name"] == selection["chosen"]]
    ring: Row = {"marker": "o", "markersize": 10, "fillstyle": "none", "markeredgewidth": 1.8, "linestyle": ""}
    if band := selection.get("band"):
        top.axhspan(*band, color=PALETTE[2], alpha=0.16, linewidth=0, label="band")
    _bars(top, "sft_tokens", rows, "entropy", "entropy_se", PALETTE[0], "entropy")
    _bars(bottom, "sft_tokens", rows, "score", "score_se", PALETTE[1], "score")
    for ax, key in ((top, "entropy"), (bottom, "score")):
        for row in chosen:
            ax.axvline(number(row.get("sft_tokens")), color=AXIS, linestyle=":", linewidth=1.2)
            ax.plot(column([row], "sft_tokens"), column([row], key), color=PALETTE[4], label="chosen", **ring)
    top.set(ylabel="entropy (nats per token)")
    bottom.set(xlabel="SFT tokens", ylabel="score")
    _ticks(bottom.xaxis, "tokens")
    _ticks(bottom.yaxis, "percent")


def _ticks(axis: Any, kind: str) -> None:
    from matplotlib.ticker import EngFormatter, PercentFormatter

    if kind != "plain":
        axis.set_major_formatter(EngFormatter(sep="") if kind == "tokens" else PercentFormatter(1.0))


def _log_ticks(axis: Any, limits: tuple[float, float]) -> None:
    """Plain numbers at 1, 2 and 5 times powers of ten, over three decades only at the powers themselves."""
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if limits[1] < 1000 * limits[0] else (1,)))
    axis.set_major_formatter(EngFormatter(sep=""))
    axis.set_minor_formatter(NullFormatter())  # the default one writes mathematics, which is off in these plots


def _line(ax: Any, x: Sequence[float], y: Sequence[float], color: str, label: str, **more: Any) -> None:
    few = {"marker": "o", "markersize": 3.5} if len(x) <= 40 else {}
    ax.plot(x, y, **({"color": color, "label": label} | few | more))


def _bars(ax: Any, x: str, rows: Sequence[Row], y: str, se: str, color: str, label: str) -> None:
    """A curve with its standard errors; a point without one has no bar."""
    style: Row = {"color": color, "marker": "o", "markersize": 3.5, "elinewidth": 1, "capsize": 2}
    ax.errorbar(column(rows, x), column(rows, y), [max(0.0, error) for error in column(rows, se)], label=label, **style)


def _finish(ax: Any, rows: Sequence[Row], below: bool, names: bool = True) -> None:
    """Stage boundaries of `rows` as dotted lines, and a legend where there is more than one curve."""
    starts: dict[str, float] = {}
    for row in rows:
        starts.setdefault(printable(str(row.get("stage", ""))), number(row.get("step")))
    for i, (name, step) in enumerate(starts.items() if len(starts) > 1 else ()):
        if i:
            ax.axvline(step, color=AXIS, linestyle=":", linewidth=1.2)
        if names:
            short = name if len(name) <= NAME else name[: NAME - 1] + "…"  # a long one would take the plot's room
            ax.text(step, 1.02, short, transform=ax.get_xaxis_transform(), fontsize=8, color=INK)
    if len(ax.get_legend_handles_labels()[1]) > 1:
        place = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.2), "ncols": 4} if below else {"loc": "best"}
        ax.legend(handlelength=1.4, **place)
