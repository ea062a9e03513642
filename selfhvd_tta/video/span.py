"""Cutting a part out of a video: what belongs to it, and when it happens in the result."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from selfhvd_tta.times import TimeRange
from selfhvd_tta.video.compat import as_fraction, time_base_of

# A decoder that starts in the middle needs a few pictures before it outputs all of them, in the right order.
RUN_UP_S = 4


@dataclass(frozen=True)
class Span:
    """A part of a video file in the file's own time.

    Attributes:
        origin: time of the file's first frame, seconds; ranges count from it.
        range: what the user asked for.
    """

    origin: Fraction
    range: TimeRange

    @property
    def start(self) -> Fraction:
        """First time that belongs to it."""
        return self.origin + self.range.start

    @property
    def stop(self) -> Fraction | None:
        """First time that no longer belongs to it; None: it lasts to the end."""
        return None if self.range.stop is None else self.origin + self.range.stop

    @property
    def seek_to(self) -> Fraction | None:
        """Where to begin decoding; None: at the start of the file."""
        return self.start - RUN_UP_S if self.range.start > 2 * RUN_UP_S else None


@dataclass(frozen=True)
class Cut:
    """What the other streams are cut to.

    Attributes:
        start: time of the first frame in the file, seconds; zero in the result.
        stop: end of the part; None: the end of the file.
    """

    start: Fraction
    stop: Fraction | None

    def keep(self, packet: Any, opened: set[int]) -> bool:
        """Whether a packet of another stream belongs to the part; trims a subtitle that reaches beyond it.

        A packet counts by its start, so that sound begins and ends within one packet (about 20 ms) of the picture and
        stays exactly in time. A second video stream begins with its first key frame.

        Args:
            packet: with its times; changed where it is trimmed.
            opened: indices of streams that have begun; is added to.
        """
        unit = time_base_of(packet)
        time = packet.pts if packet.pts is not None else packet.dts
        at, last = time * unit, Fraction(packet.duration or 0) * unit
        kind = packet.stream.type
        if self.stop is not None and at >= self.stop:
            return False
        if kind == "subtitle" and last:
            begin, end = max(at, self.start), at + last if self.stop is None else min(at + last, self.stop)
            packet.pts = packet.dts = round(begin / unit)
            packet.duration = round((end - begin) / unit)
            return end > begin
        if at < self.start:
            return False
        if kind == "video" and packet.stream.index not in opened and not packet.is_keyframe:
            return False
        opened.add(packet.stream.index)
        return True

    def chapters(self, chapters: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """The chapters that reach into the part, cut to it, in the file's time."""
        for chapter in chapters:
            unit = as_fraction(chapter["time_base"]) or Fraction(1, 1000)
            first, last = round(self.start / unit), chapter["end"]
            if self.stop is not None:
                last = min(last, round(self.stop / unit))
            start = max(chapter["start"], first)
            if start < last:
                yield chapter | {"start": start, "end": last}
