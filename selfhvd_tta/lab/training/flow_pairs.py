"""Pairs of frames for a flow behind a global motion: what the homography leaves between them, with the truth.

A pair is what :class:`~selfhvd_tta.flows.global_motion.GlobalMotionFirst` shows its inner flow: a recorded frame and a
sharper one that the fitted homography has warped and the fitted path has blurred. The truth is the simulator's flow
from mid-exposure to mid-exposure, taken through the inverse of that very homography: parallax, rolling shutter, moving
objects, and what the fit itself has missed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from selfhvd_tta.flows.blur_path import BlurPath
from selfhvd_tta.flows.global_motion import DOUBTFUL, GlobalMotion, blur_after, blur_matched
from selfhvd_tta.flows.homography import estimate_homography
from selfhvd_tta.flows.shake import first_guess
from selfhvd_tta.imaging import LUMA
from selfhvd_tta.lab.simulation.scene import project
from selfhvd_tta.lab.simulation.simulate import SimulatedClip
from selfhvd_tta.lab.simulation.true_flow import true_flow
from selfhvd_tta.lab.training.clip_files import ClipFiles

# Frames of one pair lie at most so far apart, as teachers of a frame do.
REACH = 10
# Share of pairs of equally sharp frames: sharp frames learn from each other too.
SHARP_PAIRS = 0.15
# Below this support the homography means nothing, and neither does what it leaves.
LEAST_SUPPORT = 0.3


@dataclass(frozen=True)
class FlowPairs:
    """Pairs of one clip, N of them; every array's last axes are (H, W) and its first is N.

    Attributes:
        frames: (N, 2, 3, H, W) uint8 RGB: the blurrier frame as recorded, and the other one made to look like it.
        guess: (N, 2, 2, H, W) float16, pixels: flow that the network starts from, there and back.
        truth: (N, 2, 2, H, W) float16, pixels: residual flow from the first frame to the second, and back.
        visible: (N, 2, H, W) bool: the point is seen in both frames.
        path: (N, 4) float32: velocity and bend of the fitted blur, pixels.
    """

    frames: NDArray[np.uint8]
    guess: NDArray[np.float16]
    truth: NDArray[np.float16]
    visible: NDArray[np.bool_]
    path: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.frames)


def residual_truth(
    there: NDArray[np.float32], back: NDArray[np.float32], matrix: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """What a homography leaves of a known flow.

    Args:
        there: (H, W, 2) flow from the first frame to the second, pixels.
        back: (H, W, 2) flow from the second frame to the first.
        matrix: (3, 3) homography from pixels of the first frame to pixels of the second.

    Returns:
        Flow (H, W, 2) from the first frame to the second one as the homography warps it; the flow back, on the grid of
        the warped frame; and the places (H, W, 2) of the second frame that the warped frame's pixels come from.
    """
    height, width = there.shape[:2]
    xs, ys = np.meshgrid(np.arange(width, dtype=np.float64), np.arange(height, dtype=np.float64))
    grid = np.stack([xs, ys], axis=-1)
    origin = project(matrix, grid)
    # The nearest vector, not a mixture: at an edge the mean of two motions is the motion of nothing.
    column, row = (np.rint(origin[..., axis]).astype(int) for axis in (0, 1))
    column, row = np.clip(column, 0, width - 1), np.clip(row, 0, height - 1)
    first = project(np.linalg.inv(matrix), grid + there) - grid
    second = origin + back[row, column] - grid
    return first.astype(np.float32), second.astype(np.float32), origin.astype(np.float32)


@dataclass(frozen=True)
class OnePair:
    """A pair as :class:`FlowPairs` keeps many, and the homography behind it."""

    frames: NDArray[np.uint8]
    guess: NDArray[np.float16]
    truth: NDArray[np.float16]
    visible: NDArray[np.bool_]
    path: NDArray[np.float32]
    motion: GlobalMotion


def make_pair(clip: SimulatedClip, blurry: int, sharp: int) -> OnePair | None:
    """The pair of two recorded frames of a clip, whichever of them the fit finds the blurrier one.

    Returns:
        None where no global motion is found.
    """
    pictures = [np.ascontiguousarray(clip.blurry[index].astype(np.float32) / 255) for index in (blurry, sharp)]
    grey = [picture @ np.array(LUMA, np.float32) for picture in pictures]
    motion = estimate_homography(grey[0], grey[1], max(grey[0].shape))
    if not motion.refined or motion.support < LEAST_SUPPORT:
        return None
    first, second = blurry, sharp
    if motion.blurrier == "target":
        motion, first, second, pictures = motion.inverse(), sharp, blurry, pictures[::-1]
    planes = [torch.from_numpy(picture).permute(2, 0, 1)[None] for picture in pictures]
    if motion.support < DOUBTFUL:  # as the estimator does it: flow first, then the blur that it leaves
        motion = replace(motion, path=BlurPath(), gain=1.0, offset=0.0)
        seen, _ = first_guess(*blur_matched(planes[0], planes[1], motion))
        motion = blur_after(planes[0], planes[1], motion, seen)
    observed, predicted = blur_matched(planes[0], planes[1], motion)
    there, seen_there = true_flow(clip, first, second)
    back, seen_back = true_flow(clip, second, first)
    ahead, behind, origin = residual_truth(there, back, motion.matrix)
    x, y = origin[..., 0], origin[..., 1]
    height, width = x.shape
    real = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    nearest = cv2.remap(seen_back.astype(np.uint8), x, y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT)
    guess = first_guess(observed, predicted)
    return OnePair(
        frames=(torch.cat([observed, predicted]) * 255).round().to(torch.uint8).numpy(),
        guess=torch.cat(guess).to(torch.float16).numpy(),
        truth=np.stack([ahead, behind]).transpose(0, 3, 1, 2).clip(-200, 200).astype(np.float16),
        visible=np.stack([seen_there, (nearest > 0) & real]),
        path=np.array([*motion.path.velocity, *motion.path.bend], np.float32),
        motion=motion,
    )


def choose_pairs(clip: SimulatedClip, count: int, generator: np.random.Generator) -> Iterator[tuple[int, int]]:
    """Frames to pair: any one with a sharp one near it, and now and then two sharp ones."""
    sharp = np.flatnonzero(clip.extent < max(1.0, float(np.partition(clip.extent, 2)[2])) * 1.001)
    for _ in range(count):
        source = int(
            generator.choice(sharp) if generator.random() < SHARP_PAIRS else generator.integers(len(clip.extent))
        )
        near = sharp[(sharp != source) & (np.abs(sharp - source) <= REACH)]
        if len(near):
            yield source, int(generator.choice(near))


def make_pairs(clip: SimulatedClip, count: int, generator: np.random.Generator) -> FlowPairs | None:
    """Up to ``count`` pairs of a clip; None if there is not one."""
    made = [make_pair(clip, *chosen) for chosen in choose_pairs(clip, count, generator)]
    pairs = [pair for pair in made if pair is not None]
    if not pairs:
        return None
    return FlowPairs(
        frames=np.stack([pair.frames for pair in pairs]),
        guess=np.stack([pair.guess for pair in pairs]),
        truth=np.stack([pair.truth for pair in pairs]),
        visible=np.stack([pair.visible for pair in pairs]),
        path=np.stack([pair.path for pair in pairs]),
    )


class PairPool(ClipFiles[FlowPairs]):
    """The clips' pairs that a training run draws from, made once and kept on disk.

    Args:
        photos, folder, settings: see :class:`ClipFiles`.
        pairs: tried per clip.
    """

    def __init__(self, photos: list[Path], folder: Path, *, pairs: int, **settings: Any) -> None:
        super().__init__(photos, folder, **settings)
        self.pairs = pairs

    def lesson(self, clip: SimulatedClip, generator: np.random.Generator) -> FlowPairs | None:
        """See :meth:`ClipFiles.lesson`."""
        return make_pairs(clip, self.pairs, generator)

    def read(self, arrays: dict[str, np.ndarray]) -> FlowPairs:
        """See :meth:`ClipFiles.read`."""
        return FlowPairs(**arrays)
