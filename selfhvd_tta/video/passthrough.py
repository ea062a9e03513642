"""Handing a video on as it is, where there is nothing to restore."""

from __future__ import annotations

import shutil
from pathlib import Path

from selfhvd_tta.settings import OutputSettings
from selfhvd_tta.video.reader import VideoReader
from selfhvd_tta.video.target import check_target, disk_errors, make_workplace, publish
from selfhvd_tta.video.writer import VideoWriter


def pass_through(reader: VideoReader, out: Path, settings: OutputSettings) -> list[str]:
    """Put an unchanged copy of the input in place.

    The file is copied byte for byte where the output has the input's kind of container; only another container has
    the frames encoded anew.

    Args:
        reader: of the input.
        out: where the copy goes.
        settings: overwriting, and the codec for the case that needs one.

    Returns:
        One line for each thing that had to be converted.

    Raises:
        UsageError, DiskError: as :func:`check_target`.
    """
    source = reader.info.path
    if out.suffix.lower() != source.suffix.lower() or source.is_dir():
        with VideoWriter(out, reader.info, settings) as writer:
            for frame in reader:
                writer.write(frame.rgb, frame.pts)
        return writer.notes
    target = check_target(out, source, settings.overwrite)
    workplace = make_workplace(target)
    try:
        part = workplace / f"finished{out.suffix}"
        with disk_errors(out):
            shutil.copyfile(source, part)
        publish(part, target)
    finally:
        shutil.rmtree(workplace, ignore_errors=True)
    return []
