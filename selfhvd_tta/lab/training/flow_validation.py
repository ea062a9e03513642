"""How far a flow network is from the truth on pairs that it did not learn from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from selfhvd_tta.lab.training.flow_batches import batch_of
from selfhvd_tta.lab.training.flow_pairs import PairPool


@dataclass(frozen=True)
class FlowValidation:
    """End-point error in pixels over places seen in both frames of held-out pairs.

    Attributes:
        mean: of the network.
        median: of the network.
        worst_tenth: 90th percentile of the network.
        guess_mean, guess_median, guess_worst_tenth: of what it starts from.
        still_mean: of the homography alone.
    """

    mean: float
    median: float
    worst_tenth: float
    guess_mean: float
    guess_median: float
    guess_worst_tenth: float
    still_mean: float


@torch.no_grad()
def validate_flow(network: nn.Module, pool: PairPool, device: torch.device) -> FlowValidation:
    """Errors of a network on the pairs of a pool, whole frames, both directions."""
    found: dict[str, list[Tensor]] = {"network": [], "guess": [], "still": []}
    for number in range(pool.clips):
        pairs = pool.of(number)
        for index in range(len(pairs)):
            batch = batch_of(pairs, [index]).to(device)
            flow = network(batch.source, batch.target, batch.guess, batch.gap)[-1].flow
            seen = batch.visible[:, 0] > 0
            for name, each in (("network", flow), ("guess", batch.guess), ("still", torch.zeros_like(flow))):
                found[name].append((each - batch.truth).norm(dim=1)[seen][::7].cpu())
    errors = {name: torch.cat(parts).numpy() for name, parts in found.items()}
    figures = {
        name: (float(error.mean()), float(np.median(error)), float(np.percentile(error, 90)))
        for name, error in errors.items()
    }
    return FlowValidation(*figures["network"], *figures["guess"], figures["still"][0])
