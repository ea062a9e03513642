"""A lock file: one run at a time per job directory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO

from selfhvd_tta.errors import UsageError
from selfhvd_tta.files import holds_links
from selfhvd_tta.video.target import disk_errors

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows locks files in another way
    fcntl = None  # type: ignore[assignment]


def hold(folder: Path, output: Path) -> IO[str]:
    """Make the folder and hold its lock file. The system frees it when the process ends, however it ends.

    Raises:
        UsageError: another process holds it, or links lie in its place.
        DiskError: the folder or the file cannot be made.
    """
    while True:
        with disk_errors(folder):
            folder.mkdir(exist_ok=True)
            if holds_links(folder):
                # In a stranger's folder: what they point to would be overwritten or removed.
                raise UsageError(
                    f"{folder}: is a link or holds links, which no run makes", f"Remove it first: rm -r '{folder}'"
                )
            try:
                file = (folder / "lock").open("a+")
            except FileNotFoundError:
                continue  # another run has just finished and removed the folder
        if not _try_lock(file):
            file.seek(0)
            owner = file.read().strip()
            file.close()
            raise UsageError(
                f"{output}: another run is already writing this output{f' (process {owner})' if owner else ''}",
                "Wait for it, or choose another name.",
            )
        try:
            same = os.path.samestat(os.fstat(file.fileno()), (folder / "lock").stat())
        except FileNotFoundError:
            same = False
        if same:
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            return file
        file.close()  # removed by a run that finished between our opening and locking it


def _try_lock(file: IO[str]) -> bool:
    try:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:  # pragma: no cover - Windows
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
    except OSError:
        return False
    return True
