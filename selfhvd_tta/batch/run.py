"""Works through a batch: runs processes, passes on their events, records outcomes."""

from __future__ import annotations

import contextlib
import os
import queue
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from filelock import FileLock, Timeout

from selfhvd_tta.batch.events import BatchEvent, BatchListener, Outcome, VideoEnded, VideoEvent, VideoStarted
from selfhvd_tta.batch.ledger import Entry, Ledger, Stamp, digest
from selfhvd_tta.batch.plan import BatchPlan, Task
from selfhvd_tta.batch.process import WORKER, Processes, Request, Tell, gpus_to_share, shared_environment
from selfhvd_tta.errors import BatchError, DiskError, ExitCode, Interrupted, UsageError


@dataclass(frozen=True)
class Summary:
    """The outcomes of all videos, in the order of the plan."""

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
                "Fix what the lines above report and run the same command again; finished videos are skipped.",
            )


class Crew(Protocol):
    """Does videos, several at the same time from several threads: processes on this machine, or a cluster."""

    def work(self, name: str, request: Request, tell: Tell) -> Outcome:
        """Do one video; a failure is an outcome, not an exception."""

    def stop(self) -> None:
        """End all running videos cleanly."""


def run(
    plan: BatchPlan, listen: BatchListener, jobs: int = 1, worker: Sequence[str] = WORKER, crew: Crew | None = None
) -> Summary:
    """Carry out a plan. Videos that fail become part of the summary; they do not end the batch.

    Args:
        plan: of :func:`make_plan`.
        listen: gets everything that happens, in the caller's thread.
        jobs: videos at the same time. They share the processors, and are spread over the GPUs of this machine.
        worker: command of the process for one video.
        crew: who does the videos; None for processes on this machine.

    Returns:
        The outcome of every video. ``batch.json`` is rewritten after each one.

    Raises:
        Interrupted: the user stopped it: the running videos are not written, the finished ones are recorded.
        UsageError, DeviceError, WeightsError: no video could be run with these settings.
        UsageError: another batch is writing into the same folder, or ``jobs`` is not positive.
        DiskError: the output folder or its ``batch.json`` cannot be written.
    """
    if jobs < 1:
        raise UsageError(f"--jobs is {jobs}, but it must be at least 1")
    if crew is None and any(task.state == "to do" for task in plan.tasks):
        from selfhvd_tta.run.checks import check_names

        check_names(plan.settings)  # one mistyped name would fail every video, and be recorded with each
    try:
        plan.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DiskError(f"{plan.folder}: cannot be created: {error.strerror}", "Choose another folder.") from error
    lock = FileLock(plan.folder / ".batch.lock")
    if Path(lock.lock_file).is_symlink():  # opening it would empty what it points to
        raise UsageError(
            f"{lock.lock_file}: is a link, which no batch makes", f"Remove it first: rm '{lock.lock_file}'"
        )
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise UsageError(
            f"{plan.folder}: another batch is writing there", "Wait for it, or choose another folder."
        ) from error
    except OSError as error:
        raise DiskError(f"{plan.folder}: cannot be written: {error.strerror}", "Choose another folder.") from error
    try:
        return _Batch(plan, listen, jobs, crew or _processes(plan, worker, jobs)).run()
    finally:
        lock.release()


def _processes(plan: BatchPlan, worker: Sequence[str], jobs: int) -> Processes:
    """Processes that share the processors, and the GPUs if there are several."""

    def count() -> int:
        import torch

        return torch.cuda.device_count()

    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = gpus_to_share(jobs, plan.settings.runtime.device, listed, count)
    return Processes(worker, shared_environment(jobs), gpus)


class _Batch:
    """One run: threads wait for processes and pass on their events; the caller's thread listens and records."""

    def __init__(self, plan: BatchPlan, listen: BatchListener, jobs: int, crew: Crew) -> None:
        self.plan, self.listen, self.jobs = plan, listen, jobs
        self.todo = [task for task in plan.tasks if task.state == "to do"]
        self.ledger = Ledger(plan.folder)
        self.outcomes = {t.key: _settled(t) for t in plan.tasks if t.state != "to do"}
        self.queue: queue.SimpleQueue[BatchEvent | Future[Entry]] = queue.SimpleQueue()
        self.crew = crew

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
                # A wait without a timeout cannot be interrupted on every system.
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
        """End the processes and record what they have finished."""
        pool.shutdown(wait=False, cancel_futures=True)
        self.crew.stop()
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
        try:
            task.output.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            outcome = Outcome(
                task.name,
                str(task.source),
                str(task.output),
                "failed",
                message=f"{task.output.parent}: cannot be created: {error.strerror}",
                exit_code=ExitCode.DISK,
            )
        else:
            request = self.plan.request(task)
            outcome = self.crew.work(task.name, request, lambda event: self.queue.put(VideoEvent(task.name, event)))
        output = Stamp.of(task.output) if outcome.state == "done" else None
        return Entry(source, digest(self.plan.settings, outcome.action), output, outcome)


def _settled(task: Task) -> Outcome:
    """Outcome of a video for which no process is needed."""
    source, output = str(task.source), str(task.output)
    if task.state == "finished":
        return Outcome(task.name, source, output, "skipped", "finished by an earlier run")
    hint = "Use --overwrite to replace it, or choose another folder."
    return Outcome(task.name, source, output, "failed", message=task.why, hint=hint, exit_code=ExitCode.USAGE)
