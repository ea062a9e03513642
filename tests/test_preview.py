"""The preview: the right passage, before and after, nothing else touched."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from selfhvd_tta.errors import Interrupted, PreconditionError, UsageError
from selfhvd_tta.events import Event, Finished, Note, Progress, Written
from selfhvd_tta.extras.preview import blurriest, preview, preview_path, time_range
from selfhvd_tta.method.clues import select_clues
from selfhvd_tta.run.cancelling import CancelToken
from selfhvd_tta.run.scan import Inspection, inspect
from selfhvd_tta.settings import ClueSettings
from selfhvd_tta.times import TimeRange
from selfhvd_tta.video.opening import open_reader
from tests.commands import run
from tests.media import make_clip, packets, shaky_file
from tests.test_pipeline import QUICK

TRANSFER = replace(QUICK, method="transfer")


def seen_with(clip: Path, values: list[float], shots: list[range], step: int = 512) -> Inspection:
    clues = select_clues(np.array(values), shots, ClueSettings())
    return replace(inspect(clip), clues=clues, pts=tuple(step * i for i in range(len(values))))


def test_the_blurriest_passage_lies_within_one_shot(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.mp4")  # 30 frames per second at 512 units each
    sharp_then_soft = [100.0, 100.0, 10.0, 10.0] * 30
    values = [100.0] * 60 + sharp_then_soft + [100.0] * 60
    assert 45 <= blurriest(seen_with(clip, values, [range(240)])).start <= 90
    one = blurriest(seen_with(clip, values, [range(240)]))
    assert len(one) == 91, "three seconds, both ends included"
    cut = blurriest(seen_with(clip, values, [range(100), range(100, 240)]))
    assert cut.start >= 100
    assert blurriest(seen_with(clip, [5.0, 100.0, 5.0], [range(3)])) == range(3)
    slow = blurriest(seen_with(clip, values, [range(240)], step=512 * 30))
    assert len(slow) == 4, "a frame per second"


def test_a_preview_that_is_late_says_how_late_at_the_end(tmp_path: Path) -> None:
    source, told = shaky_file(tmp_path / "a.mp4", 6, 0), list[Event]()
    hasty = replace(TRANSFER, runtime=replace(TRANSFER.runtime, budget=0.01))
    preview(source, tmp_path / "sharp.mp4", hasty, "side", told.append)
    last = told[-1]
    assert isinstance(last, Note)
    assert last.level == "warning"
    assert last.text.endswith("more than its 1 s")


def test_a_passage_becomes_a_time_range(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.mp4", tuple(1000 + 512 * i for i in range(20)))
    seen = inspect(clip)
    for passage in (range(20), range(1), range(3, 8), range(19, 20)):
        part = TimeRange.parse(time_range(seen, passage))
        shown = [f.pts for f in open_reader(clip, part)]
        assert shown == [1000 + 512 * i for i in passage]


def test_before_and_after_are_shown(tmp_path: Path) -> None:
    source = shaky_file(tmp_path / "a.mp4", 12, 0.4)
    told: list[Event] = []
    shown = preview(source, tmp_path / "sharp.mp4", TRANSFER, "side", told.append)
    assert shown.path == tmp_path / "sharp-preview.mp4" == preview_path(tmp_path / "sharp.mp4")
    assert sorted(os.listdir(tmp_path)) == ["a.mp4", "sharp-preview.mp4"], "no result, and nothing left"
    assert shown.frames == range(12)
    assert shown.whole > 0
    frames = list(open_reader(shown.path))
    assert len(frames) == 12
    assert frames[0].rgb.shape == (64, 160, 3)
    halves = [abs(f.rgb[:40, :80].astype(int) - f.rgb[:40, 80:]).mean() for f in frames]
    assert max(halves) > 1, "the right half differs from the left one"
    assert packets(shown.path, "audio")[0], "the sound is there"
    assert not any(isinstance(e, Finished) for e in told)
    assert Written("preview", str(shown.path)) in told
    assert any(isinstance(e, Note) and "the whole video would take about" in e.text for e in told)
    with pytest.raises(UsageError, match="exists already"):
        preview(source, tmp_path / "sharp.mp4", TRANSFER)


def test_there_is_nothing_to_show_of_an_even_video(tmp_path: Path) -> None:
    with pytest.raises(PreconditionError, match="no preview, because"):
        preview(make_clip(tmp_path / "a.mp4"), tmp_path / "sharp.mp4", TRANSFER)
    with pytest.raises(UsageError, match="--save-adapted"):
        preview(tmp_path / "a.mp4", tmp_path / "sharp.mp4", replace(QUICK, save_adapted="w.safetensors"))


def test_it_can_be_cancelled(tmp_path: Path) -> None:
    source = shaky_file(tmp_path / "a.mp4")
    token = CancelToken()

    def listen(event: Event) -> None:
        if isinstance(event, Progress) and event.phase == "transfer":
            token.cancel()

    with pytest.raises(Interrupted):
        preview(source, tmp_path / "sharp.mp4", TRANSFER, "side", listen, token)
    assert os.listdir(tmp_path) == ["a.mp4"]


def test_folders_of_images_have_a_video_as_preview() -> None:
    assert preview_path("out/frames") == Path("out/frames-preview.mp4")
    assert preview_path("out/a.mkv") == Path("out/a-preview.mkv")


def test_the_flag(tmp_path: Path) -> None:
    source = shaky_file(tmp_path / "a.mp4")
    both = run("deblur", source, "-o", tmp_path / "s.mp4", "--preview", "--report", tmp_path / "r.html", "--offline")
    assert both.returncode == 2
    assert "a preview has no report" in both.stderr
    flags = ["--preview", "--compare", "stack", "--method", "transfer", "--flow", "dis:ultrafast", "--offline"]
    done = run("deblur", source, "-o", tmp_path / "s.mp4", *flags)
    assert done.returncode == 0, done.stderr
    assert "preview" in done.stderr
    assert open_reader(tmp_path / "s-preview.mp4").info.height == 128
    assert not (tmp_path / "s.mp4").exists()
