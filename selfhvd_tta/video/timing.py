"""Frame times in a container's own units."""

from __future__ import annotations

from fractions import Fraction
from math import ceil, floor, lcm

from selfhvd_tta.video.probe import VideoInfo
from selfhvd_tta.video.source import is_picture, open_input
from selfhvd_tta.video.streams import earliest_packet

MILLISECOND = Fraction(1, 1000)


def output_time_base(info: VideoInfo, container: str) -> Fraction:
    """Unit of time of the video stream in the output: the source's, as far as the container can state it."""
    if container == "matroska":
        return MILLISECOND
    return Fraction(1, info.time_base.denominator)


def output_times(pts: list[int], info: VideoInfo, container: str, shift: Fraction) -> list[int]:
    """Presentation times in units of :func:`output_time_base`, ``shift`` seconds later."""
    unit = output_time_base(info, container)
    return [round((p * info.time_base + shift) / unit) for p in pts]


def needed_shift(first: int, info: VideoInfo, container: str) -> Fraction:
    """Seconds by which all streams have to move, so that the result starts at zero.

    MP4 would hide frames before zero (an edit list starts there), Matroska has no negative times for any stream, and
    audio often starts a little before zero. Transport streams start at any time, and players show nothing until then.
    A late start in MP4 or MOV is deliberate and stays, as does that of Matroska in Matroska.

    Args:
        first: presentation time of the first frame in units of ``info.time_base``.
        info: of the source.
        container: muxer name.
    """
    start = first * info.time_base
    if info.span is not None:
        return -start  # a part begins at zero
    is_mp4 = "mov" in info.container.split(",")
    keeps_late_start = not info.clock.starts_anywhere and (container == "matroska" or is_mp4)
    earliest = start
    if info.others and info.path.is_file() and (container == "matroska" or not keeps_late_start):
        with open_input(info.path) as source:
            streams = [s for s in source.streams if s.type in ("audio", "subtitle", "video") and not is_picture(s)]
            earliest = min(start, earliest_packet(source, [s for s in streams if s.index != info.stream_index]))
    unit = 1000 if container == "matroska" else lcm(1000, info.time_base.denominator)
    if earliest > 0:
        return Fraction(0) if keeps_late_start else -Fraction(floor(earliest * unit), unit)
    if container != "matroska":
        earliest = min(start, Fraction(0))
    return Fraction(max(0, ceil(-earliest * unit)), unit)
