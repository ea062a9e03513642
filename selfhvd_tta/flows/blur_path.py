"""Shake blur as the path that the picture takes across the sensor during one exposure.

A blurry frame is the mean of the sharp scene along that path. Shake is smooth, so over one exposure the path is nearly
a parabola. The frame shows the scene at *mid-exposure* where the path is at t = 0; the centroid of the blur, which any
plain matching of a blurry frame with a sharp one finds, is off by a third of the bend.

One path serves the whole frame: blur by roll, by parallax or of moving things differs from it, and a tremor that turns
back within one exposure is not a parabola.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

# Points on the path: enough for streaks of 40 px.
SAMPLES = 41
# Standard deviation in pixels of the Gaussian that a point of the path is drawn as.
SOFTNESS = 0.5


@dataclass(frozen=True)
class BlurPath:
    """Positions ``velocity * t + bend * t**2`` for t in [-1, 1] (shutter opens, closes), relative to mid-exposure.

    The blurry frame at p is the mean of the sharp scene at p + position(t), in linear light.

    Attributes:
        velocity: (x, y) in pixels per half exposure; its sign cannot be known from one frame.
        bend: (x, y) in pixels.
    """

    velocity: tuple[float, float] = (0.0, 0.0)
    bend: tuple[float, float] = (0.0, 0.0)

    @property
    def length(self) -> float:
        """Extent of the blur in pixels."""
        return float(2 * np.hypot(*self.velocity))

    def scaled(self, factor: float) -> BlurPath:
        """The same path in pixels of a frame that is ``factor`` times as large."""
        vx, vy = self.velocity
        bx, by = self.bend
        return BlurPath((vx * factor, vy * factor), (bx * factor, by * factor))

    def moment(self, power: int) -> np.ndarray:
        """Kernel of ``mean over t of t**power * scene(p + position(t))``, for correlation, odd sides, float32.

        Every point of the path is drawn as a Gaussian of ``SOFTNESS``: unlike bilinear splats its width does not depend
        on where between pixels a point falls, which would hide paths shorter than about a pixel.
        """
        along_x, along_y, weight, times = self._drawn
        return ((along_y * (weight * times**power)[:, None]).T @ along_x).astype(np.float32)

    @cached_property
    def _drawn(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Points as Gaussians along x and along y, (SAMPLES, side) each; their weights, and their times."""
        positions, times = self._positions
        reach = int(np.ceil(np.abs(positions).max() + 3 * SOFTNESS))
        steps = np.arange(-reach, reach + 1)
        along_x, along_y = (np.exp(-0.5 * ((steps - positions[:, axis, None]) / SOFTNESS) ** 2) for axis in (0, 1))
        return along_x, along_y, 1 / (SAMPLES * along_x.sum(axis=1) * along_y.sum(axis=1)), times

    @cached_property
    def _positions(self) -> tuple[np.ndarray, np.ndarray]:
        times = (np.arange(SAMPLES) + 0.5) * 2 / SAMPLES - 1
        return times[:, None] * np.array(self.velocity) + times[:, None] ** 2 * np.array(self.bend), times

    def blur(self, scene: np.ndarray) -> np.ndarray:
        """What a shutter that is open along the path makes of ``scene``, (H, W) or (H, W, C), float32, linear light.

        Softer by ``SOFTNESS`` than that.
        """
        return correlate(scene, self.moment(0))


def correlate(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Correlation with replicated borders, float32."""
    return cv2.filter2D(image, cv2.CV_32F, kernel, borderType=cv2.BORDER_REPLICATE)
