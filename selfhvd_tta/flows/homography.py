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

# Fitted pixels at half and at full working size.
COARSE_PIXELS = 6000
FINE_PIXELS = 9000
# Working sizes with a shorter side than this are not halved.
SMALLEST_HALVED = 96
# Largest forward-backward error of a DIS vector, RANSAC's reprojection threshold, both in working pixels.
CONSISTENT = 1.0
REPROJECTION = 1.5
FEWEST_VECTORS = 24
VECTOR_SPACING = 8
# From this share of explained pixels on, no further hypothesis is tried.
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
        support: share of the textured pixels of the blurrier frame that its prediction from the sharper one explains;
            about 0.2 by chance.
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
    best: GlobalMotion | None = None
    for matrix, share in _hypotheses(source, target):
        if not _plausible(matrix, source.shape):
            continue
        estimate, blurrier = _refine(*light, matrix, translation_first=share == 0)
        if not _plausible(estimate.matrix, source.shape) or estimate.spread > LARGEST_SPREAD:
            continue
        motion = GlobalMotion(
            matrix=estimate.matrix,
            path=estimate.path,
            blurrier="source",
            inlier_share=share,
            refined=True,
            residual=estimate.noise,
            support=estimate.support,
            spread=estimate.spread,
            gain=estimate.gain,
            offset=estimate.offset,
        )
        motion = motion if blurrier == "source" else motion.inverse()
        if best is None or motion.support > best.support:
            best = motion
        if best.support >= GOOD_SUPPORT:
            break
    if best is None or best.support < POOR_SUPPORT:
        return GlobalMotion(np.eye(3), BlurPath(), "source", 0.0, False, np.inf, 0.0, np.inf)
    return best


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


def _refine(
    source: np.ndarray, target: np.ndarray, matrix: np.ndarray, translation_first: bool
) -> tuple[Estimate, Literal["source", "target"]]:
    """Fit homography and blur; if the target is the blurrier frame, the estimate is that from target to source."""
    height, width = source.shape
    half = min(height, width) >= SMALLEST_HALVED
    small = (width // 2, height // 2) if half else (width, height)
    fx, fy = small[0] / width, small[1] / height
    a, b = (cv2.resize(frame, small, interpolation=cv2.INTER_AREA) if half else frame for frame in (source, target))
    estimate = Estimate(rescaled(matrix, fx, fy))
    coarse = PhotometricFit(a, b, 2.0, COARSE_PIXELS)
    if translation_first:
        estimate = coarse.fit(estimate, 8, only=TRANSLATION)
    estimate = coarse.fit(estimate, 6)

    fit = PhotometricFit(a, b, 1.0, COARSE_PIXELS)
    blurrier: Literal["source", "target"] = "source"
    path, ratio = fit.initial_path(estimate)
    as_source = fit.fit(replace(estimate, path=path), 4, blur=True)
    if ratio > SURE_RATIO:
        # Second moments alone do not tell reliably which frame is the blurrier one; the two models' residuals do.
        other = PhotometricFit(b, a, 1.0, COARSE_PIXELS)
        backward = Estimate(np.linalg.inv(estimate.matrix))
        as_target = other.fit(replace(backward, path=other.initial_path(backward)[0]), 4, blur=True)
        if as_target.noise < as_source.noise:
            blurrier, source, target, fit, as_source = "target", target, source, other, as_target
    estimate = as_source
    estimate = fit.fit(estimate, 10, blur=True, bend=True)
    if half:
        fit = PhotometricFit(source, target, 1.0, FINE_PIXELS)
        start = Estimate(rescaled(estimate.matrix, 1 / fx, 1 / fy), estimate.path.scaled(1 / fx))
        estimate = fit.fit(start, 4, blur=True, bend=True)
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
