"""Building blocks of SEA-RAFT under the official state-dict names.

Wang et al., "SEA-RAFT: Simple, Efficient, Accurate RAFT for Optical Flow", ECCV 2024.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LEVELS = 4


class BasicBlock(nn.Module):
    """ResNet's two-convolution block; the norm of the shortcut carries two names, ``bn3`` and ``downsample.1``."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(width)
        self.bn2 = nn.BatchNorm2d(width)
        if stride == 1 and channels == width:
            self.downsample: nn.Module = nn.Identity()
        else:
            self.bn3 = nn.BatchNorm2d(width)
            self.downsample = nn.Sequential(nn.Conv2d(channels, width, 1, stride), self.bn3)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        return F.relu(self.downsample(x) + y)


class ResNetFPN(nn.Module):
    """The first three stages of a ResNet and a 1x1 convolution: (B, channels, H, W) -> (B, width, H/8, W/8)."""

    def __init__(self, channels: int, width: int, blocks: tuple[int, int, int]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = self._stage(64, 64, 1, blocks[0])
        self.layer2 = self._stage(64, 128, 2, blocks[1])
        self.layer3 = self._stage(128, 256, 2, blocks[2])
        self.final_conv = nn.Conv2d(256, width, 1)

    @staticmethod
    def _stage(channels: int, width: int, stride: int, blocks: int) -> nn.Sequential:
        rest = [BasicBlock(width, width, 1) for _ in range(blocks - 1)]
        return nn.Sequential(BasicBlock(channels, width, stride), *rest)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        return self.final_conv(self.layer3(self.layer2(self.layer1(x))))


class CorrelationPyramid:
    """Dot products of every source feature with every target feature, at four target scales.

    Args:
        source, target: (B, C, H, W) features; H and W at least 16, so that the coarsest level has two rows.
        radius: of the square window that is read around a position, at every level.
    """

    def __init__(self, source: Tensor, target: Tensor, radius: int) -> None:
        batch, channels, height, width = source.shape
        self.radius = radius
        self.levels: list[Tensor] = []
        rows = source.flatten(2).transpose(1, 2) / channels**0.5
        for level in range(LEVELS):
            if level:
                target = F.interpolate(target, scale_factor=0.5, mode="bilinear", align_corners=False)
            products = rows @ target.flatten(2)
            self.levels.append(products.view(batch * height * width, 1, *target.shape[-2:]))

    def read(self, positions: Tensor) -> Tensor:
        """Windows around ``positions`` (B, 2, H, W; x, y in target pixels): (B, 4 (2r + 1)^2, H, W), 0 outside."""
        batch, _, height, width = positions.shape
        steps = torch.arange(-self.radius, self.radius + 1, device=positions.device, dtype=positions.dtype)
        # The offset along x runs over the first axis of the window: the order that the trained weights expect.
        window = torch.stack(torch.meshgrid(steps, steps, indexing="ij"), dim=-1)
        centres = positions.permute(0, 2, 3, 1).reshape(-1, 1, 1, 2)
        found = []
        for level, products in enumerate(self.levels):
            x, y = ((centres / 2**level + window) * 2).unbind(-1)
            grid = torch.stack((x / (products.shape[-1] - 1) - 1, y / (products.shape[-2] - 1) - 1), -1)
            sampled = F.grid_sample(products, grid, mode="bilinear", padding_mode="zeros", align_corners=True)
            found.append(sampled.view(batch, height, width, -1))
        return torch.cat(found, dim=-1).permute(0, 3, 1, 2).contiguous()


class MotionEncoder(nn.Module):
    """Correlation windows and the current flow -> (B, width, H, W) motion features, the flow among them."""

    def __init__(self, width: int, radius: int) -> None:
        super().__init__()
        self.convc1 = nn.Conv2d(LEVELS * (2 * radius + 1) ** 2, width * 2, 1)
        self.convc2 = nn.Conv2d(width * 2, width + width // 2, 3, padding=1)
        self.convf1 = nn.Conv2d(2, width, 7, padding=3)
        self.convf2 = nn.Conv2d(width, width // 2, 3, padding=1)
        self.conv = nn.Conv2d(width * 2, width - 2, 3, padding=1)

    def forward(self, flow: Tensor, correlation: Tensor) -> Tensor:
        seen = F.relu(self.convc2(F.relu(self.convc1(correlation))))
        moved = F.relu(self.convf2(F.relu(self.convf1(flow))))
        return torch.cat([F.relu(self.conv(torch.cat([seen, moved], dim=1))), flow], dim=1)


class ConvNeXtBlock(nn.Module):
    """ConvNeXt block with layer scale (``gamma``) and a 1x1 convolution to ``out`` channels behind it."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.pwconv1 = nn.Linear(channels, 4 * out)
        self.pwconv2 = nn.Linear(4 * out, channels)
        self.gamma = nn.Parameter(torch.full((channels,), 1e-6))
        self.final = nn.Conv2d(channels, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
        y = self.gamma * self.pwconv2(F.gelu(self.pwconv1(y)))
        return self.final(x + y.permute(0, 3, 1, 2))


class UpdateBlock(nn.Module):
    """One recurrent update of the hidden state: in place of RAFT's GRU, a few ConvNeXt blocks."""

    def __init__(self, width: int, radius: int, blocks: int) -> None:
        super().__init__()
        self.encoder = MotionEncoder(width, radius)
        self.refine = nn.ModuleList(ConvNeXtBlock(3 * width, width) for _ in range(blocks))

    def forward(self, state: Tensor, context: Tensor, correlation: Tensor, flow: Tensor) -> Tensor:
        motion = self.encoder(flow, correlation)
        for block in self.refine:
            state = block(torch.cat([state, context, motion], dim=1))
        return state
