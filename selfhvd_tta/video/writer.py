"""The result as a video file: frames in, a complete and verified file out, or nothing."""

from __future__ import annotations

import shutil
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import numpy as np

from selfhvd_tta.errors import InputError, SelfHVDError, UsageError
from selfhvd_tta.settings import OutputSettings
from selfhvd_tta.video.background import Background
from selfhvd_tta.video.color import Array, PixelLayout, rgb_to_yuv
from selfhvd_tta.video.encoding import Encoding, choose_encoding
from selfhvd_tta.video.joining import CodedVideo, FinalFile, join
from selfhvd_tta.video.probe import VideoInfo
from selfhvd_tta.video.segments import SEGMENT_FRAMES, SegmentStore
from selfhvd_tta.video.target import Target, check_target, make_workplace, publish
from selfhvd_tta.video.timing import output_time_base
from selfhvd_tta.video.verify import verify_video


def check_output(out: str | Path, info: VideoInfo, settings: OutputSettings) -> Target:
    """Refuse an output that could not be written, before any work.

    Args:
        out: a path as :class:`VideoWriter` takes it, or without suffix for a folder of images.
        info: of the source.
        settings: codec, quality, overwriting.

    Raises:
        UsageError: the path's suffix is unknown, it exists already, is the input or a folder; the codec is not
            available, does not fit the container or its quality is out of range.
        DiskError: the folder is missing or may not be written to.
    """
    target = check_target(out, info.path, settings.overwrite)
    if target.container is not None:
        codec = choose_encoding(info, settings).codec
        if codec == "ffv1" and target.container != "matroska":
            raise UsageError(f"{out}: FFV1 needs Matroska", "Use a name that ends in .mkv, or another codec.")
    return target


def complete(
    video: CodedVideo, info: VideoInfo, target: Target, workplace: Path, faststart: bool, notes: list[str]
) -> None:
    """Mux a coded video with everything else of its source, verify the file and put it in place.

    Args:
        video: the coded video.
        info: of the source.
        target: a video file.
        workplace: folder on the target's file system.
        faststart: index of an MP4 in front.
        notes: gets one line for each thing that had to be converted or left out.

    Raises:
        UsageError: something appeared at the target meanwhile.
        DiskError: it cannot be written, or fails the check.
        InputError: the source cannot be read any more.
    """
    container = target.container
    assert container is not None
    part = workplace / f"finished{target.path.suffix}"
    shift = join(FinalFile(video, info, container, part, faststart), notes)
    if tolerance := verify(part, video, info, container, shift):
        notes.append(
            f"frame times are rounded to {float(2 * tolerance) * 1000:g} ms, which is all that this container states"
        )
    publish(part, target)


def to_planes(rgb: Array, encoding: Encoding) -> tuple[Array, ...]:
    """Codes of a picture in RGB, as :meth:`VideoWriter.write` takes it, plane by plane."""
    layout = PixelLayout.of(encoding.pix_fmt)
    if layout.kind != "rgb":
        return rgb_to_yuv(rgb, encoding.coding)
    white = (1 << layout.bits) - 1
    peak = np.iinfo(rgb.dtype).max if rgb.dtype.kind == "u" else 1
    dtype = np.uint8 if layout.bits == 8 else np.uint16
    codes = np.rint(np.clip(rgb.astype(np.float32) / peak, 0, 1) * white).astype(dtype)
    return codes[..., 0], codes[..., 1], codes[..., 2]


def verify(part: Path, video: CodedVideo, info: VideoInfo, container: str, shift: Fraction) -> Fraction:
    """Check a joined file, see :func:`verify_video`.

    Returns:
        Seconds by which frame times may differ because the container rounds them; 0 where it does not.
    """
    seconds = [p * info.time_base + shift for p in video.pts]
    unit = output_time_base(info, container)
    tolerance = unit / 2 if any((s / unit).denominator != 1 for s in seconds) else Fraction(0)
    verify_video(part, seconds, tolerance, info.width, info.height)
    return tolerance


class VideoWriter:
    """Writes a video with the frame times, colour, orientation and other streams of a source.

    Use it as a context manager. Leaving it normally joins, muxes, syncs, verifies and only then puts the file in place;
    leaving it by an exception leaves nothing behind but, with ``segments``, what a resumed run continues with.

    Args:
        out: ``.mp4``, ``.m4v``, ``.mov`` or ``.mkv`` file.
        info: of the source.
        settings: codec, quality, and whether an existing file may be replaced.
        segments: an existing folder that keeps what is written for a resumed run; None keeps it only meanwhile.
        segment_length: frames per segment.
        seal: identifies what makes the frames; segments of a run with another seal are not taken over.

    Attributes:
        notes: one line for each thing that had to be converted or left out.
        frames_done: frames that an earlier run wrote already; continue with the next one.

    Raises:
        UsageError, DiskError: as :func:`check_output`.
    """

    def __init__(
        self,
        out: str | Path,
        info: VideoInfo,
        settings: OutputSettings,
        *,
        segments: Path | None = None,
        segment_length: int = SEGMENT_FRAMES,
        seal: str = "",
    ) -> None:
        self.info = info
        self.settings = settings
        self.target = check_output(out, info, settings)
        if self.target.container is None:
            raise UsageError(f"{out}: has no video suffix", "Use .mp4, .mov or .mkv.")
        self.encoding = choose_encoding(info, settings)
        self.notes: list[str] = list(self.encoding.notes)
        self._workplace = make_workplace(self.target, segments)
        try:
            folder = segments
            if folder is None:
                folder = self._workplace / "segments"
                folder.mkdir()
            self._store = SegmentStore(folder, self.encoding, segment_length, seal, lasting=segments is not None)
        except BaseException:
            self._clean_up()
            raise
        self._encoder = Background()
        self._last_pts: int | None = self._store.pts[-1] if self._store.frames else None
        self.frames_done = self._store.frames

    def __enter__(self) -> VideoWriter:
        return self

    def write(self, rgb: Array, pts: int) -> None:
        """Add the next frame. It is encoded in the background, so an error may be raised by a later call.

        Args:
            rgb: (H, W, 3) uint8, uint16 with white at 65535, or floating point in [0, 1]; not to be changed afterwards.
            pts: its presentation time in units of ``info.time_base``; larger than the previous one's.

        Raises:
            ValueError: wrong shape, or a time that does not increase (a caller's mistake).
            DiskError: the disk is full or gone.
        """
        expected = (self.info.height, self.info.width, 3)
        if rgb.shape != expected:
            raise ValueError(f"a frame of shape {rgb.shape} was given, {expected} is needed")
        if self._last_pts is not None and pts <= self._last_pts:
            raise ValueError(f"frame times must increase: {pts} after {self._last_pts}")
        self._encoder.run(lambda: self._store.write(to_planes(rgb, self.encoding), pts))
        self._last_pts = pts

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._encoder.finish()
                self._finish()
            else:
                # Frames already handed over count for a resumed run; their own errors matter less than this one.
                with suppress(SelfHVDError):
                    self._encoder.finish()
        finally:
            self._encoder.abandon()
            self._store.abandon()
            self._clean_up()

    def _finish(self) -> None:
        self._store.finish()
        if not self._store.frames:
            raise InputError(f"{self.info.path}: gave no frame", "The file may be damaged; check that it plays.")
        complete(self._store, self.info, self.target, self._workplace, self.settings.faststart, self.notes)

    def _clean_up(self) -> None:
        shutil.rmtree(self._workplace, ignore_errors=True)
