"""Selection of sharp frames: Eq. 1, Otsu, segments, nearest sharp frame."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfhvd_tta.method.clues import LEAST_CONTRAST, laplacian_variance, nearest_sharp, otsu_threshold, select_clues
from selfhvd_tta.settings import ClueSettings

SETTINGS = ClueSettings()


def test_laplacian_variance_of_a_single_bright_pixel() -> None:
    luma = np.zeros((10, 10), np.uint8)
    luma[5, 5] = 100
    # The response is -400 once and 100 four times: mean 0, variance (400^2 + 4 * 100^2) / 100 pixels.
    assert laplacian_variance(luma) == pytest.approx((400**2 + 4 * 100**2) / 100)


def test_laplacian_variance_falls_with_blur_and_is_zero_when_flat() -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (64, 80), dtype=np.uint8)
    assert laplacian_variance(cv2.GaussianBlur(noise, (0, 0), 1.5)) < 0.1 * laplacian_variance(noise)
    assert laplacian_variance(np.full((8, 8), 77, np.uint8)) == 0


def test_otsu_separates_two_groups_and_says_how_well() -> None:
    threshold, share = otsu_threshold([1.0, 1.1, 0.9, 5.0, 5.2])
    assert 1.1 < threshold < 5.0
    assert share > 0.99


def test_otsu_agrees_with_opencv_on_8_bit_values() -> None:
    rng = np.random.default_rng(1)
    values = np.concatenate([rng.normal(60, 12, 300), rng.normal(170, 20, 200)]).clip(0, 255).astype(np.uint8)
    expected, _ = cv2.threshold(values, 0, 255, cv2.THRESH_OTSU)
    threshold, _ = otsu_threshold(values.astype(float))
    assert ((values > threshold) == (values > expected)).all()


@pytest.mark.parametrize("values", [[3.0], [2.0, 2.0, 2.0], [0.0, 0.0]])
def test_otsu_of_equal_values_selects_none(values: list[float]) -> None:
    threshold, share = otsu_threshold(values)
    assert share == 0
    assert not (np.asarray(values) > threshold).any()


def test_every_segment_contributes_and_shots_are_kept_apart() -> None:
    values = np.full(60, 10.0)
    values[[5, 30]] = 100.0
    clues = select_clues(values, [range(25), range(25, 60)], SETTINGS)
    # Segments of shot 0: 0..19 (holds 5), 20..24 (none: its first frame); of shot 1: 25..44 (holds 30), 45..59 (none).
    assert np.flatnonzero(clues.sharp).tolist() == [5, 20, 30, 45]
    assert clues.nearest[24] == 20, "not 30, which lies beyond the cut"
    assert clues.nearest[26] == 30
    assert clues.contrast == pytest.approx(5.5)  # median of (100, 10) over 10, in both shots


def test_of_two_equally_near_sharp_frames_the_sharper_wins() -> None:
    values = np.array([50.0, 1.0, 60.0])
    assert nearest_sharp(values, np.array([True, False, True])).tolist() == [0, 2, 2]


def test_constant_video_has_no_soft_frames() -> None:
    clues = select_clues(np.full(50, 42.0), [range(50)], SETTINGS)
    assert clues.soft_share == 0
    assert clues.contrast == pytest.approx(1)
    assert np.flatnonzero(clues.sharp).tolist() == [0, 20, 40]


def test_a_slow_change_is_not_blur_but_a_dip_is() -> None:
    ramp = np.linspace(100, 400, 200)
    assert select_clues(ramp, [range(200)], SETTINGS).soft_share == 0
    ramp[100:104] *= 0.3
    assert np.flatnonzero(select_clues(ramp, [range(200)], SETTINGS).soft).tolist() == [100, 101, 102, 103]


def test_v_l_is_compared_relative_to_contrast() -> None:
    values, bright = np.array([100.0, 100.0, 25.0, 25.0]), np.array([900.0, 900.0, 225.0, 900.0])
    least = LEAST_CONTRAST**2
    clues = select_clues(values, [range(4)], SETTINGS, bright)
    assert clues.sharpness.tolist() == values.tolist()
    assert clues.score == pytest.approx(values * (900 + least) / (bright + least))
    assert clues.sharp.tolist() == [True, True, True, False], "the third is as sharp, only darker"
    literal = select_clues(values, [range(4)], ClueSettings(normalise=False), bright)
    assert literal.sharp.tolist() == [True, True, False, False]
    # Nearly black frames consist of rounding (v_l = 20 / 12): it is not taken for detail.
    dark = select_clues(np.array([100.0, 100.0, 1.7]), [range(3)], SETTINGS, np.array([900.0, 900.0, 0.3]))
    assert dark.score[2] < 0.5 * dark.score[0]


def test_shots_must_cover_the_frames() -> None:
    with pytest.raises(ValueError, match="cover"):
        select_clues(np.ones(5), [range(2), range(3, 5)], SETTINGS)


@given(
    st.lists(st.floats(0, 1e4), min_size=1, max_size=70),
    st.lists(st.integers(1, 69), max_size=3),
    st.integers(2, 25),
)
def test_contract_of_selection(values: list[float], cuts: list[int], segment: int) -> None:
    edges = sorted({0, len(values), *(c for c in cuts if c < len(values))})
    shots = [range(a, b) for a, b in itertools.pairwise(edges)]
    clues = select_clues(np.asarray(values), shots, ClueSettings(segment=segment))
    for shot in shots:
        sharp = clues.sharp_in(shot)
        for start in range(shot.start, shot.stop, segment):
            assert any(start <= i < start + segment for i in sharp), "each segment holds a sharp frame"
        for i in shot:
            j = int(clues.nearest[i])
            assert j in sharp
            assert abs(j - i) == min(abs(s - i) for s in sharp)
            assert (j == i) == bool(clues.sharp[i])
