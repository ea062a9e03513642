"""Self-enhanced video deblurring (Sec. 3.2): random sharp-clue removal and supervision selection."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from torch import Tensor

BoolArray = npt.NDArray[np.bool_]


def remove_sharp_clues(
    clip: list[int], sharp: BoolArray, rng: np.random.Generator, max_removed: int | None
) -> list[int]:
    """RSCR as an index list: position i of the degraded clip shows source frame k(i).

    Of the clip's sharp frames l are drawn, 0 < l <= L, and each is replaced by the blurry frame of the clip that is
    nearest to it in time (of two equally near ones, either at random). The target of position i is then row k(i) of
    the label bank.

    Args:
        clip: source frame of every position, ascending, within one shot.
        sharp: (N,) True for the sharp frames of the video.
        rng: source of the draws.
        max_removed: L; None for as many as the clip holds.

    Returns:
        k: list of the same length; equal to ``clip`` where the clip has no sharp or no blurry frame.
    """
    blurry = [i for i in clip if not sharp[i]]
    positions = [p for p, i in enumerate(clip) if sharp[i]]
    if not blurry or not positions:
        return list(clip)
    most = len(positions) if max_removed is None else min(max_removed, len(positions))
    removed = rng.choice(positions, size=int(rng.integers(1, most + 1)), replace=False)
    result = list(clip)
    for position in sorted(int(p) for p in removed):
        distance = [abs(i - clip[position]) for i in blurry]
        ties = [i for i, d in zip(blurry, distance, strict=True) if d == min(distance)]
        result[position] = int(rng.choice(ties))
    return result


def remove_at_random(clip: list[int], sharp: BoolArray, rng: np.random.Generator, max_removed: int | None) -> list[int]:
    """What RSCR is compared with in Table 4: as many frames are replaced, sharp or not, by the nearest that is left.

    Args:
        clip, sharp, rng, max_removed: as for :func:`remove_sharp_clues`.

    Returns:
        k: list of the same length.
    """
    count = int(sum(bool(sharp[i]) for i in clip))
    most = min(count if max_removed is None else min(max_removed, count), len(clip) - 1)
    if most < 1:
        return list(clip)
    removed = {int(p) for p in rng.choice(len(clip), size=int(rng.integers(1, most + 1)), replace=False)}
    left = [i for p, i in enumerate(clip) if p not in removed]
    return [min(left, key=lambda other: abs(other - i)) if p in removed else i for p, i in enumerate(clip)]


def supervision_is_label(
    occlusion_mean: Tensor, label_sharpness: Tensor, teacher_sharpness: Tensor, threshold: float
) -> Tensor:
    """SIS (Eq. 8): True where the aligned sharp frame supervises, False where the model's own output does.

    Args:
        occlusion_mean: mean of M_occ, any shape, 0..1.
        label_sharpness: v_l of the aligned sharp frame S_{j->k}.
        teacher_sharpness: v_l of R_k, on the same pixels.
        threshold: tau.

    Returns:
        c, bool, of the same shape.
    """
    return (occlusion_mean > threshold) & (label_sharpness > teacher_sharpness)
