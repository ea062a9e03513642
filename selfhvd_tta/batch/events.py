"""What happens during a batch: the events of each video, with its name."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from selfhvd_tta.events import Event, Finished, Listener, Loaded, MethodTime, Note, Plan, Progress, Written
from selfhvd_tta.wording import duration


@dataclass(frozen=True)
class Outcome:
    """What became of one video.

    Attributes:
        name: of the video, relative to the folder it was found in.
        source: its path.
        output: path of the result.
        state: ``done``, ``skipped`` (an earlier run had finished it) or ``failed``.
        action: what was done, for example ``adapted``; empty if it failed.
        seconds: how long it took.
        message: one line, why it failed.
        hint: one line, what to do about it.
        exit_code: as of ``selfhvd-tta deblur`` in such a case.
    """

    name: str
    source: str
    output: str
    state: Literal["done", "skipped", "failed"]
    action: str = ""
    seconds: float = 0.0
    message: str = ""
    hint: str = ""
    exit_code: int = 0


@dataclass(frozen=True)
class VideoStarted:
    """Work on a video begins; ``number`` counts from 1 to ``total``, the videos that are to be done."""

    name: str
    number: int
    total: int


@dataclass(frozen=True)
class VideoEvent:
    """An event of its run."""

    name: str
    event: Event


@dataclass(frozen=True)
class VideoEnded:
    """Work on a video ended."""

    outcome: Outcome


BatchEvent = VideoStarted | VideoEvent | VideoEnded
BatchListener = Callable[[BatchEvent], None]


def as_json(event: BatchEvent) -> str:
    """One line: an event of ``selfhvd-tta deblur --json`` with its ``video``, or ``started``, or ``ended``."""
    body: dict[str, Any]
    if isinstance(event, VideoStarted):
        body = {"event": "started", "video": event.name, "number": event.number, "total": event.total}
    elif isinstance(event, VideoEnded):
        body = {"event": "ended", "video": event.outcome.name} | dataclasses.asdict(event.outcome)
        del body["name"]
    else:
        kind = type(event.event).__name__.lower()
        body = {"event": kind, "video": event.name, **dataclasses.asdict(event.event)}
    return json.dumps(body)


def forward(listen: Listener, jobs: int = 1) -> BatchListener:
    """A listener for batches that passes what people want to read to a listener for one run (a display).

    With several jobs the lines of different videos mix, so each carries its video's name.
    """
    several = jobs > 1

    def named(name: str, text: str) -> str:
        return f"{name}: {text}" if several else text

    def tell(event: BatchEvent) -> None:
        if isinstance(event, VideoStarted):
            listen(Note(f"[{event.number}/{event.total}] {event.name}"))
        elif isinstance(event, VideoEnded):
            outcome = event.outcome
            if outcome.state == "failed":
                hint = f" ({outcome.hint})" if outcome.hint else ""
                listen(Note(f"failed: {outcome.name}: {outcome.message}{hint}", "warning"))
            elif several:
                listen(Note(f"done: {outcome.name}, {outcome.action} in {duration(outcome.seconds)}"))
        elif isinstance(event.event, Note):
            listen(dataclasses.replace(event.event, text=named(event.name, event.event.text)))
        elif isinstance(event.event, Progress):
            listen(dataclasses.replace(event.event, phase=named(event.name, event.event.phase)))
        elif not several or not isinstance(event.event, Plan | Finished):
            listen(event.event)

    return tell


def parse_line(line: str) -> Event | dict[str, Any] | None:
    """An event from a line of ``--json`` output; an error as a dictionary; None for anything else."""
    try:
        body = json.loads(line)
    except json.JSONDecodeError:
        return None
    if not isinstance(body, dict):
        return None
    kind = body.pop("event", None)
    if kind == "error":
        return body
    if kind == "note":
        return Note(**body)
    if kind == "loaded":
        return Loaded(**body)
    if kind == "plan":
        return Plan(_pairs(body["rows"]), body["minutes"], tuple(MethodTime(**time) for time in body["times"]))
    if kind == "progress":
        return Progress(**(body | {"values": tuple((str(n), float(v)) for n, v in body["values"])}))
    if kind == "finished":
        return Finished(**(body | {"rows": _pairs(body["rows"])}))
    if kind == "written":
        return Written(**body)
    return None


def _pairs(rows: list[list[str]]) -> tuple[tuple[str, str], ...]:
    return tuple((label, value) for label, value in rows)
