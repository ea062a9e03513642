"""Guided deformable attention: each pixel attends to flow-guided places of a neighbouring clip.

Liang et al., "Recurrent Video Restoration Transformer with Guided Deformable Attention", NeurIPS 2022,
Sec. 3.2. In plain PyTorch with exact gradients (the authors' CUDA kernel scales those of the keys once too often).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfhvd_tta.backbones.layers import FrameConvolution
from selfhvd_tta.backbones.window_attention import MLP

TAPS = 9  # a 3x3 neighbourhood around each guided place


def _sample(x: Tensor, offset: Tensor) -> Tensor:
    """Bilinear samples of a 3x3 neighbourhood, displaced per pixel and tap; zeros outside.

    Args:
        x: (N, C, H, W).
        offset: (N, 9, 2, H, W), pixels, (y, x).

    Returns:
        (N, C, 9, H, W).
    """
    height, width = x.shape[-2:]
    steps = torch.arange(-1, 2, device=x.device, dtype=offset.dtype)
    rows = torch.arange(height, device=x.device, dtype=offset.dtype)[:, None] + steps.repeat_interleave(3).view(9, 1, 1)
    columns = torch.arange(width, device=x.device, dtype=offset.dtype) + steps.repeat(3).view(9, 1, 1)
    grid_y = (offset[:, :, 0] + rows) * (2 / max(height - 1, 1)) - 1
    grid_x = (offset[:, :, 1] + columns) * (2 / max(width - 1, 1)) - 1
    grid = torch.stack([grid_x, grid_y], -1).flatten(1, 2)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=True).unflatten(
        2, (TAPS, height)
    )


def deformable_attention(query: Tensor, key: Tensor, value: Tensor, offset: Tensor, heads: int) -> Tensor:
    """Attention of every pixel to ``2 x 9`` sampled places.

    Args:
        query: (N, C, H, W).
        key: (N, 2, C, H, W): two frames to attend to.
        value: the same shape as ``key``.
        offset: (N, 2, groups, 9, 2, H, W), pixels, (y, x), per frame and group. The first half of the groups moves
            equal shares of the keys' channels, the second half those of the values.
        heads: attention heads; a multiple of half the groups.

    Returns:
        (N, C, H, W).
    """
    count, channels, height, width = query.shape
    shares = offset.shape[2] // 2
    heads_each = heads // shares
    query = (query * (channels // heads) ** -0.5).view(count, shares, heads_each, -1, height, width)
    outputs = []
    # One share after the other: all samples together would be 36 times the features.
    for share in range(shares):
        sampled = []
        for source, group in ((key, share), (value, shares + share)):
            part = source.unflatten(2, (shares, -1))[:, :, share].flatten(0, 1)
            sample = _sample(part, offset[:, :, group].flatten(0, 1))
            sampled.append(sample.view(count, 2, heads_each, -1, TAPS, height, width))
        keys, values = sampled
        logits = torch.einsum("nachw,nfacthw->nafthw", query[:, share], keys)
        weights = logits.flatten(2, 3).softmax(2).view_as(logits)
        outputs.append(torch.einsum("nafthw,nfacthw->nachw", weights, values).flatten(1, 2))
    return torch.cat(outputs, 1)


class GuidedDeformableAttention(nn.Module):
    """Aligns the propagated features of the previous clip (two frames) to the current one.

    Args:
        channels: of the features.
        groups: deformable groups, even.
        heads: attention heads.
        largest_residue: pixels by which an offset may differ from the flow.
    """

    def __init__(self, channels: int, groups: int, heads: int, largest_residue: float = 10.0, hidden: int = 64) -> None:
        super().__init__()
        self.groups = groups
        self.heads = heads
        self.largest_residue = largest_residue
        inner = 2 * channels

        def numbered(layer: nn.Module) -> nn.ModuleDict:
            return nn.ModuleDict({"1": layer})

        self.proj_q = numbered(nn.Linear(channels, inner))
        self.proj_k = numbered(nn.Linear(channels, inner))
        self.proj_v = numbered(nn.Linear(channels, inner))
        self.proj = numbered(nn.Linear(inner, channels))
        self.mlp = numbered(MLP(channels, 2 * channels))
        layers: list[nn.Module] = [FrameConvolution(3 * channels + 4, hidden, 1), nn.LeakyReLU(0.1, inplace=True)]
        for _ in range(4):
            layers += [FrameConvolution(hidden, hidden, 3), nn.LeakyReLU(0.1, inplace=True)]
        last = FrameConvolution(hidden, 2 * groups * TAPS * 2, 1)
        nn.init.zeros_(last.weight)  # training starts from plain flow
        nn.init.zeros_(last.bias)
        self.conv_offset = nn.Sequential(*layers, last)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, warped: list[Tensor], flows: list[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """Align a clip; every argument of shape (B, 2, C, H, W).

        Args:
            query: features of the current clip.
            key: features of the previous clip.
            value: propagated features of the previous clip.
            warped: those warped to each frame of the current clip: from that of the same place, and from the other one.
            flows: (B, 2, 2, H, W), pixels, x then y, by which they were warped.

        Returns:
            The aligned features, and the flows as the offsets have corrected them.
        """
        batch = query.shape[0]
        condition = torch.cat([query, *warped, *(flow.to(query.dtype) for flow in flows)], 2)
        raw = self.conv_offset(condition.flatten(0, 1))

        def project(layer: nn.ModuleDict, x: Tensor) -> Tensor:
            return layer["1"](x.permute(0, 1, 3, 4, 2)).permute(0, 1, 4, 2, 3)

        q, k, v = project(self.proj_q, query), project(self.proj_k, key), project(self.proj_v, value)
        with torch.autocast(query.device.type, enabled=False):
            precision = flows[0].dtype
            guide = torch.stack([flow.flatten(0, 1) for flow in flows], 1).flip(2)  # (B*2, 2, (y, x), H, W)
            residue = raw.to(precision).unflatten(1, (2, self.groups, TAPS, 2))
            offset = self.largest_residue * torch.tanh(residue) + guide[:, :, None, None]
            corrected = offset.mean((2, 3)).flip(2).unflatten(0, (batch, 2))
            # Frame f looks at the frame of its own place first, then at the other one.
            q = q.flatten(0, 1).to(precision)
            k, v = (torch.stack([x, x.flip(1)], 2).flatten(0, 1).to(precision) for x in (k, v))
            attended = deformable_attention(q, k, v, offset, self.heads)
        aligned = self.proj["1"](attended.unflatten(0, (batch, 2)).permute(0, 1, 3, 4, 2))
        aligned = aligned + self.mlp["1"](aligned)
        return aligned.permute(0, 1, 4, 2, 3), list(corrected.unbind(2))
