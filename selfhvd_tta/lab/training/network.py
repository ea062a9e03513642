"""A backbone as it is trained."""

from __future__ import annotations

from torch import Tensor, nn

from selfhvd_tta.backbones import discover
from selfhvd_tta.backbones.wrapper import Network
from selfhvd_tta.errors import UsageError


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


def is_inner(name: str, parameter: nn.Parameter) -> bool:
    """Whether Muon takes it: a weight within the network, not a bias nor a layer that touches pixels."""
    return parameter.ndim >= 2 and 3 not in parameter.shape[:2]
