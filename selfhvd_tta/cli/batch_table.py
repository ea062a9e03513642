"""The live table of a batch: which videos are at work, how far each has come, how long it will take."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from types import TracebackType

from rich.console import Console, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from selfhvd_tta.batch.events import BatchEvent, Outcome, VideoEnded, VideoStarted
from selfhvd_tta.events import Note, Plan, Progress
from selfhvd_tta.wording import duration

ENDED_SHOWN = 8
MARKS = {"done": "[green]done[/]", "failed": "[red]failed[/]", "skipped": "[dim]skipped[/]"}


@dataclass
class _Running:
    """One video at work."""

    started: float
    phase: str = "starting"
    phase_started: float = 0.0
    done: int = 0
    total: int | None = None
    planned: float | None = None
    planned_at: float = field(default=0.0)

    def left(self, now: float) -> float | None:
        """Seconds until it ends: what the plan said, but at least what this stage still takes."""
        stage = None
        if self.total and self.done:
            stage = (now - self.phase_started) * (self.total - self.done) / self.done
        if self.planned is None:
            return None
        return max(self.planned - (now - self.planned_at), stage or 0.0)


class BatchTable:
    """A listener for a batch on a terminal; a context manager that owns the live part of the screen.

    Args:
        total: videos to be done.
        console: where to; None for standard error.
    """

    def __init__(self, total: int, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False)
        self.total = total
        self.running: dict[str, _Running] = {}
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
        """Take one event in; the screen follows by itself."""
        now = time.monotonic()
        if isinstance(event, VideoStarted):
            self.running[event.name] = _Running(now, phase_started=now)
        elif isinstance(event, VideoEnded):
            self.running.pop(event.outcome.name, None)
            self.ended.append(event.outcome)
            self.count[event.outcome.state] += 1
        elif event.name in self.running:
            self._note(self.running[event.name], event.name, event.event, now)

    def _note(self, video: _Running, name: str, event: object, now: float) -> None:
        if isinstance(event, Progress):
            if event.phase != video.phase or event.done < video.done:
                video.phase, video.phase_started = event.phase, now
            video.done, video.total = event.done, event.total
        elif isinstance(event, Plan):
            video.planned = None if event.minutes is None else 60 * event.minutes
            video.planned_at = now
        elif isinstance(event, Note) and event.level == "warning":
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
            left = video.left(now)
            table.add_row(escape(name), video.phase, _bar(video), "" if left is None else f"about {duration(left)}")
        waiting = self.total - sum(self.count.values()) - len(self.running)
        text = f"{self.count['done']} of {self.total} done"
        text += f", {self.count['failed']} failed" if self.count["failed"] else ""
        text += f", {waiting} waiting" if waiting > 0 else ""
        table.caption = f"{text}, {duration(now - self.started)} so far"
        table.caption_justify = "left"
        return table


def _bar(video: _Running) -> RenderableType:
    if not video.total:
        return Text(f"{video.done}" if video.done else "", "dim")
    row = Table.grid(padding=(0, 1))
    row.add_row(ProgressBar(video.total, min(video.done, video.total), width=20), f"{video.done}/{video.total}")
    return row
