"""A budget of time while frames are blended: fewer sharp frames each where time runs short."""

from __future__ import annotations

import time
from collections.abc import Callable

from selfhvd_tta.events import Listener, Note


class Deadline:
    """Shares the time that is left among the frames that are left.

    Args:
        until: when the last frame has to be done, by ``clock``.
        frames: of the video.
        tell: gets one line when sharp frames are first left out.
        clock: seconds, monotonic.
    """

    def __init__(self, until: float, frames: int, tell: Listener, clock: Callable[[], float] = time.monotonic) -> None:
        self.until, self.frames, self.tell, self.clock = until, frames, tell, clock
        self._begun: float | None = None
        self._aligned = 0
        self._told = False

    def teachers(self, index: int, most: int) -> int:
        """How many sharp frames there is time for, 1 to ``most``, by what an alignment has taken so far.

        Args:
            index: of the frame that is next.
            most: how many are wanted.
        """
        now = self.clock()
        if self._begun is None or not self._aligned:
            self._begun = now
            return most
        each = (now - self._begun) / self._aligned
        affordable = max(1, int(max(0.0, self.until - now) / (self.frames - index) / max(each, 1e-9)))
        if affordable < most and not self._told:
            self._told = True
            self.tell(Note(f"behind the budget: from frame {index} on, fewer sharp frames are blended in", "warning"))
        return min(most, affordable)

    def count(self, aligned: int) -> None:
        """That many sharp frames were aligned to the frame that is done."""
        self._aligned += aligned
