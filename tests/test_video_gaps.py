"""Frames that a demuxer passed over without a trace but their times, and transport streams that were cut."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from selfhvd_tta.video.decoding import gaps
from selfhvd_tta.video.reader import VideoReader
from tests.media import make_clip

BROADCAST = Fraction(1, 90000)


def read(path: Path) -> list[str]:
    reader = VideoReader(path)
    assert sum(1 for _ in reader.luma()) > 1
    return reader.warnings


@pytest.mark.parametrize(
    ("pts", "found"),
    [
        ([40 * i for i in range(24)], (0, 0)),
        ([40 * i for i in range(24) if i not in (5, 6, 11)], (3, 4)),
        ([round(i * 1000 / 30) for i in range(60) if not 20 <= i < 25], (5, 19)),
        ([0, 30, 75, 100, 161, 190, 230, 300, 333], (0, 0)),  # a phone's variable rate
        ([40 * i for i in range(60) if i % 4], (0, 0)),  # a recorder that leaves out what does not change
        ([40 * i + 17 * (i > 9) for i in range(24)], (0, 0)),  # a pause that no whole number of frames fills
        ([i for i in range(24) if i != 8], (1, 7)),  # one tick a frame, as in Ogg and AVI
        ([7], (0, 0)),
        ([], (0, 0)),
    ],
)
def test_gaps_count_only_at_a_constant_rate(pts: list[int], found: tuple[int, int]) -> None:
    assert gaps(pts) == found


def test_a_gap_between_frames_of_a_constant_rate_is_said(tmp_path: Path) -> None:
    times = [40 * i for i in range(24) if not 10 <= i < 15]
    lines = read(make_clip(tmp_path / "in.mkv", times, Fraction(1, 1000)))
    assert lines == ["the times leave room for 5 frames that the file lacks, first after 0:00.36"]


def test_a_transport_stream_cut_within_a_packet_is_said(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "in.ts", [3000 * i for i in range(24)], BROADCAST)
    assert read(path) == []
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 3 // 4 // 188 * 188 + 50])
    assert any("not a whole number of packets" in line for line in read(path))
