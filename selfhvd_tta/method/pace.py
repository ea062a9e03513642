"""How far along an adaptation is: counted in steps, or in seconds if there is a time budget."""

from __future__ import annotations

import time
from collections.abc import Callable

from selfhvd_tta.events import Progress

STAGES = ("stage 1", "stage 2")


class Pace:
    """Decides when stage 2 begins, when the adaptation ends, and how far the learning rate has fallen.

    Args:
        steps: planned steps of both stages; all of them are done unless a time is given.
        stage1: share of stage 1.
        until: when it has to end, by ``clock``, after as many steps as fit; None: when the steps are done.
        clock: seconds, monotonic.
        phases: name of each stage in progress events; with one name, there is one stage.
    """

    def __init__(
        self,
        steps: int,
        stage1: float,
        until: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        phases: tuple[str, ...] = STAGES,
    ) -> None:
        if len(phases) == 1:
            stage1 = 1.0
        self.phases = phases
        self.steps = steps
        self.stage1_steps = round(steps * stage1)
        self.stage1 = stage1
        self.until = until
        self.clock = clock
        self.begun = clock()

    def begin(self) -> None:
        """Start the clock."""
        self.begun = self.clock()

    def resume(self, elapsed: float) -> None:
        """Continue an adaptation that was interrupted after ``elapsed`` seconds, which count against a time budget."""
        self.begun = self.clock() - elapsed
        if self.until is not None:
            self.until -= elapsed

    def over(self, step: int) -> bool:
        """Whether the adaptation ends before step number ``step``; with a time limit, never before the first."""
        return step >= self.steps if self.until is None else step > 0 and self.clock() >= self.until

    def second_stage(self, step: int) -> bool:
        """Whether that step belongs to stage 2."""
        return step >= self.stage1_steps if self.until is None else self._elapsed() >= self.stage1

    def position(self, step: int) -> float:
        """Position on the curve of the learning rate: 0 at the first step, 1 at the last."""
        return step / max(1, self.steps - 1) if self.until is None else self._elapsed()

    def allows(self, seconds: float) -> bool:
        """Whether to start something that takes ``seconds``: half of the remaining time has to be left to use it."""
        return self.until is None or self.clock() + 2 * seconds <= self.until

    def progress(self, step: int, values: tuple[tuple[str, float], ...]) -> Progress:
        """The progress event for that step."""
        stage2 = self.second_stage(step)
        phase = self.phases[-1 if stage2 else 0]
        if self.until is None:
            first, last = (self.stage1_steps, self.steps) if stage2 else (0, self.stage1_steps)
            return Progress(phase, step + 1 - first, last - first, "steps", values)
        whole = self.until - self.begun
        first_s, last_s = (self.stage1 * whole, whole) if stage2 else (0.0, self.stage1 * whole)
        done = min(last_s, self._elapsed() * whole) - first_s
        return Progress(phase, int(done), int(last_s - first_s), "seconds", values)

    def _elapsed(self) -> float:
        assert self.until is not None
        return min(1.0, (self.clock() - self.begun) / max(1e-6, self.until - self.begun))
