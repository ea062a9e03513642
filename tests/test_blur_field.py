"""Blur along the motion of every pixel: closed forms, exposure share and explanation on a small synthetic scene."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from selfhvd_tta.method.blur_field import (
    blurred,
    compose,
    samples_for,
    to_codes,
    to_light,
    velocity,
    warp,
)
from selfhvd_tta.method.clues import Clues, select_clues
from selfhvd_tta.method.explaining import Explainer
from selfhvd_tta.method.exposure import INDISTINCT, USUAL, Exposure, trusted, vote
from selfhvd_tta.method.richardson_lucy import Recording, coarse_to_fine, explained
from selfhvd_tta.settings import ClueSettings

SIZE = (96, 128)


def texture(seed: int = 0, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Random texture of all scales in code values, (H, W, 3) float32."""
    rng = np.random.default_rng(seed)
    coarse = sum(
        sigma**1.2 * cv2.GaussianBlur(rng.normal(size=(*size, 3)).astype(np.float32), (0, 0), sigma)
        for sigma in (1.0, 2.0, 4.0, 8.0, 16.0)
    )
    low, high = np.percentile(coarse, [1, 99])
    return (np.clip((coarse - low) / (high - low), 0, 1) * 0.8 + 0.1).astype(np.float32)


def constant(dx: float, dy: float, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.broadcast_to(np.array([dx, dy], np.float32), (*size, 2)).copy()


@given(st.floats(-8, 8), st.floats(-8, 8), st.floats(-8, 8), st.floats(-8, 8))
@settings(max_examples=25, deadline=None)
def test_constant_flows_add_up(ax: float, ay: float, bx: float, by: float) -> None:
    both = compose(constant(ax, ay), constant(bx, by))
    assert np.allclose(both, constant(ax + bx, ay + by), atol=1e-4)


def test_velocity_is_half_the_difference_of_the_flows() -> None:
    found = velocity(constant(4, 2), constant(-6, -2))
    assert np.allclose(found, constant(5, 2), atol=1e-4)
    assert np.allclose(velocity(constant(4, 2), None), constant(4, 2), atol=1e-4)
    assert np.allclose(velocity(None, constant(4, 2)), constant(-4, -2), atol=1e-4)
    with pytest.raises(ValueError, match="alone"):
        velocity(None, None)


def test_blur_of_a_ramp_is_the_ramp_and_of_an_edge_a_ramp_of_its_length() -> None:
    ramp = np.broadcast_to(np.linspace(0, 1, SIZE[1], dtype=np.float32)[None, :, None], (*SIZE, 3)).copy()
    inner = slice(16, -16)
    assert np.allclose(blurred(ramp, constant(10, 0), 0.8)[:, inner], ramp[:, inner], atol=1e-4)
    edge = np.zeros((*SIZE, 3), np.float32)
    edge[:, 64:] = 1
    soft = blurred(edge, constant(10, 0), 0.8, samples=41)[48, :, 0]
    rising = np.flatnonzero((soft > 0.02) & (soft < 0.98))
    assert 7 <= rising.size <= 9  # 10 px per frame time, 80 % of it


def test_no_share_is_no_blur() -> None:
    light = to_light(texture())
    assert blurred(light, constant(10, 0), 0.0) is light


@given(st.floats(0, 60), st.floats(0.05, 1))
@settings(max_examples=25, deadline=None)
def test_samples_are_odd_and_bounded(length: float, share: float) -> None:
    count = samples_for(constant(length, 0), share)
    assert count % 2 == 1
    assert 3 <= count <= 25


def test_light_and_codes_are_inverse() -> None:
    codes = texture()
    assert np.allclose(to_codes(to_light(codes)), codes, atol=1e-4)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    inner = (slice(12, -12), slice(16, -16))
    return float(-10 * np.log10(np.square(a[inner] - b[inner]).mean()))


@pytest.mark.parametrize("length", [2.0, 5.0, 10.0, 30.0])
def test_the_blur_of_a_point_is_as_wide_as_its_path_asks_for(length: float) -> None:
    point = np.zeros((64, 128), np.float32)
    point[:, 64] = 1
    line = blurred(point, constant(length, 0, (64, 128)), 1.0)[32].astype(float)
    variance = (line * np.square(np.arange(128) - 64)).sum() / line.sum()
    # A uniform path has length^2 / 12; linear interpolation adds at most a quarter of a square pixel.
    assert line.sum() == pytest.approx(1, abs=1e-3)
    assert 0.85 * length**2 / 12 <= variance <= length**2 / 12 + 0.25


def test_blur_does_not_depend_on_the_number_of_threads() -> None:
    light, path = to_light(texture(1)), constant(9, 4) + texture(2)[..., :2] * 6
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(blurred(light, path, 0.8))
    finally:
        torch.set_num_threads(before)
    assert np.array_equal(*found)


def recording(light: np.ndarray, path: np.ndarray, weight: float = 1.0) -> Recording:
    return Recording(blurred(light, path, 0.8), path, 0.8, np.full(SIZE, weight, np.float32))


def test_what_explains_a_recording_is_sharper() -> None:
    sharp = texture()
    recorded = recording(to_light(sharp), constant(6, 3))
    result = to_codes(explained(recorded.light, [recorded], 8))
    assert psnr(result, sharp) > psnr(to_codes(recorded.light), sharp) + 2


def test_steps_at_half_the_size_go_most_of_the_way() -> None:
    sharp = texture()
    recordings = [recording(to_light(sharp), constant(*path)) for path in ((8, 3), (-3, 8))]
    start = recordings[0].light
    coarse = psnr(to_codes(coarse_to_fine(start, recordings, 2, 1)), sharp)
    assert coarse > psnr(to_codes(explained(start, recordings, 1)), sharp) + 0.5


def test_a_recording_counts_by_its_weight() -> None:
    sharp = to_light(texture())
    true, false = recording(sharp, constant(6, 3)), recording(to_light(texture(9)), constant(6, 3), 0.0)
    assert np.allclose(explained(true.light, [true, false], 3), explained(true.light, [true], 3), atol=1e-5)


@pytest.mark.parametrize("share", [0.4, 0.8])
def test_a_blurry_frame_shows_its_exposure_share(share: float) -> None:
    large = (192, 256)
    path = constant(14, 5, large)
    luma = to_codes(blurred(to_light(texture(3, large)), path, share, 41))[..., 1]
    found = vote((luma * 255 + 0.5).astype(np.uint8), path)
    assert found.share == pytest.approx(share, abs=0.15)


def test_without_motion_a_frame_shows_nothing() -> None:
    assert vote((texture()[..., 0] * 255).astype(np.uint8), constant(0.5, 0)).share is None
    assert Exposure.of([]) == Exposure(USUAL, 0.0, 0.0)


@given(st.floats(0, 1), st.floats(0, 40))
@settings(max_examples=50, deadline=None)
def test_a_share_is_trusted_less_the_shorter_its_blur(share: float, motion: float) -> None:
    found = trusted(share, motion)
    assert 0 <= found <= share
    if share * motion <= INDISTINCT:
        assert found == 0


def moving_scene(count: int = 7, sharp: tuple[int, ...] = (0, 6)) -> tuple[list[np.ndarray], list[np.ndarray], Clues]:
    """A texture that pans at 8 px a frame; all frames but the sharp ones are exposed for 0.8 of the frame time."""
    world = texture(5, (128, 256))
    truth, frames = [], []
    for i in range(count):
        shift = constant(8.0 * i + 20, 16)
        here = np.clip(warp(world, np.pad(shift, ((0, 32), (0, 128), (0, 0)), mode="edge"), cubic=True), 0, 1)
        truth.append(here[: SIZE[0], : SIZE[1]])
        path = constant(8, 0, (128, 256))
        seen = here if i in sharp else to_codes(blurred(to_light(here), path, 0.8, 25))
        frames.append((seen[: SIZE[0], : SIZE[1]] * 255 + 0.5).astype(np.uint8))
    values = np.array([100.0 if i in sharp else 10.0 for i in range(count)])
    return truth, frames, select_clues(values, [range(count)], ClueSettings(normalise=False))


def test_a_blurry_frame_is_restored_and_a_sharp_one_left_alone() -> None:
    truth, frames, clues = moving_scene()
    explainer = Explainer(lambda i: frames[i], clues, Exposure(share=0.8, length=6.4, known=1.0))
    gains = []
    for i in range(len(frames)):
        found = explainer.explain(i)
        assert found.shape == frames[i].shape
        recorded = frames[i].astype(np.float32) / 255
        if i in (0, 6):
            assert np.allclose(found, recorded, atol=1e-6)
        else:
            gains.append(psnr(found, truth[i]) - psnr(recorded, truth[i]))
    assert min(gains) > 1.5


def test_the_order_of_frames_before_does_not_matter() -> None:
    _, frames, clues = moving_scene()

    def explain(first: int) -> np.ndarray:
        explainer = Explainer(lambda i: frames[i], clues, Exposure(0.8, 6.4, 1.0))
        for i in range(first, 3):
            explainer.explain(i)
        return explainer.explain(3)

    assert np.array_equal(explain(0), explain(3))


def test_only_frames_within_the_window_are_asked_for() -> None:
    from selfhvd_tta.method.explaining import WINDOW

    _, frames, clues = moving_scene()
    asked: set[int] = set()

    def frame(i: int) -> np.ndarray:
        asked.add(i)
        return frames[i]

    Explainer(frame, clues, Exposure(0.8, 6.4, 1.0)).explain(3)
    assert asked
    assert all(abs(i - 3) <= WINDOW for i in asked)


def test_ten_bits_stay_finer_than_eight() -> None:
    _, frames, clues = moving_scene()
    deep = [f.astype(np.uint16) * 257 for f in frames]
    of_eight, of_sixteen = (
        Explainer(lambda i, source=source: source[i], clues, Exposure(0.8, 6.4, 1.0)).explain(3)
        for source in (frames, deep)
    )
    assert np.allclose(of_eight, of_sixteen, atol=1e-4)
