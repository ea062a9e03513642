"""What is scored next to the method without using its networks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from selfhvd_tta.events import Listener, Note
from selfhvd_tta.lab.datasets.frames import Frames
from selfhvd_tta.lab.evaluation.outputs import Outputs, place, placed
from selfhvd_tta.lab.evaluation.unsharp import Unsharp

FloatImage = NDArray[np.float32]


class Rival(Protocol):
    """Makes outputs of a video, or has them."""

    @property
    def timed(self) -> bool:
        """Whether making the outputs is part of the measurement."""
        ...

    def frames(self, video: str, observed: Frames, listen: Listener) -> Iterator[tuple[int, FloatImage]]:
        """Number of the input frame and output, (H, W, 3) in [0, 1], ascending; frames may be missing.

        Args:
            video: name in the data set.
            observed: the input.
            listen: gets notes.

        Raises:
            InputError: there is nothing for this video, or it does not fit.
        """
        ...


@dataclass(frozen=True)
class Masked:
    """Unsharp masking of every frame."""

    how: Unsharp
    timed: bool = True

    def frames(self, video: str, observed: Frames, listen: Listener) -> Iterator[tuple[int, FloatImage]]:
        """As :class:`Rival`."""
        return enumerate(self.how.apply(frame) for frame in observed)


@dataclass(frozen=True)
class Delivered:
    """Outputs that another program wrote.

    Attributes:
        outputs: where they are.
        alone: the data set has one video only.
    """

    outputs: Outputs
    alone: bool
    timed: bool = False

    def frames(self, video: str, observed: Frames, listen: Listener) -> Iterator[tuple[int, FloatImage]]:
        """As :class:`Rival`."""
        theirs = self.outputs.of(video, self.alone)
        placement = place(theirs, observed)
        if placement.told:
            listen(Note(f"{video}, {self.outputs.name}: {placement.told}"))
        for index, frame in placed(theirs, placement):
            yield index, (frame / np.float32(255)).astype(np.float32)
