"""NAFNet: an image deblurring network without nonlinear activations, run on every frame by itself.

Chen, Chu, Zhang, Sun, "Simple Baselines for Image Restoration", ECCV 2022. The channel attention averages over
a local window as its authors do at test time: Chu, Chen, Chen, Lu, "Improving Image Restoration by Revisiting Global
Information Aggregation", ECCV 2022 (TLC). State-dict keys are those of ``megvii-research/NAFNet``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfhvd_tta.backbones import Backbone, Variant
from selfhvd_tta.backbones.layers import recompute

PIXELS_AT_ONCE = 2**20  # per pass through the network without gradients


class ChannelLayerNorm(nn.Module):
    """Layer normalisation over the channels of every pixel; (B, C, H, W) to the same."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        # In channels-last memory both permutations are views; the fused kernel keeps one activation instead of three.
        normed = F.layer_norm(x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias, self.eps)
        return normed.permute(0, 3, 1, 2)


def _sliding_mean(x: Tensor, window: int, dim: int) -> Tensor:
    """Mean over ``window`` neighbours along ``dim``, same size; the outermost full windows serve the borders too."""
    size = x.shape[dim]
    if window >= size:
        return x.mean(dim, keepdim=True).expand_as(x)
    total = x.cumsum(dim)
    first = total.narrow(dim, window - 1, 1)
    later = total.narrow(dim, window, size - window) - total.narrow(dim, 0, size - window)
    before, after = (window - 1) // 2, window // 2
    repeats = [-1] * x.ndim
    repeats[dim] = before
    last = later.narrow(dim, size - window - 1, 1)
    left = first.expand(repeats)
    repeats[dim] = after
    return torch.cat([left, first, later, last.expand(repeats)], dim) / window


class LocalMean(nn.Module):
    """Mean over a square window around every pixel (TLC), or over the whole map where it fits into the window.

    Args:
        window: side in pixels of this feature map; None averages over the whole map (the network as it is trained).
    """

    def __init__(self, window: int | None) -> None:
        super().__init__()
        self.window = window

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, 1, 1), or to (B, C, H, W) where the map is larger than the window."""
        if self.window is None or max(x.shape[-2:]) <= self.window:
            return x.mean((2, 3), keepdim=True)
        # Row sums, then column sums of means: float32 is exact enough, unlike one integral image of a 4K frame.
        return _sliding_mean(_sliding_mean(x.float(), self.window, 3), self.window, 2).to(x.dtype)


def _gate(x: Tensor) -> Tensor:
    """SimpleGate: the product of the two halves of the channels."""
    first, second = x.chunk(2, dim=1)
    return first * second


class NAFBlock(nn.Module):
    """Gated depth-wise convolution with channel attention, then a gated pointwise one; both residual, scaled."""

    def __init__(self, channels: int, window: int | None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 2 * channels, 1)
        self.conv2 = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1, groups=2 * channels)
        self.conv3 = nn.Conv2d(channels, channels, 1)
        self.sca = nn.Sequential(LocalMean(window), nn.Conv2d(channels, channels, 1))
        self.conv4 = nn.Conv2d(channels, 2 * channels, 1)
        self.conv5 = nn.Conv2d(channels, channels, 1)
        self.norm1 = ChannelLayerNorm(channels)
        self.norm2 = ChannelLayerNorm(channels)
        self.beta = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.gamma = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        gated = _gate(self.conv2(self.conv1(self.norm1(x))))
        x = x + self.conv3(gated * self.sca(gated)) * self.beta
        return x + self.conv5(_gate(self.conv4(self.norm2(x)))) * self.gamma


class NAFNet(nn.Module):
    """U-net of NAF blocks with a global residual.

    Args:
        width: channels at full resolution.
        encoder_blocks: blocks of each scale on the way down; the last block of a scale is followed by a halving.
        middle_blocks: blocks at the coarsest scale.
        decoder_blocks: blocks of each scale on the way up.
        train_size: side of the training crops; attention averages over 1.5 times that (TLC), with None over the frame.
        checkpointing: recompute each block in the backward pass instead of keeping its activations.
    """

    def __init__(
        self,
        width: int = 32,
        encoder_blocks: tuple[int, ...] = (1, 1, 1, 28),
        middle_blocks: int = 1,
        decoder_blocks: tuple[int, ...] = (1, 1, 1, 1),
        train_size: int | None = 256,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if len(encoder_blocks) != len(decoder_blocks):
            raise ValueError("encoder and decoder need the same number of scales")
        self.checkpointing = checkpointing
        self.multiple = 2 ** len(encoder_blocks)

        def blocks(count: int, scale: int) -> nn.Sequential:
            window = None if train_size is None else train_size * 3 // 2 // 2**scale
            return nn.Sequential(*(NAFBlock(width * 2**scale, window) for _ in range(count)))

        scales = range(len(encoder_blocks))
        self.intro = nn.Conv2d(3, width, 3, padding=1)
        self.ending = nn.Conv2d(width, 3, 3, padding=1)
        self.encoders = nn.ModuleList(blocks(encoder_blocks[scale], scale) for scale in scales)
        self.downs = nn.ModuleList(nn.Conv2d(width * 2**s, width * 2 ** (s + 1), 2, stride=2) for s in scales)
        self.middle_blks = blocks(middle_blocks, len(encoder_blocks))
        self.ups = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width * 2 ** (s + 1), width * 2 ** (s + 2), 1, bias=False), nn.PixelShuffle(2))
            for s in reversed(scales)
        )
        self.decoders = nn.ModuleList(
            blocks(count, scale) for count, scale in zip(decoder_blocks, reversed(scales), strict=True)
        )

    def _run(self, blocks: nn.Module, x: Tensor) -> Tensor:
        for block in blocks.children():
            x = recompute(block, x) if self.checkpointing else block(x)
        return x

    def _restore(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) to the same."""
        height, width = images.shape[-2:]
        bottom, right = -height % self.multiple, -width % self.multiple
        images = F.pad(images, (0, right, 0, bottom)).contiguous(memory_format=torch.channels_last)
        x = self.intro(images)
        skips = []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            x = self._run(encoder, x)
            skips.append(x)
            x = down(x)
        x = self._run(self.middle_blks, x)
        for decoder, up in zip(self.decoders, self.ups, strict=True):
            x = self._run(decoder, up(x) + skips.pop())
        return (self.ending(x) + images)[..., :height, :width]

    def forward(self, frames: Tensor) -> Tensor:
        """(B, T, 3, H, W) in [0, 1] to the same; any H and W (padded with zeros to the multiple, as its authors do)."""
        batch, time, _, height, width = frames.shape
        images = frames.flatten(0, 1)
        # A gradient needs the activations of all frames anyway; without one, few at a time keep memory small.
        at_once = len(images) if torch.is_grad_enabled() else max(1, PIXELS_AT_ONCE // (height * width))
        return torch.cat([self._restore(part) for part in images.split(at_once)]).unflatten(0, (batch, time))


BACKBONE = Backbone(
    id="nafnet",
    summary="NAFNet, an image network, frame by frame; lite is bundled",
    licence="MIT",
    paper="Chen et al., Simple Baselines for Image Restoration, ECCV 2022",
    build=NAFNet,
    variants=(
        Variant("gopro-w32", {"width": 32}, ("nafnet-gopro-w32",)),
        Variant("gopro-w64", {"width": 64, "checkpointing": True}, ("nafnet-gopro-w64",)),
        Variant("reds-w64", {"width": 64, "checkpointing": True}, ("nafnet-reds-w64",)),
        Variant(
            "lite",
            {
                "width": 16,
                "encoder_blocks": (0, 1, 2, 4),
                "middle_blocks": 4,
                "decoder_blocks": (2, 2, 1, 0),
                "train_size": 128,
            },
            ("nafnet-lite",),
        ),
    ),
    temporal="frame",
    haste=5.0,  # lite, 150 steps, 5e-4 against 1e-4: +0.20 dB on one clip, -0.05 on another (docs/lab/quality.md)
    autocast=frozenset({"bfloat16"}),
)
