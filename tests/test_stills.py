"""Stills: the right frames, as the whole run would restore them, upright and named by their time."""

from __future__ import annotations

import csv
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import selfhvd_tta
from selfhvd_tta.cli import app
from selfhvd_tta.errors import Interrupted, UsageError
from selfhvd_tta.events import Event, Note, Progress, Written
from selfhvd_tta.extras.stills import best_frames, still_name, stills
from selfhvd_tta.run.cancelling import CancelToken
from selfhvd_tta.settings import AdaptationSettings
from selfhvd_tta.video.images import load_image
from selfhvd_tta.video.opening import open_reader
from tests.media import make_clip, shaky_file
from tests.test_pipeline import QUICK
from tests.test_preview import seen_with

PLAIN = replace(QUICK, method="transfer", backbone="none", detail=True, adaptation=AdaptationSettings())


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shaky_file(tmp_path_factory.mktemp("clip") / "a.mp4", 12, 0.4)


def test_the_sharpest_frame_of_every_stretch_is_chosen(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.mp4")  # 30 frames per second at 512 units each
    values = [10.0] * 60
    for sharp in (7, 29, 30, 44):
        values[sharp] = 100.0
    seen = seen_with(clip, values, [range(60)])
    assert best_frames(seen, 2) == [7, 30], "of two that are equal, the first"
    assert best_frames(seen, 4) == [7, 29, 44, 52], "not 30, which shows the same moment as 29"
    assert best_frames(seen, every=1.0) == [7, 30]
    assert best_frames(seen, 500) == list(range(60))
    assert best_frames(seen_with(clip, values, [range(60)], step=512 * 30), every=1.0) == list(range(60))
    dark = [value * (0.01 if i < 30 else 1) for i, value in enumerate(values)]
    assert best_frames(seen_with(clip, dark, [range(30), range(30, 60)]), 2) == [7, 30], "shots are not compared"


def test_names_sort_by_time() -> None:
    assert still_name(81, 3.24, 10) == "00m03.240s-f00081.png"
    assert still_name(9, 59.9996, 7000) == "001m00.000s-f00009.png"


@pytest.mark.parametrize(("network", "most"), [("none", 1), ("relay:lite", 12)])
def test_a_still_is_the_frame_that_a_whole_run_writes(source: Path, tmp_path: Path, network: str, most: int) -> None:
    """A recurrent network differs by what frames beyond its reach change, on noise the most."""
    settings = replace(PLAIN, backbone=network)
    events: list[Event] = []
    made = stills(source, tmp_path / "s", settings, 3, listen=events.append)
    selfhvd_tta.deblur(source, tmp_path / "whole", settings)
    assert len(made) == 3
    for still in made:
        whole = load_image(tmp_path / "whole" / f"{still.frame:06d}.png").astype(int)
        difference = abs(load_image(still.path) - whole)
        assert difference.max() <= most, still
        assert difference.mean() < 1, still
    assert sorted(os.listdir(tmp_path / "s")) == sorted([s.path.name for s in made] + ["stills.csv"])
    with (tmp_path / "s" / "stills.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["frame"]) for row in rows] == [s.frame for s in made]
    assert [float(row["seconds"]) for row in rows] == pytest.approx([s.frame / 30 for s in made], abs=1e-3)
    assert Written("stills", str(tmp_path / "s")) in events
    assert sorted(os.listdir(tmp_path)) == ["s", "whole"], "no workplace is left"


def test_pictures_are_upright(tmp_path: Path) -> None:
    def turn(container: Any, stream: Any) -> None:
        stream.set_display_rotation(90)

    turned = make_clip(tmp_path / "a.mp4", prepare=turn)
    made = stills(turned, tmp_path / "s", PLAIN, 1)
    recorded = next(f.rgb for f in open_reader(turned) if f.index == made[0].frame)
    assert np.array_equal(load_image(made[0].path), np.rot90(recorded))


def test_a_video_that_cannot_be_helped_gives_its_frames_as_recorded(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.mp4")
    events: list[Event] = []
    made = stills(clip, tmp_path / "s", PLAIN, 2, listen=events.append)
    recorded = {f.index: f.rgb for f in open_reader(clip)}
    for still in made:
        assert np.array_equal(load_image(still.path), recorded[still.frame])
    assert any(isinstance(e, Note) and "as recorded" in e.text for e in events)


def test_hdr_is_said(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.mp4", codec="libx265", pix_fmt="yuv420p10le", color=(9, 1, 9, 18))
    events: list[Event] = []
    made = stills(clip, tmp_path / "s", PLAIN, 1, listen=events.append)
    assert load_image(made[0].path).dtype == np.uint8
    assert any(isinstance(e, Note) and "HDR" in e.text for e in events)


def test_mistakes_and_cancelling_leave_everything_as_it_was(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="pictures go into a folder"):
        stills(source, tmp_path / "s.mp4", PLAIN)
    with pytest.raises(UsageError, match="positive"):
        stills(source, tmp_path / "s", PLAIN, every=-1)
    token = CancelToken()

    def listen(event: Event) -> None:
        if isinstance(event, Progress) and event.phase == "transfer":
            token.cancel()

    with pytest.raises(Interrupted):
        stills(source, tmp_path / "s", PLAIN, 3, listen=listen, cancel=token)
    assert os.listdir(tmp_path) == []


def test_the_command(source: Path, tmp_path: Path) -> None:
    def answer(*arguments: object) -> Any:
        flags = ["--backbone", "none", "--flow", "dis:ultrafast", "--offline", "--quiet"]
        return CliRunner().invoke(app, ["stills", str(source), "-o", str(tmp_path / "s"), *map(str, arguments), *flags])

    assert answer("--every", "0.2s").exit_code == 0
    assert len(list((tmp_path / "s").glob("*.png"))) == 2
    assert "exists already" in str(answer("--count", 1).exception)
    assert answer("--count", 1, "--overwrite").exit_code == 0
    assert len(list((tmp_path / "s").glob("*.png"))) == 1
    assert "--every: takes the place of --count" in str(answer("--count", 1, "--every", "1s").exception)
    assert "--every is 'often'" in str(answer("--every", "often").exception)
