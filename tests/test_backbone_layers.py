"""Shared and special layers of the networks against closed forms."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from selfhvd_tta.backbones.dstnetplus import HaarWavelet, dynamic_convolution, halve_by_maximum
from selfhvd_tta.backbones.layers import flow_warp, recompute, resize_bilinear
from selfhvd_tta.backbones.nafnet import ChannelLayerNorm, LocalMean


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize(("height", "width"), [(5, 9), (9, 5), (13, 4), (6, 6), (7, 12)])
@pytest.mark.parametrize("window", [4, 5, 6])
def test_local_mean_is_the_mean_of_the_nearest_full_window(height: int, width: int, window: int) -> None:
    x = torch.randn(2, 3, height, width)
    pooled = LocalMean(window)(x).expand_as(x)

    def span(position: int, size: int) -> slice:
        if window >= size:
            return slice(0, size)
        start = min(max(position - (window - 1) // 2, 0), size - window)
        return slice(start, start + window)

    for row in range(height):
        for column in range(width):
            expected = x[:, :, span(row, height), span(column, width)].mean((2, 3))
            torch.testing.assert_close(pooled[:, :, row, column], expected, atol=1e-6, rtol=1e-5)


def test_local_mean_without_window_is_global() -> None:
    x = torch.randn(1, 2, 30, 40)
    torch.testing.assert_close(LocalMean(None)(x), x.mean((2, 3), keepdim=True))


def test_channel_layer_norm_normalises_each_pixel() -> None:
    x = torch.randn(2, 8, 3, 5) * 7 + 3
    out = ChannelLayerNorm(8)(x)
    torch.testing.assert_close(out.mean(1), torch.zeros(2, 3, 5), atol=1e-5, rtol=0)
    torch.testing.assert_close(out.var(1, correction=0), torch.ones(2, 3, 5), atol=1e-4, rtol=0)


def test_recompute_gives_the_same_gradients() -> None:
    layer = nn.Sequential(nn.Conv2d(2, 4, 3), nn.GELU(), nn.Conv2d(4, 2, 3))
    x = torch.randn(1, 2, 9, 9)
    layer(x).square().sum().backward()
    expected = [parameter.grad.clone() for parameter in layer.parameters()]
    layer.zero_grad()
    recompute(layer, x).square().sum().backward()
    for parameter, gradient in zip(layer.parameters(), expected, strict=True):
        assert torch.equal(parameter.grad, gradient)


def test_haar_wavelet_is_orthogonal_and_inverts() -> None:
    wavelet = HaarWavelet(3).double()
    x = torch.randn(2, 3, 6, 10, dtype=torch.float64)
    low, high = wavelet(x)
    torch.testing.assert_close(low, F.avg_pool2d(x, 2))
    assert high.shape == (2, 9, 3, 5)
    torch.testing.assert_close(wavelet.inverse(low, high), x)


def test_dynamic_convolution_applies_each_pixels_own_kernel() -> None:
    x = torch.randn(2, 3, 5, 7, dtype=torch.float64, requires_grad=True)
    kernels = torch.randn(2, 27, 5, 7, dtype=torch.float64, requires_grad=True)
    patches = F.unfold(x, 3, padding=1).unflatten(1, (3, 9)).unflatten(-1, (5, 7))
    expected = (patches * kernels.unflatten(1, (3, 9))).sum(2)
    out = dynamic_convolution(x, kernels)
    torch.testing.assert_close(out, expected)
    seed = torch.randn_like(out)
    for own, reference in zip(
        torch.autograd.grad(out, (x, kernels), seed), torch.autograd.grad(expected, (x, kernels), seed), strict=True
    ):
        torch.testing.assert_close(own, reference)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (9, 8), (13, 11), (2, 3), (135, 241)])
def test_halving_is_adaptive_max_pooling(height: int, width: int) -> None:
    x = torch.randn(2, 3, height, width).round(decimals=1).requires_grad_()  # rounding makes ties
    expected = F.adaptive_max_pool2d(x, (height // 2, width // 2))
    out = halve_by_maximum(x)
    assert torch.equal(out, expected)
    seed = torch.randn_like(out)
    torch.testing.assert_close(torch.autograd.grad(out, x, seed), torch.autograd.grad(expected, x, seed))


@pytest.mark.parametrize("target", [(16, 24), (13, 29), (5, 3)])
def test_bilinear_resize_is_the_usual_one(target: tuple[int, int]) -> None:
    x = torch.randn(2, 3, 7, 9, dtype=torch.float64, requires_grad=True)
    expected = F.interpolate(x, size=target, mode="bilinear", align_corners=False)
    out = resize_bilinear(x, target)
    torch.testing.assert_close(out, expected)
    seed = torch.randn_like(out)
    torch.testing.assert_close(torch.autograd.grad(out, x, seed), torch.autograd.grad(expected, x, seed))


def test_flow_warp_takes_the_value_that_the_flow_points_to() -> None:
    x = torch.randn(1, 2, 6, 8)
    flow = torch.zeros(1, 2, 6, 8)
    flow[:, 0], flow[:, 1] = 2, -1
    inside = flow_warp(x, flow)
    torch.testing.assert_close(inside[..., 1:, :-2], x[..., :-1, 2:], atol=1e-5, rtol=1e-5)
    assert inside[..., :1, :].abs().max() < 1e-5  # from above the frame
    assert inside[..., -2:].abs().max() < 1e-5  # from the right of it
    border = flow_warp(x, flow, "border")
    torch.testing.assert_close(border[..., 0, :-2], x[..., 0, 2:], atol=1e-5, rtol=1e-5)
    flow[:, 0], flow[:, 1] = 0.5, 0
    half = flow_warp(x, flow)
    torch.testing.assert_close(half[..., :-1], (x[..., :-1] + x[..., 1:]) / 2, atol=1e-5, rtol=1e-5)
