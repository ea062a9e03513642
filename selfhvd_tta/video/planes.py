"""Pixels of a decoded or encoded frame as numpy planes, without any change of their codes."""

from __future__ import annotations

from typing import Any

import av
import numpy as np

from selfhvd_tta.video.color import Array, PixelLayout, YuvCoding, full_range_luma, yuv_to_rgb

_AVCOL_RANGE_FULL = 2
# swscale's number of "BT.601", passed for both sides if planes are only rearranged, so that no matrix is applied.
_SAME = 5


def coded_planes(frame: Any) -> tuple[tuple[Array, ...], PixelLayout]:
    """The frame's components as (H, W) uint8 or uint16 planes (Y; Y, U, V; or R, G, B), alpha left out, and its layout.

    The arrays are views of the frame's memory where its format is planar.
    """
    layout = PixelLayout.of(frame.format.name)
    if not _is_planar(frame.format.name, layout):
        frame = frame.reformat(
            format=layout.planar,
            src_colorspace=_SAME,
            dst_colorspace=_SAME,
            src_color_range=_AVCOL_RANGE_FULL,
            dst_color_range=_AVCOL_RANGE_FULL,
        )
    count = 1 if layout.kind == "gray" else 3
    planes = tuple(plane_view(frame.planes[i], layout.bits) for i in range(count))
    if layout.kind == "rgb":
        green, blue, red = planes
        return (red, green, blue), layout
    return planes, layout


def _is_planar(name: str, layout: PixelLayout) -> bool:
    plain = name.replace("yuvj", "yuv").replace("yuva", "yuv").replace("gbrap", "gbrp")
    return plain == layout.planar


def plane_view(plane: Any, bits: int) -> Array:
    """A (H, W) view of a plane's samples, without the padding of its lines."""
    dtype = np.uint8 if bits <= 8 else np.dtype("<u2")
    samples: Array = np.frombuffer(plane, dtype).reshape(plane.height, -1)
    return samples[:, : plane.width]


def frame_from_planes(planes: tuple[Array, ...], pix_fmt: str, width: int, height: int) -> Any:
    """A frame of a planar format with these codes (R, G, B planes for RGB formats)."""
    frame = av.VideoFrame(width, height, pix_fmt)
    if PixelLayout.of(pix_fmt).kind == "rgb":
        red, green, blue = planes
        planes = (green, blue, red)
    for plane, codes in zip(frame.planes, planes, strict=True):
        plane_view(plane, 8 * codes.dtype.itemsize)[:] = codes
    return frame


def to_rgb(frame: Any, coding: YuvCoding) -> Array:
    """A decoded frame as (H, W, 3) RGB: uint8 for 8-bit formats, else uint16 with white at 65535."""
    planes, layout = coded_planes(frame)
    if layout.kind != "rgb":
        return yuv_to_rgb(planes, coding)
    rgb: Array = np.stack(planes, axis=-1)
    if layout.bits == 8:
        return rgb
    scale = 65535 / ((1 << layout.bits) - 1)
    return np.rint(rgb * scale).astype(np.uint16) if scale != 1 else rgb


def to_luma(frame: Any, coding: YuvCoding) -> Array:
    """A decoded frame's luma as (H, W) uint8, black 0, white 255; no RGB conversion unless the frame is RGB."""
    planes, layout = coded_planes(frame)
    if layout.kind != "rgb":
        return full_range_luma(planes[0], coding)
    red, green, blue = (plane.astype(np.float32) for plane in planes)
    scale = 255 / ((1 << layout.bits) - 1)
    luma: Array = np.rint((0.2126 * red + 0.7152 * green + 0.0722 * blue) * scale).astype(np.uint8)
    return luma
