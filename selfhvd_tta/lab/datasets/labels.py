"""Which frames of a video with ground truth are sharp, as its data set says."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from selfhvd_tta.errors import InputError

LABELS = "labels.json"


@dataclass(frozen=True)
class BlurStatistics:
    """How blurred the clips of a simulated data set are.

    Attributes:
        frames: of all clips.
        sharp: share of those whose blur reaches less than a pixel.
        median: blur of the others in pixels.
        high: 95th percentile of that.
    """

    frames: int
    sharp: float
    median: float
    high: float

    def __str__(self) -> str:
        blur = f"blur of the others: median {self.median:.1f} px, 95th percentile {self.high:.1f} px"
        return f"{self.frames} frames, {self.sharp:.0%} sharp; {blur}"


def blur_statistics(folders: Sequence[Path]) -> BlurStatistics:
    """Statistics of clips that the simulator wrote, from their labels.

    Raises:
        InputError: labels cannot be read.
    """
    sharp: list[bool] = []
    extent: list[float] = []
    for folder in folders:
        sharp += read_labels(folder)
        extent += json.loads((folder / LABELS).read_text(encoding="utf-8"))["extent"]
    blurry = np.asarray(extent)[~np.asarray(sharp, bool)]
    median, high = np.percentile(blurry, (50, 95)) if len(blurry) else (0.0, 0.0)
    return BlurStatistics(len(sharp), float(np.mean(sharp)), float(median), float(high))


def read_labels(folder: Path) -> tuple[bool, ...]:
    """One entry per frame, True where the frame is sharp.

    ``labels.json`` has the labels as ``sharp``, or the recorded frames per exposure as ``exposure_subframes``, of which
    one is sharp.

    Raises:
        InputError: there are no labels, or they cannot be read.
    """
    path = folder / LABELS
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        if "sharp" in about:
            return tuple(bool(label) for label in about["sharp"])
        return tuple(int(count) == 1 for count in about["exposure_subframes"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: cannot be read ({error})", "Write the data set again.") from error
