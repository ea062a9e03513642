"""Sharp-detail transfer: blending a frame with the sharp frames around it, aligned and masked.

It makes the labels of adaptation, and by itself it is the baseline without a network (after Cho et al. 2012,
"Video deblurring for hand-held cameras using patch-based synthesis").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from selfhvd_tta.flows import FlowEstimator
from selfhvd_tta.method.alignment import Aligned, align
from selfhvd_tta.method.clues import Clues
from selfhvd_tta.method.parallel import each
from selfhvd_tta.settings import AlignmentSettings

FINEST_SIGMA = 1.5  # pixels: below it a Gaussian is no longer one


def low_pass(frames: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of (B, C, H, W) frames by ``sigma`` pixels, borders replicated."""
    radius = max(1, min(round(3 * sigma), min(frames.shape[-2:]) - 1))
    x = torch.arange(-radius, radius + 1, device=frames.device, dtype=frames.dtype)
    kernel = torch.exp(-0.5 * (x / sigma) ** 2)
    kernel = (kernel / kernel.sum()).repeat(frames.shape[1], 1)
    padded = F.pad(frames, (radius, radius, radius, radius), mode="replicate")
    rows = F.conv2d(padded, kernel[:, None, None, :], groups=frames.shape[1])
    return F.conv2d(rows, kernel[:, None, :, None], groups=frames.shape[1])


def photometric_agreement(aligned: Tensor, observed: Tensor, sigma: float, tolerance: float, shift: float) -> Tensor:
    """How well an aligned sharp frame explains the observed blurry one at the scale of the blur.

    Both are low-passed, so that blur itself does not count as a difference. The difference that a shift of
    ``shift`` pixels could make is allowed, on top of ``tolerance``.

    Args:
        aligned: S_{j->i}, (B, 3, H, W) in [0, 1].
        observed: B_i, (B, 3, H, W) in [0, 1].
        sigma: of the low pass, pixels.
        tolerance: difference that counts as agreement, 0..1.
        shift: misplacement that counts as agreement, pixels.

    Returns:
        (B, 1, H, W) in [0, 1], 1 = explains it.
    """
    # What is going to be smooth can be looked at from further away: many times less work on large frames.
    factor = max(1, int(sigma / FINEST_SIGMA))
    small = [F.avg_pool2d(x, factor, ceil_mode=True, count_include_pad=False) for x in (aligned, observed)]
    a, b = (low_pass(x, sigma / factor) for x in small)
    difference = (a - b).abs().mean(dim=1, keepdim=True)
    grey = b.mean(dim=1, keepdim=True)
    dx = F.pad(grey[..., :, 1:] - grey[..., :, :-1], (0, 1, 0, 0), mode="replicate")
    dy = F.pad(grey[..., 1:, :] - grey[..., :-1, :], (0, 0, 0, 1), mode="replicate")
    # A gradient per pixel of the small frame: a shift by so many of its pixels.
    allowed = tolerance + shift / factor * (dx.square() + dy.square()).sqrt()
    agreement = torch.exp(-((difference / allowed) ** 2))
    if factor == 1:
        return agreement
    return F.interpolate(agreement, size=observed.shape[-2:], mode="bilinear", align_corners=False)


@dataclass(frozen=True)
class Composite:
    """What the sharp frames around frame i say it should look like.

    Attributes:
        image: (1, 3, H, W) in [0, 1]; meaningless where the mask is 0.
        mask: (1, 1, H, W) in [0, 1], 1 = trust.
        occlusion: (1, 1, H, W) in [0, 1], the largest M_occ among the sharp frames.
    """

    image: Tensor
    mask: Tensor
    occlusion: Tensor


def rank_teachers(index: int, clues: Clues, settings: AlignmentSettings) -> list[int]:
    """The sharp frames to learn frame ``index`` from, best first: near in time, and sharp.

    Otsu's threshold lets frames through that are a good deal less sharp than others near them. With more than one
    teacher, such a frame learns from those; alone, every sharp frame stands for itself, as the paper has it.

    Args:
        index: frame to be labelled.
        clues: of the video.
        settings: number of teachers, their reach, and from which ratio of v_l on a sharp frame has something to learn.

    Returns:
        Between 1 and ``settings.teachers`` indices within the shot; ``[index]`` for a frame with nothing to learn.
    """
    own = float(clues.sharpness[index])
    shot = clues.shot_of(index)
    near = [j for j in clues.sharp_in(shot) if j != index and abs(j - index) <= settings.teacher_reach]
    if clues.sharp[index]:
        others = [j for j in near if clues.sharpness[j] > settings.teacher_advantage * own]
        if settings.teachers == 1 or not others:
            return [index]
        nearest = min(others, key=lambda j: abs(j - index))
    else:
        nearest = int(clues.nearest[index])
        others = near
    others = [j for j in others if j != nearest]
    best = max(clues.sharpness[j] for j in [nearest, *others])

    def cost(j: int) -> float:
        return abs(j - index) - 4.0 * float(np.log(clues.sharpness[j] / best + 1e-9))

    # A frame on the other side in time sees what the nearest one has covered, so sides take turns.
    before = sorted((j for j in others if j < index), key=cost)
    after = sorted((j for j in others if j > index), key=cost)
    sides = [after, before] if nearest < index else [before, after]
    ranked = [nearest]
    while len(ranked) < settings.teachers and (sides[0] or sides[1]):
        if sides[0]:
            ranked.append(sides[0].pop(0))
        sides.reverse()
    return ranked[: settings.teachers]


def compose(
    observed: Tensor,
    current: Tensor,
    sharps: Sequence[Tensor],
    estimator: FlowEstimator,
    settings: AlignmentSettings,
) -> Composite:
    """Align several sharp frames to one frame and merge them by their masks.

    Args:
        observed: B_i, (1, 3, H, W) in [0, 1].
        current: R_i, what the frame is believed to look like; flow starts from it.
        sharps: sharp frames, best first, each (1, 3, H, W).
        estimator: optical flow.
        settings: masks.
    """
    aligned: list[Aligned] = each(lambda sharp: align(sharp, current, estimator, settings), sharps, current.device)
    sigma = max(1.5, settings.agreement_sigma * max(observed.shape[-2:]) / 1000)
    masks = []
    for one in aligned:
        mask = one.mask
        if settings.photometric:
            mask = mask * photometric_agreement(
                one.image, observed, sigma, settings.agreement_tolerance, settings.agreement_shift
            )
        masks.append(mask)
    if len(aligned) == 1:
        return Composite(aligned[0].image, masks[0], aligned[0].occlusion)
    # A power sharpens the choice: averaging frames that are misaligned by a fraction of a pixel would blur again.
    weights = [mask**settings.blend_power * settings.rank_decay**rank for rank, mask in enumerate(masks)]
    total = torch.stack(weights).sum(dim=0)
    image = torch.stack([w * one.image for w, one in zip(weights, aligned, strict=True)]).sum(dim=0)
    return Composite(
        image=image / total.clamp(min=1e-6),
        mask=torch.stack(masks).amax(dim=0),
        occlusion=torch.stack([one.occlusion for one in aligned]).amax(dim=0),
    )


def apply(composite: Composite, current: Tensor) -> Tensor:
    """The frame with the composite blended in where it can be trusted: (1, 3, H, W)."""
    return torch.lerp(current, composite.image, composite.mask)
