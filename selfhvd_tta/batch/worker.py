"""One video in a process of its own: ``python -m selfhvd_tta.batch.worker``.

The request is one line of JSON on standard input: ``video``, ``output``, ``settings``, ``report`` (path or null) and
``compare`` (layout or null). Events and an error leave as the
lines of ``selfhvd-tta deblur --json``, the exit status is the same too. Closing standard input interrupts the work, so
it ends with its batch however that ends.
"""

from __future__ import annotations

import _thread
import ctypes
import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from selfhvd_tta.config import from_table
from selfhvd_tta.console import Display, show_error
from selfhvd_tta.errors import Interrupted, SelfHVDError
from selfhvd_tta.events import Listener
from selfhvd_tta.run.cancelling import CancelToken
from selfhvd_tta.run.interruption import Interruption

Work = Callable[[dict[str, Any], Listener, CancelToken], None]
"""``work(request, listen, cancel)``."""
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> int:
    """Carry out the request on standard input; returns the exit status."""
    return serve(_deblur)


def serve(work: Work) -> int:
    """Carry out one request.

    Args:
        work: does it.

    Returns:
        The exit status. Anything but a :class:`SelfHVDError` ends in a traceback, which the parent collects.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    _end_with_a_killed_parent()
    error: SelfHVDError
    try:
        request = json.loads(_read_line())
        threading.Thread(target=_end_with_parent, daemon=True).start()
        with Interruption(quiet=True) as interruption, Display("json") as display:
            work(request, display, interruption.token)
        return 0
    except KeyboardInterrupt:
        error = Interrupted("the output was not written")
    except SelfHVDError as known:
        error = known
    show_error(error, json_lines=True)
    return int(error.exit_code)


def _deblur(request: dict[str, Any], listen: Listener, cancel: CancelToken) -> None:
    settings = from_table(request["settings"])
    from selfhvd_tta.extras import Extras, deblur_with

    extras = Extras(None if request["report"] is None else Path(request["report"]), request["compare"])
    deblur_with(request["video"], request["output"], settings, extras, listen, cancel)


def _end_with_a_killed_parent() -> None:
    """In a cluster, a killed worker must not leave a process behind that works on what another worker takes over."""
    if os.environ.get("SELFHVD_TTA_KILL_WITH_PARENT") and sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _read_line() -> bytes:
    """Reads the file descriptor: a buffered reader would still be locked by the waiting thread when Python exits."""
    line = b""
    while not line.endswith(b"\n"):
        block = os.read(0, 65536)
        if not block:
            raise KeyboardInterrupt
        line += block
    return line


def _end_with_parent() -> None:
    while os.read(0, 1):
        pass
    _thread.interrupt_main(signal.SIGTERM)


def _interrupt(signum: int, frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
