"""Compares input and output: one cheap pass over both, then a few frames of each."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from selfhvd_tta.errors import InputError
from selfhvd_tta.method.clues import laplacian_variance
from selfhvd_tta.times import TimeRange
from selfhvd_tta.video.color import Array
from selfhvd_tta.video.opening import Reader, open_reader

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Change:
    """How input and output differ, frame by frame.

    Attributes:
        seconds: (N,) presentation time of every frame, the first at 0.
        sharpness: (N,) variance of the Laplacian of the output.
        difference: (N,) mean absolute difference of luma, codes of 0..255.
    """

    seconds: FloatArray
    sharpness: FloatArray
    difference: FloatArray


class VideoPair:
    """The input and the output of a run, read again.

    Both are decoded once more, their luma only, a frame at a time; then the frames that are shown are fetched by
    seeking. Memory does not grow with the video.

    Args:
        source: the input.
        output: the result, with as many frames.
        part: of the input that the result shows.

    Raises:
        InputError: one of them cannot be read, or they do not belong together.
    """

    def __init__(self, source: Path, output: Path, part: TimeRange | None = None) -> None:
        self.before: Reader = open_reader(source, part, progressive=True)
        self.after: Reader = open_reader(output, progressive=True)
        self.info = self.before.info

    def measure(self) -> Change:
        """One pass over both."""
        times, sharpness, difference = [], [], []
        befores, afters = self.before.luma(), self.after.luma()
        for before in befores:
            after = next(afters, None)
            if after is None or after.y.shape != before.y.shape:
                raise InputError(f"{self.after.info.path}: does not belong to {self.info.path}", "Make it again.")
            times.append(before.pts)
            sharpness.append(laplacian_variance(after.y))
            difference.append(float(cv2.absdiff(before.y, after.y).mean()))
        next(afters, None)  # lets the other reader finish its index
        seconds = (np.asarray(times, dtype=np.float64) - times[0]) * float(self.info.time_base)
        return Change(seconds, np.asarray(sharpness), np.asarray(difference))

    def frames(self, indices: Sequence[int]) -> Iterator[tuple[int, Array, Array]]:
        """Some frames: index, input, output, as coded; ascending."""
        for before, after in zip(self.before.read(indices), self.after.read(indices), strict=True):
            yield before.index, before.rgb, after.rgb


def most_changed(difference: FloatArray, count: int) -> list[int]:
    """Up to ``count`` frames that changed most, not close to each other, in order of time."""
    distance = max(1, len(difference) // (3 * count))
    picked: list[int] = []
    for index in np.argsort(-difference, kind="stable").tolist():
        if all(abs(index - other) >= distance for other in picked):
            picked.append(index)
        if len(picked) == count:
            break
    return sorted(picked)


def evenly(total: int, count: int) -> list[int]:
    """Up to ``count`` frames spread over a video, first and last included."""
    return np.unique(np.linspace(0, total - 1, min(count, total)).round().astype(int)).tolist()


def jpeg(rgb: Array, quality: int = 88) -> str:
    """(H, W, 3) uint8 RGB as a ``data:`` address."""
    done, data = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()
