"""Colour: what the tags mean, and the conversion between coded planes and RGB with matrix and range spelled out.

Written with cv2 arithmetic in float32 rather than with swscale, because the pair of conversions has to be the
identity: chroma is interpolated and decimated by filter pairs with perfect reconstruction, so
``rgb_to_yuv(yuv_to_rgb(x)) == x`` for in-gamut content of any sharpness, up to the rounding of RGB (at most 1 code in
8 bit, 0 beyond). Co-sited chroma (H.264's default, horizontally) is interpolated linearly and decimated by the LeGall
5/3 low-pass (Le Gall and Tabatabai 1988); chroma between two luma samples uses ``c + (c[-1] - c[+1]) / 8`` and its
mirror, decimated by their mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import av
import cv2
import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

UNSPECIFIED = 2  # of matrix, primaries and transfer, in the codes of ITU-T H.273
LIMITED, FULL = 1, 2  # AVColorRange; 0 is unspecified
LEFT, TOP_LEFT, TOP, BOTTOM_LEFT = 1, 3, 4, 5  # AVChromaLocation; 0 is unspecified, 2 centre, 6 bottom
RGB, BT709, FCC, BT601_625, BT601_525, SMPTE240M, YCGCO, BT2020, BT2020_CL = 0, 1, 4, 5, 6, 7, 8, 9, 10
# (Kr, Kb) of H.273 table 4. Constant-luminance BT.2020 is treated as the non-constant one: it comes back as it went in.
KR_KB = {
    BT709: (0.2126, 0.0722),
    FCC: (0.30, 0.11),
    BT601_625: (0.299, 0.114),
    BT601_525: (0.299, 0.114),
    SMPTE240M: (0.212, 0.087),
    BT2020: (0.2627, 0.0593),
    BT2020_CL: (0.2627, 0.0593),
}
# Decoders whose untagged luma is full range: pictures, and video codecs made of them.
FULL_RANGE_CODECS = ("mjpeg", "png", "tiff", "bmp", "webp", "gif", "ljpeg", "jpegls", "jpeg2000", "pgm", "ppm")
# Codecs whose standard says that untagged gray is limited range too; elsewhere FFmpeg's gray is full range.
LIMITED_GRAY_CODECS = ("h264", "hevc", "vp9", "av1", "mpeg2video", "mpeg4")


@dataclass(frozen=True)
class ColorTags:
    """Colour description of a video.

    Attributes:
        matrix: H.273 MatrixCoefficients as given (2: unspecified).
        range: AVColorRange as given (0: unspecified, 1: limited, 2: full).
        primaries: H.273 ColourPrimaries as given.
        transfer: H.273 TransferCharacteristics as given.
        resolved_matrix: the matrix that conversions use, a key of ``KR_KB``, ``YCGCO`` or ``RGB``.
        full_range: the range that conversions use.
    """

    matrix: int = UNSPECIFIED
    range: int = 0
    primaries: int = UNSPECIFIED
    transfer: int = UNSPECIFIED
    resolved_matrix: int = BT709
    full_range: bool = False

    def resolve(self, pix_fmt: str, height: int, codec: str = "") -> ColorTags:
        """Fill in what is not stated: BT.709 from 720 lines on, else BT.601; limited range, except for pictures."""
        layout = PixelLayout.of(pix_fmt)
        if layout.kind == "rgb":
            return ColorTags(self.matrix, self.range, self.primaries, self.transfer, RGB, True)
        matrix = self.matrix
        if matrix not in KR_KB and matrix != YCGCO:
            matrix = BT709 if height >= 720 else BT601_525
        full = self.range == FULL
        if self.range not in (LIMITED, FULL):
            full = pix_fmt.startswith("yuvj") or codec in FULL_RANGE_CODECS
            full |= layout.kind == "gray" and codec not in LIMITED_GRAY_CODECS
        return ColorTags(self.matrix, self.range, self.primaries, self.transfer, matrix, full)

    @property
    def hdr(self) -> bool:
        """The transfer is PQ or HLG."""
        return self.transfer in (16, 18)


@dataclass(frozen=True)
class PixelLayout:
    """How a pixel format stores its components.

    Attributes:
        kind: ``yuv``, ``gray`` or ``rgb``.
        bits: per component.
        sub_x: log2 of the horizontal chroma subsampling.
        sub_y: log2 of the vertical chroma subsampling.
        alpha: there is an alpha component.
        planar: format of the same content with one native-endian plane per component and no alpha, lossless to convert
            to (except for rare subsamplings such as 4:1:1, which become 4:4:4).
    """

    kind: str
    bits: int
    sub_x: int
    sub_y: int
    alpha: bool
    planar: str

    @staticmethod
    @lru_cache(maxsize=64)
    def of(pix_fmt: str) -> PixelLayout:
        """The layout of an FFmpeg pixel format name."""
        video_format = av.VideoFormat(pix_fmt, 64, 64)
        components = video_format.components
        bits = max(c.bits for c in components)
        alpha = any(getattr(c, "is_alpha", False) for c in components)
        if getattr(video_format, "has_palette", False):
            return PixelLayout("rgb", 8, 0, 0, True, "gbrp")
        if video_format.is_rgb:
            bits = max(8, min(bits, 16))
            return PixelLayout("rgb", bits, 0, 0, alpha, "gbrp" + _depth(bits))
        if len(components) - alpha == 1:
            bits = max(8, bits)
            return PixelLayout("gray", bits, 0, 0, alpha, "gray" + _depth(bits))
        sub_x = (64 // video_format.chroma_width(64)).bit_length() - 1
        sub_y = (64 // video_format.chroma_height(64)).bit_length() - 1
        if (sub_x, sub_y) not in ((0, 0), (1, 0), (1, 1)):
            sub_x = sub_y = 0
        family = {(0, 0): "yuv444p", (1, 0): "yuv422p", (1, 1): "yuv420p"}[sub_x, sub_y]
        return PixelLayout("yuv", bits, sub_x, sub_y, alpha, family + _depth(bits))


def _depth(bits: int) -> str:
    return "" if bits == 8 else f"{bits}le"


@dataclass(frozen=True)
class YuvCoding:
    """One way of coding RGB as planes; both directions of the conversion.

    Attributes:
        matrix: resolved H.273 code (see :class:`ColorTags`); ignored for one plane (gray).
        full_range: codes 0..2^bits-1, else 16..235 and 16..240, times 2^(bits-8).
        bits: of the codes, 8..16.
        sub_x: log2 of the horizontal chroma subsampling, 0 or 1.
        sub_y: the vertical one.
        cosited_x: chroma samples lie on even luma columns (MPEG-2, H.264, HEVC); else between two (JPEG, MPEG-1).
        cosited_y: chroma samples lie on even luma rows (BT.2020 UHD); else between two (all others).
        gray: luma only; the RGB is neutral.
    """

    matrix: int
    full_range: bool
    bits: int
    sub_x: int = 1
    sub_y: int = 1
    cosited_x: bool = True
    cosited_y: bool = False
    gray: bool = False

    @staticmethod
    def for_layout(layout: PixelLayout, color: ColorTags, codec: str = "", location: int = 0) -> YuvCoding:
        """The coding of frames with this layout, these tags and this AVChromaLocation (0: as the codec has it)."""
        cosited_x = location in (LEFT, TOP_LEFT, BOTTOM_LEFT) if location else codec not in FULL_RANGE_CODECS
        return YuvCoding(
            matrix=color.resolved_matrix if color.resolved_matrix != RGB else BT709,
            full_range=color.full_range,
            bits=layout.bits,
            sub_x=layout.sub_x,
            sub_y=layout.sub_y,
            cosited_x=cosited_x,
            cosited_y=location in (TOP_LEFT, TOP),
            gray=layout.kind == "gray",
        )

    def scales(self) -> tuple[float, float, float, float]:
        """Codes of black and of white minus black, of neutral chroma, and of the chroma range."""
        unit = float(1 << (self.bits - 8))
        if self.full_range:
            return 0.0, (1 << self.bits) - 1.0, 128 * unit, (1 << self.bits) - 1.0
        return 16 * unit, 219 * unit, 128 * unit, 224 * unit

    def from_rgb(self) -> Array:
        """The 3x4 matrix from RGB in [0, 1] to codes."""
        black, luma, neutral, chroma = self.scales()
        matrix = rgb_to_ycbcr_matrix(self.matrix)
        scale = np.array([luma, chroma, chroma])
        return np.hstack([matrix * scale[:, None], np.array([[black], [neutral], [neutral]])])

    def to_rgb(self) -> Array:
        """The 3x4 matrix from codes to RGB in [0, 1]."""
        forward = self.from_rgb()
        inverse = np.linalg.inv(forward[:, :3])
        return np.hstack([inverse, -inverse @ forward[:, 3:]])


def rgb_to_ycbcr_matrix(code: int) -> Array:
    """H.273 matrix from RGB in [0, 1] to Y in [0, 1] and Cb, Cr in [-0.5, 0.5] (rows Y, Cb, Cr; YCgCo: Y, Cg, Co)."""
    if code == YCGCO:
        return np.array([[0.25, 0.5, 0.25], [-0.25, 0.5, -0.25], [0.5, 0.0, -0.5]])
    kr, kb = KR_KB[code]
    kg = 1 - kr - kb
    luma = np.array([kr, kg, kb])
    cb = (np.array([0.0, 0.0, 1.0]) - luma) / (2 * (1 - kb))
    cr = (np.array([1.0, 0.0, 0.0]) - luma) / (2 * (1 - kr))
    return np.stack([luma, cb, cr])


def yuv_to_rgb(planes: tuple[Array, ...], coding: YuvCoding) -> Array:
    """Coded planes to RGB.

    Args:
        planes: (H, W) luma and, unless gray, two chroma planes of (ceil(H / 2^sub_y), ceil(W / 2^sub_x)); uint8 or
            uint16.
        coding: what the codes mean.

    Returns:
        (H, W, 3) uint8 for 8-bit codes, else uint16 with white at 65535.
    """
    peak, depth = (255.0, cv2.CV_8U) if coding.bits == 8 else (65535.0, cv2.CV_16U)
    luma = planes[0].astype(np.float32)
    if coding.gray:
        black, span, _, _ = coding.scales()
        one = _saturate((luma - np.float32(black)) * np.float32(peak / span), depth)
        return cv2.merge([one, one, one])
    height, width = luma.shape
    chroma = [_upsample(plane.astype(np.float32), width, height, coding) for plane in planes[1:3]]
    return _saturate(cv2.transform(cv2.merge([luma, *chroma]), coding.to_rgb() * peak), depth)


def rgb_to_yuv(rgb: Array, coding: YuvCoding) -> tuple[Array, ...]:
    """RGB to coded planes.

    Args:
        rgb: (H, W, 3) uint8, uint16 with white at 65535, or floating point in [0, 1] (values beyond are clipped).
        coding: meaning of the codes.

    Returns:
        As ``planes`` of :func:`yuv_to_rgb`: uint8 for 8-bit codes, else uint16.
    """
    pixels, peak = _as_float(rgb)
    matrix = coding.from_rgb()
    matrix[:, :3] /= peak
    if coding.gray:
        # Neutral RGB; the mean of the three undoes the rounding of each.
        black, span, _, _ = coding.scales()
        row = np.array([[span / (3 * peak)] * 3 + [black]])
        return (_codes(cv2.transform(pixels, row), coding),)
    coded = cv2.transform(pixels, matrix)
    luma, *chroma = (cv2.extractChannel(coded, i) for i in range(3))
    return (_codes(luma, coding), *(_codes(_downsample(plane, coding), coding) for plane in chroma))


def full_range_luma(luma: Array, coding: YuvCoding) -> Array:
    """A coded (H, W) luma plane as uint8 with black at 0 and white at 255; codes beyond them are clipped."""
    black, span, _, _ = coding.scales()
    if coding.bits == 8:
        if coding.full_range:
            return np.ascontiguousarray(luma)
        return cv2.LUT(np.ascontiguousarray(luma), _stretch_table(black, span))
    return _saturate((luma.astype(np.float32) - np.float32(black)) * np.float32(255 / span), cv2.CV_8U)


@lru_cache(maxsize=4)
def _stretch_table(black: float, span: float) -> Array:
    return np.clip(np.rint((np.arange(256) - black) * (255 / span)), 0, 255).astype(np.uint8)


def _as_float(rgb: Array) -> tuple[Array, float]:
    if rgb.dtype == np.uint8:
        return rgb.astype(np.float32), 255.0
    if rgb.dtype == np.uint16:
        return rgb.astype(np.float32), 65535.0
    return np.clip(rgb.astype(np.float32, copy=False), 0.0, 1.0), 1.0


def _saturate(values: Array, depth: int) -> Array:
    """Round to nearest and clip into the integer type; one pass, where numpy needs three."""
    return cv2.add(np.ascontiguousarray(values), 0, dtype=depth)  # type: ignore[call-overload]


def _codes(plane: Array, coding: YuvCoding) -> Array:
    if coding.bits == 8:
        return _saturate(plane, cv2.CV_8U)
    codes = _saturate(plane, cv2.CV_16U)
    return codes if coding.bits == 16 else np.minimum(codes, (1 << coding.bits) - 1)


def _upsample(plane: Array, width: int, height: int, coding: YuvCoding) -> Array:
    if coding.sub_y:
        first, second = _interpolate(plane, height, 0, coding.cosited_y)
        tall = np.empty((2 * plane.shape[0], plane.shape[1]), np.float32)
        tall[0::2], tall[1::2] = first, second
        plane = tall[:height]
    if coding.sub_x:
        first, second = _interpolate(plane, width, 1, coding.cosited_x)
        plane = cv2.merge([np.ascontiguousarray(first), np.ascontiguousarray(second)]).reshape(height, -1)
    return plane[:, :width]


def _interpolate(plane: Array, size: int, axis: int, cosited: bool) -> tuple[Array, Array]:
    """The two luma-resolution samples that belong to each chroma sample along ``axis``."""
    following = _shifted(plane, 1, axis)
    if cosited:
        return plane, (plane + following) * np.float32(0.5)
    slope = (_shifted(plane, -1, axis) - following) * np.float32(0.125)
    if size % 2:  # the last chroma sample has only one luma sample, which must then equal it
        slope[(slice(None),) * axis + (-1,)] = 0
    return plane + slope, plane - slope


def _downsample(plane: Array, coding: YuvCoding) -> Array:
    if coding.sub_y:
        plane = _decimate(_even(plane, 0), 0, coding.cosited_y)
    if coding.sub_x:
        plane = _decimate(_even(plane, 1), 1, coding.cosited_x)
    return plane


def _decimate(plane: Array, axis: int, cosited: bool) -> Array:
    if axis == 0:
        first, second = plane[0::2], plane[1::2]
    else:
        first, second = cv2.split(np.ascontiguousarray(plane).reshape(plane.shape[0], -1, 2))
    if not cosited:
        return (first + second) * np.float32(0.5)
    # Lifting form of the 5/3 low-pass: what linear interpolation does not predict, spread over both neighbours.
    detail = second - (first + _shifted(first, 1, axis)) * np.float32(0.5)
    return first + (detail + _shifted(detail, -1, axis)) * np.float32(0.25)


def _even(plane: Array, axis: int) -> Array:
    if plane.shape[axis] % 2 == 0:
        return plane
    last = plane[-1:] if axis == 0 else plane[:, -1:]
    return np.concatenate([plane, last], axis=axis)


def _shifted(plane: Array, step: int, axis: int) -> Array:
    """``plane`` at index ``i + step`` (step is 1 or -1), the border sample repeated."""
    kept = [slice(None)] * 2
    border = [slice(None)] * 2
    kept[axis] = slice(1, None) if step > 0 else slice(None, -1)
    border[axis] = slice(-1, None) if step > 0 else slice(None, 1)
    parts = [plane[tuple(kept)], plane[tuple(border)]]
    return np.concatenate(parts if step > 0 else parts[::-1], axis=axis)
