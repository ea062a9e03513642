"""Runs the command line in processes of its own, as a user would."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
QUICK = ["--backbone", "estrnn:lite", "--flow", "dis:ultrafast", "--teachers", "1", "--offline", "--device", "cpu"]
FEW = ["--iters", "4", "--crop", "32", "--clip-length", "4"]
TIMEOUT_S = 280


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """One command to its end; the process is forked from one that has loaded the libraries, which saves seconds."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [str(a) for a in arguments]
    with tempfile.TemporaryDirectory() as folder:
        outputs = [Path(folder) / name for name in ("stdout", "stderr")]
        status = _forked({"arguments": command, "environment": environment, "outputs": [str(o) for o in outputs]})
        out, errors = (file.read_text() for file in outputs)
    return subprocess.CompletedProcess(command, status, out, errors)


@cache
def _launcher() -> subprocess.Popen[str]:
    """Ends with this process, as its input does."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.launcher"],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _forked(request: dict[str, object]) -> int:
    launcher = _launcher()
    assert launcher.stdin is not None
    assert launcher.stdout is not None
    launcher.stdin.write(json.dumps(request) + "\n")
    launcher.stdin.flush()
    stop = threading.Timer(TIMEOUT_S, os.kill, (int(launcher.stdout.readline()), signal.SIGKILL))
    stop.start()
    try:
        return int(launcher.stdout.readline())
    finally:
        stop.cancel()
