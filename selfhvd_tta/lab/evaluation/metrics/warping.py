"""Warping error: how much consecutive frames differ along the motion (after Lai et al., ECCV 2018)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from selfhvd_tta import flows
from selfhvd_tta.flows import FlowEstimator
from selfhvd_tta.lab.evaluation.metrics.frames import Image, as_tensor
from selfhvd_tta.method.alignment import visible, warp

# Pixels whose forward-backward error is below half a pixel count as visible in both frames.
VISIBLE = 0.5


def evaluation_flow() -> FlowEstimator:
    """DIS, whatever the method itself uses: no weights, the same for all methods that are compared."""
    flow = flows.discover()["dis"]
    return flow.build(**flow.variant().config)


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
    forward, backward = estimator.both(as_tensor(first), as_tensor(second))
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
    moved = warp(as_tensor(second), motion.flow)
    error = (as_tensor(first) - moved).square().mean(1, keepdim=True)[motion.visible]
    return 255 * float(error.mean().sqrt())
