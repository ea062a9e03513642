"""Comparison videos: layouts, labels, times, sound, orientation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from selfhvd_tta.errors import InputError, UsageError
from selfhvd_tta.extras.comparison import arrange, comparison_path, write_comparison
from selfhvd_tta.settings import Layout, OutputSettings
from selfhvd_tta.video.opening import open_reader
from selfhvd_tta.video.orientation import coded, picture, upright
from selfhvd_tta.video.reader import VideoReader
from tests.media import decode_planes, make_clip, packets, shaky_file

UNIT = 1 << 16
# The eight orientations: display matrix, and what it makes of a picture, by numpy alone.
TURNS = [
    ((1, 0, 0, 1), lambda a: a),
    ((-1, 0, 0, 1), np.fliplr),
    ((1, 0, 0, -1), np.flipud),
    ((-1, 0, 0, -1), lambda a: np.rot90(a, 2)),
    ((0, 1, -1, 0), lambda a: np.rot90(a, -1)),
    ((0, -1, 1, 0), lambda a: np.rot90(a, 1)),
    ((0, 1, 1, 0), lambda a: a.swapaxes(0, 1)),
    ((0, -1, -1, 0), lambda a: np.rot90(a.swapaxes(0, 1), 2)),
]


def matrix(a: int, b: int, c: int, d: int) -> tuple[int, ...]:
    return (a * UNIT, b * UNIT, 0, c * UNIT, d * UNIT, 0, 0, 0, 1 << 30)


@pytest.mark.parametrize(("entries", "expected"), TURNS, ids=[str(t[0]) for t in TURNS])
def test_orientations(tmp_path: Path, entries: tuple[int, int, int, int], expected: Any) -> None:
    from dataclasses import replace

    info = replace(VideoReader(make_clip(tmp_path / "a.mp4")).info, display_matrix=matrix(*entries))
    frame = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    np.testing.assert_array_equal(upright(frame, info), expected(frame))
    np.testing.assert_array_equal(coded(upright(frame, info), info), frame)


def test_pictures_for_people_have_square_pixels(tmp_path: Path) -> None:
    from fractions import Fraction

    info = VideoReader(make_clip(tmp_path / "a.mp4", sar=Fraction(2, 1))).info
    frame = np.full((48, 64, 3), 65535, np.uint16)
    shown = picture(frame, info, 1000)
    assert shown.shape == (48, 128, 3)
    assert shown.dtype == np.uint8
    assert shown.min() == 255
    assert picture(frame, info, 64).shape == (24, 64, 3)


@pytest.mark.parametrize(("layout", "size"), [("side", (160, 64)), ("stack", (80, 128)), ("wipe", (80, 64))])
def test_times_and_sound_are_kept(tmp_path: Path, layout: Layout, size: tuple[int, int]) -> None:
    source = shaky_file(tmp_path / "a.mp4")
    out = write_comparison(source, source, layout, OutputSettings())
    assert out == tmp_path / f"a-{layout}.mp4" == comparison_path(source, layout)
    info = open_reader(out).info
    assert (info.width, info.height) == size
    assert [t for t, _ in decode_planes(out)] == [t for t, _ in decode_planes(source)]
    assert [p[2] for p in packets(out, "audio")[0]] == [p[2] for p in packets(source, "audio")[0]]
    with pytest.raises(UsageError, match="exists already"):
        write_comparison(source, source, layout, OutputSettings())
    write_comparison(source, source, layout, OutputSettings(overwrite=True))


def test_halves_are_input_and_result(tmp_path: Path) -> None:
    source = shaky_file(tmp_path / "a.mp4")
    dark = make_clip(tmp_path / "b.mp4", tuple(512 * i for i in range(12)), size=(80, 64))
    out = write_comparison(source, dark, "side", OutputSettings(crf=0))
    for both, old, new in zip(open_reader(out), open_reader(source), open_reader(dark), strict=True):
        # Away from the labels in the lower corners.
        assert np.abs(both.rgb[:40, :78].astype(int) - old.rgb[:40, :78]).mean() < 3
        assert np.abs(both.rgb[:40, 82:].astype(int) - new.rgb[:40, 2:]).mean() < 3


def test_a_turned_video_is_compared_as_it_is_shown(tmp_path: Path) -> None:
    def turn(container: Any, stream: Any) -> None:
        stream.set_display_matrix(matrix(0, 1, -1, 0))

    source = make_clip(tmp_path / "a.mp4", prepare=turn)
    reader = open_reader(source)
    assert reader.info.rotation % 180 == 90
    out = write_comparison(source, source, "side", OutputSettings())
    info = open_reader(out).info
    assert info.display_matrix == reader.info.display_matrix
    shown = upright(next(iter(open_reader(out))).rgb, info)
    assert shown.shape[:2] == (64, 96), "48 wide and 64 high, twice beside each other"
    np.testing.assert_allclose(shown[:40, :48].astype(int), shown[:40, 48:], atol=12)


def test_deep_video_stays_deep_and_large_video_is_halved(tmp_path: Path) -> None:
    deep = make_clip(
        tmp_path / "deep.mkv", codec="libx265", pix_fmt="yuv420p10le", options={"x265-params": "log-level=none"}
    )
    assert open_reader(write_comparison(deep, deep, "stack", OutputSettings())).info.bit_depth == 10
    wide = make_clip(tmp_path / "wide.mp4", (0, 512), size=(2400, 48))
    info = open_reader(write_comparison(wide, wide, "side", OutputSettings(preset="ultrafast"))).info
    assert (info.width, info.height) == (4096, 40)


def test_what_does_not_belong_together_is_refused(tmp_path: Path) -> None:
    source, other = shaky_file(tmp_path / "a.mp4"), make_clip(tmp_path / "b.mp4")
    with pytest.raises(InputError, match="does not belong to"):
        write_comparison(source, other, "side", OutputSettings())
    assert not (tmp_path / "b-side.mp4").exists()


def test_the_divider_moves_and_labels_are_written() -> None:
    black, white = np.zeros((100, 200, 3), np.uint8), np.full((100, 200, 3), 255, np.uint8)
    edges = [int((arrange(black, white, "wipe", t)[5, :, 0] < 128).sum()) for t in (0, 1, 2, 3, 4)]
    assert edges == [99, 200, 99, 0, 99], "starts in the middle, where a thumbnail shows both"
    side = arrange(black, white, "side", 0)
    assert side[70:, :100].max() > 200, "white letters on black"
    assert side[70:, 200:300].min() < 120, "a dark ground on white"
    assert side[:50, :200].max() == 0
    tiny = arrange(black[:8, :8], white[:8, :8], "side", 0)
    assert tiny[:, :8].max() == 0, "no room for a label"
