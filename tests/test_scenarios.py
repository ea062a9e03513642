"""The regression scenarios show what their names say; recordings are averaged into pairs."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from selfhvd_tta.errors import InputError, UsageError
from selfhvd_tta.lab.datasets.labels import read_labels
from selfhvd_tta.lab.evaluation.dataset import write_regression_set
from selfhvd_tta.lab.simulation.recording import Averaging, average_recording
from selfhvd_tta.lab.simulation.scenarios import SCENARIOS, Scenario
from selfhvd_tta.lab.simulation.simulate import Scene, blur_extent
from tests.media import make_clip

pytest.importorskip("skimage")
# Mean code value of the truth and of the blurry frames, and mean reach of the blur, at 96x64 with 4 frames.
PINNED = {
    "camera": (87.32, 87.82, 5.41),
    "texture": (120.79, 124.28, 11.60),
    "object": (117.94, 121.36, 7.11),
    "pan": (121.44, 127.72, 24.29),
    "walk": (103.15, 103.30, 1.09),
    "crowd": (116.93, 117.82, 0.43),
    "scarce": (82.00, 84.45, 6.57),
    "none": (99.18, 104.22, 14.88),
    "phone": (88.18, 89.01, 7.39),
    "night": (80.68, 92.09, 5.36),
}
BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}


def scene_of(name: str) -> tuple[Scenario, Scene]:
    return BY_NAME[name], BY_NAME[name].scene()


def extent_of(scenario: Scenario, scene: Scene, layer: int) -> np.ndarray:
    return blur_extent(replace(scene, layers=(scene.layers[layer],), still=1), scenario.settings)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: s.name)
def test_every_scenario_is_filmed(scenario: Scenario) -> None:
    clip = scenario.resized(96, 64, 4).simulate()
    assert clip.blurry.shape == clip.sharp.shape == (4, 64, 96, 3)
    assert clip.extent.shape == (4,)
    assert scenario.settings.frames == 48
    # Figures of these clips are compared over versions: a change here makes another benchmark of them.
    assert (clip.sharp.mean(), clip.blurry.mean(), clip.extent.mean()) == pytest.approx(PINNED[scenario.name], abs=0.1)


def test_the_pan_crosses_two_frame_widths_and_rests_three_times() -> None:
    scenario, scene = scene_of("pan")
    centre = scene.layers[0].view(np.array([0.0, 47.0]))[:, 0, 2]
    assert centre[1] - centre[0] == pytest.approx(2 * 384, rel=0.05)
    sharp = np.flatnonzero(blur_extent(scene, scenario.settings) < 1)
    assert np.count_nonzero(np.diff(sharp) > 5) == 2


def test_the_walk_blurs_near_things_more() -> None:
    scenario, scene = scene_of("walk")
    assert len(scene.layers) == scene.still == 3
    far, near = (extent_of(scenario, scene, k) for k in (0, 2))
    assert np.corrcoef(far, near)[0, 1] < 0.995
    # Travel alone, without what turning adds to all depths.
    travel = [layer.view(np.array([0.0, 40.0]))[:, 0, 2] for layer in scene.layers]
    moved = [abs(t[1] - t[0]) for t in travel]
    assert len({round(m) for m in moved}) == 3
    assert 5 <= np.count_nonzero(blur_extent(scene, scenario.settings) < 1) <= 24


def test_the_crowd_moves_by_itself() -> None:
    _, scene = scene_of("crowd")
    assert len(scene.layers) == 7
    speeds = []
    for layer in scene.layers[1:]:
        against = layer.view(np.array([0.0, 1.0])) @ np.linalg.inv(scene.layers[0].view(np.array([0.0, 1.0])))
        speeds.append(abs(against[1, 0, 2] - against[0, 0, 2]))
    assert len({round(s, 2) for s in speeds}) == 6


def test_sharp_frames_are_scarce_or_absent() -> None:
    scenario, scene = scene_of("scarce")
    assert 2 <= np.count_nonzero(blur_extent(scene, scenario.settings) < 1) <= 3
    scenario, scene = scene_of("none")
    assert blur_extent(scene, scenario.settings).min() > 2


def test_a_phone_processes_and_the_night_has_saturated_lamps() -> None:
    phone = BY_NAME["phone"].resized(96, 64, 4)
    plain = replace(phone, settings=replace(phone.settings, phone=None))
    assert not np.array_equal(phone.simulate().sharp, plain.simulate().sharp)
    night = BY_NAME["night"].resized(None, None, 2).simulate()
    assert np.median(night.sharp) < 60
    assert (night.sharp.max(-1) == 255).mean() > 0.002


def test_only_the_wanted_scenarios_are_written(tmp_path: Path) -> None:
    folders = write_regression_set(tmp_path, 64, 48, 4, ["none", "camera"])
    assert [folder.name for folder in folders] == ["camera", "none"]
    assert len(read_labels(folders[0])) == 4
    with pytest.raises(UsageError, match="unknown scenario 'night2'"):
        write_regression_set(tmp_path, names=["night2"])


def recording(path: Path, frames: int) -> Path:
    make_clip(path, list(range(frames)), Fraction(1, 240), codec="ffv1", size=(64, 48))
    return path


def test_a_recording_is_averaged_around_its_truth(tmp_path: Path) -> None:
    clip = average_recording(recording(tmp_path / "fast.mkv", 33), Averaging((1, 3), step=8, width=32))
    assert clip.blurry.shape == clip.sharp.shape == (3, 24, 32, 3)
    assert clip.exposures == (1, 3, 1)
    # A single frame comes back as it was, but for the way to linear light and back.
    assert np.abs(clip.blurry[0].astype(int) - clip.sharp[0]).max() <= 1
    assert not np.array_equal(clip.blurry[1], clip.sharp[1])
    drawn = average_recording(recording(tmp_path / "again.mkv", 72), Averaging(width=32)).exposures
    assert drawn[0] == drawn[6] == 1
    assert set(drawn[1:6]) <= {3, 5, 7}


def test_what_cannot_be_averaged(tmp_path: Path) -> None:
    (tmp_path / "broken.mkv").write_bytes(b"nothing")
    with pytest.raises(InputError, match="cannot be read"):
        average_recording(tmp_path / "broken.mkv", Averaging())
    with pytest.raises(InputError, match="only 9 frames"):
        average_recording(recording(tmp_path / "short.mkv", 9), Averaging())
    with pytest.raises(ValueError, match="do not fit"):
        Averaging((9,), step=8)
