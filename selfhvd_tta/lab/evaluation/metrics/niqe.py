"""NIQE, the naturalness of a picture without ground truth; smaller is better.

Mittal, Soundararajan, Bovik, "Making a 'Completely Blind' Image Quality Analyzer", IEEE Signal Processing Letters 2013.
The model of natural pictures that it compares with was published by its authors and is not part of this package: give
the file with ``mu_pris_param`` (1, 36), ``cov_pris_param`` (36, 36) and ``gaussian_window`` (7, 7), which BasicSR calls
``niqe_pris_params.npz``. Luma is that of BT.601, 16 to 235. The half-size picture is made by OpenCV's area filter where
MATLAB's code uses an antialiased cubic, so values differ a little from MATLAB's: compare within this tool.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gamma
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from selfhvd_tta.errors import InputError

Array = NDArray[np.float64]
BLOCK = 96
SHAPES = np.arange(0.2, 10.001, 0.001)
KEYS = ("mu_pris_param", "cov_pris_param", "gaussian_window")


def _gamma(values: Array) -> Array:
    return np.array([gamma(v) for v in values])


RATIOS = _gamma(2 / SHAPES) ** 2 / (_gamma(1 / SHAPES) * _gamma(3 / SHAPES))


def asymmetric_gaussian(values: Array) -> tuple[float, float, float]:
    """Shape and the two scales of an asymmetric generalised Gaussian, by moments.

    Args:
        values: any number of samples.

    Returns:
        Shape, left scale, right scale; the scales are ``sigma * sqrt(gamma(1 / shape) / gamma(3 / shape))``.
    """
    flat = values.ravel()
    left, right = flat[flat < 0], flat[flat > 0]
    sigma_left = float(np.sqrt(np.mean(left**2))) if left.size else 0.0
    sigma_right = float(np.sqrt(np.mean(right**2))) if right.size else 0.0
    if sigma_left == 0 or sigma_right == 0:
        return float("nan"), float("nan"), float("nan")
    ratio = sigma_left / sigma_right
    energy = float(np.mean(np.abs(flat)) ** 2 / np.mean(flat**2))
    target = energy * (ratio**3 + 1) * (ratio + 1) / (ratio**2 + 1) ** 2
    shape = float(SHAPES[np.argmin((RATIOS - target) ** 2)])
    scale = float(np.sqrt(gamma(1 / shape) / gamma(3 / shape)))
    return shape, sigma_left * scale, sigma_right * scale


def block_features(block: Array) -> list[float]:
    """18 features of a block of normalised luma: its distribution, and those of products with four neighbours."""
    shape, left, right = asymmetric_gaussian(block)
    found = [shape, (left + right) / 2]
    for shift in ((0, 1), (1, 0), (1, 1), (1, -1)):
        shape, left, right = asymmetric_gaussian(block * np.roll(block, shift, (0, 1)))
        mean = (right - left) * gamma(2 / shape) / gamma(1 / shape) if np.isfinite(shape) else float("nan")
        found += [shape, mean, left, right]
    return found


@dataclass(frozen=True)
class NIQE:
    """The measure with its model of natural pictures.

    Attributes:
        mean: (36,) of their features.
        covariance: (36, 36).
        window: (7, 7) Gaussian, sums to 1.
    """

    mean: Array
    covariance: Array
    window: Array

    @classmethod
    def load(cls, path: Path) -> NIQE:
        """Read the parameter file.

        Raises:
            InputError: it is absent or not such a file.
        """
        try:
            with np.load(path, allow_pickle=False) as stored:
                mean, covariance, window = (np.asarray(stored[key], np.float64) for key in KEYS)
        except (OSError, ValueError, KeyError) as error:
            raise InputError(
                f"{path}: is not a parameter file of NIQE ({error})", "See the section on NIQE in docs/lab/quality.md."
            ) from error
        if mean.size != 36 or covariance.shape != (36, 36) or window.shape != (7, 7):
            raise InputError(f"{path}: its arrays have unexpected shapes", "It should be niqe_pris_params.npz.")
        return cls(mean.ravel(), covariance, window)

    def __call__(self, frame: NDArray[np.uint8]) -> float:
        """Score of one frame, (H, W, 3) uint8 RGB; NaN for one smaller than a block of 96 pixels or without texture."""
        weights = np.array([65.481, 128.553, 24.966]) / 255
        luma = np.rint(frame.astype(np.float64) @ weights + 16)
        rows, columns = luma.shape[0] // BLOCK, luma.shape[1] // BLOCK
        if rows == 0 or columns == 0:
            return float("nan")
        luma = luma[: rows * BLOCK, : columns * BLOCK]
        halves: list[Array] = []
        for scale in (1, 2):
            side = BLOCK // scale
            normal = self._normalise(luma)
            blocks = normal.reshape(rows, side, columns, side).swapaxes(1, 2).reshape(-1, side, side)
            halves.append(np.array([block_features(block) for block in blocks]))
            half = cv2.resize(luma, (luma.shape[1] // 2, luma.shape[0] // 2), interpolation=cv2.INTER_AREA)
            luma = np.asarray(half, np.float64)
        features = np.concatenate(halves, axis=1)
        sound = features[~np.isnan(features).any(axis=1)]
        if len(sound) == 0:
            return float("nan")
        covariance = np.cov(sound, rowvar=False) if len(sound) > 1 else np.zeros((36, 36))
        gap = self.mean - np.nanmean(features, axis=0)
        pooled = np.linalg.pinv((self.covariance + covariance) / 2)
        return float(np.sqrt(gap @ pooled @ gap))

    def _normalise(self, luma: Array) -> Array:
        def smooth(picture: Array) -> Array:
            return np.asarray(cv2.filter2D(picture, cv2.CV_64F, self.window, borderType=cv2.BORDER_REPLICATE))

        mean = smooth(luma)
        deviation = np.sqrt(np.abs(smooth(luma**2) - mean**2))
        return (luma - mean) / (deviation + 1)
