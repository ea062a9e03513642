"""Optical image stabilisation: a lens that moves against the hand, within its limits.

It copes with slow and simple motion and fails on fast or large motion, which is why videos of phones have sharp frames
among blurry ones (SelfHVD, Fig. 1).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from selfhvd_tta.lab.simulation.camera import Array, Trajectory
from selfhvd_tta.lab.simulation.motion import HandMotion


@dataclass(frozen=True)
class Stabiliser:
    """Two axes: yaw and pitch. It measures rotation alone; roll and translation pass through.

    Attributes:
        stroke: largest angle it makes up for, degrees to each side.
        bandwidth: of the actuator, Hz (first order).
        delay: from the motion to the actuator's command, seconds.
        centring: Hz; slower motion counts as intended, and the lens returns to its centre.
    """

    stroke: float = 0.8
    bandwidth: float = 25.0
    delay: float = 0.003
    centring: float = 0.3

    def residual(self, angles: Array, interval: float) -> Array:
        """What is left of a rotation.

        Args:
            angles: (2, K) yaw and pitch in radians.
            interval: seconds between two samples.

        Returns:
            (2, K) radians.
        """
        late = np.arange(angles.shape[1]) - self.delay / interval
        known = np.stack([np.interp(late, np.arange(angles.shape[1]), axis) for axis in angles])
        # The lens rests where the motion begins.
        slow, lens = known[:, 0].copy(), np.zeros(len(angles))
        follow = 1 - np.exp(-2 * np.pi * self.bandwidth * interval)
        drift = 1 - np.exp(-2 * np.pi * self.centring * interval)
        limit = np.deg2rad(self.stroke)
        left = np.empty_like(angles)
        for k in range(angles.shape[1]):
            slow += drift * (known[:, k] - slow)
            lens = np.clip(lens + follow * (known[:, k] - slow - lens), -limit, limit)
            left[:, k] = angles[:, k] - lens
        return left


def stabilised(motion: HandMotion, stabiliser: Stabiliser | None, focal: float) -> Trajectory:
    """How the picture turns.

    Args:
        motion: of the phone.
        stabiliser: None: there is none.
        focal: length in pixels.
    """
    turned = motion.angles[:2]
    if stabiliser is not None:
        turned = stabiliser.residual(turned, motion.interval)
    pose = np.stack([*(focal * np.tan(turned)), motion.angles[2], np.zeros_like(motion.times)])
    return Trajectory(motion.times, pose, focal)
