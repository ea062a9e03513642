"""Filters by OpenCV are those of torch."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from selfhvd_tta.imaging import gaussian, opened, reduced


def maps(height: int, width: int) -> torch.Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("size", "sigma"), [((24, 20), 2.0), ((5, 9), 4.0), ((40, 31), 0.3)])
def test_gaussian_is_the_same_with_gradients(size: tuple[int, int], sigma: float) -> None:
    plain = gaussian(maps(*size), sigma, 3)
    recorded = gaussian(maps(*size).requires_grad_(), sigma, 3)
    assert recorded.requires_grad
    torch.testing.assert_close(plain, recorded.detach(), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("factor", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [(24, 36), (25, 37)])
def test_reduced_means(factor: int, size: tuple[int, int]) -> None:
    pooled = F.avg_pool2d(maps(*size), factor, ceil_mode=True, count_include_pad=False)
    torch.testing.assert_close(reduced(maps(*size), factor), pooled, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("radius", [1, 3])
def test_opening_is_the_same_with_gradients(radius: int) -> None:
    assert torch.equal(opened(maps(20, 17), radius), opened(maps(20, 17).requires_grad_(), radius).detach())


def test_opening_takes_narrow_parts_away_and_keeps_wide_ones() -> None:
    mask = torch.zeros(1, 1, 20, 20)
    mask[..., 2:9, 2:9] = 0.7
    mask[..., 14:16, :] = 1
    kept = opened(mask, 2)
    mask[..., 14:16, :] = 0
    assert torch.equal(kept, mask)


def test_gaussian_keeps_a_constant_and_spreads_a_point() -> None:
    assert torch.allclose(gaussian(torch.full((1, 2, 9, 12), 3.0), 2.0, 2.5), torch.tensor(3.0), atol=1e-5)
    point = torch.zeros(1, 1, 41, 41)
    point[..., 20, 20] = 1
    spread = gaussian(point, 3.0, 2.5)
    x = torch.arange(41.0) - 20
    assert float((spread.sum((0, 1, 2)) * x**2).sum()) == pytest.approx(9, rel=0.12)
