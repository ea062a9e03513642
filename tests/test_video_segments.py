"""An interrupted run goes on where it stopped and ends in the same bytes; a killed one leaves nothing half done."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from selfhvd_tta.settings import OutputSettings
from selfhvd_tta.video import segments
from selfhvd_tta.video.reader import VideoReader
from selfhvd_tta.video.writer import VideoWriter
from tests.conftest import ROOT
from tests.media import decode_planes, make_clip, smooth_planes

FRAMES = 30
LENGTH = 8


class Interruption(Exception):
    pass


def run(
    source: Path, out: Path, job: Path | None, stop: int | None = None, seal: str = "", **settings: Any
) -> tuple[int, int]:
    """Write the video, interrupted before frame ``stop``; returns (frames taken over, frames written)."""
    reader = VideoReader(source)
    written = 0
    options = OutputSettings(**({"preset": "veryfast", "overwrite": True} | settings))
    with VideoWriter(out, reader.info, options, segments=job, segment_length=LENGTH, seal=seal) as writer:
        for frame in reader:
            if frame.index == stop:
                raise Interruption
            if frame.index >= writer.frames_done:
                writer.write(frame.rgb, frame.pts)
                written += 1
    return writer.frames_done, written


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_clip(tmp_path / "in.mp4", [512 * i + 7 * (i % 3) for i in range(FRAMES)], audio_seconds=1)


@pytest.fixture
def job(tmp_path: Path) -> Path:
    (tmp_path / "job").mkdir()
    return tmp_path / "job"


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("out.mp4", {}),
        ("out.mov", {"codec": "hevc"}),
        ("out.mkv", {}),
        ("out.mkv", {"codec": "ffv1"}),
        ("out.mp4", {"codec": "av1", "preset": "ultrafast"}),
    ],
)
def test_resumed_equals_uninterrupted(
    source: Path, tmp_path: Path, job: Path, name: str, settings: dict[str, Any]
) -> None:
    whole, out = tmp_path / f"whole-{name}", tmp_path / name
    assert run(source, whole, None, **settings) == (0, FRAMES)
    for stop, done in ((3, 0), (LENGTH, LENGTH), (19, 16), (FRAMES - 1, 24)):
        with pytest.raises(Interruption):
            run(source, out, job, stop, **settings)
        assert not out.exists()
        assert len(list(job.glob("0*.m*"))) == done // LENGTH
        assert len(list(job.glob("*.npz"))) == stop - done, "what the open segment was given is kept"
    assert run(source, out, job, **settings) == (FRAMES - 1, 1)
    assert out.read_bytes() == whole.read_bytes()
    # Again, with nothing left to do but joining.
    assert run(source, out, job, **settings) == (FRAMES, 0)
    assert out.read_bytes() == whole.read_bytes()
    assert [p for p, _ in decode_planes(source)] == [p for p, _ in decode_planes(out)] or name.endswith("mkv")


def interrupted(source: Path, out: Path, job: Path) -> None:
    with pytest.raises(Interruption):
        run(source, out, job, 20)


@pytest.mark.parametrize(
    ("change", "done"),
    [
        ({"crf": 30}, 0),
        ({"codec": "hevc"}, 0),
        ({"seal": "other weights"}, 0),
        ({}, 20),
    ],
)
def test_only_what_fits_is_taken_over(
    source: Path, tmp_path: Path, job: Path, change: dict[str, Any], done: int
) -> None:
    out = tmp_path / "out.mp4"
    interrupted(source, out, job)
    assert run(source, out, job, **change) == (done, FRAMES - done)
    assert len(decode_planes(out)) == FRAMES


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "ledger", "empty ledger", "no ledger"])
def test_damaged_segments_are_made_again(source: Path, tmp_path: Path, job: Path, damage: str) -> None:
    out, whole = tmp_path / "out.mp4", tmp_path / "whole.mp4"
    run(source, whole, None)
    interrupted(source, out, job)
    second, ledger = job / "000001.mp4", job / "segments.json"
    data = second.read_bytes()
    if damage == "flip":
        second.write_bytes(data[:-100] + bytes(b ^ 255 for b in data[-100:]))
    elif damage == "truncate":
        second.write_bytes(data[:100])
    elif damage == "remove":
        second.unlink()
    elif damage == "ledger":
        ledger.write_text(ledger.read_text()[:-30])
    elif damage == "empty ledger":
        ledger.write_text(json.dumps([]))
    else:
        ledger.unlink()
    done = 8 if damage in ("flip", "truncate", "remove") else 0
    assert run(source, out, job) == (done, FRAMES - done)
    assert out.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("damage", ["truncate", "remove", "fast"])
def test_kept_frames_are_used_up_to_the_first_that_is_damaged(
    source: Path, tmp_path: Path, job: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, whole = tmp_path / "out.mp4", tmp_path / "whole.mp4"
    run(source, whole, None)
    if damage == "fast":
        monkeypatch.setattr(segments, "MOST_KEPT_PER_S", 1)
    interrupted(source, out, job)
    if damage == "truncate":
        frame = job / "000002-0002.npz"
        frame.write_bytes(frame.read_bytes()[:-200])
    elif damage == "remove":
        (job / "000002-0002.npz").unlink()
    done = 16 if damage == "fast" else 18
    assert run(source, out, job) == (done, FRAMES - done)
    assert out.read_bytes() == whole.read_bytes()


def test_a_full_disk_keeps_no_frames_and_does_not_end_the_run(
    source: Path, tmp_path: Path, job: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    assert run(source, tmp_path / "out.mp4", job) == (0, FRAMES)
    assert not list(job.glob("*-*"))


KILLED = """
import sys, time
from pathlib import Path
from tests import test_video_segments as t
from selfhvd_tta.video import writer as w
write = w.VideoWriter.write
def slow(self, rgb, pts):
    write(self, rgb, pts)
    print(len(self._store.segments), flush=True)
    time.sleep(0.02)
w.VideoWriter.write = slow
t.run(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
print("end", flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
@pytest.mark.parametrize("when", ["1", "3", "end"])
def test_killed_at_any_time(source: Path, tmp_path: Path, job: Path, when: str) -> None:
    out, whole = tmp_path / "out.mp4", tmp_path / "whole.mp4"
    run(source, whole, None)
    command = [sys.executable, "-c", KILLED, str(source), str(out), str(job)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip() == when:
                break
        time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    # On a busy machine the signal may come late; the promise is the same at any time.
    if out.exists():
        assert out.read_bytes() == whole.read_bytes()
    done, _ = run(source, out, job)
    assert done >= {"1": 8, "3": 24, "end": FRAMES}[when]
    assert out.read_bytes() == whole.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.mp4", "job", "out.mp4", "whole.mp4"]


WRITTEN = """
import hashlib, sys
from pathlib import Path
from tests import test_video_segments as t
t.run(Path(sys.argv[1]), Path(sys.argv[2]), None, crf=18)
print(hashlib.sha256(Path(sys.argv[2]).read_bytes()).hexdigest())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs glibc")
def test_bytes_do_not_depend_on_what_memory_held(tmp_path: Path) -> None:
    """x264's AVX-512 code fails this (where there is AVX-512), at this size and with noise."""

    def noisy(index: int, width: int, height: int, pix_fmt: str) -> tuple[np.ndarray, ...]:
        rng = np.random.default_rng(index)
        return tuple(p + rng.integers(0, 7, p.shape, np.uint8) for p in smooth_planes(index, width, height, pix_fmt))

    source = make_clip(tmp_path / "in.mp4", [512 * i for i in range(6)], size=(320, 240), planes=noisy)
    found = set()
    for fill in ("1", "85", "170"):
        command = [sys.executable, "-c", WRITTEN, str(source), str(tmp_path / "out.mp4")]
        environment = os.environ | {"MALLOC_PERTURB_": fill}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
        found.add(done.stdout)
    assert len(found) == 1


@pytest.mark.parametrize("last", [1, 2])
def test_a_last_segment_of_one_or_two_frames(source: Path, tmp_path: Path, last: int) -> None:
    """x265 gives such a stream decoding times by chance."""
    reader = VideoReader(source)
    settings = OutputSettings(codec="hevc", preset="ultrafast")
    for attempt in range(3):
        out = tmp_path / f"{attempt}.mp4"
        with VideoWriter(out, reader.info, settings, segment_length=FRAMES - last) as writer:
            for frame in reader:
                writer.write(frame.rgb, frame.pts)
        assert len(decode_planes(out)) == FRAMES
