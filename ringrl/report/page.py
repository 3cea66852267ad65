"""What the pages are made of: reading what a run recorded, words for numbers, figures, and the templates.

Lives here: what any page needs. Not here: what a page says (`runs.py`, `data.py`, `dropped.py`), its markup
(`templates/`), drawing (`plots.py`).
Invariants: text is made `printable` and escaped on its way into a page, unless it is of type `Markup`; the policy of
every page allows its own style and nothing else: no scripts, no requests.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
from markupsafe import Markup

from ringrl.report import plots
from ringrl.report.plots import Panel, Row
from ringrl.safe_text import printable

TEMPLATES = Path(__file__).parent / "templates"
Spec = Sequence[tuple[str, str]]  # (label, key of a row); a label that ends in % marks a share


class Figure(NamedTuple):
    title: str
    svg: Markup
    caption: str


def render(template: str, **values: Any) -> Markup:
    """A template of `templates/` filled in; a value that it names and does not get raises `jinja2.UndefinedError`."""
    return Markup(_environment().get_template(f"{template}.html.jinja").render(values))


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    environment.filters.update(duration=duration, mix=mix, percent=percent, sha256=_sha256, shorten=shorten)
    return environment


def _shown(value: Any) -> str:
    return value if isinstance(value, Markup) else printable(show(value), lines=True)


def _sha256(text: str) -> str:
    """The digest of a text as a content security policy names it."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


# ---- words ----


def show(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "–", True: "yes", False: "no"}[value]
    if isinstance(value, str):  # Markup stays Markup
        return value
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}" if isinstance(value, float) else str(value)


def share(row: Row, key: str) -> str:
    """A share in percent, with its standard error where the row has one (`se` belongs to `avg`)."""
    if row.get(key) is None:
        return "–"
    error = row.get("se" if key == "avg" else f"{key}_se")
    return f"{100 * row[key]:.1f}" + ("" if error is None else f" ± {100 * error:.1f}")


def facts(row: Row, spec: Spec) -> list[tuple[str, str]]:
    return [(name, share(row, key) if name.endswith("%") else show(row.get(key))) for name, key in spec]


def table(columns: Spec, rows: Sequence[Row]) -> list[list[str]]:
    """The labels, then the values of every row, without columns that no row has a value for; empty without rows."""
    known = [(name, key) for name, key in columns if any(row.get(key) is not None for row in rows)]
    header = [name for name, _ in known]
    return [header, *([value for _, value in facts(row, known)] for row in rows)] if rows else []


def percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f}" if whole else "–"


def mix(counts: Mapping[str, int]) -> str:
    """Names with their shares, the largest first."""
    whole = sum(counts.values())
    return ", ".join(f"{name or '–'} {percent(n, whole)} %" for name, n in Counter(counts).most_common())


def duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min {rest:02d} s"


def shorten(text: str) -> str:
    """A text of more than 5,000 characters without its middle."""
    if len(text) <= 5000:
        return text
    return f"{text[:3000]}\n\n[… {len(text) - 4500:,} characters left out …]\n\n{text[-1500:]}"


def total(rows: Iterable[Row], *keys: str) -> Any:
    return sum(row.get(key) or 0 for row in rows for key in keys)


# ---- figures ----


def figure(
    title: str, caption: str, draw: Callable[..., None], *values: Any, stages: Sequence[Row] = (), axes: int = 1
) -> Figure:
    """What `draw` makes of `values` on `axes` plots, with the stages of these rows of metrics."""
    return Figure(title, Markup(plots.svg(draw, *values, stages=stages, axes=axes)), caption)


def panels(which: Iterable[Panel], rows: Sequence[Row], x: str) -> list[Figure]:
    """The panels in which anything changes; `constants` has the others."""
    shown = [panel for panel in which if plots.varies(rows, panel)]
    return [figure(p.title, p.caption, plots.draw_panel, p, rows, x, stages=rows) for p in shown]


def constants(which: Iterable[Panel], rows: Sequence[Row]) -> str:
    """The curves of the panels in which nothing changes, in words."""
    parts = []
    for panel in (panel for panel in which if not plots.varies(rows, panel)):
        for key, name in panel.curves:
            values = [value for value in plots.column(rows, key) if value == value]
            title = name if len(panel.curves) == 1 else f"{panel.title.lower()} ({name})"
            parts += [f"{title}: {show(values[0])}"] if values else []
    return "; ".join(parts)
