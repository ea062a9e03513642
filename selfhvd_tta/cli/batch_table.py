"""The live table of a batch: which videos are being processed, how far each is, how long it will take."""

from __future__ import annotations

import time
from collections import deque
from types import TracebackType

from rich.console import Console, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from selfhvd_tta.batch.events import BatchEvent, Outcome, VideoEnded, VideoStarted
from selfhvd_tta.console import JobClock
from selfhvd_tta.events import Event, Note
from selfhvd_tta.wording import duration

ENDED_SHOWN = 8
MARKS = {"done": "[green]done[/]", "failed": "[red]failed[/]", "skipped": "[dim]skipped[/]"}


class BatchTable:
    """A listener for a batch on a terminal; a context manager that owns the live part of the screen.

    Args:
        total: videos to be done.
        console: where to write; None for standard error.
    """

    def __init__(self, total: int, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False)
        self.total = total
        self.running: dict[str, JobClock] = {}
        self.ended: deque[Outcome] = deque(maxlen=ENDED_SHOWN)
        self.count = {"done": 0, "failed": 0, "skipped": 0}
        self.started = time.monotonic()
        self.live = Live(console=self.console, get_renderable=self.render, refresh_per_second=4)

    def __enter__(self) -> BatchTable:
        self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.live.stop()

    def __call__(self, event: BatchEvent) -> None:
        """Process one event; the screen is updated."""
        if isinstance(event, VideoStarted):
            self.running[event.name] = JobClock()
        elif isinstance(event, VideoEnded):
            self.running.pop(event.outcome.name, None)
            self.ended.append(event.outcome)
            self.count[event.outcome.state] += 1
        elif event.name in self.running:
            self._note(self.running[event.name], event.name, event.event)

    def _note(self, video: JobClock, name: str, event: Event) -> None:
        video.take(event)
        if isinstance(event, Note) and event.level == "warning":
            self.console.print(f"[yellow]note:[/] {escape(name)}: {escape(event.text)}", soft_wrap=True)

    def render(self) -> RenderableType:
        """The table as it is now."""
        now = time.monotonic()
        table = Table(box=None, pad_edge=False, expand=False)
        room = max(20, self.console.width - 64)
        table.add_column("video", overflow="ellipsis", no_wrap=True, max_width=max(12, min(44, room)))
        table.add_column("stage", no_wrap=True, min_width=8)
        table.add_column("progress", no_wrap=True, min_width=30, max_width=36)
        table.add_column("time left", no_wrap=True, min_width=12)
        for outcome in self.ended:
            what = outcome.message.removeprefix(f"{outcome.source}: ") if outcome.state == "failed" else outcome.action
            spent = duration(outcome.seconds) if outcome.state == "done" else ""
            table.add_row(escape(outcome.name), MARKS[outcome.state], Text(what, "dim", overflow="ellipsis"), spent)
        for name, video in self.running.items():
            left, phase = video.left(), "starting" if video.now is None else video.now.phase
            table.add_row(escape(name), phase, _bar(video), "" if left is None else f"about {duration(left)}")
        waiting = self.total - sum(self.count.values()) - len(self.running)
        text = f"{self.count['done']} of {self.total} done"
        text += f", {self.count['failed']} failed" if self.count["failed"] else ""
        text += f", {waiting} waiting" if waiting > 0 else ""
        table.caption = f"{text}, {duration(now - self.started)} so far"
        table.caption_justify = "left"
        return table


def _bar(video: JobClock) -> RenderableType:
    event = video.now
    if event is None or not event.total:
        return Text(f"{event.done}" if event is not None and event.done else "", "dim")
    row = Table.grid(padding=(0, 1))
    row.add_row(ProgressBar(event.total, min(event.done, event.total), width=20), f"{event.done}/{event.total}")
    return row
