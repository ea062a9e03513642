"""Optical flow estimators: one plug-in file each, described by a :class:`Flow`.

Convention everywhere: ``estimate(source, target)`` gives, for every pixel of ``source``, the displacement in pixels
(x right, y down) to the matching point of ``target``. Warping ``target`` backward by it aligns it to ``source``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selfhvd_tta.flows.blur_path import BlurPath
from selfhvd_tta.flows.economy import Economy, release
from selfhvd_tta.imaging import luma_weights
from selfhvd_tta.plugins import discover_plugins

__all__ = [
    "BlurPath",
    "Economy",
    "Flow",
    "FlowEstimator",
    "FlowField",
    "FlowVariant",
    "PairEstimator",
    "discover",
    "gray_u8",
    "luma",
    "pad_replicate",
    "release",
]


@dataclass(frozen=True)
class FlowField:
    """Flow and how far it can be trusted.

    Attributes:
        flow: (B, 2, H, W) float32, pixels, channel 0 = x (right), channel 1 = y (down).
        certainty: (B, 1, H, W) float32 in [0, 1], 1 = certain (``U`` of Eq. 4).
    """

    flow: Tensor
    certainty: Tensor


class FlowEstimator(nn.Module):
    """Base of all estimators: ``forward(source, target) -> FlowField``, both (B, 3, H, W) RGB in [0, 1], any size.

    Estimators without weights are modules too, so that ``.to(device)`` and ``state_dict()`` work everywhere.
    No gradient flows through an estimator: implementations run under ``torch.no_grad()``.

    Attributes:
        explains_blur: it finds the blur of a frame along with the motion, and wants the frame as it was recorded;
            others do best with the sharpest picture of it there is (the network's output, as the paper has it).
        weighs_evidence: behind a global motion, it says by its own certainty where it is to be believed; others are
            believed where their flow brings the frames closer to each other.
        autocast: precision of its convolutions, one of those in which its :class:`Flow` was verified; None: float32.
        name: ``id:variant``, for the user.
        economy: how whoever aligns by it makes do with less memory.
    """

    name = ""
    explains_blur = False
    weighs_evidence = False
    autocast: torch.dtype | None = None

    def __init__(self) -> None:
        super().__init__()
        self.economy = Economy()

    def forward(self, source: Tensor, target: Tensor) -> FlowField:
        raise TypeError(f"{type(self).__name__} does not implement forward")

    def both(self, source: Tensor, target: Tensor) -> tuple[FlowField, FlowField]:
        """Flow from ``source`` to ``target`` and back.

        Two calls unless an estimator can share work between the directions, or make them consistent by construction.
        """
        return self(source, target), self(target, source)

    measures_blur = False

    def blur(self, source: Tensor, target: Tensor) -> BlurPath | None:
        """Shake blur of ``source`` relative to ``target``, both (1, 3, H, W), in their pixels; None if it is not known.

        Only estimators with ``measures_blur`` ever know it.
        """
        return None


class PairEstimator(FlowEstimator):
    """Base of estimators that take one pair at a time and both directions at once; they implement :meth:`pair`."""

    def pair(self, source: Tensor, target: Tensor) -> tuple[FlowField, FlowField]:
        """Flow from ``source`` to ``target`` and back, both (1, 3, H, W)."""
        raise TypeError(f"{type(self).__name__} does not implement pair")

    @torch.no_grad()
    def forward(self, source: Tensor, target: Tensor) -> FlowField:
        return self.both(source, target)[0]

    @torch.no_grad()
    def both(self, source: Tensor, target: Tensor) -> tuple[FlowField, FlowField]:
        pairs = [self.pair(source[index : index + 1], target[index : index + 1]) for index in range(len(source))]
        forward, backward = (
            FlowField(torch.cat([each.flow for each in way]), torch.cat([each.certainty for each in way]))
            for way in zip(*pairs, strict=True)
        )
        return forward, backward


def luma(frames: Tensor) -> Tensor:
    """Luma (BT.601 weights) of (B, 3, H, W) RGB: (B, H, W), in the same range."""
    return (frames.detach() * luma_weights(frames.device, frames.dtype)).sum(1)


def gray_u8(frames: Tensor) -> np.ndarray:
    """Luma of (B, 3, H, W) RGB in [0, 1], as (B, H, W) uint8 0..255, rounded."""
    return luma(frames).clamp(0, 1).mul(255).round().to("cpu", torch.uint8).numpy()


def pad_replicate(
    frames: tuple[Tensor, ...], multiple: int, smallest: int
) -> tuple[tuple[Tensor, ...], tuple[int, int]]:
    """Pad (B, C, H, W) frames on all sides, by replication, to sides that are multiples and not too small.

    Args:
        frames: of one common size.
        multiple: of which height and width become multiples.
        smallest: height and width become at least this.

    Returns:
        The padded frames, and rows above and columns left of the original frame (half of the padding, rounded down).
    """
    height, width = frames[0].shape[-2:]
    rows = max(smallest, -(-height // multiple) * multiple) - height
    columns = max(smallest, -(-width // multiple) * multiple) - width
    top, left = rows // 2, columns // 2
    padding = (left, columns - left, top, rows - top)
    return tuple(F.pad(frame, padding, mode="replicate") for frame in frames), (top, left)


@dataclass(frozen=True)
class FlowVariant:
    """One configuration of an estimator.

    Attributes:
        name: unique within the flow.
        config: keyword arguments for ``Flow.build``.
        weights: names of the rows of ``weights/models.toml`` that fit, the preferred one first; empty if none needed.
    """

    name: str
    config: Mapping[str, Any] = field(default_factory=dict)
    weights: tuple[str, ...] = ()


@dataclass(frozen=True)
class Flow:
    """Descriptor of an optical flow estimator.

    Attributes:
        id: what ``--flow`` takes.
        summary: one line for ``selfhvd-tta models`` and the documentation.
        licence: SPDX id.
        paper: citation, one line.
        build: ``build(**config)`` gives a :class:`FlowEstimator`.
        variants: at least one; the first is the default.
        load: ``load(estimator, tensors)`` puts a state dict with the official key names into the estimator, strictly.
            None where there are no weights.
        learned: it needs weights.
        deterministic: the same input gives the same bits twice, on one device.
        autocast: names of the dtypes in which it was verified, out of ``bfloat16`` and ``float16``.
    """

    id: str
    summary: str
    licence: str
    paper: str
    build: Callable[..., FlowEstimator]
    variants: tuple[FlowVariant, ...]
    load: Callable[[FlowEstimator, Mapping[str, Tensor]], None] | None = None
    learned: bool = False
    deterministic: bool = True
    autocast: frozenset[str] = frozenset()

    def variant(self, name: str | None = None) -> FlowVariant:
        """The variant of that name, or the default one.

        Raises:
            KeyError: no such variant.
        """
        if name is None:
            return self.variants[0]
        for variant in self.variants:
            if variant.name == name:
                return variant
        raise KeyError(name)


@cache
def discover() -> dict[str, Flow]:
    """All flows by id: the modules of this package and the entry points ``selfhvd_tta.flows``."""
    return discover_plugins(__name__, "FLOW", Flow, "selfhvd_tta.flows")
