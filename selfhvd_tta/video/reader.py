"""Frames of a video file: in presentation order, as luma only, or any of them by seeking.

Damage is not hidden and does not stop the work: what can be decoded is delivered with its own time stamps (a frame that
the decoder concealed counts as decodable, a packet that it refuses is a missing frame), and ``VideoReader.warnings``
says afterwards how many frames are missing and where.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np

from selfhvd_tta.errors import InputError
from selfhvd_tta.video.color import Array, PixelLayout, YuvCoding
from selfhvd_tta.video.planes import coded_planes, to_luma, to_rgb
from selfhvd_tta.video.probe import DECODE_ERRORS, VideoInfo, input_errors, open_input, probe

# Containers without presentation times: the decoder's output order with the sorted packet times is right.
NO_PTS = ("avi", "h264", "hevc", "m4v", "mpegvideo", "mjpeg")
# Codecs of which a packet may rightly decode to nothing.
PACKETS_WITHOUT_FRAME = ("vp8", "libvpx", "mpeg4", "msmpeg4v3", "rv40")


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


@dataclass
class _Index:
    """What the first complete pass learned; the later ones must agree with it."""

    raw: list[int | None] = field(default_factory=list)
    pts: list[int] = field(default_factory=list)
    key: list[bool] = field(default_factory=list)
    check: list[int] = field(default_factory=list)
    end: int = 0


class VideoReader:
    """Reads one video file.

    The first complete pass of :meth:`luma` or of the iterator builds the index that :meth:`read` needs (it makes one
    itself if there was none).

    Args:
        path: a file that FFmpeg can decode.

    Raises:
        InputError: as :func:`probe`; interlaced video; while iterating: the picture changes its size, or not one frame
            can be decoded.
    """

    def __init__(self, path: str | Path) -> None:
        self.info: VideoInfo = probe(path)
        self.warnings: list[str] = []
        self._index: _Index | None = None
        self._coding = YuvCoding.for_layout(
            self.info.layout, self.info.color, self.info.codec, self.info.chroma_location
        )
        self._fixed_times: list[int] | None = None
        self._reorder_depth: int | None = None
        if self.info.interlaced:
            name = self.info.path.name
            raise InputError(
                f"{self.info.path}: is interlaced, every frame shows two moments at once",
                f'Deinterlace it first: ffmpeg -i "{name}" -vf bwdif=mode=send_frame -crf 12 -c:a copy progressive.mp4',
            )

    @property
    def frame_count(self) -> int | None:
        """Number of frames, once a pass has counted them."""
        return None if self._index is None else len(self._index.pts)

    @property
    def pts(self) -> tuple[int, ...]:
        """Presentation times of all frames; makes a pass if there was none."""
        return tuple(self._scanned().pts)

    def __iter__(self) -> Iterator[Frame]:
        for index, pts, frame in self._sequential():
            yield Frame(index, pts, self._rgb(frame))

    def luma(self) -> Iterator[LumaFrame]:
        """All frames' luma in presentation order; the cheap pass that counts them."""
        for index, pts, frame in self._sequential():
            yield LumaFrame(index, pts, to_luma(frame, self._coding_of(frame)))

    def read(self, indices: Sequence[int]) -> Iterator[Frame]:
        """Some frames, exactly the ones that a sequential pass delivers.

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
        with open_input(self.info.path) as container, input_errors(self.info.path):
            cursor = _Cursor(container, self._stream(container), table, self._reorder_depth)
            for index in wanted:
                yield Frame(index, table.pts[index], self._rgb(cursor.fetch(index, self.info.path)))

    def _scanned(self) -> _Index:
        if self._index is None:
            for _ in self._sequential():
                pass
        assert self._index is not None
        return self._index

    def _stream(self, container: Any) -> Any:
        stream = container.streams[self.info.stream_index]
        stream.thread_type = "AUTO"
        return stream

    def _coding_of(self, frame: Any) -> YuvCoding:
        if frame.format.name == self.info.pix_fmt:
            return self._coding
        layout = PixelLayout.of(frame.format.name)
        return YuvCoding.for_layout(layout, self.info.color, self.info.codec, self.info.chroma_location)

    def _rgb(self, frame: Any) -> Array:
        return to_rgb(frame, self._coding_of(frame))

    def _sequential(self) -> Iterator[tuple[int, int, Any]]:
        """Decode from the start; builds the index if there is none, else follows it."""
        table = _Index()
        log = _DamageLog()
        times = self._times_without_pts()
        step = self._nominal_step()
        with open_input(self.info.path) as container, input_errors(self.info.path):
            stream = self._stream(container)
            for frame in decode_all(container, stream, log):
                self._require_size(frame, table.pts)
                index = len(table.pts)
                raw = frame.pts
                pts = times[index] if times is not None and index < len(times) else raw
                if pts is None:
                    pts = table.pts[-1] + step if table.pts else 0
                if table.pts and pts <= table.pts[-1]:
                    log.repaired += 1
                    pts = table.pts[-1] + 1
                table.raw.append(raw)
                table.pts.append(pts)
                table.key.append(bool(frame.key_frame))
                table.check.append(checksum(frame))
                table.end = pts + (frame.duration or step)
                yield index, pts, frame
            self._reorder_depth = getattr(stream.codec_context, "reorder_depth", None)
        if not table.pts:
            raise InputError(f"{self.info.path}: not one frame can be decoded", "The file is damaged; copy it again.")
        if self._index is None:
            self._index = table
            self.warnings += log.report(self.info, table)
        elif self._index.pts != table.pts:
            raise InputError(
                f"{self.info.path}: decoded to {len(self._index.pts)} frames at first and to {len(table.pts)} now",
                "Did the file change meanwhile? Copy it to a local disk and try again.",
            )

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


class _DamageLog:
    """Counts what went wrong in one pass."""

    def __init__(self) -> None:
        self.packets: set[int] = set()
        self.refused = 0
        self.concealed = 0
        self.interlaced = 0
        self.repaired = 0
        self.stopped = ""

    def report(self, info: VideoInfo, table: _Index) -> list[str]:
        """One line for each kind of damage."""
        lines: list[str] = []
        raw = {pts for pts in table.raw if pts is not None}
        absent = sorted(self.packets - raw) if len(raw) == len(table.raw) else []
        if absent and (self.refused or info.codec not in PACKETS_WITHOUT_FRAME):
            since = clock(float(absent[0] * info.time_base))
            lines.append(
                f"{len(absent)} frame{'s' * (len(absent) > 1)} missing after {since} (damaged, cannot be decoded)"
            )
        elif self.refused:
            lines.append(f"{self.refused} packet{'s' * (self.refused > 1)} cannot be decoded")
        if self.stopped:
            lines.append(f"reading stopped after {clock(float(table.end * info.time_base))}: {self.stopped}")
        if info.duration_s is not None:
            length = float((table.end - table.pts[0]) * info.time_base)
            if length < info.duration_s - max(0.5, 0.01 * info.duration_s):
                lines.append(f"the video ends at {clock(length)} although its file says {clock(info.duration_s)}")
        if self.concealed:
            lines.append(f"{self.concealed} damaged frame{'s' * (self.concealed > 1)} kept as decoded")
        if self.repaired:
            lines.append(f"{self.repaired} frame{'s' * (self.repaired > 1)} had a time not after the previous one's")
        if self.interlaced:
            lines.append(f"{self.interlaced} frame{'s' * (self.interlaced > 1)} are interlaced")
        return lines


def decode_all(container: Any, stream: Any, log: _DamageLog) -> Iterator[Any]:
    """Every frame that can be decoded from here on, in presentation order; damage goes to ``log``."""
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
        if packet is not None and packet.size and packet.pts is not None and not packet.is_discard:
            log.packets.add(packet.pts)
        for frame in _decode(stream, packet, log):
            log.concealed += bool(frame.is_corrupt)
            log.interlaced += bool(frame.interlaced_frame)
            yield frame
        if packet is None:
            return


def _decode(stream: Any, packet: Any, log: _DamageLog) -> list[Any]:
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


class _Cursor:
    """Fetches frames by index from an open container, by going on or by seeking, and checks that they are right."""

    def __init__(self, container: Any, stream: Any, table: _Index, reorder_depth: int | None) -> None:
        self.container = container
        self.stream = stream
        self.table = table
        self.reorder_depth = reorder_depth
        raw = [pts for pts in table.raw if pts is not None]
        increasing = len(raw) == len(table.raw) and all(a < b for a, b in pairwise(raw))
        self.by_raw = {pts: i for i, pts in enumerate(raw)} if increasing else None
        self.keys = [i for i, key in enumerate(table.key) if key]
        self.position = 0
        self.frames = decode_all(container, stream, _DamageLog())

    def fetch(self, index: int, path: Path) -> Any:
        key = max((k for k in self.keys if k <= index), default=0)
        attempts = [key]
        if key:
            attempts.append(max((k for k in self.keys if k < key), default=0))
        if not self.position <= index or self.position < key:
            for start in attempts:
                if self._seek(start):
                    frame = self._advance(index)
                    if frame is not None:
                        return frame
            self._rewind()
        frame = self._advance(index)
        if frame is None:
            self._rewind()
            frame = self._advance(index)
        if frame is None:
            raise InputError(
                f"{path}: frame {index} does not decode as it did before",
                "Did the file change meanwhile? Copy it to a local disk and try again.",
            )
        return frame

    def _rewind(self) -> None:
        first = self.table.raw[0]
        self.container.seek(min(0, first or 0), stream=self.stream)
        self.frames = decode_all(self.container, self.stream, _DamageLog())
        self.position = 0

    def _seek(self, key: int) -> bool:
        """Stand before frame ``key`` or an earlier key frame; False if this file cannot be sought in."""
        if self.by_raw is None or key == 0:
            self._rewind()
            return True
        try:
            self.container.seek(self.table.raw[key], stream=self.stream)
        except DECODE_ERRORS:
            return False
        if self.reorder_depth is not None:
            self.stream.codec_context.reorder_depth = self.reorder_depth
        self.frames = decode_all(self.container, self.stream, _DamageLog())
        for frame in self.frames:
            # Frames before the first key frame lean on pictures that were not decoded.
            if frame.key_frame and frame.pts in self.by_raw:
                found = self.by_raw[frame.pts]
                self.position = found
                self.frames = _chain(frame, self.frames)
                return found <= key
        return False

    def _advance(self, index: int) -> Any:
        """The frame at ``index``, which must not lie behind; None if it is not what the first pass saw."""
        for frame in self.frames:
            here = self.position
            self.position += 1
            if frame.pts != self.table.raw[here]:
                return None
            if here == index:
                return frame if checksum(frame) == self.table.check[index] else None
            if self.position >= len(self.table.pts):
                return None
        return None


def _chain(first: Any, rest: Iterator[Any]) -> Iterator[Any]:
    yield first
    yield from rest


def checksum(frame: Any) -> int:
    """CRC-32 of every eighth line of the first component: tells frames apart at a hundredth of the decoding's cost."""
    planes, _ = coded_planes(frame)
    return zlib.crc32(np.ascontiguousarray(planes[0][::8]).tobytes())


def clock(seconds: float) -> str:
    """``m:ss`` or ``h:mm:ss``."""
    sign, whole = ("-" if seconds < 0 else ""), int(abs(seconds))
    hours, minutes = divmod(whole // 60, 60)
    tail = f"{whole % 60:02d}"
    return f"{sign}{hours}:{minutes:02d}:{tail}" if hours else f"{sign}{minutes}:{tail}"
