"""The network that is trained and its optimisers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from selfhvd_tta.backbones import discover
from selfhvd_tta.backbones.wrapper import Network
from selfhvd_tta.errors import UsageError
from selfhvd_tta.lab.training.muon import Muon

Optimisers = tuple[torch.optim.Optimizer, ...]


def build_network(backbone_id: str, variant_name: str | None) -> Network:
    """A backbone with fresh weights.

    Raises:
        UsageError: there is no such backbone or variant.
    """
    backbones = discover()
    if backbone_id not in backbones:
        raise UsageError(f"no backbone '{backbone_id}'", f"There are: {', '.join(backbones)}.")
    backbone = backbones[backbone_id]
    try:
        variant = backbone.variant(variant_name)
    except KeyError:
        names = ", ".join(v.name for v in backbone.variants)
        raise UsageError(f"{backbone_id} has no variant '{variant_name}'", f"There are: {names}.") from None
    return Network(backbone.build(**variant.config), backbone, variant)


class Supervised(nn.Module):
    """A network as it is trained: ``forward`` is :meth:`Network.supervised`, as only ``forward`` shares gradients."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, frames: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
        return self.network.supervised(frames, truth)


def build_optimisers(network: Network, rate: float) -> Optimisers:
    """Muon for the weights within the network; Adam for biases and for the layers that touch pixels."""
    inner: list[nn.Parameter] = []
    other: list[nn.Parameter] = []
    for parameter in network.parameters():
        at_pixels = parameter.ndim >= 2 and 3 in parameter.shape[:2]
        (inner if parameter.ndim >= 2 and not at_pixels else other).append(parameter)
    return Muon(inner, rate), torch.optim.Adam(other, rate, betas=(0.9, 0.99))


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Move the moving average towards the network; what does not float is copied."""
    kept, current = average.state_dict(), network.state_dict()
    for name, tensor in kept.items():
        if tensor.is_floating_point():
            tensor.lerp_(current[name], 1 - decay)
        else:
            tensor.copy_(current[name])
