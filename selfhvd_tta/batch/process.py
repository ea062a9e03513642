"""Runs one video in its own process: starts it, reads its events, ends it, and interprets how it ended."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any

from selfhvd_tta.batch.events import Outcome, parse_line
from selfhvd_tta.errors import ExitCode
from selfhvd_tta.events import Event, Finished, Note, Written

WORKER = (sys.executable, "-m", "selfhvd_tta.batch.worker")
GRACE_S = 30.0
ERROR_TAIL = 20_000
Tell = Callable[[Event], None]
Request = Mapping[str, Any]


class Processes:
    """The processes that are running; all of them can be ended at once, from another thread.

    Args:
        worker: command of the process for one video.
        environment: of each.
        gpus: as ``CUDA_VISIBLE_DEVICES`` has them, over which the processes are spread evenly; empty: left to them.
    """

    def __init__(self, worker: Sequence[str], environment: dict[str, str], gpus: Sequence[str] = ()) -> None:
        self.worker, self.environment = tuple(worker), environment
        self.gpus = dict.fromkeys(gpus, 0)
        self.on_gpu: dict[int, str] = {}
        self.lock = threading.Lock()
        self.running: list[subprocess.Popen[str]] = []
        self.stopped = False

    def work(self, name: str, request: Request, tell: Tell) -> Outcome:
        """Do one video from start to end.

        Args:
            name: of the video, for the outcome.
            request: what the worker reads, see ``batch/worker.py``; with ``video`` and ``output`` in any case.
            tell: gets its events.

        Returns:
            Its outcome; a failure is not raised.
        """
        started = time.monotonic()
        source, output = str(request["video"]), str(request["output"])

        def failed(message: str, hint: str, code: int) -> Outcome:
            seconds = time.monotonic() - started
            return Outcome(name, source, output, "failed", "", seconds, message, hint, exit_code=code)

        finished: Finished | None = None
        written = False
        error: dict[str, Any] | None = None
        with tempfile.TemporaryFile() as errors:
            try:
                process = self._start(request, errors)
            except OSError as problem:
                return failed(f"cannot be started: {problem}", "Free memory or disk space.", ExitCode.FAILED)
            assert process.stdout is not None
            try:
                for line in process.stdout:
                    event = parse_line(line)
                    if isinstance(event, dict):
                        error = event
                    elif event is not None:
                        finished = event if isinstance(event, Finished) else finished
                        written |= isinstance(event, Written)
                        tell(event)
                    elif line.strip():
                        tell(Note(line.strip()))
                code = process.wait()
            except BaseException:
                self.stop()
                raise
            self._forget(process)
            errors.seek(max(0, errors.seek(0, os.SEEK_END) - ERROR_TAIL))
            tail = errors.read().decode(errors="replace").strip()
        if finished is not None:
            action: str = finished.action
            if code != 0:
                # The result is in place; the report or comparison is not.
                trouble = str(error["message"]) if error is not None else _diagnosis(code, tail)[0]
                tell(Note(trouble, "warning"))
                action = f"{action}, but {trouble}"
            return Outcome(name, source, output, "done", action, finished.seconds)
        if written and code == 0:  # what was asked for is not a restored video
            return Outcome(name, source, output, "done", "", time.monotonic() - started)
        if error is not None:
            return failed(str(error["message"]), str(error["hint"]), int(error["exit_code"]))
        return failed(*_diagnosis(code, tail), ExitCode.FAILED)

    def _start(self, request: Request, errors: IO[bytes]) -> subprocess.Popen[str]:
        """Start a process in its own session: an interrupt at the terminal reaches the batch, which ends it once."""
        with self.lock:
            if self.stopped:
                raise OSError("the batch was stopped")
            gpu = min(self.gpus, key=lambda name: self.gpus[name]) if self.gpus else None
            environment = self.environment if gpu is None else self.environment | {"CUDA_VISIBLE_DEVICES": gpu}
            process = subprocess.Popen(
                self.worker,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                encoding="utf-8",
                errors="replace",
                env=environment,
                start_new_session=True,
            )
            self.running.append(process)
            if gpu is not None:
                self.gpus[gpu] += 1
                self.on_gpu[process.pid] = gpu
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended already, and its exit status says how
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
        return process

    def _forget(self, process: subprocess.Popen[str]) -> None:
        with self.lock:
            self.running.remove(process)
            if (gpu := self.on_gpu.pop(process.pid, None)) is not None:
                self.gpus[gpu] -= 1
            self._close(process)

    def stop(self) -> None:
        """Let all end cleanly (standard input closes); those that take longer than the grace period are killed."""
        with self.lock:
            self.stopped = True
            running = list(self.running)
            for process in running:
                self._close(process)
        deadline = time.monotonic() + GRACE_S
        try:
            for process in running:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.0, deadline - time.monotonic()))
        finally:  # also if the user interrupts the wait
            for process in running:
                if process.poll() is None:
                    process.kill()

    @staticmethod
    def _close(process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()


def shared_environment(jobs: int) -> dict[str, str]:
    """Concurrent processes share the cores instead of each starting a thread for every core."""
    environment = dict(os.environ)
    if jobs > 1:
        environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // jobs)))
    return environment


def gpus_to_share(jobs: int, device: str, listed: str | None, count: Callable[[], int]) -> tuple[str, ...]:
    """The GPUs of this machine over which to spread processes; empty where there is nothing to spread.

    Args:
        jobs: processes at the same time.
        device: what the settings say; one that is named by its number is left to the user.
        listed: ``CUDA_VISIBLE_DEVICES`` of this process; None if it is not set.
        count: how many devices there are.
    """
    if jobs == 1 or device not in ("auto", "cuda"):
        return ()
    names = tuple(str(index) for index in range(count())) if listed is None else tuple(filter(None, listed.split(",")))
    return names if len(names) > 1 else ()


def _diagnosis(code: int, tail: str) -> tuple[str, str]:
    """Message and hint for a process that ended without an event."""
    last = tail.splitlines()[-1] if tail else ""
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        if name == "SIGKILL":
            return (
                "its process was killed, probably because memory ran out",
                "Use fewer --jobs or a smaller --working-set and --window.",
            )
        return f"its process crashed ({name})", "The file may be damaged; convert it with another program first."
    if code == 0:
        return "its process ended without a result", "Run it alone with 'selfhvd-tta deblur' and --debug."
    return f"unexpected failure, {last or f'exit status {code}'}", "Run it alone with 'selfhvd-tta deblur' and --debug."
