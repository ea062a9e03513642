"""Writing files so that they are complete or absent, and telling one file from another."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

BLOCK = 1 << 20


@contextlib.contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """A temporary file next to ``path`` to write to; it becomes ``path``, durably, when the block ends without error.

    Its permissions are those of any new file of this user, whatever the block did to them.

    Args:
        path: final place; its folder is made if it is missing.

    Raises:
        OSError: something cannot be written; ``path`` is as it was before.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name may already be as long as the file system allows.
    part = path.with_name(f".{path.name[:60]}.{uuid.uuid4().hex[:12]}.part")
    try:
        part.touch(exist_ok=False)
        mode = part.stat().st_mode & 0o777
        yield part
        part.chmod(mode)
        fsync(part)
        part.replace(path)
        fsync(path.parent)
    finally:
        part.unlink(missing_ok=True)


def holds_links(folder: Path) -> bool:
    """Whether a folder is a symbolic link, or there is one anywhere below it."""
    below = (Path(where, name) for where, folders, files in os.walk(folder) for name in (*folders, *files))
    return folder.is_symlink() or any(path.is_symlink() for path in below)


def fsync(path: Path) -> None:
    """Wait until a file or folder is on disk."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:
        if path.is_dir():  # Windows opens no folders
            return
        raise
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network and FUSE file systems cannot sync folders; files must be.
        if path.is_file() or error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    """Hex digest of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def identity(path: Path) -> str:
    """Identifies an input, so that a change is noticed, without reading all of it.

    Size, time of modification and a hash of the beginning, the middle and the end of a file; of a folder of images, the
    names, sizes and times of its files.
    """
    digest = hashlib.sha256()
    if path.is_dir():
        for entry in sorted(path.iterdir()):
            stat = entry.stat()
            digest.update(f"{entry.name} {stat.st_size} {stat.st_mtime_ns}\n".encode(errors="surrogateescape"))
        return digest.hexdigest()
    stat = path.stat()
    with path.open("rb") as file:
        for start in sorted({0, max(0, stat.st_size // 2), max(0, stat.st_size - BLOCK)}):
            file.seek(start)
            digest.update(file.read(BLOCK))
    return f"{stat.st_size} {stat.st_mtime_ns} {digest.hexdigest()}"


def same_file(one: Path, other: Path) -> bool:
    """Whether two paths, of files that need not exist, name the same place: through links, or on a case-blind disk."""
    try:
        return one.samefile(other)
    except OSError:
        return os.path.normcase(os.path.realpath(one)) == os.path.normcase(os.path.realpath(other))
