"""Writes the input as the output, unchanged, for videos that cannot be improved."""

from __future__ import annotations

import filecmp
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av.error

from selfhvd_tta.errors import InputError, UsageError, VerificationError
from selfhvd_tta.settings import OutputSettings
from selfhvd_tta.video.encoding import nominal_rate
from selfhvd_tta.video.images import ImageReader
from selfhvd_tta.video.opening import Reader, open_writer
from selfhvd_tta.video.probe import VideoInfo
from selfhvd_tta.video.reader import VideoReader
from selfhvd_tta.video.segments import CodedPacket
from selfhvd_tta.video.source import open_input
from selfhvd_tta.video.target import CONTAINERS, Target, disk_errors, make_workplace, publish
from selfhvd_tta.video.writer import check_output, complete


@dataclass(frozen=True)
class Passed:
    """How a video was passed through.

    Attributes:
        notes: one line for each thing that had to be converted or left out.
        encoded_because: why its frames had to be encoded again; empty if they are the same bytes.
    """

    notes: list[str]
    encoded_because: str = ""


def pass_through(reader: Reader, out: Path, settings: OutputSettings, job: Path | None = None) -> Passed:
    """Put the unchanged video at ``out``.

    Into the same kind of container the file is copied byte by byte, and so are images into a folder; into another kind
    the coded frames are moved without decoding them. Only where that is impossible are they encoded again.

    Args:
        reader: of the input.
        out: as for :class:`VideoWriter`, or a folder.
        settings: as for :class:`VideoWriter`.
        job: folder next to the output to work in, see :func:`make_workplace`.

    Raises:
        UsageError, DiskError, InputError: as the reader and the writer.
    """
    info = reader.info
    target = check_output(out, info, settings)
    workplace = make_workplace(target, job)
    try:
        if isinstance(reader, VideoReader) and info.span is None:
            if target.container is not None and CONTAINERS.get(info.path.suffix.lower()) == target.container:
                _copy([info.path], workplace / "finished", target)
                return Passed([])
            if target.container is not None:
                notes = _move_frames(reader, target, workplace, settings.faststart)
                if notes is not None:
                    return Passed(notes)
        elif isinstance(reader, ImageReader) and target.is_folder:
            _copy(reader.files, workplace / "finished", target)
            return Passed([])
    finally:
        shutil.rmtree(workplace, ignore_errors=True)
    with open_writer(out, reader, settings, segments=job) as writer:
        for frame in reader:
            writer.write(frame.rgb, frame.pts)
    why = "this kind of output cannot hold its frames as they are" if info.span is None else "a part was asked for"
    return Passed(writer.notes, why)


def _copy(files: list[Path], finished: Path, target: Target) -> None:
    with disk_errors(target.path):
        if target.is_folder:
            finished.mkdir()
        for file in files:
            copy = finished / file.name if target.is_folder else finished
            shutil.copyfile(file, copy)
            if not filecmp.cmp(file, copy, shallow=False):
                raise VerificationError(f"{target.path}: the copy differs from its source", "Check the disk.")
    publish(finished, target)


def _move_frames(reader: VideoReader, target: Target, workplace: Path, faststart: bool) -> list[str] | None:
    """Mux the coded frames into another container; None if that fails."""
    notes: list[str] = []
    try:
        complete(_SourceStream(reader.info, list(reader.pts)), reader.info, target, workplace, faststart, notes)
    except (av.error.FFmpegError, ValueError, InputError, UsageError, VerificationError):
        # The container refuses the codec, or the file does not show the same frames, as the verification finds.
        return None
    return notes


class _SourceStream:
    """The source's own video stream as a coded video."""

    def __init__(self, info: VideoInfo, pts: list[int]) -> None:
        self.info = info
        self.pts = pts
        self.rate: Fraction = nominal_rate(info)
        self.codec = info.codec

    @contextmanager
    def template(self) -> Iterator[Any]:
        with open_input(self.info.path) as container:
            yield container.streams[self.info.stream_index]

    def packets(self) -> Iterator[CodedPacket]:
        numbers = {pts: i for i, pts in enumerate(self.pts)}
        with open_input(self.info.path) as container:
            for packet in container.demux(container.streams[self.info.stream_index]):
                if packet.size:
                    self.info.clock.retime(packet)
                    if packet.pts not in numbers:
                        raise ValueError("a packet shows no frame of its own")
                    yield CodedPacket(packet, numbers[packet.pts])
