"""Frames of a video file: in presentation order, as luma only, or any of them by seeking.

Damage is not hidden and does not stop the work: what can be decoded is delivered with its own time stamps (a frame that
the decoder concealed counts as decodable, a packet that it refuses is a missing frame), and ``VideoReader.warnings``
says afterwards how many frames are missing and where.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

from selfhvd_tta.errors import InputError, UsageError
from selfhvd_tta.times import TimeRange
from selfhvd_tta.video.clock import find_clock
from selfhvd_tta.video.color import Array, ColorTags, PixelLayout, YuvCoding
from selfhvd_tta.video.decoding import DamageLog, Timeline, decode_all
from selfhvd_tta.video.planes import to_luma, to_rgb
from selfhvd_tta.video.probe import VideoInfo, probe
from selfhvd_tta.video.seeking import Cursor, FrameIndex, checksum
from selfhvd_tta.video.source import input_errors, open_input
from selfhvd_tta.video.span import Span
from selfhvd_tta.wording import clock

# Containers without presentation times: the decoder's output order with the sorted packet times is right.
NO_PTS = ("avi", "h264", "hevc", "m4v", "mpegvideo", "mjpeg")


@dataclass(frozen=True)
class Frame:
    """One picture in RGB.

    Attributes:
        index: position in presentation order, from 0.
        pts: presentation time in units of ``VideoInfo.time_base``; strictly increasing.
        rgb: (H, W, 3) uint8, or uint16 with white at 65535 where the video has more than 8 bits.
    """

    index: int
    pts: int
    rgb: Array


@dataclass(frozen=True)
class LumaFrame:
    """One picture's luma.

    Attributes:
        index: position in presentation order, from 0.
        pts: as in :class:`Frame`.
        y: (H, W) uint8, black 0, white 255.
    """

    index: int
    pts: int
    y: Array


class VideoReader:
    """Reads one video file.

    The first complete pass of :meth:`luma` or of the iterator builds the index that :meth:`read` needs (it makes one
    itself if there was none).

    Args:
        path: a file that FFmpeg can decode.
        part: of it to read; frames count from its first one, times stay those of the file.
        progressive: take frames that are flagged interlaced for progressive ones.

    Raises:
        InputError: as :func:`probe`; video flagged interlaced, without ``progressive``; while iterating: the picture
            changes its size, or not one frame can be decoded.
        UsageError: while iterating: there is no frame in that part.
    """

    def __init__(self, path: str | Path, part: TimeRange | None = None, progressive: bool = False) -> None:
        self.info: VideoInfo = probe(path)
        with open_input(self.info.path) as container, input_errors(self.info.path):
            found = find_clock(container)
        self.info = replace(self.info, clock=found)
        if found.starts:  # the file's own length and number of frames mean nothing then
            self.info = replace(self.info, duration_s=None, frames=None)
        self.warnings: list[str] = []
        self._index: FrameIndex | None = None
        self._coding = YuvCoding.for_layout(
            self.info.layout, self.info.color, self.info.codec, self.info.chroma_location
        )
        self._fixed_times: list[int] | None = None
        if part is not None:
            times = self._times_without_pts()
            origin = times[0] * self.info.time_base if times else self.info.origin
            self.info = replace(self.info, span=Span(origin, part), frames=_frames_in(self.info, part))
        if self.info.interlaced and not progressive:
            name = self.info.path.name
            raise InputError(
                f"{self.info.path}: is flagged interlaced, so that every frame shows two moments at once",
                "If moving edges look like combs, deinterlace it first: ffmpeg -i "
                f'"{name}" -vf bwdif=mode=send_frame -crf 12 -c:a copy progressive.mp4; if not, add --progressive.',
            )

    @property
    def pts(self) -> tuple[int, ...]:
        """Presentation times of all frames; makes a pass if there was none."""
        return tuple(self._scanned().pts)

    def __iter__(self) -> Iterator[Frame]:
        for index, pts, frame in self._sequential():
            yield Frame(index, pts, self._rgb(frame))

    def luma(self) -> Iterator[LumaFrame]:
        """Luma of all frames in presentation order; the cheap pass that counts them."""
        for index, pts, frame in self._sequential():
            yield LumaFrame(index, pts, to_luma(frame, self._coding_of(frame)))

    def read(self, indices: Sequence[int]) -> Iterator[Frame]:
        """Some frames, exactly as a sequential pass delivers them.

        Args:
            indices: positions in presentation order, ascending.

        Raises:
            IndexError: an index is out of range, or they are not ascending.
            InputError: the file no longer decodes as in the first pass.
        """
        table = self._scanned()
        wanted = [int(i) for i in indices]
        if any(b <= a for a, b in pairwise(wanted)):
            raise IndexError("frame indices must be ascending")
        if wanted and not 0 <= wanted[0] <= wanted[-1] < len(table.pts):
            raise IndexError(f"frame indices {wanted[0]}..{wanted[-1]} are not within 0..{len(table.pts) - 1}")
        with input_errors(self.info.path), Cursor(self.info, table) as cursor:
            for index in wanted:
                yield Frame(index, table.pts[index], self._rgb(cursor.fetch(index)))

    def _scanned(self) -> FrameIndex:
        if self._index is None:
            for _ in self._sequential():
                pass
        assert self._index is not None
        return self._index

    def _coding_of(self, frame: Any) -> YuvCoding:
        given = self.info.color
        tags = (int(frame.colorspace), int(frame.color_range), int(frame.color_primaries), int(frame.color_trc))
        name = frame.format.name
        if name == self.info.pix_fmt and tags[:2] == (given.matrix, given.range):
            return self._coding
        color = ColorTags(*tags).resolve(name, self.info.height, self.info.codec)
        return YuvCoding.for_layout(PixelLayout.of(name), color, self.info.codec, self.info.chroma_location)

    def _rgb(self, frame: Any) -> Array:
        return to_rgb(frame, self._coding_of(frame))

    def _sequential(self) -> Iterator[tuple[int, int, Any]]:
        """Decode from the start of the part; builds the index if there is none, else follows it."""
        span = self.info.span
        can_seek = self._times_without_pts() is None and not self.info.clock.starts
        seek_to = span.seek_to if span is not None and can_seek else None
        entry = None if seek_to is None else round(seek_to / self.info.time_base)
        if self._index is not None:
            entry = self._index.entry
        table = FrameIndex(entry=entry)
        for found in self._decode(table):
            if found is None:  # the seek went too far: decode from the start
                table = FrameIndex()
                yield from (again for again in self._decode(table) if again is not None)
                break
            yield found
        if not table.pts and span is not None and (table.skipped or entry is not None):
            length = "" if self.info.duration_s is None else f"; the video lasts {clock(self.info.duration_s)}"
            raise UsageError(f"{self.info.path}: there is no frame in that --range{length}", "Ask for another part.")
        if not table.pts:
            raise InputError(f"{self.info.path}: not one frame can be decoded", "The file is damaged; copy it again.")
        if self._index is None:
            self._index = table
        elif self._index.pts != table.pts:
            raise InputError(
                f"{self.info.path}: decoded to {len(self._index.pts)} frames at first and to {len(table.pts)} now",
                "Did the file change during the run? Copy it to a local disk and try again.",
            )

    def _decode(self, table: FrameIndex) -> Iterator[tuple[int, int, Any] | None]:
        """Decode from the start of the file, or from ``table.entry`` on; yields None if that lies after the part."""
        log = DamageLog()
        times = self._times_without_pts()
        step = self._nominal_step()
        timeline = Timeline(step, round(1 / self.info.time_base))
        span = self.info.span
        with open_input(self.info.path) as container, input_errors(self.info.path):
            stream = container.streams[self.info.stream_index]
            stream.thread_type = "AUTO"
            if table.entry is not None:
                container.seek(table.entry, stream=stream)
            for count, frame in enumerate(decode_all(container, stream, log, self.info.clock)):
                self._require_size(frame, table.pts)
                raw = frame.pts
                place = table.skipped + len(table.pts)
                stated = times[place] if times is not None and place < len(times) else raw
                pts = timeline.place(stated, drop_late=bool(log.refused or log.concealed))
                if pts is None:
                    log.late += 1
                    table.dropped.add(raw)
                    continue
                if span is not None:
                    now = pts * self.info.time_base
                    if now < span.start:
                        table.skipped = count + 1
                        continue
                    if table.entry is not None and not count:
                        yield None
                        return
                    if span.stop is not None and now >= span.stop:
                        break
                table.raw.append(raw)
                table.pts.append(pts)
                table.key.append(bool(frame.key_frame))
                table.check.append(checksum(frame))
                table.end = pts + (frame.duration or step)
                yield len(table.pts) - 1, pts, frame
            table.damaged = bool(log.refused or log.concealed or log.corrupt or log.late)
            table.reorder_depth = getattr(stream.codec_context, "reorder_depth", None)
        if self._index is None and table.pts:
            self.warnings += log.report(self.info, timeline, table.raw, table.pts, table.end)

    def _require_size(self, frame: Any, seen: list[int]) -> None:
        if (frame.width, frame.height) == (self.info.width, self.info.height):
            return
        at = clock(float(seen[-1] * self.info.time_base)) if seen else "its start"
        size = f"{self.info.width}x{self.info.height}"
        raise InputError(
            f"{self.info.path}: the picture changes from {size} to {frame.width}x{frame.height} at {at}",
            f'Scale it to one size first: ffmpeg -i "{self.info.path.name}" -s {size} -c:a copy scaled.mp4',
        )

    def _nominal_step(self) -> int:
        rate = self.info.average_rate or Fraction(25)
        return max(1, round(1 / (rate * self.info.time_base)))

    def _times_without_pts(self) -> list[int] | None:
        """Sorted packet times for containers that store no presentation times; None for the others."""
        if not set(self.info.container.split(",")) & set(NO_PTS):
            return None
        if self._fixed_times is None:
            times: list[int] = []
            with open_input(self.info.path) as container, input_errors(self.info.path):
                for packet in container.demux(container.streams[self.info.stream_index]):
                    if packet.size and packet.dts is not None:
                        times.append(packet.dts)
            self._fixed_times = sorted(set(times))
        return self._fixed_times


def _frames_in(info: VideoInfo, part: TimeRange) -> int | None:
    """How many frames a part probably has."""
    if info.average_rate is None or info.duration_s is None:
        return None
    stop = info.duration_s if part.stop is None else min(info.duration_s, float(part.stop))
    return max(1, round((stop - float(part.start)) * float(info.average_rate)))
