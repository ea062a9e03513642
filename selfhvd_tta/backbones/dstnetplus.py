"""DSTNet+: wavelet features propagated backward, then forward through time by a kernel per pixel.

Pan et al., "Learning Efficient Deep Discriminative Spatial and Temporal Networks for Video Deblurring", TPAMI 2025.
State-dict keys are those of ``sunny2109/DSTNet-plus`` (misspelling included).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfhvd_tta.backbones import Backbone, Variant
from selfhvd_tta.backbones.layers import ResidualBlock, recompute, resize_bilinear


class HaarWavelet(nn.Module):
    """Haar analysis (low, and three high bands in one tensor) and its exact inverse."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        bank = torch.tensor([[[1, 1], [1, 1]], [[1, -1], [1, -1]], [[1, 1], [-1, -1]], [[1, -1], [-1, 1]]])
        # The official state dict holds the constant bank as a parameter.
        self.haar_weights = nn.Parameter(bank[:, None].float().repeat(channels, 1, 1, 1), requires_grad=False)
        self.channels = channels

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W), H and W even, to the low band (B, C, H/2, W/2) and the high bands (B, 3C, H/2, W/2)."""
        bands = F.conv2d(x, self.haar_weights, stride=2, groups=self.channels) / 4
        bands = bands.unflatten(1, (self.channels, 4)).transpose(1, 2)
        return bands[:, 0], bands[:, 1:].flatten(1, 2)

    def inverse(self, low: Tensor, high: Tensor) -> Tensor:
        bands = torch.cat([low[:, None], high.unflatten(1, (3, self.channels))], 1).transpose(1, 2).flatten(1, 2)
        return F.conv_transpose2d(bands, self.haar_weights, stride=2, groups=self.channels)


def dynamic_convolution(x: Tensor, kernels: Tensor) -> Tensor:
    """3x3 cross-correlation with an own kernel for every pixel and channel, zeros outside.

    Args:
        x: (B, C, H, W).
        kernels: (B, 9 C, H, W), channel ``9 c + 3 row + column``.

    Returns:
        (B, C, H, W).
    """
    height, width = x.shape[-2:]
    # Nine shifted multiply-adds: autograd keeps views of two tensors, where an unfold would store x nine times.
    # Unbind's backward is one stack; nine slices would each add a tensor of the size of all kernels.
    taps = kernels.unflatten(1, (x.shape[1], 9)).unbind(2)
    padded = F.pad(x, (1, 1, 1, 1))
    out = taps[0] * padded[..., :height, :width]
    for index, tap in enumerate(taps[1:], start=1):
        row, column = divmod(index, 3)
        out = torch.addcmul(out, tap, padded[..., row : row + height, column : column + width])
    return out


def halve_by_maximum(x: Tensor) -> Tensor:
    """Adaptive max pooling to half the size (rounded down): windows of 2, or overlapping ones of 3 where it is odd."""
    height, width = x.shape[-2:]
    return F.max_pool2d(x, (2 + height % 2, 2 + width % 2), stride=2)


def _residual_blocks(count: int, channels: int) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(channels, nn.LeakyReLU(0.1, inplace=True)) for _ in range(count)))


class DynamicConvolution(nn.Module):
    """Predicts a 3x3 kernel per pixel and channel from three coarser scales of a feature map and applies it."""

    def __init__(self, channels: int, blocks: int) -> None:
        super().__init__()
        self.Block1 = _residual_blocks(blocks, channels)
        self.Block2 = _residual_blocks(blocks, channels)
        self.Block3 = _residual_blocks(blocks, channels)
        self.tokernel = nn.Conv2d(3 * channels, 9 * channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        scales = []
        scale = x
        for block in (self.Block1, self.Block2, self.Block3):
            scale = block(halve_by_maximum(scale))
            scales.append(resize_bilinear(scale, x.shape[-2:]))
        return dynamic_convolution(x, self.tokernel(torch.cat(scales, 1)))


class AttentionFusion(nn.Module):
    """Mixes a frame's features with the propagated ones by a learnt weight per pixel and channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(2 * channels, 2 * channels, 1)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, current: Tensor, propagated: Tensor) -> Tensor:
        query, key = self.conv0(torch.cat([current, propagated], 1)).chunk(2, 1)
        return self.conv1(torch.lerp(current, propagated, torch.sigmoid(query * key)))


class ResidualStack(nn.Module):
    """Residual blocks under the official key ``main.0``."""

    def __init__(self, channels: int, blocks: int) -> None:
        super().__init__()
        self.main = nn.Sequential(_residual_blocks(blocks, channels))

    def forward(self, x: Tensor) -> Tensor:
        return self.main(x)


class Propagation(nn.Module):
    """One step of a recurrence over the frames: features of a frame and the propagated ones to new propagated ones."""

    def __init__(self, channels: int, kernel_blocks: int, blocks: int) -> None:
        super().__init__()
        self.fusion = AttentionFusion(channels)
        self.kernel_conv_pixel = DynamicConvolution(channels, kernel_blocks)
        self.resblock_bcakward2d = ResidualStack(channels, blocks)

    def forward(self, current: Tensor, propagated: Tensor) -> Tensor:
        return self.resblock_bcakward2d(self.kernel_conv_pixel(self.fusion(current, propagated)))


class DSTNetPlus(nn.Module):
    """Wavelet split of the features, bidirectional propagation of the low band, global residual.

    Args:
        channels: feature channels.
        kernel_blocks: residual blocks per scale of the kernel prediction.
        blocks: residual blocks after each dynamic convolution.
        checkpointing: recompute each step of the recurrences in the backward pass instead of keeping its activations.
    """

    def __init__(
        self, channels: int = 64, kernel_blocks: int = 3, blocks: int = 15, checkpointing: bool = False
    ) -> None:
        super().__init__()
        self.checkpointing = checkpointing
        self.feat_extractor = nn.Conv2d(3, channels, 3, padding=1)
        self.recons = nn.Conv2d(channels, 3, 3, padding=1)
        self.wave = HaarWavelet(channels)
        self.x_wave_2_conv1 = nn.Conv2d(3 * channels, 3 * channels, 1, groups=3)
        self.x_wave_2_conv2 = nn.Conv2d(3 * channels, 3 * channels, 1, groups=3)
        self.forward_propagation = Propagation(channels, kernel_blocks, blocks)
        self.backward_propagation = Propagation(channels, kernel_blocks, blocks)

    def _run(self, function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        return recompute(function, *inputs) if self.checkpointing else function(*inputs)

    def _low(self, image: Tensor) -> Tensor:
        # A copy: the low band is a view, which would keep the high bands, three times its size, for every frame.
        return self.wave(self.feat_extractor(image))[0].clone()

    def _reconstruct(self, image: Tensor, low: Tensor) -> Tensor:
        # The high bands are computed again, for 1 % of the computation: kept from the first pass they would take three
        # quarters of all memory.
        high = self.wave(self.feat_extractor(image))[1]
        high = self.x_wave_2_conv2(F.leaky_relu(self.x_wave_2_conv1(high), 0.1, inplace=True))
        return self.recons(self.wave.inverse(low, high)) + image

    def forward(self, frames: Tensor) -> Tensor:
        """(B, T, 3, H, W) in [0, 1] to the same; H and W at least 16 (odd ones are padded by reflection)."""
        height, width = frames.shape[-2:]
        edge = (0, width % 2, 0, height % 2)
        images = [F.pad(frame, edge, mode="reflect") if any(edge) else frame for frame in frames.unbind(1)]
        features = [self._run(self._low, image) for image in images]
        state = torch.zeros_like(features[0])
        for index in reversed(range(len(features))):
            features[index] = state = self._run(self.backward_propagation, features[index], state)
        state = torch.zeros_like(state)
        outputs = []
        features.reverse()
        for image in images:
            state = self._run(self.forward_propagation, features.pop(), state)
            outputs.append(self._run(self._reconstruct, image, state)[..., :height, :width])
        return torch.stack(outputs, 1)


_BASE = {"channels": 64, "kernel_blocks": 3, "blocks": 15}
_LARGE = {"channels": 96, "kernel_blocks": 5, "blocks": 25, "checkpointing": True}
# Counted for 64 channels; with 96, memory grows by a half.
_MEMORY_BASE = {"float32": (1100, 64), "bfloat16": (575, 32)}
_MEMORY_LARGE = {"float32": (1650, 96), "bfloat16": (865, 48)}

BACKBONE = Backbone(
    id="dstnetplus",
    summary="DSTNet+, wavelet features propagated both ways in time by dynamic convolutions; the default from the Hub",
    licence="Apache-2.0",
    paper="Pan et al., Learning Efficient Deep Discriminative Spatial and Temporal Networks, TPAMI 2025",
    build=DSTNetPlus,
    variants=(
        Variant("base-gopro", _BASE, ("dstnetplus-base-gopro",), memory=_MEMORY_BASE),
        Variant("base-dvd", _BASE, ("dstnetplus-base-dvd",), memory=_MEMORY_BASE),
        Variant("base-bsd-1ms8ms", _BASE, ("dstnetplus-base-bsd-1ms8ms",), memory=_MEMORY_BASE),
        Variant("base-bsd-2ms16ms", _BASE, ("dstnetplus-base-bsd-2ms16ms",), memory=_MEMORY_BASE),
        Variant("base-bsd-3ms24ms", _BASE, ("dstnetplus-base-bsd-3ms24ms",), memory=_MEMORY_BASE),
        Variant("l-gopro", _LARGE, ("dstnetplus-l-gopro",), memory=_MEMORY_LARGE),
        Variant("l-dvd", _LARGE, ("dstnetplus-l-dvd",), memory=_MEMORY_LARGE),
        Variant("l-bsd-1ms8ms", _LARGE, ("dstnetplus-l-bsd-1ms8ms",), memory=_MEMORY_LARGE),
        Variant("l-bsd-2ms16ms", _LARGE, ("dstnetplus-l-bsd-2ms16ms",), memory=_MEMORY_LARGE),
        Variant("l-bsd-3ms24ms", _LARGE, ("dstnetplus-l-bsd-3ms24ms",), memory=_MEMORY_LARGE),
    ),
    reach=10,  # an estimate, not measured with trained weights
    min_size=16,
    autocast=frozenset({"bfloat16"}),
)
