"""One clock for all streams of a file whose times jump: joined recordings, or a camera that was restarted.

Transport streams state times on a clock of their own, which starts anywhere and jumps where two of them were put one
after the other. Every stream jumps at the same place of the file then. The places are found once, by looking at the
packets of picture and sound, and from there on each packet of any stream gets the same correction.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from selfhvd_tta.video.compat import time_base_of
from selfhvd_tta.video.source import DECODE_ERRORS, is_picture

MAY_JUMP = 0x0200  # AVFMT_TS_DISCONT: the format allows discontinuous times
FAR_S = 10  # A longer gap in all streams is a jump; shorter ones are pauses of the recording.
CONFIRMED = 2  # Packets that have to follow on the new times; a single wrong time is damage.
LEADING = 16  # Packets among which the earliest one of a part is looked for: pictures are coded out of order.


@dataclass(frozen=True)
class Clock:
    """What to add to the times of a file's packets.

    Attributes:
        starts: byte position in the file where each part after the first begins, ascending.
        offsets: seconds to add to every time of each of these parts.
        starts_anywhere: the first time means nothing, as in a transport stream.
    """

    starts: tuple[int, ...] = ()
    offsets: tuple[Fraction, ...] = ()
    starts_anywhere: bool = False

    def retime(self, packet: Any) -> Any:
        """Put a packet on the common clock, in place."""
        if self.starts and packet.size and packet.pos is not None:
            part = bisect_right(self.starts, packet.pos)
            if part:
                ticks = round(self.offsets[part - 1] / time_base_of(packet))
                if packet.pts is not None:
                    packet.pts += ticks
                if packet.dts is not None:
                    packet.dts += ticks
        return packet


def find_clock(container: Any) -> Clock:
    """Read all packets of picture and sound of an open file, if its format lets times jump, and find where they do."""
    if not int(container.format.flags) & MAY_JUMP:
        return Clock()
    streams = [s for s in container.streams if s.type in ("video", "audio") and not is_picture(s)]
    tracks = {stream.index: _Track(time_base_of(stream)) for stream in streams}
    for packet in _readable(container, streams):
        tracks[packet.stream.index].add(packet)
    starts: list[int] = []
    offsets: list[Fraction] = []
    for jumps in _common(list(tracks.values())):
        before = offsets[-1] if offsets else Fraction(0)
        starts.append(min(jump.pos for jump in jumps))
        # No stream may overlap with itself, and all get the same correction.
        offsets.append(before + max(jump.end - jump.start for jump in jumps))
    return Clock(tuple(starts), tuple(offsets), True)


def _readable(container: Any, streams: list[Any]) -> Iterator[Any]:
    packets = container.demux(streams) if streams else iter(())
    while True:
        try:
            packet = next(packets, None)
        except DECODE_ERRORS:
            return  # where it cannot be read the decoder stops too, and says so
        if packet is None:
            return
        if packet.size and packet.pos is not None and (packet.dts is not None or packet.pts is not None):
            yield packet


@dataclass
class _Jump:
    """A place where one stream's times jump.

    Attributes:
        before: byte position of the last packet on the old times.
        pos: byte position of the first packet on the new times.
        end: when the old part ends, seconds.
        start: when the new part starts, seconds.
    """

    before: int
    pos: int
    end: Fraction
    start: Fraction


@dataclass
class _Run:
    """Successive packets without a jump, in ticks."""

    pos: int
    first: int
    last: int
    end: int
    last_pos: int
    count: int = 1

    def add(self, pos: int, first: int, last: int, end: int) -> None:
        if self.count < LEADING:
            self.first = min(self.first, first)
        self.last, self.last_pos, self.end = last, pos, max(self.end, end)
        self.count += 1


@dataclass
class _Track:
    """One stream's packets so far."""

    unit: Fraction
    runs: list[_Run] = field(default_factory=list)
    trial: _Run | None = None

    def add(self, packet: Any) -> None:
        stated = packet.dts if packet.dts is not None else packet.pts
        shown = packet.pts if packet.pts is not None else packet.dts
        step = packet.duration or 1
        # Without decoding times pictures come out of order.
        slack = step if packet.dts is not None else round(1 / self.unit)
        far = max(round(FAR_S / self.unit), 100 * step)
        facts = (packet.pos, shown, stated, shown + step)
        if not self.runs:
            self.runs.append(_Run(packet.pos, shown, stated, shown + step, packet.pos))
        elif self.trial is not None and -slack < stated - self.trial.last <= far:
            self.trial.add(*facts)
            if self.trial.count > CONFIRMED:
                self.runs.append(self.trial)
                self.trial = None
        elif -slack < stated - self.runs[-1].last <= far:
            self.trial = None
            self.runs[-1].add(*facts)
        else:
            self.trial = _Run(packet.pos, shown, stated, shown + step, packet.pos)

    def jumps(self) -> list[_Jump]:
        return [
            _Jump(old.last_pos, new.pos, old.end * self.unit, new.first * self.unit)
            for old, new in zip(self.runs, self.runs[1:], strict=False)
        ]


def _common(tracks: list[_Track]) -> Iterator[list[_Jump]]:
    """The jumps of all streams that are one jump of the file: each stream that continues after it takes part in it."""
    tracks = [track for track in tracks if track.runs]
    waiting = sorted(((jump.pos, n, jump) for n, track in enumerate(tracks) for jump in track.jumps()))
    while waiting:
        pos = waiting[0][0]
        group = {number: jump for _, number, jump in reversed(waiting) if jump.before < pos}
        waiting = [entry for entry in waiting if entry[2].before >= pos]
        around = {n for n, track in enumerate(tracks) if track.runs[0].pos < pos <= track.runs[-1].last_pos}
        if around <= set(group):
            yield list(group.values())
