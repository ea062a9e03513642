"""Listening to a run: its plan, its losses, and where the time went."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from selfhvd_tta.events import Event, Finished, Listener, Loaded, Note, Plan, Progress, ignore


@dataclass
class RunLog:
    """What was reported during one run.

    Attributes:
        plan: label and value of the plan's rows.
        planned_minutes: estimate of the plan; None if there was none.
        weights: that took part.
        summary: label and value of the rows at the end.
        notes: text and level of every note.
        seconds: time spent in each phase; what happens before an event counts for its phase.
        losses: per stage and loss term the steps (counted through both stages) and values.
        total: seconds of the whole run.
    """

    plan: dict[str, str] = field(default_factory=dict)
    planned_minutes: float | None = None
    weights: list[Loaded] = field(default_factory=list)
    summary: dict[str, str] = field(default_factory=dict)
    notes: list[tuple[str, str]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    losses: dict[str, dict[str, tuple[list[int], list[float]]]] = field(default_factory=dict)
    total: float = 0.0


class Recorder:
    """A listener that keeps a :class:`RunLog` and passes everything on.

    Args:
        listen: gets every event as well.
    """

    def __init__(self, listen: Listener = ignore) -> None:
        self.listen = listen
        self.log = RunLog()
        self._last = time.monotonic()
        self._steps = 0
        self._offset = 0

    def __call__(self, event: Event) -> None:
        """Record one event and pass it on."""
        now = time.monotonic()
        if isinstance(event, Progress):
            self.log.seconds[event.phase] = self.log.seconds.get(event.phase, 0.0) + now - self._last
            if event.values:
                self._note_values(event)
        elif isinstance(event, Plan):
            self.log.seconds["preparation"] = self.log.seconds.get("preparation", 0.0) + now - self._last
            self.log.plan |= dict(event.rows)
            self.log.planned_minutes = event.minutes
        elif isinstance(event, Loaded):
            self.log.weights.append(event)
        elif isinstance(event, Note):
            self.log.notes.append((event.text, event.level))
        elif isinstance(event, Finished):
            self.log.seconds["finishing"] = self.log.seconds.get("finishing", 0.0) + now - self._last
            self.log.summary |= dict(event.rows)
            self.log.total = event.seconds
        if not isinstance(event, Note):
            self._last = now
        self.listen(event)

    def _note_values(self, event: Progress) -> None:
        if event.phase not in self.log.losses:
            self._offset = self._steps
            self.log.losses[event.phase] = {}
        step = self._offset + event.done
        self._steps = max(self._steps, step)
        terms = self.log.losses[event.phase]
        for name, value in event.values:
            steps, values = terms.setdefault(name, ([], []))
            steps.append(step)
            values.append(value)
