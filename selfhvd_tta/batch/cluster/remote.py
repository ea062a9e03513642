"""The part of a batch that runs on the nodes of a Ray cluster: one video in its own process, and its events."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import selfhvd_tta
from selfhvd_tta.batch.cluster.depot import DepotClient, Mirror
from selfhvd_tta.batch.events import Outcome
from selfhvd_tta.batch.process import GRACE_S, WORKER, Processes, Request, Tell
from selfhvd_tta.events import Event, Note, Progress
from selfhvd_tta.run.job import job_folder

POLL_S = 0.3
KILL_WITH_PARENT = "SELFHVD_TTA_KILL_WITH_PARENT"


class EventActor:
    """Collects the events of the videos until the driver fetches them. Runs as a Ray actor; progress is thinned out."""

    def __init__(self) -> None:
        self.events: dict[str, list[Event]] = {}
        self.attempts: dict[str, int] = {}
        self.at_work: set[str] = set()

    def begin(self, key: str, where: str) -> int:
        """Register the start of an attempt; returns its number, from 1."""
        self.attempts[key] = self.attempts.get(key, 0) + 1
        self.at_work.add(key)
        number = self.attempts[key]
        text = (
            f"running on {where}" if number == 1 else f"its worker was lost: continuing on {where} (attempt {number})"
        )
        self.tell(key, [Note(text, "info" if number == 1 else "warning")])
        return number

    def end(self, key: str) -> None:
        """Register the end of an attempt and its process."""
        self.at_work.discard(key)

    def busy(self) -> bool:
        """Whether any attempt is still running."""
        return bool(self.at_work)

    def tell(self, key: str, events: list[Event]) -> None:
        """Store events; only the latest of each phase's progress."""
        kept = self.events.setdefault(key, [])
        for event in events:
            last = kept[-1] if kept else None
            if isinstance(event, Progress) and isinstance(last, Progress) and last.phase == event.phase:
                kept[-1] = event
            else:
                kept.append(event)

    def drain(self, key: str) -> list[Event]:
        """Events stored since the last call."""
        return self.events.pop(key, [])


def video(name: str, key: str, request: dict[str, Any], hub: Any, depot: Any, worker: Any, version: str) -> Outcome:
    """The task: one video on this node, in a process of its own."""
    import ray

    # What a script starts in the background ignores SIGINT: Ray and its workers too, so no cancel would reach them.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        here = f"{ray.util.get_node_ip_address()}, process {os.getpid()}"
        attempt = ray.get(hub.begin.remote(key, here))
        try:
            if selfhvd_tta.__version__ != version:
                message = f"{here} has selfhvd-tta {selfhvd_tta.__version__}, the batch {version}"
                hint = "Install the same version on every node."
                return Outcome(name, request["video"], request["output"], "failed", "", 0.0, message, hint, exit_code=2)
            return _attempt(name, request, Link(key, hub, depot), worker, attempt)
        finally:
            hub.end.remote(key)
    finally:
        signal.signal(signal.SIGINT, before or signal.SIG_DFL)


@dataclass(frozen=True)
class Link:
    """How the task of one video reaches the driver.

    Attributes:
        key: of the video.
        hub: handle of the :class:`EventActor`.
        depot: handle of the depot, through which files travel; None if all nodes see the folders.
    """

    key: str
    hub: Any
    depot: Any


def _attempt(name: str, request: dict[str, Any], link: Link, worker: Any, attempt: int) -> Outcome:
    import ray

    output, depot = Path(request["output"]), link.depot
    if attempt > 1 and depot is None and output.exists() and not request["settings"]["output"]["overwrite"]:
        # It did not exist when the batch began, and appears only when complete: the lost attempt had finished.
        return Outcome(name, request["video"], request["output"], "done", "finished by a worker that was lost then")
    with contextlib.ExitStack() as stack:
        teller = stack.enter_context(Teller(link.hub, link.key))
        if depot is not None:
            client = DepotClient(lambda method, *args: ray.get(getattr(depot, method).remote(*args)), link.key)
            place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="selfhvd-tta-")))
            request = _localised(request, place)
            client.fetch(f"in/{Path(request['video']).name}", Path(request["video"]))
            output = Path(request["output"])
            output.parent.mkdir()
            mirror = Mirror(client, job_folder(output))
            if attempt > 1:
                mirror.restore()
            stack.enter_context(mirror)
        environment = dict(os.environ) | {KILL_WITH_PARENT: "1"}
        # The process must find the package that this one found.
        home = str(Path(selfhvd_tta.__file__).parent.parent)
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [home, environment.get("PYTHONPATH", "")]))
        processes = Processes(worker or WORKER, environment)
        outcome = _interruptible(processes, name, request, teller)
        if depot is not None and outcome.state == "done":
            for path in sorted(output.parent.iterdir()):
                if path.is_file() and not path.name.startswith("."):
                    client.send(path, f"out/{path.name}")
    return outcome


def _interruptible(processes: Processes, name: str, request: Request, tell: Tell) -> Outcome:
    """Work, and end the process cleanly when Ray cancels the task; a thread that waits for output would not see it."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(processes.work, name, request, tell)
        try:
            while not future.done():
                wait([future], timeout=POLL_S)
        except BaseException:
            # Ray may cancel again every other second until the task has ended; that must not interrupt the clean end.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            processes.stop()
            wait([future], timeout=GRACE_S)
            raise
    return future.result()


class Teller:
    """Hands events to the hub a few times a second, and waits while the hub is behind. A context manager."""

    def __init__(self, hub: Any, key: str) -> None:
        self.hub, self.key = hub, key
        self.waiting: list[Event] = []
        self.lock = threading.Lock()
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def __call__(self, event: Event) -> None:
        """Queue one event."""
        with self.lock:
            self.waiting.append(event)

    def __enter__(self) -> Teller:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.thread.join()

    def _run(self) -> None:
        import ray

        last = False
        while not last:
            last = self.ended.wait(POLL_S)
            with self.lock:
                events, self.waiting = self.waiting, []
            if events:
                ray.get(self.hub.tell.remote(self.key, events))


def _localised(request: dict[str, Any], place: Path) -> dict[str, Any]:
    """The request with paths below a folder of this node."""
    video, output = Path(request["video"]), Path(request["output"])
    local = request | {"video": str(place / "in" / video.name), "output": str(place / "out" / output.name)}
    if local.get("report"):
        local["report"] = str(place / "out" / Path(local["report"]).name)
    return local


def sees(token: str, paths: list[str]) -> bool:
    path = Path(token)
    return path.exists() and path.read_text() == path.name and all(map(os.path.exists, paths))
