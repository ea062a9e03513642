"""Richardson-Lucy steps: a picture that, blurred the way each of several recordings was, gives what they show.

Richardson, "Bayesian-based iterative method of image restoration", 1972, for blur that differs from pixel to pixel
(:mod:`selfhvd_tta.method.blur_field`) and for several recordings at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from selfhvd_tta.method.blur_field import FlowArray, Picture, blur_strips, halved, samples_for

# Linear light that is added on both sides of the ratio, so that noise in the dark is not amplified.
FLOOR = 1e-3
# No pixel starts at zero, where factors cannot move it.
LEAST_LIGHT = 1e-4


@dataclass(frozen=True)
class Recording:
    """A picture of the scene, and how it was blurred.

    Attributes:
        light: (H, W, 3), linear light.
        velocity: (H, W, 2), pixels per frame time.
        share: exposure share.
        weight: (H, W), how much it counts at each place, from 0.
    """

    light: Picture
    velocity: FlowArray
    share: float
    weight: Picture

    def halved(self) -> Recording:
        """At half the size."""
        return Recording(halved(self.light), halved(self.velocity) * np.float32(0.5), self.share, halved(self.weight))


def coarse_to_fine(picture: Picture, recordings: Sequence[Recording], coarse: int, fine: int) -> Picture:
    """Steps at half the size, then steps at the full size.

    Steps at half the size take an eighth of the time, paths being half as long, and undo what blurs most as well.

    Args:
        picture: (H, W, 3) to start from, linear light.
        recordings: of the scene.
        coarse, fine: how many steps of each kind.

    Returns:
        (H, W, 3) in [0, 1].
    """
    start = halved(np.clip(picture, 0, 1))
    better = explained(start, [one.halved() for one in recordings], coarse)
    change = (better + np.float32(FLOOR)) / (start + np.float32(FLOOR))
    height, width = picture.shape[:2]
    return explained(picture * cv2.resize(change, (width, height), interpolation=cv2.INTER_LINEAR), recordings, fine)


def explained(picture: Picture, recordings: Sequence[Recording], steps: int) -> Picture:
    """Steps towards what explains all recordings, each by its weight.

    Args:
        picture: (H, W, 3) to start from, linear light.
        recordings: of the scene; at every pixel one of them counts.
        steps: how many.

    Returns:
        (H, W, 3) in [0, 1].
    """
    now: Picture = cv2.cvtColor(np.clip(picture, 0, 1), cv2.COLOR_RGB2RGBA)
    now += np.float32(LEAST_LIGHT)
    total = np.sum([one.weight for one in recordings], axis=0)
    parts = [one.weight / total for one in recordings]
    counts = [samples_for(one.velocity, one.share) for one in recordings]
    ratio, change = np.empty_like(now), np.empty_like(now)
    for _ in range(steps):
        change[:] = 0
        for recording, samples, part in zip(recordings, counts, parts, strict=True):
            _add_ratio(now, (recording, samples, part), ratio, change)
        now *= change
        np.clip(now, 0, 1, out=now)
    return cv2.cvtColor(now, cv2.COLOR_RGBA2RGB)


def _add_ratio(now: Picture, of: tuple[Recording, int, Picture], ratio: Picture, change: Picture) -> None:
    """Add to ``change`` the factor by which a recording asks for more light.

    Args:
        now: (H, W, 4), the picture.
        of: the recording, points on its path, and its part (H, W) of the change.
        ratio: (H, W, 4), is written over.
        change: (H, W, 4).
    """
    recording, samples, part = of
    along, share = recording.velocity, recording.share

    def divide(rows: slice, predicted: Picture) -> None:
        predicted += np.float32(FLOOR)
        seen: Picture = cv2.cvtColor(recording.light[rows], cv2.COLOR_RGB2RGBA)
        seen += np.float32(FLOOR)
        np.divide(seen, predicted, out=ratio[rows])

    def add(rows: slice, spread: Picture) -> None:
        spread *= cv2.merge([part[rows]] * 4)
        change[rows] += spread

    blur_strips(now, along, share, samples, divide)
    # The path is symmetric about the middle of the exposure, so its transpose is nearly the path itself.
    blur_strips(ratio, along, share, samples, add)
