"""The frames that adaptation draws from: all of a short video, a bounded selection of a long one."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from selfhvd_tta.method.clues import Clues, nearest_sharp

Box = tuple[int, int, int, int]  # top, left, height, width


@dataclass(frozen=True)
class WorkingSet:
    """Frames of the video held in memory. A *row* is a position in it.

    Attributes:
        frames: (N, 3, H, W) uint8 RGB.
        numbers: frame number in the video of every row, ascending.
        clues: the clues, counted in rows.
        runs: rows that are consecutive frames of one shot.
    """

    frames: Tensor
    numbers: tuple[int, ...]
    clues: Clues
    runs: tuple[range, ...]

    def __len__(self) -> int:
        return len(self.numbers)

    def observed(self, row: int, device: torch.device) -> Tensor:
        """B of one row: (1, 3, H, W) float in [0, 1]."""
        return self.frames[row : row + 1].to(device).float() / 255

    def shown(self, rows: Sequence[int], box: Box, device: torch.device) -> Tensor:
        """Some frames, cropped: (n, 3, h, w) float in [0, 1]."""
        return cropped(self.frames, rows, box, device).float() / 255


def cropped(stack: Tensor, rows: Sequence[int], box: Box, device: torch.device) -> Tensor:
    """Some rows of a stack (N, C, H, W) on any device, cropped, on ``device``: (n, C, h, w)."""
    top, left, height, width = box
    region = stack[:, :, top : top + height, left : left + width]
    crop = region.index_select(0, on_device(rows, stack.device))
    return crop if stack.device == device else moved(crop, device)


def on_device(numbers: Sequence[int] | Sequence[Sequence[int]], device: torch.device) -> Tensor:
    """Whole numbers as a tensor on the device, without waiting for it."""
    return moved(torch.tensor(numbers), device)


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy to ``device`` via pinned memory, without blocking the host."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def choose_frames(clues: Clues, limit: int, segment: int) -> list[int]:
    """Pick the frames of the working set.

    Whole segments are taken (each holds a sharp frame), those with soft frames only, evenly spread in time.

    Args:
        clues: of the video.
        limit: most frames.
        segment: frames per segment.

    Returns:
        Ascending frame numbers: all of them if they fit.
    """
    count = len(clues.sharp)
    if count <= limit:
        return list(range(count))
    segments = [
        range(start, min(start + segment, shot.stop))
        for shot in clues.shots
        for start in range(shot.start, shot.stop, segment)
    ]
    useful = [s for s in segments if len(s) > 1 and any(clues.soft[i] for i in s)] or segments
    wanted = min(len(useful), max(1, limit // segment))
    picked = [useful[p] for p in np.unique(np.linspace(0, len(useful) - 1, wanted).round().astype(int))]
    return [i for s in picked for i in s][:limit]


def restrict(clues: Clues, numbers: Sequence[int]) -> tuple[Clues, tuple[range, ...]]:
    """Express the clues in rows of a working set.

    Args:
        clues: of the video.
        numbers: ascending frame numbers.

    Returns:
        Clues over the rows, and the runs of consecutive frames of one shot.
    """
    index = np.asarray(numbers, dtype=np.int64)
    shot_number = np.concatenate([np.full(len(shot), p) for p, shot in enumerate(clues.shots)])[index]
    shot_edges = [0, *(np.flatnonzero(np.diff(shot_number)) + 1).tolist(), len(index)]
    shots = tuple(range(a, b) for a, b in itertools.pairwise(shot_edges))
    breaks = (np.diff(index) != 1) | (np.diff(shot_number) != 0)
    run_edges = [0, *(np.flatnonzero(breaks) + 1).tolist(), len(index)]
    runs = tuple(range(a, b) for a, b in itertools.pairwise(run_edges))
    sharp = clues.sharp[index].copy()
    score = clues.score[index]
    nearest = np.zeros(len(index), dtype=np.int64)
    for shot in shots:
        rows = slice(shot.start, shot.stop)
        if not sharp[rows].any():
            sharp[shot.start + int(np.argmax(score[rows]))] = True
        nearest[rows] = shot.start + nearest_sharp(score[rows], sharp[rows])
    thresholds = tuple(clues.thresholds[int(shot_number[shot.start])] for shot in shots)
    return (
        replace(
            clues,
            sharpness=clues.sharpness[index],
            sharp=sharp,
            nearest=nearest,
            shots=shots,
            thresholds=thresholds,
            soft=clues.soft[index],
            score=score,
        ),
        runs,
    )
