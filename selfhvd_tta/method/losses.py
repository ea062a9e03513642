"""The objective's terms as pure functions of tensors (Eq. 6, 7 and 10-14).

Shapes: frames (B, T, 3, H, W), masks (B, T, 1, H, W), one weight or choice per frame (B, T).
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

Features = Callable[[Tensor], Tensor]


def masked_l1(output: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Per-frame mean of M * |output - target| over all pixels and channels (Eq. 6): (B, T).

    The mean divides by the number of pixels, not by the sum of the mask, so a frame that hardly matches counts little.
    """
    return (mask * (output - target).abs()).mean(dim=(-3, -2, -1))


def weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    """Mean over all frames of values * weight, divided by the number of frames: a scalar."""
    return (values * weight).mean()


def reconstruction_loss(output: Tensor, label: Tensor, mask: Tensor, weight: Tensor) -> Tensor:
    """L_rec of stage 1 (Eq. 6): masked L1 between the output and the aligned sharp frame.

    Args:
        output: R, requires grad.
        label: S_{J->i}.
        mask: M in [0, 1].
        weight: (B, T) weight of a position (0 leaves it out).
    """
    return weighted_mean(masked_l1(output, label, mask), weight)


def sevd_loss(output: Tensor, label: Tensor, mask: Tensor, teacher: Tensor, choice: Tensor, weight: Tensor) -> Tensor:
    """L_sevd of stage 2 (Eq. 7): per position, masked L1 to the label where SIS chose it, else L1 to sg(R_k).

    Args:
        output: outputs of the degraded clip, requires grad.
        label: S_{J(k)->k} of row k(i).
        mask: M of row k(i).
        teacher: R_k, the model's own output on the clip that was not degraded; no gradient flows into it.
        choice: (B, T) bool, True for the label (SIS).
        weight: (B, T).
    """
    by_label = masked_l1(output, label, mask)
    by_teacher = (output - teacher.detach()).abs().mean(dim=(-3, -2, -1))
    chosen = choice.to(by_label.dtype)
    return weighted_mean(chosen * by_label + (1 - chosen) * by_teacher, weight)


def consistency_loss(output: Tensor, historical: Tensor, weight: Tensor) -> Tensor:
    """L_scscm (Eq. 10): L1 between the output and sg(R^e), the historical model's output of the same frame (Eq. 9)."""
    return weighted_mean((output - historical.detach()).abs().mean(dim=(-3, -2, -1)), weight)


def perceptual_loss(features: Features, output: Tensor, target: Tensor, mask: Tensor, weight: Tensor) -> Tensor:
    """L_vgg1 (Eq. 11) or L_vgg2 (Eq. 12): masked L1 of features, the mask resized by area to their grid.

    Args:
        features: maps (N, 3, H, W) in [0, 1] to (N, C, h, w); frozen.
        output: requires grad.
        target: label or teacher frame, whichever supervises the position.
        mask: M, 1 everywhere for teacher frames.
        weight: (B, T).
    """
    batch, time = output.shape[:2]
    of_output = features(output.flatten(0, 1))
    of_target = features(target.flatten(0, 1)).detach()
    small = F.interpolate(mask.flatten(0, 1), size=of_output.shape[-2:], mode="area")
    per_frame = (small * (of_output - of_target).abs()).mean(dim=(-3, -2, -1)).view(batch, time)
    return weighted_mean(per_frame, weight)


def stage1_objective(reconstruction: Tensor, perceptual: Tensor, beta: float) -> Tensor:
    """L_s1 (Eq. 13): L_rec + beta * L_vgg1."""
    return reconstruction + beta * perceptual


def stage2_objective(sevd: Tensor, consistency: Tensor, perceptual: Tensor, lam: float, beta: float) -> Tensor:
    """L_s2 (Eq. 14): L_sevd + lambda * L_scscm + beta * L_vgg2."""
    return sevd + lam * consistency + beta * perceptual
