"""Fidelity against the ground truth: PSNR and SSIM as the field defines them, and DADeblur's own variants.

Published figures of DADeblur come out of code that differs from the definitions that everybody else uses, by up to a
decibel, so that figures must only be compared within one definition. Here both exist under different names.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
FloatImage = NDArray[np.float32] | NDArray[np.float64]

SIGMA = 1.5
WINDOW = 11
K1, K2 = 0.01, 0.03
# scipy's gaussian_filter, which DADeblur uses, cuts its kernel off at four sigma.
DADEBLUR_RADIUS = 6
PYIQA_EPSILON = 1e-8


def quantise(frame: FloatImage) -> Image:
    """(H, W, 3) in [0, 1] to the nearest 8-bit code, as the official test codes do before they measure."""
    return np.clip(np.rint(np.asarray(frame, np.float64) * 255), 0, 255).astype(np.uint8)


def _check(output: NDArray[np.generic], truth: NDArray[np.generic]) -> None:
    if output.shape != truth.shape or output.ndim != 3 or output.shape[2] != 3:
        raise ValueError(f"expected two RGB frames (H, W, 3) of one size, got {output.shape} and {truth.shape}")


def psnr(output: Image, truth: Image) -> float:
    """Peak signal-to-noise ratio over all pixels and channels, in dB; infinite for equal frames.

    Args:
        output: (H, W, 3) uint8 RGB.
        truth: likewise.
    """
    _check(output, truth)
    error = float(np.mean(np.square(output.astype(np.float64) - truth)))
    return math.inf if error == 0 else 10 * math.log10(255.0**2 / error)


def ssim(output: Image, truth: Image) -> float:
    """Structural similarity, mean over channels (Wang et al. 2004).

    Gaussian window of 11 x 11, sigma 1.5, population covariance, only windows that lie within the frame: the definition
    of the authors, of BasicSR, and of scikit-image's ``structural_similarity(channel_axis=2, gaussian_weights=True,
    sigma=1.5, use_sample_covariance=False, data_range=255)``, which crops its mean to those windows too.

    Args:
        output: (H, W, 3) uint8 RGB, at least 11 x 11.
        truth: likewise.
    """
    _check(output, truth)
    if min(output.shape[:2]) < WINDOW:
        raise ValueError(f"SSIM needs frames of at least {WINDOW} x {WINDOW} pixels, got {output.shape[:2]}")
    a, b = output.astype(np.float64), truth.astype(np.float64)

    def mean(image: NDArray[np.float64]) -> NDArray[np.float64]:
        blurred = cv2.GaussianBlur(image, (WINDOW, WINDOW), SIGMA)
        edge = WINDOW // 2
        return np.asarray(blurred[edge:-edge, edge:-edge])

    return _similarity(a, b, mean, 255.0)


def _similarity(a: NDArray[np.float64], b: NDArray[np.float64], mean, data_range: float) -> float:  # type: ignore[no-untyped-def]
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    mean_a, mean_b = mean(a), mean(b)
    variance_a = mean(a * a) - mean_a**2
    variance_b = mean(b * b) - mean_b**2
    covariance = mean(a * b) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    structure = (2 * covariance + c2) / (variance_a + variance_b + c2)
    return float(np.mean(luminance * structure))


def dadeblur_psnr(output: FloatImage, truth: Image) -> float:
    """The PSNR that DADeblur publishes: the mean over *image columns* of the PSNR of one column.

    Its code hands (1, 1, 3, H, W) tensors to a function written for (N, 3, H, W), which therefore averages the squared
    error over channels and rows only. Outputs are not rounded to 8 bits, and 1e-8 is added to the squared error.

    Args:
        output: (H, W, 3) in [0, 1].
        truth: (H, W, 3) uint8.
    """
    _check(output, truth)
    error = np.square(np.asarray(output, np.float64) - truth.astype(np.float64) / 255).mean((0, 2))
    return float(np.mean(10 * np.log10(1 / (error + PYIQA_EPSILON))))


def dadeblur_ssim(output: FloatImage, truth: Image) -> float:
    """The SSIM that DADeblur publishes: its Gaussian runs across the colour channels too, on values of [-0.5, 0.5].

    Borders are mirrored and count; the kernel has 13 taps; constants are those of a data range of 1.

    Args:
        output: (H, W, 3) in [0, 1].
        truth: (H, W, 3) uint8.
    """
    _check(output, truth)
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

    return _similarity(a, b, mean, 1.0)


@dataclass(frozen=True)
class Fidelity:
    """How near one output frame is to its ground truth.

    Attributes:
        psnr: dB, standard definition, 8 bit.
        ssim: standard definition.
        dadeblur_psnr: dB, DADeblur's definition; compare only with DADeblur's and SelfHVD's tables that use it.
        dadeblur_ssim: DADeblur's definition.
    """

    psnr: float
    ssim: float
    dadeblur_psnr: float
    dadeblur_ssim: float


def fidelity(output: FloatImage, truth: Image) -> Fidelity:
    """All measures of one frame.

    Args:
        output: (H, W, 3) in [0, 1], as the method gives it.
        truth: (H, W, 3) uint8.
    """
    rounded = quantise(output)
    return Fidelity(
        psnr(rounded, truth), ssim(rounded, truth), dadeblur_psnr(output, truth), dadeblur_ssim(output, truth)
    )


def scored(count: int, skip: tuple[int, int]) -> range:
    """Frames of a video that count, with some left out at its ends.

    ESTRNN and DADeblur score without the first and last two frames, for which their network has no output.

    Args:
        count: frames of the video.
        skip: frames left out at the beginning and at the end.

    Raises:
        ValueError: nothing would be left, or a number is negative.
    """
    if min(skip) < 0 or sum(skip) >= count:
        raise ValueError(f"cannot leave out {skip[0]} + {skip[1]} frames of {count}")
    return range(skip[0], count - skip[1])
