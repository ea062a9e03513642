"""Any frame of a video, exactly: by seeking if the file allows it, and checked against the first pass."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice, pairwise
from typing import Any

import numpy as np

from selfhvd_tta.errors import InputError
from selfhvd_tta.video.decoding import DamageLog, decode_all
from selfhvd_tta.video.planes import coded_planes
from selfhvd_tta.video.probe import VideoInfo
from selfhvd_tta.video.source import DECODE_ERRORS, open_input


@dataclass
class FrameIndex:
    """What the first complete pass over a video found, per frame.

    Attributes:
        raw: presentation time as the decoder gave it.
        pts: presentation time in use: strictly increasing.
        key: decoding can start here.
        check: :func:`checksum` of its pixels.
        dropped: times of decoded frames that were left out.
        damaged: something could not be decoded as it should; what the decoder then makes up may differ from pass to
            pass, so frames are known by their times alone where a second look from the start gives other pixels.
        end: when the last frame ends.
        entry: where decoding began, in units of the time base; None: at the start of the file.
        skipped: frames that were decoded before the first one of the part that is read.
        reorder_depth: how many frames the decoder had to hold back; None if PyAV does not say.
    """

    raw: list[int | None] = field(default_factory=list)
    pts: list[int] = field(default_factory=list)
    key: list[bool] = field(default_factory=list)
    check: list[int] = field(default_factory=list)
    dropped: set[int | None] = field(default_factory=set)
    damaged: bool = False
    end: int = 0
    entry: int | None = None
    skipped: int = 0
    reorder_depth: int | None = None


class Cursor:
    """Fetches frames by index, by decoding on or by seeking, and checks that they are the right ones."""

    def __init__(self, info: VideoInfo, table: FrameIndex) -> None:
        self.info = info
        self.table = table
        raw = [pts for pts in table.raw if pts is not None]
        increasing = len(raw) == len(table.raw) and all(a < b for a, b in pairwise(raw))
        # If the clock jumps, a time does not determine the place in the file.
        seekable = increasing and not info.clock.starts
        self.by_raw = {pts: i for i, pts in enumerate(raw)} if seekable else None
        self.keys = [i for i, key in enumerate(table.key) if key]
        self.container: Any = None
        self._open()

    def __enter__(self) -> Cursor:
        return self

    def __exit__(self, *_: object) -> None:
        self.container.close()

    def fetch(self, index: int) -> Any:
        """The decoded frame at ``index``.

        Raises:
            InputError: it does not decode as in the first pass.
        """
        keys = [k for k in self.keys if k <= index]
        key = keys[-1] if keys else 0
        if not key <= self.position <= index:
            # The second attempt starts one key frame earlier: in some files a seek lands after the requested one.
            for start in keys[:-3:-1]:
                frame = self._advance(index) if self._seek(start) else None
                if frame is not None:
                    return frame
            self._open()
        frame = self._advance(index)
        if frame is None:
            self._open()
            frame = self._advance(index, by_time_alone=self.table.damaged)
        if frame is None:
            raise InputError(
                f"{self.info.path}: frame {index} does not decode as it did before",
                "Did the file change during the run? Copy it to a local disk and try again.",
            )
        return frame

    def _open(self) -> None:
        """Rewind to the first frame."""
        if self.container is not None:
            self.container.close()
        self.container = open_input(self.info.path)
        self.stream = self.container.streams[self.info.stream_index]
        self.stream.thread_type = "AUTO"
        if self.table.entry is not None:
            self.container.seek(self.table.entry, stream=self.stream)
        frames = decode_all(self.container, self.stream, DamageLog(), self.info.clock)
        self.frames: Iterator[Any] = islice(frames, self.table.skipped, None)
        self.position = 0

    def _seek(self, key: int) -> bool:
        """Seek to frame ``key`` or an earlier key frame; False if this file does not allow seeking."""
        if self.by_raw is None or key == 0:
            self._open()
            return True
        try:
            self.container.seek(self.table.raw[key], stream=self.stream)
        except DECODE_ERRORS:
            return False
        if self.table.reorder_depth is not None:
            self.stream.codec_context.reorder_depth = self.table.reorder_depth
        self.frames = decode_all(self.container, self.stream, DamageLog(), self.info.clock)
        for frame in self.frames:
            # Frames before the first key frame refer to pictures that were not decoded.
            if frame.key_frame and frame.pts in self.by_raw:
                self.position = self.by_raw[frame.pts]
                self.frames = _chain(frame, self.frames)
                return self.position <= key
        return False

    def _advance(self, index: int, by_time_alone: bool = False) -> Any:
        """The frame at ``index``, which must not lie behind the current one; None if the first pass saw another."""
        while self.position <= index:
            frame = next(self.frames, None)
            if frame is None:
                return None
            if frame.pts != self.table.raw[self.position]:
                if frame.pts in self.table.dropped:
                    continue
                return None
            here, self.position = self.position, self.position + 1
            if here == index:
                return frame if by_time_alone or checksum(frame) == self.table.check[index] else None
        return None


def _chain(first: Any, rest: Iterator[Any]) -> Iterator[Any]:
    yield first
    yield from rest


def checksum(frame: Any) -> int:
    """CRC-32 of every eighth line of the first component: identifies frames at a hundredth of the cost of decoding."""
    planes, _ = coded_planes(frame)
    return zlib.crc32(np.ascontiguousarray(planes[0][::8]).tobytes())
