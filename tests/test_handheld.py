"""A hand in space, its log, and the stabiliser: what it makes up for and what it cannot."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from selfhvd_tta.errors import InputError
from selfhvd_tta.lab.datasets.labels import blur_statistics, read_labels
from selfhvd_tta.lab.evaluation.dataset import write_dataset
from selfhvd_tta.lab.simulation.camera import sample_times
from selfhvd_tta.lab.simulation.handheld import HANDHELD, Handheld
from selfhvd_tta.lab.simulation.motion import Hand, draw_motion, read_motion
from selfhvd_tta.lab.simulation.simulate import blur_extent
from selfhvd_tta.lab.simulation.stabiliser import Stabiliser, stabilised
from tests.test_cli import run

STEP = 1 / 480
SMALL = replace(HANDHELD, width=96, height=64, frames=12, subframes=(5, 9), crf=None)


def swing(degrees: float, hertz: float, seconds: float = 2.0) -> np.ndarray:
    """(2, K) radians: yaw alone."""
    t = np.arange(0, seconds, STEP)
    return np.stack([np.deg2rad(degrees) * np.sin(2 * np.pi * hertz * t), np.zeros_like(t)])


def left_over(stabiliser: Stabiliser, degrees: float, hertz: float) -> float:
    """Share of the swing's speed that remains."""
    angles = swing(degrees, hertz)
    settled = slice(angles.shape[1] // 2, None)
    left = stabiliser.residual(angles, STEP)
    assert not left[1].any(), "the other axis stays at rest"
    return float(np.linalg.norm(np.diff(left[0, settled])) / np.linalg.norm(np.diff(angles[0, settled])))


def test_slow_and_small_motion_is_made_up_for_and_fast_or_large_motion_is_not() -> None:
    ideal = Stabiliser(stroke=90, bandwidth=1e4, delay=0, centring=1e-4)
    assert left_over(ideal, 1, 2) < 0.01
    real = Stabiliser()
    assert left_over(real, 0.4, 2) < 0.35
    assert left_over(real, 0.02, 25) > 0.6, "faster than the actuator"
    assert left_over(real, 5, 2) > 0.8, "beyond the stroke"
    assert left_over(replace(real, delay=0.02), 0.4, 2) > 1.3 * left_over(real, 0.4, 2)
    assert left_over(real, 0.4, 0.05) > 0.9, "a pan is intended"


def test_the_lens_never_leaves_its_stroke() -> None:
    angles = swing(5, 1)
    lens = angles - Stabiliser().residual(angles, STEP)
    assert np.abs(np.rad2deg(lens)).max() <= 0.8 + 1e-9


def test_roll_and_translation_pass_through() -> None:
    motion = draw_motion(np.random.default_rng(0), 20, Hand(sway=(10, 20)))
    still, moved = (stabilised(motion, s, 400.0) for s in (Stabiliser(), None))
    assert np.array_equal(still.pose[2], motion.angles[2])
    speed = [np.diff(camera.pose[:2]).std() for camera in (still, moved)]
    assert speed[0] < 0.9 * speed[1]
    assert np.allclose(moved.pose[0], 400 * np.tan(motion.angles[0]))


def test_a_drawn_motion_has_the_speeds_that_were_asked_for() -> None:
    hand = Hand(sway=(20, 20), tremor=(0, 0), gap=(900, 901), calm=(0.01, 0.02), floor=1.0, travel=(0.1, 0.1))
    motions = [draw_motion(np.random.default_rng(seed), 300, hand) for seed in range(6)]
    rate = np.concatenate([np.diff(m.angles[:2]) / m.interval for m in motions], 1)
    assert np.rad2deg(np.sqrt((rate**2).sum(0).mean())) == pytest.approx(20, rel=0.2)
    speed = np.concatenate([np.diff(m.position) / m.interval for m in motions], 1)
    assert np.sqrt((speed**2).sum(0).mean()) == pytest.approx(0.1, rel=0.2)


def write_log(path: Path, seconds: float, rate: float = 200.0) -> Path:
    """The phone swings to the right and back once per second by 2 degrees, and is carried 1 cm up and down at 2 Hz."""
    t = np.arange(0, seconds, 1 / rate)
    turn = np.deg2rad(2) * 2 * np.pi * np.cos(2 * np.pi * t)
    lift = -0.01 * (4 * np.pi) ** 2 * np.sin(4 * np.pi * t)
    zero = np.zeros_like(t)
    table = np.stack([t + 7, zero, turn, zero, zero, 9.81 + lift, zero], 1)
    np.savetxt(path, table, delimiter=",", header="t,gx,gy,gz,ax,ay,az", comments="")
    return path


def test_a_log_gives_back_what_moved_the_phone(tmp_path: Path) -> None:
    motion = read_motion(write_log(tmp_path / "log.csv", 4), 90, 30.0)
    seconds = (motion.times - motion.times[0]) / 30
    middle = slice(len(seconds) // 4, -len(seconds) // 4)
    yaw = np.deg2rad(2) * np.sin(2 * np.pi * seconds)
    assert np.allclose((motion.angles[0] - yaw)[middle], (motion.angles[0] - yaw)[middle].mean(), atol=np.deg2rad(0.05))
    assert np.allclose(motion.angles[1:], 0, atol=1e-9)
    height = motion.position[1][middle]
    assert (height.max() - height.min()) / 2 == pytest.approx(0.01, rel=0.2)
    assert np.abs(motion.position[[0, 2]]).max() < 1e-9


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("t,gx,gy,gz,ax,ay\n0,0,0,0,0,0\n", "'az'"),
        ("t,gx,gy,gz,ax,ay,az\n0,x,0,0,0,0,0\n", "cannot be read"),
        ("t,gx,gy,gz,ax,ay,az\n1,0,0,0,0,0,0\n0,0,0,0,0,0,0\n", "do not increase"),
        ("t,gx,gy,gz,ax,ay,az\n0,0,0,0,0,0,0\n0.1,0,0,0,0,0,0\n", "lasts 0.10 s, the clip"),
    ],
)
def test_a_log_that_cannot_be_used_is_said(tmp_path: Path, content: str, problem: str) -> None:
    (tmp_path / "log.csv").write_text(content)
    with pytest.raises(InputError, match=problem):
        read_motion(tmp_path / "log.csv", 12, 30.0)


def photo(path: Path) -> Path:
    path.mkdir()
    picture = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    cv2.imwrite(str(path / "p.png"), cv2.resize(picture, (720, 480)))
    return path


def test_clips_have_depth_labels_and_statistics(tmp_path: Path) -> None:
    made = write_dataset(photo(tmp_path / "photos"), tmp_path / "set", SMALL, 2, 5, compose=Handheld().scene)
    sharp = [label for folder in made for label in read_labels(folder)]
    told = blur_statistics(made)
    assert (told.frames, told.sharp) == (24, np.mean(sharp))
    assert 0 < told.median <= told.high
    assert "24 frames" in str(told)
    picture = cv2.imread(str(tmp_path / "photos" / "p.png"))
    scene = Handheld().scene(picture, SMALL, 5, "cpu")
    far, near = (layer.view(sample_times(SMALL.frames))[:, :2, 2] for layer in scene.layers)
    assert np.abs(near - far).max() > 0.1, "parallax"
    bare = replace(Handheld(), stabiliser=None).scene(picture, SMALL, 5, "cpu")
    assert blur_extent(scene, SMALL).mean() < blur_extent(bare, SMALL).mean()


def test_the_command(tmp_path: Path) -> None:
    photos = photo(tmp_path / "photos")
    wrong = run("simulate", str(photos), "-o", str(tmp_path / "x"), "--no-stabiliser")
    assert wrong.returncode == 2
    assert "--kind handheld" in wrong.stderr
    short = write_log(tmp_path / "log.csv", 0.2)
    wrong = run("simulate", str(photos), "-o", str(tmp_path / "x"), "--kind", "handheld", "--motion", str(short))
    assert wrong.returncode == 1
    assert "lasts 0.20 s" in wrong.stderr
