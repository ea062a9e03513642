"""The encoded video stream as closed segment files with a ledger, so that an interrupted run can be resumed.

A segment holds a fixed number of frames (the last one fewer) and starts with a key frame; its frames are numbered, not
timed: presentation times are kept in the ledger and applied when the segments are joined. So segments depend on
nothing but their frames and the encoding, and a resumed run writes the same bytes as an uninterrupted one. What the
open segment was given is kept next to it until it is closed, so that a resumed run can encode it again.
"""

from __future__ import annotations

import hashlib
import json
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np

from selfhvd_tta.files import fsync, sha256_of, write_atomically
from selfhvd_tta.video.color import Array, PixelLayout
from selfhvd_tta.video.compat import time_base_of
from selfhvd_tta.video.encoding import Encoding
from selfhvd_tta.video.planes import frame_from_planes
from selfhvd_tta.video.target import disk_errors

LEDGER = "segments.json"
SEGMENT_FRAMES = 60
# x265 leaves the decoding times of shorter streams undefined, which muxers refuse if chance will have it.
SHORTEST_HEVC = 3
KEPT = ".npz"
# Bytes per second of kept frames, on the average: 1920x1080 at three frames a second.
MOST_KEPT_PER_S = 10e6


@dataclass(frozen=True)
class Segment:
    """One closed file.

    Attributes:
        name: of the file within the folder.
        pts: presentation times of its frames, in the source's time base.
        sha256: of the file.
    """

    name: str
    pts: tuple[int, ...]
    sha256: str


@dataclass(frozen=True)
class CodedPacket:
    """A packet of the joined stream: PyAV's packet, and the frame that it shows."""

    packet: Any
    frame: int


class SegmentStore:
    """Writes frames into segments and records the finished ones.

    Args:
        folder: an existing folder of its own; segments that an earlier run finished there are taken over if they were
            made with the same encoding and length and are intact.
        encoding: of the video stream.
        length: frames per segment.
        seal: text that must be the same for a resumed run to take segments over (what made the frames).
        lasting: the folder outlives an interruption, so the frames of the open segment are kept as well.
    """

    def __init__(
        self,
        folder: Path,
        encoding: Encoding,
        length: int = SEGMENT_FRAMES,
        seal: str = "",
        lasting: bool = False,
    ) -> None:
        self.folder = folder
        self.encoding = encoding
        self.length = length
        self._fingerprint = hashlib.sha256(f"{encoding.fingerprint()} {length} {seal}".encode()).hexdigest()
        # Matroska for FFV1, which MP4 cannot hold; its packets are key frames in order.
        self._format, self._suffix = ("matroska", ".mkv") if encoding.codec == "ffv1" else ("mp4", ".mp4")
        self.segments: list[Segment] = self._take_over()
        self._open: _OpenSegment | None = None
        self._lasting, self._whole = lasting, True
        self._given, self._began = 0, time.monotonic() - 1
        self._take_up()

    @property
    def frames(self) -> int:
        """Number of frames so far."""
        return len(self.pts)

    @property
    def rate(self) -> Fraction:
        """Nominal frames per second."""
        return self.encoding.rate

    @property
    def codec(self) -> str:
        """Codec of the stream."""
        return self.encoding.codec

    @property
    def pts(self) -> list[int]:
        """Presentation times of the frames so far."""
        closed = [pts for segment in self.segments for pts in segment.pts]
        return closed + ([] if self._open is None else self._open.pts)

    def write(self, planes: tuple[Array, ...], pts: int) -> None:
        """Encode one frame.

        Raises:
            DiskError: the segment cannot be written.
        """
        with disk_errors(self.folder):
            self._encode(planes, pts)
            if self._open is not None and self._lasting:
                self._keep(planes, pts)

    def finish(self) -> None:
        """Close the last segment.

        Raises:
            DiskError: it cannot be written.
        """
        if self._open is not None:
            with disk_errors(self.folder):
                self._close_segment()

    def abandon(self) -> None:
        """Drop the unfinished segment; finished ones stay, and so do the frames that were kept of it."""
        if self._open is not None:
            self._open.discard()
            self._open = None

    def packets(self) -> Iterator[CodedPacket]:
        """All packets in decoding order."""
        first = 0
        for segment in self.segments:
            container: Any
            with av.open(f"file:{self.folder / segment.name}") as container:
                stream = container.streams.video[0]
                step = 1 / (self.encoding.rate * time_base_of(stream))
                for order, packet in enumerate(p for p in container.demux(stream) if p.size):
                    within = order if self.encoding.codec == "ffv1" else round(Fraction(packet.pts) / step)
                    yield CodedPacket(packet, first + within)
            first += len(segment.pts)

    @contextmanager
    def template(self) -> Iterator[Any]:
        """The first segment's stream, which has the parameters of all."""
        with av.open(f"file:{self.folder / self.segments[0].name}") as container:
            yield container.streams.video[0]

    def _encode(self, planes: tuple[Array, ...], pts: int) -> None:
        if self._open is None:
            path = self.folder / f"{len(self.segments):06d}.part"
            self._open = _OpenSegment(path, self._format, self.encoding)
        self._open.write(planes, pts)
        if len(self._open.pts) == self.length:
            self._close_segment()

    def _keep(self, planes: tuple[Array, ...], pts: int) -> None:
        """Keep the newest frame of the open segment, unless frames come so fast that a disk would only wear out."""
        assert self._open is not None
        self._given += sum(plane.nbytes for plane in planes)
        if self._given > MOST_KEPT_PER_S * (time.monotonic() - self._began):
            self._whole = False
        if not self._whole:
            self._forget()
            return
        path = self.folder / f"{len(self.segments):06d}-{self._open_frames - 1:04d}{KEPT}"
        part = path.with_suffix(".part")
        try:
            # Not synced: after a loss of power a checksum tells what is whole, and a signal does no harm.
            with part.open("wb") as file:
                np.savez(file, *planes, pts=pts, fingerprint=self._fingerprint)
            part.replace(path)
        except OSError:
            # The disk is full: there may still be room for the coded frames, which take a hundredth.
            self._lasting = False
            part.unlink(missing_ok=True)
            self._forget()

    def _take_up(self) -> None:
        """Encode again what an earlier run kept of its open segment."""
        for path in sorted(self.folder.glob(f"{len(self.segments):06d}-*{KEPT}")):
            found = _kept(path, self._fingerprint)
            if found is None or path.stem != f"{len(self.segments):06d}-{self._open_frames:04d}":
                break
            with disk_errors(self.folder):
                self._encode(*found)
        for path in self.folder.glob(f"*{KEPT}"):
            if self._open is None or path.stem >= f"{len(self.segments):06d}-{self._open_frames:04d}":
                path.unlink(missing_ok=True)

    @property
    def _open_frames(self) -> int:
        return 0 if self._open is None else len(self._open.pts)

    def _forget(self) -> None:
        for path in self.folder.glob(f"*{KEPT}"):
            path.unlink(missing_ok=True)

    def _close_segment(self) -> None:
        assert self._open is not None
        part, self._open = self._open, None
        part.close()
        final = self.folder / f"{len(self.segments):06d}{self._suffix}"
        fsync(part.path)
        part.path.replace(final)
        self.segments.append(Segment(final.name, tuple(part.pts), sha256_of(final)))
        self._write_ledger()
        self._forget()
        self._whole = True

    def _write_ledger(self) -> None:
        text = json.dumps({"fingerprint": self._fingerprint, "segments": [asdict(s) for s in self.segments]})
        with write_atomically(self.folder / LEDGER) as part:
            part.write_text(text)

    def _take_over(self) -> list[Segment]:
        """Finished segments of an earlier run, up to the first that is missing or damaged."""
        try:
            stored = json.loads((self.folder / LEDGER).read_text())
            if stored["fingerprint"] != self._fingerprint:
                return []
            rows = [Segment(row["name"], tuple(row["pts"]), row["sha256"]) for row in stored["segments"]]
        except (OSError, ValueError, KeyError, TypeError):
            return []
        good: list[Segment] = []
        for row in rows:
            path = self.folder / row.name
            if not path.is_file() or sha256_of(path) != row.sha256:
                break
            # A short segment ended a finished run; continuing after it would move the key frames.
            if len(row.pts) != self.length and row is not rows[-1]:
                break
            good.append(row)
        return good


def frames_in(folder: Path) -> int:
    """How many frames an interrupted run left in its folder of segments, whatever they are worth."""
    try:
        segments = json.loads((folder / LEDGER).read_text())["segments"]
        closed = sum(len(segment["pts"]) for segment in segments)
    except (OSError, ValueError, KeyError, TypeError):
        closed = 0
    return closed + len(list(folder.glob(f"*{KEPT}")))


def _kept(path: Path, fingerprint: str) -> tuple[tuple[Array, ...], int] | None:
    """Planes and presentation time of a kept frame; None if it is damaged or was made otherwise."""
    with suppress(OSError, ValueError, KeyError, zipfile.BadZipFile), np.load(path, allow_pickle=False) as stored:
        if str(stored["fingerprint"]) == fingerprint:
            planes = tuple(stored[f"arr_{i}"] for i in range(len(stored.files) - 2))
            return planes, int(stored["pts"])
    return None


class _OpenSegment:
    def __init__(self, path: Path, container_format: str, encoding: Encoding) -> None:
        self.path = path
        self.encoding = encoding
        self.pts: list[int] = []
        options = {"fflags": "+bitexact"}
        if container_format == "mp4":
            options["video_track_timescale"] = str(encoding.rate.numerator)
        self._container: Any = av.open(f"file:{path}", "w", format=container_format, container_options=options)
        try:
            self._stream = encoding.add_to(self._container)
        except BaseException:
            self.discard()
            raise

    def write(self, planes: tuple[Array, ...], pts: int) -> None:
        encoding = self.encoding
        layout = PixelLayout.of(encoding.pix_fmt)
        # Packed RGB is left to PyAV, which rearranges what does not match the encoder's format.
        pix_fmt = layout.planar if layout.kind == "rgb" else encoding.pix_fmt
        frame = frame_from_planes(planes, pix_fmt, encoding.width, encoding.height)
        frame.pts = len(self.pts)
        frame.time_base = 1 / encoding.rate
        self.pts.append(pts)
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        for packet in self._stream.encode(None):
            if len(self.pts) < SHORTEST_HEVC:
                packet.dts = packet.pts
            self._container.mux_one(packet)
        self._container.close()

    def discard(self) -> None:
        try:
            self._container.close()
        except (OSError, ValueError, av.error.FFmpegError):
            # Writing it has failed already; only its removal matters now.
            self._container = None
        self.path.unlink(missing_ok=True)
