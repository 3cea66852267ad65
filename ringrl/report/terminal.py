"""What the user sees while a command runs: a live panel on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from ringrl.report.page import duration, percent
from ringrl.report.step_counts import accounts, outputs
from ringrl.run import show, step_line
from ringrl.safe_text import printable

PLAIN_WIDTH = 160  # width of tables without a terminal
PLAIN_EVERY_S = 5.0  # least time between two step lines without a terminal


def screen() -> Console:
    """A console on standard error that takes every text literally: no markup, no emoji by name."""
    console = Console(stderr=True, highlight=False, markup=False, emoji=False)
    if console.is_terminal:
        return console
    return Console(stderr=True, highlight=False, markup=False, emoji=False, width=PLAIN_WIDTH)


def literal(text: object, style: str = "", lines: bool = False) -> Text:
    """What to show of a text from outside: see `printable`."""
    return Text(printable(str(text), lines), style)


def show_error(text: str, lines: bool = False) -> None:
    """Shows why something ends, in red unless NO_COLOR is set; with `lines` its text may have several."""
    screen().print(Text("error", "bold red"), literal(text, lines=lines), soft_wrap=True)


def show_warning(text: str) -> None:
    screen().print(Text("warning", "bold yellow"), literal(text), soft_wrap=True)


def show_chain(run: Path) -> None:
    """What a finished run of `ringrl data` made of its rows, and the files to look at."""
    console = screen()
    table = Table("step", box=SIMPLE_HEAD)
    for name in ("rows in", "kept", "dropped", "%", "time", "rows/s"):
        table.add_column(name, justify="right")
    steps = accounts(run)
    overall = replace(steps[-1], name="all", came=steps[0].came, seconds=sum(step.seconds for step in steps))
    for step in (*steps, overall):
        came, kept = step.came.total(), step.kept.total()
        numbers = (f"{came:,}", f"{kept:,}", f"{step.lost:,}", percent(step.lost, came), duration(step.seconds))
        speed = f"{came / step.seconds:,.0f}" if step.seconds else ""
        table.add_row(literal(step.name), *numbers, speed, style="bold" if step is overall else "")
    console.print(table)
    for name, facts in outputs(run).items():
        short = facts.get("problems", 0) < facts.get("wanted", 0)
        wanted = f", {facts['problems']:,} of {facts['wanted']:,} problems wanted" * short
        console.print(literal(f"{run}/data/{name}.jsonl  {facts['lines']:,} lines{wanted}"), soft_wrap=True)
    console.print(literal(f"{run}/report.html"), soft_wrap=True)


class Display:
    """Fed by the launcher with the events of rank 0 (`ringrl.run.Progress`). No text reaches the terminal but through
    `literal`."""

    def __init__(self, command: str, run: str) -> None:
        self.console = screen()
        self.live = self.console.is_terminal
        self.console.print(literal(f"ringrl {command}", "bold"), literal(f" {run}"), soft_wrap=True)
        self.bars = Progress(
            TextColumn("{task.description:<22}", markup=False),
            BarColumn(bar_width=40),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
        )
        self.steps = self.bars.add_task("starting", total=None)
        self.now = self.bars.add_task("", total=None, visible=False)
        self.numbers: dict[str, Any] = {}
        self.panel = Live(self._render(), console=self.console, refresh_per_second=5, transient=True)
        self.printed = 0.0

    def __enter__(self) -> Display:
        if self.live:
            self.panel.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live:
            self.panel.stop()

    def phase(self, name: str, done: int, total: int) -> None:
        if done <= 1:
            self.bars.reset(self.now)  # its clock starts with the phase
        self.bars.update(self.now, description=f"  {printable(name)}", completed=done, total=total or None,
                         visible=True)  # fmt: skip
        self._refresh()

    def step(self, step: int, total: int, numbers: dict[str, Any]) -> None:
        self.bars.update(self.steps, description="steps", completed=step, total=total)
        self.numbers = numbers
        self._refresh()
        if not self.live and (time.monotonic() - self.printed > PLAIN_EVERY_S or step in (1, total)):
            self.printed = time.monotonic()
            self.console.print(literal(step_line(step, total, numbers)), soft_wrap=True)

    def note(self, text: str) -> None:
        self.console.print(literal(text), soft_wrap=True)

    def table(self, title: str, rows: list[dict[str, str]]) -> None:
        table = Table(title=literal(title, "table.title"), title_justify="left", box=SIMPLE_HEAD)
        for name in rows[0]:
            table.add_column(literal(name), justify="right", no_wrap=True)
        for row in rows:
            table.add_row(*map(literal, row.values()))
        self.console.print(table)

    def fail(self, text: str) -> None:
        """Shows an error; its text may have several lines, the end of a log for instance."""
        show_error(text, lines=True)

    def _refresh(self) -> None:
        if self.live:
            self.panel.update(self._render())

    def _render(self) -> Group:
        table = Table.grid(padding=(0, 2))
        for _ in self.numbers:
            table.add_column(justify="right")
        if self.numbers:
            table.add_row(*(literal(name, "dim") for name in self.numbers))
            table.add_row(*(literal(show(value), "bold") for value in self.numbers.values()))
        return Group(self.bars, table)
