"""A video that is passed through comes out as the same bytes, or at least as the same coded frames."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from selfhvd_tta.errors import UsageError
from selfhvd_tta.settings import OutputSettings
from selfhvd_tta.video.opening import open_reader
from selfhvd_tta.video.passthrough import Passed, pass_through
from selfhvd_tta.video.probe import probe
from tests.media import decode_planes, make_clip, packets, smooth_planes

PTS = [512 * i for i in range(20)]


def run(source: Path, out: Path, **settings: object) -> Passed:
    return pass_through(open_reader(source), out, OutputSettings(preset="ultrafast", **settings))  # type: ignore[arg-type]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_same_container(tmp_path: Path, suffix: str) -> None:
    source = make_clip(tmp_path / f"in{suffix}", PTS, audio_seconds=0.5)
    assert run(source, tmp_path / f"out{suffix}") == Passed([])
    assert (tmp_path / f"out{suffix}").read_bytes() == source.read_bytes()
    with pytest.raises(UsageError, match="exists already"):
        run(source, tmp_path / f"out{suffix}")


@pytest.mark.parametrize(("first", "second"), [(".mp4", ".mov"), (".mp4", ".mkv"), (".mkv", ".mp4"), (".ts", ".mp4")])
def test_another_container(tmp_path: Path, first: str, second: str) -> None:
    """The coded frames are the same: decoding gives the very same planes."""
    unit = {".mp4": Fraction(1, 15360), ".mkv": Fraction(1, 1000), ".ts": Fraction(1, 90000)}[first]
    step = round(1 / (25 * unit))
    source = make_clip(
        tmp_path / f"in{first}",
        [step * i for i in range(20)],
        unit,
        options={"crf": "30", "bf": "2"},
        sar=Fraction(4, 3),
    )
    assert not run(source, tmp_path / f"out{second}").encoded_because
    before, after = decode_planes(source), decode_planes(tmp_path / f"out{second}")
    assert len(before) == len(after) == 20
    for (_, a), (_, b) in zip(before, after, strict=True):
        assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
    assert probe(tmp_path / f"out{second}").sar == Fraction(4, 3)
    units = probe(source).time_base, probe(tmp_path / f"out{second}").time_base
    for (t, _), (u, _) in zip(before, after, strict=True):
        assert abs((t - before[0][0]) * units[0] - (u - after[0][0]) * units[1]) <= Fraction(1, 1000)


def test_a_codec_that_the_container_refuses(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mkv", [0, 40, 80], Fraction(1, 1000), codec="libvpx")
    assert "cannot hold its frames" in run(source, tmp_path / "out.mp4").encoded_because
    assert len(decode_planes(tmp_path / "out.mp4")) == 3


def test_folder(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for i in range(3):
        cv2.imwrite(str(source / f"{i}.jpg"), np.stack(smooth_planes(i, 64, 48, "gbrp"), axis=-1))
    assert run(source, tmp_path / "out") == Passed([])
    for file in source.iterdir():
        assert (tmp_path / "out" / file.name).read_bytes() == file.read_bytes()
    run(source, tmp_path / "out.mp4")
    assert len(packets(tmp_path / "out.mp4", "video")[0]) == 3
