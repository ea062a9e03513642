"""What an adaptation did: the losses of its steps, its checks of history and held-out frames, how it ended."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from selfhvd_tta.events import Progress
from selfhvd_tta.method.pace import Pace
from selfhvd_tta.method.scscm import HistoryCheck

LOST_STEPS = 3


@dataclass
class Record:
    """What an adaptation did.

    Attributes:
        steps: per step: number, stage and loss terms.
        checks: step and measurement of every comparison with the historical model.
        renewals: how often it was renewed.
        skipped: steps skipped because the loss was not finite.
        stopped: step at which three such steps in a row ended the adaptation; None if it ran to its end.
        coverage: mean mask of the labels over the blurry frames learned from, at the end of every refresh's time.
        held_out: error on frames kept out of the losses, at every refresh (with early stop).
        ended_early: step at which that error had stopped falling; None if it did not.
    """

    steps: list[dict[str, float]] = field(default_factory=list)
    checks: list[tuple[int, HistoryCheck]] = field(default_factory=list)
    renewals: int = 0
    skipped: int = 0
    stopped: int | None = None
    coverage: list[float] = field(default_factory=list)
    held_out: list[float] = field(default_factory=list)
    ended_early: int | None = None


class Losses:
    """Losses of steps whose values are still on the device; reading them makes the host wait for it.

    Attributes:
        waiting: how many steps have not been read.
        lost: steps in a row, up to the last one read, that were skipped because their loss was not finite.
    """

    def __init__(self, lost: int = 0) -> None:
        self.lost = lost
        self._unread: list[tuple[int, bool, tuple[str, ...], Tensor]] = []

    @property
    def waiting(self) -> int:
        return len(self._unread)

    @property
    def hopeless(self) -> bool:
        """Whether too many steps in a row were lost to continue."""
        return self.lost >= LOST_STEPS

    def add(self, step: int, stage2: bool, names: tuple[str, ...], values: Tensor) -> None:
        """Store those of one step.

        Args:
            step: its number.
            stage2: it belongs to stage 2.
            names: of the terms, n of them.
            values: (n + 1,) the terms, and whether the step was taken (1) or skipped (0).
        """
        self._unread.append((step, stage2, names, values))

    def read(self, record: Record, pace: Pace) -> list[Progress]:
        """Move them into the record.

        Returns:
            One progress event for each step that was taken.
        """
        if not self._unread:
            return []
        table = torch.stack([values for *_, values in self._unread]).tolist()
        events: list[Progress] = []
        for (step, stage2, names, _), row in zip(self._unread, table, strict=True):
            *numbers, done = row
            if self.hopeless:
                break
            if not done:
                record.skipped += 1
                self.lost += 1
                continue
            self.lost = 0
            values = dict(zip(names, numbers, strict=True))
            record.steps.append({"step": float(step), "stage": 2.0 if stage2 else 1.0, **values})
            events.append(pace.progress(step, tuple(values.items())))
        self._unread.clear()
        return events
