"""Sharp-detail transfer: blending a frame with the sharp frames around it, aligned and masked.

It makes the labels of adaptation, and by itself it is the baseline without a network (after Cho et al. 2012,
"Video deblurring for hand-held cameras using patch-based synthesis").
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from selfhvd_tta.flows import FlowEstimator
from selfhvd_tta.imaging import gaussian, opened, reduced
from selfhvd_tta.method.alignment import Aligned, align
from selfhvd_tta.method.composite import Candidates, Composite
from selfhvd_tta.method.parallel import each
from selfhvd_tta.method.sharpness import laplacian
from selfhvd_tta.method.teachers import Teachers
from selfhvd_tta.method.working_set import moved
from selfhvd_tta.settings import AlignmentSettings

FINEST_SIGMA = 1.5  # pixels: below it a Gaussian is no longer one
REACH = 3.0  # radius of its kernel in sigma
# Sharp frames are compared patch by patch: what exceeds the usual squared difference by this many times itself,
# or by this many squared code values, is not noise.
PATCH = 5
TOLERANCE = 3.0
LEAST_DIFFERENCE = 4.0


def photometric_agreement(aligned: Tensor, observed: Tensor, sigma: float, tolerance: float, shift: float) -> Tensor:
    """How well an aligned sharp frame explains the observed blurry one at the scale of the blur.

    Both are low-passed, so that blur itself does not count as a difference. The difference that a shift of
    ``shift`` pixels could make is allowed, on top of ``tolerance``.

    Args:
        aligned: S_{j->i}, (B, 3, H, W) in [0, 1].
        observed: B_i, (B, 3, H, W) in [0, 1], or one for all of them.
        sigma: of the low pass, pixels.
        tolerance: difference that counts as agreement, 0..1.
        shift: misplacement that counts as agreement, pixels.

    Returns:
        (B, 1, H, W) in [0, 1], 1 = explains it.
    """
    # What will be smooth can be computed at a smaller size: many times less work on large frames.
    factor = max(1, int(sigma / FINEST_SIGMA))
    a, b = (gaussian(reduced(x, factor), sigma / factor, REACH) for x in (aligned, observed))
    difference = (a - b).abs().mean(dim=1, keepdim=True)
    grey = b.mean(dim=1, keepdim=True)
    dx = F.pad(grey[..., :, 1:] - grey[..., :, :-1], (0, 1, 0, 0), mode="replicate")
    dy = F.pad(grey[..., 1:, :] - grey[..., :-1, :], (0, 0, 0, 1), mode="replicate")
    # A gradient per pixel of the small frame: a shift in its pixels.
    allowed = tolerance + shift / factor * (dx.square() + dy.square()).sqrt()
    agreement = torch.exp(-((difference / allowed) ** 2))
    if factor == 1:
        return agreement
    return F.interpolate(agreement, size=observed.shape[-2:], mode="bilinear", align_corners=False)


def local_sharpness(frames: Tensor, sigma: float) -> Tensor:
    """Energy of the Laplacian around each pixel: (B, 1, H, W) in squared code values.

    Args:
        frames: (B, 3, H, W) in [0, 1].
        sigma: extent of the surroundings, pixels.
    """
    factor = max(1, int(sigma / FINEST_SIGMA))
    smooth = gaussian(reduced(laplacian(frames).square(), factor), sigma / factor, REACH)
    return F.interpolate(smooth, size=frames.shape[-2:], mode="bilinear", align_corners=False) if factor > 1 else smooth


def without_slivers(mask: Tensor, width: float) -> Tensor:
    """A mask without its parts that are narrower than ``width`` pixels: never more than it was.

    Args:
        mask: (B, 1, H, W) in [0, 1].
        width: at most about a third of the frame counts; below 3 pixels nothing is taken away.
    """
    # Wide windows are slow to slide: use a smaller picture of the mask, five to nine pixels for that width.
    factor = max(1, int(width / 5))
    small = reduced(mask, factor)
    radius = min(round((width / factor - 1) / 2), (min(small.shape[-2:]) - 1) // 3)
    if radius < 1:
        return mask
    kept = opened(small, radius)
    if factor > 1:
        kept = F.interpolate(kept, size=mask.shape[-2:], mode="bilinear", align_corners=False)
        # What the smaller picture rounds off at slopes is not a sliver.
        return torch.where(kept > 0.5 * mask, mask, torch.minimum(mask, kept))
    return kept


def similarity(aligned: Tensor, frame: Tensor) -> Tensor:
    """How well aligned frames agree with an equally sharp one, against the noise that they all have.

    Args:
        aligned: (n, 3, H, W) in [0, 1].
        frame: (1, 3, H, W) in [0, 1].

    Returns:
        (n, 1, H, W) in [0, 1]; 1 where the difference is that of most places.
    """
    difference = (255 * (aligned - frame)).square().mean(dim=1, keepdim=True)
    difference = F.avg_pool2d(difference, PATCH, stride=1, padding=PATCH // 2, count_include_pad=False)
    usual = difference[..., ::4, ::4].median()
    return torch.exp(-(difference - usual).clamp(min=0) / (TOLERANCE * usual + LEAST_DIFFERENCE))


def compose(
    observed: Tensor,
    current: Tensor,
    sharps: Sequence[Tensor],
    teachers: Teachers,
    estimator: FlowEstimator,
    settings: AlignmentSettings,
    candidates: int = 0,
) -> Composite:
    """Align several sharp frames to one frame and merge them by their masks and by how sharp they are.

    Args:
        observed: B_i, (1, 3, H, W) in [0, 1].
        current: R_i, the best estimate of the frame; flow starts from it, unless it explains blur itself.
        sharps: the frames ``teachers.others``, each (1, 3, H, W).
        teachers: of the frame.
        estimator: optical flow.
        settings: masks.
        candidates: most aligned frames to return.

    Returns:
        The merged frame. For a frame without teachers it is the frame itself, with a mask of 1.
    """
    certain = torch.ones_like(observed[:, :1])
    if not sharps:
        return Composite(observed, certain, certain)
    source = observed if estimator.explains_blur else current
    aligned: list[Aligned] = each(
        lambda sharp: align(sharp, source, estimator, settings), sharps, source.device, estimator.economy.one_by_one
    )
    longer = max(observed.shape[-2:]) / 1000
    sigma = max(1.5, settings.agreement_sigma * longer)
    images = torch.cat([one.image for one in aligned])
    masks = without_slivers(torch.cat([one.mask for one in aligned]), settings.narrowest * longer)
    if settings.photometric:
        masks = masks * photometric_agreement(
            images, observed, sigma, settings.agreement_tolerance, settings.agreement_shift
        )
    occlusion = torch.stack([one.occlusion for one in aligned]).amax(dim=0)
    if len(aligned) == 1 and not teachers.own:
        chosen = _candidates(images, masks, masks, images, teachers) if candidates else None
        return Composite(images, masks, occlusion, chosen)
    # A power sharpens the choice: averaging frames that are misaligned by a fraction of a pixel would blur again.
    weights = masks**settings.blend_power
    weights = weights * moved(torch.tensor(teachers.weights), weights.device).view(-1, 1, 1, 1)
    if teachers.own:
        images = torch.cat((images, observed))
        weights = torch.cat((weights, teachers.own * certain))
    if settings.local_power:
        energy = local_sharpness(images, max(1.5, settings.local_sigma * longer))
        weights = weights * (energy / (energy.amax(dim=0, keepdim=True) + 1e-3)) ** settings.local_power
    if teachers.equal:
        weights = torch.cat((weights[:-1] * similarity(images[:-1], observed), weights[-1:]))
    total = weights.sum(dim=0, keepdim=True)
    image = (weights * images).sum(dim=0, keepdim=True) / total.clamp(min=1e-6)
    return Composite(
        image=image,
        mask=certain if teachers.own else masks.amax(dim=0, keepdim=True),
        occlusion=occlusion,
        candidates=_candidates(images, masks, weights, image, teachers, candidates) if candidates else None,
    )


def _candidates(
    images: Tensor, masks: Tensor, weights: Tensor, merged: Tensor, teachers: Teachers, count: int = 1
) -> Candidates:
    """The aligned frames of greatest weight, and statistics of the weights.

    Args:
        images: (n, 3, H, W), of the teachers and, where it is one of them, of the frame itself.
        masks: of the teachers, (m, 1, H, W).
        weights: (n, 1, H, W).
        merged: (1, 3, H, W), their weighted mean.
        teachers: of the frame.
        count: how many at most.
    """
    total = weights.sum(dim=0, keepdim=True)
    others = len(masks)
    best = weights[:others].mean(dim=(1, 2, 3)).argsort(descending=True, stable=True)[:count]
    variance = (weights * (images - merged).square().mean(dim=1, keepdim=True)).sum(dim=0, keepdim=True)
    return Candidates(
        images=images[best],
        masks=masks[best],
        shares=weights[best] / (total + 1e-6),
        spread=(variance / (total + 1e-6)).sqrt(),
        support=total.square() / (weights.square().sum(dim=0, keepdim=True) + 1e-9),
        own=teachers.own > 0,
        equal=teachers.equal,
    )
