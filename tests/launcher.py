"""Started by tests/commands.py: loads the heavy libraries once and forks a process of its own for every command.

A request is one line of JSON on the standard input; the answer is the process id, then the exit status.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import runpy
import signal
import sys
import threading
import traceback
from typing import Any

import av  # noqa: F401
import cv2  # noqa: F401
import torch  # noqa: F401


def execute(request: dict[str, Any]) -> int:
    """As ``python -m selfhvd_tta``, with its outputs in files; returns the exit status."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for stream, name in enumerate(request["outputs"], 1):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT), stream)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = ["selfhvd_tta", *request["arguments"]]
    try:
        runpy.run_module("selfhvd_tta", run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def finish(status: int) -> None:
    """Ends the process without taking the libraries apart, which costs a second."""
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def main() -> None:
    gc.freeze()
    for line in iter(sys.stdin.readline, ""):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                status = execute(json.loads(line))
            except Exception:  # noqa: BLE001 (printed, as Python does)
                traceback.print_exc()
            finish(status)
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
