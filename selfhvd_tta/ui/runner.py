"""Does the steps of all projects, each in a process of its own: one restoration and one quick step at a time."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from selfhvd_tta.batch.events import Outcome
from selfhvd_tta.batch.process import WORKER, Processes, shared_environment
from selfhvd_tta.console import JobClock
from selfhvd_tta.errors import ExitCode
from selfhvd_tta.events import Event, Note
from selfhvd_tta.settings import Quality
from selfhvd_tta.ui.projects import Kind, Project, Shelf

UI_WORKER = (WORKER[0], "-m", "selfhvd_tta.ui.worker")
# What each of the two threads does: nobody waits for a look because somebody else's video is being restored.
LANES: tuple[tuple[Kind, ...], ...] = (("look", "preview"), ("restore",))


@dataclass
class Running:
    """A step that is being done.

    Attributes:
        processes: of it, to end it.
        clock: how far it has come.
        notes: warnings so far.
        cancelled: the visitor does not want it any more.
    """

    processes: Processes
    clock: JobClock = field(default_factory=JobClock)
    notes: list[str] = field(default_factory=list)
    cancelled: bool = False


class Runner:
    """Takes waiting steps in the order in which they were asked for.

    What a server that ended was doing waits again when the next one begins; a restoration then resumes.

    Args:
        shelf: the projects.
        worker: command of the process for one step.
    """

    def __init__(self, shelf: Shelf, worker: Sequence[str] = UI_WORKER) -> None:
        self.shelf, self.worker = shelf, tuple(worker)
        self.changed = threading.Condition()
        self.running: dict[tuple[str, Kind], Running] = {}
        self.closed = False
        for project in shelf.all():
            for kind, step in project.steps.items():
                if step.state == "running":
                    shelf.update(project.id, kind, state="waiting")
        self.threads = [threading.Thread(target=self._lane, args=(kinds,), daemon=True) for kinds in LANES]
        for thread in self.threads:
            thread.start()

    def submit(self, project: Project, kind: Kind, quality: Quality = "balanced") -> None:
        """Ask for a step, unless it waits or runs already."""
        with self.changed:
            now = self.shelf.get(project.id)
            if now is None or (kind in now.steps and now.steps[kind].state in ("waiting", "running")):
                return
            self.shelf.begin(project.id, kind, quality)
            self.changed.notify_all()

    def cancel(self, project: Project) -> None:
        """End or withdraw whatever is wanted of a project; returns when it has ended."""
        with self.changed:
            for kind, step in project.steps.items():
                if step.state == "waiting":
                    self.shelf.update(project.id, kind, state="cancelled")
            ending = [running for (identity, _), running in self.running.items() if identity == project.id]
            for running in ending:
                running.cancelled = True
        for running in ending:
            running.processes.stop()

    def remove(self, project: Project) -> None:
        """Cancel what is wanted of a project and delete it."""
        self.cancel(project)
        self.shelf.remove(project)

    def waiting_before(self, project: Project, kind: Kind) -> int:
        """Number of steps that come before a waiting one."""
        lane = next(kinds for kinds in LANES if kind in kinds)
        mine = project.steps[kind].asked
        others = [s for p in self.shelf.all() for k, s in p.steps.items() if k in lane]
        return sum(s.state == "running" or (s.state == "waiting" and s.asked < mine) for s in others)

    def progress(self, project: Project, kind: Kind) -> tuple[str, float | None, str] | None:
        """Phase, share that is done (0..1, None before it is planned) and times of a running step; None of others."""
        running = self.running.get((project.id, kind))
        if running is None:
            return None
        phase = running.clock.now.phase if running.clock.now is not None else "starting"
        return phase, running.clock.share(), running.clock.times()

    def close(self) -> None:
        """End all processes; their steps wait for the next server."""
        with self.changed:
            self.closed = True
            ending = list(self.running.values())
            self.changed.notify_all()
        for running in ending:
            running.processes.stop()
        for thread in self.threads:
            thread.join()

    def _lane(self, kinds: tuple[Kind, ...]) -> None:
        while True:
            with self.changed:
                while not self.closed and (found := self._next(kinds)) is None:
                    self.changed.wait()
                if self.closed:
                    return
                assert found is not None
                project, kind = found
                running = Running(Processes(self.worker, shared_environment(1)))
                self.running[project.id, kind] = running
                self.shelf.update(project.id, kind, state="running")
            outcome = self._work(project, kind, running)
            with self.changed:
                del self.running[project.id, kind]
                self._finish(project, kind, running, outcome)

    def _next(self, kinds: tuple[Kind, ...]) -> tuple[Project, Kind] | None:
        waiting = [
            (step.asked, project, kind)
            for project in self.shelf.all()
            for kind, step in project.steps.items()
            if kind in kinds and step.state == "waiting"
        ]
        return min(waiting, key=lambda each: each[0])[1:] if waiting else None

    def _work(self, project: Project, kind: Kind, running: Running) -> Outcome:
        def tell(event: Event) -> None:
            running.clock.take(event)
            if isinstance(event, Note) and event.level == "warning":
                running.notes.append(event.text)

        request = {
            "task": kind,
            "video": str(project.video),
            "output": str(project.output),
            "quality": project.steps[kind].quality,
            "report": str(project.report),
            "findings": str(project.findings),
            "pairs": str(project.pairs(kind)),
        }
        return running.processes.work(project.name, request, tell)

    def _finish(self, project: Project, kind: Kind, running: Running, outcome: Outcome) -> None:
        notes = tuple(running.notes)
        update = self.shelf.update
        if outcome.state == "done":
            update(project.id, kind, state="done", seconds=outcome.seconds, notes=notes)
        elif running.cancelled:
            update(project.id, kind, state="cancelled")
        elif self.closed and outcome.exit_code == ExitCode.INTERRUPTED:
            update(project.id, kind, state="waiting")
        else:
            message = _without(outcome.message, project.folder)
            update(project.id, kind, state="failed", message=message, hint=_without(outcome.hint, project.folder))


def _without(text: str, folder: Path) -> str:
    """Text without the server's folder: visitors know their video by its name."""
    return text.replace(f"{folder}/", "").replace(str(folder), "")
