"""Windows, streams and running out of memory: no seam, no lost frame."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from selfhvd_tta.backbones.wrapper import Network
from selfhvd_tta.errors import DeviceError
from selfhvd_tta.method.restoration import Compute, Restorer
from tests.tiny import drift, small_estrnn

CPU = Compute(torch.device("cpu"))


def clip(count: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 3, 16, 20, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=15, deadline=None)
@given(count=st.integers(1, 23), window=st.integers(1, 9))
def test_a_stream_equals_the_whole_clip(count: int, window: int) -> None:
    network, backbone = small_estrnn()
    frames = clip(count)
    with torch.no_grad():
        whole = network(frames[None])[0].clamp(0, 1)
    parts = torch.stack(list(Restorer(network, backbone, CPU, window).restore(iter(frames))))
    assert parts.shape == whole.shape
    assert (parts - whole).abs().max() <= 1 / 255


@settings(max_examples=25, deadline=None)
@given(count=st.integers(1, 40), window=st.integers(8, 14))
def test_windows_with_enough_context_leave_no_seam(count: int, window: int) -> None:
    network, backbone = drift()
    frames = clip(count)
    with torch.no_grad():
        whole = network(frames[None])[0].clamp(0, 1)
    parts = torch.stack(list(Restorer(network, backbone, CPU, window).restore(iter(frames))))
    assert parts.shape == whole.shape
    assert (parts - whole).abs().max() <= 1 / 255


@settings(max_examples=20, deadline=None)
@given(count=st.integers(1, 30), window=st.integers(1, 12))
def test_no_frame_is_lost_with_any_window(count: int, window: int) -> None:
    network, backbone = drift()
    assert len(list(Restorer(network, backbone, CPU, window).restore(iter(clip(count))))) == count


class Hungry(torch.nn.Module):
    """Runs out of memory with more than ``most`` frames at once."""

    def __init__(self, inner: torch.nn.Module, most: int) -> None:
        super().__init__()
        self.inner = inner
        self.most = most

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        if frames.shape[1] > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.inner(frames)

    def stream(self, frames: torch.Tensor, state: object) -> tuple[torch.Tensor, object]:
        if frames.shape[1] > self.most:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return self.inner.stream(frames, state)


@pytest.mark.parametrize("kind", ["stream", "windows"])
def test_running_out_of_memory_halves_the_window_and_loses_nothing(kind: str) -> None:
    network, backbone = small_estrnn() if kind == "stream" else drift()
    frames = clip(30)
    whole = torch.stack(list(Restorer(network, backbone, CPU, 32).restore(iter(frames))))
    network.raw = Hungry(network.raw, 8)
    said: list[str] = []
    parts = torch.stack(list(Restorer(network, backbone, CPU, 32, said.append).restore(iter(frames))))
    assert parts.shape == whole.shape
    assert (parts - whole).abs().max() <= 1 / 255
    assert said
    assert all("memory" in line for line in said)


def test_too_little_memory_for_one_frame_is_an_error_with_a_way_out() -> None:
    network, backbone = drift()
    network.raw = Hungry(network.raw, 0)
    with pytest.raises(DeviceError, match="not enough memory") as caught:
        list(Restorer(network, backbone, CPU, 4).restore(iter(clip(5))))
    assert caught.value.hint


def test_other_errors_are_not_mistaken_for_memory() -> None:
    network, backbone = small_estrnn()
    with pytest.raises(ValueError, match="shape"):
        list(Restorer(network, backbone, CPU, 4).restore(iter([torch.zeros(2, 16, 16)] * 5)))


class Pairs(torch.nn.Module):
    """Mixes frames 0 and 1, 2 and 3, and so on."""

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        pairs = frames.unflatten(1, (-1, 2))
        return (0.7 * pairs + 0.3 * pairs.flip(2)).flatten(1, 2)


@pytest.mark.parametrize("window", [9, 12, 13])
def test_networks_that_pair_frames_see_the_same_pairs_in_every_window(window: int) -> None:
    _, backbone = drift()
    backbone = replace(backbone, even_frames=True)
    paired = Network(Pairs(), backbone, backbone.variants[0])
    frames = clip(31)
    with torch.no_grad():
        whole = paired(frames[None])[0].clamp(0, 1)
    parts = torch.stack(list(Restorer(paired, backbone, CPU, window).restore(iter(frames))))
    torch.testing.assert_close(parts, whole)
