"""Which kind of blur a video has, and what follows from it, on files made here."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from typer.testing import CliRunner

from selfhvd_tta import Settings, deblur
from selfhvd_tta.cli import app
from selfhvd_tta.errors import PreconditionError
from selfhvd_tta.lab.datasets.photos import bundled_photo
from selfhvd_tta.lab.simulation.simulate import ShakeSettings, simulate_clip
from selfhvd_tta.method.exposure import Exposure
from selfhvd_tta.run.blur import Blur, deep, settled
from selfhvd_tta.run.scan import inspect
from selfhvd_tta.settings import AlignmentSettings, OutputSettings, RuntimeSettings
from tests.test_blur_field import moving_scene


def write_video(path: Path, frames: list[np.ndarray]) -> None:
    """RGB frames without loss, at 30 frames a second."""
    height, width = frames[0].shape[:2]
    with av.open(path, "w") as container:
        stream = container.add_stream("ffv1", rate=30)
        stream.width, stream.height, stream.pix_fmt = width, height, "bgr0"
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="bgr0")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))


QUICK = Settings(
    method="transfer",
    alignment=AlignmentSettings(flow="dis", blur="local"),
    runtime=RuntimeSettings(offline=True),
    output=OutputSettings(codec="ffv1"),
)
LOCAL = Blur(True, Exposure(0.6, 5.0, 1.0))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine frames of a pan with sharp ones at both ends."""
    path = tmp_path_factory.mktemp("blur") / "pan.mkv"
    _, frames, _ = moving_scene(9, (0, 4, 8))
    write_video(path, frames)
    return path


def decoded(path: Path) -> list[np.ndarray]:
    with av.open(path) as container:
        return [frame.to_ndarray(format="rgb24").astype(np.float32) for frame in container.decode(video=0)]


def test_failed_fits_do_not_make_a_flat_scene_look_deep() -> None:
    well, failed = (1.0, 0.9), (2.5, 10.0)
    assert not deep([well] * 3 + [failed] * 5)
    assert deep([well] + [failed] * 7)
    assert deep([(1.0, 1.4)] * 8), "depth: somewhat worse in every frame"
    assert not deep([(1.0, 1.1)] * 8)


def test_a_shaken_plane_has_one_path(tmp_path: Path) -> None:
    shake = ShakeSettings(width=192, height=128, frames=24, subframes=(5, 13))
    plane = simulate_clip(bundled_photo("coffee.png"), shake, 1)
    write_video(tmp_path / "plane.mkv", list(plane.blurry))
    seen = inspect(tmp_path / "plane.mkv", blur=True)
    assert seen.blur is not None
    assert seen.blur.residuals is not None, "both were compared"
    assert not seen.blur.local


def test_local_blur_is_undone_without_a_network_unless_one_is_named() -> None:
    assert not settled(Settings(method="transfer"), LOCAL).networked
    assert settled(Settings(method="transfer", backbone="relay"), LOCAL).backbone == "relay"
    assert settled(Settings(method="adapt"), LOCAL).networked
    assert settled(Settings(method="transfer"), LOCAL).alignment.blur == "local"
    assert settled(Settings(method="transfer"), replace(LOCAL, local=False)).alignment.blur == "global"


def test_a_video_is_restored_by_its_local_blur(clip: Path, tmp_path: Path) -> None:
    lines: list[object] = []
    result = deblur(clip, tmp_path / "out.mkv", QUICK, listen=lines.append)
    assert result.action == "transferred"
    before, after = decoded(clip), decoded(tmp_path / "out.mkv")
    assert len(before) == len(after)
    changed = [float(np.abs(a - b).mean()) for a, b in zip(before, after, strict=True)]
    assert min(changed[i] for i in (1, 2, 3, 5, 6, 7)) > 5 * max(changed[i] for i in (0, 4, 8))
    rows = next(dict(line.rows) for line in lines if type(line).__name__ == "Plan")
    assert "shutter open" in rows["blur"]
    assert "own blur" in rows["method"]


def test_inspect_measures_the_blur_of_every_frame(clip: Path) -> None:
    seen = inspect(clip, blur=True)
    assert seen.blur is not None
    assert len(seen.lengths) == 9
    assert all(0 <= length < 20 for length in seen.lengths)
    assert inspect(clip).blur is None
    told = CliRunner().invoke(app, ["inspect", str(clip), "--blur", "--json"])
    assert told.exit_code == 0
    facts = json.loads(told.stdout)
    assert len(facts["blur_pixels"]) == 9
    assert facts["exposure_share"] == pytest.approx(seen.blur.exposure.share, abs=1e-3)
    text = CliRunner().invoke(app, ["inspect", str(clip), "--blur"]).stdout
    assert "shutter open" in text


def test_an_unknown_kind_of_blur_is_refused() -> None:
    with pytest.raises(Exception, match="--blur"):
        AlignmentSettings(blur="square")  # type: ignore[arg-type]


def test_a_video_that_is_blurry_throughout_is_restored_from_its_own_blur(tmp_path: Path) -> None:
    truth, frames, _ = moving_scene(9, ())
    write_video(tmp_path / "blurry.mkv", frames)
    notes: list[str] = []
    settings = replace(QUICK, alignment=AlignmentSettings(flow="dis"))
    result = deblur(tmp_path / "blurry.mkv", tmp_path / "out.mkv", settings, listen=lambda e: notes.append(str(e)))
    assert result.action == "transferred"
    assert any("own blur" in note for note in result.notes)
    after = decoded(tmp_path / "out.mkv")
    inner = (slice(12, -12), slice(16, -16))
    for i in range(2, 7):
        wanted = truth[i][inner] * 255
        assert np.square(after[i][inner] - wanted).mean() < np.square(frames[i][inner] - wanted).mean()


def test_strict_refuses_a_video_without_sharp_frames(tmp_path: Path) -> None:
    _, frames, _ = moving_scene(9, ())
    write_video(tmp_path / "blurry.mkv", frames)
    with pytest.raises(PreconditionError):
        deblur(tmp_path / "blurry.mkv", tmp_path / "out.mkv", replace(QUICK, strict=True))
    assert not (tmp_path / "out.mkv").exists()


def test_short_or_doubtful_blur_is_not_worth_undoing_without_sharp_frames() -> None:
    assert LOCAL.restorable
    assert not replace(LOCAL, exposure=Exposure(0.6, 2.2, 1.0)).restorable
    assert not replace(LOCAL, exposure=Exposure(0.6, 5.0, 0.5)).restorable
