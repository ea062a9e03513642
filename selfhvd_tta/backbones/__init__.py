"""Video restoration networks: one plug-in file each, described by a :class:`Backbone`.

A plug-in file defines the network with the *official* structure and state-dict keys, and one constant::

    BACKBONE = Backbone(id="estrnn", ..., build=ESTRNN, variants=(Variant(...),))

``build(**variant.config)`` returns the raw network. What differs between networks (channel order, value range,
frames lost at the ends, size multiples, minimum sizes) is stated in the descriptor and hidden by
:class:`selfhvd_tta.backbones.wrapper.Network`, which maps ``(B, T, 3, H, W)`` RGB in [0, 1] to the same shape.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

from torch import nn

from selfhvd_tta.plugins import discover_plugins


@dataclass(frozen=True)
class Variant:
    """One configuration of a network for which weights may exist.

    Attributes:
        name: unique within the backbone, for example ``lite`` or ``bsd-3ms24ms``.
        config: keyword arguments for ``Backbone.build``.
        weights: names of the rows of ``weights/models.toml`` that fit this variant, the preferred one first.
        channel_order: order in which the *weights* expect the three channels.
        value_range: range in which the raw network takes and gives values.
        memory: what restoring takes, by precision (``float32``, ``bfloat16``): bytes per pixel of a frame whatever the
            length of the clip, and for each of its frames, the input not counted. Empty: not counted yet.
    """

    name: str
    config: Mapping[str, Any] = field(default_factory=dict)
    weights: tuple[str, ...] = ()
    channel_order: Literal["rgb", "bgr"] = "rgb"
    value_range: tuple[float, float] = (0.0, 1.0)
    memory: Mapping[str, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Backbone:
    """Everything that a caller has to know about a network.

    Attributes:
        id: what ``--backbone`` takes.
        summary: one line for ``selfhvd-tta models`` and the documentation.
        licence: SPDX id of the network's official code.
        paper: citation, one line.
        build: ``build(**config)`` gives the raw module. It takes ``(B, T, 3, H, W)`` in the variant's value range
            and gives ``(B, T - past - future, 3, H, W)`` where ``(past, future) = context``.
        variants: at least one; the first is the default.
        context: number of past and future frames that the raw network consumes at the two ends (ESTRNN: 2, 2).
        temporal: ``frame``: every frame by itself; ``causal``: the recurrent state runs forward only, and the raw
            module has ``stream(frames, state) -> (outputs, state)`` (``state`` None at the start; outputs of all the
            frames that can be computed by now, so the first calls give ``context`` frames less); ``bidirectional``:
            an output depends on the whole clip. Without ``context``, a raw module may have ``supervised(frames,
            truth)``, which gives the output of ``forward(frames)`` and a loss of its own for pretraining. With
            ``context``, it may have ``forward_in_order(frames, order)``, which is ``forward(frames[:, order])`` and
            encodes a frame that occurs several times once.
        reach: for bidirectional networks, after how many frames of extra context at a window's end the output is
            practically independent of what lies beyond; 0 for the others.
        size_multiple: height and width must be a multiple of it (the wrapper pads by reflection).
        min_size: smallest height and width of the raw network (the wrapper pads).
        even_frames: the raw network needs an even number of frames (the wrapper pads).
        autocast: names of the dtypes in which it was verified, out of ``bfloat16`` and ``float16``.
        slow: prefixes of the raw network's parameter names that are fine-tuned at a quarter of the learning rate
            (a pretrained flow network inside).
        haste: how many times the paper's learning rate of 1e-4 an adaptation of few steps may begin with; more than 1
            where that was measured to gain.
        deterministic: the same input gives the same bits twice in training and inference on a GPU; if not, an
            adaptation there says so.
    """

    id: str
    summary: str
    licence: str
    paper: str
    build: Callable[..., nn.Module]
    variants: tuple[Variant, ...]
    context: tuple[int, int] = (0, 0)
    temporal: Literal["frame", "causal", "bidirectional"] = "bidirectional"
    reach: int = 0
    size_multiple: int = 1
    min_size: int = 1
    even_frames: bool = False
    autocast: frozenset[str] = frozenset()
    slow: tuple[str, ...] = ()
    haste: float = 1.0
    deterministic: bool = True

    def variant(self, name: str | None = None) -> Variant:
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
def discover() -> dict[str, Backbone]:
    """All backbones by id: the modules of this package and the entry points ``selfhvd_tta.backbones``."""
    return discover_plugins(__name__, "BACKBONE", Backbone, "selfhvd_tta.backbones")
