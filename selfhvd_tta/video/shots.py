"""Hard cuts: where a video jumps to another scene, and nothing else.

Two thumbnails are compared by the best normalised cross-correlation of one's centre within the other. That is blind to
brightness (exposure), to shifts of up to a quarter of the picture (pans, shake) and, at this size, to motion blur.
In doubt the histograms decide, which violent blur hardly changes. Dissolves and fades are not hard cuts and
stay within one shot.
"""

from __future__ import annotations

from collections import deque
from itertools import pairwise
from statistics import median

import cv2
import numpy as np

from selfhvd_tta.video.color import Array

THUMB_WIDTH = 96
# Standard deviation in codes below which a thumbnail has nothing to match.
FLAT = 2.0
# Measured on five handheld clips, successive frames: correlation at least 0.86, common histogram area at least 0.94;
# six frames apart still 0.65 and 0.81. Unrelated photographs: medians 0.40 and 0.62; 1.4 % of the pairs pass for one
# scene by these limits.
SAME_SCENE = 0.8
IN_DOUBT = 0.5
SAME_HISTOGRAM = 0.8
# A cut has to stand out from the motion around it: its dissimilarity against the median of its neighbours'.
PROMINENCE = 2.5
NEIGHBOURS = 6
# The last frame before a cut differs from this many frames after it, and the first after it from this many before;
# around a flash they do not.
REACH = 2


class ShotDetector:
    """Finds the shots of a video from its luma, frame after frame, in bounded memory."""

    def __init__(self) -> None:
        self._count = 0
        self._recent: deque[Array] = deque(maxlen=2 * REACH)
        self._dissimilar: list[float] = []
        self._candidates: list[tuple[int, float]] = []

    def add(self, y: Array) -> None:
        """Process the next frame.

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
        candidates = dict([*self._candidates, *(c for c in tail if c is not None)])
        cuts = [cut for cut in candidates if self._stands_out(cut, candidates)]
        edges = [0, *cuts, self._count]
        return [range(a, b) for a, b in pairwise(edges) if b > a]

    def _judge(self, cut: int, after: int) -> None:
        candidate = self._across(cut, after)
        if candidate is not None:
            self._candidates.append(candidate)

    def _across(self, cut: int, after: int) -> tuple[int, float] | None:
        """Frame ``cut`` and its dissimilarity to what lies before it, if it starts another scene."""
        if cut < 1 or self._dissimilar[cut - 1] < 1 - SAME_SCENE:
            return None
        thumbs = list(self._recent)
        later, earlier = thumbs[-after:], thumbs[:-after][-REACH:]
        pairs = [(earlier[-1], b) for b in later] + [(a, later[0]) for a in earlier[:-1]]
        if any(same_scene(a, b) for a, b in pairs):
            return None
        return cut, 1 - max(similarity(a, b) for a, b in pairs)

    def _stands_out(self, cut: int, candidates: dict[int, float]) -> bool:
        first, last = max(1, cut - NEIGHBOURS), min(self._count - 1, cut + NEIGHBOURS)
        around = [self._dissimilar[t - 1] for t in range(first, last + 1) if t not in candidates]
        return not around or candidates[cut] >= PROMINENCE * median(around)


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


def same_scene(first: Array, second: Array) -> bool:
    """Whether two thumbnails may show one scene."""
    correlation = similarity(first, second)
    if correlation >= SAME_SCENE or correlation < IN_DOUBT:
        return correlation >= SAME_SCENE
    return float(np.minimum(_histogram(first), _histogram(second)).sum()) >= SAME_HISTOGRAM


def _histogram(thumb: Array) -> Array:
    """Share of the pixels in 32 classes of brightness, smoothed over the classes' borders."""
    counts = np.bincount(thumb.ravel() >> 3, minlength=32) / thumb.size
    smooth: Array = np.convolve(counts, [0.25, 0.5, 0.25], "same")
    return smooth


def _match(picture: Array, other: Array) -> float:
    height, width = other.shape
    centre = np.ascontiguousarray(other[height // 4 : height - height // 4, width // 4 : width - width // 4])
    if centre.std() < FLAT or picture.std() < FLAT:
        return 1.0 if max(centre.std(), picture.std()) < FLAT else 0.0
    scores = cv2.matchTemplate(picture, centre, cv2.TM_CCOEFF_NORMED)
    return float(scores[np.isfinite(scores)].max(initial=-1.0))
