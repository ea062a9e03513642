"""Warping and masks (Eq. 3-5) against closed forms."""

from __future__ import annotations

import pytest
import torch

from selfhvd_tta.flows import FlowEstimator, FlowField
from selfhvd_tta.method.alignment import align, align_by_flow, inside, visible, warp
from selfhvd_tta.settings import AlignmentSettings


def constant_flow(dx: float, dy: float, height: int = 12, width: int = 16) -> torch.Tensor:
    return torch.tensor([float(dx), float(dy)]).view(1, 2, 1, 1).expand(1, 2, height, width).clone()


def certain(flow: torch.Tensor) -> FlowField:
    return FlowField(flow, torch.ones_like(flow[:, :1]))


def test_warp_moves_by_whole_pixels_exactly() -> None:
    image = torch.rand(1, 3, 12, 16, generator=torch.Generator().manual_seed(0))
    warped = warp(image, constant_flow(3, -2))
    torch.testing.assert_close(warped[..., 2:, :-3], image[..., :-2, 3:], atol=1e-5, rtol=0)
    assert warped[..., :2, :].abs().max() < 1e-5, "outside the frame is 0"


def test_warp_is_bilinear() -> None:
    ramp = torch.arange(16.0).view(1, 1, 1, 16).expand(1, 1, 12, 16)
    warped = warp(ramp, constant_flow(0.25, 0))
    torch.testing.assert_close(warped[..., :-1], ramp[..., :-1] + 0.25, atol=1e-4, rtol=0)


def test_inside_marks_what_leaves_the_frame() -> None:
    assert inside(constant_flow(3, 0))[0, 0, 0].tolist() == [1.0] * 13 + [0.0] * 3


@pytest.mark.parametrize(("error", "expected"), [(0.0, 1.0), (1.0, 0.5), (1.5, 0.25), (2.0, 0.0), (7.0, 0.0)])
def test_occlusion_mask_falls_with_forward_backward_error(error: float, expected: float) -> None:
    mask = visible(certain(constant_flow(2, 1)), certain(constant_flow(-2 + error, -1)), scale=0.5)
    assert mask[0, 0, 5, 5] == pytest.approx(expected, abs=1e-5)


def test_pixels_from_outside_the_frame_have_no_mask() -> None:
    mask = visible(certain(constant_flow(4, 0)), certain(constant_flow(-4, 0)), scale=0.5)
    assert mask[0, 0, 6, 12:].abs().max() == 0
    assert mask[0, 0, 6, 4:11].min() == pytest.approx(1)


def test_the_flow_back_is_read_where_the_flow_leads() -> None:
    # Frame j is frame i stretched by a half about x = 10: x_j = 1.5 x_i - 5, so the flow back is not the negative.
    x = torch.arange(24.0).view(1, 1, 1, 24).expand(1, 1, 12, 24)
    there, back = 0.5 * x - 5, (x + 5) / 1.5 - x
    flows = (certain(torch.cat((each, torch.zeros_like(each)), dim=1)) for each in (there, back))
    mask = visible(*flows, scale=1.0)
    assert mask[..., 4:19].min() == pytest.approx(1, abs=1e-4), "there and back ends where it began"
    assert mask[..., :3].max() == 0, "these pixels leave the frame"


def test_certainty_of_both_directions_is_multiplied() -> None:
    forward = FlowField(constant_flow(1, 0), torch.full((1, 1, 12, 16), 0.5))
    certainty = torch.full((1, 1, 12, 16), 0.8)
    certainty[..., 8] = 0.1
    backward = FlowField(constant_flow(-1, 0), certainty)
    sharp = torch.rand(1, 3, 12, 16)
    mask = align_by_flow(sharp, forward, backward, AlignmentSettings()).mask
    assert mask[0, 0, 5, 5] == pytest.approx(0.4, abs=1e-4)
    assert mask[0, 0, 5, 7] == pytest.approx(0.05, abs=1e-4), "the uncertain pixel 8 is warped to 7"


def test_masks_can_be_switched_off() -> None:
    forward = FlowField(constant_flow(2, 0), torch.full((1, 1, 12, 16), 0.5))
    backward = FlowField(constant_flow(3, 0), torch.full((1, 1, 12, 16), 0.5))
    sharp = torch.rand(1, 3, 12, 16)
    plain = align_by_flow(sharp, forward, backward, AlignmentSettings(uncertainty=False, occlusion=False))
    assert plain.mask[0, 0, 5].tolist() == [1.0] * 14 + [0.0] * 2
    assert plain.occlusion.max() == 0, "the occlusion is still reported"


class Shift(FlowEstimator):
    """Knows that the target is the source moved right by two pixels."""

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> FlowField:
        sign = 2.0 if source.mean() < target.mean() else -2.0
        return FlowField(constant_flow(sign, 0, *source.shape[-2:]), torch.ones_like(source[:, :1]))


def test_align_uses_both_directions() -> None:
    source = torch.rand(1, 3, 12, 16, generator=torch.Generator().manual_seed(1)) * 0.1
    sharp = torch.roll(source, 2, dims=-1) + 0.5
    aligned = align(sharp, source, Shift(), AlignmentSettings())
    torch.testing.assert_close(aligned.image[..., :-2], source[..., :-2] + 0.5, atol=1e-4, rtol=0)
    assert aligned.occlusion[0, 0, 5, 2:13].min() == pytest.approx(1)
