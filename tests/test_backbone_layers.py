"""Shared and special layers of the networks against closed forms."""

from __future__ import annotations

from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfhvd_tta.backbones.deform import deformable_attention
from selfhvd_tta.backbones.dstnetplus import HaarWavelet, dynamic_convolution, halve_by_maximum
from selfhvd_tta.backbones.layers import flow_warp, recompute, resize_bilinear
from selfhvd_tta.backbones.nafnet import ChannelLayerNorm, LocalMean
from selfhvd_tta.backbones.window_attention import TransformerBlock


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
    x = torch.randn(2, 2, 30, 40)
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


def test_deformable_attention_by_the_definition() -> None:
    """Four-corner bilinear samples with zeros outside, softmax over both frames and nine taps, pixel by pixel."""
    heads, groups, channels, height, width = 4, 4, 8, 4, 5
    query = torch.randn(1, channels, height, width, dtype=torch.float64)
    key, value = torch.randn(2, 1, 2, channels, height, width, dtype=torch.float64)
    offset = 2 * torch.randn(1, 2, groups, 9, 2, height, width, dtype=torch.float64)

    def sample(image: Tensor, frame: int, group: int, tap: int, row: int, column: int) -> Tensor:
        dy, dx = offset[0, frame, group, tap, :, row, column].tolist()
        y, x = row + tap // 3 - 1 + dy, column + tap % 3 - 1 + dx
        top, left = int(y // 1), int(x // 1)
        result = torch.zeros(image.shape[2], dtype=image.dtype)
        for i, j in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
            if 0 <= i < height and 0 <= j < width:
                result += image[0, frame, :, i, j] * (1 - abs(y - i)) * (1 - abs(x - j))
        return result

    out = deformable_attention(query, key, value, offset, heads)
    each = channels // heads
    for row, column, head in product(range(height), range(width), range(heads)):
        part, share = slice(head * each, (head + 1) * each), head // 2
        places = [(frame, tap) for frame in range(2) for tap in range(9)]
        keys = [sample(key[:, :, part], frame, share, tap, row, column) for frame, tap in places]
        values = [sample(value[:, :, part], frame, 2 + share, tap, row, column) for frame, tap in places]
        weights = (torch.stack(keys) @ query[0, part, row, column] / each**0.5).softmax(0)
        torch.testing.assert_close(out[0, part, row, column], weights @ torch.stack(values))


@pytest.mark.parametrize(("height", "width"), [(16, 16), (18, 13), (6, 21)])
@pytest.mark.parametrize("shifted", [False, True])
def test_window_attention_sees_one_window(height: int, width: int, shifted: bool) -> None:
    """What a pixel depends on is exactly its window, moved by half a window where that is asked for and possible."""
    block = TransformerBlock(6, (2, 8, 8), 2, shifted, expansion=2).double()
    x = torch.randn(1, 2, height, width, 6, dtype=torch.float64, requires_grad=True)
    out = block(x)

    def window(position: int, size: int) -> set[int]:
        shift = 4 if shifted and size > 8 else 0
        padded = -(-size // 8) * 8
        start = (position - shift) // 8 * 8 + shift
        if start + 8 > padded:  # the strips at both ends share a window, but must not see each other
            return set(range(start, size))
        return set(range(max(start, 0), min(start + 8, size)))

    for row, column in ((0, 0), (height - 1, width - 1), (height // 2, width // 3), (3, width - 5)):
        (gradient,) = torch.autograd.grad(out[0, 0, row, column].sum(), x, retain_graph=True)
        seen = gradient[0].abs().sum(-1) > 0
        expected = torch.zeros(2, height, width, dtype=torch.bool)
        for i in window(row, height):
            for j in window(column, width):
                expected[:, i, j] = True
        assert torch.equal(seen, expected), (row, column)
