"""The network that merges a frame with the sharp frames aligned to it.

Blending by masks averages what is misaligned by a fraction of a pixel, trusts masks made by hand-written rules, and
leaves what no sharp frame covers as the backbone made it. This network sees the frame as recorded, the backbone's
output, the blend, and the sharp frames that count most in it, and adds what it has learned on simulated shake to the
blend. Two scales of NAFNet's blocks (Chen et al., ECCV 2022) on pixel-unshuffled input: ours.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from selfhvd_tta.backbones.two_scales import TwoScales
from selfhvd_tta.method.composite import Composite, Merger, apply

TRAIN_SIDE = 96  # pixels; attention averages over 1.5 times that (TLC)
SPREAD_SCALE, SUPPORT_SCALE = 4.0, 0.1  # bring both to about 0..1
MULTIPLE = 4
# Larger frames go through the network in strips that see this many rows of their neighbours.
PIXELS_AT_ONCE = 2**22
MARGIN = 192


def evidence(observed: Tensor, current: Tensor, composite: Composite, count: int) -> tuple[Tensor, Tensor]:
    """Input of the network.

    Args:
        observed: B_i, (1, 3, H, W) in [0, 1].
        current: R_i, of the same shape and range.
        composite: with at least one candidate.
        count: candidates; the missing ones are zero.

    Returns:
        (1, :func:`channels`, H, W), and the blend, (1, 3, H, W), to which it adds.
    """
    found = composite.candidates
    if found is None:
        raise ValueError("a composite without its candidates cannot be merged by a network")
    blend = apply(composite, current)
    missing = count - len(found.images)

    def filled(stack: Tensor) -> Tensor:
        return F.pad(stack[:count], (0, 0, 0, 0, 0, 0, 0, max(missing, 0)))

    differences = filled(found.images) - blend
    flat = [filled(found.masks), filled(found.shares)]
    of_frame = torch.cat([torch.full_like(observed[:, :1], float(is_so)) for is_so in (found.own, found.equal)], dim=1)
    parts = [
        observed,
        current,
        blend,
        composite.mask,
        differences.flatten(0, 1)[None],
        *(stack.flatten(0, 1)[None] for stack in flat),
        (SPREAD_SCALE * found.spread).clamp(max=1),
        (SUPPORT_SCALE * found.support).clamp(max=1),
        of_frame,
    ]
    return torch.cat(parts, 1), blend


def channels(candidates: int) -> int:
    """Number of input channels."""
    return 10 + 5 * candidates + 4


class MergeNetwork(TwoScales, Merger):
    """See the module.

    Args:
        width: channels at half resolution; twice as many at a quarter.
        outer_blocks: at half resolution, before and after the inner ones.
        inner_blocks: at a quarter of the resolution.
        candidates: aligned frames that it takes.
        autocast: dtype of the forward pass; None: float32.
    """

    def __init__(
        self,
        width: int = 48,
        outer_blocks: int = 2,
        inner_blocks: int = 4,
        candidates: int = 3,
        autocast: torch.dtype | None = None,
    ) -> None:
        super().__init__(channels(candidates), 3, width, outer_blocks, inner_blocks, TRAIN_SIDE, 0.05)
        self.candidates = candidates
        self.autocast = autocast

    def correction(self, seen: Tensor) -> Tensor:
        """(B, :func:`channels`, H, W) to what is to be added to the blend, (B, 3, H, W)."""
        height, width = seen.shape[-2:]
        rows = max(MARGIN, PIXELS_AT_ONCE // width // MULTIPLE * MULTIPLE)
        if rows >= height or torch.is_grad_enabled():
            return self._correction(seen)
        strips = []
        for top in range(0, height, rows):
            above = min(MARGIN, top)
            strip = self._correction(seen[..., top - above : top + rows + MARGIN, :])
            strips.append(strip[..., above : above + rows, :])
        return torch.cat(strips, -2)[..., :height, :]

    def _correction(self, seen: Tensor) -> Tensor:
        height, width = seen.shape[-2:]
        padded = F.pad(seen, (0, -width % MULTIPLE, 0, -height % MULTIPLE))
        return self.unet(padded)[..., :height, :width]

    @torch.no_grad()
    def forward(self, observed: Tensor, current: Tensor, composite: Composite) -> Tensor:
        """See :meth:`Merger.forward`."""
        seen, blend = evidence(observed, current, composite, self.candidates)
        with torch.autocast(seen.device.type, self.autocast, enabled=self.autocast is not None):
            correction = self.correction(seen)
        merged = (blend + correction.float()).clamp(0, 1)
        gray = (observed[:, 1:] == observed[:, :1]).all()  # black and white stays black and white
        return torch.where(gray, merged.mean(dim=1, keepdim=True), merged)
