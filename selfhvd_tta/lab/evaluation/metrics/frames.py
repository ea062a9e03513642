"""Frames as the measures take them."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Image = NDArray[np.uint8]
FloatImage = NDArray[np.float32] | NDArray[np.float64]


def quantise(frame: FloatImage) -> Image:
    """(H, W, 3) in [0, 1] to the nearest 8-bit code, as the official test codes do before they measure."""
    return np.clip(np.rint(np.asarray(frame, np.float64) * 255), 0, 255).astype(np.uint8)


def check_alike(output: NDArray[np.generic], truth: NDArray[np.generic]) -> None:
    """Raise a ValueError unless both are RGB frames of one size."""
    if output.shape != truth.shape or output.ndim != 3 or output.shape[2] != 3:
        raise ValueError(f"expected two RGB frames (H, W, 3) of one size, got {output.shape} and {truth.shape}")


def as_tensor(frame: Image) -> Tensor:
    """(H, W, 3) uint8 to (1, 3, H, W) in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1).float()[None] / 255
