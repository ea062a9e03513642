"""Shared and special layers of the networks against closed forms."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from selfhvd_tta.backbones.layers import recompute
from selfhvd_tta.backbones.nafnet import ChannelLayerNorm, LocalMean


@pytest.mark.parametrize(("height", "width"), [(5, 9), (9, 5), (13, 4), (6, 6), (7, 12)])
@pytest.mark.parametrize("window", [4, 5, 6])
def test_local_mean_is_the_mean_of_the_nearest_full_window(height: int, width: int, window: int) -> None:
    x = torch.randn(2, 3, height, width, dtype=torch.float64).float()
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
