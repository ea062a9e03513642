"""Facts in a container's header that PyAV does not deliver: they cannot be kept, but they can be reported."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

MAKER = "data of the camera's maker in the header: {}"
TYPED = "the types of metadata values: {} become text or are lost"

# Boxes of MP4's user data that FFmpeg reads as tags or chapters; so are those whose names begin with a copyright sign.
USER_DATA = frozenset({
    b"meta", b"loci", b"chpl", b"FIRM", b"auth", b"titl", b"dscp", b"cprt", b"perf", b"gnre", b"albm", b"yrrc", b"name",
})  # fmt: skip
# Kinds of MP4 metadata values that are text; all others are numbers, pictures or binary.
TEXT_KINDS = (1, 2, 3, 4, 5)
Bytes = mmap.mmap | bytes
MOST = 100_000
"""Most boxes or elements to read: a damaged header ends the search, not the program."""


def unread(path: Path, container: str) -> list[str]:
    """One line for each thing in the header of a video file that its result will lack.

    Args:
        path: the file.
        container: FFmpeg's name of the demuxer.
    """
    if "mp4" not in container:
        return []
    kinds: list[int] = []
    makers: set[str] = set()
    with mapped(path) as data, suppress(struct.error, IndexError):  # the demuxer reports damage
        for _, start, stop in boxes_at(data, b"moov", b"meta"):
            for name, first, last in boxes(data, start, stop):
                if name == b"ilst":
                    kinds += [_kind_of(data, a, b) for _, a, b in boxes(data, first, last)]
        for _, start, stop in boxes_at(data, b"moov", b"udta"):
            names = {name for name, _, _ in boxes(data, start, stop)} - USER_DATA
            makers |= {name.decode("ascii") for name in names if name.isalnum() and name.isascii()}
    said = [MAKER.format(", ".join(sorted(makers)))] if makers else []
    count = sum(kind not in TEXT_KINDS for kind in kinds)
    return [*said, TYPED.format(count)] if count else said


def sample_kinds(path: Path) -> list[str]:
    """Four-letter name of the samples of each track of an MP4 or MOV file, in order; empty for other files."""
    kinds: list[str] = []
    with mapped(path) as data, suppress(struct.error, IndexError):
        for _, start, stop in boxes_at(data, b"moov", b"trak"):
            described = boxes_at(data, b"mdia", b"minf", b"stbl", b"stsd", within=(start, stop))
            name = data[described[0][1] + 12 : described[0][1] + 16] if described else b""
            kinds.append(name.decode("latin-1").strip())
    return kinds


@contextmanager
def mapped(path: Path) -> Iterator[mmap.mmap]:
    """The bytes of a file, read where they are looked at."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        yield data


def _kind_of(data: Bytes, start: int, stop: int) -> int:
    """Kind of the value in an entry of MP4's list of metadata."""
    values = [first for name, first, _ in boxes(data, start, stop) if name == b"data"]
    return int(struct.unpack_from(">I", data, values[0])[0]) if values else TEXT_KINDS[0]


def boxes(data: Bytes, start: int, stop: int) -> Iterator[tuple[bytes, int, int]]:
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


def boxes_at(data: Bytes, *names: bytes, within: tuple[int, int] | None = None) -> list[tuple[bytes, int, int]]:
    """The boxes at the end of a path of names, from the top of an MP4 file or within a range of it."""
    found = [(b"", *(within or (0, len(data))))]
    for name in names:
        found = [box for _, start, stop in found for box in boxes(data, start, stop) if box[0] == name]
    return found


def elements_at(
    data: Bytes, path: tuple[int, ...], within: tuple[int, int] | None = None
) -> list[tuple[int, int, int]]:
    """Key, first byte and end of the elements below a path of keys, from the top of a Matroska file or in a range."""
    found = [(0, *(within or (0, len(data))))]
    for key in path:
        found = [part for _, a, b in found for part in _elements(data, a, b) if part[0] == key]
    return [part for _, a, b in found for part in _elements(data, a, b)]


def _elements(data: Bytes, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
    for _ in range(MOST):
        if start >= stop:
            return
        key, start = _number(data, start, False)
        size, start = _number(data, start, True)
        end = stop if size < 0 else min(start + size, stop)  # a size that was not known while writing
        yield key, start, end
        start = end


def _number(data: Bytes, start: int, masked: bool) -> tuple[int, int]:
    """A number of variable length, and where it ends; -1 stands for unknown."""
    length = 9 - data[start].bit_length()
    if length > 8:
        raise IndexError("no such number")
    value = int.from_bytes(data[start : start + length], "big")
    if masked:
        value &= (1 << 7 * length) - 1
        value = -1 if value == (1 << 7 * length) - 1 else value
    return value, start + length
