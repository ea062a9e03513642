"""Networks that a flow can be trained as, what optimises them, and what they are asked for."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selfhvd_tta.flows.shake_network import Reading, ShakeNetwork
from selfhvd_tta.lab.training.config import Structure

# Weight of a pass before the last one, and of places that one of the frames does not show.
EARLIER = 0.6
HIDDEN = 0.05
# Error in pixels below which the robust loss is quadratic.
SOFTNESS = 0.05


class RaftReader(nn.Module):
    """torchvision's RAFT-small with the interface of :class:`ShakeNetwork`; ignores the guess, estimates no error."""

    def __init__(self, iterations: int = 6) -> None:
        super().__init__()
        from torchvision.models.optical_flow import raft_small  # takes longer to import than all the rest

        self.network = raft_small(weights=None)
        self.iterations = iterations

    def forward(
        self, source: Tensor, target: Tensor, guess: Tensor, gap: Tensor, half: torch.dtype | None = None
    ) -> list[Reading]:
        with torch.autocast(source.device.type, half or torch.bfloat16, enabled=half is not None):
            flows = self.network(source * 2 - 1, target * 2 - 1, num_flow_updates=self.iterations)
        nothing = torch.zeros_like(gap)
        return [Reading(flow.float(), nothing, nothing) for flow in flows]


def build_structure(structure: Structure) -> nn.Module:
    """A network with fresh weights."""
    return ShakeNetwork() if structure == "proofreader" else RaftReader()


def is_inner(structure: Structure, name: str, parameter: nn.Parameter) -> bool:
    """Whether Muon takes it: the convolutions within the proofreader, not its ends nor its biases, nothing of RAFT."""
    return structure == "proofreader" and parameter.ndim == 4 and name.split(".")[0] not in ("stem", "head")


def flow_loss(readings: list[Reading], truth: Tensor, visible: Tensor) -> Tensor:
    """Likelihood of the truth under the reading's own scale, the error itself, and what is seen; summed over passes.

    The first is that of an isotropic Laplacian in two dimensions, ``error / scale + 2 log scale``: places that can be
    told precisely are asked for precision, hopeless ones are let go.
    """
    total = truth.new_zeros(())
    weight = visible + HIDDEN * (1 - visible)
    for number, reading in enumerate(reversed(readings)):
        error = ((reading.flow - truth).square().sum(1, keepdim=True) + SOFTNESS**2).sqrt() - 0.5 * SOFTNESS
        likelihood = error * torch.exp(-reading.log_scale) + 2 * reading.log_scale
        seen = F.binary_cross_entropy_with_logits(reading.seen, visible)
        # Errors of tens of pixels, at objects that nothing leads to, would drown those of tenths.
        bounded = torch.log1p(error)
        loss = (visible * likelihood).mean() + 2 * (weight * bounded).mean() + 0.3 * seen
        total = total + EARLIER**number * loss
    return total
