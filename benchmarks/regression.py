"""The project's simulated clips as folders of PNG files, and flags, for the other scripts of this folder."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from selfhvd_tta import Settings
from selfhvd_tta.lab.datasets.labels import read_labels
from selfhvd_tta.lab.datasets.photos import list_photos, read_photo
from selfhvd_tta.lab.evaluation.dataset import write_regression_set
from selfhvd_tta.lab.evaluation.metrics.psnr import psnr
from selfhvd_tta.lab.speed.flags import parse_size
from selfhvd_tta.settings import AlignmentSettings, RuntimeSettings


@dataclass(frozen=True)
class Clip:
    """A clip with ground truth.

    Attributes:
        name: of its scenario.
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
    for folder in write_regression_set(root, *size, frames, names.split(",")):
        truth = np.stack([read_photo(path) for path in list_photos((folder / "Sharp" / "RGB",))])
        soft = [i for i, label in enumerate(read_labels(folder)) if not label]
        yield Clip(folder.name, folder / "Blur" / "RGB", truth, soft)


def flags(description: str, **defaults: object) -> argparse.ArgumentParser:
    """A parser of what the comparisons have in common.

    Args:
        description: of the script.
        defaults: where they are not those of a quick look on a CPU.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", default="camera,texture,object")
    parser.add_argument("--size", default="192x128", type=parse_size)
    parser.add_argument("--frames", default=24, type=int)
    parser.add_argument("--iters", default=60, type=int)
    parser.add_argument("--teachers", default=5, type=int)
    parser.add_argument("--crop", default=None, type=int)
    parser.add_argument("--backbone", default="estrnn:lite")
    parser.add_argument("--flow", default="embedded")
    parser.add_argument("--device", default="cpu")
    parser.set_defaults(**defaults)
    return parser


def settings_of(given: argparse.Namespace) -> Settings:
    """What :func:`flags` parsed, for a run that leaves the network's own output."""
    base = Settings(
        backbone=given.backbone,
        detail=False,
        alignment=AlignmentSettings(flow=given.flow, teachers=given.teachers),
        runtime=RuntimeSettings(device=given.device, offline=True),
    )
    return replace(base, adaptation=replace(base.adaptation, iters=given.iters, crop=given.crop))
