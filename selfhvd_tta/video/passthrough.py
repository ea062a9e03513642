"""The input as the output, untouched, for videos that nothing can be done for."""

from __future__ import annotations

import filecmp
import shutil
from pathlib import Path

from selfhvd_tta.errors import DiskError
from selfhvd_tta.settings import OutputSettings
from selfhvd_tta.video.reader import VideoReader
from selfhvd_tta.video.target import CONTAINERS, disk_errors, make_workplace, publish
from selfhvd_tta.video.writer import VideoWriter, check_output


def pass_through(reader: VideoReader, out: Path, settings: OutputSettings) -> list[str]:
    """Put the unchanged video at ``out``.

    A file for a container of the same kind is copied byte by byte; otherwise its frames are encoded as they are.

    Args:
        reader: of the input.
        out: as for :class:`VideoWriter`.
        settings: as for :class:`VideoWriter`.

    Returns:
        One line for each thing that had to be converted or left out.

    Raises:
        UsageError, DiskError, InputError: as the reader and the writer.
    """
    info = reader.info
    target = check_output(out, info, settings)
    if target.container is not None and CONTAINERS.get(info.path.suffix.lower()) == target.container:
        workplace = make_workplace(target)
        try:
            copy = workplace / out.name
            with disk_errors(out):
                shutil.copyfile(info.path, copy)
                if not filecmp.cmp(info.path, copy, shallow=False):
                    raise DiskError(f"{out}: the copy differs from its source", "Check the disk.")
            publish(copy, target)
        finally:
            shutil.rmtree(workplace, ignore_errors=True)
        return []
    with VideoWriter(out, info, settings) as writer:
        for frame in reader:
            writer.write(frame.rgb, frame.pts)
    return writer.notes
