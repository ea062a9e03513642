"""Pictures as a player shows them: coded frames, rotated and mirrored by the file's display matrix."""

from __future__ import annotations

import cv2
import numpy as np

from selfhvd_tta.video.color import Array
from selfhvd_tta.video.probe import VideoInfo


def upright(frame: Array, info: VideoInfo) -> Array:
    """A coded (H, W, C) frame as it is shown. Angles that are not a multiple of 90 degrees are ignored."""
    transposed, flip_x, flip_y = _operations(info)
    if transposed:
        frame = frame.swapaxes(0, 1)
    if flip_x:
        frame = frame[:, ::-1]
    if flip_y:
        frame = frame[::-1]
    return np.ascontiguousarray(frame)


def coded(frame: Array, info: VideoInfo) -> Array:
    """The inverse of :func:`upright`."""
    transposed, flip_x, flip_y = _operations(info)
    if flip_y:
        frame = frame[::-1]
    if flip_x:
        frame = frame[:, ::-1]
    if transposed:
        frame = frame.swapaxes(0, 1)
    return np.ascontiguousarray(frame)


def to_8_bit(frame: Array) -> Array:
    """uint8 or uint16 (white at 65535) to uint8."""
    return frame if frame.dtype == np.uint8 else ((frame.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)


def picture(frame: Array, info: VideoInfo, longest: int) -> Array:
    """A decoded frame for people: upright, square pixels, 8 bits, no side longer than ``longest`` pixels.

    Colours are those of the file; HDR is not mapped to what a page can show.
    """
    shown = upright(to_8_bit(frame), info)
    height, width = (float(n) for n in shown.shape[:2])
    if info.sar is not None and info.sar > 0:
        turned = _operations(info)[0]
        width, height = (width, height * float(info.sar)) if turned else (width * float(info.sar), height)
    scale = min(1.0, longest / max(width, height))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    if size == (shown.shape[1], shown.shape[0]):
        return shown
    return cv2.resize(shown, size, interpolation=cv2.INTER_AREA)


def _operations(info: VideoInfo) -> tuple[bool, bool, bool]:
    """Swap the axes, then mirror horizontally, then vertically."""
    if info.display_matrix is None:
        return False, False, False
    a, b, _, c, d = info.display_matrix[:5]
    if a == d == 0 and b and c:
        return True, c < 0, b < 0
    if b == c == 0 and a and d:
        return False, a < 0, d < 0
    return False, False, False
