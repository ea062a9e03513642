"""Damaged files: never a crash, never short without saying so, and what is left comes out at its times.

``SELFHVD_MUTATIONS=1000 python -m pytest tests/test_video_damage.py`` runs that many mutations instead of the few here.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import av
import numpy as np
import pytest

from benchmarks.mutants import make
from selfhvd_tta.errors import InputError, SelfHVDError
from selfhvd_tta.settings import OutputSettings
from selfhvd_tta.video.reader import VideoReader
from selfhvd_tta.video.stated_size import ASF_FILE, cut_off
from selfhvd_tta.video.writer import VideoWriter
from selfhvd_tta.wording import size
from tests.media import decode_planes, make_clip, packets, smooth_planes
from tests.mutations import mutate

MUTATIONS = int(os.environ.get("SELFHVD_MUTATIONS", "25"))
FRAMES = 30
T = TypeVar("T")


def noisy(index: int, width: int, height: int, pix_fmt: str) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(index)
    return tuple(p + rng.integers(0, 7, p.shape, np.uint8) for p in smooth_planes(index, width, height, pix_fmt))


def clip(tmp_path: Path, kind: str) -> Path:
    options = {"crf": "20", "g": "10"}
    if kind == "mkv":
        times = [33 * i for i in range(FRAMES)]
        return make_clip(tmp_path / "in.mkv", times, Fraction(1, 1000), planes=noisy, options=options)
    times = [512 * i for i in range(FRAMES)]
    muxer = {"movflags": "faststart"} if kind == "faststart" else {}
    seconds = 0.0 if kind == "faststart" else 1.0
    return make_clip(tmp_path / "in.mp4", times, planes=noisy, options=options, muxer=muxer, audio_seconds=seconds)


def read_and_write(path: Path, out: Path) -> tuple[list[int], list[str]]:
    reader = VideoReader(path)
    with VideoWriter(out, reader.info, OutputSettings(preset="ultrafast", overwrite=True)) as writer:
        for frame in reader:
            writer.write(frame.rgb, frame.pts)
    return list(reader.pts), reader.warnings


def attempt(call: Callable[[], T]) -> T | SelfHVDError:
    """The result, or the error, which then has the form that users are shown."""
    try:
        return call()
    except SelfHVDError as error:
        caught = error
    assert caught.hint
    assert "\n" not in caught.message + caught.hint
    return caught


def scan(path: Path) -> tuple[VideoReader, list[int]]:
    reader = VideoReader(path)
    return reader, [frame.pts for frame in reader.luma()]


@pytest.mark.parametrize("kind", ["mp4", "faststart", "mkv"])
def test_mutations(tmp_path: Path, kind: str) -> None:
    source = clip(tmp_path, kind)
    data, truth = source.read_bytes(), [t for t, _ in decode_planes(source)]
    outcomes = {"refused": 0, "whole": 0, "short and said": 0, "short and silent": 0, "other": 0}
    for seed in range(MUTATIONS):
        path = tmp_path / f"damaged{source.suffix}"
        path.write_bytes(mutate(data, seed))
        result = attempt(lambda path=path: scan(path))
        if isinstance(result, SelfHVDError):
            outcomes["refused"] += 1
            continue
        reader, pts = result
        assert pts
        assert all(a < b for a, b in pairwise(pts))
        assert [f.pts for f in reader.read(range(0, len(pts), 4))] == pts[::4]
        assert [f.pts for f in reader] == pts
        if pts == truth:
            outcomes["whole"] += 1
        elif len(pts) < FRAMES:
            outcomes["short and said" if reader.warnings else "short and silent"] += 1
        else:
            outcomes["other"] += 1
        if seed % 4 == 0:
            written, _ = read_and_write(path, tmp_path / "out.mp4")
            assert len(decode_planes(tmp_path / "out.mp4")) == len(written) == len(pts)
    assert outcomes["whole"] > 0
    assert outcomes["short and said"] > 0
    # Damage to an index that stays consistent in itself cannot be told from a shorter video.
    assert outcomes["short and silent"] <= max(1, 0.03 * MUTATIONS), outcomes


def test_cut_off_in_the_middle(tmp_path: Path) -> None:
    """An MP4 with its index in front that was copied half: the half is used, and the rest is missed aloud."""
    source = clip(tmp_path, "faststart")
    data = source.read_bytes()
    (tmp_path / "half.mp4").write_bytes(data[: len(data) * 2 // 3])
    pts, warnings = read_and_write(tmp_path / "half.mp4", tmp_path / "out.mp4")
    assert 5 < len(pts) < 25
    assert pts == [512 * i for i in range(len(pts))]
    assert [t for t, _ in decode_planes(tmp_path / "out.mp4")] == pts
    assert any("0:00 although its file says 0:01" in line or "missing" in line for line in warnings)


def test_a_hole_in_the_middle(tmp_path: Path) -> None:
    """A lost group of pictures: the frames behind it keep their times, so the sound stays in step."""
    source = clip(tmp_path, "mp4")
    data = bytearray(source.read_bytes())
    with_key = [p for p in _packets(source) if p[1]]
    start, size = with_key[1][2], 1200
    data[start : start + size] = bytes(size)
    (tmp_path / "hole.mp4").write_bytes(data)
    pts, warnings = read_and_write(tmp_path / "hole.mp4", tmp_path / "out.mp4")
    whole = [512 * i for i in range(FRAMES)]
    assert set(pts) <= set(whole)
    assert pts[-10:] == whole[-10:]
    assert [t for t, _ in decode_planes(tmp_path / "out.mp4")] == pts
    assert warnings


def _packets(path: Path) -> list[tuple[int, bool, int]]:
    with av.open(str(path)) as container:
        return [(p.pts, p.is_keyframe, p.pos) for p in container.demux(video=0) if p.size]


def test_wrong_bytes_in_tags(tmp_path: Path) -> None:
    """Tags that are not UTF-8 neither stop the work nor change."""
    source = make_clip(tmp_path / "in.mp4", prepare=lambda c, _: c.metadata.update({"title": "Caf\u00e9"}))
    data = source.read_bytes()
    assert "Caf\u00e9".encode() in data
    source.write_bytes(data.replace("Caf\u00e9".encode(), b"Caf\xe9\xff"))
    read_and_write(source, tmp_path / "out.mp4")
    assert b"Caf\xe9\xff" in (tmp_path / "out.mp4").read_bytes()


def test_a_file_that_changes_between_passes(tmp_path: Path) -> None:
    source = clip(tmp_path, "mkv")
    reader = VideoReader(source)
    assert len(reader.pts) == FRAMES
    source.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
    with pytest.raises(InputError, match="and to"):
        list(reader)
    with pytest.raises(InputError, match="as it did before"):
        list(reader.read([FRAMES - 1]))


def test_streams_cut_together(tmp_path: Path) -> None:
    """Two transport streams in a row: the times start again in the middle, for picture and sound."""
    part = make_clip(tmp_path / "part.ts", [3000 * i for i in range(60)], Fraction(1, 90000), audio_seconds=2)
    (tmp_path / "in.ts").write_bytes(part.read_bytes() * 2)
    pts, warnings = read_and_write(tmp_path / "in.ts", tmp_path / "out.mp4")
    assert len(pts) == 120
    steps = [b - a for a, b in pairwise(pts)]
    assert steps.count(3000) == 118
    assert max(steps) <= 3000 + 2 * 1920, "the sound of the first part is heard to its end"
    assert any("clock of the file jumps 1 time" in line for line in warnings)
    found = [t for t, _ in decode_planes(tmp_path / "out.mp4")]
    assert [b - a for a, b in pairwise(found)] == steps
    (sound,) = packets(tmp_path / "out.mp4", "audio")
    assert len(sound) == len(packets(tmp_path / "in.ts", "audio")[0])
    assert all(a[1] < b[1] for a, b in pairwise(sound))
    assert abs(sound[-1][0] / 48000 - pts[-1] / 90000) < 0.1


def test_damaged_sound_that_a_muxer_refuses(tmp_path: Path) -> None:
    """Matroska looks for the description of AAC in its packets; without the first one the others do."""
    times = [90000 + 3000 * i for i in range(24)]
    source = make_clip(tmp_path / "in.ts", times, Fraction(1, 90000), audio_seconds=0.8, options={"bf": "0"})
    data = bytearray(source.read_bytes())
    heads = [i for i in range(len(data) - 1) if data[i] == 0xFF and data[i + 1] & 0xF6 == 0xF0]
    data[heads[0] + 2] = 0xFF
    source.write_bytes(data)
    reader = VideoReader(source)
    with VideoWriter(tmp_path / "out.mkv", reader.info, OutputSettings(preset="ultrafast")) as writer:
        for frame in reader:
            writer.write(frame.rgb, frame.pts)
    assert len(reader.pts) == 24
    assert [note for note in writer.notes if "damaged packet" in note]
    with av.open(str(tmp_path / "out.mkv")) as container:
        assert sum(frame.samples for frame in container.decode(audio=0)) > 20_000


@pytest.mark.parametrize("container", ["mkv", "webm", "avi", "wmv", "flv", "ogv"])
def test_a_missing_end_is_said(container: str, tmp_path: Path) -> None:
    source = make(tmp_path, container)
    data = source.read_bytes()
    assert not any("end of the file" in line for line in warnings_of(source))
    for missing in (40, len(data) // 4):
        source.write_bytes(data[:-missing])
        lines = [line for line in warnings_of(source) if line.startswith("the end of the file is missing")]
        assert len(lines) == 1
        if container != "ogv":
            assert lines == [
                f"the end of the file is missing: it is {size(missing)} shorter than its header says",
            ]


def test_files_that_do_not_state_their_length_are_not_accused(tmp_path: Path) -> None:
    live = make_clip(tmp_path / "live.mkv", [40 * i for i in range(8)], Fraction(1, 1000), muxer={"live": "1"})
    broadcast = make(tmp_path, "wmv")
    data = bytearray(broadcast.read_bytes())
    data[data.index(ASF_FILE) + 88] |= 1
    broadcast.write_bytes(data[:-40])
    for path, container in ((live, "matroska,webm"), (broadcast, "asf"), (tmp_path / "live.mkv", "mpegts")):
        assert cut_off(path, container) == ""


def warnings_of(source: Path) -> list[str]:
    reader = VideoReader(source)
    assert sum(1 for _ in reader.luma())
    return reader.warnings
