"""How long a file should be by its own header, to notice an end that was cut off."""

from __future__ import annotations

import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from selfhvd_tta.video.headers import Bytes, mapped
from selfhvd_tta.wording import size

MISSING = "the end of the file is missing: "
HEAD = 1 << 16
SEGMENT = 0x18538067
ASF_FILE = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
ASF_BROADCAST = 1
LAST_PAGE = 4
PAGE = 65307  # bytes of Ogg's longest page


def cut_off(path: Path, container: str) -> str:
    """What to tell the user if a file is shorter than its header states, or lacks its end mark; else empty.

    Args:
        path: the file.
        container: FFmpeg's name of the demuxer.
    """
    with mapped(path) as data, suppress(struct.error, IndexError):  # the demuxer reports damage
        if container == "ogg":
            return (
                ""
                if _has_last_page(data)
                else "the end of the file is missing: its last page is not marked as the last"
            )
        for name, stated in STATED.items():
            if name in container and (missing := stated(data) - len(data)) > 0:
                return f"{MISSING}it is {size(missing)} shorter than its header says"
    return ""


def _asf(data: Bytes) -> int:
    at = data[:HEAD].find(ASF_FILE)
    if at < 0:
        return 0
    # Sizes in the header of a live stream are not valid.
    length, flags = struct.unpack_from("<Q", data, at + 40)[0], struct.unpack_from("<I", data, at + 88)[0]
    return 0 if flags & ASF_BROADCAST else int(length)


def _avi(data: Bytes) -> int:
    return int(struct.unpack_from("<I", data, 4)[0]) + 8 if data[:4] == b"RIFF" else 0


def _flv(data: Bytes) -> int:
    name = b"\x00\x08filesize\x00"
    at = data[:HEAD].find(name)
    value = struct.unpack_from(">d", data, at + len(name))[0] if at >= 0 else 0.0
    return int(value) if 0 <= value < 1 << 50 else 0


def _matroska(data: Bytes) -> int:
    """End of the segment; the reader clips it to the file, so the size is read again. 0 if it was not known."""
    at = data[:HEAD].find(SEGMENT.to_bytes(4, "big")) + 4
    if at < 4:
        return 0
    length = 9 - data[at].bit_length()
    value = int.from_bytes(data[at : at + length], "big") & ((1 << 7 * length) - 1)
    return 0 if value == (1 << 7 * length) - 1 else at + length + value


def _has_last_page(data: Bytes) -> bool:
    """Whether the last page of an Ogg file is whole and ends one of its streams."""
    at = data.rfind(b"OggS", max(0, len(data) - PAGE))
    if at < 0:
        return False
    flags, table = data[at + 5], data[at + 27 : at + 27 + data[at + 26]]
    return bool(flags & LAST_PAGE) and at + 27 + len(table) + sum(table) <= len(data)


STATED: dict[str, Callable[[Bytes], int]] = {"asf": _asf, "avi": _avi, "flv": _flv, "matroska": _matroska}
