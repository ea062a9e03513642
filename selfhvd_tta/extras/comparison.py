"""Input and result in one video: side by side, one above the other, or with a divider that moves across."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from selfhvd_tta.errors import InputError
from selfhvd_tta.events import Listener, Note, Progress, ignore
from selfhvd_tta.settings import Layout, OutputSettings
from selfhvd_tta.times import TimeRange
from selfhvd_tta.video.color import Array
from selfhvd_tta.video.images import ImageWriter
from selfhvd_tta.video.opening import Reader, Writer, open_reader
from selfhvd_tta.video.orientation import coded, upright
from selfhvd_tta.video.probe import VideoInfo
from selfhvd_tta.video.writer import VideoWriter, check_output

LONGEST = 4096  # what H.264 decoders in phones and browsers take
SWEEP_S = 4.0
BEFORE, AFTER = "before", "after"


def comparison_path(output: str | Path, layout: Layout) -> Path:
    """Where the comparison of a result goes: ``sharp.mp4`` has its side-by-side video in ``sharp-side.mp4``."""
    path = Path(output)
    return path.with_name(f"{path.stem}-{layout}{path.suffix}")


def check_comparison(source: Reader, output: str | Path, layout: Layout, settings: OutputSettings) -> Path:
    """Refuse a comparison that could not be written, before any work.

    Raises:
        UsageError, DiskError: as for any output.
    """
    path = comparison_path(output, layout)
    check_output(path, _arranged(source.info, layout)[0], settings)
    return path


def write_comparison(
    source: str | Path,
    result: str | Path,
    layout: Layout,
    settings: OutputSettings,
    listen: Listener = ignore,
    out: Path | None = None,
    part: TimeRange | None = None,
) -> Path:
    """Write the comparison video: frame times, sound, colour and orientation are those of the source.

    Args:
        source: the input of a run.
        result: its output.
        layout: ``side``: input left, result right; ``stack``: input above; ``wipe``: a divider moves back and forth.
        settings: codec and quality, and whether an existing file may be replaced.
        listen: gets progress and notes.
        out: where to write; None for :func:`comparison_path`.
        part: of the source that the result shows.

    Returns:
        Its path.

    Raises:
        InputError: one of the two cannot be read, or they do not belong together.
        UsageError, DiskError: as for any output.
    """
    path = comparison_path(result, layout) if out is None else out
    before, after = open_reader(source, part, progressive=True), open_reader(result, progressive=True)
    shown, scale = _arranged(before.info, layout)
    writer: Writer
    if path.suffix:
        writer = VideoWriter(path, shown, settings)
    else:
        writer = ImageWriter(path, shown, settings)
    total = before.info.frames
    done = 0
    with writer:
        for pts, old, new in _pairs(before, after):
            seconds = float(pts * before.info.time_base)
            views = [_fitted(upright(frame, before.info), before.info, scale) for frame in (old, new)]
            writer.write(coded(arrange(views[0], views[1], layout, seconds), before.info), pts)
            done += 1
            listen(Progress("compare", done, total))
    if total != done:
        listen(Progress("compare", done, done))
    for text in writer.notes:
        listen(Note(f"comparison: {text}"))
    return path


def arrange(before: Array, after: Array, layout: Layout, seconds: float) -> Array:
    """Combine two upright pictures of the same size and type into one, with labels."""
    if layout == "wipe":
        width = before.shape[1]
        # Starts in the middle, where a thumbnail shows both; rests at the ends, where one of them fills the picture.
        edge = round(width * (0.5 + 0.5 * math.sin(2 * math.pi * seconds / SWEEP_S)))
        picture = after.copy()
        picture[:, :edge] = before[:, :edge]
        peak = np.iinfo(picture.dtype).max
        line = max(1, width // 500)
        if 0 < edge < width:
            picture[:, max(0, edge - line) : edge + line] = peak
        label(picture, BEFORE, right=False, visible=edge)
        label(picture, AFTER, right=True, visible=width - edge)
        return picture
    before, after = before.copy(), after.copy()
    label(before, BEFORE)
    label(after, AFTER)
    return np.concatenate([before, after], axis=1 if layout == "side" else 0)


def label(picture: Array, text: str, right: bool = False, visible: int | None = None) -> None:
    """Write a word into a lower corner, in place, on a darkened background; left out if it does not fit.

    Args:
        picture: (H, W, 3) uint8 or uint16.
        text: the word.
        right: in the right corner.
        visible: width of the part of the picture, from that corner's side, that the word describes.
    """
    height, width = picture.shape[:2]
    size = max(10.0, min(height, width) / 22)  # height of a capital letter's line, pixels
    scale, thickness = size / 30, max(1, round(size / 14))
    (wide, high), base = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thickness)
    pad, margin = round(size * 0.45), round(size * 0.5)
    box_wide, box_high = wide + 2 * pad, high + base + pad
    if box_wide + 2 * margin > min(width, width if visible is None else visible) or box_high + margin > height:
        return
    left = width - margin - box_wide if right else margin
    top = height - margin - box_high
    ground = picture[top : top + box_high, left : left + box_wide]
    mask = np.zeros(ground.shape[:2], np.uint8)
    origin = (pad, high + (box_high - high - base) // 2 + base // 2)
    cv2.putText(mask, text, origin, cv2.FONT_HERSHEY_SIMPLEX, scale, 255, thickness, cv2.LINE_AA)
    ink = (mask.astype(np.float32) / 255)[..., None]
    peak = np.iinfo(picture.dtype).max
    ground[:] = np.rint(0.35 * ground * (1 - ink) + 0.97 * peak * ink).astype(picture.dtype)


def _arranged(info: VideoInfo, layout: Layout) -> tuple[VideoInfo, float]:
    """Facts of the comparison video, and the scale of each of its two pictures."""
    probe = upright(np.zeros((info.height, info.width, 1), np.uint8), info)
    high, wide = probe.shape[:2]
    across, down = (2 if layout == "side" else 1), (2 if layout == "stack" else 1)
    scale = min(1.0, LONGEST / max(wide * across, high * down))
    if scale < 1:
        wide, high = (max(2, int(n * scale) // 2 * 2) for n in (wide, high))
    turned = probe.shape[:2] != (info.height, info.width) or (_swaps(info) and info.height == info.width)
    wide, high = wide * across, high * down
    if turned:
        wide, high = high, wide
    return replace(info, width=wide, height=high), scale


def _swaps(info: VideoInfo) -> bool:
    return info.rotation % 180 == 90


def _fitted(frame: Array, info: VideoInfo, scale: float) -> Array:
    if scale == 1:
        return frame
    size = (max(2, int(frame.shape[1] * scale) // 2 * 2), max(2, int(frame.shape[0] * scale) // 2 * 2))
    return cv2.resize(frame, size, interpolation=cv2.INTER_AREA)


def _pairs(before: Reader, after: Reader) -> Iterator[tuple[int, Array, Array]]:
    """Time, input and result of every frame, both with the input's type."""
    afters = iter(after)
    for old in before:
        new = next(afters, None)
        if new is None or new.rgb.shape != old.rgb.shape:
            raise InputError(f"{after.info.path}: does not belong to {before.info.path}", "Make it again.")
        rgb = new.rgb
        if rgb.dtype != old.rgb.dtype:
            rgb = (rgb // 257).astype(np.uint8) if old.rgb.dtype == np.uint8 else rgb.astype(np.uint16) * 257
        yield old.pts, old.rgb, rgb
