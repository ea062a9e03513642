"""What restored frames are asked for, and measured by."""

from __future__ import annotations

import torch
from torch import Tensor

from selfhvd_tta.imaging import decibels


def restoration_loss(output: Tensor, target: Tensor, softness: float, frequency: float = 0.0) -> Tensor:
    """Charbonnier distance ``sqrt(e^2 + softness^2) - softness``: quadratic below ``softness``, linear above it.

    Args:
        output: (..., H, W).
        target: of the same shape.
        softness: see above.
        frequency: weight of the mean absolute difference of the (orthonormal) Fourier coefficients of each plane, real
            and imaginary parts apart (as Cho et al., "Rethinking Coarse-to-Fine Approach in Single Image Deblurring",
            ICCV 2021); 0: none.
    """
    error = output - target
    loss = (error * error + softness**2).sqrt().mean() - softness
    if frequency:
        loss = loss + frequency * torch.view_as_real(torch.fft.rfft2(error, norm="ortho")).abs().mean()
    return loss


def psnr(output: Tensor, truth: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of (N, 3, H, W) frames on the 0..255 scale: (N,) dB, about 78 dB for equal ones."""
    errors = (output - truth).square().mean((1, 2, 3)).clamp(min=1e-3)
    return torch.tensor([decibels(error) for error in errors.tolist()], device=errors.device)
