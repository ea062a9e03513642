"""Differences between the supported releases of PyAV: 17.1 (Python 3.10), 18 (3.11) and 19."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import av

# Bytes of metadata that are not UTF-8 survive a round trip: the default from PyAV 19 on, an argument before.
KEEP_BYTES: dict[str, Any] = {} if int(av.__version__.split(".")[0]) >= 19 else {"metadata_errors": "surrogateescape"}


def as_fraction(value: Any) -> Fraction | None:
    """A rate, ratio or unit of time: a Fraction or None up to PyAV 18, an AVRational (0/1 for unknown) from 19 on."""
    if value is None or not value.denominator:
        return None
    return Fraction(value.numerator, value.denominator) or None


def time_base_of(thing: Any) -> Fraction:
    """Unit of time of a stream or packet.

    Raises:
        ValueError: it has none.
    """
    unit = as_fraction(thing.time_base)
    if unit is None:
        raise ValueError("a stream states no unit of time")
    return unit


def disposition_bits(stream: Any) -> int:
    """The AV_DISPOSITION bits of a stream (a Flag up to PyAV 17, an IntFlag later)."""
    value = stream.disposition
    return int(getattr(value, "value", value))
