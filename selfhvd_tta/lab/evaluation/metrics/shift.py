"""Shift: whether the picture was moved."""

from __future__ import annotations

import cv2
import numpy as np
import torch

from selfhvd_tta.flows import FlowEstimator
from selfhvd_tta.lab.evaluation.metrics.frames import Image, as_tensor

HISTOGRAM_BINS = 4000
BINS_PER_PIXEL = 100


class ShiftMeter:
    """Collects how far the output's content lies from the input's: the length of the flow between them.

    Only the textured half of the pixels counts: flow means nothing where there is nothing to hold on to. DIS against a
    blurry frame is itself uncertain by some tenths of a pixel, so compare methods with each other. Lengths are binned
    to a hundredth of a pixel (40 px at most), so that memory does not grow with the video.
    """

    def __init__(self, estimator: FlowEstimator) -> None:
        self.estimator = estimator
        self.counts = np.zeros(HISTOGRAM_BINS + 1, np.int64)

    @torch.no_grad()
    def add(self, output: Image, observed: Image) -> None:
        """Take one frame: (H, W, 3) uint8 each."""
        length = self.estimator(as_tensor(output), as_tensor(observed)).flow.norm(dim=1)[0].numpy()
        texture = np.abs(cv2.Laplacian(cv2.cvtColor(observed, cv2.COLOR_RGB2GRAY), cv2.CV_32F))
        # A strict comparison: a flat frame has no textured pixel at all.
        chosen = length[texture > np.median(texture)]
        bins = np.minimum((chosen * BINS_PER_PIXEL).astype(np.int64), HISTOGRAM_BINS)
        self.counts += np.bincount(bins, minlength=HISTOGRAM_BINS + 1)

    def quantile(self, share: float) -> float:
        """Length in pixels below which this share of the pixels lies (0.5: the median); NaN without any pixel."""
        total = int(self.counts.sum())
        if total == 0:
            return float("nan")
        place = int(np.searchsorted(np.cumsum(self.counts), share * total))
        return place / BINS_PER_PIXEL
