"""Aligning a sharp frame to a blurry one, and masking what does not match (Eq. 3-5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from selfhvd_tta.flows import FlowEstimator, FlowField
from selfhvd_tta.settings import AlignmentSettings


@dataclass(frozen=True)
class Aligned:
    """A sharp frame as seen from another frame.

    Attributes:
        image: S_{j->i}, (B, 3, H, W) in [0, 1].
        mask: M, (B, 1, H, W) in [0, 1]: certainty times visibility; 1 = trust.
        occlusion: M_occ, (B, 1, H, W) in [0, 1], 1 = visible in both frames.
    """

    image: Tensor
    mask: Tensor
    occlusion: Tensor


def pixel_grid(height: int, width: int, device: torch.device) -> Tensor:
    """G: (1, 2, H, W) pixel coordinates, channel 0 = x, channel 1 = y."""
    y, x = torch.meshgrid(
        torch.arange(height, device=device, dtype=torch.float32),
        torch.arange(width, device=device, dtype=torch.float32),
        indexing="ij",
    )
    return torch.stack((x, y))[None]


def warp(image: Tensor, flow: Tensor, mode: Literal["bilinear", "bicubic"] = "bilinear") -> Tensor:
    """Backward warp W (Eq. 3): the value at p is ``image`` at p + flow(p); outside the frame it is 0.

    Args:
        image: (B, C, H, W).
        flow: (B, 2, H, W), pixels.
        mode: interpolation; ``bicubic`` overshoots at edges.

    Returns:
        (B, C, H, W).
    """
    height, width = image.shape[-2:]
    x, y = (2 * (pixel_grid(height, width, flow.device) + flow)).unbind(1)
    grid = torch.stack((x / max(width - 1, 1) - 1, y / max(height - 1, 1) - 1), -1)
    return F.grid_sample(image, grid.to(image.dtype), mode=mode, padding_mode="zeros", align_corners=True)


def inside(flow: Tensor) -> Tensor:
    """(B, 1, H, W) float: 1 where p + flow(p) lies within the frame."""
    height, width = flow.shape[-2:]
    target = pixel_grid(height, width, flow.device) + flow
    x, y = target[:, :1], target[:, 1:]
    return ((x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)).to(flow.dtype)


def visible(forward: FlowField, backward: FlowField, scale: float) -> Tensor:
    """M_occ (Eq. 5, turned so that 1 = visible): 1 - min(s * |W(W(G; F_ji); F_ij) - G|, 1).

    Args:
        forward: F_{i->j}, on the grid of frame i.
        backward: F_{j->i}, on the grid of frame j; warped to frame i here.
        scale: s, per pixel of forward-backward error.

    Returns:
        (B, 1, H, W) in [0, 1]; 0 where frame i leaves frame j.
    """
    return _occlusion(forward.flow, warp(backward.flow, forward.flow), scale)


def _occlusion(forward: Tensor, backward_there: Tensor, scale: float) -> Tensor:
    """:func:`visible` of flows (B, 2, H, W), the second one already warped to the grid of the first."""
    gap = forward + backward_there
    error = torch.hypot(gap[:, :1], gap[:, 1:])  # norm over a dimension of two is thirty times as slow on a CPU
    return (1 - (scale * error).clamp(max=1)) * inside(forward)


def align_by_flow(
    sharp: Tensor,
    forward: FlowField,
    backward: FlowField,
    settings: AlignmentSettings,
    mode: Literal["bilinear", "bicubic"] = "bicubic",
) -> Aligned:
    """Warp a sharp frame by known flows and mask it.

    Args:
        sharp: S_j, (B, 3, H, W) in [0, 1].
        forward: from the frame to be labelled to the sharp frame (F_{i->j}).
        backward: from the sharp frame to the frame to be labelled (F_{j->i}).
        settings: which of the masks are used, and Eq. 5's scale.
        mode: interpolation of the image.
    """
    # Bilinear interpolation would blur the label by up to half a pixel.
    image = warp(sharp, forward.flow, mode).clamp(0, 1)
    there = warp(torch.cat((backward.flow, backward.certainty), dim=1), forward.flow)
    backward_there, certainty_there = there.split((2, 1), dim=1)
    seen = _occlusion(forward.flow, backward_there, settings.occlusion_scale)
    mask = seen if settings.occlusion else inside(forward.flow)
    if settings.uncertainty:
        # Eq. 4: the certainty found on the sharp frame's grid is warped along; a pixel is trusted if both are.
        mask = mask * forward.certainty * certainty_there
    return Aligned(image=image, mask=mask, occlusion=seen)


@torch.no_grad()
def flows_between(source: Tensor, target: Tensor, estimator: FlowEstimator) -> tuple[FlowField, FlowField]:
    """Flow from ``source`` to ``target`` and back, both (B, 3, H, W).

    On frames of half the size where memory is short.
    """
    if not estimator.economy.half_size:
        return estimator.both(source, target)
    size = source.shape[-2:]
    small = [F.interpolate(frame, [max(1, side // 2) for side in size], mode="area") for frame in (source, target)]
    ratio = [full / half for full, half in zip(size, small[0].shape[-2:], strict=True)]

    def enlarged(field: FlowField) -> FlowField:
        maps = torch.cat((field.flow[:, :1] * ratio[1], field.flow[:, 1:] * ratio[0], field.certainty), dim=1)
        maps = F.interpolate(maps, size, mode="bilinear", align_corners=False)
        return FlowField(maps[:, :2], maps[:, 2:])

    there, back = estimator.both(*small)
    return enlarged(there), enlarged(back)


@torch.no_grad()
def align(
    sharp: Tensor,
    source: Tensor,
    estimator: FlowEstimator,
    settings: AlignmentSettings,
    mode: Literal["bilinear", "bicubic"] = "bicubic",
) -> Aligned:
    """Align sharp frames to source frames (Eq. 3-5).

    Args:
        sharp: S_j, (B, 3, H, W) in [0, 1].
        source: R_i, what the frame to be labelled looks like now, (B, 3, H, W) in [0, 1].
        estimator: optical flow.
        settings: masks.
        mode: interpolation of the image.
    """
    forward, backward = flows_between(source, sharp, estimator)
    return align_by_flow(sharp, forward, backward, settings, mode)
