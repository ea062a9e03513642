"""Frame times in a container's own units."""

from __future__ import annotations

from fractions import Fraction
from math import ceil, lcm

from selfhvd_tta.video.probe import VideoInfo, open_input
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
    """Seconds by which all streams have to move, so that a part begins at zero, or nothing comes before zero.

    MP4 would hide frames before zero (an edit list starts there), Matroska has no negative times for any stream, and
    audio often starts a little before zero.

    Args:
        first: presentation time of the first frame in units of ``info.time_base``.
        info: of the source.
        container: muxer name.
    """
    start = first * info.time_base
    if info.span is not None:
        return -start  # a part begins at zero
    unit = lcm(1000, info.time_base.denominator)
    if container == "matroska":
        unit = 1000
        if info.others and info.path.is_file():
            with open_input(info.path) as source:
                streams = [s for s in source.streams if s.type in ("audio", "subtitle", "video")]
                start = min(start, earliest_packet(source, [s for s in streams if s.index != info.stream_index]))
    return Fraction(max(0, ceil(-start * unit)), unit)
