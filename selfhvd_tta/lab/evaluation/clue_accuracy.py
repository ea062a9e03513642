"""How well the sharp frames of simulated clips are found."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from selfhvd_tta.lab.datasets.photos import bundled_photo
from selfhvd_tta.lab.simulation.simulate import SimulatedClip, preset, simulate_clip
from selfhvd_tta.method.clues import Clues, laplacian_variance, local_contrast, select_clues
from selfhvd_tta.settings import ClueSettings
from selfhvd_tta.video.shots import ShotDetector

PHOTOS = ("coffee.png", "astronaut.png", "chelsea.png", "rocket.jpg", "grass.png", "gravel.png")


@dataclass(frozen=True)
class ClueAccuracy:
    """Agreement of the selected frames with the simulator's labels, over all frames of all clips that count.

    Attributes:
        frames: how many.
        accuracy: share of the frames whose selection agrees with the label.
        precision: share of the selected frames that are labelled sharp.
        recall: share of the frames labelled sharp that are selected.
        ranking: probability that of a sharp and a blurry frame of one clip the sharp one has the larger score (the area
            under the ROC curve), whatever the threshold; mean over the clips that have both.
        base_rate: share of the frames labelled sharp.
        extent_selected: median blur of the selected frames, pixels.
        extent_rejected: median blur of the others, pixels.
    """

    frames: int
    accuracy: float
    precision: float
    recall: float
    ranking: float
    base_rate: float
    extent_selected: float
    extent_rejected: float


def find_clues(frames: Iterable[NDArray[np.uint8]], settings: ClueSettings) -> Clues:
    """Clues of (H, W, 3) uint8 RGB frames, with shots detected."""
    detector = ShotDetector()
    values, contrast = [], []
    for frame in frames:
        y = np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), np.uint8)
        detector.add(y)
        values.append(laplacian_variance(y))
        contrast.append(local_contrast(y))
    return select_clues(np.asarray(values), detector.shots(), settings, np.asarray(contrast))


def ranking(sharpness: NDArray[np.float64], label: NDArray[np.bool_]) -> float:
    """Area under the ROC curve; NaN where one of the classes is empty. Equal values count half."""
    sharp, blurry = sharpness[label], sharpness[~label]
    if not sharp.size or not blurry.size:
        return float("nan")
    gap = sharp[:, None] - blurry[None, :]
    return float(((gap > 0) + 0.5 * (gap == 0)).mean())


def clue_accuracy(
    clips: Iterable[SimulatedClip],
    settings: ClueSettings | None = None,
    limit: float = 1.0,
    blurry: float | None = None,
) -> ClueAccuracy:
    """Select clues in simulated clips and compare them with what is known.

    Args:
        clips: one after the other.
        settings: how clues are selected; None for the defaults.
        limit: blur in pixels below which a frame is labelled sharp.
        blurry: blur in pixels above which a frame is labelled blurry; those in between take part in the selection but
            are not counted, as a data set of sharp frames and averages of many has none. None: all others are blurry.

    Raises:
        ValueError: there is no clip, or no frame counts.
    """
    selected, labels, extents, ranks = [], [], [], []
    for clip in clips:
        clues = find_clues(clip.blurry, settings or ClueSettings())
        counted = np.ones(len(clip.extent), bool)
        if blurry is not None:
            counted = (clip.extent < limit) | (clip.extent > blurry)
        label = clip.extent[counted] < limit
        selected.append(clues.sharp[counted])
        labels.append(label)
        extents.append(clip.extent[counted])
        ranks.append(ranking(clues.score[counted], label))
    if not sum(map(len, selected)):
        raise ValueError("no clip to measure on")
    chosen, truth, extent = np.concatenate(selected), np.concatenate(labels), np.concatenate(extents)
    hits = int((chosen & truth).sum())
    known = [r for r in ranks if not np.isnan(r)]
    return ClueAccuracy(
        frames=len(chosen),
        accuracy=float((chosen == truth).mean()),
        precision=hits / int(chosen.sum()) if chosen.any() else float("nan"),
        recall=hits / int(truth.sum()) if truth.any() else float("nan"),
        ranking=float(np.mean(known)) if known else float("nan"),
        base_rate=float(truth.mean()),
        extent_selected=float(np.median(extent[chosen])) if chosen.any() else float("nan"),
        extent_rejected=float(np.median(extent[~chosen])) if (~chosen).any() else float("nan"),
    )


def standard_clips(count: int = 24) -> Iterator[SimulatedClip]:
    """The clips of the figure in docs/lab/quality.md: 256x176, 40 frames, H.264 at CRF 10, from six free photographs
    of scikit-image in turn; every third clip has a moving object in front. Made one at a time.

    Raises:
        ModuleNotFoundError: scikit-image is not installed.
    """
    kind = replace(preset("camera"), width=256, height=176, frames=40)
    for i in range(count):
        yield simulate_clip(bundled_photo(PHOTOS[i % len(PHOTOS)]), replace(kind, objects=int(i % 3 == 2)), 100 + i)


def exposed(clip: SimulatedClip, gain: NDArray[np.float64]) -> SimulatedClip:
    """The clip with code values multiplied by a gain per frame (T,), as a change of exposure does; blur stays."""

    def apply(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        scaled = [np.clip(f * g, 0, 255).astype(np.uint8) for f, g in zip(frames, gain, strict=True)]
        return np.stack(scaled)

    return replace(clip, blurry=apply(clip.blurry), sharp=apply(clip.sharp))


def dimming(count: int) -> NDArray[np.float64]:
    """Gain of a video that gets darker by 40 % from its first to its last frame."""
    return np.linspace(1.0, 0.6, count)


def pumping(count: int) -> NDArray[np.float64]:
    """Gain of an automatic exposure that goes up and down, 0.55 to 0.98, once in 16 frames."""
    return 0.765 + 0.215 * np.sin(2 * np.pi * np.arange(count) / 16)


def accuracy_table(count: int = 24) -> str:
    """Accuracy of the selection on the standard clips as they are, dimming and pumping, by v_l as it is and normalised.

    Returns:
        Markdown: one row per kind and way, with the accuracy at 1, 2 and 3 px, and that between 1 and 4 px left out.
    """
    clips = list(standard_clips(count))
    lines = [
        "| exposure | compared by | 1 px | 2 px | 3 px | below 1, above 4 px | its precision | its recall |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    gains: dict[str, Callable[[int], NDArray[np.float64]]] = {
        "constant": np.ones,
        "dims by 40 %": dimming,
        "pumps": pumping,
    }
    for kind, gain in gains.items():
        shown = [exposed(clip, gain(len(clip.extent))) for clip in clips]
        for name, normalise in (("v_l", False), ("v_l, normalised", True)):
            way = ClueSettings(normalise=normalise)
            graded = [clue_accuracy(shown, way, limit).accuracy for limit in (1, 2, 3)]
            clear = clue_accuracy(shown, way, 1, 4)
            figures = [*graded, clear.accuracy, clear.precision, clear.recall]
            lines.append(f"| {kind} | {name} | " + " | ".join(f"{100 * value:.2f} %" for value in figures) + " |")
    return "\n".join(lines)
