"""Opening an input: what is taken for a video file, what is refused, and why."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import av.error

from selfhvd_tta.errors import InputError
from selfhvd_tta.video.compat import KEEP_BYTES, disposition_bits

# What PyAV raises on damaged files: FFmpeg's errors, and a few that its own Python layer lets through.
DECODE_ERRORS = (av.error.FFmpegError, UnicodeDecodeError, IndexError, ValueError, OSError)


@contextmanager
def input_errors(path: Path) -> Iterator[None]:
    """Turn whatever reading ``path`` raises into an :class:`InputError` with a line of advice."""
    try:
        yield
    except FileNotFoundError as error:
        raise InputError(f"{path}: there is no such file", "Check the path.") from error
    except PermissionError as error:
        raise InputError(f"{path}: may not be read", "Check the file's permissions.") from error
    except DECODE_ERRORS as error:
        raise InputError(*_diagnosis(path, error)) from error


def _diagnosis(path: Path, error: BaseException) -> tuple[str, str]:
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(16)
    except OSError:
        size, head = -1, b""
    if size == 0:
        return f"{path}: the file is empty", "Copy it again from its source."
    if head[4:8] == b"ftyp" and isinstance(error, av.error.InvalidDataError):
        return (
            f"{path}: this MP4 has no usable index (moov), so it cannot be played",
            "The recording or the copy was cut off; copy it again, or rebuild it with a tool such as untrunc.",
        )
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return f"{path}: cannot be read as a video ({reason})", "Check that it plays in a video player."


def open_input(path: Path) -> Any:
    """Open a container for reading; bytes of its metadata that are not UTF-8 survive a round trip.

    Raises:
        InputError: the file is missing, empty, cut off or no video.
    """
    if path.is_dir():
        raise InputError(f"{path}: is a folder, not a video file", "Give a video file or a folder of images.")
    with input_errors(path):
        return av.open(str(path), **KEEP_BYTES)


def pick_video(container: Any, path: Path) -> Any:
    """The stream to process: the first one that is not cover art, one marked as default preferred."""
    streams = [s for s in container.streams.video if not is_picture(s) and s.codec_context is not None]
    if not streams:
        what = "only cover art" if container.streams.video else "no video"
        kinds = sorted({s.type for s in container.streams})
        raise InputError(f"{path}: holds {what} ({', '.join(kinds) or 'no streams'})", "Give a file with a video.")
    return next((s for s in streams if disposition_bits(s) & 1), streams[0])


def is_picture(stream: Any) -> bool:
    """Cover art or a thumbnail: a video stream of one still picture."""
    return stream.type == "video" and bool(disposition_bits(stream) & (1 << 10))
