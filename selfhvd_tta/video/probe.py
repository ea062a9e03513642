"""What a video file holds, from its header and its first decoded frame."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error

from selfhvd_tta.errors import InputError
from selfhvd_tta.video.color import ColorTags, PixelLayout
from selfhvd_tta.video.compat import KEEP_BYTES, as_fraction, disposition_bits, time_base_of
from selfhvd_tta.video.span import Span

# What PyAV raises on damaged files: FFmpeg's errors, and a few that its own Python layer lets through.
DECODE_ERRORS = (av.error.FFmpegError, UnicodeDecodeError, IndexError, ValueError, OSError)
# Side data of frames that a new encoding loses; names of AVFrameSideDataType.
UNTRANSFERABLE = {
    "DYNAMIC_HDR_PLUS": "HDR10+ metadata (the HDR10 base is kept)",
    "DOVI_RPU_BUFFER": "Dolby Vision metadata (the base layer is kept)",
    "DOVI_METADATA": "Dolby Vision metadata (the base layer is kept)",
    "A53_CC": "closed captions inside the video stream",
    "SPHERICAL": "360-degree projection tags",
    "STEREO3D": "stereoscopic tags",
    "ICC_PROFILE": "the ICC colour profile",
}


@dataclass(frozen=True)
class StreamSummary:
    """One stream beside the processed video.

    Attributes:
        index: in the container.
        kind: ``audio``, ``subtitle``, ``data``, ``attachment``, ``video`` (a second one), ``picture`` (cover art).
        codec: FFmpeg's name, empty if unknown.
        language: ISO 639-2 code, or empty.
    """

    index: int
    kind: str
    codec: str
    language: str = ""


@dataclass(frozen=True)
class VideoInfo:
    """Facts about a video, constant over its frames.

    Attributes:
        path: the file (or image folder) as it was given.
        width: coded width in pixels (before rotation).
        height: coded height in pixels (before rotation).
        frames: number of frames by the container, or None; an estimate until the frames are counted.
        time_base: unit of ``pts`` in seconds.
        average_rate: frames per second by the container, or None; wrong for variable frame rate.
        duration_s: seconds by the container, or None.
        origin: presentation time of the first frame, seconds.
        span: the part of the file that is read; None for all of it.
        duration_is_video: that is the length of the video stream, not of the longest stream.
        pix_fmt: FFmpeg's name of the decoded pixel format.
        bit_depth: bits per component.
        color: colour tags as given, with their resolved defaults.
        sar: sample aspect ratio, or None if it is not stated.
        rotation: counter-clockwise degrees by which a player turns the picture: 0, 90, 180, 270 (others possible).
        display_matrix: the nine 16.16 and 2.30 fixed-point entries, or None; holds mirroring too.
        codec: FFmpeg's name of the decoder's codec.
        container: FFmpeg's name of the demuxer, comma-separated aliases.
        stream_index: index of the processed video stream.
        interlaced: the fields of a frame belong to different times.
        has_audio: there is at least one audio stream.
        others: the other streams.
        mastering_display: raw AVMasteringDisplayMetadata of HDR10, or None.
        content_light: MaxCLL and MaxFALL in cd/m2, or None.
        chroma_location: AVChromaLocation as given (0: unspecified; PyAV tells it from release 19 on).
        untransferable: what the first frame carries and no encoder here can carry on, in words.
    """

    path: Path
    width: int
    height: int
    frames: int | None
    time_base: Fraction
    average_rate: Fraction | None
    duration_s: float | None
    pix_fmt: str
    bit_depth: int
    color: ColorTags
    sar: Fraction | None = None
    rotation: int = 0
    display_matrix: tuple[int, ...] | None = None
    codec: str = ""
    container: str = ""
    stream_index: int = 0
    interlaced: bool = False
    has_audio: bool = False
    others: tuple[StreamSummary, ...] = ()
    mastering_display: bytes | None = None
    content_light: tuple[int, int] | None = None
    chroma_location: int = 0
    untransferable: tuple[str, ...] = ()
    duration_is_video: bool = False
    origin: Fraction = Fraction(0)
    span: Span | None = None

    @property
    def layout(self) -> PixelLayout:
        """Planes, subsampling and depth of the decoded pixel format."""
        return PixelLayout.of(self.pix_fmt)


@contextmanager
def input_errors(path: Path) -> Iterator[None]:
    """Turn whatever reading ``path`` raises into an :class:`InputError` with a line of advice."""
    try:
        yield
    except FileNotFoundError as error:
        raise InputError(f"{path}: there is no such file", "Check the path.") from error
    except PermissionError as error:
        raise InputError(f"{path}: may not be read", "Check the file's permissions.") from error
    except DECODE_ERRORS as error:
        raise InputError(*_diagnosis(path, error)) from error


def _diagnosis(path: Path, error: BaseException) -> tuple[str, str]:
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(16)
    except OSError:
        size, head = -1, b""
    if size == 0:
        return f"{path}: the file is empty", "Copy it again from its source."
    if head[4:8] == b"ftyp" and isinstance(error, av.error.InvalidDataError):
        return (
            f"{path}: this MP4 has no usable index (moov), so it cannot be played",
            "The recording or the copy was cut off; copy it again, or rebuild it with a tool such as untrunc.",
        )
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return f"{path}: cannot be read as a video ({reason})", "Check that it plays in a video player."


def open_input(path: Path) -> Any:
    """Open a container for reading; bytes of its metadata that are not UTF-8 survive a round trip.

    Raises:
        InputError: the file is missing, empty, cut off or no video.
    """
    if path.is_dir():
        raise InputError(f"{path}: is a folder, not a video file", "Give a video file or a folder of images.")
    with input_errors(path):
        return av.open(str(path), **KEEP_BYTES)


def pick_video(container: Any, path: Path) -> Any:
    """The stream to process: the first one that is not cover art, one marked as default preferred."""
    streams = [s for s in container.streams.video if not is_picture(s) and s.codec_context is not None]
    if not streams:
        what = "only cover art" if container.streams.video else "no video"
        kinds = sorted({s.type for s in container.streams})
        raise InputError(f"{path}: holds {what} ({', '.join(kinds) or 'no streams'})", "Give a file with a video.")
    return next((s for s in streams if disposition_bits(s) & 1), streams[0])


def is_picture(stream: Any) -> bool:
    """Cover art or a thumbnail: a video stream of one still picture."""
    return stream.type == "video" and bool(disposition_bits(stream) & (1 << 10))


def probe(path: str | Path) -> VideoInfo:
    """Look into a video file; decodes its first frame.

    Raises:
        InputError: missing, unreadable, no video in it, or its first frame cannot be decoded.
    """
    path = Path(path)
    with open_input(path) as container:
        stream = pick_video(container, path)
        with input_errors(path):
            stream.thread_type = "AUTO"
            frame = _first_frame(container, stream)
            if frame is None:
                raise InputError(f"{path}: not one frame can be decoded", "The file is damaged; copy it again.")
            return _describe(path, container, stream, frame)


def _first_frame(container: Any, stream: Any) -> Any:
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except av.error.FFmpegError:
            continue
        if frames:
            return frames[0]
    return None


def _describe(path: Path, container: Any, stream: Any, frame: Any) -> VideoInfo:
    context = stream.codec_context
    side = {getattr(item.type, "name", str(item.type)): bytes(item) for item in _side_data(frame)}
    matrix = side.get("DISPLAYMATRIX", b"")
    display_matrix = struct.unpack("<9i", matrix[:36]) if len(matrix) >= 36 else None
    light = side.get("CONTENT_LIGHT_LEVEL")
    rate = as_fraction(stream.average_rate)
    own_duration = _stream_duration(stream)
    duration = own_duration or (container.duration / 1e6 if container.duration else None)
    frames = stream.frames or (round(duration * rate) if duration and rate else 0)
    color = ColorTags(
        matrix=int(frame.colorspace),
        range=int(frame.color_range),
        primaries=int(frame.color_primaries),
        transfer=int(frame.color_trc),
    )
    others = [s for s in container.streams if s.index != stream.index]
    return VideoInfo(
        path=path,
        width=frame.width,
        height=frame.height,
        frames=frames or None,
        time_base=time_base_of(stream),
        average_rate=rate,
        duration_s=duration,
        pix_fmt=frame.format.name,
        bit_depth=PixelLayout.of(frame.format.name).bits,
        color=color.resolve(frame.format.name, frame.height, context.codec.canonical_name),
        sar=as_fraction(stream.sample_aspect_ratio),
        rotation=rotation_of(display_matrix),
        display_matrix=display_matrix,
        codec=context.codec.canonical_name,
        container=container.format.name,
        stream_index=stream.index,
        interlaced=bool(frame.interlaced_frame),
        has_audio=bool(container.streams.audio),
        others=tuple(_summary(s) for s in others),
        mastering_display=side.get("MASTERING_DISPLAY_METADATA"),
        content_light=struct.unpack("<2I", light[:8]) if light and len(light) >= 8 else None,
        duration_is_video=own_duration is not None,
        origin=(frame.pts or 0) * time_base_of(stream),
        chroma_location=int(getattr(frame, "chroma_location", 0)),
        untransferable=tuple(sorted({words for name, words in UNTRANSFERABLE.items() if name in side})),
    )


def rotation_of(display_matrix: tuple[int, ...] | None) -> int:
    """Counter-clockwise degrees, 0..359, that a display matrix turns the picture by (mirroring aside)."""
    if display_matrix is None:
        return 0
    a, b = display_matrix[0], display_matrix[1]
    return round(-math.degrees(math.atan2(b, a))) % 360


def _side_data(frame: Any) -> list[Any]:
    container = frame.side_data
    return [container[i] for i in range(len(container))]


def _stream_duration(stream: Any) -> float | None:
    """Seconds that the video stream lasts; Matroska keeps the time of its end in a tag."""
    if stream.duration:
        return float(stream.duration * time_base_of(stream))
    parts = re.fullmatch(r"(\d+):(\d+):([\d.]+)", stream.metadata.get("DURATION", ""))
    if parts is None:
        return None
    start = float((stream.start_time or 0) * time_base_of(stream))
    return max(0.0, int(parts[1]) * 3600 + int(parts[2]) * 60 + float(parts[3]) - start) or None


def _summary(stream: Any) -> StreamSummary:
    kind = "picture" if is_picture(stream) else str(stream.type)
    context = getattr(stream, "codec_context", None)
    codec = (context.name if context is not None else getattr(stream, "name", None)) or ""
    return StreamSummary(stream.index, kind, codec, stream.metadata.get("language", ""))
