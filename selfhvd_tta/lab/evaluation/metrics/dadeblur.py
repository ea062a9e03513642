"""PSNR and SSIM as DADeblur publishes them.

They differ from the definitions that everybody else uses by up to a decibel: figures must only be compared within one
definition.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from selfhvd_tta.lab.evaluation.metrics.frames import FloatImage, Image, check_alike
from selfhvd_tta.lab.evaluation.metrics.ssim import SIGMA, similarity

# scipy's gaussian_filter, which DADeblur uses, cuts its kernel off at four sigma.
DADEBLUR_RADIUS = 6
PYIQA_EPSILON = 1e-8


def dadeblur_psnr(output: FloatImage, truth: Image) -> float:
    """The PSNR that DADeblur publishes: the mean over *image columns* of the PSNR of one column.

    Its code hands (1, 1, 3, H, W) tensors to a function written for (N, 3, H, W), which therefore averages the squared
    error over channels and rows only. Outputs are not rounded to 8 bits, and 1e-8 is added to the squared error.

    Args:
        output: (H, W, 3) in [0, 1].
        truth: (H, W, 3) uint8.
    """
    check_alike(output, truth)
    error = np.square(np.asarray(output, np.float64) - truth.astype(np.float64) / 255).mean((0, 2))
    return float(np.mean(10 * np.log10(1 / (error + PYIQA_EPSILON))))


def dadeblur_ssim(output: FloatImage, truth: Image) -> float:
    """The SSIM that DADeblur publishes: its Gaussian runs across the colour channels too, on values of [-0.5, 0.5].

    Borders are mirrored and count; the kernel has 13 taps; constants are those of a data range of 1.

    Args:
        output: (H, W, 3) in [0, 1].
        truth: (H, W, 3) uint8.
    """
    check_alike(output, truth)
    a = np.asarray(output, np.float64) - 0.5
    b = truth.astype(np.float64) / 255 - 0.5
    taps = np.exp(-0.5 * (np.arange(-DADEBLUR_RADIUS, DADEBLUR_RADIUS + 1) / SIGMA) ** 2)
    taps /= taps.sum()
    # Mirrored about its edge, three channels repeat as r g b b g r: a fixed mixture of the three.
    mirrored = [0, 1, 2, 2, 1, 0]
    mix = np.zeros((3, 3))
    for channel in range(3):
        for offset, tap in zip(range(-DADEBLUR_RADIUS, DADEBLUR_RADIUS + 1), taps, strict=True):
            mix[mirrored[(channel + offset) % 6], channel] += tap

    def mean(image: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(cv2.sepFilter2D(image, cv2.CV_64F, taps, taps, borderType=cv2.BORDER_REFLECT)) @ mix

    return similarity(a, b, mean, 1.0)
