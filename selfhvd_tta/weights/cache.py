"""Remembers what was downloaded, converted and verified, so that it is done only once.

The folder holds ``NAME.safetensors`` (converted or downloaded files), ``NAME.json`` (a :class:`Receipt` each),
``downloads/`` (partial files) and ``manual/`` (files that the user saved there).
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from filelock import FileLock

from selfhvd_tta.errors import WeightsError
from selfhvd_tta.files import sha256_of, write_atomically

OnProgress = Callable[[int, int | None], None]
"""``progress(bytes so far, bytes in all or None)``."""

Pin = Literal["table", "hub", "first download"]


def cache_dir() -> Path:
    """Folder of our cache: ``$SELFHVD_TTA_CACHE``, else ``selfhvd-tta`` below ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    if own := os.environ.get("SELFHVD_TTA_CACHE"):
        return expanded(own)
    return expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "selfhvd-tta"


def expanded(path: str) -> Path:
    """A path with ``~`` replaced by the home folder.

    Without one (a container whose user has no entry in the list of users) a place where nothing is and nothing can be
    written: bundled weights need no cache, and whatever does need it says so.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(os.devnull, path)


def manual_dir() -> Path:
    """Folder where the user saves files that have to be fetched by hand."""
    return cache_dir() / "manual"


@contextlib.contextmanager
def writing(what: str) -> Iterator[None]:
    """Turn a failure to write into the cache into one line.

    Raises:
        WeightsError: no space, no permission, no such folder.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise WeightsError(
            f"{what} cannot be written: {reason} ({error.filename or cache_dir()})",
            "Free some space, or point SELFHVD_TTA_CACHE to a folder that can be written.",
        ) from error


@contextlib.contextmanager
def exclusive(name: str) -> Iterator[None]:
    """Lets one process at a time fetch and convert the weights of that name; the others wait, then find them ready."""
    with writing("The weights cache"):
        folder = cache_dir() / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / f"{name}.lock")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@dataclass(frozen=True)
class Receipt:
    """States that a file was verified, and how to recognise that it is unchanged.

    Attributes:
        source: where it came from, as in the table.
        source_sha256: digest of the file as published (before conversion).
        pin: what that digest was checked against.
        path: the safetensors file to read.
        size: its bytes.
        mtime_ns: its time of modification.
        sha256: its digest.
    """

    source: str
    source_sha256: str
    pin: Pin
    path: str
    size: int
    mtime_ns: int
    sha256: str

    @classmethod
    def of(cls, path: Path, *, source: str, source_sha256: str, pin: Pin, sha256: str | None = None) -> Receipt:
        """Receipt for a file that was just verified; hashes it unless its digest is given."""
        digest = sha256 or sha256_of(path)
        stat = path.stat()
        return cls(source, source_sha256, pin, str(path.absolute()), stat.st_size, stat.st_mtime_ns, digest)

    def present(self) -> bool:
        """Whether a file of that size exists."""
        try:
            return os.stat(self.path).st_size == self.size
        except OSError:
            return False

    def unchanged(self) -> bool:
        """Whether the file has the receipt's size and time, so that it need not be hashed again."""
        try:
            stat = os.stat(self.path)
        except OSError:
            return False
        return (stat.st_size, stat.st_mtime_ns) == (self.size, self.mtime_ns)

    def verified(self) -> bool:
        """Whether the file has the receipt's content; hashes it only if size or time changed."""
        if self.unchanged():
            return True
        return self.present() and sha256_of(Path(self.path)) == self.sha256


def read_receipt(name: str) -> Receipt | None:
    """The receipt of that name; None if there is none or it is damaged (then the file is verified again)."""
    try:
        return Receipt(**json.loads((cache_dir() / f"{name}.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def write_receipt(name: str, receipt: Receipt) -> None:
    """Remember a verified file.

    Raises:
        WeightsError: the cache cannot be written.
    """
    with writing("The weights cache"), write_atomically(cache_dir() / f"{name}.json") as path:
        path.write_text(json.dumps(asdict(receipt), indent=1) + "\n", encoding="utf-8")
