"""Videos of a benchmark whose clues are known, one or several together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from selfhvd_tta.errors import InputError
from selfhvd_tta.events import Listener, Progress
from selfhvd_tta.lab.datasets.frames import Frames
from selfhvd_tta.method.clues import Clues, laplacian_variance, local_contrast, select_clues
from selfhvd_tta.run.blur import Blur, measure_blur
from selfhvd_tta.run.scan import judge
from selfhvd_tta.settings import BlurKind, ClueSettings
from selfhvd_tta.video.reader import Frame
from selfhvd_tta.video.shots import ShotDetector


@dataclass(frozen=True)
class Scanned:
    """A video whose clues are known.

    Attributes:
        frames: the video.
        clues: its sharp frames and shots.
        helpful: whether there is blur that sharp frames of the same shot could mend.
        verdict: why, one line.
    """

    frames: Frames
    clues: Clues
    helpful: bool
    verdict: str

    def read(self, indices: Sequence[int]) -> Iterator[Frame]:
        """Some frames, ascending, as a reader of a file gives them."""
        return (Frame(i, i, f) for i, f in zip(indices, self.frames.on_canvas(indices), strict=True))

    def blur(self, kind: BlurKind) -> Blur:
        """The blur of its frames, measured."""
        return measure_blur(self, self.clues, kind)


def scan(frames: Frames, settings: ClueSettings, listen: Listener) -> Scanned:
    """Select the clues of a video.

    Luma comes from RGB here, where ``deblur()`` takes the decoder's; the two agree to rounding.

    Raises:
        InputError: there is no frame, or one cannot be read.
    """
    values: list[float] = []
    contrast: list[float] = []
    detector = ShotDetector()
    for frame in frames.on_canvas(range(len(frames))):
        y = np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), np.uint8)
        values.append(laplacian_variance(y))
        contrast.append(local_contrast(y))
        detector.add(y)
    if not values:
        raise InputError(f"{frames.name}: holds no frame", "Check the data set.")
    listen(Progress("scan", len(values), len(values)))
    clues = select_clues(np.asarray(values), detector.shots(), settings, np.asarray(contrast))
    return Scanned(frames, clues, *judge(clues, settings))


def merge(parts: list[tuple[Clues, tuple[range, ...]]]) -> tuple[Clues, tuple[range, ...]]:
    """Clues and runs of several working sets, one after the other; no shot reaches from one into the next."""
    if len(parts) == 1:
        return parts[0]
    starts = np.cumsum([0, *(len(clues.sharp) for clues, _ in parts)])[:-1].tolist()
    weights = [len(clues.sharp) for clues, _ in parts]

    def moved(ranges: tuple[range, ...], start: int) -> list[range]:
        return [range(r.start + start, r.stop + start) for r in ranges]

    clues = Clues(
        sharpness=np.concatenate([c.sharpness for c, _ in parts]),
        sharp=np.concatenate([c.sharp for c, _ in parts]),
        nearest=np.concatenate([c.nearest + s for (c, _), s in zip(parts, starts, strict=True)]),
        shots=tuple(r for (c, _), s in zip(parts, starts, strict=True) for r in moved(c.shots, s)),
        thresholds=tuple(t for c, _ in parts for t in c.thresholds),
        separability=float(np.average([c.separability for c, _ in parts], weights=weights)),
        contrast=float(np.exp(np.average([np.log(c.contrast) for c, _ in parts], weights=weights))),
        soft=np.concatenate([c.soft for c, _ in parts]),
        score=np.concatenate([c.score for c, _ in parts]),
    )
    return clues, tuple(r for (_, runs), s in zip(parts, starts, strict=True) for r in moved(runs, s))
