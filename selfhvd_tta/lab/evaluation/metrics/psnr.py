"""Peak signal-to-noise ratio."""

from __future__ import annotations

import numpy as np

from selfhvd_tta.imaging import decibels
from selfhvd_tta.lab.evaluation.metrics.frames import Image, check_alike


def psnr(output: Image, truth: Image) -> float:
    """Peak signal-to-noise ratio over all pixels and channels, in dB; infinite for equal frames.

    Args:
        output: (H, W, 3) uint8 RGB.
        truth: of the same shape.
    """
    check_alike(output, truth)
    return decibels(float(np.mean(np.square(output.astype(np.float64) - truth))))
