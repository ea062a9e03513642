"""Numbers as people read them."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """A length of time, rounded: ``12 s``, ``3 min``, ``1 h 20 min``."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def clock(seconds: float, decimals: int = 0) -> str:
    """A place in a video, rounded down: ``m:ss`` or ``h:mm:ss``, with ``decimals`` digits after the seconds."""
    unit = 10**decimals
    # A time such as 0.07 is a little less than that in binary.
    count = int(abs(seconds) * unit + 1e-6)
    minutes, rest = divmod(count, 60 * unit)
    hours, minutes = divmod(minutes, 60)
    sign = "-" if seconds < 0 else ""
    width = 3 + decimals if decimals else 2
    tail = f"{rest / unit:0{width}.{decimals}f}"
    return f"{sign}{hours}:{minutes:02d}:{tail}" if hours else f"{sign}{minutes}:{tail}"


def plural(count: int, thing: str) -> str:
    """``1 frame``, ``2 frames``."""
    return f"{count} {thing}{'s' * (count != 1)}"


def size(count: int) -> str:
    """Bytes in decimal units: ``15.7 MB``."""
    value, unit = float(count), "B"
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            break
        value /= 1000
    return f"{count} B" if unit == "B" else f"{value:.1f} {unit}"
