"""Exposure share: how much of the time between two frames the shutter is open, measured on the blurry frame itself.

Blur along a path of length ``L`` turns every edge into two equal steps of the derivative, ``L`` apart and of opposite
sign where the path enters and leaves it: the correlation of the derivative along the motion with itself has its dip at
that distance. Pixel by pixel the distance is measured in units of the motion during one frame time, so that all of a
frame, and all frames of a video, vote for one number. No sharp frame is needed for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np

from selfhvd_tta.method.blur_field import FlowArray, Gray, to_light, warp

# Shares that are tried. The dip may lie beyond 1 because of OUTWARD.
TRIALS = np.arange(0.2, 1.45, 0.05)
# Pictures' own correlation, negative and fading, moves the dip outward: measured on recordings of known exposure.
OUTWARD = 1.25
# Motion in pixels per frame time below which a place says nothing, and the part of a frame that has to say something.
LEAST_MOTION = 4.0
LEAST_AREA = 0.05
# Depth of the dip at which it counts.
LEAST_DEPTH = 0.02
# Half the distance in pixels over which the derivative is taken, and the scale at which its strength is evened out.
HALF_STEP = 0.75
EVENING = 8.0
# What is assumed of a video that says nothing: the middle of what real clips have.
USUAL = 0.55
# Blur of this many pixels cannot be distinguished from none: the share of a frame with little more is lowered.
INDISTINCT = 1.3


@dataclass(frozen=True)
class Vote:
    """What one frame says about the exposure share.

    Attributes:
        share: 0..1; None: it says nothing.
        depth: of the dip, a correlation coefficient.
    """

    share: float | None
    depth: float = 0.0


def vote(luma: Gray, velocity: FlowArray) -> Vote:
    """The exposure share of one frame, from the blur in it.

    Args:
        luma: (H, W) uint8.
        velocity: (H, W, 2), pixels per frame time.
    """
    length = np.hypot(velocity[..., 0], velocity[..., 1])
    moving = length > LEAST_MOTION
    if moving.mean() < LEAST_AREA:
        return Vote(None)
    light = to_light(luma.astype(np.float32) / 255)
    step = velocity * (HALF_STEP / np.maximum(length, 1e-3))[..., None]
    slope = warp(light, step) - warp(light, -step)
    slope /= np.sqrt(cv2.GaussianBlur(slope * slope, (0, 0), EVENING) + 1e-6)
    here = slope[moving]
    curve = np.array([float((here * warp(slope, velocity * np.float32(t))[moving]).mean()) for t in TRIALS])
    lowest = int(np.argmin(curve))
    share = float(TRIALS[lowest]) / OUTWARD
    if curve[lowest] > -LEAST_DEPTH or lowest == len(TRIALS) - 1:
        return Vote(None, -float(curve[lowest]))
    return Vote(min(share, 1.0), -float(curve[lowest]))


@dataclass(frozen=True)
class Exposure:
    """How a video was exposed.

    Attributes:
        share: exposure share, 0..1.
        length: median length of the blur of its blurry frames, pixels of the size that frames are aligned at.
        known: part of the measured frames that gave a result, 0..1.
    """

    share: float
    length: float
    known: float

    @classmethod
    def of(cls, frames: Iterable[tuple[Gray, FlowArray]]) -> Exposure:
        """From some blurry frames of a video, each with its velocity: medians of what they say.

        Where none says anything, the share is ``USUAL``.
        """
        votes, motions = [], []
        for luma, velocity in frames:
            votes.append(vote(luma, velocity).share)
            motions.append(median_motion(velocity))
        said = [share for share in votes if share is not None]
        usual = float(np.median(said)) if said else USUAL
        lengths = [(usual if share is None else share) * m for share, m in zip(votes, motions, strict=True)]
        return cls(usual, float(np.median(lengths)) if lengths else 0.0, len(said) / max(1, len(votes)))


def median_motion(velocity: FlowArray) -> float:
    """Median displacement during one frame time, pixels."""
    small = velocity[::4, ::4]
    return float(np.median(np.hypot(small[..., 0], small[..., 1])))


def trusted(share: float, motion: float) -> float:
    """A share, lowered where the blur that it gives can hardly be distinguished from none.

    Back-projection along a blur that is not there costs more than leaving one of a pixel.

    Args:
        share: 0..1.
        motion: median displacement during one frame time, pixels.
    """
    return share * max(0.0, 1 - (INDISTINCT / max(share * motion, 1e-6)) ** 2)
