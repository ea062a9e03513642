"""How much of a video is restored at once: what free memory allows, and what it costs in repeated work."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from selfhvd_tta import backbones
from selfhvd_tta.backbones.wrapper import Network
from selfhvd_tta.flows import FlowEstimator
from selfhvd_tta.method.restoration import Compute, Restorer
from selfhvd_tta.run import memory
from selfhvd_tta.run.equipment import Equipment
from selfhvd_tta.run.memory import FRAME_BYTES, Extent, extent_for
from selfhvd_tta.settings import RuntimeSettings, Settings
from tests.counting import Counting
from tests.tiny import Drift, drift

GIB = 1 << 30
CUDA = Compute(torch.device("cuda"), torch.bfloat16)
HD = (1080, 1920)


def of(name: str, size: tuple[int, int], free: float, monkeypatch: pytest.MonkeyPatch, compute: Compute) -> Extent:
    monkeypatch.setattr(memory, "free_memory", lambda device: int(free * GIB))
    backbone_id, variant = name.split(":")
    backbone = backbones.discover()[backbone_id]
    return extent_for(*size, compute, backbone, backbone.variant(variant))


def taken(name: str, size: tuple[int, int], extent: Extent, precision: str = "bfloat16") -> float:
    """GiB that restoring takes by the counts of the descriptor."""
    backbone_id, variant = name.split(":")
    fixed, frame = backbones.discover()[backbone_id].variant(variant).memory[precision]
    height, width = (min(side, extent.tile or side) for side in size)
    return height * width * (fixed + extent.window * (frame + FRAME_BYTES)) / GIB


@pytest.mark.parametrize("name", ["estrnn:c80b15", "dstnetplus:base-gopro"])
@pytest.mark.parametrize("free", [100, 11, 6, 3])
def test_restoring_fits_and_takes_8_gib_at_most_at_1080p(
    name: str, free: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    extent = of(name, HD, free, monkeypatch, CUDA)
    assert taken(name, HD, extent) <= min(8, 0.8 * free)
    assert extent.window >= 1
    assert (extent.tile is None) == (free > 6 or name.startswith("estrnn"))


def test_100_frames_of_1080p_are_restored_in_two_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """DSTNet+ used to take three windows of 48 frames, 1.72 times the work, and 15 GiB."""
    extent = of("dstnetplus:base-gopro", HD, 24, monkeypatch, CUDA)
    seen: list[int] = []

    class Watched(Drift):
        def forward(self, frames: torch.Tensor) -> torch.Tensor:
            seen.append(frames.shape[1])
            return super().forward(frames)

    network, backbone = drift()
    network.raw = Watched()
    frames = torch.rand(100, 3, 8, 8)
    restorer = Restorer(network, replace(backbone, reach=10), Compute(torch.device("cpu")), extent.window)
    assert len(list(restorer.restore(iter(frames)))) == 100
    assert sum(seen) / 100 < 1.3, seen


def test_a_cpu_without_room_cuts_frames_into_tiles_before_it_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = Compute(torch.device("cpu"))
    assert of("dstnetplus:base-gopro", (360, 640), 16, monkeypatch, cpu).tile is None
    extent = of("dstnetplus:base-gopro", HD, 4, monkeypatch, cpu)
    assert extent.tile is not None
    assert taken("dstnetplus:base-gopro", HD, extent, "float32") <= 0.8 * 4


def test_networks_that_were_not_counted_go_by_the_size_of_the_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    assert of("nafnet:lite", HD, 4, monkeypatch, CUDA) == Extent(11)


def test_a_resumed_run_keeps_the_window_it_began_with(monkeypatch: pytest.MonkeyPatch) -> None:
    network, _ = drift()
    network.variant = replace(network.variant, memory={"float32": (100, 100)})
    gear = Equipment(Compute(torch.device("cpu")), FlowEstimator(), network=network)
    monkeypatch.setattr(memory, "free_memory", lambda device: 8 * GIB)
    kept: dict[str, list[int | None]] = {}
    first = gear.sized(Settings(), 720, 1280, lambda name, value: kept.setdefault(name, value))
    monkeypatch.setattr(memory, "free_memory", lambda device: GIB // 8)
    later = gear.sized(Settings(), 720, 1280, lambda name, value: kept.setdefault(name, value))
    assert first == later
    assert first.runtime.window is not None
    other = gear.sized(Settings(), 720, 1280, lambda name, value: value)
    assert other.runtime != first.runtime
    mine = Settings(runtime=RuntimeSettings(window=9))
    assert gear.sized(mine, 720, 1280, lambda name, value: value) == mine


@pytest.mark.parametrize(("name", "side", "frames"), [("estrnn:c80b15", 128, 6), ("dstnetplus:base-gopro", 32, 4)])
def test_the_descriptor_says_what_is_counted(name: str, side: int, frames: int) -> None:
    backbone_id, variant_name = name.split(":")
    backbone = backbones.discover()[backbone_id]
    variant = backbone.variant(variant_name)
    network = Network(backbone.build(**variant.config), backbone, variant).eval()
    clip, counted = torch.rand(1, frames, 3, side, side), Counting()
    with torch.no_grad(), counted:
        network(clip)
    fixed, frame = variant.memory["float32"]
    # Small frames have proportionally more border.
    assert counted.peak / side**2 == pytest.approx(fixed + frames * frame, rel=0.25)
