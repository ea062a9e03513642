"""The homography between two frames, one of which shake may have blurred: hypotheses, then a direct fit.

Hypotheses come from DIS vectors that agree forward and backward (RANSAC), from phase correlation, and from no motion at
all; the first one is nearly always right and the others are tried only where its fit stays poor. The fit
(:mod:`selfhvd_tta.flows.homography_fit`) goes from half to full working size and finds the blur between the frames
along with the homography, so that mid-exposures are aligned and not centroids.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import cv2
import numpy as np

from selfhvd_tta.flows.blur_path import BlurPath
from selfhvd_tta.flows.dis import dis_flow
from selfhvd_tta.flows.homography_fit import TRANSLATION, Estimate, PhotometricFit, linear, rescaled

# Pixels that a fit uses, the most textured ones.
COARSE_PIXELS = 4000
PIXELS = 9000
# Low pass of both frames in pixels of the level.
COARSE_SMOOTHING = 1.2
SMOOTHING = 1.0
# Levels of the pyramid have no shorter side than this.
SMALLEST_SIDE = 48
# Largest forward-backward error of a DIS vector, RANSAC's reprojection threshold, both in working pixels.
CONSISTENT = 1.0
REPROJECTION = 1.5
FEWEST_VECTORS = 24
VECTOR_SPACING = 8
# From this support on, no further hypothesis is tried.
GOOD_SUPPORT = 0.6
# Below it, or where the displacement is less certain than this many working pixels, nothing is reliable.
POOR_SUPPORT = 0.3
LARGEST_SPREAD = 1.0
# Relative blur variance of the target up to which the source is taken to be the blurrier frame without a trial.
SURE_RATIO = 0.25
# A homography of shake neither zooms nor shears by more than this factor anywhere in the frame.
LARGEST_STRETCH = 1.6


@dataclass(frozen=True)
class GlobalMotion:
    """One homography for a pair of frames.

    Attributes:
        matrix: (3, 3) float64, source to target, pixel centres at integers, ``matrix[2, 2] == 1``.
        path: along which the sharper frame, warped to the blurrier one, has to be blurred to look like it; in pixels of
            the blurrier frame.
        blurrier: which of the two frames that is.
        inlier_share: of the forward-backward consistent DIS vectors, how many agree with RANSAC's homography.
        refined: the matrix was fitted to grey values; otherwise it is the identity, since nothing reliable was found.
        residual: robust standard deviation of the grey values (in [0, 1]) that the fit leaves.
        support: share of the textured pixels of the source that the coarse fit explains: mostly above 0.7, 0.3 to 0.6
            for frames far apart, below 0.25 for unrelated frames.
        spread: standard error of the displacement, in pixels, by the curvature of the fit; infinite if not refined.
        gain, offset: grey values of the blurrier frame are ``gain * value + offset`` of those of its prediction.
    """

    matrix: np.ndarray
    path: BlurPath
    blurrier: Literal["source", "target"]
    inlier_share: float
    refined: bool
    residual: float
    support: float
    spread: float
    gain: float = 1.0
    offset: float = 0.0

    def inverse(self) -> GlobalMotion:
        """The same motion from target to source."""
        matrix = np.linalg.inv(self.matrix)
        return replace(self, matrix=matrix / matrix[2, 2], blurrier="target" if self.blurrier == "source" else "source")


def working_size(height: int, width: int, side: int) -> tuple[int, int]:
    """Height and width of a frame scaled down, if need be, so that its longer side is ``side``."""
    factor = min(1.0, side / max(height, width))
    return max(1, round(height * factor)), max(1, round(width * factor))


def estimate_homography(source: np.ndarray, target: np.ndarray, working_side: int = 640) -> GlobalMotion:
    """Estimate the homography from ``source`` to ``target``.

    Args:
        source, target: (H, W) float32 luma in [0, 1], of one size.
        working_side: longer frames are scaled down to this side for the estimate.
    """
    height, width = source.shape
    rows, columns = working_size(height, width, working_side)
    if (rows, columns) != (height, width):
        source, target = (cv2.resize(each, (columns, rows), interpolation=cv2.INTER_AREA) for each in (source, target))
    motion = _estimate(np.ascontiguousarray(source), np.ascontiguousarray(target))
    zoom = width / columns
    matrix = rescaled(motion.matrix, zoom, height / rows)
    return replace(motion, matrix=matrix, path=motion.path.scaled(zoom), spread=motion.spread * zoom)


def _estimate(source: np.ndarray, target: np.ndarray) -> GlobalMotion:
    light = linear(source), linear(target)
    start = _best_start(source, target, light)
    if start is not None and start.support >= POOR_SUPPORT:
        estimate, blurrier = _refined(*light, start.matrix)
        if estimate.spread <= LARGEST_SPREAD and _plausible(estimate.matrix, source.shape):
            motion = GlobalMotion(
                matrix=estimate.matrix,
                path=estimate.path,
                blurrier="source",
                inlier_share=start.share,
                refined=True,
                residual=estimate.noise,
                support=start.support,
                spread=estimate.spread,
                gain=estimate.gain,
                offset=estimate.offset,
            )
            return motion if blurrier == "source" else motion.inverse()
    return GlobalMotion(np.eye(3), BlurPath(), "source", 0.0, False, np.inf, 0.0, np.inf)


@dataclass(frozen=True)
class _Start:
    """A hypothesis after its coarse fit; see :class:`GlobalMotion`."""

    matrix: np.ndarray
    share: float
    support: float


def _best_start(source: np.ndarray, target: np.ndarray, light: tuple[np.ndarray, np.ndarray]) -> _Start | None:
    """The hypothesis that explains most after a coarse fit; none if no fit is plausible."""
    (a, b), fx, fy = _reduced(light, 4)
    fit = PhotometricFit(a, b, COARSE_SMOOTHING, COARSE_PIXELS)
    best: _Start | None = None
    for matrix, share in _hypotheses(source, target):
        if not _plausible(matrix, source.shape):
            continue
        estimate = Estimate(rescaled(matrix, fx, fy))
        if share == 0:
            estimate = fit.fit(estimate, 8, only=TRANSLATION)
        estimate = fit.fit(estimate, 8)
        if _plausible(estimate.matrix, a.shape) and (best is None or estimate.support > best.support):
            best = _Start(rescaled(estimate.matrix, 1 / fx, 1 / fy), share, estimate.support)
        if best is not None and best.support >= GOOD_SUPPORT:
            break
    return best


def _reduced(light: tuple[np.ndarray, np.ndarray], divisor: int) -> tuple[tuple[np.ndarray, np.ndarray], float, float]:
    """Frames with sides divided by ``divisor``, or less if they would get too small; and the factors along x and y."""
    height, width = light[0].shape
    divisor = max(1, min(divisor, min(height, width) // SMALLEST_SIDE))
    columns, rows = width // divisor, height // divisor
    if divisor == 1:
        return light, 1.0, 1.0
    a, b = (cv2.resize(frame, (columns, rows), interpolation=cv2.INTER_AREA) for frame in light)
    return (a, b), columns / width, rows / height


def _hypotheses(source: np.ndarray, target: np.ndarray) -> Iterator[tuple[np.ndarray, float]]:
    """Homographies to start from, the most likely first, with their share of inliers (0: not from vectors)."""
    found = _from_vectors(source, target)
    if found is not None:
        yield found
    yield _from_phase(source, target), 0.0
    yield np.eye(3), 0.0


def _from_vectors(source: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, float] | None:
    """RANSAC over a grid of DIS vectors that return to where they came from."""
    a, b = (np.rint(frame * 255).astype(np.uint8) for frame in (source, target))
    forward, backward = dis_flow(a, b, "fast"), dis_flow(b, a, "fast")
    height, width = source.shape
    ys, xs = np.mgrid[VECTOR_SPACING // 2 : height : VECTOR_SPACING, VECTOR_SPACING // 2 : width : VECTOR_SPACING]
    start = np.stack([xs.ravel(), ys.ravel()], axis=1).astype(np.float32)
    step = forward[ys.ravel(), xs.ravel()]
    end = start + step
    back = cv2.remap(backward, end[None, :, 0], end[None, :, 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[0]
    within = (end >= 0).all(axis=1) & (end[:, 0] <= width - 1) & (end[:, 1] <= height - 1)
    kept = within & (np.linalg.norm(step + back, axis=1) < CONSISTENT)
    if kept.sum() < FEWEST_VECTORS:
        return None
    matrix, inliers = cv2.findHomography(start[kept], end[kept], cv2.RANSAC, REPROJECTION, maxIters=500)
    if matrix is None:
        return None
    return matrix, float(inliers.mean())


def _from_phase(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """A pure translation, for when vectors fail: large shifts, heavy blur."""
    window = cv2.createHanningWindow(source.shape[::-1], cv2.CV_32F) if min(source.shape) > 1 else None
    low = [cv2.GaussianBlur(frame, (0, 0), 2) for frame in (source, target)]
    (dx, dy), _ = cv2.phaseCorrelate(low[0] - low[0].mean(), low[1] - low[1].mean(), window)
    return np.array([[1, 0, dx], [0, 1, dy], [0, 0, 1.0]])


def _refined(
    source: np.ndarray, target: np.ndarray, matrix: np.ndarray
) -> tuple[Estimate, Literal["source", "target"]]:
    """Fit homography and blur; if the target is the blurrier frame, the estimate is that from target to source."""
    (a, b), fx, fy = _reduced((source, target), 2)
    estimate = Estimate(rescaled(matrix, fx, fy))
    fit = PhotometricFit(a, b, SMOOTHING, PIXELS)
    blurrier: Literal["source", "target"] = "source"
    path, ratio = fit.initial_path(estimate)
    straight = fit.fit(replace(estimate, path=path), 5, blur=True)
    if ratio > SURE_RATIO:
        # Second moments alone do not show reliably which frame is the blurrier one; the residuals of the two models do.
        other = PhotometricFit(b, a, SMOOTHING, PIXELS)
        backward = Estimate(np.linalg.inv(estimate.matrix))
        exchanged = other.fit(replace(backward, path=other.initial_path(backward)[0]), 5, blur=True)
        if exchanged.noise < straight.noise:
            blurrier, source, target, fit, straight = "target", target, source, other, exchanged
    estimate = fit.fit(straight, 8, blur=True, bend=True, spread=fx == 1)
    if fx < 1:
        start = Estimate(rescaled(estimate.matrix, 1 / fx, 1 / fy), estimate.path.scaled(1 / fx))
        estimate = PhotometricFit(source, target, SMOOTHING, PIXELS).fit(start, 2, blur=True, bend=True, spread=True)
    return estimate, blurrier


def _plausible(matrix: np.ndarray, shape: tuple[int, ...]) -> bool:
    """No fold, and every corner's neighbourhood keeps its size up to ``LARGEST_STRETCH``."""
    if not np.isfinite(matrix).all():
        return False
    height, width = shape
    for x, y in ((0, 0), (width - 1, 0), (0, height - 1), (width - 1, height - 1)):
        depth = matrix[2] @ (x, y, 1)
        if depth <= 0.1:
            return False
        position = matrix[:2] @ (x, y, 1) / depth
        jacobian = (matrix[:2, :2] - np.outer(position, matrix[2, :2])) / depth
        stretches = np.linalg.svd(jacobian, compute_uv=False)
        if np.linalg.det(jacobian) <= 0 or stretches[0] > LARGEST_STRETCH or stretches[1] < 1 / LARGEST_STRETCH:
            return False
    return True
