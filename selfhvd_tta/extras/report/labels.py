"""The aligned sharp frames and masks of a few frames, as the method sees them from the finished output."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from selfhvd_tta.extras.report.pictures import VideoPair
from selfhvd_tta.method import transfer
from selfhvd_tta.method.clues import Clues
from selfhvd_tta.method.teachers import choose_teachers
from selfhvd_tta.run import feeds
from selfhvd_tta.run.equipment import Equipment, alignment_only
from selfhvd_tta.settings import Settings
from selfhvd_tta.video.color import Array


@dataclass(frozen=True)
class Shown:
    """What one frame learned from.

    Attributes:
        index: of the frame.
        teachers: sharp frames merged into its label.
        before: the input, (H, W, 3).
        label: the merged label, (H, W, 3) uint8; meaningless where the mask is 0.
        mask: (H, W) uint8, 255 = trusted.
        after: the output, (H, W, 3).
    """

    index: int
    teachers: tuple[int, ...]
    before: Array
    label: Array
    mask: Array
    after: Array


def with_labels(order: Sequence[int], clues: Clues, settings: Settings, count: int) -> list[int]:
    """The first ``count`` frames, in order of preference, that have something to learn."""
    able = (i for i in order if not clues.sharp[i] and choose_teachers(i, clues, settings.alignment).others)
    return sorted([i for i, _ in zip(able, range(count), strict=False)])


@torch.no_grad()
def show_labels(pair: VideoPair, indices: Sequence[int], clues: Clues, settings: Settings) -> Iterator[Shown]:
    """Align the sharp frames once more, this time to the output, the best picture of the frame that exists.

    Args:
        pair: input and output.
        indices: of :func:`with_labels`.
        clues: of the run.
        settings: of the run.
    """
    gear = Equipment.load(alignment_only(settings))
    device = gear.device
    for index in indices:
        teachers = choose_teachers(index, clues, settings.alignment)
        sharps = {f.index: feeds.to_tensor(f.rgb, device)[None] for f in pair.before.read(sorted(teachers.others))}
        _, before, after = next(pair.frames([index]))
        made = transfer.compose(
            feeds.to_tensor(before, device)[None],
            feeds.to_tensor(after, device)[None],
            [sharps[j] for j in teachers.others],
            teachers,
            gear.flow,
            settings.alignment,
        )
        label = (feeds.to_array(made.image[0]) * 255).round().clip(0, 255).astype(np.uint8)
        mask = (made.mask[0, 0].float().cpu().numpy() * 255).round().clip(0, 255).astype(np.uint8)
        yield Shown(index, teachers.others, before, label, mask, after)
