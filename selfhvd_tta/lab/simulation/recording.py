"""Blurry and sharp pairs with real camera and object motion, from a recording at a high frame rate.

Every few recorded frames become one frame: its blur is the mean of the frames around it in linear light, its truth the
middle one, so that both show the same moment.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from selfhvd_tta.errors import InputError

Image = NDArray[np.uint8]
GAMMA = 2.2
SHARP_EVERY, EXPOSURES = 6, (3, 5, 7, 7, 7)


@dataclass(frozen=True)
class Averaging:
    """How recorded frames are joined.

    Attributes:
        exposures: recorded frames per exposure, repeated over the clip; empty: one frame in six is a single recorded
            frame, the others are drawn from 3 to 7.
        step: recorded frames from one frame to the next.
        width: of the frames in pixels; the height follows.
        seed: of the draw.
    """

    exposures: tuple[int, ...] = ()
    step: int = 8
    width: int = 640
    seed: int = 0

    def __post_init__(self) -> None:
        longest = max(self.exposures or EXPOSURES)
        if longest > self.step or min(self.exposures, default=1) < 1:
            raise ValueError(f"exposures {self.exposures or EXPOSURES} do not fit into {self.step} recorded frames")


@dataclass(frozen=True)
class AveragedClip:
    """Frames of a recording, joined.

    Attributes:
        blurry: (T, H, W, 3) uint8 RGB.
        sharp: (T, H, W, 3) uint8 RGB, the recorded frame in the middle of each exposure.
        exposures: recorded frames per exposure; 1 is as sharp as the recording.
    """

    blurry: Image
    sharp: Image
    exposures: tuple[int, ...]


def average_recording(recording: Path, settings: Averaging) -> AveragedClip:
    """Make a shaky clip of a recording.

    Raises:
        InputError: the recording cannot be read, or is shorter than one frame of the clip.
    """
    light, small = _read(recording, settings.width)
    count = (len(small) - settings.step) // settings.step
    if count < 1:
        raise InputError(f"{recording}: has only {len(small)} frames", f"At least {2 * settings.step} are needed.")
    exposures = _exposures(settings, count)
    blurry, sharp = [], []
    for frame, length in enumerate(exposures):
        middle = settings.step * frame + settings.step // 2
        start = middle - length // 2
        code = np.mean(light[start : start + length], 0) ** (1 / GAMMA) * 255
        blurry.append(np.clip(code + 0.5, 0, 255).astype(np.uint8))
        sharp.append(small[middle])
    return AveragedClip(np.stack(blurry), np.stack(sharp), exposures)


def _read(recording: Path, width: int) -> tuple[list[NDArray[np.float32]], list[Image]]:
    """All frames at their final size: linear light, and 8-bit code."""
    light, small = [], []
    try:
        with av.open(str(recording)) as container:
            for decoded in container.decode(video=0):
                frame = decoded.to_ndarray(format="rgb24")
                size = (width, round(frame.shape[0] * width / frame.shape[1] / 2) * 2)
                frame = np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), np.uint8)
                small.append(frame)
                light.append(np.asarray((frame.astype(np.float32) / 255) ** GAMMA, np.float32))
    except (av.error.FFmpegError, OSError, IndexError) as error:
        raise InputError(f"{recording}: cannot be read ({error})", "Give a video of many frames per second.") from error
    return light, small


def _exposures(settings: Averaging, count: int) -> tuple[int, ...]:
    if settings.exposures:
        return tuple(settings.exposures[k % len(settings.exposures)] for k in range(count))
    generator = np.random.default_rng(settings.seed)
    return tuple(1 if k % SHARP_EVERY == 0 else int(generator.choice(EXPOSURES)) for k in range(count))
