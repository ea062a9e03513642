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

from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVar

import cv2
import numpy as np
import numpy.typing as npt
import torch

from selfhvd_tta.method.parallel import each

# float32, uint8 and float32; the stubs of OpenCV know no more of what it returns than that it is an array.
Picture = npt.NDArray[Any]
Gray = npt.NDArray[Any]
FlowArray = npt.NDArray[Any]
Array = TypeVar("Array", bound=np.ndarray)

GAMMA = 2.2
# The velocity is smoothed over this part of the picture's width: blur is measured at the scale of objects, not noise.
SMOOTHING = 1 / 160
# Samples of the path, at most one per this many pixels of it.
PIXELS_PER_SAMPLE = 2.0
FEWEST_SAMPLES = 3
MOST_SAMPLES = 25
# Rows that are blurred at a time: what belongs to them fits into a core's cache up to a width of 4K.
ROWS = 16
_NO_SECOND_MAP: Any = None  # OpenCV takes both coordinates in the first map; its stubs do not know that


def to_light(codes: npt.NDArray[Any]) -> Picture:
    """Code values in [0, 1], or uint8, to linear light, clipped below at 0."""
    if codes.dtype == np.uint8:
        light: Picture = cv2.LUT(codes, _light_of_codes())
        return light
    return cv2.pow(np.maximum(codes, np.float32(0)), GAMMA)


@lru_cache(maxsize=1)
def _light_of_codes() -> Picture:
    return to_light(np.arange(256, dtype=np.float32) / 255)


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


def halved(picture: Array) -> Array:
    """(H, W) or (H, W, C) at half the size, every pixel the mean of those that it covers."""
    height, width = picture.shape[:2]
    small: Any = cv2.resize(picture, ((width + 1) // 2, (height + 1) // 2), interpolation=cv2.INTER_AREA)
    return small


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
        light: (H, W), (H, W, 3) or (H, W, 4) in linear light.
        velocity: (H, W, 2) pixels per frame time.
        share: d, 0..1; 0 returns the scene.
        samples: points on the path, an odd number; None: as many as its length asks for.
    """
    if share <= 0:
        return light
    result = np.empty_like(light)
    three = light.ndim == 3 and light.shape[2] == 3

    def keep(rows: slice, strip: Picture) -> None:
        if three:
            cv2.cvtColor(strip, cv2.COLOR_RGBA2RGB, dst=result[rows])
        else:
            result[rows] = strip

    # OpenCV moves four channels in half the time that it takes for three.
    wide = cv2.cvtColor(light, cv2.COLOR_RGB2RGBA) if three else light
    blur_strips(wide, velocity, share, samples or samples_for(velocity, share), keep)
    return result


def blur_strips(
    light: Picture, velocity: FlowArray, share: float, samples: int, take: Callable[[slice, Picture], None]
) -> None:
    """:func:`blurred` by strips of rows that stay in the cache, on all cores.

    Args:
        light, velocity, share, samples: as there.
        take: gets the rows of each strip and the strip, which is overwritten after that; called from several threads.
    """
    height = velocity.shape[0]
    grid = places(*velocity.shape[:2])
    # In the middle of ``samples`` equal parts of the path: points from end to end would make it up to a fifth longer.
    times = [((k + 0.5) / samples - 0.5) * share for k in range(samples) if 2 * k + 1 != samples]

    def work(tops: range) -> None:
        first = slice(tops[0], tops[0] + ROWS)
        where = np.empty_like(velocity[first])
        moved, total = np.empty_like(light[first]), np.empty_like(light[first])
        for top in tops:
            rows = slice(top, min(top + ROWS, height))
            count = rows.stop - rows.start
            strip = total[:count]
            np.copyto(strip, light[rows])
            for t in times:
                cv2.scaleAdd(velocity[rows], t, grid[rows], dst=where[:count])
                cv2.remap(
                    light,
                    where[:count],
                    _NO_SECOND_MAP,
                    cv2.INTER_LINEAR,
                    dst=moved[:count],
                    borderMode=cv2.BORDER_REPLICATE,
                )
                cv2.add(strip, moved[:count], dst=strip)
            strip *= np.float32(1 / samples)
            take(rows, strip)

    tops = range(0, height, ROWS)
    parts = min(len(tops), torch.get_num_threads())
    each(work, [tops[len(tops) * k // parts : len(tops) * (k + 1) // parts] for k in range(parts)], torch.device("cpu"))
