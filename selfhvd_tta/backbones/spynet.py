"""SpyNet: the small optical flow network inside BasicVSR++ and RVRT.

Ranjan and Black, "Optical Flow Estimation using a Spatial Pyramid Network", CVPR 2017.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfhvd_tta.backbones.layers import flow_warp, recompute

_CHANNELS = (8, 32, 64, 32, 16, 2)


class WrappedConvolution(nn.Module):
    """A convolution under the key ``conv``, with its ReLU but for the last one (the key layout of MMEditing)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, last: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
        self.last = last

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x if self.last else F.relu(x, inplace=True)


def wrapped_layers(inputs: int, outputs: int, last: bool) -> list[nn.Module]:
    """One layer of a pyramid level in the key layout of BasicVSR++: ``basic_module.I.conv``."""
    return [WrappedConvolution(inputs, outputs, 7, last)]


def plain_layers(inputs: int, outputs: int, last: bool) -> list[nn.Module]:
    """One layer of a pyramid level in the key layout of RVRT: ``basic_module.2I``."""
    convolution = nn.Conv2d(inputs, outputs, 7, padding=3)
    return [convolution] if last else [convolution, nn.ReLU(inplace=True)]


class PyramidLevel(nn.Module):
    """Residual flow from the two pictures (the second one warped) and the flow so far: (B, 8, H, W) to (B, 2, H, W)."""

    def __init__(self, layers: Callable[[int, int, bool], list[nn.Module]]) -> None:
        super().__init__()
        count = len(_CHANNELS) - 1
        self.basic_module = nn.Sequential(
            *(layer for i in range(count) for layer in layers(_CHANNELS[i], _CHANNELS[i + 1], i == count - 1))
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.basic_module(x)


class SpyNet(nn.Module):
    """Optical flow in six pyramid levels. Computes in float32, also under autocast: flows position everything else.

    Args:
        layers: ``wrapped_layers`` or ``plain_layers``, by the key layout of the checkpoint.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, layers: Callable[[int, int, bool], list[nn.Module]]) -> None:
        super().__init__()
        self.basic_module = nn.ModuleList(PyramidLevel(layers) for _ in range(6))
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Flow by which a backward warp aligns ``target`` to ``source``.

        Args:
            source: (B, 3, H, W) RGB in [0, 1].
            target: the same shape.

        Returns:
            (B, 2, H, W), pixels, x (right) then y (down).
        """
        with torch.autocast(source.device.type, enabled=False):
            height, width = source.shape[-2:]
            size = [-(-height // 32) * 32, -(-width // 32) * 32]
            pair = F.interpolate(torch.cat([source, target]).to(self.mean.dtype), size, mode="bilinear")
            flow = self._pyramid(*((pair - self.mean) / self.std).chunk(2))
            flow = F.interpolate(flow, (height, width), mode="bilinear")
            return torch.stack([flow[:, 0] * (width / size[1]), flow[:, 1] * (height / size[0])], 1)

    def _pyramid(self, source: Tensor, target: Tensor) -> Tensor:
        levels = [(source, target)]
        for _ in range(len(self.basic_module) - 1):
            source, target = F.avg_pool2d(source, 2), F.avg_pool2d(target, 2)
            levels.append((source, target))
        flow = source.new_zeros(source.shape[0], 2, *source.shape[-2:])
        for index, (level, (source, target)) in enumerate(zip(self.basic_module, reversed(levels), strict=True)):
            if index:
                flow = 2 * F.interpolate(flow, scale_factor=2, mode="bilinear", align_corners=True)
            flow = flow + level(torch.cat([source, flow_warp(target, flow, "border"), flow], 1))
        return flow


def neighbour_flows(spynet: SpyNet, frames: Tensor, checkpointing: bool) -> tuple[list[Tensor], list[Tensor]]:
    """Flows between consecutive frames, estimated at a quarter of the size.

    Args:
        spynet: the network.
        frames: (B, T, 3, H, W) RGB in [0, 1], H and W multiples of 4.
        checkpointing: recompute them in the backward pass.

    Returns:
        T - 1 flows from each frame to the next, and T - 1 from each but the first to the one before, each
        (B, 2, H/4, W/4) in pixels of that size.
    """
    small = [F.interpolate(frame, scale_factor=0.25, mode="bicubic") for frame in frames.unbind(1)]
    to_next, to_previous = [], []
    for a, b in pairwise(small):
        pair = torch.cat([a, b]), torch.cat([b, a])
        flow = recompute(spynet, *pair) if checkpointing else spynet(*pair)
        to_next.append(flow[: len(a)])
        to_previous.append(flow[len(a) :])
    return to_next, to_previous
