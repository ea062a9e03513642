"""The blur of every pixel: the local motion around a frame times the share of the frame time with an open shutter.

A frame of a handheld video is the mean, in linear light, of what the sensor saw while the shutter was open. Over one
frame time the picture moves nearly at constant speed, so pixel ``p`` is the mean of the sharp scene along
``p + t v(p)`` for ``-d/2 <= t <= d/2``: ``v`` is half the difference of the optical flows to the next and to the
previous frame, and ``d``, the exposure share, one number per frame.

Pictures here are NumPy arrays, (H, W, 3) float32 in linear light with 1 = white, or (H, W) uint8 luma; flows are
(H, W, 2) float32, pixels, x to the right and y down. Working on arrays and OpenCV rather than tensors keeps this
path fast on a CPU, where it replaces networks.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

# float32, uint8 and float32; the stubs of OpenCV know no more of what it returns than that it is an array.
Picture = npt.NDArray[Any]
Gray = npt.NDArray[Any]
FlowArray = npt.NDArray[Any]

GAMMA = 2.2
# The velocity is smoothed over this part of the picture's width: blur is measured at the scale of objects, not noise.
SMOOTHING = 1 / 160
# Samples of the path, at most one per this many pixels of it.
PIXELS_PER_SAMPLE = 1.5
FEWEST_SAMPLES = 5
MOST_SAMPLES = 25
_NO_SECOND_MAP: Any = None  # OpenCV takes both coordinates in the first map; its stubs do not know that


def to_light(codes: npt.NDArray[Any]) -> Picture:
    """Code values in [0, 1] to linear light, clipped below at 0."""
    return cv2.pow(np.maximum(codes, np.float32(0)), GAMMA)


def to_codes(light: Picture) -> Picture:
    """Linear light to code values in [0, 1]."""
    return cv2.pow(np.clip(light, 0, 1), 1 / GAMMA)


@lru_cache(maxsize=4)
def places(height: int, width: int) -> FlowArray:
    """(H, W, 2): x and y of every pixel."""
    xs, ys = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    grid = np.stack((xs, ys), axis=-1)
    grid.setflags(write=False)
    return grid


def warp(image: npt.NDArray[Any], flow: FlowArray, cubic: bool = False) -> npt.NDArray[Any]:
    """``image`` at ``p + flow(p)``, bilinear or bicubic, borders repeated."""
    how = cv2.INTER_CUBIC if cubic else cv2.INTER_LINEAR
    where = flow + places(*flow.shape[:2])
    return cv2.remap(image, where, _NO_SECOND_MAP, how, borderMode=cv2.BORDER_REPLICATE)


def compose(first: FlowArray, then: FlowArray) -> FlowArray:
    """The flow along ``first`` and from there along ``then``."""
    return first + warp(then, first)


def velocity(to_next: FlowArray | None, to_previous: FlowArray | None) -> FlowArray:
    """Displacement of every pixel during one frame time, (H, W, 2) pixels, at the middle of the exposure.

    Args:
        to_next: flow to the next frame, None at the end of a shot.
        to_previous: flow to the previous frame, None at the beginning of a shot.

    Raises:
        ValueError: neither is known.
    """
    if to_next is None and to_previous is None:
        raise ValueError("a frame alone does not show its motion")
    if to_next is None:
        mean = -to_previous  # type: ignore[operator]
    elif to_previous is None:
        mean = to_next
    else:
        mean = 0.5 * (to_next - to_previous)
    return cv2.GaussianBlur(mean, (0, 0), max(1.0, mean.shape[1] * SMOOTHING))


def samples_for(velocity: FlowArray, share: float) -> int:
    """Points on the path that a blur of this length needs, an odd number."""
    longest = share * float(np.percentile(np.abs(velocity[::4, ::4]).max(axis=-1), 95))
    count = int(np.clip(longest / PIXELS_PER_SAMPLE, FEWEST_SAMPLES, MOST_SAMPLES))
    return count + 1 - count % 2


def blurred(light: Picture, velocity: FlowArray, share: float, samples: int | None = None) -> Picture:
    """What a shutter that is open for ``share`` of the frame time makes of a scene that moves with ``velocity``.

    Args:
        light: (H, W) or (H, W, C) in linear light.
        velocity: (H, W, 2) pixels per frame time.
        share: d, 0..1; 0 returns the scene.
        samples: points on the path; None: as many as its length asks for.
    """
    if share <= 0:
        return light
    count = samples or samples_for(velocity, share)
    grid = places(*velocity.shape[:2])
    total = np.zeros_like(light)
    for t in np.linspace(-share / 2, share / 2, count):
        where = cv2.scaleAdd(velocity, float(t), grid) if t else grid
        moved = cv2.remap(light, where, _NO_SECOND_MAP, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        cv2.add(total, moved, dst=total)
    return total / np.float32(count)


def back_projected(
    estimate: Picture, recorded: Picture, velocity: FlowArray, share: float, steps: int, floor: float = 1e-3
) -> Picture:
    """Richardson-Lucy steps along the blur: what, blurred, comes closer to the recorded frame.

    Args:
        estimate: where to start, linear light.
        recorded: the blurry frame, linear light.
        velocity: of the frame, pixels per frame time.
        share: exposure share of the frame.
        steps: how many.
        floor: linear light added on both sides of the ratio, so that noise in the dark is not amplified.
    """
    result = np.clip(estimate, 0, None) + np.float32(1e-4)
    count = samples_for(velocity, share)
    for _ in range(steps):
        ratio = (recorded + floor) / (blurred(result, velocity, share, count) + floor)
        # The path is symmetric about the middle of the exposure, so its transpose is nearly the path itself.
        result = np.clip(result * blurred(ratio, velocity, share, count), 0, 1)
    return result
