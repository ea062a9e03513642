"""What the sharp frames around a frame say it should look like, and how that becomes the frame.

By the masks alone it is blended in (:func:`apply`); a network that has learned from the simulator where to trust what
does better (:func:`merge`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Candidates:
    """Aligned sharp frames behind a composite, those of the greatest weight first; n of them, for a merging network.

    Attributes:
        images: (n, 3, H, W) in [0, 1].
        masks: (n, 1, H, W) in [0, 1], 1 = trust.
        shares: (n, 1, H, W) in [0, 1], of the composite.
        spread: (1, 1, H, W), weighted standard deviation about the composite, of all frames that it is made of.
        support: (1, 1, H, W), number of frames of equal weight that would leave as much noise as the composite has.
        own: the frame itself is among those of which the composite is made.
        equal: it is about as sharp as they are.
    """

    images: Tensor
    masks: Tensor
    shares: Tensor
    spread: Tensor
    support: Tensor
    own: bool
    equal: bool


@dataclass(frozen=True)
class Composite:
    """What the sharp frames around frame i say it should look like.

    Attributes:
        image: (1, 3, H, W) in [0, 1]; meaningless where the mask is 0.
        mask: (1, 1, H, W) in [0, 1], 1 = trust.
        occlusion: (1, 1, H, W) in [0, 1], the largest M_occ among the sharp frames.
        candidates: what it was made of, where that was asked for.
    """

    image: Tensor
    mask: Tensor
    occlusion: Tensor
    candidates: Candidates | None = None


def apply(composite: Composite, current: Tensor) -> Tensor:
    """The frame with the composite blended in where it can be trusted: (1, 3, H, W)."""
    return torch.lerp(current, composite.image, composite.mask)


class Merger(nn.Module, ABC):
    """A network that merges a frame with the aligned sharp frames of its composite.

    Attributes:
        candidates: how many of them it looks at.
    """

    candidates: int

    @abstractmethod
    def forward(self, observed: Tensor, current: Tensor, composite: Composite) -> Tensor:
        """The merged frame.

        Args:
            observed: B_i, (1, 3, H, W) in [0, 1].
            current: R_i, what the frame is believed to look like, likewise; B_i where there is no network.
            composite: with its candidates.

        Returns:
            (1, 3, H, W) in [0, 1].
        """


def merge(composite: Composite, observed: Tensor, current: Tensor, merger: Merger | None) -> Tensor:
    """The frame with sharp details: merged by a network, or blended by the mask without one; (1, 3, H, W) in [0, 1]."""
    if merger is None or composite.candidates is None:
        return apply(composite, current)
    return merger(observed, current, composite)


def to_time_on(height: int, width: int, candidates: int, device: torch.device) -> tuple[Tensor, Composite]:
    """A frame (1, 3, H, W) of random numbers and a composite for it, which a merger takes as long for as for any."""
    frame = torch.rand(1, 3, height, width, device=device)
    one = frame[:, :1]
    several = frame.expand(candidates, -1, -1, -1)
    found = Candidates(several, several[:, :1], several[:, :1], one, one, own=False, equal=False)
    return frame, Composite(frame, one, one, found)
