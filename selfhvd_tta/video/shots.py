"""Hard cuts: where a video jumps to another scene, and nothing else.

Two thumbnails are compared by the best normalised cross-correlation of one's centre within the other. That is blind to
brightness (exposure), to shifts of up to a quarter of the picture (pans, shake) and, at this size, to motion blur.
Dissolves and fades are no hard cuts and stay within one shot.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import pairwise
from statistics import median

import cv2
import numpy as np

from selfhvd_tta.video.color import Array

THUMB_WIDTH = 96
# Standard deviation in codes below which a thumbnail shows nothing that could be matched.
FLAT = 2.0
# Measured on five handheld clips: similarity of successive frames is at least 0.86; between unrelated photographs it is
# 0.40 in the median and 0.79 at the 99th percentile.
SAME_SCENE = 0.8
# A cut has to stand out from the motion around it: its dissimilarity against the median of its neighbours'.
PROMINENCE = 2.5
NEIGHBOURS = 6
# Frames on either side that must all differ across a cut, so that a flash is none.
REACH = 2


class ShotDetector:
    """Finds the shots of a video from its luma, frame after frame, in bounded memory."""

    def __init__(self) -> None:
        self._count = 0
        self._recent: deque[Array] = deque(maxlen=2 * REACH)
        self._dissimilar: list[float] = []
        self._candidates: list[tuple[int, float]] = []

    def add(self, y: Array) -> None:
        """Take the next frame.

        Args:
            y: (H, W) uint8 luma.
        """
        self._recent.append(thumbnail(y))
        self._count += 1
        if self._count > 1:
            self._dissimilar.append(1 - similarity(self._recent[-2], self._recent[-1]))
            self._judge(self._count - REACH, REACH)

    def shots(self) -> list[range]:
        """Shots of the frames so far: consecutive ranges that cover all of them."""
        tail = [self._across(self._count - after, after) for after in range(REACH - 1, 0, -1)]
        cuts = [t for t, d in [*self._candidates, *(c for c in tail if c is not None)] if self._stands_out(t, d)]
        edges = [0, *cuts, self._count]
        return [range(a, b) for a, b in pairwise(edges) if b > a]

    def _judge(self, cut: int, after: int) -> None:
        candidate = self._across(cut, after)
        if candidate is not None:
            self._candidates.append(candidate)

    def _across(self, cut: int, after: int) -> tuple[int, float] | None:
        """Frame ``cut`` and its dissimilarity to what lies before it, if every pair across it shows two scenes."""
        if cut < 1 or self._dissimilar[cut - 1] < 1 - SAME_SCENE:
            return None
        thumbs = list(self._recent)
        later, earlier = thumbs[-after:], thumbs[:-after][-REACH:]
        nearest = max(similarity(a, b) for a in earlier for b in later)
        return (cut, 1 - nearest) if nearest < SAME_SCENE else None

    def _stands_out(self, cut: int, dissimilarity: float) -> bool:
        around = self._dissimilar[max(0, cut - 1 - NEIGHBOURS) : cut - 1] + self._dissimilar[cut : cut + NEIGHBOURS]
        return not around or dissimilarity >= PROMINENCE * median(around)


def find_cuts(frames: Iterable[Array]) -> list[range]:
    """Shots of a whole sequence of (H, W) uint8 luma frames or thumbnails, as :meth:`ShotDetector.shots`."""
    detector = ShotDetector()
    for frame in frames:
        detector.add(frame)
    return detector.shots()


def thumbnail(y: Array) -> Array:
    """(H, W) luma reduced to ``THUMB_WIDTH`` columns (rows for portrait), by averaging."""
    height, width = y.shape
    scale = THUMB_WIDTH / max(height, width)
    size = max(8, round(width * scale)), max(8, round(height * scale))
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return cv2.resize(y, size, interpolation=interpolation)


def similarity(first: Array, second: Array) -> float:
    """Best correlation of either thumbnail's centre within the other, -1..1; 1 for two pictures without content."""
    return max(_match(first, second), _match(second, first))


def _match(picture: Array, other: Array) -> float:
    height, width = other.shape
    centre = np.ascontiguousarray(other[height // 4 : height - height // 4, width // 4 : width - width // 4])
    if centre.std() < FLAT or picture.std() < FLAT:
        return 1.0 if max(centre.std(), picture.std()) < FLAT else 0.0
    scores = cv2.matchTemplate(picture, centre, cv2.TM_CCOEFF_NORMED)
    return float(scores[np.isfinite(scores)].max(initial=-1.0))
