"""Dense inverse search (DIS), the flow without weights, as OpenCV implements it.

Kroeger et al., "Fast Optical Flow using Dense Inverse Search", ECCV 2016. It matches image patches by their gray
values, so a blurry patch against a sharp one misleads it where a learned flow still holds: on shake blur it is best
used behind a global motion (:mod:`selfhvd_tta.flows.global_motion`).
"""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
import torch
from torch import Tensor

from selfhvd_tta.flows import Flow, FlowEstimator, FlowField, FlowVariant, gray_u8

Preset = Literal["medium", "fast", "ultrafast"]
PRESETS: dict[str, int] = {
    "medium": cv2.DISOPTICAL_FLOW_PRESET_MEDIUM,
    "fast": cv2.DISOPTICAL_FLOW_PRESET_FAST,
    "ultrafast": cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST,
}
# The coarsest pyramid level still has to hold a patch (8 px) in each direction.
MIN_SIDE = 16


def dis_flow(source: np.ndarray, target: np.ndarray, preset: Preset = "medium") -> np.ndarray:
    """DIS flow between two gray pictures.

    Args:
        source: (H, W) uint8.
        target: (H, W) uint8.
        preset: OpenCV's trade-off between time and quality.

    Returns:
        (H, W, 2) float32, displacement in pixels (x, y) from every pixel of ``source`` to ``target``.
    """
    height, width = source.shape
    bottom, right = max(0, MIN_SIDE - height), max(0, MIN_SIDE - width)
    if bottom or right:
        source, target = (
            cv2.copyMakeBorder(image, 0, bottom, 0, right, cv2.BORDER_REPLICATE) for image in (source, target)
        )
    # A new object per call: it keeps state between calls, and the result must depend on the pair only.
    engine = cv2.DISOpticalFlow.create(PRESETS[preset])
    flow = engine.calc(np.ascontiguousarray(source), np.ascontiguousarray(target), None)  # type: ignore[call-overload]
    return flow[:height, :width]


class DIS(FlowEstimator):
    """DIS on luma; certainty is 1 everywhere. Runs on the CPU whatever the device of its inputs."""

    def __init__(self, preset: Preset = "medium") -> None:
        super().__init__()
        self.preset: Preset = preset

    @torch.no_grad()
    def forward(self, source: Tensor, target: Tensor) -> FlowField:
        return self._between(gray_u8(source), gray_u8(target), source.device)

    @torch.no_grad()
    def both(self, source: Tensor, target: Tensor) -> tuple[FlowField, FlowField]:
        a, b = gray_u8(source), gray_u8(target)
        return self._between(a, b, source.device), self._between(b, a, source.device)

    def _between(self, source: np.ndarray, target: np.ndarray, device: torch.device) -> FlowField:
        flows = [dis_flow(a, b, self.preset) for a, b in zip(source, target, strict=True)]
        flow = torch.from_numpy(np.stack(flows)).permute(0, 3, 1, 2).contiguous().to(device)
        return FlowField(flow, torch.ones_like(flow[:, :1]))


FLOW = Flow(
    id="dis",
    summary="dense inverse search (OpenCV), no weights, CPU",
    licence="Apache-2.0",
    paper="Kroeger et al., Fast Optical Flow using Dense Inverse Search, ECCV 2016",
    build=DIS,
    variants=(
        FlowVariant("medium", {"preset": "medium"}),
        FlowVariant("fast", {"preset": "fast"}),
        FlowVariant("ultrafast", {"preset": "ultrafast"}),
    ),
)
