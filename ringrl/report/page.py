"""The material that pages are made of: HTML for words, tables and figures.

Lives here: what any page needs. Not here: what a page says (`report.py`, `report_data.py`), drawing (`plots.py`).
Invariant: what is not of type `Html` is escaped on its way into a page.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from typing import Any

from ringrl.report import plots
from ringrl.report.plots import Panel, Row, has

Spec = Sequence[tuple[str, str]]  # (what it is called, its key); a name that ends in % is a share
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
grid-column:span 2 } } .filter label { margin-left:14px; color:var(--soft) } .r.pass > summary {
color:var(--good) } .r.fail > summary, .r.error > summary { color:var(--bad) }
td:has(> .num), th:has(> .num) { text-align:right } .bar { display:flex; width:240px; height:13px;
background:var(--grid); border-radius:3px; overflow:hidden } .bar i { background:var(--c0) } .bar b {
background:var(--c4) } .bar.short { width:120px } h3.part { font-size:17px; margin:36px 0 8px } .pair {
display:grid; grid-template-columns:repeat(auto-fit,minmax(min(340px,100%),1fr)); gap:0 24px } .example {
border-top:1px solid var(--grid); padding:8px 0 } mark { background:var(--mark); color:inherit;
border-bottom:2px solid var(--c1) } .sheet.fit { width:fit-content; max-width:100% } .plots .sheet {
margin:0 } .plots + .sheet, .sheet + .plots { margin-top:16px } .why { white-space:normal;
color:var(--soft) }
"""
# what a reader would not see: control characters, those that turn the direction of writing or have no width, halves of
# pairs. They are shown by their numbers.
UNSEEN = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)


def document(name: str, kind: str, body: str, more_css: str = "") -> str:
    """A whole page that loads nothing."""
    name = esc(name)
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{name}: {kind}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<style>{CSS}{more_css}</style></head>\n<body><main><h1>{name}</h1><p class="soft">ringrl, {kind}</p>{body}'
        "</main></body></html>\n"
    )


def middle_left_out(text: str) -> str:
    if len(text) <= 5000:
        return text
    return f"{text[:3000]}\n\n[… {len(text) - 4500:,} characters left out …]\n\n{text[-1500:]}"


# ---- words: numbers as text, text as HTML ----


class Html(str):
    """Text that is HTML already; any other text is escaped on its way into the page."""


def esc(value: Any) -> str:
    """As HTML that says what is there."""
    return value if isinstance(value, Html) else html.escape(UNSEEN.sub(_numbered, str(value)))


def _numbered(character: re.Match[str]) -> str:
    return f"⟨U+{ord(character[0]):04X}⟩"


def show(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "–", True: "yes", False: "no"}[value]
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}" if isinstance(value, float) else str(value)


def share(row: Row, key: str) -> str:
    """A share in percent, with its standard error where the row has one (`se` belongs to `avg`)."""
    if row.get(key) is None:
        return "–"
    error = row.get("se" if key == "avg" else f"{key}_se")
    return f"{100 * row[key]:.1f}" + ("" if error is None else f" ± {100 * error:.1f}")


def facts(row: Row, spec: Spec) -> list[tuple[str, str]]:
    return [(name, share(row, key) if name.endswith("%") else show(row.get(key))) for name, key in spec]


def percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f}" if whole else "–"


def duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min {rest:02d} s"


def total(rows: Iterable[Row], *keys: str) -> Any:
    return sum(row.get(key) or 0 for row in rows for key in keys)


def table(columns: Spec, rows: Iterable[Row], marked: int = -1) -> str:
    return grid([name for name, _ in columns], [[v for _, v in facts(row, columns)] for row in rows], marked)


def grid(header: Sequence[str], rows: Iterable[Sequence[Any]], marked: int = -1, fit: bool = False) -> str:
    """fit: no wider than it must be."""
    text = "<tr>" + "".join(f"<th>{esc(cell)}</th>" for cell in header) + "</tr>"
    for i, row in enumerate(rows):
        opening = '<tr class="marked">' if i == marked else "<tr>"
        text += opening + "".join(f"<td>{esc(cell)}</td>" for cell in row) + "</tr>"
    return f'<div class="sheet{" fit" * fit}"><table>{text}</table></div>'


def num(value: Any) -> Html:
    """A cell of a column of numbers, or what stands above it."""
    return Html(f'<span class="num">{esc(show(value))}</span>')


def bar(share: float, lost: float = 0.0, short: bool = False) -> Html:
    """A cell with a bar of one colour, and what was lost of it in another."""
    widths = (min(1.0, max(0.0, value)) * 100 for value in (share, lost))
    parts = "".join(f'<{tag} style="width:{w:.2f}%"></{tag}>' for tag, w in zip("ib", widths, strict=True))
    return Html(f'<div class="bar{" short" * short}">{parts}</div>')


def tiles(*facts: tuple[str, Any]) -> str:
    shown = "".join(f"<div>{esc(name)}<b>{esc(value)}</b></div>" for name, value in facts if value not in ("", "–"))
    return f'<div class="tiles">{shown}</div>'


def figure(title: str, svg: str, caption: str, wide: bool = False) -> str:
    opening = '<figure class="wide">' if wide else "<figure>"
    return f"{opening}<h3>{esc(title)}</h3>{svg}<figcaption>{esc(caption)}</figcaption></figure>"


def details(title: str, content: str, opened: bool = False) -> Html:
    """HTML, folded."""
    mark = " open" * opened
    return Html(f'<details class="card"{mark}><summary>{esc(title)}</summary>{content}</details>')


def figures(figures: Iterable[str]) -> str:
    return f'<div class="plots">{"".join(figures)}</div>'


def panels(which: Iterable[Panel], rows: Sequence[Row], x: str) -> list[str]:
    shown = [panel for panel in which if has(rows, *(key for key, _ in panel.curves))]
    svgs = [plots.svg(lambda ax, p=panel: plots.draw_panel(ax, p, rows, x), rows) for panel in shown]
    return [figure(panel.title, svg, panel.caption) for panel, svg in zip(shown, svgs, strict=True)]


def folded(title: str, text: str) -> str:
    return f'<details class="card"><summary>{esc(title)}</summary><pre>{esc(text)}</pre></details>'
