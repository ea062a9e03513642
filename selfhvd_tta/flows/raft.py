"""RAFT, small and large, as torchvision builds it, with the authors' weights.

Teed & Deng, "RAFT: Recurrent All-Pairs Field Transforms for Optical Flow", ECCV 2020. The authors' checkpoints name
the same tensors differently; :func:`official_to_torchvision` is the map between the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from selfhvd_tta.flows import Flow, FlowEstimator, FlowField, FlowVariant, pad_replicate

Size = Literal["small", "large"]
SIZE_MULTIPLE = 8
# Four correlation levels at 1/8 resolution: below 128 pixels the coarsest one has a single column.
MIN_SIDE = 128

# Names inside a residual (``conv1``..) or plain part; norms follow their convolution in torchvision's Sequentials.
_ENCODERS = {"fnet": "feature_encoder", "cnet": "context_encoder"}
_MOTION = {"convc1": "convcorr1", "convc2": "convcorr2", "convf1": "convflow1", "convf2": "convflow2", "conv": "conv"}


def _encoder_name(parts: list[str]) -> list[str]:
    """Map the path inside an encoder, without the encoder's own name."""
    head, *rest = parts
    if head in {"conv1", "norm1"}:  # the stem
        return ["convnormrelu", "0" if head == "conv1" else "1", *rest]
    if head == "conv2":  # the last convolution
        return ["conv", *rest]
    block, name, *leaf = rest
    if name == "downsample":
        return [head, block, name, *leaf]
    part, index = name[:-1], name[-1]
    return [head, block, f"convnormrelu{index}", "0" if part == "conv" else "1", *leaf]


def official_to_torchvision(name: str) -> str | None:
    """The torchvision name of a tensor of the authors' checkpoint.

    Returns:
        None for a tensor that exists twice in the checkpoint: the norm of a downsampling branch is also
        ``downsample.1``.
    """
    parts = name.removeprefix("module.").split(".")
    if parts[0] in _ENCODERS:
        # The third (bottleneck: fourth) norm of a block is an alias of downsample.1.
        if parts[-2] in {"norm3", "norm4"} and parts[1].startswith("layer"):
            return None
        return ".".join([_ENCODERS[parts[0]], *_encoder_name(parts[1:])])
    _, section, *rest = parts
    if section == "encoder":
        return ".".join(["update_block.motion_encoder", _MOTION[rest[0]], "0", *rest[1:]])
    if section == "gru":
        gate = rest[0]
        step = gate[-1] if gate[-1].isdigit() else "1"
        return ".".join(["update_block.recurrent_block", f"convgru{step}", gate.rstrip("12"), *rest[1:]])
    if section == "mask":
        return ".".join(["mask_predictor", "convrelu.0" if rest[0] == "0" else "conv", *rest[1:]])
    return ".".join(["update_block", section, *rest])


class RAFT(FlowEstimator):
    """RAFT on pairs of any size; certainty is 1 everywhere.

    Args:
        size: ``small`` (1.0 M parameters) or ``large`` (5.3 M).
        iterations: recurrent updates; the authors evaluate with 12 to 32.
        max_pixels: larger frames are scaled down to this area first and the flow is scaled back, because the memory of
            all-pairs correlation grows with the square of the area (1080p as it is: 5.5 GB, at the default: 1.2 GB).
    """

    def __init__(self, size: Size = "small", iterations: int = 12, max_pixels: int = 1280 * 720) -> None:
        super().__init__()
        if iterations < 1:
            raise ValueError(f"iterations must be at least 1, not {iterations}")
        self.iterations = iterations
        self.max_pixels = max_pixels
        from torchvision.models import optical_flow  # importing torchvision takes longer than loading a small network

        builders = {"small": optical_flow.raft_small, "large": optical_flow.raft_large}
        self.network = builders[size](weights=None)

    @torch.no_grad()
    def forward(self, source: Tensor, target: Tensor) -> FlowField:
        source, target, full = source.float(), target.float(), source.shape[-2:]
        scale = min(1.0, (self.max_pixels / (full[0] * full[1])) ** 0.5)
        if scale < 1:
            size = [max(1, round(side * scale)) for side in full]
            source, target = (
                F.interpolate(frame, size, mode="bilinear", align_corners=False, antialias=True)
                for frame in (source, target)
            )
        height, width = source.shape[-2:]
        (source, target), (top, left) = pad_replicate((source, target), SIZE_MULTIPLE, MIN_SIDE)
        flow = self.network(source * 2 - 1, target * 2 - 1, num_flow_updates=self.iterations)[-1]
        flow = flow[..., top : top + height, left : left + width].float().contiguous()
        if scale < 1:
            # Displacements are in pixels of the grid that they live on, and the two axes were rounded separately.
            ratio = flow.new_tensor([full[1] / width, full[0] / height]).view(1, 2, 1, 1)
            flow = F.interpolate(flow, full, mode="bilinear", align_corners=False) * ratio
        return FlowField(flow, torch.ones_like(flow[:, :1]))


def load(estimator: FlowEstimator, tensors: Mapping[str, Tensor]) -> None:
    """Load a checkpoint with the authors' key names (with or without ``module.``) or with torchvision's, strictly.

    Raises:
        RuntimeError: a tensor is missing, superfluous or has another shape.
    """
    if not isinstance(estimator, RAFT):
        raise TypeError(f"these are weights of RAFT, not of {type(estimator).__name__}")
    renamed = dict(tensors)
    if not any(name.startswith("feature_encoder.") for name in tensors):
        places = {name: official_to_torchvision(name) for name in tensors}
        renamed = {place: tensors[name] for name, place in places.items() if place is not None}
    estimator.network.load_state_dict(renamed, strict=True)


FLOW = Flow(
    id="raft",
    summary="RAFT, recurrent all-pairs field transforms",
    licence="BSD-3-Clause",
    paper="Teed & Deng, RAFT: Recurrent All-Pairs Field Transforms for Optical Flow, ECCV 2020",
    build=RAFT,
    variants=(
        FlowVariant("small", {"size": "small"}, ("raft-small",)),
        FlowVariant("large", {"size": "large", "iterations": 20}, ("raft-large",)),
    ),
    load=load,
    learned=True,
)
