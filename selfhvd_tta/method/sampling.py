"""Drawing training clips: where in the video, where in the frame, and how it is turned."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from selfhvd_tta.method.clues import BoolArray
from selfhvd_tta.method.sevd import remove_at_random, remove_sharp_clues
from selfhvd_tta.method.working_set import WorkingSet
from selfhvd_tta.settings import AdaptationSettings


@dataclass(frozen=True)
class Draw:
    """One training clip.

    Attributes:
        rows: source row of every position before anything is removed.
        shown: row k(i) that position i shows after RSCR; equal to ``rows`` where nothing was removed.
        box: top, left, height, width of the crop.
        turn: number of 90-degree rotations, 0..3.
        flip: mirrored left to right.
    """

    rows: tuple[int, ...]
    shown: tuple[int, ...]
    box: tuple[int, int, int, int]
    turn: int
    flip: bool

    def turned(self, frames: Tensor) -> Tensor:
        """Apply rotation and mirror to (..., h, w)."""
        if self.flip:
            frames = frames.flip(-1)
        return torch.rot90(frames, self.turn, (-2, -1)) if self.turn else frames


def draw_clips(
    working: WorkingSet,
    settings: AdaptationSettings,
    rng: np.random.Generator,
    degrade: bool,
    wanted: BoolArray | None = None,
) -> list[Draw]:
    """Draw the clips of one step: equally long, equally large.

    Args:
        working: the frames.
        settings: crop, clip length, batch, RSCR's L.
        rng: source of all draws.
        degrade: apply RSCR.
        wanted: (N,) rows of which a clip has to show one; None: those that are not sharp.

    Returns:
        ``settings.batch`` draws; clips are shorter than asked for where the video is.
    """
    height, width = working.frames.shape[-2:]
    side = (min(settings.side, height), min(settings.side, width))
    longest = max(len(run) for run in working.runs)
    length = min(settings.length, longest)
    starts = [start for run in working.runs for start in range(run.start, run.stop - length + 1)]
    # Clips in which every frame is sharp teach nothing.
    wanted = ~working.clues.sharp if wanted is None else wanted
    useful = [s for s in starts if wanted[s : s + length].any()] or starts
    remove = remove_at_random if settings.random_removal else remove_sharp_clues
    draws = []
    for _ in range(settings.batch):
        start = useful[int(rng.integers(len(useful)))]
        rows = list(range(start, start + length))
        shown = remove(rows, working.clues.sharp, rng, settings.max_removed) if degrade else rows
        top = int(rng.integers(height - side[0] + 1))
        left = int(rng.integers(width - side[1] + 1))
        # A crop that is not square keeps its orientation within the batch.
        turn = int(rng.integers(4)) if side[0] == side[1] else 2 * int(rng.integers(2))
        draws.append(Draw(tuple(rows), tuple(shown), (top, left, *side), turn, bool(rng.integers(2))))
    return draws
