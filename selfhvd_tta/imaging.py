"""Filters of pictures that a CPU leaves to OpenCV, which takes a tenth of the time that torch takes there.

Results are the same but for rounding. Gradients go through torch's way, which is taken wherever they are asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)  # weights of R, G and B (BT.601)


def decibels(error: float) -> float:
    """Peak signal-to-noise ratio of a mean squared error on the 0..255 scale; infinite for 0."""
    return math.inf if error == 0 else 10 * math.log10(255.0**2 / error)


@lru_cache(maxsize=16)
def luma_weights(device: torch.device, dtype: torch.dtype) -> Tensor:
    """:data:`LUMA` as (1, 3, 1, 1); kept, as copying numbers from the host makes it wait for a GPU."""
    return torch.tensor(LUMA, device=device, dtype=dtype).view(1, 3, 1, 1)


def gaussian(maps: Tensor, sigma: float, reach: float) -> Tensor:
    """Gaussian blur of (B, C, H, W), borders repeated.

    Args:
        maps: any values.
        sigma: pixels.
        reach: radius of the kernel in sigma.
    """
    radius = max(1, min(round(reach * sigma), min(maps.shape[-2:]) - 1))
    x = torch.arange(-radius, radius + 1, device=maps.device, dtype=maps.dtype)
    kernel = torch.exp(-0.5 * (x / sigma) ** 2)
    kernel = kernel / kernel.sum()
    if _by_opencv(maps):
        taps = kernel.numpy()
        return _on_planes(maps, lambda plane: cv2.sepFilter2D(plane, -1, taps, taps, borderType=cv2.BORDER_REPLICATE))
    planes = maps.reshape(-1, 1, *maps.shape[-2:])
    padded = F.pad(planes, (radius, radius, radius, radius), mode="replicate")
    return F.conv2d(F.conv2d(padded, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1)).view(maps.shape)


def reduced(maps: Tensor, factor: int) -> Tensor:
    """Means over squares of ``factor`` pixels of (B, C, H, W); squares at the right and lower border may be cut off."""
    if factor == 1:
        return maps
    if maps.shape[-1] % factor or maps.shape[-2] % factor:
        return F.avg_pool2d(maps, factor, ceil_mode=True, count_include_pad=False)
    # Sums of slices: pooling is several times as slow on a CPU.
    rows = sum((maps[..., place::factor, :] for place in range(1, factor)), maps[..., 0::factor, :])
    columns = sum((rows[..., place::factor] for place in range(1, factor)), rows[..., 0::factor])
    return columns / factor**2


def opened(maps: Tensor, radius: int) -> Tensor:
    """Morphological opening of (B, C, H, W) by a square of ``2 * radius + 1`` pixels; beyond the border is nothing."""
    side = 2 * radius + 1
    if _by_opencv(maps):
        square = np.ones((side, side), np.uint8)
        return _on_planes(maps, lambda plane: cv2.morphologyEx(plane, cv2.MORPH_OPEN, square))

    def largest(values: Tensor) -> Tensor:
        rows = F.max_pool2d(values, (1, side), stride=1, padding=(0, radius))
        return F.max_pool2d(rows, (side, 1), stride=1, padding=(radius, 0))

    return largest(-largest(-maps))


def _by_opencv(maps: Tensor) -> bool:
    return maps.device.type == "cpu" and maps.dtype == torch.float32 and not maps.requires_grad


def _on_planes(maps: Tensor, change: Callable[[np.ndarray], np.ndarray]) -> Tensor:
    planes = maps.reshape(-1, *maps.shape[-2:]).numpy()
    changed = np.empty_like(planes)
    for plane, result in zip(planes, changed, strict=True):
        result[:] = change(plane)
    return torch.from_numpy(changed).view(maps.shape)
