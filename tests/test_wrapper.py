"""The network wrapper: padding in time and space, channel order, value range, streams, keys."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from selfhvd_tta.backbones import Backbone, Variant
from selfhvd_tta.backbones.estrnn import BACKBONE, ESTRNN
from selfhvd_tta.backbones.wrapper import Network, pad_to, reflect_index


class Probe(nn.Module):
    """Keeps what it was given and returns the frames between the context ones."""

    def __init__(self, past: int = 0, future: int = 0) -> None:
        super().__init__()
        self.past, self.future = past, future
        self.scale = nn.Parameter(torch.ones(()))
        self.given = torch.empty(0)

    def forward(self, frames: Tensor) -> Tensor:
        self.given = frames.detach()
        return frames[:, self.past : frames.shape[1] - self.future] * self.scale


def probe(variant: Variant | None = None, **changes: object) -> Network:
    variant = variant or Variant("only")
    past, future = changes.get("context", (0, 0))  # type: ignore[misc]
    backbone = Backbone(
        id="probe", summary="", licence="MIT", paper="", build=Probe, variants=(variant,), temporal="frame"
    )
    return Network(Probe(past, future), replace(backbone, **changes), variant)  # type: ignore[arg-type]


def ramp(count: int, height: int = 4, width: int = 4) -> Tensor:
    """Frame t is filled with t / 100."""
    return (torch.arange(count) / 100).view(1, -1, 1, 1, 1).expand(1, count, 3, height, width)


@given(st.integers(-50, 50), st.integers(1, 12))
def test_reflection_is_symmetric_and_identical_inside(index: int, length: int) -> None:
    assert reflect_index(index, length) in range(length)
    assert reflect_index(index, length) == reflect_index(-index, length)
    assert reflect_index(length - 1 + index, length) == reflect_index(length - 1 - index, length)
    if 0 <= index < length:
        assert reflect_index(index, length) == index


@pytest.mark.parametrize(
    ("count", "order"),
    [(1, [0] * 5), (2, [0, 1, 0, 1, 0, 1]), (3, [2, 1, 0, 1, 2, 1, 0]), (4, [2, 1, 0, 1, 2, 3, 2, 1])],
)
def test_context_is_reflected_in_time(count: int, order: list[int]) -> None:
    network = probe(context=(2, 2))
    output = network(ramp(count))
    assert (network.raw.given[0, :, 0, 0, 0] * 100).round().int().tolist() == order
    assert torch.equal(output, ramp(count))


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_even_frames(count: int) -> None:
    network = probe(even_frames=True)
    assert torch.equal(network(ramp(count)), ramp(count))
    assert network.raw.given.shape[1] % 2 == 0


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (5, 3), (16, 15), (17, 40), (32, 32)])
def test_any_size_is_padded_and_cropped_back(size: tuple[int, int]) -> None:
    network = probe(size_multiple=8, min_size=24)
    frames = torch.rand(2, 2, 3, *size)
    assert torch.equal(network(frames), frames)
    height, width = network.raw.given.shape[3:]
    assert height % 8 == width % 8 == 0
    assert min(height, width) >= 24
    assert height < max(size[0], 24) + 8


def test_padding_reflects_then_replicates() -> None:
    row = torch.tensor([1.0, 2.0, 3.0]).view(1, 1, 1, 3)
    assert pad_to(row, 2, 7)[0, 0].tolist() == [[1, 2, 3, 2, 1, 1, 1]] * 2
    assert pad_to(row, 1, 3) is row


def test_channel_order_and_value_range() -> None:
    network = probe(Variant("centred", channel_order="bgr", value_range=(-0.5, 0.5)))
    frames = torch.tensor([0.0, 0.25, 1.0]).view(1, 1, 3, 1, 1)
    assert network(frames).flatten().tolist() == [0.0, 0.25, 1.0]
    assert network.raw.given.flatten().tolist() == [0.5, -0.25, -0.5]


def test_output_is_not_clamped() -> None:
    network = probe()
    with torch.no_grad():
        network.raw.scale.fill_(3.0)
    assert network(torch.ones(1, 1, 3, 2, 2)).max() == 3.0


def test_state_dict_has_the_official_keys() -> None:
    network = probe()
    assert set(network.state_dict()) == {"scale"}
    network.load_state_dict({"scale": torch.tensor(2.0)})
    assert network.raw.scale.item() == 2.0
    with pytest.raises(RuntimeError, match="Missing key"):
        network.load_state_dict({})


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (1, 0, 3, 8, 8), (1, 2, 4, 8, 8), (1, 2, 3, 0, 8)])
def test_wrong_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected frames of shape"):
        probe()(torch.zeros(shape))


@pytest.fixture(scope="module")
def estrnn() -> Network:
    torch.manual_seed(0)
    variant = Variant("tiny", {"n_features": 4, "n_blocks": 1, "global_residual": True}, (), "rgb", (-0.5, 0.5))
    return Network(ESTRNN(**variant.config), BACKBONE, variant).eval()


@pytest.mark.parametrize("cuts", [(1,), (1, 1), (2,), (3,), (1, 1, 1), (1,) * 8, (2, 1, 5), (8,), (3, 3, 1, 1)])
def test_stream_equals_whole_clip(estrnn: Network, cuts: tuple[int, ...]) -> None:
    frames = torch.rand(1, sum(cuts), 3, 10, 13)
    stream = estrnn.open_stream()
    outputs = [stream.push(part) for part in frames.split(cuts, 1)]
    outputs.append(stream.finish())
    streamed = torch.cat(outputs, 1)
    assert not streamed.requires_grad
    torch.testing.assert_close(streamed, estrnn(frames).detach(), atol=1e-5, rtol=0)


def test_stream_gives_outputs_as_early_as_it_can(estrnn: Network) -> None:
    stream = estrnn.open_stream()
    counts = [stream.push(torch.rand(1, 1, 3, 8, 8)).shape[1] for _ in range(6)]
    assert counts == [0, 0, 1, 1, 1, 1]
    assert stream.finish().shape[1] == 2


def test_frame_network_streams_without_delay() -> None:
    stream = probe().open_stream()
    assert torch.equal(stream.push(ramp(3)), ramp(3))
    assert stream.finish().shape == (1, 0, 3, 4, 4)


def test_stream_refuses_what_cannot_stream() -> None:
    with pytest.raises(ValueError, match="cannot stream"):
        probe(temporal="bidirectional").open_stream()
    with pytest.raises(ValueError, match="no frame"):
        probe().open_stream().finish()
