"""Relay: what it hands on, where to, and by which flow."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from selfhvd_tta.backbones import discover
from selfhvd_tta.backbones.relay import REACH, Relay, neighbour_flow
from selfhvd_tta.backbones.wrapper import Network
from selfhvd_tta.flows import gray_u8

STEP = (3, -2)  # pixels per frame that the scene moves by, right and down
INNER = (..., slice(20, -20), slice(20, -20))


def moving(count: int = 5, side: int = 96) -> Tensor:
    """A textured scene that moves by whole pixels; (1, T, 3, H, W)."""
    generator = torch.Generator().manual_seed(3)
    scene = F.interpolate(torch.rand(1, 3, 48, 48, generator=generator), (192, 192), mode="bicubic").clamp(0, 1)
    x, y = 40, 40
    views = [scene[..., y - t * STEP[1] :, x - t * STEP[0] :][..., :side, :side] for t in range(count)]
    return torch.stack(views, 1)


def choosing(backward: int, forward: int) -> Relay:
    """A network that always takes the same candidate: 0 the frame, 1 what was handed on, 2 what came from later."""
    torch.manual_seed(0)
    raw = Relay(width=4, inner_blocks=1, features=2, aligner_width=4).eval()
    with torch.no_grad():
        for cell, choice in ((raw.backward_cell, backward), (raw.forward_cell, forward)):
            for parameter in cell.ending.parameters():
                parameter.zero_()
            assert cell.ending.bias is not None
            cell.ending.bias[4 * choice : 4 * choice + 4] = 50.0
        for parameter in raw.aligner.parameters():
            parameter.zero_()
    return raw


@pytest.mark.parametrize(("source", "target"), [(1, 2), (2, 1)])
def test_flow_points_from_one_frame_to_the_other(source: int, target: int) -> None:
    gray = [gray_u8(clip) for clip in torch.cat([moving(), moving().flip(1)])]
    there, backward = neighbour_flow(gray, source, target)
    assert there.shape == (2, 96, 96)
    step = (target - source) * torch.tensor(STEP, dtype=torch.float32).view(2, 1, 1)
    torch.testing.assert_close(there[INNER], step.expand_as(there)[INNER], atol=0.2, rtol=0)
    torch.testing.assert_close(backward[INNER], -step.expand_as(backward)[INNER], atol=0.2, rtol=0)


@pytest.mark.parametrize(("choices", "origin"), [((0, 1), 0), ((1, 2), 4)], ids=["forward", "backward"])
def test_a_frame_reaches_the_other_end_of_the_clip(choices: tuple[int, int], origin: int) -> None:
    """All that is shown comes from one end, whose frame is marked, and arrives where the scene has moved to."""
    frames = moving()
    marked = frames.clone()
    marked[:, origin] = 0.5 * marked[:, origin]
    with torch.no_grad():
        out = choosing(*choices)(marked)
    other = 4 - origin
    expected = 0.5 * frames[:, other]
    error = (out[:, other] - expected)[INNER].abs().mean()
    assert error < 0.25 * (marked[:, other] - expected)[INNER].abs().mean()


def test_what_lies_outside_of_the_neighbour_is_taken_from_the_frame() -> None:
    frames = moving(2)
    with torch.no_grad():
        out = choosing(0, 1)(frames)
    # Frame 1 shows a strip at the left and at the bottom that frame 0 does not.
    torch.testing.assert_close(out[:, 1, :, :, 0], frames[:, 1, :, :, 0], atol=1e-4, rtol=0)
    assert (out[:, 1] - frames[:, 1])[INNER].abs().mean() < 0.02


def test_the_correction_of_a_flow_is_limited() -> None:
    aligner = Relay(aligner_width=4).aligner
    with torch.no_grad():
        for parameter in aligner.parameters():
            parameter.mul_(100)
        correction = aligner(torch.rand(1, 3, 16, 24), torch.rand(1, 6, 16, 24))
    assert correction.shape == (1, 2, 16, 24)
    assert 0.5 * REACH < correction.abs().max() <= REACH


def test_the_loss_of_the_flows_is_that_of_misaligned_truth() -> None:
    frames = moving()
    backbone = discover()["relay"]
    network = Network(choosing(0, 0), backbone, backbone.variant())
    with torch.no_grad():
        restored, aligned = network.supervised(frames, frames)
        _, strange = network.supervised(frames, frames.roll(5, -1) * (torch.arange(5) % 2).view(1, 5, 1, 1, 1))
        torch.testing.assert_close(restored, network(frames))
    assert aligned < 0.01 < 0.1 < strange


def test_the_loss_of_the_flows_trains_the_correction_and_what_it_sees() -> None:
    torch.manual_seed(0)
    backbone = discover()["relay"]
    raw = Relay(width=4, inner_blocks=1, features=2, aligner_width=4)
    _, loss = Network(raw, backbone, backbone.variant()).supervised(moving(3, 48), moving(3, 48).flip(-1))
    loss.backward()
    trained = {name.split(".")[0] for name, p in raw.named_parameters() if p.grad is not None and p.grad.any()}
    assert "aligner" in trained
    assert "forward_cell" in trained  # what is handed on is seen by the correction of the next frame


def test_networks_without_a_loss_of_their_own_have_none() -> None:
    backbone = discover()["nafnet"]
    network = Network(backbone.build(width=4, encoder_blocks=(1,), decoder_blocks=(1,)), backbone, backbone.variant())
    frames = moving(2, 32)
    with torch.no_grad():
        restored, loss = network.supervised(frames, frames)
        torch.testing.assert_close(restored, network(frames))
    assert loss == 0
