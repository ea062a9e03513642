"""What users pass instead of a video file or a folder, told from its name and kind; files are not opened."""

from __future__ import annotations

import os
import re
from pathlib import Path

from selfhvd_tta.errors import InputError

ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+")
DRIVE = re.compile(r"[A-Za-z]:[\\/]")


def refuse_other_things(path: Path) -> None:
    """Refuse what is neither a file nor a folder, without opening it: reading a pipe may block for ever.

    Raises:
        InputError: an address, a drive of Windows, standard input, a pipe, a device.
    """
    if path.is_file() or path.is_dir():
        return
    name = str(path)
    if address := ADDRESS.match(name):
        rest = name[address.end() :]
        if address[1] == "file":
            raise InputError(f"file:///{rest}: is an address, not a path", f"Give the path: /{rest}")
        # A path keeps one of the two slashes.
        raise InputError(
            f"{address[1]}://{rest}: is an address, and only files are read", "Download the video, then give its file."
        )
    if DRIVE.match(name):
        raise InputError(
            f"{name}: there is no such file", "In WSL, drive C: is /mnt/c; elsewhere, copy the file to this machine."
        )
    if name == "-" or (os.path.lexists(path) and path.exists()):
        raise InputError(
            f"{name}: is a stream, but the video is read several times", "Save it to a file, then give that file."
        )
