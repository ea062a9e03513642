"""Behaviour over time and in space: warping error, flicker, and whether the picture was moved."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from selfhvd_tta import flows
from selfhvd_tta.flows import FlowEstimator
from selfhvd_tta.method.alignment import visible, warp

Image = NDArray[np.uint8]
# Pixels whose forward-backward error is below half a pixel count as visible in both frames.
VISIBLE = 0.5
GRID = (20, 12)
HISTOGRAM_BINS = 4000
BINS_PER_PIXEL = 100


def evaluation_flow() -> FlowEstimator:
    """DIS, whatever the method itself uses: no weights, the same for all methods that are compared."""
    flow = flows.discover()["dis"]
    return flow.build(**flow.variant().config)


def _tensor(frame: Image) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1).float()[None] / 255


@dataclass
class Motion:
    """Matches between two consecutive frames of a reference video.

    Attributes:
        flow: (1, 2, H, W), from the first frame to the second, pixels.
        visible: (1, 1, H, W) bool, seen in both.
    """

    flow: Tensor
    visible: Tensor


@torch.no_grad()
def find_motion(first: Image, second: Image, estimator: FlowEstimator) -> Motion:
    """Flow of the reference between two frames, and where it holds."""
    forward, backward = estimator.both(_tensor(first), _tensor(second))
    return Motion(forward.flow, visible(forward, backward, 1.0) > 1 - VISIBLE)


def warping_error(first: Image, second: Image, motion: Motion) -> float:
    """How much two consecutive frames differ along the motion (after Lai et al., ECCV 2018).

    Args:
        first: (H, W, 3) uint8.
        second: the next frame.
        motion: of the *reference* (ground truth, or the input without one), the same for all methods.

    Returns:
        Root mean square difference over the visible pixels, in code values (0..255); NaN if none is visible.
    """
    if not bool(motion.visible.any()):
        return float("nan")
    moved = warp(_tensor(second), motion.flow)
    error = (_tensor(first) - moved).square().mean(1, keepdim=True)[motion.visible]
    return 255 * float(error.mean().sqrt())


def _brightness(frame: Image) -> NDArray[np.float64]:
    """Mean of every block of a 20 x 12 grid, per channel; sharpness does not change it."""
    return np.asarray(cv2.resize(frame.astype(np.float32), GRID, interpolation=cv2.INTER_AREA), np.float64)


def flicker(outputs: tuple[Image, Image], references: tuple[Image, Image]) -> float:
    """Change of brightness and colour from one frame to the next that the reference does not show.

    Args:
        outputs: two consecutive output frames, (H, W, 3) uint8.
        references: the same frames of the ground truth, or of the input.

    Returns:
        Mean over a grid of 20 x 12 blocks, in code values.
    """
    change = _brightness(outputs[1]) - _brightness(outputs[0])
    expected = _brightness(references[1]) - _brightness(references[0])
    return float(np.abs(change - expected).mean())


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
        length = self.estimator(_tensor(output), _tensor(observed)).flow.norm(dim=1)[0].numpy()
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
