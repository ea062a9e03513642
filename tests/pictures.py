"""Pictures, known motions and an independent warp for the tests of flows."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor


def texture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Band-limited colour noise, (H, W, 3) float32 in [0, 1], with structure at several scales."""
    rng = np.random.default_rng(seed)
    picture = np.zeros((height, width, 3), np.float32)
    for sigma in (1.5, 4, 12):
        layer = cv2.GaussianBlur(rng.standard_normal((height, width, 3)).astype(np.float32), (0, 0), sigma)
        picture += layer / layer.std()
    return np.clip(0.5 + 0.12 * picture, 0, 1)


def tensor(picture: np.ndarray) -> Tensor:
    """(H, W, C) as (1, C, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None]


def shifted_pair(height: int, width: int, shift: tuple[int, int], seed: int = 0) -> tuple[Tensor, Tensor]:
    """Source and target where the point at p in the source lies at p + shift in the target (x right, y down)."""
    dx, dy = shift
    margin = max(abs(dx), abs(dy))
    big = texture(height + 2 * margin, width + 2 * margin, seed)
    source = big[margin : margin + height, margin : margin + width]
    target = big[margin - dy : margin - dy + height, margin - dx : margin - dx + width]
    return tensor(source), tensor(target)


def warp(image: Tensor, flow: Tensor) -> Tensor:
    """Bilinear backward warp written with OpenCV: out(p) = image(p + flow(p))."""
    _, _, height, width = image.shape
    ys, xs = np.mgrid[:height, :width].astype(np.float32)
    planes = [
        cv2.remap(plane.numpy(), xs + flow[0, 0].numpy(), ys + flow[0, 1].numpy(), cv2.INTER_LINEAR)
        for plane in image[0]
    ]
    return torch.from_numpy(np.stack(planes))[None]


def inner(values: Tensor, margin: int) -> Tensor:
    return values[..., margin:-margin, margin:-margin]
