"""What a phone does to a frame after the sensor: noise reduction, tone curve, sharpening.

The order is that of an image signal processor: noise reduction near the sensor, then the curve, then sharpening. Curve
and sharpening are applied to the ground truth as well: the target is what the phone would have recorded in a calm
moment, not a scene without a camera; a network that undid either would change frames that are sharp already.

Not modelled: noise reduction over time (ghosts behind moving things), local tone mapping, demosaicing.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from selfhvd_tta.lab.simulation.shake import PhoneLook

LEVELS = 3  # of the wavelet shrinkage: detail up to about 8 pixels
SPLINE = (1 / 16, 1 / 4, 3 / 8, 1 / 4, 1 / 16)
# Luma and colour differences (BT.709, not scaled).
TO_YUV = ((0.2126, 0.7152, 0.0722), (-0.2126, -0.7152, 0.9278), (0.7874, -0.7152, -0.0722))


def to_code(light: Tensor) -> Tensor:
    """Linear light -> sRGB code values in [0, 1]."""
    light = light.clamp(0, 1)
    return torch.where(light <= 0.0031308, 12.92 * light, 1.055 * light.clamp(min=1e-8) ** (1 / 2.4) - 0.055)


def noise_like(light: Tensor, grain: float, generator: torch.Generator) -> Tensor:
    """Gaussian noise of unit variance, correlated over ``grain`` pixels, of the shape (3, H, W) of ``light``."""
    channels, height, width = light.shape
    if grain <= 1:
        return torch.randn(light.shape, generator=generator, device=light.device)
    size = (int(height / grain) + 2, int(width / grain) + 2)
    coarse = torch.randn((1, channels, *size), generator=generator, device=light.device)
    noise = F.interpolate(coarse, (height, width), mode="bicubic", align_corners=False)[0]
    return noise / noise.std().clamp(min=1e-6)


def reduce_noise(code: Tensor, deviation: Tensor, look: PhoneLook, generator: torch.Generator) -> Tensor:
    """Shrink detail that is no stronger than the noise: texture goes with it, edges stay, colour blotches are left.

    Args:
        code: (3, H, W) noisy code values.
        deviation: (1, H, W) standard deviation of the noise in code values.
        look: how strongly.
        generator: of the blotches.
    """
    luma = torch.tensor(TO_YUV, device=code.device)
    yuv = torch.einsum("ij,jhw->ihw", luma, code)
    # How strong noise of this grain is at each level, measured rather than derived.
    unit = _levels(noise_like(code, look.grain, generator))
    levels = _levels(yuv)
    result = levels[-1][1]
    # Phones smooth colour harder than brightness.
    hardness = torch.tensor([1.0, 2.5, 2.5], device=code.device).view(3, 1, 1) * look.denoise
    for (detail, _), (noise, _) in zip(levels, unit, strict=True):
        threshold = hardness * deviation * noise.std()
        # The non-negative garrote: like a soft threshold, without weakening what is far above it.
        result = result + detail * (1 - (threshold / detail.abs().clamp(min=1e-6)) ** 2).clamp(min=0)
    if look.blotches:
        cloud = noise_like(code, 9 * look.grain, generator)[1:]
        result = torch.cat((result[:1], result[1:] + look.blotches * deviation * cloud))
    return torch.einsum("ij,jhw->ihw", torch.linalg.inv(luma), result).clamp(0, 1)


def finish(code: Tensor, look: PhoneLook) -> Tensor:
    """Tone curve and sharpening of (3, H, W) code values."""
    code = tone_curve(code, look.contrast, look.gamma)
    if look.sharpening:
        code = code + look.sharpening * (code - _smooth(code, 1))
    return code.clamp(0, 1)


def tone_curve(code: Tensor, contrast: float, gamma: float) -> Tensor:
    """A monotonic curve from 0 to 1: a power, then ``contrast`` times a smooth step away from the diagonal."""
    code = code.clamp(0, 1) ** gamma
    return code + contrast * (code * code * (3 - 2 * code) - code)


def code_deviation(light: Tensor, shot_noise: float, read_noise: float) -> Tensor:
    """Standard deviation (1, H, W) of the noise in code values, from (3, H, W) linear light."""
    level = _smooth(light.clamp(0, 1), 2).mean(0, keepdim=True).clamp(min=0.0031308)
    slope = 1.055 / 2.4 * level ** (1 / 2.4 - 1)
    return slope * (shot_noise * level + read_noise**2).sqrt()


def _levels(picture: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Undecimated wavelet transform: detail and approximation at each level."""
    levels = []
    for level in range(LEVELS):
        smooth = _smooth(picture, 2**level)
        levels.append((picture - smooth, smooth))
        picture = smooth
    return levels


def _smooth(picture: Tensor, step: int) -> Tensor:
    """Separable spline filter with its five taps ``step`` pixels apart, borders repeated."""
    channels = picture.shape[0]
    taps = torch.tensor(SPLINE, device=picture.device, dtype=picture.dtype)
    padded = F.pad(picture[None], (2 * step,) * 4, mode="replicate")
    across = F.conv2d(padded, taps.view(1, 1, 1, 5).expand(channels, 1, 1, 5), dilation=step, groups=channels)
    return F.conv2d(across, taps.view(1, 1, 5, 1).expand(channels, 1, 5, 1), dilation=step, groups=channels)[0]
