"""Ctrl-C: once, the run ends at its next safe point; twice, at once; a third time, without cleaning up."""

from __future__ import annotations

import os
import signal
from types import FrameType, TracebackType
from typing import Any

from selfhvd_tta.run.cancelling import CancelToken

NOTICE = b"\nstopping at the next safe point; Ctrl-C once more stops at once\n"


class Interruption:
    """Watches SIGINT and SIGTERM while it is entered; the first one cancels ``token``.

    A signal that the process was started to ignore (``nohup``) stays ignored.

    Args:
        quiet: do not acknowledge the signal on standard error.
    """

    def __init__(self, quiet: bool = False) -> None:
        self.token = CancelToken("interrupted")
        self.quiet = quiet
        self.count = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) != signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._interrupt)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        if self.count == 1:
            self.token.cancel()
            if not self.quiet:
                # Not with print, in which the signal may have arrived.
                os.write(2, NOTICE)
        elif self.count == 2:
            raise KeyboardInterrupt
        else:
            os._exit(130)
