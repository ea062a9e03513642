"""Times as users write them: a duration, and a part of a video."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from selfhvd_tta.errors import UsageError


def seconds_of(text: str, flag: str = "--budget") -> float:
    """Seconds of ``90s``, ``5m``, ``1h`` or ``1h30m``.

    Raises:
        UsageError: the text is not of that form.
    """
    found = re.fullmatch(r"(?:([\d.]+)h)?(?:([\d.]+)m)?(?:([\d.]+)s)?", text.strip().lower())
    try:
        parts = [float(part) if part else 0.0 for part in found.groups()] if found else []
    except ValueError:
        parts = []
    if not sum(parts):
        raise UsageError(f"{flag} is {text!r}, but it must be a time such as 90s, 5m or 1h30m")
    return 3600 * parts[0] + 60 * parts[1] + parts[2]


@dataclass(frozen=True)
class TimeRange:
    """A part of a video: ``start <= time < stop`` in seconds from its first frame; without ``stop`` to the end."""

    start: Fraction
    stop: Fraction | None

    @classmethod
    def parse(cls, text: str) -> TimeRange:
        """Parse ``0:05-0:12``, ``5-12.5``, ``1:02:03-`` or ``-10``.

        Raises:
            UsageError: the text is not of that form, or nothing lies between the two times.
        """
        wrong = UsageError(f"--range is {text!r}, but it must be two times such as 0:05-0:12, 5-12.5, 90- or -0:10")
        ends = text.replace(" ", "").split("-")
        if len(ends) != 2 or not any(ends):
            raise wrong
        try:
            start, stop = (_clock_time(end) if end else None for end in ends)
        except ValueError:
            raise wrong from None
        if stop is not None and stop <= (start or 0):
            raise UsageError(f"--range is {text!r}, but it must end after it begins")
        return cls(start or Fraction(0), stop)


def _clock_time(text: str) -> Fraction:
    """Seconds of ``12.5``, ``m:ss`` or ``h:mm:ss``."""
    if not re.fullmatch(r"(?:(?:\d+:)?\d+:)?\d+(?:\.\d+)?|\.\d+", text, re.ASCII):
        raise ValueError(text)
    seconds = Fraction(0)
    for part in text.split(":"):
        seconds = 60 * seconds + Fraction(part)
    return seconds
