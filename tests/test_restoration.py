"""Windows, streams and running out of memory: no seam, no lost frame."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from selfhvd_tta.backbones.wrapper import Network
from selfhvd_tta.errors import DeviceError
from selfhvd_tta.method.restoration import FADE, Compute, Restart, Restorer
from selfhvd_tta.method.tiles import join_tiles, tiles_of
from tests.test_backbones import REGISTRY, make
from tests.test_backbones import clip as video
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
    """Runs out of memory with more than ``most`` frames (or pixels) at once."""

    def __init__(self, inner: torch.nn.Module, most: int, pixels: bool = False) -> None:
        super().__init__()
        self.inner = inner
        self.most = most
        self.pixels = pixels

    def too_much(self, frames: torch.Tensor) -> bool:
        return frames.shape[1] * (frames.shape[3] * frames.shape[4] if self.pixels else 1) > self.most

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        if self.too_much(frames):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.inner(frames)

    def stream(self, frames: torch.Tensor, state: object) -> tuple[torch.Tensor, object]:
        if self.too_much(frames):
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


def resumed(kind: str, window: int, tile: int | None, stop: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Outputs of the uninterrupted run, and of one that was stopped after ``stop`` outputs and went on elsewhere."""
    network, backbone = small_estrnn() if kind == "stream" else drift()
    frames = list(torch.rand(count, 3, 160, 176, generator=torch.Generator().manual_seed(3)))
    whole = torch.stack(list(Restorer(network, backbone, CPU, window, tile=tile).restore(iter(frames))))
    first = Restorer(network, backbone, CPU, window, tile=tile)
    kept = [Restart(window=window, tile=tile)]
    for done, _ in enumerate(first.restore(iter(frames)), start=1):
        if done == first.boundary_at:
            restart = first.boundary()
            # What is kept is a copy: what follows must not change it.
            kept.append(replace(restart, tensors={k: t.clone() for k, t in restart.tensors.items()}))
        if done == stop:
            break
    restart = [r for r in kept if r.valid_from <= stop][-1]
    again = Restorer(network, backbone, CPU, 40)
    rest = list(again.restore(iter(frames[restart.feed_from :]), restart))[stop - restart.output_from :]
    return whole, torch.cat([whole[:stop], torch.stack(rest)])


@pytest.mark.parametrize("kind", ["stream", "windows"])
@pytest.mark.parametrize(("window", "tile"), [(5, None), (12, None), (7, 128)])
@pytest.mark.parametrize("stop", [3, 11, 20])
def test_a_restart_gives_the_same_bits(kind: str, window: int, tile: int | None, stop: int) -> None:
    whole, again = resumed(kind, window, tile, stop, 23)
    assert torch.equal(whole, again)


@pytest.mark.parametrize("kind", ["stream", "windows"])
def test_tiles_follow_when_windows_cannot_shrink_any_more(kind: str) -> None:
    network, backbone = small_estrnn() if kind == "stream" else drift()
    frames = [torch.rand(3, 1, 1).expand(3, 192, 320).clone() for _ in range(20)]
    whole = torch.stack(list(Restorer(network, backbone, CPU, 16).restore(iter(frames))))
    limit = 160 * 160 * (5 if kind == "stream" else 16)  # a stream starts with its context
    network.raw = Hungry(network.raw, limit, pixels=True)
    said: list[str] = []
    parts = torch.stack(list(Restorer(network, backbone, CPU, 16, said.append).restore(iter(frames))))
    assert parts.shape == whole.shape
    assert "tiles of 160 pixels" in said[-1]
    assert (parts - whole).abs().max() <= 1 / 255, "nothing but the padding at the borders of tiles differs"


def test_memory_that_runs_out_in_the_middle_costs_no_frame() -> None:
    network, backbone = small_estrnn()
    frames = list(torch.rand(16, 3, 192, 640, generator=torch.Generator().manual_seed(1)))
    whole = torch.stack(list(Restorer(network, backbone, CPU, 4).restore(iter(frames))))
    outputs = []
    restorer = Restorer(network, backbone, CPU, 4)
    for index, out in enumerate(restorer.restore(iter(frames))):
        outputs.append(out)
        if index == 9:
            network.raw = Hungry(network.raw, 192 * 640 - 1, pixels=True)
    parts = torch.stack(outputs)
    assert restorer.tile == 128
    assert parts.shape == whole.shape
    assert torch.equal(parts[:10], whole[:10])
    # The stream warms up again on a few frames; a frame in the wrong place would be off by 0.3.
    assert (parts - whole).abs().mean() < 0.02


@given(
    length=st.integers(1, 700),
    other=st.integers(1, 700),
    side=st.integers(128, 400),
)
@settings(max_examples=40, deadline=None)
def test_tiles_cover_every_pixel_and_leave_the_identity_alone(length: int, other: int, side: int) -> None:
    tiles = tiles_of(length, other, side)
    picture = torch.rand(1, length, other, generator=torch.Generator().manual_seed(0))
    joined = join_tiles(((t, t.crop(picture)) for t in tiles), length, other)
    torch.testing.assert_close(joined, picture)
    assert all(t.bottom - t.top <= side and t.right - t.left <= side for t in tiles)


@pytest.mark.parametrize("name", ["dstnetplus", "nafnet"])
def test_windows_of_real_structures_leave_no_seam(name: str) -> None:
    """Small networks with random weights; those that take minutes are in benchmarks/seams.py."""
    backbone = REGISTRY[name]
    network = make(backbone)
    frames = video(2 * (2 * backbone.reach + FADE) + 6)[0]
    whole = torch.stack(list(Restorer(network, backbone, CPU, len(frames) + 2).restore(iter(frames))))
    parts = torch.stack(list(Restorer(network, backbone, CPU, len(frames) - 6).restore(iter(frames))))
    assert 255 * (whole - parts).abs().max() <= 1
