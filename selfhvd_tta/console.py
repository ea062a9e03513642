"""Renders events: a live display on a terminal, plain lines elsewhere, JSON lines for other programs."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
import sys
import time
import unicodedata
from collections.abc import Sequence
from types import TracebackType
from typing import Literal

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from selfhvd_tta.errors import SelfHVDError
from selfhvd_tta.events import Event, Finished, Note, Plan, Progress, Written
from selfhvd_tta.wording import clock, duration

Style = Literal["auto", "plain", "json", "quiet"]
PLAIN_INTERVAL_S = 5.0
# Characters that change the writing direction: a name could seem to have another extension.
TURNS = set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
# Phases that write the result: what they still take is what the job still takes.
LAST_PHASES = ("restore", "transfer")


class JobClock:
    """How far along a job is, judged by its plan and by the pace of its current phase."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.now: Progress | None = None
        self.phase_started = self.started
        self.phase_from = 0
        self.planned: float | None = None
        self.planned_at = self.started
        self.shown = 0.0

    def take(self, event: Event) -> None:
        """Record a plan or a step of progress."""
        now = time.monotonic()
        if isinstance(event, Plan):
            self.planned, self.planned_at = (None if event.minutes is None else 60 * event.minutes), now
        elif isinstance(event, Progress):
            before = self.now
            if before is None or event.phase != before.phase or event.done < before.done:
                # What an interrupted run had finished took no time in this one.
                self.phase_started, self.phase_from = now, event.done
            self.now = event

    def left(self) -> float | None:
        """Seconds until the job ends; None before it is planned.

        The planned time left, but at least what this phase still takes at its pace; in the last phase, just that.
        """
        if self.planned is None:
            return None
        now, event = time.monotonic(), self.now
        rest = max(0.0, self.planned - (now - self.planned_at))
        if event is None or not event.total or event.done <= self.phase_from:
            return rest
        phase = (now - self.phase_started) * (event.total - event.done) / (event.done - self.phase_from)
        return phase if event.phase in LAST_PHASES else max(rest, phase)

    @property
    def elapsed(self) -> float:
        """Seconds since the job began."""
        return time.monotonic() - self.started

    def share(self) -> float | None:
        """Share of the job that is done, 0..1; never less than before. None before it is planned."""
        left = self.left()
        if left is None:
            return None
        self.shown = max(self.shown, self.elapsed / max(self.elapsed + left, 1e-6))
        return self.shown

    def times(self) -> str:
        """``1:10 elapsed, 0:40 left``."""
        left = self.left()
        return f"{clock(self.elapsed)} elapsed" + ("" if left is None else f", {clock(left)} left")


class Display:
    """A listener for one run; a context manager that owns the live part of the screen.

    Args:
        style: ``auto`` is live on a terminal and plain elsewhere.
        verbose: show losses and other current figures.
        console: where to write; None for standard error.
    """

    def __init__(self, style: Style = "auto", verbose: bool = False, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False)
        self.style = ("live" if self.console.is_terminal else "plain") if style == "auto" else style
        self.verbose = verbose
        self.clock = JobClock()
        self.live: Live | None = None
        self.told = time.monotonic()

    def __enter__(self) -> Display:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def __call__(self, event: Event) -> None:
        """Show one event."""
        self.clock.take(event)
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
            self._print(mark + _escape(event.text))
        elif isinstance(event, Plan):
            self._rows(event.rows)
            if event.minutes is not None:
                self._rows((("time", f"about {duration(60 * event.minutes)}"),))
        elif isinstance(event, Finished):
            self._stop()
            self._rows(event.rows)
            late = f", {duration(event.late)} over the budget" if event.late else ""
            took = f"in {duration(event.seconds)}{late}"
            self.console.print(f"[green]done[/] {_escape(event.output)} {took}", soft_wrap=True)
        elif isinstance(event, Written):
            self._stop()
            self.console.print(f"[green]{event.what}[/] {_escape(event.path)}", soft_wrap=True)

    def _print(self, text: str) -> None:
        """Wrapped at words on a terminal; elsewhere one line, so that it can be searched."""
        self.console.print(text, soft_wrap=self.style != "live")

    def _rows(self, rows: tuple[tuple[str, str], ...]) -> None:
        if self.style != "live":
            for label, value in rows:
                self.console.print(f"[bold]{label:>9}[/]  {_escape(value)}", soft_wrap=True)
            return
        table = Table.grid(padding=(0, 2))
        table.add_column(justify="right", min_width=9, style="bold")
        table.add_column(overflow="fold")
        for label, value in rows:
            table.add_row(label, Text(value))
        self.console.print(table)

    def _live(self, event: Progress) -> None:
        if self.live is None:
            self.live = Live(
                console=self.console, get_renderable=self.render, refresh_per_second=4, transient=True, screen=False
            )
            self.live.start()

    def render(self) -> Table:
        """The line of the whole job: phase, bar, percent, times; with ``verbose``, the figures below it."""
        event, share = self.clock.now, self.clock.share()
        assert event is not None
        if share is None:
            total = "" if event.total is None else f" of {event.total}"
            end = f"{event.done}{total} {event.unit}"
        else:
            end = f"{100 * share:3.0f} %  {self.clock.times()}"
        line = Table.grid(padding=(0, 1))
        line.add_row(f"{event.phase:<9}", *self._bar(share, len(end)), Text(end, no_wrap=True))
        if not (self.verbose and event.values):
            return line
        both = Table.grid()
        both.add_row(line)
        both.add_row(Text(_values(event), "dim"))
        return both

    def _bar(self, share: float | None, taken: int) -> tuple[ProgressBar, ...]:
        room = self.console.width - taken - 13
        return () if share is None or room < 4 else (ProgressBar(1.0, share, width=min(room, 40)),)

    def _line(self, event: Progress) -> None:
        now = time.monotonic()
        last = event.total is not None and event.done >= event.total
        due = now - self.told >= PLAIN_INTERVAL_S
        if not (due or last) or (event.phase == "labels" and last and not due):
            return
        self.told = now
        share = self.clock.share()
        total = "" if event.total is None else f" of {event.total}"
        line = f"[bold]{event.phase:>9}[/]  {event.done}{total} {event.unit}"
        if share is not None:
            line += f", {100 * share:.0f} % of the job, {self.clock.times()}"
        if self.verbose and event.values:
            line += f"; {_values(event)}"
        self.console.print(line, soft_wrap=True)

    def _stop(self) -> None:
        if self.live is not None:
            self.live.stop()
            self.live = None


def _values(event: Progress) -> str:
    return "  ".join(f"{name} {value:.4f}" for name, value in event.values)


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
        print(_visible(line))


def tolerate_encodings() -> None:
    """Let standard output and errors show by number what their encoding (Latin-1, ASCII) lacks, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def terminal_width() -> int:
    """Columns of the terminal, or 80 without one."""
    return shutil.get_terminal_size().columns


def _escape(text: str) -> str:
    return _visible(text).replace("[", "\\[")


def _visible(text: str) -> str:
    """Text whose control characters, and bytes of file names that are not UTF-8, are shown by number.

    A file's name must not control the terminal or change the writing direction.
    """
    return "".join(_numbered(c) if unicodedata.category(c) in ("Cc", "Cs") or c in TURNS else c for c in text)


def _numbered(character: str) -> str:
    return character if character in "\n\t" else repr(character)[1:-1]
