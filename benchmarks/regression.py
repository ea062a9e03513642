"""The project's simulated clips as folders of PNG files, for the scripts beside this one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from selfhvd_tta.evaluation.dataset import read_labels, write_regression_set
from selfhvd_tta.evaluation.metrics import psnr
from selfhvd_tta.training.photos import list_photos, read_photo


@dataclass(frozen=True)
class Clip:
    """A clip with ground truth.

    Attributes:
        name: ``camera``, ``texture`` or ``object``.
        shown: folder of the blurry frames.
        truth: (N, H, W, 3) uint8.
        soft: frames with more than a pixel of blur.
    """

    name: str
    shown: Path
    truth: np.ndarray
    soft: list[int]

    def quality(self, folder: Path) -> float:
        """Mean PSNR of a folder of images over the blurry frames, dB."""
        frames = [read_photo(path) for path in list_photos((folder,))]
        return float(np.mean([psnr(frames[i], self.truth[i]) for i in self.soft]))


def clips(root: Path, size: tuple[int, int], frames: int, names: str) -> Iterator[Clip]:
    """Simulate the clips (which needs scikit-image for its photographs).

    Args:
        root: where they go.
        size: width and height.
        frames: of each.
        names: of those that are wanted, separated by commas.
    """
    wanted = names.split(",")
    for folder in write_regression_set(root, *size, frames):
        if folder.name in wanted:
            truth = np.stack([read_photo(path) for path in list_photos((folder / "Sharp" / "RGB",))])
            soft = [i for i, label in enumerate(read_labels(folder)) if not label]
            yield Clip(folder.name, folder / "Blur" / "RGB", truth, soft)
