"""A frame as the sharp frames around it predict it, and how that becomes the frame.

It is blended in by the masks alone (:func:`apply`); a network that has learned on simulated clips what to trust where
does better (:func:`merge`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Candidates:
    """The n aligned sharp frames of a composite, in descending order of weight, for a merging network.

    Attributes:
        images: (n, 3, H, W) in [0, 1].
        masks: (n, 1, H, W) in [0, 1], 1 = trust.
        shares: (n, 1, H, W) in [0, 1], of the composite.
        spread: (1, 1, H, W), weighted standard deviation about the composite, of all frames that it is made of.
        support: (1, 1, H, W), number of frames of equal weight whose mean would be as noisy as the composite.
        own: whether the frame itself is part of the composite.
        equal: whether it is about as sharp as the others.
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
    """Frame i as the sharp frames around it predict it.

    Attributes:
        image: (1, 3, H, W) in [0, 1]; meaningless where the mask is 0.
        mask: (1, 1, H, W) in [0, 1], 1 = trust.
        occlusion: (1, 1, H, W) in [0, 1], the largest M_occ among the sharp frames.
        candidates: the frames it was made of, if asked for.
    """

    image: Tensor
    mask: Tensor
    occlusion: Tensor
    candidates: Candidates | None = None


def apply(composite: Composite, current: Tensor) -> Tensor:
    """The frame with the composite blended in where its mask trusts it: (1, 3, H, W)."""
    return torch.lerp(current, composite.image, composite.mask)


class Merger(nn.Module, ABC):
    """A network that merges a frame with the aligned sharp frames of its composite.

    Attributes:
        candidates: how many of them it takes.
    """

    candidates: int

    @abstractmethod
    def forward(self, observed: Tensor, current: Tensor, composite: Composite) -> Tensor:
        """The merged frame.

        Args:
            observed: B_i, (1, 3, H, W) in [0, 1].
            current: R_i, the best estimate of the frame, of the same shape; B_i if there is no network.
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
    """A frame (1, 3, H, W) of random numbers and its composite, to time a merger with."""
    frame = torch.rand(1, 3, height, width, device=device)
    one = frame[:, :1]
    several = frame.expand(candidates, -1, -1, -1)
    found = Candidates(several, several[:, :1], several[:, :1], one, one, own=False, equal=False)
    return frame, Composite(frame, one, one, found)
