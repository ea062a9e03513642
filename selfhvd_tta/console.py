"""Renders events: a live display on a terminal, plain lines elsewhere, JSON lines for other programs."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Literal

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars
from rich.table import Table

from selfhvd_tta.errors import SelfHVDError
from selfhvd_tta.events import Event, Finished, Note, Plan, Progress, Written
from selfhvd_tta.wording import duration

Style = Literal["auto", "plain", "json", "quiet"]
PLAIN_INTERVAL_S = 10.0


class Display:
    """A listener for one run; a context manager that owns the live part of the screen.

    Args:
        style: ``auto`` is live on a terminal and plain elsewhere.
    """

    def __init__(self, style: Style = "auto") -> None:
        self.console = Console(stderr=True, highlight=False)
        self.style = ("live" if self.console.is_terminal else "plain") if style == "auto" else style
        self.bars: Bars | None = None
        self.tasks: dict[str, TaskID] = {}
        self.told: dict[str, float] = {}

    def __enter__(self) -> Display:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def __call__(self, event: Event) -> None:
        """Show one event."""
        if self.style == "json":
            print(json.dumps({"event": type(event).__name__.lower(), **dataclasses.asdict(event)}), flush=True)
        elif self.style == "quiet":
            if isinstance(event, Note) and event.level == "warning":
                self.console.print(f"[yellow]note:[/] {_escape(event.text)}", soft_wrap=True)
        elif isinstance(event, Progress):
            (self._live if self.style == "live" else self._line)(event)
        else:
            self._block(event)

    def _block(self, event: Event) -> None:
        if isinstance(event, Note):
            mark = "[yellow]note:[/] " if event.level == "warning" else "[dim]note:[/] "
            self.console.print(mark + _escape(event.text), soft_wrap=True)
        elif isinstance(event, Plan):
            self._rows(event.rows)
            if event.minutes is not None:
                self._rows((("time", f"about {duration(60 * event.minutes)}"),))
        elif isinstance(event, Finished):
            self._stop()
            self._rows(event.rows)
            self.console.print(f"[green]done[/] {_escape(event.output)} in {duration(event.seconds)}", soft_wrap=True)

        elif isinstance(event, Written):
            self._stop()
            self.console.print(f"[green]{event.what}[/] {_escape(event.path)}", soft_wrap=True)

    def _rows(self, rows: tuple[tuple[str, str], ...]) -> None:
        for label, value in rows:
            self.console.print(f"[bold]{label:>9}[/]  {_escape(value)}", soft_wrap=True)

    def _live(self, event: Progress) -> None:
        if self.bars is None:
            columns: tuple[ProgressColumn, ...] = (
                SpinnerColumn(),
                TextColumn("{task.description:<9}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[unit]}"),
                TextColumn("{task.fields[speed]}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[values]}"),
            )
            self.bars = Bars(*columns, console=self.console)
            self.bars.start()
        key = event.phase
        if key in self.tasks and self.bars.tasks[self.tasks[key]].completed > event.done:
            # A phase that comes again (labels are renewed) starts over on the same line.
            self.bars.reset(self.tasks[key])
        if key not in self.tasks:
            self.tasks[key] = self.bars.add_task(key, total=event.total, unit=event.unit, values="", speed="")
        task = self.bars.tasks[self.tasks[key]]
        values = " ".join(f"{name} {value:.4f}" for name, value in event.values)
        speed = f"{task.speed:.1f}/s" if task.speed else ""
        self.bars.update(self.tasks[key], completed=event.done, total=event.total, values=values, speed=speed)

    def _line(self, event: Progress) -> None:
        now = time.monotonic()
        last = event.total is not None and event.done >= event.total
        if not last and now - self.told.setdefault(event.phase, now) < PLAIN_INTERVAL_S:
            return
        self.told[event.phase] = now
        if event.phase == "labels" and not last:
            return
        values = "  ".join(f"{name} {value:.4f}" for name, value in event.values)
        total = "" if event.total is None else f" of {event.total}"
        line = f"[bold]{event.phase:>9}[/]  {event.done}{total} {event.unit}  {values}"
        self.console.print(line.rstrip(), soft_wrap=True)

    def _stop(self) -> None:
        if self.bars is not None:
            self.bars.stop()
            self.bars = None
            self.tasks = {}


def show_error(error: SelfHVDError, json_lines: bool = False) -> None:
    """One line of what happened, one of what to do."""
    if json_lines:
        body = {"event": "error", "message": error.message, "hint": error.hint, "exit_code": int(error.exit_code)}
        print(json.dumps(body), flush=True)
        return
    console = Console(stderr=True, highlight=False)
    console.print(f"[red]error:[/] {_escape(error.message)}", soft_wrap=True)
    if error.hint:
        console.print(f" [bold]hint:[/] {_escape(error.hint)}", soft_wrap=True)


def show_table(title: str, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """A table on standard output."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(_escape(cell) for cell in row))
    width = None if sys.stdout.isatty() else 200
    Console(highlight=False, width=width).print(table)


def show_lines(lines: list[str]) -> None:
    """Lines on standard output, as they are."""
    for line in lines:
        print(line)


def _escape(text: str) -> str:
    return text.replace("[", "\\[")
