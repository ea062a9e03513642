"""The small U-net that Relay's cells and the merging network share: NAF blocks at a half and a quarter of the frame."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfhvd_tta.backbones.nafnet import NAFBlock


class TwoScales(nn.Module):
    """Base of networks of that shape; :meth:`unet` runs it.

    Args:
        inputs: channels at full resolution.
        outputs: channels of the result, at full resolution.
        width: channels at half resolution; twice as many at a quarter.
        outer_blocks: at half resolution, before and after the inner ones.
        inner_blocks: at a quarter of the resolution.
        train_side: of the training crops, in pixels; attention averages over 1.5 times that (TLC).
        first: factor on the initial weights of the last layer, below 1 for a fresh network that changes little.
    """

    def __init__(
        self, inputs: int, outputs: int, width: int, outer_blocks: int, inner_blocks: int, train_side: int, first: float
    ) -> None:
        super().__init__()

        def blocks(count: int, channels: int, scale: int) -> nn.Sequential:
            return nn.Sequential(*(NAFBlock(channels, train_side * 3 // 2 // scale) for _ in range(count)))

        self.intro = nn.Conv2d(4 * inputs, width, 3, padding=1)
        self.encoder = blocks(outer_blocks, width, 2)
        self.down = nn.Conv2d(width, 2 * width, 2, stride=2)
        self.middle = blocks(inner_blocks, 2 * width, 4)
        self.up = nn.Sequential(nn.Conv2d(2 * width, 4 * width, 1, bias=False), nn.PixelShuffle(2))
        self.decoder = blocks(outer_blocks, width, 2)
        self.ending = nn.Conv2d(width, 4 * outputs, 3, padding=1)
        with torch.no_grad():
            for parameter in self.ending.parameters():
                parameter.mul_(first)

    def unet(self, seen: Tensor) -> Tensor:
        """(B, inputs, H, W), H and W multiples of 4, to (B, outputs, H, W)."""
        outer = self.encoder(self.intro(F.pixel_unshuffle(seen, 2).contiguous(memory_format=torch.channels_last)))
        inner = self.middle(self.down(outer))
        return F.pixel_shuffle(self.ending(self.decoder(self.up(inner) + outer)), 2)
