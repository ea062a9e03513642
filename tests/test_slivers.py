"""Masks lose what is too narrow to be an agreement of any meaning."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from selfhvd_tta.method.transfer import without_slivers


@pytest.mark.parametrize("width", [5.0, 11.0, 23.0])
def test_lines_go_and_areas_stay(width: float) -> None:
    mask = torch.zeros(1, 1, 120, 160)
    mask[..., 10:12, 5:150] = 1  # a line two pixels wide
    mask[..., 40:110, 60:140] = 0.8  # an area
    kept = without_slivers(mask, width)
    assert kept[..., 10:12, 20:130].max() < 0.45
    edge = round(width)
    inner = kept[..., 40 + edge : 110 - edge, 60 + edge : 140 - edge]
    assert inner.min() >= 0.79
    assert torch.all(kept <= mask)


def test_a_hole_stays_a_hole_and_a_full_mask_full() -> None:
    mask = torch.ones(1, 1, 64, 96)
    torch.testing.assert_close(without_slivers(mask, 12.0), mask)
    mask[..., 30:34, 40:44] = 0
    assert without_slivers(mask, 12.0)[..., 30:34, 40:44].max() == 0


@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    narrowest=st.floats(0, 60),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None)
def test_it_only_ever_takes_away(height: int, width: int, narrowest: float, seed: int) -> None:
    mask = torch.rand(2, 1, height, width, generator=torch.Generator().manual_seed(seed))
    kept = without_slivers(mask, narrowest)
    assert kept.shape == mask.shape
    assert torch.all(kept <= mask)
    assert torch.all(kept >= 0)
    if narrowest < 2:
        assert torch.equal(kept, mask)
