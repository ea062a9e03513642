"""Frames are delivered in order, at their times, and the same ones by seeking as by reading on."""

from __future__ import annotations

import random
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from selfhvd_tta.video import seeking
from selfhvd_tta.video.probe import probe
from selfhvd_tta.video.reader import VideoReader
from tests.media import decode_planes, make_clip, smooth_planes

MS = Fraction(1, 1000)
CLIPS: dict[str, tuple[str, dict[str, Any]]] = {
    "b-frames": (".mp4", {"options": {"g": "12", "bf": "3"}}),
    "open gop": (".mp4", {"options": {"g": "12", "bf": "3", "x264-params": "open-gop=1"}}),
    "one key frame": (".mp4", {"options": {"g": "999"}}),
    "intra refresh": (".mp4", {"options": {"x264-params": "intra-refresh=1:keyint=15"}}),
    "hevc open gop": (
        ".mp4",
        {
            "codec": "libx265",
            "options": {"x265-params": "log-level=error:keyint=12:min-keyint=12:open-gop=1"},
        },
    ),
    "late start": (".mp4", {"pts": [512 * i + 5000 for i in range(60)]}),
    "fragmented": (".mp4", {"muxer": {"movflags": "frag_keyframe+empty_moov"}, "options": {"g": "12"}}),
    "matroska": (".mkv", {"options": {"g": "12"}}),
    "vp9": (".webm", {"codec": "libvpx-vp9", "options": {"g": "12"}}),
    "av1": (".mp4", {"codec": "libsvtav1", "options": {"g": "12", "preset": "12"}}),
    "transport stream": (".ts", {"options": {"g": "12"}}),
    "mpeg-2": (".ts", {"codec": "mpeg2video", "options": {"g": "12", "bf": "2"}, "rate": Fraction(25)}),
    "avi": (".avi", {"codec": "mpeg4", "options": {"g": "12", "bf": "2"}, "rate": Fraction(25)}),
    "avi h264": (".avi", {"options": {"g": "12", "bf": "3"}, "rate": Fraction(25)}),
    "raw h264": (".h264", {"options": {"g": "12", "bf": "3"}}),
    "motion jpeg": (".mov", {"codec": "mjpeg", "pix_fmt": "yuvj420p"}),
    "lossless": (".mkv", {"codec": "ffv1"}),
}


def striped(index: int, width: int, height: int, pix_fmt: str) -> tuple[np.ndarray, ...]:
    """Frames that are easily told apart after any codec: a bar whose place counts."""
    luma, *chroma = smooth_planes(index, width, height, pix_fmt)
    luma[: height // 2] = 40
    luma[: height // 2, index % width] = 200
    return luma, *chroma


def clip(tmp_path: Path, name: str, frames: int = 60) -> Path:
    suffix, options = CLIPS[name]
    if suffix == ".avi":
        base, pts = Fraction(1, 25), list(range(frames))
    elif suffix in (".mkv", ".webm"):
        base, pts = MS, [40 * i for i in range(frames)]
    elif name == "mpeg-2":
        base, pts = Fraction(1, 25), list(range(frames))
    elif suffix == ".ts":
        base, pts = Fraction(1, 90000), [3600 * i for i in range(frames)]
    else:
        base, pts = Fraction(1, 15360), [512 * i for i in range(frames)]
    options = {"pts": pts, "time_base": base, "planes": striped} | options
    return make_clip(tmp_path / f"in{suffix}", **options)


@pytest.mark.parametrize("name", CLIPS)
def test_reading_by_index_is_exact(tmp_path: Path, name: str) -> None:
    path = clip(tmp_path, name)
    reader = VideoReader(path)
    luma = [(f.index, f.pts, f.y) for f in reader.luma()]
    assert reader.warnings == []
    frames = {f.index: f for f in reader}
    assert len(luma) == len(frames) == len(reader.pts) == 60
    assert [i for i, *_ in luma] == list(range(60))
    assert [t for _, t, _ in luma] == [f.pts for f in frames.values()] == list(reader.pts)
    assert all(a < b for a, b in pairwise(reader.pts))
    steps = {round((b - a) * reader.info.time_base, 3) for a, b in pairwise(reader.pts)}
    assert len(steps) <= 2
    for i, _, y in luma:
        # The bar says which picture this is: presentation order, not decoding order.
        assert int(np.argmax(y[:20].mean(axis=0))) == i
    draw = random.Random(0)
    for count in (1, 1, 2, 5, 20, 60):
        wanted = sorted(draw.sample(range(60), count))
        found = list(VideoReader(path).read(wanted) if count == 5 else reader.read(wanted))
        assert [f.index for f in found] == wanted
        for frame in found:
            assert frame.pts == frames[frame.index].pts
            assert np.array_equal(frame.rgb, frames[frame.index].rgb)


@pytest.mark.parametrize("name", ["b-frames", "matroska", "open gop"])
def test_seeking_is_used(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One frame near the end does not cost decoding everything before it."""
    reader = VideoReader(clip(tmp_path, name))
    assert reader.pts
    decoded = 0
    original = seeking.decode_all

    def counting(*arguments: Any) -> Any:
        nonlocal decoded
        for frame in original(*arguments):
            decoded += 1
            yield frame

    monkeypatch.setattr(seeking, "decode_all", counting)
    list(reader.read([50]))
    assert decoded <= 26


def test_luma_is_full_range(tmp_path: Path) -> None:
    def steps(_: int, width: int, height: int, __: str) -> tuple[np.ndarray, ...]:
        luma = np.tile(np.linspace(16, 235, width).astype(np.uint8), (height, 1))
        grey = np.full((height // 2, width // 2), 128, np.uint8)
        return luma, grey, grey

    reader = VideoReader(make_clip(tmp_path / "in.mp4", planes=steps, size=(220, 48)))
    frame = next(iter(reader.luma()))
    assert frame.y.dtype == np.uint8
    assert (frame.y.min(), frame.y.max()) == (0, 255)
    rgb = next(iter(reader)).rgb
    assert np.abs(rgb.astype(int) - frame.y[..., None]).max() <= 1


@pytest.mark.parametrize("pix_fmt", ["yuv420p10le", "yuv444p12le", "gray10le", "gbrp10le", "rgb48le"])
def test_deep_video_reads_as_16_bits(tmp_path: Path, pix_fmt: str) -> None:
    reader = VideoReader(make_clip(tmp_path / "in.mkv", [0, 40], MS, codec="ffv1", pix_fmt=pix_fmt))
    frame = next(iter(reader))
    assert frame.rgb.dtype == np.uint16
    y = next(iter(reader.luma())).y
    assert np.abs(frame.rgb.mean(axis=-1) / 257 - y).mean() < 25
    assert frame.rgb.max() > 30000


def test_the_default_video_stream_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "in.mkv"
    with av.open(str(path), "w") as container:
        streams = []
        for width, flags in ((32, 0), (64, 1)):
            stream = container.add_stream("ffv1", rate=25)
            stream.width, stream.height, stream.disposition = width, 48, flags
            streams.append(stream)
        for stream in streams:
            for i in range(3):
                frame = av.VideoFrame(stream.width, 48, "yuv420p")
                frame.pts, frame.time_base = i, Fraction(1, 25)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    info = probe(path)
    assert (info.width, info.stream_index) == (64, 1)
    assert [o.kind for o in info.others] == ["video"]


def test_equal_and_falling_times_are_repaired(tmp_path: Path) -> None:
    """Two pictures at one time stay two pictures, one tick apart, and that is said."""
    path = make_clip(tmp_path / "in.mkv", [0, 40, 80, 120], MS, codec="ffv1")
    data = bytearray(path.read_bytes())
    # SimpleBlock: track 1, relative time 80, flags.
    place = data.index(b"\x81\x00\x50\x00")
    data[place + 1 : place + 3] = (40).to_bytes(2, "big")
    path.write_bytes(data)
    reader = VideoReader(path)
    assert [f.pts for f in reader.luma()] == [0, 40, 41, 120]
    assert len(decode_planes(path)) == 4
    assert any("not after the previous" in line for line in reader.warnings)
    assert [f.index for f in reader.read([1, 2])] == [1, 2]
