"""Clue selection against the simulator's labels, and videos that are not of the usual kind."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from selfhvd_tta.lab.datasets.photos import bundled_photo
from selfhvd_tta.lab.evaluation.clue_accuracy import clue_accuracy, dimming, exposed, find_clues, pumping, ranking
from selfhvd_tta.lab.simulation.simulate import ShakeSettings, SimulatedClip, simulate_clip
from selfhvd_tta.run.scan import judge
from selfhvd_tta.settings import ClueSettings

SHAKE = ShakeSettings(width=128, height=96, frames=32, subframes=(5, 13))
SETTINGS = ClueSettings()


def clip(name: str = "coffee.png", seed: int = 1, **changes: object) -> SimulatedClip:
    return simulate_clip(bundled_photo(name), replace(SHAKE, **changes), seed)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def shaken() -> SimulatedClip:
    return clip()


def test_selection_agrees_with_the_labels(four: list[SimulatedClip]) -> None:
    found = clue_accuracy(four, limit=3.0)
    assert found.frames == 4 * 32
    assert found.accuracy > 0.8
    assert found.ranking > 0.93
    assert found.extent_selected < 0.4 * found.extent_rejected
    assert clue_accuracy(four).recall > 0.9


@pytest.fixture(scope="module")
def four() -> list[SimulatedClip]:
    return [clip(name, seed) for seed, name in enumerate(("coffee.png", "astronaut.png", "chelsea.png", "grass.png"))]


def test_frames_in_between_can_be_left_out(four: list[SimulatedClip]) -> None:
    clear = clue_accuracy(four, limit=1.0, blurry=4.0)
    extent = np.concatenate([c.extent for c in four])
    assert clear.frames == int(((extent < 1) | (extent > 4)).sum()) < 4 * 32
    assert clear.accuracy > 0.95
    assert clear.accuracy > clue_accuracy(four, limit=1.0).accuracy
    with pytest.raises(ValueError, match="no clip"):
        clue_accuracy(four, limit=0.0, blurry=1e9)


@pytest.mark.parametrize("gain", [dimming, pumping])
def test_selection_does_not_depend_on_exposure(four: list[SimulatedClip], gain) -> None:
    changed = [exposed(c, gain(32)) for c in four]
    literal = ClueSettings(normalise=False)
    as_it_is = clue_accuracy(four, SETTINGS, 1, 4).accuracy
    assert clue_accuracy(changed, SETTINGS, 1, 4).accuracy > as_it_is - 0.03
    assert clue_accuracy(changed, literal, 1, 4).accuracy < as_it_is - 0.05, "what v_l itself makes of it"


def test_reported_sharpness_is_v_l_whatever_is_compared(shaken: SimulatedClip) -> None:
    frames = dimmed(shaken.blurry, dimming(32))
    found, literal = find_clues(frames, SETTINGS), find_clues(frames, ClueSettings(normalise=False))
    assert np.array_equal(found.sharpness, literal.sharpness)
    assert np.array_equal(literal.score, literal.sharpness)
    steady = find_clues(shaken.blurry, SETTINGS)
    assert np.corrcoef(np.log(found.score), np.log(steady.score))[0, 1] > 0.99
    assert found.score[0] < found.sharpness[0]
    assert found.score[-1] > found.sharpness[-1]


def test_ranking_counts_pairs() -> None:
    values = np.array([1.0, 2.0, 3.0, 3.0])
    assert ranking(values, np.array([False, False, True, True])) == 1
    assert ranking(values, np.array([False, False, False, True])) == pytest.approx(2.5 / 3)
    assert np.isnan(ranking(values, np.ones(4, bool)))


def test_no_clips_no_figure() -> None:
    with pytest.raises(ValueError, match="no clip"):
        clue_accuracy([])


def helpful(frames: np.ndarray) -> bool:
    return judge(find_clues(frames, SETTINGS), SETTINGS)[0]


def test_a_shaken_clip_can_be_helped(shaken: SimulatedClip) -> None:
    assert helpful(shaken.blurry)


def test_all_sharp_is_left_alone(shaken: SimulatedClip) -> None:
    assert not helpful(shaken.sharp)


def test_all_blurry_is_left_alone(shaken: SimulatedClip) -> None:
    """Out of focus throughout: no frame can teach another one."""
    assert not helpful(np.stack([cv2.GaussianBlur(f, (0, 0), 4) for f in shaken.sharp]))


def test_noise_alone_is_left_alone(shaken: SimulatedClip) -> None:
    rng = np.random.default_rng(0)
    noisy = shaken.sharp + rng.normal(0, 8, shaken.sharp.shape)
    assert not helpful(np.clip(noisy, 0, 255).astype(np.uint8))


def test_clues_survive_noise(shaken: SimulatedClip) -> None:
    clean = find_clues(shaken.blurry, SETTINGS)
    rng = np.random.default_rng(0)
    noisy = np.clip(shaken.blurry + rng.normal(0, 4, shaken.blurry.shape), 0, 255).astype(np.uint8)
    assert np.corrcoef(clean.sharpness, find_clues(noisy, SETTINGS).sharpness)[0, 1] > 0.98
    assert (find_clues(noisy, SETTINGS).sharp == clean.sharp).mean() > 0.85


def dimmed(frames: np.ndarray, gain: np.ndarray) -> np.ndarray:
    return np.stack([(f * g).astype(np.uint8) for f, g in zip(frames, gain, strict=True)])


def test_a_slow_change_of_exposure_is_left_alone(shaken: SimulatedClip) -> None:
    """v_l goes with the square of the brightness, but neighbours change together."""
    assert not helpful(dimmed(shaken.sharp, np.linspace(1.0, 0.8, 32)))


def test_a_quick_change_of_exposure_is_left_alone(shaken: SimulatedClip) -> None:
    assert not helpful(dimmed(shaken.sharp, np.linspace(1.0, 0.6, 32)))


def test_an_exposure_that_goes_up_and_down_is_left_alone(shaken: SimulatedClip) -> None:
    assert not helpful(exposed(shaken, pumping(32)).sharp)


def test_clues_survive_a_change_of_exposure(shaken: SimulatedClip) -> None:
    frames = dimmed(shaken.blurry, np.linspace(1.0, 0.6, 32))
    assert helpful(frames)
    clues = find_clues(frames, SETTINGS)
    assert clues.sharp[:20].any()
    assert clues.sharp[20:].any()


def test_the_end_of_a_fade_teaches_no_bright_frame(shaken: SimulatedClip) -> None:
    """The frames from 20 on fade to black, which is a shot of its own; the others learn from what they show."""
    faded = dimmed(shaken.blurry, np.concatenate([np.ones(20), np.linspace(1, 0, 12)]))
    clues = find_clues(faded, SETTINGS)
    assert clues.shots[0].stop >= 30
    assert (clues.nearest[:20] < 26).all()


def test_nothing_crosses_a_cut() -> None:
    first, second = clip("coffee.png", 1), clip("astronaut.png", 2)
    clues = find_clues(np.concatenate([first.blurry, second.blurry]), SETTINGS)
    assert clues.shots == (range(32), range(32, 64))
    assert (clues.nearest[:32] < 32).all()
    assert (clues.nearest[32:] >= 32).all()
