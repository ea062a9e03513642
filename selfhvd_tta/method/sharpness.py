"""v_l on tensors, over chosen pixels: what SIS and SCSCM compare."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from selfhvd_tta.imaging import luma_weights


def luma255(frames: Tensor) -> Tensor:
    """(N, 3, H, W) RGB in [0, 1] to (N, 1, H, W) luma (BT.601 weights) on the 0..255 scale."""
    return 255 * (frames * luma_weights(frames.device, frames.dtype)).sum(dim=1, keepdim=True)


def laplacian(frames: Tensor) -> Tensor:
    """(N, 1, H, W) 4-neighbour Laplacian of the luma, borders reflected."""
    y = F.pad(luma255(frames), (1, 1, 1, 1), mode="reflect")
    return y[..., 1:-1, :-2] + y[..., 1:-1, 2:] + y[..., :-2, 1:-1] + y[..., 2:, 1:-1] - 4 * y[..., 1:-1, 1:-1]


def sharpness(frames: Tensor, where: Tensor | None = None) -> Tensor:
    """v_l over the pixels chosen by ``where``.

    Args:
        frames: (N, 3, H, W) in [0, 1]; H and W at least 2.
        where: (N, 1, H, W), weight of a pixel in [0, 1]; None for all.

    Returns:
        (N,) variance in squared code values; 0 where nothing is chosen.
    """
    response = laplacian(frames)
    weight = torch.ones_like(response) if where is None else where.to(response.dtype)
    total = weight.sum(dim=(1, 2, 3)).clamp(min=1e-6)
    mean = (weight * response).sum(dim=(1, 2, 3)) / total
    square = (weight * response.square()).sum(dim=(1, 2, 3)) / total
    return (square - mean.square()).clamp(min=0)
