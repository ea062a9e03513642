"""Muon for the weights within a network, Adam for the rest; and the moving average of what they give."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from selfhvd_tta.lab.training.muon import Muon

Optimisers = tuple[torch.optim.Optimizer, ...]


def build_optimisers(
    network: nn.Module, rate: float, inner: Callable[[str, nn.Parameter], bool], adam_share: float = 1.0
) -> Optimisers:
    """Optimisers of all parameters.

    Args:
        network: that is trained.
        rate: learning rate.
        inner: whether Muon takes a parameter, by its name; Adam takes the others.
        adam_share: Adam's learning rate over Muon's; the loop reads it as ``share`` of the parameter group.
    """
    muon: list[nn.Parameter] = []
    adam: list[nn.Parameter] = []
    for name, parameter in network.named_parameters():
        (muon if inner(name, parameter) else adam).append(parameter)
    by_adam = torch.optim.Adam([{"params": adam, "share": adam_share}], rate, betas=(0.9, 0.99))
    return (Muon(muon, rate), by_adam) if muon else (by_adam,)


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Move the moving average towards the network; what does not float is copied."""
    kept, current = average.state_dict(), network.state_dict()
    for name, tensor in kept.items():
        if tensor.is_floating_point():
            tensor.lerp_(current[name], 1 - decay)
        else:
            tensor.copy_(current[name])
