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
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from ringrl.report.page import duration, percent
from ringrl.report.step_counts import accounts, outputs
from ringrl.run import show, step_line

PLAIN_WIDTH = 160  # width of tables without a terminal
PLAIN_EVERY_S = 5.0  # least time between two step lines without a terminal


def show_chain(run: Path, reported: bool) -> None:
    """What a finished run of `ringrl data` made of its rows, and the files to look at."""
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        console = Console(stderr=True, highlight=False, width=PLAIN_WIDTH)
    table = Table("step", box=SIMPLE_HEAD)
    for name in ("rows in", "kept", "dropped", "%", "time", "rows/s"):
        table.add_column(name, justify="right")
    steps = accounts(run)
    overall = replace(steps[-1], name="all", came=steps[0].came, seconds=sum(step.seconds for step in steps))
    for step in (*steps, overall):
        came, kept = step.came.total(), step.kept.total()
        numbers = (f"{came:,}", f"{kept:,}", f"{step.lost:,}", percent(step.lost, came), duration(step.seconds))
        speed = f"{came / step.seconds:,.0f}" if step.seconds else ""
        table.add_row(step.name, *numbers, speed, style="bold" if step is overall else "")
    console.print(table)
    for name, facts in outputs(run).items():
        short = facts.get("problems", 0) < facts.get("wanted", 0)
        wanted = f", {facts['problems']:,} of {facts['wanted']:,} problems wanted" * short
        console.print(f"{run}/data/{name}.jsonl  {facts['lines']:,} lines{wanted}", soft_wrap=True, markup=False)
    if reported:
        console.print(f"{run}/report.html", soft_wrap=True, markup=False)


class Display:
    """Fed by the launcher with the events of rank 0 (`ringrl.run.Progress`)."""

    def __init__(self, command: str, run: str) -> None:
        self.console = Console(stderr=True, highlight=False)
        self.live = self.console.is_terminal
        if not self.live:
            self.console = Console(stderr=True, highlight=False, width=PLAIN_WIDTH)
        self.console.print(f"[bold]ringrl {command}[/bold]  {escape(run)}", soft_wrap=True)
        self.bars = Progress(
            TextColumn("{task.description:<22}"),
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
        self.bars.update(self.now, description=f"  {name}", completed=done, total=total, visible=True)
        self._refresh()

    def step(self, step: int, total: int, numbers: dict[str, Any]) -> None:
        self.bars.update(self.steps, description="steps", completed=step, total=total)
        self.numbers = numbers
        self._refresh()
        if not self.live and (time.monotonic() - self.printed > PLAIN_EVERY_S or step in (1, total)):
            self.printed = time.monotonic()
            self.console.print(step_line(step, total, numbers), soft_wrap=True, markup=False)

    def note(self, text: str) -> None:
        self.console.print(text, soft_wrap=True, markup=False)

    def table(self, title: str, rows: list[dict[str, str]]) -> None:
        table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
        for name in rows[0]:
            table.add_column(name, justify="right", no_wrap=True)
        for row in rows:
            table.add_row(*(escape(v) for v in row.values()))
        self.console.print(table)

    def fail(self, text: str) -> None:
        self.console.print(f"[bold red]error[/bold red] {escape(text)}", soft_wrap=True)

    def _refresh(self) -> None:
        if self.live:
            self.panel.update(self._render())

    def _render(self) -> Group:
        table = Table.grid(padding=(0, 2))
        for _ in self.numbers:
            table.add_column(justify="right")
        if self.numbers:
            table.add_row(*(f"[dim]{escape(k)}[/dim]" for k in self.numbers))
            table.add_row(*(f"[bold]{escape(show(v))}[/bold]" for v in self.numbers.values()))
        return Group(self.bars, table)
