"""The last check before a result appears under its name: every frame is there, at its time, and decodes."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import av.error

from selfhvd_tta.errors import VerificationError
from selfhvd_tta.video.compat import KEEP_BYTES, time_base_of
from selfhvd_tta.video.source import DECODE_ERRORS


def verify_video(path: Path, seconds: list[Fraction], tolerance: Fraction, width: int, height: int) -> None:
    """Decode a written file completely and compare it with what was to be written.

    Args:
        path: the file; its first video stream is checked.
        seconds: presentation time of every frame.
        tolerance: by which a time may differ (a container may round).
        width: of every frame in pixels.
        height: of every frame in pixels.

    Raises:
        VerificationError: it differs; the message says how.
    """
    found: list[Fraction] = []
    try:
        with av.open(f"file:{path}", **KEEP_BYTES) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            unit = time_base_of(stream)
            for frame in container.decode(stream):
                if frame.is_corrupt or (frame.width, frame.height) != (width, height):
                    raise _failed(path, f"frame {len(found)} is damaged")
                if frame.pts is None:
                    raise _failed(path, f"frame {len(found)} has no time")
                found.append(frame.pts * unit)
    except DECODE_ERRORS as error:
        raise _failed(path, f"it does not decode after frame {len(found)} ({error})") from error
    if len(found) != len(seconds):
        raise _failed(path, f"it holds {len(found)} frames instead of {len(seconds)}")
    for index, (is_at, should_be) in enumerate(zip(found, seconds, strict=True)):
        if abs(is_at - should_be) > tolerance:
            raise _failed(path, f"frame {index} is at {float(is_at):.6f} s instead of {float(should_be):.6f} s")


def _failed(path: Path, what: str) -> VerificationError:
    return VerificationError(
        f"the written video failed the check: {what}",
        "The output was not written. Choose a name that ends in .mkv; if that fails too, check the disk.",
    )
