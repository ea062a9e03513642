"""What a video is beside its frames' times: orientation, formats, tags, other streams. One witness is ffprobe."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.logging
import numpy as np
import pytest

from selfhvd_tta.errors import UsageError
from selfhvd_tta.video.color import PixelLayout
from selfhvd_tta.video.probe import probe
from selfhvd_tta.video.siting import SITING, chroma_location
from tests.media import decode_planes, make_clip, packets
from tests.test_video_roundtrip import identity

needs_ffprobe = pytest.mark.skipif(shutil.which("ffprobe") is None, reason="ffprobe is not installed")
ORIENTATIONS = [(degrees, flip) for degrees in (0, 90, 180, 270) for flip in (False, True)]


def ffprobe(path: Path, *arguments: str) -> dict[str, Any]:
    command = ["ffprobe", "-v", "error", "-of", "json", *arguments, str(path)]
    return json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)


@pytest.mark.parametrize(("degrees", "flip"), ORIENTATIONS)
@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_orientation_tag(tmp_path: Path, degrees: int, flip: bool, suffix: str) -> None:
    def turn(_: Any, stream: Any) -> None:
        stream.set_display_rotation(degrees, hflip=flip)

    source = make_clip(tmp_path / "in.mp4", [0, 512], prepare=turn)
    identity(source, tmp_path / f"out{suffix}")
    before, after = probe(source), probe(tmp_path / f"out{suffix}")
    assert (after.width, after.height) == (before.width, before.height) == (64, 48)
    assert after.rotation == before.rotation
    assert after.display_matrix == before.display_matrix
    if not flip:
        assert before.rotation == degrees


@needs_ffprobe
def test_orientation_by_ffprobe(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mp4", [0, 512], prepare=lambda _, s: s.set_display_rotation(270))
    identity(source, tmp_path / "out.mp4")
    stream = ffprobe(tmp_path / "out.mp4", "-show_streams")["streams"][0]
    assert [s["rotation"] for s in stream["side_data_list"] if "rotation" in s] == [-90]
    assert probe(source).rotation == 270


FORMATS = [
    # source codec, pixel format, expected output format
    ("libx264", "yuv420p", "yuv420p"),
    ("libx264", "yuv422p", "yuv422p"),
    ("libx264", "yuv444p", "yuv444p"),
    ("libx264", "yuvj420p", "yuvj420p"),
    ("libx264", "yuvj444p", "yuvj444p"),
    ("libx264", "gray", "yuv420p"),
    ("libx264", "yuv420p10le", "yuv420p10le"),
    ("libx265", "yuv420p10le", "yuv420p10le"),
    ("libx265", "yuv422p10le", "yuv422p10le"),
    ("libx265", "yuv444p12le", "yuv444p12le"),
    ("ffv1", "gray", "yuvj420p"),
    ("ffv1", "gray10le", "yuv420p10le"),
    ("ffv1", "yuv422p16le", "yuv422p12le"),
    ("ffv1", "yuva420p", "yuv420p"),
    ("ffv1", "bgr0", "yuv444p"),
    ("ffv1", "gbrp10le", "yuv444p10le"),
    ("rawvideo", "nv12", "yuv420p"),
    ("rawvideo", "yuyv422", "yuv422p"),
    ("png", "rgb24", "yuv444p"),
    ("mjpeg", "yuvj420p", "yuvj420p"),
    ("libvpx-vp9", "yuv420p", "yuv420p"),
]


@pytest.mark.parametrize(("codec", "pix_fmt", "expected"), FORMATS)
def test_pixel_formats(tmp_path: Path, codec: str, pix_fmt: str, expected: str) -> None:
    """Lossless in, quality 0 out: the planes drift by at most 1 code in 8 bit and 2 in more."""
    suffix = {"libx264": ".mp4", "libx265": ".mp4", "png": ".mov"}.get(codec, ".mkv")
    options = {"libx265": {"x265-params": "lossless=1:log-level=error"}, "libvpx-vp9": {"lossless": "1"}}.get(codec)
    source = make_clip(
        tmp_path / f"in{suffix}", [0, 40, 80], Fraction(1, 1000), codec=codec, pix_fmt=pix_fmt, options=options
    )
    notes = identity(source, tmp_path / "out.mp4")
    after = probe(tmp_path / "out.mp4")
    assert after.pix_fmt == expected
    layout, out = probe(source).layout, after.layout
    if layout.kind == "rgb":
        assert any("RGB" in note for note in notes)
        return
    shift = layout.bits - out.bits
    # x265 is not lossless at its best quality: another step of 8 bits.
    limit = (1 if out.bits == 8 else 2) + (1 << (out.bits - 8) if after.codec == "hevc" else 0)
    for (_, a), (_, b) in zip(decode_planes(source), decode_planes(tmp_path / "out.mp4"), strict=True):
        for before, now in zip(a, b, strict=False):
            assert np.abs((before.astype(int) >> shift) - now).max() <= limit
        if layout.kind == "gray":
            assert all(np.all(plane == 1 << (out.bits - 1)) for plane in b[1:])


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p10le", "yuv444p", "gray", "gray10le", "bgr0", "gbrp12le"])
def test_ffv1_is_lossless(tmp_path: Path, pix_fmt: str) -> None:
    source = make_clip(tmp_path / "in.mkv", [0, 40, 80], Fraction(1, 1000), codec="ffv1", pix_fmt=pix_fmt)
    assert identity(source, tmp_path / "out.mkv", codec="ffv1") == []
    assert probe(tmp_path / "out.mkv").pix_fmt == pix_fmt
    drift = 1 if PixelLayout.of(pix_fmt).kind == "yuv" and "10" not in pix_fmt else 0
    for (t, a), (u, b) in zip(decode_planes(source), decode_planes(tmp_path / "out.mkv"), strict=True):
        assert t == u
        for before, now in zip(a, b, strict=True):
            assert np.abs(before.astype(int) - now).max() <= drift


MASTERING = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"


def hdr_clip(path: Path, transfer: int = 16) -> Path:
    parameters = f"log-level=error:lossless=1:master-display={MASTERING}:max-cll=1000,400"
    return make_clip(
        path,
        [512 * i for i in range(6)],
        codec="libx265",
        pix_fmt="yuv420p10le",
        color=(9, 1, 9, transfer),
        options={"x265-params": parameters},
    )


@pytest.mark.parametrize("codec", [None, "hevc", "av1", "h264"])
def test_hdr10_stays_hdr10(tmp_path: Path, codec: str | None) -> None:
    source = hdr_clip(tmp_path / "in.mp4")
    assert identity(source, tmp_path / "out.mp4", codec=codec) == []
    before, after = probe(source), probe(tmp_path / "out.mp4")
    assert (before.color.matrix, before.color.primaries, before.color.transfer, before.color.range) == (9, 9, 16, 1)
    assert after.color == before.color
    assert after.color.hdr
    assert (after.pix_fmt, after.bit_depth) == ("yuv420p10le", 10)
    # The FFmpeg inside PyAV 19.0 does not tell the content light level of x265's SEI.
    assert after.content_light == before.content_light
    assert before.content_light == (1000, 400) or int(av.__version__.split(".")[0]) >= 19
    primaries = struct.unpack("<20i", before.mastering_display[:80])
    again = struct.unpack("<20i", after.mastering_display[:80])
    for i in range(0, 20, 2):
        assert Fraction(again[i], again[i + 1]) == pytest.approx(Fraction(primaries[i], primaries[i + 1]), rel=1e-3)


def test_hlg_stays_hlg(tmp_path: Path) -> None:
    source = hdr_clip(tmp_path / "in.mp4", transfer=18)
    identity(source, tmp_path / "out.mov")
    assert probe(tmp_path / "out.mov").color == probe(source).color


@needs_ffprobe
def test_hdr_by_ffprobe(tmp_path: Path) -> None:
    identity(hdr_clip(tmp_path / "in.mp4"), tmp_path / "out.mp4")
    stream = ffprobe(tmp_path / "out.mp4", "-show_streams")["streams"][0]
    assert stream["codec_tag_string"] == "hvc1"
    assert (stream["pix_fmt"], stream["profile"]) == ("yuv420p10le", "Main 10")
    assert (stream["color_space"], stream["color_transfer"], stream["color_primaries"], stream["color_range"]) == (
        "bt2020nc",
        "smpte2084",
        "bt2020",
        "tv",
    )
    frame = ffprobe(tmp_path / "out.mp4", "-show_frames", "-read_intervals", "%+#1")["frames"][0]
    kinds = {s["side_data_type"] for s in frame["side_data_list"]}
    assert {"Mastering display metadata", "Content light level metadata"} <= kinds


@needs_ffprobe
@pytest.mark.parametrize("pts", [[1001 + p for p in (0, 500, 1100, 1111, 5000, 9000)], [512 * i for i in range(150)]])
def test_times_by_ffprobe(tmp_path: Path, pts: list[int]) -> None:
    source = make_clip(tmp_path / "in.mp4", pts, audio_seconds=0.5)
    identity(source, tmp_path / "out.mp4", preset="medium", crf=23)
    seen = []
    for path in (source, tmp_path / "out.mp4"):
        report = ffprobe(path, "-show_frames", "-show_streams", "-select_streams", "v")
        seen.append(([int(f["pts"]) for f in report["frames"]], report["streams"][0]["time_base"]))
    assert seen[0] == seen[1]
    assert seen[0][0] == pts
    packets = ffprobe(tmp_path / "out.mp4", "-show_packets", "-select_streams", "v")["packets"]
    dts = [int(p["dts"]) for p in packets]
    assert dts == sorted(set(dts))
    assert all(int(p["dts"]) <= int(p["pts"]) for p in packets)
    assert any(int(p["dts"]) < int(p["pts"]) for p in packets), "no B-frames: this test would prove nothing"


@pytest.mark.parametrize(("codec", "suffix"), [("h264", ".mp4"), ("hevc", ".mov"), ("h264", ".mkv")])
def test_chroma_location(tmp_path: Path, codec: str, suffix: str) -> None:
    times = [512 * i for i in range(6)]
    source, out = tmp_path / "in.mp4", tmp_path / f"out{suffix}"
    make_clip(source, times, options={"crf": "0", "x264-params": "chromaloc=2"})
    assert not any(SITING in note for note in identity(source, out, codec=codec))
    assert probe(source).chroma_location == probe(out).chroma_location == 3


def test_a_chroma_location_that_is_lost_is_said(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mp4", options={"crf": "0", "x264-params": "chromaloc=2"})
    assert f"left out: {SITING}" in identity(source, tmp_path / "out.mkv", codec="ffv1")


def test_no_chroma_location_is_none(tmp_path: Path) -> None:
    assert chroma_location(make_clip(tmp_path / "plain.mp4"), 0) == 0
    assert chroma_location(make_clip(tmp_path / "old.avi", codec="mpeg4"), 0) == 0
    assert av.logging.get_level() is None


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are listed by Linux")
def test_headers_are_read_before_there_are_decoding_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A decoding thread that logs meanwhile would wait for Python, which waits for the thread to free the decoder."""
    clip, seen = make_clip(tmp_path / "in.mp4"), list[int]()

    def look(path: Path, index: int) -> int:
        seen.append(len(os.listdir("/proc/self/task")))
        return 0

    monkeypatch.setattr("selfhvd_tta.video.probe.chroma_location", look)
    before = len(os.listdir("/proc/self/task"))
    probe(clip)
    assert seen == [before]


ODD = [
    # size, output codec, output format
    ((63, 49), "h264", "yuv444p"),
    ((64, 49), "h264", "yuv444p"),
    ((73, 48), "hevc", "yuv444p"),
    ((63, 49), "av1", "yuv420p"),
    ((1, 1), "h264", "yuv444p"),
    ((2, 2), "h264", "yuv420p"),
    ((9, 200), "h264", "yuv444p"),
]


@pytest.mark.parametrize(("size", "codec", "expected"), ODD)
def test_odd_sizes_stay(tmp_path: Path, size: tuple[int, int], codec: str, expected: str) -> None:
    times = [40 * i for i in range(6)]
    source = make_clip(tmp_path / "in.mkv", times, Fraction(1, 1000), codec="ffv1", size=size)
    notes = identity(source, tmp_path / "out.mp4", codec=codec)
    after = probe(tmp_path / "out.mp4")
    assert ((after.width, after.height), after.pix_fmt) == (size, expected)
    assert any("odd" in note for note in notes) == (expected == "yuv444p")
    for (_, a), (_, b) in zip(decode_planes(source), decode_planes(tmp_path / "out.mp4"), strict=True):
        assert np.abs(a[0].astype(int) - b[0]).max() <= {"h264": 1, "hevc": 4, "av1": 10}[codec]


def test_too_small_for_the_encoder(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mkv", [0, 40], Fraction(1, 1000), codec="ffv1", size=(8, 8))
    with pytest.raises(UsageError, match="HEVC needs a width of 64"):
        identity(source, tmp_path / "out.mp4", codec="hevc")
    source = make_clip(tmp_path / "in.mkv", [0, 40], Fraction(1, 1000), codec="ffv1", size=(64, 8))
    with pytest.raises(UsageError, match="HEVC cannot encode 64x8"):
        identity(source, tmp_path / "out.mp4", codec="hevc")
    assert [p.name for p in tmp_path.iterdir()] == ["in.mkv"]


def test_chroma_420_on_request(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mp4", [0, 512], pix_fmt="yuv444p")
    identity(source, tmp_path / "out.mp4", chroma="420")
    assert probe(tmp_path / "out.mp4").pix_fmt == "yuv420p"


def test_trimmed_by_an_edit_list(tmp_path: Path) -> None:
    """A phone's trim hides frames instead of cutting them off: they stay hidden, and the sound stays in step."""
    path = tmp_path / "in.mp4"
    make_clip(path, [512 * i - 2048 for i in range(40)], options={"crf": "0", "bf": "2", "g": "40"}, audio_seconds=1)
    visible = [p for p, _ in decode_planes(path)]
    assert visible == [512 * i for i in range(36)]
    notes = identity(path, tmp_path / "out.mp4")
    assert notes == []
    before, after = decode_planes(path), decode_planes(tmp_path / "out.mp4")
    assert [p for p, _ in after] == visible
    for (_, a), (_, b) in zip(before, after, strict=True):
        assert np.abs(a[0].astype(int) - b[0]).max() <= 1
    assert packets(tmp_path / "out.mp4", "audio") == packets(path, "audio")


@pytest.mark.parametrize("faststart", [True, False])
def test_index_in_front(tmp_path: Path, faststart: bool) -> None:
    source = make_clip(tmp_path / "in.mp4")
    identity(source, tmp_path / "out.mp4", faststart=faststart)
    data = (tmp_path / "out.mp4").read_bytes()
    assert (data.index(b"moov") < data.index(b"mdat")) == faststart


def test_length_of_the_last_frame(tmp_path: Path) -> None:
    """It is no frame's neighbour, so its length has to come from the source."""
    source = make_clip(tmp_path / "in.mp4", [0, 512, 1024, 8192], options={"bf": "0"})
    data = bytearray(source.read_bytes())
    place = data.index(b"stts") + 8
    entries = int.from_bytes(data[place : place + 4], "big")
    last = place + 4 * 2 * entries
    assert int.from_bytes(data[last : last + 4], "big") == 512
    data[last : last + 4] = (5000).to_bytes(4, "big")
    for box, size in ((b"mdhd", 16), (b"tkhd", 20), (b"mvhd", 16)):
        at = data.index(box) + 4 + size
        assert int.from_bytes(data[at : at + 4], "big") == 8704
        data[at : at + 4] = (13192).to_bytes(4, "big")
    at = data.index(b"elst") + 12
    data[at : at + 4] = (13192).to_bytes(4, "big")
    source.write_bytes(data)
    identity(source, tmp_path / "out.mp4")
    for path in (source, tmp_path / "out.mp4"):
        assert probe(path).duration_s == pytest.approx(13192 / 15360, abs=1e-4)
