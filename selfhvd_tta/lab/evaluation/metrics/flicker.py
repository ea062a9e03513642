"""Flicker: changes of brightness and colour that the reference does not show."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from selfhvd_tta.lab.evaluation.metrics.frames import Image

GRID = (20, 12)


def _brightness(frame: Image) -> NDArray[np.float64]:
    """Mean of every block of a 20 x 12 grid, per channel; sharpness does not change it."""
    return np.asarray(cv2.resize(frame.astype(np.float32), GRID, interpolation=cv2.INTER_AREA), np.float64)


def flicker(outputs: tuple[Image, Image], references: tuple[Image, Image]) -> float:
    """Change of brightness and colour from one frame to the next that the reference does not show.

    Args:
        outputs: two consecutive output frames, (H, W, 3) uint8.
        references: the same frames of the ground truth, or of the input.

    Returns:
        Mean over a grid of 20 x 12 blocks, in code values.
    """
    change = _brightness(outputs[1]) - _brightness(outputs[0])
    expected = _brightness(references[1]) - _brightness(references[0])
    return float(np.abs(change - expected).mean())
