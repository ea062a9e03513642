"""The networks of one run, loaded once, and the device they compute on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from selfhvd_tta.backbones.wrapper import Network
from selfhvd_tta.events import Listener, Note, ignore
from selfhvd_tta.flows import FlowEstimator
from selfhvd_tta.method.composite import Merger
from selfhvd_tta.method.restoration import Compute, Restorer
from selfhvd_tta.run.device import choose_compute, choose_device, prefer_same_bits
from selfhvd_tta.run.memory import Extent, extent_for, within_memory
from selfhvd_tta.run.networks import load_backbone, load_features, load_flow, load_merger
from selfhvd_tta.settings import NO_BACKBONE, Settings


@dataclass(frozen=True)
class Equipment:
    """Everything a run computes with; all of it is on one device.

    Attributes:
        compute: device and precision of the backbone.
        flow: aligns sharp frames.
        merger: merges aligned sharp frames at the end; None: by the masks' weights, or not at all.
        network: the backbone, with its weights; None: frames stay as recorded.
        features: of the perceptual loss; None without it.
    """

    compute: Compute
    flow: FlowEstimator
    merger: Merger | None = None
    network: Network | None = None
    features: nn.Module | None = None

    @classmethod
    @within_memory("the networks")
    def load(cls, settings: Settings, tell: Listener = ignore) -> Equipment:
        """Load the networks that the settings name, downloading them if that is allowed.

        Args:
            settings: all settings.
            tell: gets what ``auto`` chose, fallbacks, licence notices and the progress of downloads.

        Raises:
            UsageError: a name is unknown, or the precision does not suit the backbone.
            DeviceError: the device that was asked for is not usable.
            WeightsError: weights are not available or do not fit.
        """
        device = choose_device(settings.runtime.device, tell if settings.adapts else ignore)
        gear = cls(Compute(device), load_flow(settings, device, tell))
        gear.flow.economy.warn = lambda text: tell(Note(text, "warning"))
        if settings.networked:
            network = load_backbone(settings, device, tell)
            gear = gear.with_network(network, settings)
            if settings.adapts:
                prefer_same_bits(device, network.backbone, tell)
        if settings.learns:
            gear = replace(gear, features=load_features(settings, device, tell))
        if settings.blends:
            gear = replace(gear, merger=load_merger(settings, device, tell))
        if settings.runtime.offline and (used := gear._chosen_offline(settings)):
            tell(Note(f"offline, so with what is on this machine: {', '.join(used)}"))
        return gear

    def _chosen_offline(self, settings: Settings) -> list[str]:
        """What ``auto`` fell back to without downloads, and what is missing."""
        used = []
        if self.network is not None and settings.learns and settings.backbone == "auto" and settings.adapted is None:
            used.append(f"backbone: {self.network.name}")
        if settings.alignment.flow == "auto":
            used.append(f"flow: {self.flow.name}")
        if settings.adapts and settings.adaptation.perceptual_weight and self.features is None:
            used.append("perceptual loss: off")
        return used

    @property
    def device(self) -> torch.device:
        """The device of all of it."""
        return self.compute.device

    def with_network(self, network: Network, settings: Settings) -> Equipment:
        """The same with another backbone, in the precision that suits it.

        Raises:
            UsageError: it is not verified in the precision that the settings ask for.
        """
        return replace(self, network=network, compute=choose_compute(settings, self.device, network.backbone))

    def suited(self, settings: Settings) -> Equipment:
        """The same without the backbone, if the settings, changed since loading, do without one."""
        return self if settings.networked else replace(self, network=None, compute=Compute(self.device))

    def window(self, height: int, width: int, settings: Settings) -> int:
        """Frames that the backbone restores at once."""
        return settings.runtime.window or self._extent(height, width).window

    def _extent(self, height: int, width: int) -> Extent:
        assert self.network is not None
        return extent_for(height, width, self.compute, self.network.backbone, self.network.variant)

    def sized(self, settings: Settings, height: int, width: int, remember: Callable[[str, Any], Any]) -> Settings:
        """The settings with window and tiles as memory allows; as they were decided first, where a run is resumed.

        Args:
            settings: all settings; what they say stays.
            height, width: of the video.
            remember: gives what an earlier attempt was given by that name, else what it is given.
        """
        if self.network is None or settings.runtime.window is not None:
            return settings
        extent = self._extent(height, width)
        window, tile = remember("extent", [extent.window, settings.runtime.tile or extent.tile])
        return replace(settings, runtime=replace(settings.runtime, window=window, tile=tile))

    def restorer(self, height: int, width: int, settings: Settings, tell: Listener = ignore) -> Restorer | None:
        """Runs the backbone over frames of this size; None without a backbone."""
        network = self.network
        if network is None:
            return None
        window, tile = self.window(height, width, settings), settings.runtime.tile
        if tile is None and settings.runtime.window is None:
            tile = self._extent(height, width).tile
        return Restorer(network, network.backbone, self.compute, window, lambda text: tell(Note(text, "warning")), tile)


def alignment_only(settings: Settings) -> Settings:
    """The settings of a run that only aligns sharp frames: without backbone and merging network."""
    return replace(
        settings,
        method="transfer",
        literal=False,
        backbone=NO_BACKBONE,
        weights=None,
        adapted=None,
        save_adapted=None,
        detail=False,
    )
