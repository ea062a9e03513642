"""Which frames of the video are sharp (Sec. 3.1): variance of the Laplacian, Otsu's threshold, segments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from selfhvd_tta.settings import ClueSettings

CONTRAST_SIDE = 256
# Local contrast in code values below which it is not taken into account: what is nearly black or flat consists of noise
# and rounding, which dividing by the contrast would make look sharp.
LEAST_CONTRAST = 6.0

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
IndexArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Clues:
    """The sharp frames of a video and what they say about it.

    Attributes:
        sharpness: (N,) v_l of every frame (Eq. 1); compares neighbours, does not measure quality.
        sharp: (N,) True for the selected sharp frames (the clues).
        nearest: (N,) J(i), index of the sharp frame nearest in time within the shot; J(i) = i for a sharp frame.
        shots: stretches without a hard cut, in order, covering 0..N-1.
        thresholds: Otsu's threshold on the score, one per shot.
        separability: Otsu's between-class share of the variance of the score within the shots, 0..1 (uniform: 0.75).
        contrast: median score of the sharp frames over the median of the others, geometric mean over shots; 1 = equal.
        soft: (N,) True for frames that are clearly less sharp than some frame near them in time.
        score: (N,) what frames are compared by: v_l corrected for contrast and exposure, in units of v_l at
            the shot's median contrast; v_l itself where that is switched off or the contrast is not known.
    """

    sharpness: FloatArray
    sharp: BoolArray
    nearest: IndexArray
    shots: tuple[range, ...]
    thresholds: tuple[float, ...]
    separability: float
    contrast: float
    soft: BoolArray
    score: FloatArray

    @property
    def forced(self) -> BoolArray:
        """(N,) True for sharp frames below Otsu's threshold: only the sharpest of a segment without a sharp one."""
        thresholds = np.concatenate([np.full(len(s), t) for s, t in zip(self.shots, self.thresholds, strict=True)])
        return self.sharp & (self.score <= thresholds)

    @property
    def soft_share(self) -> float:
        """Share of the frames that are clearly less sharp than a frame near them, 0..1."""
        return float(self.soft.mean()) if self.soft.size else 0.0

    def shot_of(self, index: int) -> range:
        """The shot that holds frame ``index``."""
        for shot in self.shots:
            if index in shot:
                return shot
        raise IndexError(f"frame {index} of {len(self.sharp)}")

    def sharp_in(self, shot: range) -> list[int]:
        """Indices of the sharp frames of one shot, ascending."""
        return [i for i in shot if self.sharp[i]]


def laplacian_variance(luma: npt.NDArray[np.uint8]) -> float:
    """v_l: variance of the 4-neighbour Laplacian (Eq. 1).

    Args:
        luma: (H, W) uint8, full range 0..255.

    Returns:
        Variance in squared code values; 0 for a flat frame.
    """
    response = cv2.Laplacian(luma, cv2.CV_16S, ksize=1)
    _, deviation = cv2.meanStdDev(response)
    return float(deviation.ravel()[0]) ** 2


def local_contrast(luma: npt.NDArray[np.uint8]) -> float:
    """Mean squared deviation of the luma from that of the surroundings, a Gaussian of 1/16 of the longer side.

    Brightness scales it as it scales v_l; shake hardly lowers it, and a bright sign that comes into view hardly raises
    it. Computed at 256 pixels of the longer side.

    Args:
        luma: (H, W) uint8.

    Returns:
        Squared code values.
    """
    height, width = luma.shape
    scale = CONTRAST_SIDE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(luma, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    around = cv2.GaussianBlur(small, (0, 0), CONTRAST_SIDE / 16)
    return float(np.square(small - around).mean())


def otsu_threshold(values: Sequence[float] | FloatArray) -> tuple[float, float]:
    """Otsu's threshold over a handful of values, exactly (every split is tried, no histogram).

    Args:
        values: at least one number.

    Returns:
        Threshold ``t`` (sharp are the values > t; midway between the two neighbours of the best split), and the
        between-class share of the variance in 0..1; ``(value - 0, 0)`` where all values are equal: the threshold
        then equals the value, so that none lies above it.
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    total = ordered.var()
    if ordered.size < 2 or total <= 1e-12 * max(1.0, float(ordered[-1]) ** 2):
        return float(ordered[-1]), 0.0
    count = np.arange(1, ordered.size)
    below = np.cumsum(ordered)[:-1]
    weight = count / ordered.size
    gap = below / count - (ordered.sum() - below) / (ordered.size - count)
    between = weight * (1 - weight) * gap**2
    # Equal values cannot be split from each other.
    between[ordered[1:] == ordered[:-1]] = -1.0
    best = int(np.argmax(between))
    return float((ordered[best] + ordered[best + 1]) / 2), float(between[best] / total)


def select_clues(
    sharpness: FloatArray, shots: Sequence[range], settings: ClueSettings, contrast: FloatArray | None = None
) -> Clues:
    """Select the sharp frames.

    v_l grows with the square of the brightness: a darker frame would be taken for a blurry one. So unless
    ``settings.normalise`` is off, v_l is divided by the local contrast, which brightness scales alike and blur hardly
    changes. Otsu over these scores of one shot gives the globally sharp frames; each segment of ``settings.segment``
    frames that holds none contributes its sharpest frame.

    Args:
        sharpness: (N,) v_l per frame.
        shots: consecutive ranges covering 0..N-1.
        settings: segment length, what counts as clearly softer, and normalisation.
        contrast: (N,) :func:`local_contrast` of every frame; None: v_l is compared as it is.

    Returns:
        Clues; every shot has at least one sharp frame.

    Raises:
        ValueError: the shots do not cover the frames exactly.
    """
    sharpness = np.asarray(sharpness, dtype=np.float64)
    if [i for shot in shots for i in shot] != list(range(sharpness.size)):
        raise ValueError("shots must cover all frames once, in order")
    score = sharpness.copy()
    sharp = np.zeros(sharpness.size, dtype=bool)
    soft = np.zeros(sharpness.size, dtype=bool)
    nearest = np.zeros(sharpness.size, dtype=np.int64)
    thresholds: list[float] = []
    shares: list[float] = []
    ratios: list[float] = []
    lengths: list[int] = []
    for shot in shots:
        values = score[shot.start : shot.stop]
        if contrast is not None and settings.normalise:
            local = contrast[shot.start : shot.stop] + LEAST_CONTRAST**2
            values *= np.median(local) / local
        threshold, share = otsu_threshold(values)
        selected = values > threshold
        for start in range(0, len(shot), settings.segment):
            segment = slice(start, start + settings.segment)
            if not selected[segment].any():
                selected[start + int(np.argmax(values[segment]))] = True
        sharp[shot.start : shot.stop] = selected
        soft[shot.start : shot.stop] = softer_than_neighbours(values, settings.segment // 2, settings.contrast)
        nearest[shot.start : shot.stop] = shot.start + nearest_sharp(values, selected)
        thresholds.append(threshold)
        shares.append(share)
        lengths.append(len(shot))
        if not selected.all():
            ratios.append(float((np.median(values[selected]) + 1e-9) / (np.median(values[~selected]) + 1e-9)))
        else:
            ratios.append(1.0)
    weights = np.asarray(lengths, dtype=np.float64)
    return Clues(
        sharpness=sharpness,
        sharp=sharp,
        nearest=nearest,
        shots=tuple(shots),
        thresholds=tuple(thresholds),
        separability=float(np.average(shares, weights=weights)),
        contrast=float(np.exp(np.average(np.log(ratios), weights=weights))),
        soft=soft,
        score=score,
    )


def nearest_sharp(values: FloatArray, selected: BoolArray) -> IndexArray:
    """J(i) within one shot: the selected frame nearest in time; of two equally near ones the sharper.

    Args:
        values: (n,) scores.
        selected: (n,) at least one True.

    Returns:
        (n,) indices into the shot.
    """
    candidates = np.flatnonzero(selected)
    distance = np.abs(np.arange(values.size)[:, None] - candidates[None, :]).astype(np.float64)
    # Distances differ by whole frames, so a sharpness bonus below half a frame only decides ties.
    bonus = 0.25 * values[candidates] / max(float(values[candidates].max()), 1e-12)
    return candidates[np.argmin(distance - bonus[None, :], axis=1)]


def softer_than_neighbours(values: FloatArray, reach: int, contrast: float) -> BoolArray:
    """Frames for which a frame at most ``reach`` away has at least ``contrast`` times their score.

    A slow change of the scene moves v_l as well, so frames are compared with their surroundings only.
    """
    result = np.zeros(values.size, dtype=bool)
    for i in range(values.size):
        around = values[max(0, i - reach) : i + reach + 1]
        result[i] = around.max() >= contrast * values[i] and around.max() > 1e-9
    return result
