"""The network behind :mod:`selfhvd_tta.flows.shake`: it proofreads a first guess of the flow between two frames.

It sees both frames, the second one warped by the current flow, and proposes what to do at each place: leave the
flow, take the homography's (no flow at all), add one of two Lucas-Kanade steps, add a step of its own. Lucas-Kanade
(Lucas & Kanade, 1981) is given as a layer because a small network hardly learns to divide, and sub-pixel precision
hangs on that division; what to believe is what the network learns. It is trained to correct its own result once more,
with the same weights; a run takes the first reading, as the second one costs as much and changes next to nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selfhvd_tta.imaging import LUMA, gaussian, reduced

# Sides of the frames that the network takes are multiples of this.
MULTIPLE = 16
# Windows of the two Lucas-Kanade steps, in pixels (standard deviation), and the longest step.
WINDOWS = (2.5, 8.0)
LONGEST_STEP = 3.0
# Squared standard deviation of noise in the gradient of grey values, which keeps steps on flat places short.
GRADIENT_NOISE = 4e-5
# Log of the expected error in pixels: 0.02 to 20.
SCALES = (-4.0, 3.0)
PROPOSALS = 5
# Radius of Gaussian kernels, in standard deviations.
REACH = 2.5


class _Given(NamedTuple):
    """What all passes over a pair share: ``target`` and ``luma`` (of the source) at full size, other maps at half."""

    target: Tensor
    luma: Tensor
    colour: Tensor
    constant: Tensor
    guess: Tensor
    grey: Tensor


class Reading(NamedTuple):
    """What one pass says, all (B, ., H, W) at the full size.

    Attributes:
        flow: (B, 2, H, W) pixels.
        log_scale: (B, 1, H, W) log of the error to be expected, in pixels (scale of a two-dimensional Laplacian).
        seen: (B, 1, H, W) logit: the point is visible in both frames.
    """

    flow: Tensor
    log_scale: Tensor
    seen: Tensor


def warp_by(image: Tensor, flow: Tensor) -> Tensor:
    """(B, C, H, W) at p + flow(p), bilinear, borders repeated."""
    height, width = flow.shape[-2:]
    xs = torch.arange(width, device=flow.device, dtype=flow.dtype)
    ys = torch.arange(height, device=flow.device, dtype=flow.dtype)[:, None]
    grid = torch.stack(
        ((2 * xs + 1) / width - 1 + flow[:, 0] * (2 / width), (2 * ys + 1) / height - 1 + flow[:, 1] * (2 / height)),
        dim=-1,
    )
    return F.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=False)


def asinh(maps: Tensor) -> Tensor:
    """The inverse hyperbolic sine by operations that a CPU does on whole vectors."""
    size = maps.abs()
    return torch.log1p(size + size.square() / (1 + (size.square() + 1).sqrt())).copysign(maps)


def lucas_kanade(source: Tensor, warped: Tensor) -> tuple[Tensor, Tensor]:
    """Steps of the flow by Lucas and Kanade at half size, with windows ``WINDOWS``.

    Args:
        source: (B, 1, H, W) grey values in [0, 1], H and W even.
        warped: the target warped by the current flow, of the same shape and range.

    Returns:
        Steps (B, 4, H / 2, W / 2) in pixels of the full size, x and y for each window; and (B, 2, H / 2, W / 2), how
        well each is determined, in [0, 1]: the smaller eigenvalue of the structure tensor against noise.
    """
    mean = F.pad((source + warped) / 2, (1, 1, 1, 1), mode="replicate")
    gx = (mean[..., 1:-1, 2:] - mean[..., 1:-1, :-2]) / 2
    gy = (mean[..., 2:, 1:-1] - mean[..., :-2, 1:-1]) / 2
    change = warped - source
    products = torch.cat((gx * gx, gx * gy, gy * gy, gx * change, gy * change), dim=1)
    products = reduced(products, 2)
    steps, sure = [], []
    previous = 0.0
    for window in WINDOWS:
        # One window continues the blur of the other; at half size.
        products = gaussian(products, (window**2 - previous**2) ** 0.5 / 2, REACH)
        previous = window
        xx, xy, yy, xt, yt = products.split(1, dim=1)
        a, c = xx + GRADIENT_NOISE, yy + GRADIENT_NOISE
        determinant = a * c - xy * xy
        step = torch.cat((xy * yt - c * xt, xy * xt - a * yt), dim=1) / determinant
        steps.append(step.clamp(-LONGEST_STEP, LONGEST_STEP))
        smaller = (xx + yy) / 2 - (((xx - yy) / 2).square() + xy * xy + 1e-12).sqrt()
        sure.append(smaller.clamp(min=0) / (smaller.clamp(min=0) + 5 * GRADIENT_NOISE))
    return torch.cat(steps, dim=1), torch.cat(sure, dim=1)


def _block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1), nn.ReLU(inplace=True))


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, 1, 1)
        self.second = nn.Conv2d(channels, channels, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(F.relu(self.first(x))))


class ShakeNetwork(nn.Module):
    """A U-Net over half, quarter, eighth and sixteenth of the size.

    Args:
        widths: channels at these four levels.
        passes: how often it corrects the flow in training.
    """

    inputs = 33

    def __init__(self, widths: tuple[int, int, int, int] = (16, 32, 64, 96), passes: int = 2) -> None:
        super().__init__()
        half, quarter, eighth, sixteenth = widths
        self.passes = passes
        self.stem = _block(self.inputs, half)
        self.down1 = nn.Sequential(_block(half, quarter, 2), _Residual(quarter))
        self.down2 = nn.Sequential(_block(quarter, eighth, 2), _Residual(eighth))
        self.down3 = nn.Sequential(_block(eighth, sixteenth, 2), _Residual(sixteenth), _Residual(sixteenth))
        self.up3 = _block(sixteenth + eighth, eighth)
        self.up2 = _block(eighth + quarter, quarter)
        self.up1 = _block(quarter + half, half)
        self.head = nn.Conv2d(half, PROPOSALS + 4, 3, 1, 1)
        with torch.no_grad():
            self.head.weight.mul_(0.1)
            start = torch.zeros(PROPOSALS + 4)
            start[2] = 3.0  # at the start, the current flow
            self.head.bias = nn.Parameter(start)
        self.to(memory_format=torch.channels_last)

    def forward(
        self, source: Tensor, target: Tensor, guess: Tensor, gap: Tensor, half: torch.dtype | None = None
    ) -> list[Reading]:
        """Correct a guess.

        Args:
            source: (B, 3, H, W) RGB in [0, 1], H and W multiples of ``MULTIPLE``.
            target: of the same shape and range, equally soft.
            guess: (B, 2, H, W) flow from source to target, pixels.
            gap: (B, 1, H, W) how far from its start the guess leads there and back, pixels.
            half: precision of the convolutions, float32 if None; positions and steps are in float32 always.

        Returns:
            One reading per pass.
        """
        return [_doubled_reading(reading) for reading in self._readings((source, target, guess, gap), half)]

    def first(
        self, source: Tensor, target: Tensor, guess: Tensor, gap: Tensor, half: torch.dtype | None = None
    ) -> Reading:
        """The reading of the first pass; arguments as for :meth:`forward`."""
        return _doubled_reading(next(self._readings((source, target, guess, gap), half)))

    def _readings(self, pair: tuple[Tensor, Tensor, Tensor, Tensor], half: torch.dtype | None) -> Iterator[Reading]:
        """One reading per pass, at half the size; arguments as for :meth:`forward`."""
        source, target, guess, gap = pair
        grey = source.new_tensor(LUMA).view(1, 3, 1, 1)
        luma = [(frame * grey).sum(1, keepdim=True) for frame in (source, target)]
        colour = reduced(source, 2)
        still = reduced(target, 2) - colour
        detail = F.pixel_unshuffle(luma[0], 2) - (colour * grey).sum(1, keepdim=True)
        contrast = gaussian(detail.square().mean(1, keepdim=True), 2, REACH).sqrt()
        guess = reduced(guess, 2)
        constant = torch.cat(
            (colour - 0.5, 10 * detail, 10 * still, 10 * gaussian(still.abs().mean(1, keepdim=True), 3, REACH)), dim=1
        )
        constant = _channels_last((constant, 20 * contrast, reduced(gap, 2).clamp(max=8)), half)
        given = _Given(target, luma[0], colour, constant, guess, grey)
        flow = guess
        for _ in range(self.passes):
            reading = self._pass(given, flow, half)
            yield reading
            flow = reading.flow.detach()

    def _pass(self, given: _Given, flow: Tensor, half: torch.dtype | None) -> Reading:
        """One correction of the flow (B, 2, H / 2, W / 2); the reading has that size."""
        target, luma, colour, constant, guess, grey = given
        with torch.no_grad():
            fine = F.interpolate(flow, scale_factor=2.0, mode="bilinear", align_corners=False)
            warped = warp_by(target, fine)
            warped_luma = (warped * grey).sum(1, keepdim=True)
            steps, sure = lucas_kanade(luma, warped_luma)
            change = reduced(warped, 2) - colour
            height, width = luma.shape[-2:]
            xs = torch.arange(width, device=luma.device, dtype=luma.dtype) + fine[:, :1]
            ys = torch.arange(height, device=luma.device, dtype=luma.dtype)[:, None] + fine[:, 1:]
            inside = ((xs == xs.clamp(0, width - 1)) & (ys == ys.clamp(0, height - 1))).to(luma.dtype)
            varying = _channels_last(
                (
                    10 * F.pixel_unshuffle(warped_luma - luma, 2),
                    10 * change,
                    10 * gaussian(change.abs().mean(1, keepdim=True), 3, REACH),
                    steps,
                    sure,
                    asinh(flow),
                    (flow - guess).clamp(-4, 4),
                    reduced(inside, 2),
                    # Where the guess does not beat zero flow, trust the homography.
                    asinh(flow.square().sum(1, keepdim=True).sqrt()),
                ),
                half,
            )
        with torch.autocast(flow.device.type, half or torch.bfloat16, enabled=half is not None):
            answer = self._unet(torch.cat((constant, varying), dim=1))
        answer = answer.float().contiguous()
        weights = answer[:, :PROPOSALS].softmax(dim=1).split(1, dim=1)
        proposals = (torch.zeros_like(flow), guess, flow, flow + steps[:, :2], flow + steps[:, 2:])
        mixed = sum(weight * proposal for weight, proposal in zip(weights, proposals, strict=True))
        step, log_scale, logit = answer[:, PROPOSALS:].split((2, 1, 1), dim=1)
        return Reading(mixed + step, log_scale.clamp(*SCALES), logit)

    def _unet(self, seen: Tensor) -> Tensor:
        half = self.stem(seen)
        quarter = self.down1(half)
        eighth = self.down2(quarter)
        sixteenth = self.down3(eighth)
        eighth = _joined(self.up3, sixteenth, eighth)
        quarter = _joined(self.up2, eighth, quarter)
        half = _joined(self.up1, quarter, half)
        return self.head(half)


def _channels_last(parts: tuple[Tensor, ...], half: torch.dtype | None) -> Tensor:
    """Channels one after the other, in the order in memory and the precision that convolutions want."""
    return torch.cat(parts, dim=1).to(half or torch.float32).contiguous(memory_format=torch.channels_last)


def _doubled_reading(reading: Reading) -> Reading:
    return Reading(*(F.interpolate(part, scale_factor=2.0, mode="bilinear", align_corners=False) for part in reading))


def _joined(block: nn.Sequential, low: Tensor, skip: Tensor) -> Tensor:
    """``block`` on ``low``, every pixel of it repeated over 2 x 2, concatenated with ``skip``.

    A 3 x 3 convolution of repeated pixels is a transposed one of the pixels with 4 x 4 taps, of which each result sees
    4 instead of 9: a third less time for the whole network in float32, a twentieth in bfloat16.
    """
    convolution = block[0]
    assert isinstance(convolution, nn.Conv2d)
    for_low, for_skip = convolution.weight.split((low.shape[1], skip.shape[1]), dim=1)
    turned = for_low.flip(2, 3).transpose(0, 1)
    taps = torch.stack([F.pad(turned, (x, 1 - x, y, 1 - y)) for x in (0, 1) for y in (0, 1)]).sum(0)
    from_low = F.conv_transpose2d(low, taps.contiguous(memory_format=torch.channels_last), stride=2, padding=1)
    for_skip = for_skip.contiguous(memory_format=torch.channels_last)
    return F.relu(from_low + F.conv2d(skip, for_skip, convolution.bias, padding=1))
