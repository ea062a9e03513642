"""A video comes out as it went in."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from selfhvd_tta.settings import OutputSettings
from selfhvd_tta.video.probe import probe
from selfhvd_tta.video.reader import VideoReader
from selfhvd_tta.video.writer import VideoWriter
from tests.media import decode_planes, make_clip, packets

TICK = Fraction(1, 15360)
STEADY = [512 * i for i in range(8)]
VARIABLE = [0, 500, 1100, 1111, 5000, 5001, 5002, 9000, 12000, 12001, 12002, 20000]


def identity(source: Path, out: Path, **settings: Any) -> list[str]:
    """Read a file and write the same frames; returns the writer's notes."""
    reader = VideoReader(source)
    settings = {"preset": "ultrafast", "crf": 0} | settings
    with VideoWriter(out, reader.info, OutputSettings(**settings)) as writer:
        for frame in reader:
            writer.write(frame.rgb, frame.pts)
    assert reader.warnings == []
    return writer.notes


@pytest.mark.parametrize(
    "pts",
    [STEADY, VARIABLE, [p + 1001 for p in STEADY], [0], [7], [0, 512], [3 * i for i in range(130)]],
    ids=["steady", "variable", "late start", "one frame", "one late frame", "two frames", "many"],
)
@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_frame_times_are_the_same(tmp_path: Path, pts: list[int], suffix: str) -> None:
    source = make_clip(tmp_path / "in.mp4", pts, TICK)
    assert identity(source, tmp_path / f"out{suffix}") == []
    before, after = decode_planes(source), decode_planes(tmp_path / f"out{suffix}")
    assert [p for p, _ in after] == [p for p, _ in before] == pts
    assert probe(tmp_path / f"out{suffix}").time_base == TICK


def test_pictures_and_tags_are_the_same(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mp4", color=(5, 2, 5, 6), sar=Fraction(4, 3), size=(66, 50))
    assert identity(source, tmp_path / "out.mp4") == []
    for (_, before), (_, after) in zip(decode_planes(source), decode_planes(tmp_path / "out.mp4"), strict=True):
        for a, b in zip(before, after, strict=True):
            assert np.abs(a.astype(int) - b).max() <= 1
    first, second = probe(source), probe(tmp_path / "out.mp4")
    assert second.color == first.color
    assert (second.sar, second.pix_fmt, second.width, second.height) == (Fraction(4, 3), first.pix_fmt, 66, 50)


def test_audio_is_copied_bit_by_bit(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mp4", [512 * i for i in range(30)], audio_seconds=1)
    assert identity(source, tmp_path / "out.mp4") == []
    assert packets(tmp_path / "out.mp4", "audio") == packets(source, "audio")
