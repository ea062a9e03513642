"""What a step learns from: the protocol of label bank, live model, the literal paper and re-blurred sharp frames."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor, nn

from selfhvd_tta.backbones import Backbone
from selfhvd_tta.events import Listener
from selfhvd_tta.flows import FlowEstimator
from selfhvd_tta.method.losses import Features
from selfhvd_tta.method.pace import Pace
from selfhvd_tta.method.restoration import Compute
from selfhvd_tta.method.state import AdaptationState
from selfhvd_tta.method.teachers import choose_teachers
from selfhvd_tta.method.working_set import WorkingSet
from selfhvd_tta.settings import Settings


@dataclass(frozen=True)
class Inputs:
    """Inputs of an adaptation.

    Attributes:
        network: wrapped network, (B, T, 3, H, W) in [0, 1] to the same shape; fine-tuned in place.
        backbone: its descriptor.
        working: frames to learn from.
        estimator: optical flow for the labels.
        features: perceptual features, or None.
        compute: device and precision.
        window: frames restored at once when labels are refreshed.
    """

    network: nn.Module
    backbone: Backbone
    working: WorkingSet
    estimator: FlowEstimator
    features: nn.Module | None
    compute: Compute
    window: int

    @property
    def perceive(self) -> Features | None:
        """``features`` in the precision of the network, its result in float32; None without them."""
        features, compute = self.features, self.compute
        if features is None:
            return None

        def run(frames: Tensor) -> Tensor:
            with compute.context():
                found: Tensor = features(frames)
            return found.float()

        return run

    def in_host_memory(self) -> Inputs | None:
        """The same with its frames in host memory; None if they lie there."""
        frames = self.working.frames
        if frames.device.type == "cpu":
            return None
        return replace(self, working=replace(self.working, frames=frames.cpu()))


@dataclass(frozen=True)
class Lesson:
    """One step's clips and how the network's output for them is judged.

    Attributes:
        clip: what the network is shown, (B, T, 3, h, w) in [0, 1].
        terms: the loss (``loss``) and its terms by name, from the output (B, T, 3, h, w) float32.
    """

    clip: Tensor
    terms: Callable[[Tensor], dict[str, Tensor]]


class Supervision(Protocol):
    """Decides what every step learns from. The state that it shares with the loop is an ``AdaptationState``.

    Attributes:
        phases: name of each stage, for progress events; with one name, there is one stage.
        inputs: what it works with.
        settings: all settings; the loop replaces them where memory asks for smaller clips.
    """

    phases: tuple[str, ...]
    inputs: Inputs
    settings: Settings

    def to_host(self) -> bool:
        """Move frames and labels from a GPU to host memory; False where they lie there already."""

    def __init__(
        self, inputs: Inputs, settings: Settings, state: AdaptationState, pace: Pace, listen: Listener
    ) -> None: ...

    def prepare(self, stage2: bool) -> bool:
        """Renew what is due before the state's next step; False ends the adaptation instead."""

    def lesson(self, stage2: bool) -> Lesson:
        """Draw the clips of the next step."""

    def renews(self, step: int) -> bool:
        """Whether that step, which is not the first, begins with a slow renewal."""

    def after_step(self) -> None:
        """Called after a step was taken and counted."""

    def finish(self) -> None:
        """Called after the last step."""

    def rebuild(self) -> None:
        """Compute again what the weights in the state determine; the network may be left with any weights.

        The network comes with the weights it had before the first step.
        """


def own_labels(inputs: Inputs, settings: Settings) -> Tensor:
    """(N,) bool: rows that are as sharp as their teachers and so are their own label."""
    working = inputs.working
    return torch.tensor(
        [choose_teachers(row, working.clues, settings.alignment).equal for row in range(len(working))],
        device=inputs.compute.device,
    )
