"""Files of a batch on their way to workers that do not see the driver's disk, and back: in pieces, through one actor.

The actor keeps them in a temporary folder of its node. Nobody holds more than one piece in memory.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from selfhvd_tta.files import write_atomically

PIECE = 8 << 20
MIRROR_S = float(os.environ.get("SELFHVD_TTA_MIRROR_S", "20"))
JOB = "job"
Stamps = dict[str, tuple[int, int]]


class Depot:
    """Keeps files by the key of their video and a relative name. Runs as a Ray actor."""

    def __init__(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="selfhvd-tta-depot-"))

    def write(self, key: str, name: str, offset: int, piece: bytes) -> None:
        """Write a piece; the first one starts the file over."""
        path = self._path(key, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb" if offset == 0 else "r+b") as file:
            file.seek(offset)
            file.write(piece)

    def read(self, key: str, name: str, offset: int, size: int = PIECE) -> bytes:
        """Read a piece; empty at the end of the file."""
        with self._path(key, name).open("rb") as file:
            file.seek(offset)
            return file.read(size)

    def names(self, key: str, folder: str) -> list[str]:
        """Files of a video below a folder, oldest first."""
        top = self._path(key, folder)
        files = sorted((p for p in top.rglob("*") if p.is_file()), key=lambda p: p.stat().st_mtime_ns)
        return [p.relative_to(top).as_posix() for p in files]

    def remove(self, key: str, name: str = "") -> None:
        """Delete a file, or all files of a video."""
        path = self._path(key, name)
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)

    def close(self) -> None:
        """Delete everything."""
        shutil.rmtree(self.root, ignore_errors=True)

    def _path(self, key: str, name: str) -> Path:
        root = self.root.resolve()
        video = (root / key).resolve()
        path = (video / name).resolve()
        if root not in video.parents or not path.is_relative_to(video):
            raise ValueError(f"{key}: {name}: leads out of the depot")
        return path


class DepotClient:
    """Client of a :class:`Depot`, for one video.

    Args:
        call: ``call("write", ...)`` runs a method of the depot and waits for it.
        key: of the video.
    """

    def __init__(self, call: Callable[..., Any], key: str) -> None:
        self.call, self.key = call, key

    def send(self, path: Path, name: str) -> None:
        """Put a file into the depot."""
        with path.open("rb") as file:
            offset = 0
            while True:
                piece = file.read(PIECE)
                if piece or offset == 0:
                    self.call("write", self.key, name, offset, piece)
                if len(piece) < PIECE:
                    return
                offset += len(piece)

    def fetch(self, name: str, path: Path) -> None:
        """Fetch a file; it appears at ``path`` only when complete."""
        with write_atomically(path) as part, part.open("wb") as file:
            while piece := self.call("read", self.key, name, file.tell()):
                file.write(piece)

    def names(self, folder: str) -> list[str]:
        """Files below a folder of the depot, oldest first."""
        return list(self.call("names", self.key, folder))


class Mirror:
    """Keeps a copy of a job directory in the depot, so that another node can resume from it. A context manager.

    Files are copied in the order in which they were written, so the copy is what the directory was at some moment, or
    what an interruption at that moment could have left.

    Args:
        client: of the video.
        folder: the job directory; it need not exist yet.
        every: seconds between two checks of it.
    """

    def __init__(self, client: DepotClient, folder: Path, every: float = MIRROR_S) -> None:
        self.client, self.folder, self.every = client, folder, every
        self.known: Stamps = {}
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def restore(self) -> bool:
        """Fetch what an earlier attempt left; returns whether there was anything."""
        names = self.client.names(JOB)
        for name in names:
            self.client.fetch(f"{JOB}/{name}", self.folder / name)
        self.known = self._stamps()
        return bool(names)

    def __enter__(self) -> Mirror:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.thread.join()

    def _run(self) -> None:
        while not self.ended.wait(self.every):
            self.update()

    def update(self) -> None:
        """Copy what changed, and delete what is gone."""
        now = self._stamps()
        for name in sorted(now, key=lambda n: now[n][1]):
            if self.known.get(name) != now[name]:
                try:
                    self.client.send(self.folder / name, f"{JOB}/{name}")
                except FileNotFoundError:  # replaced or removed meanwhile: the next check sees what is there then
                    now.pop(name)
        for name in set(self.known) - set(now):
            self.client.call("remove", self.client.key, f"{JOB}/{name}")
        self.known = now

    def _stamps(self) -> Stamps:
        stamps = {}
        for path in self.folder.rglob("*"):
            try:
                if path.is_file() and path.name != "lock":
                    stat = path.stat()
                    stamps[path.relative_to(self.folder).as_posix()] = (stat.st_size, stat.st_mtime_ns)
            except FileNotFoundError:
                continue
        return stamps
