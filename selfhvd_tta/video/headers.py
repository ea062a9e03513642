"""Facts in a container's header that PyAV does not deliver: they cannot be kept, but they can be reported."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from pathlib import Path

CROP = "the visible crop: the borders that it hides will show"
TYPED = "the types of metadata values: {} become text or are lost"

# Kinds of MP4 metadata values that are text; all others are numbers, pictures or binary.
TEXT_KINDS = (1, 2, 3, 4, 5)
# Matroska: Segment, Tracks, TrackEntry, Video; and the four sides of the crop.
MATROSKA_VIDEO = (0x18538067, 0x1654AE6B, 0xAE, 0xE0)
MATROSKA_CROPS = (0x54AA, 0x54BB, 0x54CC, 0x54DD)
MOST = 100_000
"""Most boxes or elements to read: a damaged header ends the search, not the program."""


def unread(path: Path, container: str) -> list[str]:
    """One line for each thing in the header of a video file that its result will lack.

    Args:
        path: the file.
        container: FFmpeg's name of the demuxer.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        found: list[str] = []
        try:
            if "mp4" in container:
                found = _of_mp4(data)
            elif "matroska" in container and any(
                key in MATROSKA_CROPS and any(data[start:stop])
                for key, start, stop in _elements_at(data, 0, len(data), MATROSKA_VIDEO)
            ):
                found = [CROP]
        except (struct.error, IndexError):
            pass  # the demuxer reports damage
        return found


def _of_mp4(data: mmap.mmap) -> list[str]:
    said = []
    for _, start, stop in _boxes_at(data, b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd"):
        # An entry of the table starts with 78 bytes of its own.
        for _, first, last in _boxes(data, start + 8, stop):
            if any(name == b"clap" for name, _, _ in _boxes(data, first + 78, last)):
                said.append(CROP)
    kinds = []
    for _, start, stop in _boxes_at(data, b"moov", b"meta"):
        for name, first, last in _boxes(data, start, stop):
            if name == b"ilst":
                kinds += [_kind_of(data, a, b) for _, a, b in _boxes(data, first, last)]
    count = sum(kind not in TEXT_KINDS for kind in kinds)
    return said + ([TYPED.format(count)] if count else [])


def _kind_of(data: mmap.mmap, start: int, stop: int) -> int:
    """Kind of the value in an entry of MP4's list of metadata."""
    values = [first for name, first, _ in _boxes(data, start, stop) if name == b"data"]
    return int(struct.unpack_from(">I", data, values[0])[0]) if values else TEXT_KINDS[0]


def _boxes(data: mmap.mmap, start: int, stop: int) -> Iterator[tuple[bytes, int, int]]:
    """Name, first byte and end of the content of each box of a range."""
    for _ in range(MOST):
        if start + 8 > stop:
            return
        size, head = struct.unpack_from(">I", data, start)[0], 8
        name = data[start + 4 : start + 8]
        if size == 1:
            size, head = struct.unpack_from(">Q", data, start + 8)[0], 16
        elif size == 0:
            size = stop - start
        if size < head:
            return
        yield name, start + head, min(start + size, stop)
        start += size


def _boxes_at(data: mmap.mmap, *names: bytes) -> list[tuple[bytes, int, int]]:
    """The boxes at the end of a path of names from the top."""
    found = [(b"", 0, len(data))]
    for name in names:
        found = [box for _, start, stop in found for box in _boxes(data, start, stop) if box[0] == name]
    return found


def _elements_at(data: mmap.mmap, start: int, stop: int, path: tuple[int, ...]) -> list[tuple[int, int, int]]:
    """Key, first byte and end of the elements below a path of keys."""
    found = [(0, start, stop)]
    for key in path:
        found = [part for _, a, b in found for part in _elements(data, a, b) if part[0] == key]
    return [part for _, a, b in found for part in _elements(data, a, b)]


def _elements(data: mmap.mmap, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
    for _ in range(MOST):
        if start >= stop:
            return
        key, start = _number(data, start, False)
        size, start = _number(data, start, True)
        end = stop if size < 0 else min(start + size, stop)  # a size that was not known while writing
        yield key, start, end
        start = end


def _number(data: mmap.mmap, start: int, masked: bool) -> tuple[int, int]:
    """A number of variable length, and where it ends; -1 stands for unknown."""
    length = 9 - data[start].bit_length()
    if length > 8:
        raise IndexError("no such number")
    value = int.from_bytes(data[start : start + length], "big")
    if masked:
        value &= (1 << 7 * length) - 1
        value = -1 if value == (1 << 7 * length) - 1 else value
    return value, start + length
