"""Unsharp masking, the baseline that everybody has: it knows nothing about the video or its blur."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from selfhvd_tta.errors import UsageError


@dataclass(frozen=True)
class Unsharp:
    """How strongly.

    The defaults are a common mild setting. By PSNR hardly anything is gained by any (docs/lab/quality.md).

    Attributes:
        radius: standard deviation of the Gaussian in pixels.
        amount: factor on the difference between the frame and its low pass, which is added.
    """

    radius: float = 1.0
    amount: float = 0.5

    def __post_init__(self) -> None:
        if self.radius <= 0 or self.amount < 0:
            raise UsageError(
                f"--unsharp is {self.radius:g} {self.amount:g}, but it must be a radius above 0 and an amount"
            )

    def apply(self, frame: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(H, W, 3) uint8 to (H, W, 3) float32 in [0, 1], on the code values, as editing programs do."""
        values = frame.astype(np.float32) / 255
        low = cv2.GaussianBlur(values, (0, 0), self.radius, borderType=cv2.BORDER_REPLICATE)
        return np.clip(values + self.amount * (values - low), 0, 1)
