"""Decodes past damage and keeps account of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import av.error

from selfhvd_tta.video.clock import Clock
from selfhvd_tta.video.probe import VideoInfo
from selfhvd_tta.video.source import DECODE_ERRORS
from selfhvd_tta.video.stated_size import cut_off
from selfhvd_tta.wording import clock, plural

# Codecs whose packets may validly decode to nothing.
PACKETS_WITHOUT_FRAME = ("vp8", "mpeg4", "msmpeg4v3", "rv40")

# Gaps that leave a frame rate a constant one: this share of all steps, and as many as this in a short clip.
GAPS_SHARE = 0.05
FEW_GAPS = 2

TRANSPORT_PACKETS = (188, 192, 204)  # bytes: plain, with a time code (M2TS), with error correction


class Timeline:
    """Makes the times of a stream increase where the file's do not.

    Equal times are set one tick apart. A jump back by a second or more (streams cut together) is closed: what follows
    continues where the stream was.

    Args:
        step: nominal distance of successive times, in ticks.
        second: ticks in a second.
    """

    def __init__(self, step: int, second: int) -> None:
        self.step = step
        self.jump = max(second, 10 * step)
        self.last: int | None = None
        self.offset = 0
        self.repaired = 0
        self.jumps = 0

    def place(self, time: int | None, drop_late: bool = False) -> int | None:
        """The time to use for the file's ``time`` (None: unknown); None if the frame comes too late and is dropped."""
        if self.last is None:
            self.last = time or 0
            return self.last
        now = self.last + self.step if time is None else time + self.offset
        if now <= self.last - self.jump:
            self.jumps += 1
            self.offset += self.last + self.step - now
            now = self.last + self.step
        elif now <= self.last:
            if drop_late:
                return None
            self.repaired += 1
            now = self.last + 1
        self.last = now
        return now


class DamageLog:
    """Counts what went wrong in one pass."""

    def __init__(self) -> None:
        self.packets: set[int] = set()
        self.refused = 0
        self.concealed = 0
        self.interlaced = 0
        self.corrupt = 0
        self.late = 0
        self.stopped = ""

    def report(
        self, info: VideoInfo, timeline: Timeline, raw: Sequence[int | None], pts: Sequence[int], end: int
    ) -> list[str]:
        """One line for each kind of damage.

        Args:
            info: of the video.
            timeline: that placed its frames.
            raw: times of the decoded frames as they were found.
            pts: their times in use.
            end: when the last one ends.
        """
        lines: list[str] = []
        known = {time for time in raw if time is not None}
        absent = sorted(self.packets - known) if len(known) == len(raw) else []
        if info.span is not None and known:
            absent = [time for time in absent if min(known) <= time <= max(known)]
        # An open group of pictures that was cut off: nothing is damaged, their reference is in another file.
        leading = [time for time in absent if known and time < min(known)] if not self.refused else []
        absent = absent[len(leading) :]
        if leading:
            lines.append(f"{plural(len(leading), 'frame')} before the first complete picture cannot be decoded")
        if absent and (self.refused or info.codec not in PACKETS_WITHOUT_FRAME):
            since = clock(float(absent[0] * info.time_base))
            lines.append(f"{plural(len(absent), 'frame')} missing after {since} (damaged, cannot be decoded)")
        elif self.refused:
            lines.append(f"{plural(self.refused, 'packet')} cannot be decoded")
        if not (lines or info.clock.starts or timeline.jumps or timeline.repaired):
            count, before = gaps(pts)
            if count:
                at = clock(float(pts[before] * info.time_base), 2)
                lines.append(f"the times leave room for {plural(count, 'frame')} that the file lacks, first after {at}")
        if self.corrupt > len(info.clock.starts) and not lines:  # a joint looks like damage, but is not
            lines.append(f"{plural(self.corrupt, 'packet')} incomplete")
        if _ends_within_packet(info):
            lines.append("the file was cut off or has lost bytes: its length is not a whole number of packets")
        if info.path.is_file() and (missing := cut_off(info.path, info.container)):
            lines.append(missing)
        if self.stopped:
            lines.append(f"reading stopped after {clock(float(end * info.time_base))}: {self.stopped}")
        if info.duration_s is not None and info.span is None:
            length = float((end - min([pts[0], *leading])) * info.time_base)
            step = (end - pts[-1]) * info.time_base
            # With a variable rate the last frame may be shown as long as any other.
            gap = max((b - a for a, b in pairwise(pts)), default=0) * info.time_base
            slack = 0.5 + 0.01 * info.duration_s
            if info.duration_is_video:
                slack = max(0.04, 2.5 * float(step), 1.5 * float(gap))
            if length < info.duration_s - slack:
                ends, stated = (clock(value, 2 if info.duration_s < 600 else 0) for value in (length, info.duration_s))
                lines.append(f"the video ends at {ends} although its file says {stated}")
        if self.concealed:
            lines.append(f"{plural(self.concealed, 'damaged frame')} kept as decoded")
        if self.late:
            lines.append(f"{plural(self.late, 'frame')} out of order after damaged data and dropped")
        if timeline.repaired:
            lines.append(f"{plural(timeline.repaired, 'frame')} had a time not after the previous one's")
        if info.clock.starts:
            times = plural(len(info.clock.starts), "time")
            lines.append(f"the clock of the file jumps {times}; all streams continue without a gap")
        if timeline.jumps:
            lines.append(f"the times jump back {plural(timeline.jumps, 'time')}; what follows continues without a gap")
        if self.interlaced:
            lines.append(f"{plural(self.interlaced, 'frame')} flagged interlaced")
        return lines


def gaps(pts: Sequence[int]) -> tuple[int, int]:
    """How many frames of a constant rate are absent between the others.

    A demuxer passes over data that it cannot make out, and what it skips leaves no trace but the times.

    Args:
        pts: strictly increasing times of the frames, in ticks.

    Returns:
        Number of absent frames, and the index of the frame before the first of them; (0, 0) if the rate is not
        constant, where a long step means nothing.
    """
    steps = [b - a for a, b in pairwise(pts)]
    if not steps:
        return 0, 0
    usual = sorted(steps)[len(steps) // 2]
    rounding = 1 if usual >= 4 else 0  # where a tick is about a frame, times are exact
    regular = [step for step in steps if abs(step - usual) <= rounding]
    long = [i for i, step in enumerate(steps) if abs(step - usual) > rounding]
    if not long or len(regular) < 4 or len(long) > max(FEW_GAPS, GAPS_SHARE * len(steps)):
        return 0, 0
    step = sum(regular) / len(regular)
    frames = [round(steps[i] / step) for i in long]
    whole = all(
        count > 1 and abs(steps[i] - count * step) <= 1.5 * rounding for i, count in zip(long, frames, strict=True)
    )
    return (sum(frames) - len(frames), long[0]) if whole else (0, 0)


def _ends_within_packet(info: VideoInfo) -> bool:
    """Whether a transport stream, which has no header that states its length, does not consist of whole packets."""
    if info.container != "mpegts" or not info.path.is_file():
        return False
    length = info.path.stat().st_size
    return all(length % packet for packet in TRANSPORT_PACKETS)


def decode_all(container: Any, stream: Any, log: DamageLog, clock: Clock) -> Iterator[Any]:
    """Every frame that can be decoded from here on, in presentation order and timed by ``clock``; damage: ``log``."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except av.error.EOFError:
            return
        except DECODE_ERRORS as error:
            log.stopped = str(getattr(error, "strerror", None) or error)
            packet = None
        if packet is not None:
            clock.retime(packet)
        if packet is not None and packet.size and not packet.is_discard:
            log.corrupt += bool(packet.is_corrupt)
            if packet.pts is not None:
                log.packets.add(packet.pts)
        for frame in _decode(stream, packet, log):
            log.concealed += bool(frame.is_corrupt)
            log.interlaced += bool(frame.interlaced_frame)
            yield frame
        if packet is None:
            return


def _decode(stream: Any, packet: Any, log: DamageLog) -> list[Any]:
    """Frames of one packet; of the flush (None or an empty packet) all that are left, past errors on the way."""
    flush = packet is None or not packet.size
    frames: list[Any] = []
    for _ in range(256 if flush else 1):
        try:
            frames += stream.decode(None if flush else packet)
            break
        except av.error.EOFError:
            break
        except DECODE_ERRORS:
            log.refused += 1
    return frames
