"""The trial of the final file: what a container or an encoder refuses is known before the work."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest

from selfhvd_tta import Settings, deblur
from selfhvd_tta.errors import DiskError, UsageError, VerificationError
from selfhvd_tta.events import Event, Note, Progress
from selfhvd_tta.run.job import ADAPTATION, Job
from selfhvd_tta.settings import OutputSettings
from selfhvd_tta.video import encoding, joining
from selfhvd_tta.video.opening import open_reader
from selfhvd_tta.video.rehearsal import rehearse
from selfhvd_tta.video.writer import VideoWriter
from tests.media import make_clip
from tests.test_video_streams import rich_clip

OUTPUTS = (".mp4", ".mov", ".mkv")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_clip(tmp_path / "in.mp4", audio_seconds=0.3)


@pytest.mark.parametrize("suffix", OUTPUTS)
def test_it_says_what_the_result_says_and_leaves_nothing(tmp_path: Path, suffix: str) -> None:
    reader = open_reader(rich_clip(tmp_path / "in.mkv"))
    (tmp_path / "new").mkdir()
    out = tmp_path / "new" / f"out{suffix}"
    notes = rehearse(out, reader.info, OutputSettings())
    assert os.listdir(out.parent) == []
    with VideoWriter(out, reader.info, OutputSettings(preset="ultrafast")) as writer:
        for frame in reader:
            writer.write(frame.rgb, frame.pts)
    assert notes == [note for note in writer.notes if "all streams start" not in note and "rounded" not in note]


def test_a_folder_of_images_has_nothing_to_try(source: Path, tmp_path: Path) -> None:
    (note,) = rehearse(tmp_path / "frames", open_reader(source).info, OutputSettings())
    assert note.startswith("frames has no ending, so it becomes a folder of images")
    assert not (tmp_path / "frames").exists()


def test_a_refusal_comes_before_the_first_frame_is_looked_at(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> Any:
        raise av.error.InvalidDataError(1094995529, "Invalid data found when processing input")

    monkeypatch.setattr(joining, "_add_video", refuse)
    (tmp_path / "new").mkdir()
    events: list[Event] = []
    with pytest.raises(UsageError, match="cannot hold the video") as error:
        deblur(source, tmp_path / "new" / "out.mp4", Settings(method="transfer"), events.append)
    assert "disk" not in error.value.message + error.value.hint
    assert ".mkv" in error.value.hint
    assert not [event for event in events if isinstance(event, Progress)]
    assert os.listdir(tmp_path / "new") == []


def test_an_encoder_that_refuses_the_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make_clip(tmp_path / "in.mkv", [59 * i for i in range(8)], Fraction(1, 1000))
    monkeypatch.setitem(encoding.ENCODERS, "h264", "mpeg2video")  # which has a list of frame rates
    with pytest.raises(UsageError, match="cannot encode 64x48"):
        rehearse(tmp_path / "out.mp4", open_reader(source).info, OutputSettings())


def test_a_codec_that_the_container_has_no_name_for(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="this kind of file cannot hold the video"):
        rehearse(tmp_path / "out.mov", open_reader(source).info, OutputSettings(codec="av1"))


def test_a_long_file_is_not_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make_clip(tmp_path / "in.mkv", [40 * i for i in range(100)], Fraction(1, 1000), audio_seconds=4)
    monkeypatch.setattr(joining, "SAMPLE", 10)
    seen: list[int] = []
    original = joining.copied_packets

    def counted(*args: Any) -> Any:
        for item in original(*args):
            seen.append(1)
            yield item

    monkeypatch.setattr(joining, "copied_packets", counted)
    rehearse(tmp_path / "out.mp4", open_reader(source).info, OutputSettings())
    assert 0 < len(seen) <= 10


def test_what_a_second_attempt_would_not_cure_is_not_said_to_continue(tmp_path: Path) -> None:
    def fail(error: DiskError) -> None:
        with Job(tmp_path / "out.mp4") as job:
            (job.path / ADAPTATION).touch()
            raise error

    for error, continues in ((DiskError("full", "Free some space."), True), (VerificationError("bad", "Try"), False)):
        with pytest.raises(DiskError) as caught:
            fail(error)
        assert ("the same command again" in caught.value.hint) == continues


def test_a_note_is_told_once(tmp_path: Path) -> None:
    source = rich_clip(tmp_path / "in.mkv")
    told: list[str] = []

    def listen(event: Event) -> None:
        if isinstance(event, Note):
            told.append(event.text)

    deblur(source, tmp_path / "out.mp4", None, listen)
    assert len(told) == len(set(told))
