"""The job directory: what an interrupted run leaves, so that the same command resumes where it stopped.

It lies next to the output, hidden and named after it, and is gone when the output is in place. It holds the lock that
keeps a second run away, the fingerprint of everything that decides the result, checkpoints of the adaptation, marks of
the restoration, and the finished segments of the video.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import safetensors
from safetensors.torch import load_file, save_file
from torch import Tensor

from selfhvd_tta.errors import DiskError, Interrupted, UsageError, VerificationError
from selfhvd_tta.events import Note
from selfhvd_tta.files import write_atomically
from selfhvd_tta.method.checkpoint import Checkpoint
from selfhvd_tta.method.restoration import Restart
from selfhvd_tta.run.frames import Mark
from selfhvd_tta.run.lock import hold
from selfhvd_tta.video.images import LEDGER as IMAGES
from selfhvd_tta.video.segments import frames_in
from selfhvd_tta.video.target import IMAGE_SUFFIXES, disk_errors

Facts = dict[str, str]
ADAPTATION = "adaptation.safetensors"
MARKS_KEPT = 3
AGAIN = "Run the same command again: it continues where this one stopped."


def job_folder(output: Path) -> Path:
    """The job directory of an output: ``.sharp.mp4.job`` for ``sharp.mp4``."""
    name = output.name if len(os.fsencode(output.name)) < 200 else hashlib.sha256(os.fsencode(output.name)).hexdigest()
    return output.parent / f".{name}.job"


class Job:
    """The job directory of one output, held by one run at a time. A context manager.

    Leaving it normally removes it. Leaving it by an exception keeps it if it holds anything that a later run can use,
    and removes it otherwise; an :class:`Interrupted`, or a :class:`DiskError` that more room would cure, then says how
    to continue.

    Args:
        output: final path of the result; its folder exists.
        restart: start over, whatever an earlier run left.

    Attributes:
        started: when this run began, by ``time.monotonic``.

    Raises:
        UsageError: another run is writing this output.
        DiskError: the directory cannot be made.
    """

    def __init__(self, output: Path, restart: bool = False) -> None:
        self.output = output
        self.path = job_folder(output)
        self.restart = restart
        self.started = time.monotonic()
        self.segments = self.path / "segments"
        self.seal = ""
        self._marks: list[Path] = []
        self._saved = time.monotonic()

    def __enter__(self) -> Job:
        self._lock = hold(self.path, self.output)
        try:
            if self.restart:
                self._clear()
            with disk_errors(self.path):
                self.segments.mkdir(exist_ok=True)
            self._marks = sorted(self.path.glob("mark-*.safetensors"))
        except BaseException:
            self._leave(remove=False)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        kept = kind is not None and self.resumable
        self._leave(remove=not kept)
        if kept and isinstance(error, Interrupted):
            raise Interrupted(f"what is done is kept in {self.path}", AGAIN, error.word) from error
        if kept and isinstance(error, DiskError) and not isinstance(error, VerificationError):
            error.hint = f"{error.hint} Then run the same command again: it continues.".strip()
        elif isinstance(error, KeyboardInterrupt):
            left = f"what is done is kept in {self.path}" if kept else "nothing was written"
            raise Interrupted(left, AGAIN if kept else "") from error

    @property
    def resumable(self) -> bool:
        """Whether a later run would save time by what is here."""
        if (self.path / ADAPTATION).exists():
            return True
        if (self.segments / IMAGES).exists():
            return self._images() > 0
        return frames_in(self.segments) > 0

    def agree(self, facts: Facts) -> Note | None:
        """Compare what decides the result with what the interrupted run had, and start over where they differ.

        Args:
            facts: name for the user and value of everything that decides the result.

        Returns:
            What is continued, or why nothing is; None if there was nothing.
        """
        self.seal = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
        stored = _read_json(self.path / "job.json")
        before = stored.get("facts", {})
        if before == facts:
            return Note(f"continuing an interrupted run ({self._progress()})") if self.resumable else None
        changed = [name for name in {**before, **facts} if before.get(name) != facts.get(name)]
        was_resumable = self.resumable and bool(before)
        self._clear()
        with disk_errors(self.path):
            self.segments.mkdir(exist_ok=True)
        self._write("job.json", json.dumps({"facts": facts}))
        if not was_resumable:
            return None
        first = changed[0]
        values = f" from {before.get(first)} to {facts.get(first)}" if first.startswith("--") else ""
        what = f"{first} changed{values}"
        more = f", and {len(changed) - 1} more" if len(changed) > 1 else ""
        return Note(f"not resuming: {what}{more}; starting over", "warning")

    def remember(self, name: str, value: Any) -> Any:
        """A value that must stay the same when the run is resumed: the stored one if there is one, else this one."""
        stored = _read_json(self.path / "job.json")
        if name not in stored:
            stored[name] = value
            self._write("job.json", json.dumps(stored))
        return stored[name]

    def recall(self, name: str) -> Any:
        """The value that :meth:`remember` stored; None if there is none."""
        return _read_json(self.path / "job.json").get(name)

    def save_adaptation(self, checkpoint: Checkpoint) -> None:
        """Replace the checkpoint.

        Raises:
            DiskError: it cannot be written.
        """
        self._save(self.path / ADAPTATION, checkpoint.tensors, checkpoint.facts)
        self._saved = time.monotonic()

    def due(self, minutes: float) -> bool:
        """Whether the last checkpoint is at least ``minutes`` old."""
        return time.monotonic() - self._saved >= 60 * minutes

    def adaptation(self) -> Checkpoint | None:
        """The checkpoint of the interrupted run; None if there is none that can be read."""
        found = _load(self.path / ADAPTATION)
        return None if found is None else Checkpoint(*found)

    def save_mark(self, mark: Mark) -> None:
        """Store a place from which the restoration can be resumed; the last few are kept.

        Raises:
            DiskError: it cannot be written.
        """
        restart = mark.restart
        facts = {k: getattr(restart, k) for k in ("feed_from", "output_from", "valid_from", "window", "tile")}
        path = self.path / f"mark-{mark.frame:09d}.safetensors"
        tensors = {k: t.detach().cpu().contiguous().clone() for k, t in restart.tensors.items()}
        self._save(path, tensors, facts | {"shot": mark.shot, "seal": self.seal})
        self._marks = [p for p in self._marks if p != path] + [path]
        for old in self._marks[:-MARKS_KEPT]:
            old.unlink(missing_ok=True)
        self._marks = self._marks[-MARKS_KEPT:]

    def mark(self, first: int) -> Mark | None:
        """The last mark from which frame ``first`` can be reached."""
        for path in reversed(self._marks):
            found = _load(path)
            if found is None or found[1].pop("seal", None) != self.seal:
                continue
            mark = Mark(int(found[1].pop("shot")), Restart(**found[1], tensors=found[0]))
            if mark.frame <= first:
                return mark
        return None

    def finishing(self) -> None:
        """Note that all frames are written: from here on the output may appear at any time."""
        self._write("finishing", "")

    def _progress(self) -> str:
        frames = self._images() if (self.segments / IMAGES).exists() else frames_in(self.segments)
        if frames:
            return f"{frames} frames are written"
        found = self.adaptation()
        if found is None:
            return "nothing of it can be used"
        return "the network is adapted" if found.finished else f"{found.step} steps of adaptation are done"

    def _images(self) -> int:
        return sum(entry.suffix.lower() in IMAGE_SUFFIXES for entry in self.segments.iterdir())

    def _save(self, path: Path, tensors: dict[str, Tensor], facts: Mapping[str, Any]) -> None:
        with disk_errors(self.path), write_atomically(path) as part:
            try:
                save_file(tensors, part, metadata={"facts": json.dumps(facts)})
            except safetensors.SafetensorError as error:
                raise OSError(str(error)) from error

    def _write(self, name: str, text: str) -> None:
        with disk_errors(self.path), write_atomically(self.path / name) as part:
            part.write_text(text)

    def _clear(self) -> None:
        """Remove everything but the lock."""
        with disk_errors(self.path):
            for entry in list(self.path.iterdir()):
                if entry.name == "lock":
                    continue
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        self._marks = []

    def _leave(self, remove: bool) -> None:
        if remove:
            _remove(self.path)
        self._lock.close()
        if remove:
            # Only if it is empty: another run may be in it by now.
            with suppress(OSError):
                self.path.rmdir()


def sweep(output: Path) -> None:
    """Remove the job directory of a run that was killed after its output was in place."""
    folder = job_folder(output)
    try:
        done = output.stat().st_mtime_ns >= (folder / "finishing").stat().st_mtime_ns
    except OSError:
        return
    if done:
        try:
            lock = hold(folder, output)
        except UsageError:
            return
        _remove(folder)
        lock.close()
        with suppress(OSError):
            folder.rmdir()


def _remove(folder: Path) -> None:
    """Empty a job directory whose lock is held; the lock goes last."""
    for entry in list(folder.iterdir()):
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        elif entry.name != "lock":
            entry.unlink(missing_ok=True)
    (folder / "lock").unlink(missing_ok=True)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Tensors and facts of a file; None if it is missing or damaged."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            facts = json.loads(file.metadata()["facts"])
        return load_file(path), facts
    except (OSError, ValueError, KeyError, TypeError, safetensors.SafetensorError):
        return None
