"""The folder of projects: one folder per video, with its steps and their results; it survives the server."""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from selfhvd_tta.errors import DiskError, InputError
from selfhvd_tta.files import write_atomically
from selfhvd_tta.settings import Quality

Kind = Literal["look", "preview", "restore"]
State = Literal["waiting", "running", "done", "failed", "cancelled"]
KINDS: tuple[Kind, ...] = ("look", "preview", "restore")
RECORD, SECRET, VIDEOS = "project.json", "secret", "videos"
ID = re.compile(r"[A-Za-z0-9_-]{22}")
NAME_LENGTH = 60


@dataclass(frozen=True)
class Step:
    """Something to be done with the video of a project.

    Attributes:
        state: how far it is.
        quality: of the run, or of the one that a preview is for.
        asked: when, in seconds since 1970.
        seconds: how long it took.
        message: what went wrong; empty if nothing did.
        hint: what to do about it.
        notes: warnings that came with the result.
    """

    state: State
    quality: Quality = "balanced"
    asked: float = 0.0
    seconds: float = 0.0
    message: str = ""
    hint: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Project:
    """One video.

    Attributes:
        id: name of its folder; cannot be guessed, so that knowing it is the permission to see it.
        folder: with everything that belongs to it.
        name: of the file as the visitor had it, for display.
        stem: the same, fit for names of files.
        video: the input.
        created: seconds since 1970.
        steps: that were asked for.
    """

    id: str
    folder: Path
    name: str
    stem: str
    video: Path
    created: float
    steps: Mapping[Kind, Step] = field(default_factory=dict)

    @property
    def output(self) -> Path:
        """The restored video."""
        return self.folder / f"{self.stem}-sharp.mp4"

    @property
    def preview(self) -> Path:
        """The comparison video of a preview."""
        return self.folder / f"{self.stem}-sharp-preview.mp4"

    @property
    def report(self) -> Path:
        """The page about the run."""
        return self.folder / f"{self.stem}-report.html"

    @property
    def findings(self) -> Path:
        """What the look found, JSON."""
        return self.folder / "look.json"

    def pairs(self, kind: Kind) -> Path:
        """Folder of the pictures before and after."""
        return self.folder / f"pairs-{kind}"


class Shelf:
    """All projects.

    Args:
        folder: where they are kept; made if it is missing.

    Attributes:
        root: that folder.
        folder: within it, the part that the server hands out to those who know a project's id.

    Raises:
        DiskError: it cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self.root = Path(folder).absolute()
        self.folder = self.root / VIDEOS
        self.lock = threading.Lock()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DiskError(f"{folder}: cannot be made ({error.strerror})", "Choose another one: --folder") from error

    @property
    def secret(self) -> str:
        """Key for what browsers keep of this server; the same after a restart."""
        path = self.root / SECRET
        with self.lock:
            if not path.exists():
                path.touch(mode=0o600)
                path.write_text(secrets.token_hex())
            return path.read_text()

    def add(self, file: Path, name: str) -> Project:
        """A new project for an uploaded file, which is moved into its folder.

        Args:
            file: the upload.
            name: of the visitor's file; only used for display and, made harmless, for the names of results.

        Raises:
            InputError: there is no such file.
        """
        if not file.is_file():
            raise InputError(f"{name}: did not arrive", "Drop it once more.")
        name = Path(name.replace("\\", "/")).name
        stem = safe_stem(name)
        suffix = Path(name).suffix.lower()
        identity = secrets.token_urlsafe(16)
        folder = self.folder / identity
        folder.mkdir(mode=0o700)
        video = folder / f"{stem}{suffix if re.fullmatch(r'[.][a-z0-9]{1,5}', suffix) else ''}"
        shutil.move(file, video)
        with contextlib.suppress(OSError):
            file.parent.rmdir()  # made for this upload alone
        project = Project(identity, folder, name, stem, video, time.time())
        self._write(project)
        return project

    def get(self, identity: object) -> Project | None:
        """The project with that id; None if there is none, or if that is not an id."""
        if not isinstance(identity, str) or not ID.fullmatch(identity):
            return None
        folder = self.folder / identity
        try:
            body = json.loads((folder / RECORD).read_text())
            steps = {kind: Step(**(t | {"notes": tuple(t["notes"])})) for kind, t in body["steps"].items()}
            return Project(identity, folder, body["name"], body["stem"], folder / body["video"], body["created"], steps)
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def all(self) -> list[Project]:
        """Every project, oldest first."""
        found = [project for entry in self.folder.iterdir() if (project := self.get(entry.name)) is not None]
        return sorted(found, key=lambda project: project.created)

    def begin(self, identity: str, kind: Kind, quality: Quality) -> None:
        """Let a step of a project wait for its turn, as if it had not been done before."""
        self._replace(identity, kind, lambda _: Step("waiting", quality, time.time()))

    def update(self, identity: str, kind: Kind, **changes: Any) -> None:
        """Change a step of a project, unless the project is gone."""
        self._replace(identity, kind, lambda step: replace(step, **changes))

    def _replace(self, identity: str, kind: Kind, change: Callable[[Step], Step]) -> None:
        with self.lock:
            project = self.get(identity)
            if project is not None:
                step = change(project.steps.get(kind, Step("waiting")))
                self._write(replace(project, steps={**project.steps, kind: step}))

    def remove(self, project: Project) -> None:
        """Delete a project with everything in its folder."""
        with self.lock:
            shutil.rmtree(project.folder, ignore_errors=True)

    @staticmethod
    def _write(project: Project) -> None:
        body = {
            "name": project.name,
            "stem": project.stem,
            "video": project.video.name,
            "created": project.created,
            "steps": {kind: asdict(step) for kind, step in project.steps.items()},
        }
        with write_atomically(project.folder / RECORD) as part:
            part.write_text(json.dumps(body))


def safe_stem(name: str) -> str:
    """A name without its suffix, of letters, digits, ``_``, ``-``, ``.`` and spaces only; ``video`` if none is left."""
    kept = re.sub(r"[^\w\-. ]+", "_", Path(name).stem)[:NAME_LENGTH].strip(" ._-")
    return kept.encode("utf-8", "ignore").decode()[:NAME_LENGTH] or "video"
