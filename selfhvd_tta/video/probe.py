"""What a video file holds, from its header and its first decoded frame."""

from __future__ import annotations

import math
import re
import struct
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av.error

from selfhvd_tta.errors import InputError
from selfhvd_tta.video.clock import Clock
from selfhvd_tta.video.color import ColorTags, PixelLayout
from selfhvd_tta.video.compat import as_fraction, time_base_of
from selfhvd_tta.video.siting import chroma_location
from selfhvd_tta.video.source import input_errors, is_picture, open_input, pick_video
from selfhvd_tta.video.span import Span

IMAGES = "image2"
"""The container of a folder of images."""

# Side data of frames that a new encoding loses; names of AVFrameSideDataType.
UNTRANSFERABLE = {
    "DYNAMIC_HDR_PLUS": "HDR10+ metadata (the HDR10 base is kept)",
    "DOVI_RPU_BUFFER": "Dolby Vision metadata (the base layer is kept)",
    "DOVI_METADATA": "Dolby Vision metadata (the base layer is kept)",
    "A53_CC": "closed captions inside the video stream",
    "SPHERICAL": "360-degree projection tags",
    "STEREO3D": "stereoscopic tags",
    "ICC_PROFILE": "the ICC colour profile",
    "AMBIENT_VIEWING_ENVIRONMENT": "the ambient viewing environment of HDR",
}


@dataclass(frozen=True)
class StreamSummary:
    """One stream other than the processed video.

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
        clock: corrections of the times of all streams; the reader finds them.
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
        chroma_location: AVChromaLocation as the headers state it (0: unspecified).
        untransferable: what the first frame carries and no encoder here can keep, in words.
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
    clock: Clock = field(default_factory=Clock)

    @property
    def layout(self) -> PixelLayout:
        """Planes, subsampling and depth of the decoded pixel format."""
        return PixelLayout.of(self.pix_fmt)


def probe(path: str | Path) -> VideoInfo:
    """Read the header of a video file and decode its first frame.

    Raises:
        InputError: missing, unreadable, no video in it, or its first frame cannot be decoded.
    """
    path = Path(path)
    with open_input(path) as container:
        stream = pick_video(container, path)
        # Before there is a decoder: what its threads log would wait for Python, and Python for them when it is freed.
        stated_location = chroma_location(path, stream.index)
        with input_errors(path):
            stream.thread_type = "AUTO"
            frame = _first_frame(container, stream)
            if frame is None:
                raise InputError(f"{path}: not one frame can be decoded", "The file is damaged; copy it again.")
            return _describe(path, container, stream, frame, stated_location)


def _first_frame(container: Any, stream: Any) -> Any:
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except av.error.FFmpegError:
            continue
        if frames:
            return frames[0]
    return None


def _describe(path: Path, container: Any, stream: Any, frame: Any, stated_location: int) -> VideoInfo:
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
        chroma_location=int(getattr(frame, "chroma_location", 0)) or stated_location,
        untransferable=_untransferable(side, stream),
    )


def _untransferable(side: dict[str, bytes], stream: Any) -> tuple[str, ...]:
    found = sorted({words for name, words in UNTRANSFERABLE.items() if name in side and not _in_header(name, stream)})
    # The decoder does not deliver it, but the stream's tags state it.
    alpha = ["the alpha channel, which lies in side data"] if stream.metadata.get("alpha_mode") == "1" else []
    return (*found, *alpha)


def _in_header(name: str, stream: Any) -> bool:
    """Whether Matroska's header says it too, which is carried over where the container can hold it."""
    return name == "STEREO3D" and "stereo_mode" in stream.metadata


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
