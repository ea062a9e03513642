"""Numbers as people read them."""

from __future__ import annotations

import pytest

from selfhvd_tta.wording import clock, duration, plural, size


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "1 s"), (89, "89 s"), (91, "2 min"), (5400, "1 h 30 min"), (3600, "60 min")]
)
def test_lengths_of_time(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "decimals", "text"),
    [
        (0, 0, "0:00"),
        (59.9, 0, "0:59"),
        (3661, 0, "1:01:01"),
        (-61, 0, "-1:01"),
        (62.5, 2, "1:02.50"),
        (0.07, 2, "0:00.07"),
        (59.999, 2, "0:59.99"),
    ],
)
def test_places_in_a_video(seconds: float, decimals: int, text: str) -> None:
    assert clock(seconds, decimals) == text


def test_one_and_many() -> None:
    assert [plural(n, "frame") for n in (0, 1, 2)] == ["0 frames", "1 frame", "2 frames"]


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (15_700_000, "15.7 MB"), (12_500_000_000_000, "12500.0 GB")],
)
def test_sizes_of_files(count: int, text: str) -> None:
    assert size(count) == text
