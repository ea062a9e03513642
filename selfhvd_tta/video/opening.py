"""The reader or writer for a path: a video file or a folder of images."""

from __future__ import annotations

from pathlib import Path

from selfhvd_tta.settings import OutputSettings
from selfhvd_tta.times import TimeRange
from selfhvd_tta.video.images import ImageReader, ImageWriter
from selfhvd_tta.video.probe import VideoInfo
from selfhvd_tta.video.reader import VideoReader
from selfhvd_tta.video.segments import SEGMENT_FRAMES
from selfhvd_tta.video.target import CONTAINERS
from selfhvd_tta.video.writer import VideoWriter

Reader = VideoReader | ImageReader
Writer = VideoWriter | ImageWriter


def open_reader(path: str | Path, part: TimeRange | None = None, progressive: bool = False) -> Reader:
    """A reader of a video file, or of a folder of images; of a part of it, if one is given.

    Args:
        path: of the file or the folder.
        part: to read.
        progressive: as for :class:`VideoReader`.

    Raises:
        InputError: as the readers.
    """
    return ImageReader(path, part=part) if Path(path).is_dir() else VideoReader(path, part, progressive)


def open_writer(
    out: str | Path,
    source: Reader,
    settings: OutputSettings,
    *,
    segments: Path | None = None,
    segment_length: int = SEGMENT_FRAMES,
    seal: str = "",
) -> Writer:
    """A writer of a video file, or of a folder of images where ``out`` has no suffix.

    Args:
        out: final path.
        source: the reader of the input.
        settings: codec, quality, overwriting.
        segments: an existing folder that keeps what is finished for a resumed run.
        segment_length: frames per segment of a video.
        seal: identifies what makes the frames.

    Raises:
        UsageError, DiskError: as the writers.
    """
    info: VideoInfo = source.info
    if Path(out).suffix.lower() in CONTAINERS or (Path(out).suffix and not Path(out).is_dir()):
        return VideoWriter(out, info, settings, segments=segments, segment_length=segment_length, seal=seal)
    names = [file.name for file in source.files] if isinstance(source, ImageReader) else None
    return ImageWriter(out, info, settings, names=names, segments=segments, seal=seal)
