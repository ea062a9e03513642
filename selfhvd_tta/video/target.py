"""Where a result goes: checked before any work, written nearby, moved into place when complete."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import av.error

from selfhvd_tta.errors import DiskError, UsageError
from selfhvd_tta.files import fsync

CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
# What the operating system says when the disk or the folder is to blame; all else is the muxer's or the encoder's.
DISK_ERRNOS = frozenset({
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT,
    errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EMFILE, errno.ENFILE, errno.ESTALE, errno.ETIMEDOUT,
})  # fmt: skip
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")


@dataclass(frozen=True)
class Target:
    """A checked output path.

    Attributes:
        path: final path of the file or folder.
        container: muxer of a video file; None for a folder of images.
        overwrite: something that exists there by then may be replaced.
        index: name of the list that a folder of images may hold as well; empty: none.
    """

    path: Path
    container: str | None
    overwrite: bool
    index: str = ""

    @property
    def is_folder(self) -> bool:
        """Whether a folder of images will be written."""
        return self.container is None


def check_target(out: str | Path, source: str | Path, overwrite: bool = False, index: str = "") -> Target:
    """Refuse an output path that could not be written, before any work.

    Args:
        out: ``.mp4``, ``.m4v``, ``.mov`` or ``.mkv`` file, or a path without suffix: a folder of images.
        source: the input; the output must not be it under any name.
        overwrite: an existing output may be replaced (a folder only if it holds nothing but images).
        index: name of the list that a folder of images may hold as well.

    Raises:
        UsageError: unknown suffix, output exists, is the input, or is a folder where a file is meant.
        DiskError: the target's folder is missing or may not be written to.
    """
    path, source = Path(out), Path(source)
    if os.path.lexists(path) and source.exists() and path.exists() and path.samefile(source):
        raise UsageError(f"{path}: output and input are the same file", "Choose another output name.")
    container = CONTAINERS.get(path.suffix.lower())
    if container is None and path.suffix and not path.is_dir():
        known = ", ".join(CONTAINERS)
        raise UsageError(
            f"{path}: cannot write '{path.suffix}' files",
            f"Use one of {known}, or a folder name for a sequence of images.",
        )
    target = Target(path, container, overwrite, index)
    _check_existing(target)
    parent = path.parent
    if not parent.is_dir():
        raise DiskError(f"{parent}: there is no such folder", f"Create it first: mkdir -p '{parent}'")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise DiskError(f"{parent}: may not be written to", "Change its permissions, or choose another folder.")
    return target


def _check_existing(target: Target) -> None:
    path = target.path
    if not os.path.lexists(path):
        return
    if path.is_dir() and not target.is_folder:
        raise UsageError(f"{path}: is a folder", "Give the name of a file, or remove the folder.")
    if target.is_folder:
        if not path.is_dir():
            raise UsageError(
                f"{path}: is a file, and without a suffix a folder of images is meant", "Give a name such as sharp.mp4."
            )
        entries = list(path.iterdir())
        foreign = [
            e.name
            for e in entries
            if e.is_dir() or (e.suffix.lower() not in IMAGE_SUFFIXES and e.name != (target.index or None))
        ]
        if foreign:
            raise UsageError(
                f"{path}: is a folder that holds other things ({foreign[0]})",
                "Give a file name such as sharp.mp4, or a new folder for a sequence of images.",
            )
        if not entries:
            return
    if not target.overwrite:
        raise UsageError(f"{path}: exists already", "Add --overwrite to replace it, or choose another name.")


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn errors of the operating system or FFmpeg in writing ``path`` into an error for the user.

    Raises:
        DiskError: the operating system says that the disk or the folder is to blame.
        UsageError: FFmpeg refuses what is to be written.
    """
    try:
        yield
    except (OSError, av.error.FFmpegError) as error:
        code = getattr(error, "errno", None)
        reason = getattr(error, "strerror", None) or str(error)
        if code not in DISK_ERRNOS and isinstance(error, av.error.FFmpegError):
            raise UsageError(
                f"{path.name}: this kind of file cannot hold the video ({reason})",
                "Choose a name that ends in .mkv, which holds nearly everything.",
            ) from error
        hint = "Check the folder and the disk."
        if code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            hint = "Free some space, or choose a folder on another disk."
        elif code in (errno.EACCES, errno.EPERM, errno.EROFS):
            hint = "Change the folder's permissions, or choose another folder."
        raise DiskError(f"{path}: cannot be written ({reason})", hint) from error


def make_workplace(target: Target, job: Path | None = None) -> Path:
    """A new folder on the same file system as the target, so that the last step is a rename.

    Args:
        target: what is to appear.
        job: folder of a job that may be killed and repeated, next to the target: the new one lies within it, and what
            its last attempt left there is removed. None makes a hidden folder next to the target.

    Raises:
        DiskError: the folder cannot be made.
    """
    with disk_errors(target.path):
        if job is None:
            # A name may already be as long as the file system allows.
            return Path(
                tempfile.mkdtemp(prefix=f".{target.path.name[:60]}.", suffix=".partial", dir=target.path.parent)
            )
        place = job / "partial"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        return place


def publish(finished: Path, target: Target) -> None:
    """Make the finished file or folder appear under its final name, durably and at once.

    Raises:
        UsageError: something appeared there meanwhile and may not be replaced.
        DiskError: the rename failed.
    """
    _check_existing(target)
    with disk_errors(target.path):
        for file in sorted(finished.iterdir()) if finished.is_dir() else [finished]:
            fsync(file)
        if target.is_folder and target.path.is_dir():
            old = finished.with_name(finished.name + ".replaced")
            target.path.replace(old)
            finished.replace(target.path)
            shutil.rmtree(old)
        else:
            finished.replace(target.path)
        fsync(target.path.parent)
