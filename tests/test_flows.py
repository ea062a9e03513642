"""Contracts that every optical flow plug-in keeps, parametrised over the registry."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor

from selfhvd_tta import flows
from selfhvd_tta.flows import FlowEstimator, FlowField
from tests.pictures import inner, shifted_pair, warp

VARIANTS = [(flow.id, variant.name) for flow in flows.discover().values() for variant in flow.variants]
# Learned networks have random weights here: their contract is about shapes, their figures are tested on their own.
UNLEARNED = [(name, variant) for name, variant in VARIANTS if not flows.discover()[name].learned]
EVERY = pytest.mark.parametrize(("name", "variant"), VARIANTS)
WITHOUT_WEIGHTS = pytest.mark.parametrize(("name", "variant"), UNLEARNED)


@cache
def estimator(name: str, variant: str) -> FlowEstimator:
    torch.manual_seed(0)
    descriptor = flows.discover()[name]
    built = descriptor.build(**descriptor.variant(variant).config).eval()
    if descriptor.learned:
        built.iterations = 2  # recurrent updates: the contract does not depend on their number
    return built


def check(field: FlowField, source: Tensor) -> None:
    batch, _, height, width = source.shape
    assert field.flow.shape == (batch, 2, height, width)
    assert field.certainty.shape == (batch, 1, height, width)
    assert field.flow.dtype == field.certainty.dtype == torch.float32
    assert torch.isfinite(field.flow).all()
    assert field.certainty.min() >= 0
    assert field.certainty.max() <= 1
    assert not field.flow.requires_grad


@EVERY
@pytest.mark.parametrize("size", [(64, 96), (67, 45), (9, 13)])
def test_shapes_at_any_size(name: str, variant: str, size: tuple[int, int]) -> None:
    source, target = shifted_pair(*size, (1, -1))
    check(estimator(name, variant)(source, target), source)


@EVERY
def test_batch_is_pair_by_pair(name: str, variant: str) -> None:
    pairs = [shifted_pair(72, 88, (2, -1), seed=seed) for seed in (0, 1)]
    source, target = (torch.cat(frames) for frames in zip(*pairs, strict=True))
    together = estimator(name, variant)(source, target)
    check(together, source)
    for index, (one, other) in enumerate(pairs):
        alone = estimator(name, variant)(one, other)
        assert torch.allclose(together.flow[index], alone.flow[0], atol=1e-3)
        assert torch.allclose(together.certainty[index], alone.certainty[0], atol=1e-3)


@EVERY
def test_same_bits_twice(name: str, variant: str) -> None:
    source, target = shifted_pair(64, 80, (3, 2))
    first, second = (estimator(name, variant)(source, target) for _ in range(2))
    assert torch.equal(first.flow, second.flow)
    assert torch.equal(first.certainty, second.certainty)


@EVERY
def test_no_gradient_flows_through(name: str, variant: str) -> None:
    source, target = shifted_pair(40, 48, (1, 0))
    check(estimator(name, variant)(source.requires_grad_(), target.requires_grad_()), source)


@EVERY
def test_both_directions(name: str, variant: str) -> None:
    source, target = shifted_pair(64, 80, (3, 2))
    forward, backward = estimator(name, variant).both(source, target)
    check(forward, source)
    check(backward, target)


@EVERY
def test_descriptor(name: str, variant: str) -> None:
    descriptor = flows.discover()[name]
    assert len({each.name for each in descriptor.variants}) == len(descriptor.variants)
    assert descriptor.summary
    assert descriptor.paper
    assert descriptor.learned == bool(descriptor.variant(variant).weights)
    assert descriptor.learned == (descriptor.load is not None)
    with pytest.raises(KeyError):
        descriptor.variant("no such variant")


@WITHOUT_WEIGHTS
def test_identical_frames_do_not_move(name: str, variant: str) -> None:
    source, _ = shifted_pair(96, 128, (0, 0))
    field = estimator(name, variant)(source, source)
    assert field.flow.abs().max() < 0.05
    assert field.certainty.mean() > 0.9


@WITHOUT_WEIGHTS
@pytest.mark.parametrize("shift", [(5, 0), (0, 5), (-4, 3), (7, -6)])
def test_translation_is_found_with_its_sign(name: str, variant: str, shift: tuple[int, int]) -> None:
    source, target = shifted_pair(120, 160, shift)
    field = estimator(name, variant)(source, target)
    truth = torch.tensor(shift, dtype=torch.float32).view(1, 2, 1, 1)
    error = inner((field.flow - truth).norm(dim=1, keepdim=True), 10)
    assert error.mean() < 0.25
    aligned = warp(target, field.flow)
    assert inner(aligned - source, 10).abs().mean() < 0.1 * inner(target - source, 10).abs().mean()


@WITHOUT_WEIGHTS
def test_both_directions_are_inverse_of_each_other(name: str, variant: str) -> None:
    source, target = shifted_pair(120, 160, (6, -4))
    forward, backward = estimator(name, variant).both(source, target)
    there_and_back = forward.flow + warp(backward.flow, forward.flow)
    assert inner(there_and_back.norm(dim=1), 12).mean() < 0.25


def test_gray_is_bt601_luma() -> None:
    colours = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]]).view(4, 3, 1, 1)
    assert flows.gray_u8(colours).ravel().tolist() == [76, 150, 29, 255]
