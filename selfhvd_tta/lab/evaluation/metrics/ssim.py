"""Structural similarity (Wang et al. 2004)."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from selfhvd_tta.lab.evaluation.metrics.frames import Image, check_alike

SIGMA = 1.5
WINDOW = 11
K1, K2 = 0.01, 0.03
Plane = NDArray[np.float64]


def ssim(output: Image, truth: Image) -> float:
    """Structural similarity, mean over channels (Wang et al. 2004).

    Gaussian window of 11 x 11, sigma 1.5, population covariance, only windows that lie within the frame: the definition
    of the authors, of BasicSR, and of scikit-image's ``structuralsimilarity(channel_axis=2, gaussian_weights=True,
    sigma=1.5, use_sample_covariance=False, data_range=255)``, which crops its mean to those windows too.

    Args:
        output: (H, W, 3) uint8 RGB, at least 11 x 11.
        truth: of the same shape.
    """
    check_alike(output, truth)
    if min(output.shape[:2]) < WINDOW:
        raise ValueError(f"SSIM needs frames of at least {WINDOW} x {WINDOW} pixels, got {output.shape[:2]}")
    a, b = output.astype(np.float64), truth.astype(np.float64)

    def mean(image: NDArray[np.float64]) -> NDArray[np.float64]:
        blurred = cv2.GaussianBlur(image, (WINDOW, WINDOW), SIGMA)
        edge = WINDOW // 2
        return np.asarray(blurred[edge:-edge, edge:-edge])

    return similarity(a, b, mean, 255.0)


def similarity(a: Plane, b: Plane, mean: Callable[[Plane], Plane], data_range: float) -> float:
    """SSIM of two pictures, with the local mean that ``mean`` takes."""
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    mean_a, mean_b = mean(a), mean(b)
    variance_a = mean(a * a) - mean_a**2
    variance_b = mean(b * b) - mean_b**2
    covariance = mean(a * b) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    structure = (2 * covariance + c2) / (variance_a + variance_b + c2)
    return float(np.mean(luminance * structure))
