"""Layers that several networks share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def recompute(function: Callable[..., Any], *inputs: Any) -> Any:
    """``function(*inputs)`` whose inner activations are recomputed in the backward pass instead of being kept.

    Without gradients it is a plain call. No layer of ours draws random numbers, so their state is not saved.
    """
    if not torch.is_grad_enabled():
        return function(*inputs)
    return checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False)


class ResidualBlock(nn.Module):
    """``x + conv2(activation(conv1(x)))``, 3x3 convolutions, no normalisation; (B, C, H, W) to the same."""

    def __init__(self, channels: int, activation: nn.Module) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(self.activation(self.conv1(x)))


class FrameConvolution(nn.Module):
    """A 3-D convolution of temporal extent 1, so a 2-D one, whose weight has the 3-D shape of the checkpoints."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        template = nn.Conv2d(inputs, outputs, kernel, groups=groups)
        assert template.bias is not None
        self.weight = nn.Parameter(template.weight.detach().unsqueeze(2))
        self.bias = nn.Parameter(template.bias.detach())
        self.stride = stride
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        padding = self.weight.shape[-1] // 2
        return F.conv2d(x, self.weight.squeeze(2), self.bias, self.stride, padding, groups=self.groups)


def _interpolation_matrix(source: int, target: int, like: Tensor) -> Tensor:
    precision = torch.promote_types(like.dtype, torch.float32)
    identity = torch.eye(source, device=like.device, dtype=precision)[None]
    return F.interpolate(identity, size=target, mode="linear", align_corners=False)[0].to(like.dtype)


def resize_bilinear(x: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear resampling (``align_corners=False``) as two matrix products.

    ``F.interpolate`` adds up its gradients in no fixed order on CUDA; this gives the same bits every time.

    Args:
        x: (B, C, H, W).
        size: (height, width) of the result.
    """
    height, width = size
    rows = _interpolation_matrix(x.shape[-2], height, x)
    columns = _interpolation_matrix(x.shape[-1], width, x)
    return rows.T @ (x @ columns)


def flow_warp(
    x: Tensor,
    flow: Tensor,
    padding: Literal["zeros", "border"] = "zeros",
    mode: Literal["bilinear", "bicubic"] = "bilinear",
) -> Tensor:
    """Backward warping: the value at a pixel is that of ``x`` at the pixel plus its flow.

    Args:
        x: (B, C, H, W). Sampled in float32 whatever its type.
        flow: (B, 2, H, W), pixels, x (right) then y (down).
        padding: what lies outside of ``x``.
        mode: of interpolation.
    """
    height, width = x.shape[-2:]
    with torch.autocast(x.device.type, enabled=False):
        precision = torch.promote_types(x.dtype, torch.float32)
        rows = torch.arange(height, device=x.device, dtype=precision)
        columns = torch.arange(width, device=x.device, dtype=precision)
        grid_x = (flow[:, 0].to(precision) + columns) * (2 / max(width - 1, 1)) - 1
        grid_y = (flow[:, 1].to(precision) + rows[:, None]) * (2 / max(height - 1, 1)) - 1
        grid = torch.stack([grid_x, grid_y], -1)
        warped = F.grid_sample(x.to(precision), grid, mode=mode, padding_mode=padding, align_corners=True)
    return warped.to(x.dtype)
