"""Working through a batch: processes, what they tell, what is recorded."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import IO, Any

from filelock import FileLock, Timeout

from selfhvd_tta.batch.events import (
    BatchEvent,
    BatchListener,
    Outcome,
    VideoEnded,
    VideoEvent,
    VideoStarted,
    parse_line,
)
from selfhvd_tta.batch.ledger import Entry, Ledger, Stamp, digest
from selfhvd_tta.batch.plan import BatchPlan, Task
from selfhvd_tta.errors import BatchError, DiskError, ExitCode, Interrupted, UsageError
from selfhvd_tta.events import Finished, Note

WORKER = (sys.executable, "-m", "selfhvd_tta.batch.worker")
GRACE_S = 30.0
ERROR_TAIL = 20_000


@dataclass(frozen=True)
class Summary:
    """What became of all videos, in the order of the plan."""

    outcomes: tuple[Outcome, ...]

    def count(self, state: str) -> int:
        """How many are ``done``, ``skipped`` or ``failed``."""
        return sum(o.state == state for o in self.outcomes)

    def rows(self) -> list[tuple[str, str, str]]:
        """Video, state, details, ready to be shown."""
        return [(o.name, o.state, o.message if o.state == "failed" else o.action) for o in self.outcomes]

    def check(self) -> None:
        """Raise a :class:`BatchError` (exit status 7) if any video failed."""
        failed = self.count("failed")
        if failed:
            raise BatchError(
                f"{failed} of {len(self.outcomes)} videos failed; the others are complete",
                "Repair what the lines above say and run the same command again: finished ones are not done twice.",
            )


def run(plan: BatchPlan, listen: BatchListener, jobs: int = 1, worker: Sequence[str] = WORKER) -> Summary:
    """Do what a plan says. Videos that fail are part of the summary, they do not end the batch.

    Args:
        plan: of :func:`make_plan`.
        listen: gets everything that happens, in the caller's thread.
        jobs: videos at the same time. They share the device and its memory.
        worker: command of the process for one video.

    Returns:
        The outcome of every video. ``batch.json`` is rewritten after each one.

    Raises:
        Interrupted: the user stopped it: the running videos are not written, the finished ones are recorded.
        UsageError: another batch is writing into the same folder, or ``jobs`` is not positive.
        DiskError: the output folder or its ``batch.json`` cannot be written.
    """
    if jobs < 1:
        raise UsageError(f"--jobs is {jobs}, but it must be at least 1")
    try:
        plan.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DiskError(f"{plan.folder}: cannot be created: {error.strerror}", "Choose another folder.") from error
    lock = FileLock(plan.folder / ".batch.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise UsageError(
            f"{plan.folder}: another batch is writing there", "Wait for it, or choose another folder."
        ) from error
    except OSError as error:
        raise DiskError(f"{plan.folder}: cannot be written: {error.strerror}", "Choose another folder.") from error
    try:
        return _Batch(plan, listen, jobs, worker).run()
    finally:
        lock.release()


class _Batch:
    """One run: threads wait for processes and pass on what they tell; the caller's thread listens and records."""

    def __init__(self, plan: BatchPlan, listen: BatchListener, jobs: int, worker: Sequence[str]) -> None:
        self.plan, self.listen, self.jobs = plan, listen, jobs
        self.todo = [task for task in plan.tasks if task.state == "to do"]
        self.ledger = Ledger(plan.folder)
        self.outcomes = {t.key: _settled(t) for t in plan.tasks if t.state != "to do"}
        self.queue: queue.SimpleQueue[BatchEvent | Future[Entry]] = queue.SimpleQueue()
        self.processes = _Processes(worker, _environment(jobs))

    def run(self) -> Summary:
        for outcome in self.outcomes.values():
            if outcome.state == "failed":
                self.listen(VideoEnded(outcome))
        pool = ThreadPoolExecutor(self.jobs)
        futures = {pool.submit(self._one, number, task): task for number, task in enumerate(self.todo, 1)}
        open_ones = set(futures)
        for future in futures:
            future.add_done_callback(self.queue.put)
        try:
            while open_ones:
                # A wait without end cannot be interrupted on every system.
                with contextlib.suppress(queue.Empty):
                    item = self.queue.get(timeout=0.5)
                    if isinstance(item, Future):
                        self._record(futures[item], item.result())
                        open_ones.discard(item)
                    else:
                        self.listen(item)
        except KeyboardInterrupt as error:
            self._stop(pool, futures)
            done = sum(o.state == "done" for o in self.outcomes.values())
            raise Interrupted(
                f"interrupted: {done} of {len(self.todo)} videos were finished",
                "Run the same command again to do the rest.",
            ) from error
        except BaseException:
            self._stop(pool, futures)
            raise
        pool.shutdown()
        return Summary(tuple(self.outcomes[task.key] for task in self.plan.tasks))

    def _stop(self, pool: ThreadPoolExecutor, futures: dict[Future[Entry], Task]) -> None:
        """End the processes and record what was finished until then."""
        pool.shutdown(wait=False, cancel_futures=True)
        self.processes.stop()
        pool.shutdown()
        for future, task in futures.items():
            with contextlib.suppress(CancelledError):
                entry = future.result()
                if entry.outcome.state == "done" and task.key not in self.outcomes:
                    self._record(task, entry, tell=False)

    def _record(self, task: Task, entry: Entry, tell: bool = True) -> None:
        self.ledger.entries[task.key] = entry
        self.ledger.write()
        self.outcomes[task.key] = entry.outcome
        if tell:
            self.listen(VideoEnded(entry.outcome))

    def _one(self, number: int, task: Task) -> Entry:
        """In a thread: one video from start to end."""
        self.queue.put(VideoStarted(task.name, number, len(self.todo)))
        source = Stamp.of(task.source) or Stamp(-1, -1)
        outcome = self._process(task)
        output = Stamp.of(task.output) if outcome.state == "done" else None
        return Entry(source, digest(self.plan.settings), output, outcome)

    def _process(self, task: Task) -> Outcome:
        started = time.monotonic()

        def failed(message: str, hint: str, code: int) -> Outcome:
            seconds = time.monotonic() - started
            return Outcome(
                task.name, str(task.source), str(task.output), "failed", "", seconds, message, hint, exit_code=code
            )

        finished: Finished | None = None
        error: dict[str, Any] | None = None
        with tempfile.TemporaryFile() as errors:
            try:
                task.output.parent.mkdir(parents=True, exist_ok=True)
                process = self.processes.start(self.plan.request(task), errors)
            except OSError as problem:
                return failed(f"cannot be started: {problem}", "Free memory or disk space.", ExitCode.FAILED)
            assert process.stdout is not None
            for line in process.stdout:
                event = parse_line(line)
                if isinstance(event, dict):
                    error = event
                elif event is not None:
                    finished = event if isinstance(event, Finished) else finished
                    self.queue.put(VideoEvent(task.name, event))
                elif line.strip():
                    self.queue.put(VideoEvent(task.name, Note(line.strip())))
            code = process.wait()
            self.processes.forget(process)
            errors.seek(max(0, errors.seek(0, os.SEEK_END) - ERROR_TAIL))
            tail = errors.read().decode(errors="replace").strip()
        if code == 0 and finished is not None:
            action = dict(finished.rows).get("done", "done")
            return Outcome(task.name, str(task.source), str(task.output), "done", action, finished.seconds)
        if finished is not None:
            # The result is in place; what was to be made beside it is not.
            trouble = str(error["message"]) if error is not None else _diagnosis(code, tail)[0]
            self.queue.put(VideoEvent(task.name, Note(trouble, "warning")))
            action = f"{dict(finished.rows).get('done', 'done')}, but {trouble}"
            return Outcome(task.name, str(task.source), str(task.output), "done", action, finished.seconds)
        if error is not None:
            return failed(str(error["message"]), str(error["hint"]), int(error["exit_code"]))
        return failed(*_diagnosis(code, tail), ExitCode.FAILED)


class _Processes:
    """The processes that run now; all of them can be ended at once, from another thread."""

    def __init__(self, worker: Sequence[str], environment: dict[str, str]) -> None:
        self.worker, self.environment = tuple(worker), environment
        self.lock = threading.Lock()
        self.running: list[subprocess.Popen[str]] = []
        self.stopped = False

    def start(self, request: dict[str, object], errors: IO[bytes]) -> subprocess.Popen[str]:
        """Start one, in a session of its own: an interrupt at the terminal reaches the batch, which ends it once."""
        with self.lock:
            if self.stopped:
                raise OSError("the batch was stopped")
            process = subprocess.Popen(
                self.worker,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                encoding="utf-8",
                errors="replace",
                env=self.environment,
                start_new_session=True,
            )
            self.running.append(process)
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it is dead already, and its exit status will tell
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
        return process

    def forget(self, process: subprocess.Popen[str]) -> None:
        """One has ended."""
        with self.lock:
            self.running.remove(process)
            self._close(process)

    def stop(self) -> None:
        """Let all end cleanly (standard input closes); whoever takes longer than the grace is killed."""
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
        finally:  # also when the user interrupts the waiting
            for process in running:
                if process.poll() is None:
                    process.kill()

    @staticmethod
    def _close(process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()


def _settled(task: Task) -> Outcome:
    """Outcome of a video that needs no process."""
    source, output = str(task.source), str(task.output)
    if task.state == "finished":
        return Outcome(task.name, source, output, "skipped", "finished by an earlier run")
    hint = "Use --overwrite to replace it, or choose another folder."
    return Outcome(task.name, source, output, "failed", message=task.why, hint=hint, exit_code=ExitCode.USAGE)


def _environment(jobs: int) -> dict[str, str]:
    """Processes side by side share the processors instead of each starting a thread for every one."""
    environment = dict(os.environ)
    if jobs > 1:
        environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // jobs)))
    return environment


def _diagnosis(code: int, tail: str) -> tuple[str, str]:
    """Message and hint for a process that ended without a word."""
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
