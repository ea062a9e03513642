"""Hard cuts are found where they are; shake, blur, pans and flashes are none."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfhvd_tta.video.shots import ShotDetector

HEIGHT, WIDTH = 180, 320


def find_cuts(frames: Iterable[np.ndarray]) -> list[range]:
    """Shots of a whole sequence of luma frames."""
    detector = ShotDetector()
    for frame in frames:
        detector.add(frame)
    return detector.shots()


def scene(seed: int, height: int = 3 * HEIGHT, width: int = 3 * WIDTH) -> np.ndarray:
    """A picture with structure at all scales (1/f noise) and some hard edges, larger than a frame."""
    rng = np.random.default_rng(seed)
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None]
    spectrum = np.fft.fft2(rng.standard_normal((height, width))) / np.maximum(np.hypot(fy, fx), 1 / width)
    picture = np.real(np.fft.ifft2(spectrum))
    picture = rng.uniform(60, 190) + rng.uniform(15, 50) * picture / picture.std()
    for _ in range(25):
        x, y = int(rng.integers(width)), int(rng.integers(height))
        picture[y : y + int(rng.integers(10, 120)), x : x + int(rng.integers(10, 120))] += rng.normal(0, 40)
    return np.clip(picture, 0, 255).astype(np.uint8)


def view(picture: np.ndarray, x: float, y: float, blur: float = 0) -> np.ndarray:
    """The frame whose corner is at (x, y), smeared horizontally over ``blur`` pixels."""
    frame = picture[round(y) : round(y) + HEIGHT, round(x) : round(x) + WIDTH]
    return cv2.blur(frame, (max(1, round(blur)), 1)) if blur else frame


def handheld(seed: int, frames: int, shake: float = 8) -> list[np.ndarray]:
    """A shaky take: position jitters by ``shake`` pixels, a third of the frames smeared by 24."""
    rng = np.random.default_rng(seed)
    picture = scene(seed)
    at = rng.normal((WIDTH, HEIGHT), shake, (frames, 2))
    return [view(picture, x, y, 24 if rng.random() < 0.33 else 0) for x, y in at]


def test_cuts_are_found_exactly() -> None:
    """Of 40 takes spliced from 1 to 4 handheld shots, every one but scenes that look alike by chance."""
    wrong: list[list[range]] = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        lengths = rng.integers(1, 16, rng.integers(1, 5))
        frames = [frame for k, n in enumerate(lengths) for frame in handheld(seed * 10 + k, int(n))]
        edges = [0, *np.cumsum(lengths).tolist()]
        found = find_cuts(frames)
        assert {shot.start for shot in found} <= set(edges), "a cut where there is none"
        if found != [range(a, b) for a, b in pairwise(edges)]:
            wrong.append(found)
    assert len(wrong) <= 2


@pytest.mark.parametrize("step", [8, 24, 48])
def test_pans_are_no_cuts(step: int) -> None:
    """Up to 15 % of the picture's width from frame to frame, with the smear that goes with it."""
    picture = scene(3, width=WIDTH + 48 * 14)
    assert len(find_cuts([view(picture, i * step, HEIGHT, step) for i in range(14)])) == 1


def test_a_burst_of_violent_shake_is_no_cut() -> None:
    picture = scene(5)
    at = [0] * 8 + [40, -35, 45, -40] + [0] * 8
    frames = [view(picture, WIDTH + dx, HEIGHT + dx / 2, abs(dx)) for dx in at]
    assert len(find_cuts(frames)) == 1


@pytest.mark.parametrize("flash", [np.full((HEIGHT, WIDTH), 255, np.uint8), scene(9)[:HEIGHT, :WIDTH]])
def test_a_flash_is_no_cut(flash: np.ndarray) -> None:
    frames = handheld(6, 20)
    frames[11] = flash
    assert len(find_cuts(frames)) == 1


def test_exposure_jump_is_no_cut() -> None:
    frames = handheld(7, 20)
    frames[10:] = [np.clip(f * 0.5 + 20, 0, 255).astype(np.uint8) for f in frames[10:]]
    assert len(find_cuts(frames)) == 1


def test_cut_from_black() -> None:
    frames = [np.full((HEIGHT, WIDTH), 16, np.uint8)] * 6 + handheld(8, 6)
    assert find_cuts(frames) == [range(6), range(6, 12)]


@settings(max_examples=30, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    count=st.integers(0, 9),
    seed=st.integers(0, 99),
)
def test_any_noise_is_covered_once(shape: tuple[int, int], count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    detector = ShotDetector()
    for _ in range(count):
        detector.add(rng.integers(0, 256, shape, dtype=np.uint8))
    assert [i for shot in detector.shots() for i in shot] == list(range(count))


def test_asking_early_does_not_disturb() -> None:
    frames = handheld(1, 5) + handheld(2, 5)
    detector = ShotDetector()
    for frame in frames:
        detector.add(frame)
        detector.shots()
    assert detector.shots() == find_cuts(frames) == [range(5), range(5, 10)]
