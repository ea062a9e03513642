"""A part of a video: the right frames, and everything else cut to match."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

import selfhvd_tta
from selfhvd_tta.errors import UsageError
from selfhvd_tta.settings import OutputSettings, Settings
from selfhvd_tta.times import TimeRange
from selfhvd_tta.video.images import ImageReader, save_image
from selfhvd_tta.video.opening import open_reader, open_writer
from selfhvd_tta.video.reader import VideoReader
from tests.commands import QUICK, run
from tests.media import decode_planes, make_clip, packets, shaky_file
from tests.test_video_streams import CUES, chapters, cues, rich_clip, streams


@pytest.mark.parametrize(
    ("text", "start", "stop"),
    [
        ("0:05-0:12", 5, 12),
        ("5-12.5", 5, 12.5),
        ("1:02:03-", 3723, None),
        ("-10", 0, 10),
        ("90.25 - 1:40", 90.25, 100),
        ("0-.5", 0, 0.5),
    ],
)
def test_times_are_understood(text: str, start: float, stop: float | None) -> None:
    assert TimeRange.parse(text) == TimeRange(Fraction(start), None if stop is None else Fraction(stop))


@pytest.mark.parametrize("text", ["", "-", "5", "5-4", "5-5", "a-b", "1:2:3:4-", "5--6", "1e3-", "nan-", "٣-٤", "-5-"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--range"):
        Settings(range=text)


def part_of(source: Path, out: Path, text: str, **settings: Any) -> list[str]:
    reader = open_reader(source, TimeRange.parse(text))
    with open_writer(out, reader, OutputSettings(preset="ultrafast", crf=0, **settings)) as writer:
        for frame in reader:
            writer.write(frame.rgb, frame.pts)
    return writer.notes


VFR = [700 + p for p in (0, 500, 1100, 1111, 5000, 9000, 15000, 15360, 20000, 22222)]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov", ".avi", ".ts"])
@pytest.mark.parametrize("text", ["0.05-0.4", "0.2-", "-0.3"])
def test_frames_of_the_part_and_their_times(text: str, suffix: str, tmp_path: Path) -> None:
    pts = VFR if suffix not in (".avi", ".ts") else [512 * i for i in range(20)]
    source = make_clip(tmp_path / f"in{suffix}", pts, options={"bf": "2", "crf": "0"} if suffix != ".avi" else None)
    whole = list(VideoReader(source))
    part = TimeRange.parse(text)
    unit = VideoReader(source).info.time_base
    times = [(f.pts - whole[0].pts) * unit for f in whole]
    wanted = [i for i, t in enumerate(times) if part.start <= t and (part.stop is None or t < part.stop)]
    reader = VideoReader(source, part)
    found = list(reader)
    assert [f.pts for f in found] == [whole[i].pts for i in wanted]
    for frame, i in zip(found, wanted, strict=True):
        assert np.array_equal(frame.rgb, whole[i].rgb)
    for number in (len(found) - 1, 0):
        (again,) = reader.read([number])
        assert np.array_equal(again.rgb, found[number].rgb)
    out = tmp_path / "out.mp4"
    part_of(source, out, text)
    with av.open(str(out)) as container:
        base = container.streams.video[0].time_base
        written = [f.pts * base for f in container.decode(video=0)]
    assert written == pytest.approx([times[i] - times[wanted[0]] for i in wanted], abs=1e-9)


def test_a_part_far_into_a_file_is_sought_and_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make_clip(
        tmp_path / "in.mp4", [512 * i for i in range(600)], options={"g": "60", "bf": "3", "preset": "ultrafast"}
    )
    whole = {f.pts: f.rgb for f in VideoReader(source)}
    from selfhvd_tta.video import reader as module

    decoded = []
    original = module.decode_all

    def counted(*args: Any) -> Any:
        for frame in original(*args):
            decoded.append(frame.pts)
            yield frame

    monkeypatch.setattr(module, "decode_all", counted)
    reader = VideoReader(source, TimeRange.parse("0:15-0:16"))
    found = list(reader)
    assert [f.pts for f in found] == [512 * i for i in range(450, 480)]
    assert all(np.array_equal(f.rgb, whole[f.pts]) for f in found)
    assert len(decoded) < 300, "not decoded from the start"
    assert [f.pts for f in reader.read([0, 7, 29])] == [512 * i for i in (450, 457, 479)]
    assert not reader.warnings


def test_everything_else_is_cut_to_match(tmp_path: Path) -> None:
    source = rich_clip(tmp_path / "in.mkv")
    out = tmp_path / "out.mkv"
    part_of(source, out, "0.3-0.7")
    assert [s[:3] for s in streams(source)] == [s[:3] for s in streams(out)], "every stream is still there"
    assert chapters(out) == [(0, Fraction(2, 25), "Intro"), (Fraction(2, 25), Fraction(19, 50), "Rest")]
    # The frame at 0.32 s is the first of the part.
    wanted = [(max(s, 320), min(s + d, 700), text) for s, d, text in CUES]
    assert cues(out, 0) == [(s - 320, e - s, text) for s, e, text in wanted if e > s]
    assert len(cues(out, 0)) == len(cues(out, 1)) > 0
    for before, after in zip(packets(source, "audio"), packets(out, "audio"), strict=True):
        first = [p[2] for p in before].index(after[0][2])
        assert [p[2] for p in after] == [p[2] for p in before][first : first + len(after)]
        assert {b[0] - a[0] for a, b in zip(after, before[first:], strict=False)} == {320}
        assert 0 <= after[0][0] < 25
        assert 340 < after[-1][0] < 380
    with av.open(str(out)) as container:
        assert container.metadata["title"] == "My film"


def test_sound_stays_with_the_picture(tmp_path: Path) -> None:
    """Every packet keeps its distance to the frames, exactly."""
    source = make_clip(tmp_path / "in.mp4", [512 * i for i in range(60)], audio_seconds=2)
    out = tmp_path / "out.mp4"
    part_of(source, out, "0.5-1.5")
    (before,), (after,) = packets(source, "audio"), packets(out, "audio")
    offset = {data: pts for pts, _, data in before}
    moved = {offset[data] - pts for pts, _, data in after}
    assert len(moved) == 1
    assert abs(Fraction(moved.pop(), 48000) - Fraction(1, 2)) < Fraction(1, 90000)
    assert len(after) == pytest.approx(48000 / 1024, abs=1)
    assert len(decode_planes(out)) == 30


def test_images(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for i in range(12):
        save_image(tmp_path / "in" / f"{i:02d}.png", np.full((32, 32, 3), 10 * i, np.uint8))
    reader = ImageReader(tmp_path / "in", part=TimeRange.parse("0.1-0.2"))
    assert [int(f.rgb[0, 0, 0]) // 10 for f in reader] == [3, 4, 5]
    with pytest.raises(UsageError, match="no image"):
        ImageReader(tmp_path / "in", part=TimeRange.parse("1-"))


def test_a_part_that_the_video_has_not(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mp4")
    for text in ("5-6", "100-"):
        with pytest.raises(UsageError, match="no frame in that --range; the video lasts 0:00"):
            list(VideoReader(source, TimeRange.parse(text)))


def test_on_the_command_line(tmp_path: Path) -> None:
    source = shaky_file(tmp_path / "in.mp4", 30, 1)
    out = tmp_path / "out.mp4"
    done = run("deblur", source, "-o", out, *QUICK, "--method", "transfer", "--range", "0.2-0.8", "--no-faststart")
    assert done.returncode == 0, done.stderr
    assert [pts for pts, _ in decode_planes(out)] == [512 * i for i in range(18)]
    data = out.read_bytes()
    assert data.index(b"moov") > data.index(b"mdat")
    refused = run("deblur", source, "-o", tmp_path / "x.mp4", *QUICK, "--range", "3-1")
    assert refused.returncode == 2
    assert "--range" in refused.stderr


def test_an_even_part_is_encoded_not_copied(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mp4", [512 * i for i in range(30)], audio_seconds=1)
    result = selfhvd_tta.deblur(source, tmp_path / "out.mp4", Settings(range="0.5-"))
    assert result.action == "passed through"
    assert result.frames == len(decode_planes(tmp_path / "out.mp4")) == 15
    assert any("a part was asked for" in note for note in result.notes)


def test_report_and_comparison_show_the_part(tmp_path: Path) -> None:
    source, out = shaky_file(tmp_path / "in.mp4", 30, 1), tmp_path / "out.mp4"
    options = ("--report", tmp_path / "r.html", "--compare", "side")
    done = run("deblur", source, "-o", out, *QUICK, "--method", "transfer", "--range", "0.2-0.6", *options)
    assert done.returncode == 0, done.stderr
    (comparison,) = set(tmp_path.glob("*.mp4")) - {source, out}
    assert len(decode_planes(comparison)) == len(decode_planes(out)) == 12
    assert (tmp_path / "r.html").stat().st_size > 10_000
