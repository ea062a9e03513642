"""Opens an input: what counts as a video file, what is refused, and why."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import av
import av.error

from selfhvd_tta.errors import InputError
from selfhvd_tta.video.compat import KEEP_BYTES, disposition_bits
from selfhvd_tta.video.headers import sample_kinds
from selfhvd_tta.video.refusal import refuse_other_things

ENCRYPTED = "encv"  # what MP4 calls encrypted video, whatever its codec
# What PyAV raises on damaged files: FFmpeg's errors, and a few that its own Python layer lets through.
DECODE_ERRORS = (av.error.FFmpegError, UnicodeDecodeError, IndexError, ValueError, OSError)


# Demuxers that open other files or addresses, which a video must not name.
OPEN_OTHERS = frozenset({
    "hls", "concat", "dash", "sdp", "rtsp", "rtp", "imf", "webm_dash_manifest", "avisynth", "vapoursynth", "lavfi",
})  # fmt: skip
LIST_HEADS = ((b"#EXTM3U", "hls"), (b"ffconcat", "concat"), (b"v=0", "sdp"), (b"<MPD", "dash"), (b"<?xml", "dash"))


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
        InputError: the file is missing, empty, truncated or not a video.
    """
    refuse_other_things(path)
    if path.is_dir():
        raise InputError(f"{path}: is a folder, not a video file", "Give a video file or a folder of images.")
    with input_errors(path):
        try:
            # With an explicit protocol, a name with a colon stays a name, and nothing is fetched from elsewhere.
            return av.open(f"file:{path}", options=_only_files(), **KEEP_BYTES)
        except av.error.ArgumentError as error:
            if _format_of(path) in OPEN_OTHERS:
                raise InputError(
                    f"{path}: is a list of other files, not a video", "Give the video files themselves."
                ) from error
            raise


@lru_cache(maxsize=1)
def _demuxers() -> str:
    """Demuxers that read one file and open no other."""
    names: list[str] = []
    for name in sorted(av.formats_available):
        with suppress(ValueError):
            if av.format.ContainerFormat(name, "r").is_input:
                names.append(name)
    return ",".join(name for name in names if name not in OPEN_OTHERS)


def _only_files() -> dict[str, str]:
    return {"format_whitelist": _demuxers(), "protocol_whitelist": "file"}


def _format_of(path: Path) -> str:
    """The kind of list that a file looks like; empty: none."""
    with path.open("rb") as file:
        head = file.read(512).lstrip(b"\xef\xbb\xbf \r\n\t")
    return next((name for start, name in LIST_HEADS if head.startswith(start)), "")


def pick_video(container: Any, path: Path) -> Any:
    """The stream to process: the largest picture that is not cover art; of equal ones, the default stream.

    Raises:
        InputError: there is none, or none that can be decoded.
    """
    videos = [s for s in container.streams.video if not is_picture(s)]
    streams = [s for s in videos if s.codec_context is not None]
    if videos and not streams:
        raise _unknown(path, [sample_kind(container, stream.index) for stream in videos])
    if not streams:
        what = "only cover art" if container.streams.video else "no video"
        kinds = sorted({s.type for s in container.streams})
        raise InputError(f"{path}: holds {what} ({', '.join(kinds) or 'no streams'})", "Give a file with a video.")
    # A second, smaller stream is a preview or another camera's view, and may be marked as default too.
    return max(streams, key=lambda s: (s.codec_context.width * s.codec_context.height, disposition_bits(s) & 1))


def sample_kind(container: Any, index: int) -> str:
    """What the header of an MP4 or MOV file calls the samples of a stream (``avc1``); empty if it does not say."""
    path = path_of(container)
    kinds = sample_kinds(path) if "mp4" in container.format.name and path.is_file() else []
    return kinds[index] if index < len(kinds) and kinds[index].isprintable() else ""


def path_of(container: Any) -> Path:
    """Path of an open container."""
    return Path(container.name.removeprefix("file:"))


def _unknown(path: Path, kinds: list[str]) -> InputError:
    """The error for videos none of which has a decoder."""
    if ENCRYPTED in kinds:
        return InputError(
            f"{path}: its video is encrypted ({ENCRYPTED})", "Save it without copy protection with the app it is from."
        )
    names = ", ".join(sorted(set(kinds) - {""}))
    what = f"of the codec {names}, which FFmpeg does not know" if names else "of a codec that FFmpeg does not know"
    return InputError(f"{path}: its video is {what}", "Convert it with the program that made it, to H.264 for example.")


def is_picture(stream: Any) -> bool:
    """Cover art or a thumbnail: a video stream of one still picture."""
    return stream.type == "video" and bool(disposition_bits(stream) & (1 << 10))
