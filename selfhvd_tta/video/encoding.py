"""Which encoder, pixel format and parameters keep what the source has."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import av
import av.error
import cv2

from selfhvd_tta.errors import UsageError
from selfhvd_tta.settings import OutputSettings
from selfhvd_tta.video.color import BT709, FULL, LIMITED, UNSPECIFIED, PixelLayout, YuvCoding
from selfhvd_tta.video.probe import IMAGES, VideoInfo

ENCODERS = {"h264": "libx264", "hevc": "libx265", "av1": "libsvtav1", "ffv1": "ffv1"}
NAMES = {"h264": "H.264", "hevc": "HEVC", "av1": "AV1", "ffv1": "FFV1"}
DEFAULT_CRF = {"h264": 16, "hevc": 18, "av1": 20}
LARGEST_CRF = {"h264": 51, "hevc": 51, "av1": 63}
# SVT-AV1 numbers its presets; these take about twice as long as x264's of that name.
AV1_PRESETS = {
    "ultrafast": 12,
    "superfast": 11,
    "veryfast": 10,
    "faster": 9,
    "fast": 8,
    "medium": 6,
    "slow": 4,
    "slower": 3,
    "veryslow": 2,
    "placebo": 1,
}
_CPU_AVX_512F = 13  # OpenCV's number, which its Python module does not name
# x265 writes beyond its memory in pictures up to 48 pixels wide, and crashes sooner or later.
NARROWEST_HEVC = 64
SUBSAMPLING = {(1, 1): "420", (1, 0): "422", (0, 0): "444"}


@dataclass(frozen=True)
class Encoding:
    """Everything that decides the bits of the video stream, except the pictures.

    Attributes:
        codec: key of ``ENCODERS``.
        pix_fmt: coded pixel format.
        coding: conversion from RGB to its planes; unused where the format is RGB.
        width: in pixels.
        height: in pixels.
        rate: nominal frames per second (rate control and the stream's header; times are kept apart).
        options: of the encoder.
        tags: matrix, range, primaries and transfer to write, H.273 codes (range: AVColorRange).
        sar: sample aspect ratio, or None.
        notes: what differs from the source, one line each.
    """

    codec: str
    pix_fmt: str
    coding: YuvCoding
    width: int
    height: int
    rate: Fraction
    options: dict[str, str] = field(default_factory=dict)
    tags: tuple[int, int, int, int] = (UNSPECIFIED, 0, UNSPECIFIED, UNSPECIFIED)
    sar: Fraction | None = None
    notes: tuple[str, ...] = ()

    def add_to(self, container: Any) -> Any:
        """Add the encoder's stream to an output container; frame times are counted in frames (``1 / rate``).

        Raises:
            UsageError: this encoder refuses the picture (its size), or PyAV was built without it.
        """
        encoder = ENCODERS[self.codec]
        stream = container.add_stream(encoder, rate=self.rate)
        context = stream.codec_context
        stream.width, stream.height, stream.pix_fmt = self.width, self.height, self.pix_fmt
        context.time_base = 1 / self.rate
        stream.time_base = 1 / self.rate
        context.colorspace, context.color_range, context.color_primaries, context.color_trc = self.tags
        if self.sar is not None:
            context.sample_aspect_ratio = self.sar
        context.options = dict(self.options)
        context.thread_type = "AUTO" if self.codec != "ffv1" else "SLICE"
        # SVT-AV1 prints its configuration otherwise; it reads this when it is opened.
        os.environ.setdefault("SVT_LOG", "1")
        try:
            context.open()
        except (av.error.FFmpegError, ValueError) as error:
            raise UsageError(
                f"{NAMES[self.codec]} cannot encode {self.width}x{self.height} {self.pix_fmt}",
                "Choose another codec; H.264 takes every size.",
            ) from error
        return stream

    def fingerprint(self) -> str:
        """Text that is equal exactly when two encodings write compatible streams."""
        parts = (self.codec, self.pix_fmt, self.coding, self.width, self.height, self.rate, self.tags, self.sar)
        return repr((parts, sorted(self.options.items())))


def choose_encoding(info: VideoInfo, settings: OutputSettings) -> Encoding:
    """The encoding of a result for ``info`` under ``settings``.

    Raises:
        UsageError: the encoder is not in this build of PyAV, or the quality is out of its range.
    """
    layout = info.layout
    codec = settings.codec or ("hevc" if layout.bits > 8 and info.width >= NARROWEST_HEVC else "h264")
    if codec == "hevc" and info.width < NARROWEST_HEVC:
        raise UsageError(
            f"HEVC needs a width of {NARROWEST_HEVC} pixels or more, not {info.width}", "Choose H.264 or FFV1."
        )
    notes: list[str] = []
    pix_fmt = _pixel_format(info, codec, settings.chroma == "420", notes)
    out = PixelLayout.of(pix_fmt)
    color = info.color
    coded_rgb = out.kind == "rgb"
    if layout.kind == "rgb" and not coded_rgb:
        coding = YuvCoding(BT709, False, out.bits, out.sub_x, out.sub_y)
        tags = (BT709, LIMITED, color.primaries, color.transfer)
    else:
        coding = YuvCoding.for_layout(out, color, info.codec, info.chroma_location)
        tag_range = FULL if color.full_range and not coded_rgb else color.range
        matrix = color.matrix if not (coded_rgb or layout.kind == "gray") else UNSPECIFIED
        tags = (matrix, tag_range, color.primaries, color.transfer)
    if info.container == IMAGES:
        notes.append(f"images have no frame rate: the video shows {float(nominal_rate(info)):g} of them a second")
    if layout.alpha:
        notes.append("the alpha channel is left out")
    notes += [f"left out: {words}" for words in info.untransferable]
    return Encoding(
        codec=codec,
        pix_fmt=pix_fmt,
        coding=coding,
        width=info.width,
        height=info.height,
        rate=nominal_rate(info),
        options=_options(codec, settings, info),
        tags=tags,
        sar=info.sar,
        notes=tuple(notes),
    )


def nominal_rate(info: VideoInfo) -> Fraction:
    """The frame rate for the stream's header: the container's, 25 if it has none, within 1..1000."""
    rate = (info.average_rate or Fraction(25)).limit_denominator(1001)
    return min(max(rate, Fraction(1)), Fraction(1000))


def _pixel_format(info: VideoInfo, codec: str, only_420: bool, notes: list[str]) -> str:
    layout = info.layout
    try:
        known = {f.name for f in av.codec.Codec(ENCODERS[codec], "w").video_formats or ()}
    except (ValueError, av.error.FFmpegError) as error:
        raise UsageError(
            f"this build of PyAV has no {NAMES[codec]} encoder ({ENCODERS[codec]})", "Choose another codec."
        ) from error
    source = SUBSAMPLING[layout.sub_x, layout.sub_y]
    if codec == "ffv1":
        exact = {"rgb": "bgr0" if layout.bits == 8 else layout.planar, "gray": layout.planar, "yuv": layout.planar}
        if exact[layout.kind] in known:
            return exact[layout.kind]
    # Gray becomes 4:2:0 with neutral chroma: the same picture, and players know it.
    family = "420" if layout.kind == "gray" or only_420 else source
    odd = (family == "420" and (info.width % 2 or info.height % 2)) or (family == "422" and info.width % 2)
    if odd and codec in ("h264", "hevc"):
        notes.append(
            f"{info.width}x{info.height} is odd, which {NAMES[codec]} cannot hold in 4:{family[1]}:{family[2]}; "
            "the colour is stored at full resolution (4:4:4)"
        )
        family = "444"
    bits = next((b for b in (8, 10, 12, 16) if b >= layout.bits and _name(family, b) in known), 0)
    if not bits:
        families = [f for f in (family, "444", "422", "420") if any(_name(f, b) in known for b in (8, 10))]
        family = families[0]
        depths = [b for b in (8, 10, 12, 16) if _name(family, b) in known]
        bits = min((b for b in depths if b >= layout.bits), default=max(depths))
    if bits < layout.bits:
        notes.append(f"{layout.bits} bits per component become {bits}, the most that {NAMES[codec]} holds here")
    if layout.kind == "rgb":
        notes.append(f"RGB is stored as YUV 4:{family[1]}:{family[2]} (BT.709)")
    elif family != source and layout.kind == "yuv" and not (only_420 or family == "444"):
        notes.append(f"chroma 4:{source[1]}:{source[2]} becomes 4:{family[1]}:{family[2]}, as {NAMES[codec]} needs")
    if codec == "h264" and family == "444" and layout.kind != "gray":
        notes.append(f"H.264 in 4:4:4 does not play everywhere{'' if odd else '; --chroma 420 would'}")
    return _name(family, bits)


def _name(family: str, bits: int) -> str:
    return f"yuv{family}p" + ("" if bits == 8 else f"{bits}le")


def _options(codec: str, settings: OutputSettings, info: VideoInfo) -> dict[str, str]:
    if codec == "ffv1":
        return {"level": "3", "slicecrc": "1", "g": "1"}
    crf = DEFAULT_CRF[codec] if settings.crf is None else settings.crf
    if crf > LARGEST_CRF[codec]:
        raise UsageError(
            f"--crf is {crf}, but for {NAMES[codec]} it must be within 0..{LARGEST_CRF[codec]}",
            "Lower means higher quality and a larger file; 16 is hard to tell from the original.",
        )
    tags = _hdr_parameters(info)
    if info.chroma_location and info.layout.sub_y:
        tags["chromaloc"] = str(info.chroma_location - 1)
    if codec == "av1":
        parameters = [f"{k}={v}" for k, v in _av1_hdr(info).items()]
        options = {"crf": str(crf), "preset": str(AV1_PRESETS.get(settings.preset, 6))}
        return options | ({"svtav1-params": ":".join(parameters)} if parameters else {})
    options = {"crf": str(crf), "preset": settings.preset}
    if codec == "hevc":
        parameters = ["log-level=error", *(f"{k}={v}" for k, v in tags.items())]
        return options | {"x265-params": ":".join(parameters)}
    rename = {"master-display": "mastering-display", "max-cll": "cll"}
    parameters = [f"{rename.get(k, k)}={v}" for k, v in tags.items()]
    if cv2.checkHardwareSupport(_CPU_AVX_512F):
        # x264's AVX-512 code reads uninitialised memory if half the width is not a multiple of 64: the same
        # frames then give other bytes now and then. Its AVX2 code does not.
        parameters.append("asm=AVX2")
    return options | ({"x264-params": ":".join(parameters)} if parameters else {})


def _mastering(info: VideoInfo) -> tuple[list[Fraction], list[Fraction]] | None:
    """Chromaticities (Rx, Ry, Gx, Gy, Bx, By, Wx, Wy) and luminances (min, max in cd/m2) of the mastering display."""
    raw = info.mastering_display
    if raw is None or len(raw) < 88:
        return None
    values = struct.unpack("<20i2i", raw[:88])
    if not (values[20] and values[21]) or 0 in values[1:20:2]:
        return None
    numbers = [Fraction(values[i], values[i + 1]) for i in range(0, 20, 2)]
    return numbers[:8], numbers[8:]


def _hdr_parameters(info: VideoInfo) -> dict[str, str]:
    found: dict[str, str] = {}
    mastering = _mastering(info)
    if mastering:
        (rx, ry, gx, gy, bx, by, wx, wy), (low, high) = mastering

        def point(x: Fraction, y: Fraction) -> str:
            return f"({round(x * 50000)},{round(y * 50000)})"

        luminance = f"({round(high * 10000)},{round(low * 10000)})"
        found["master-display"] = f"G{point(gx, gy)}B{point(bx, by)}R{point(rx, ry)}WP{point(wx, wy)}L{luminance}"
    if info.content_light:
        found["max-cll"] = f"{info.content_light[0]},{info.content_light[1]}"
    return found


def _av1_hdr(info: VideoInfo) -> dict[str, str]:
    found: dict[str, str] = {}
    mastering = _mastering(info)
    if mastering:
        (rx, ry, gx, gy, bx, by, wx, wy), (low, high) = mastering

        def point(x: Fraction, y: Fraction) -> str:
            return f"({float(x):.5f},{float(y):.5f})"

        luminance = f"({float(high):.4f},{float(low):.4f})"
        found["mastering-display"] = f"G{point(gx, gy)}B{point(bx, by)}R{point(rx, ry)}WP{point(wx, wy)}L{luminance}"
    if info.content_light:
        found["content-light"] = f"{info.content_light[0]},{info.content_light[1]}"
    return found
