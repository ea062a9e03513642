"""Self-constrained spatial-consistency maintenance (Sec. 3.3): when the historical outputs R^e (Eq. 9) are renewed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from selfhvd_tta.flows import FlowEstimator
from selfhvd_tta.method.sharpness import laplacian, sharpness

MEDIAN_LIMIT = 0.5
TAIL_LIMIT = 1.5
HISTORY_FRAMES = 6


@dataclass(frozen=True)
class HistoryCheck:
    """What decides about a renewal.

    Attributes:
        median_shift: median length of the flow from output to input over textured pixels, in pixels.
        tail_shift: its 95th percentile.
        sharpness: mean v_l of the current outputs.
        historical_sharpness: mean v_l of the historical ones.
    """

    median_shift: float
    tail_shift: float
    sharpness: float
    historical_sharpness: float

    @property
    def renew(self) -> bool:
        """Whether the outputs are aligned with the input and sharper than the historical ones."""
        aligned = self.median_shift < MEDIAN_LIMIT and self.tail_shift < TAIL_LIMIT
        return aligned and self.sharpness > self.historical_sharpness


def history_rows(count: int) -> list[int]:
    """Rows that are measured, evenly spread over ``count`` of them."""
    return np.unique(np.linspace(0, count - 1, HISTORY_FRAMES).round().astype(int)).tolist()


@torch.no_grad()
def check_history(
    outputs: list[Tensor], inputs: list[Tensor], historical: list[Tensor], estimator: FlowEstimator
) -> HistoryCheck:
    """Measure shift and sharpness on some frames.

    Args:
        outputs: R_n, each (1, 3, H, W) in [0, 1].
        inputs: B_n, of the same shape.
        historical: R^e_n, of the same shape.
        estimator: optical flow; no global motion is needed, as output and input hardly differ.
    """
    lengths = []
    for output, observed in zip(outputs, inputs, strict=True):
        flow = estimator(output, observed)
        texture = laplacian(observed).abs()
        # Flow means nothing without texture.
        textured = texture >= texture.flatten().quantile(0.5) if texture.numel() < 2**24 else texture > 4
        lengths.append(flow.flow.norm(dim=1, keepdim=True)[textured])
    shift = torch.cat(lengths)
    if shift.numel() > 2**20:
        shift = shift[:: shift.numel() // 2**20 + 1]
    return HistoryCheck(
        median_shift=float(shift.median()),
        tail_shift=float(shift.quantile(0.95)),
        sharpness=float(torch.stack([sharpness(r).mean() for r in outputs]).mean()),
        historical_sharpness=float(torch.stack([sharpness(r).mean() for r in historical]).mean()),
    )
