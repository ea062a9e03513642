"""What the parts of the check share: the device, the time that is left, networks and clips."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from selfhvd_tta.backbones.wrapper import Network
from selfhvd_tta.errors import WeightsError
from selfhvd_tta.events import ignore
from selfhvd_tta.flows.dis import DIS
from selfhvd_tta.lab.speed.timing import synchronise
from selfhvd_tta.method.adaptation import Adaptation
from selfhvd_tta.method.clues import select_clues
from selfhvd_tta.method.restoration import Compute
from selfhvd_tta.method.supervision import Inputs
from selfhvd_tta.method.working_set import WorkingSet
from selfhvd_tta.run.device import choose_compute
from selfhvd_tta.run.networks import find_backbone, load_backbone
from selfhvd_tta.run.perceptual import PerceptualFeatures
from selfhvd_tta.settings import (
    AdaptationSettings,
    AlignmentSettings,
    ClueSettings,
    RuntimeSettings,
    Settings,
)

EIGHT_MINUTES = 470.0
CPU = torch.device("cpu")
Lines = Iterator[dict[str, Any]]
MAIN = ("estrnn:c80b15", "dstnetplus:base-gopro", "relay:lite")
SMALL = ("estrnn:lite", "relay:lite")
GIB = 2**30


@dataclass
class Check:
    """One run of the script.

    Attributes:
        device: to be proven; the CPU in a dry run.
        folder: for files.
        blurry, truth: a clip and what it should look like; None: that part is left out.
        limit: seconds.
        begun: by ``time.monotonic``.
    """

    device: torch.device
    folder: Path
    blurry: Path | None = None
    truth: Path | None = None
    limit: float = EIGHT_MINUTES
    begun: float = field(default_factory=time.monotonic)

    @property
    def gpu(self) -> bool:
        return self.device.type == "cuda"

    @property
    def left(self) -> float:
        """Seconds."""
        return self.limit - (time.monotonic() - self.begun)

    def seconds(self, work: Callable[[], object], times: int = 1) -> float:
        """Of one call, after one that is not counted."""
        if self.gpu:
            work()
        synchronise(self.device)
        start = time.perf_counter()
        for _ in range(times):
            work()
        synchronise(self.device)
        return (time.perf_counter() - start) / times

    def peak(self, work: Callable[[], object]) -> float | None:
        """GiB of tensors while it ran; None on a CPU."""
        if not self.gpu:
            work()
            return None
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self.device)
        work()
        synchronise(self.device)
        return round(torch.cuda.max_memory_allocated(self.device) / GIB, 2)

    def network(self, name: str, device: torch.device | None = None) -> Network:
        """With its own weights, or the same random ones every time."""
        where = device or self.device
        backbone, variant = find_backbone(name)
        try:
            settings = Settings(backbone=name, runtime=RuntimeSettings(offline=True))
            return load_backbone(settings, where, ignore)
        except WeightsError:
            torch.manual_seed(0)
            return Network(backbone.build(**variant.config), backbone, variant).to(where).eval()

    def clip(self, frames: int, height: int, width: int) -> torch.Tensor:
        """(T, 3, H, W) uint8 on the CPU, a texture that moves."""
        noise = torch.rand(1, 3, height // 8 + 8, width // 8 + 8, generator=torch.Generator().manual_seed(0))
        big = (torch.nn.functional.interpolate(noise, scale_factor=8, mode="bicubic")[0].clamp(0, 1) * 255).byte()
        places = [(t % 32, 3 * t % 32) for t in range(frames)]
        return torch.stack([big[:, y : y + height, x : x + width] for y, x in places])

    def adaptation(
        self, name: str, plan: AdaptationSettings, size: tuple[int, int, int], device: torch.device, exact: bool = False
    ) -> Adaptation:
        """Of a network to a clip of ``size`` frames, height and width; ``exact``: in float32, without VGG."""
        network = self.network(name, device)
        values = np.where(np.arange(size[0]) % 5 < 2, 100.0, 10.0)
        clues = select_clues(values, [range(size[0])], ClueSettings(normalise=False))
        frames = self.clip(*size).to(device)
        working = WorkingSet(frames, tuple(range(size[0])), clues, (range(size[0]),))
        settings = Settings(adaptation=plan, alignment=AlignmentSettings(teachers=2))
        compute = Compute(device) if exact else choose_compute(settings, device, network.backbone)
        torch.manual_seed(0)
        features = None if exact else PerceptualFeatures().to(device)
        flow = DIS().to(device)
        return Adaptation(Inputs(network, network.backbone, working, flow, features, compute, 8), settings, ignore)
