"""Ending a run from another thread."""

from __future__ import annotations

import threading

from selfhvd_tta.errors import Interrupted


class CancelToken:
    """Passed to :func:`selfhvd_tta.deblur`, lets another thread (a window's button, a server) end the run.

    The run ends at its next event: within one step of adaptation, one restored frame or ten scanned ones. It raises
    :class:`selfhvd_tta.Interrupted`, and nothing partial is left at the output.

    Args:
        word: what the error then says has happened.
    """

    def __init__(self, word: str = "cancelled") -> None:
        self._word = word
        self._wanted = threading.Event()

    def cancel(self) -> None:
        """Ask the run to end; may be called from any thread, more than once, and before the run begins."""
        self._wanted.set()

    @property
    def cancelled(self) -> bool:
        """Whether :meth:`cancel` was called."""
        return self._wanted.is_set()

    def check(self) -> None:
        """Raise :class:`Interrupted` if :meth:`cancel` was called."""
        if self._wanted.is_set():
            raise Interrupted("the output was not written", word=self._word)
