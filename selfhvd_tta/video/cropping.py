"""The visible crop: what a container's header says is to be shown of each picture.

FFmpeg reads ``clap`` of MP4 and PixelCrop of Matroska into its description of a stream and writes them from there, but
PyAV neither shows nor takes them. So they are read from the header, and put into the header of a small file that serves
as the template of the new stream.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error

from selfhvd_tta.video.headers import boxes, boxes_at, elements_at, mapped

CROP = "the visible crop: the borders that it hides will show"
# The way to the tables of sample descriptions, and how many bytes of its own a video's entry has.
TRACK = (b"moov", b"trak")
DESCRIPTIONS = (b"mdia", b"minf", b"stbl", b"stsd")
ENTRY = 78
# Matroska: Segment, Tracks; a TrackEntry; its Video; and bottom, top, left and right of the crop.
MATROSKA_TRACKS = (0x18538067, 0x1654AE6B)
MATROSKA_TRACK = 0xAE
MATROSKA_VIDEO = (0xE0,)
MATROSKA_CROPS = {0x54AA: "bottom", 0x54BB: "top", 0x54CC: "left", 0x54DD: "right"}
Crop = dict[str, int]
"""Pixels hidden at the ``top``, ``bottom``, ``left`` and ``right``."""


def visible_crop(path: Path, container: str, index: int, width: int, height: int) -> Crop | None:
    """The crop that the header of a video file states; None if it hides nothing, or more than there is.

    Args:
        path: the file.
        container: FFmpeg's name of the demuxer.
        index: of the video stream.
        width: of its pictures in pixels.
        height: of its pictures in pixels.
    """
    found: Crop = {}
    with mapped(path) as data, suppress(struct.error, IndexError, ZeroDivisionError):  # damage is the demuxer's matter
        if "mp4" in container:
            _, start, stop = boxes_at(data, *TRACK)[index]
            for _, first, last in boxes_at(data, *DESCRIPTIONS, within=(start, stop)):
                # The table counts its entries in 8 bytes before the first one.
                for _, entry, end in boxes(data, first + 8, last):
                    for name, at, _ in boxes(data, entry + ENTRY, end):
                        if name == b"clap":
                            found = _of_clap(data[at : at + 32], width, height)
        elif "matroska" in container:
            _, start, stop = [track for track in elements_at(data, MATROSKA_TRACKS) if track[0] == MATROSKA_TRACK][
                index
            ]
            for key, first, last in elements_at(data, MATROSKA_VIDEO, within=(start, stop)):
                if key in MATROSKA_CROPS:
                    found[MATROSKA_CROPS[key]] = int.from_bytes(data[first:last], "big")
    crop = {side: found.get(side, 0) for side in MATROSKA_CROPS.values()}
    possible = (
        min(crop.values()) >= 0 and crop["left"] + crop["right"] < width and crop["top"] + crop["bottom"] < height
    )
    return crop if possible and any(crop.values()) else None


def _of_clap(raw: bytes, width: int, height: int) -> Crop:
    """The sides of a clean aperture, which states its size and how far its centre is from that of the picture."""
    numbers = struct.unpack(">IIIIiIiI", raw)
    wide, high, right, down = (Fraction(a, b) for a, b in zip(numbers[::2], numbers[1::2], strict=True))
    left, top = round((width - wide) / 2 + right), round((height - high) / 2 + down)
    return {"left": left, "top": top, "right": width - left - round(wide), "bottom": height - top - round(high)}


@contextmanager
def with_crop(template: Any, crop: Crop) -> Iterator[Any]:
    """A stream like ``template`` that has the crop as well; ``template`` itself where it has one or cannot get one."""
    header = _header_of(template)
    if header is None or b"clap" in header:
        yield template
        return
    context = template.codec_context
    with av.open(io.BytesIO(with_clap(header, clap(crop, context.width, context.height)))) as container:
        yield container.streams.video[0]


def _header_of(template: Any) -> bytes | None:
    """The header of an MP4 or MOV file with that stream and nothing in it; None if neither takes it."""
    for kind in ("mp4", "mov"):
        with suppress(av.error.FFmpegError, ValueError):
            file = io.BytesIO()
            with av.open(file, "w", format=kind, container_options={"movflags": "empty_moov"}) as container:
                container.add_stream_from_template(template, opaque=True)
                container.start_encoding()
            return file.getvalue()
    return None


def clap(crop: Crop, width: int, height: int) -> bytes:
    """The box of MP4 that states a crop of pictures of that size."""
    sizes = (width - crop["left"] - crop["right"], 1, height - crop["top"] - crop["bottom"], 1)
    offsets = (crop["left"] - crop["right"], 2, crop["top"] - crop["bottom"], 2)
    return struct.pack(">I4sIIIIiIiI", 40, b"clap", *sizes, *offsets)


def with_clap(header: bytes, box: bytes) -> bytes:
    """The box put at the end of the first sample description, and the size of all boxes around it set right."""
    data = bytearray(header)
    start, stop = 0, len(data)
    for wanted in (*TRACK, *DESCRIPTIONS, b""):
        start += 0 if wanted else 8
        for name, first, last in boxes(header, start, stop):
            if name == wanted or not wanted:
                struct.pack_into(">I", data, first - 8, last - first + 8 + len(box))
                start, stop = first, last
                break
    return bytes(data[:stop]) + box + bytes(data[stop:])
