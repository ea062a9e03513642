"""Where training clips come from: scenes that are shaken, or data sets of pairs, found by their folders' layout.

A source makes a clip out of random numbers alone, so that any process can make any clip of a run.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from selfhvd_tta.errors import InputError, UsageError
from selfhvd_tta.lab.datasets.frames import VIDEO_SUFFIXES, Frames, open_frames
from selfhvd_tta.lab.datasets.pairs import PairLayout, find_pairs
from selfhvd_tta.lab.datasets.photos import SUFFIXES, read_photo, split_photos
from selfhvd_tta.lab.simulation.simulate import simulate_clip
from selfhvd_tta.lab.training.dataset import varied_settings

Image = NDArray[np.uint8]
ClipPair = NDArray[np.uint8]  # (2, T, H, W, 3): blurry, sharp
VIDEO_WEIGHT = 10  # a clip counts as this many photographs
LAYOUTS = """a folder of photographs or of sharp clips
GoPro: ROOT/train/SEQUENCE/{blur,blur_gamma,sharp}/N.png
BSD: ROOT/[SET/]train/SEQUENCE/{Blur,Sharp}/RGB/N.png
REDS: ROOT/train/{train_blur,train_sharp}/SEQUENCE/N.png
pairs: ROOT/[train/]{blur,sharp}/SEQUENCE/N.png"""


class ClipSource(ABC):
    """Makes training clips. Can be sent to another process."""

    @property
    @abstractmethod
    def identity(self) -> str:
        """Equal for sources that make the same clips."""

    @abstractmethod
    def make(self, generator: np.random.Generator, pace: float, device: torch.device) -> ClipPair:
        """A blurry clip and its ground truth, (2, T, H, W, 3) uint8.

        Args:
            generator: every draw comes from it.
            pace: factor on the speed of simulated shake.
            device: where to simulate.
        """


@dataclass(frozen=True)
class SceneSource(ClipSource):
    """Shake over photographs, and over single frames of sharp clips.

    Attributes:
        scenes: pictures and video files.
        size: height and width of the clips.
        frames: their length.
    """

    scenes: tuple[Path, ...]
    size: int
    frames: int

    @property
    def identity(self) -> str:
        return f"{self.size} {self.frames} {[path.name for path in self.scenes]}"

    def make(self, generator: np.random.Generator, pace: float, device: torch.device) -> ClipPair:
        weights = np.array([VIDEO_WEIGHT if is_video(path) else 1 for path in self.scenes])
        path = self.scenes[int(np.searchsorted(weights.cumsum(), generator.integers(weights.sum()), "right"))]
        scene = _sharp_frame(path, float(generator.random())) if is_video(path) else _photo(path)
        settings = varied_settings(generator, self.size, self.frames, pace)
        clip = simulate_clip(scene, settings, seed=int(generator.integers(2**31)), device=device)
        return np.stack([clip.blurry, clip.sharp])


@dataclass(frozen=True)
class PairSource(ClipSource):
    """Parts of recorded pairs of videos; only the frames of the part are read.

    Attributes:
        sequences: blurry and sharp frames of each video, each at least ``frames`` long.
        size: height and width of the parts.
        frames: their length.
    """

    sequences: tuple[tuple[Frames, Frames], ...]
    size: int
    frames: int

    @property
    def identity(self) -> str:
        return f"{self.size} {self.frames} {[(blurry.name, len(blurry)) for blurry, _ in self.sequences]}"

    def make(self, generator: np.random.Generator, pace: float, device: torch.device) -> ClipPair:
        starts = np.array([len(blurry) - self.frames + 1 for blurry, _ in self.sequences])
        position = int(generator.integers(starts.sum()))
        which = int(np.searchsorted(starts.cumsum(), position, "right"))
        start = position - int(starts[:which].sum())
        place = generator.random(2)
        return read_part(self.sequences[which], range(start, start + self.frames), self.size, place)


@dataclass(frozen=True)
class MixedSource(ClipSource):
    """Several sources, each as often as the others."""

    sources: tuple[ClipSource, ...]

    @property
    def identity(self) -> str:
        return "; ".join(source.identity for source in self.sources)

    def make(self, generator: np.random.Generator, pace: float, device: torch.device) -> ClipPair:
        return self.sources[int(generator.integers(len(self.sources)))].make(generator, pace, device)


@dataclass(frozen=True)
class TrainingData:
    """What was found.

    Attributes:
        source: of the training clips.
        held_out_scenes: pictures and clips for validation.
        held_out_pairs: recorded pairs for validation.
        training: in words.
        validation: in words.
    """

    source: ClipSource
    held_out_scenes: tuple[Path, ...]
    held_out_pairs: tuple[tuple[Frames, Frames], ...]
    training: str
    validation: str


def open_data(folders: tuple[Path, ...], size: int, frames: int, *, gamma_blur: bool = False) -> TrainingData:
    """Find out what these folders hold, and set some of it aside for validation.

    All photographs and clips together are one source; each data set of pairs is another. No picture is read but the
    first of each data set.

    Raises:
        UsageError: a folder has none of the known layouts, or its videos are too short or too small.
    """
    sources: list[ClipSource] = []
    pairs: list[tuple[Frames, Frames]] = []
    scenes: list[Path] = []
    words: list[str] = []
    for folder in folders:
        if not folder.is_dir():
            raise UsageError(f"{folder}: there is no such folder", f"Layouts that are understood:\n{LAYOUTS}")
        found = find_pairs(folder, gamma_blur=gamma_blur)
        here = [p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES | VIDEO_SUFFIXES]
        if found is None and not here:
            raise UsageError(
                f"{folder}: no photographs, no clips and no pairs of them",
                f"Layouts that are understood:\n{LAYOUTS}",
            )
        if found is not None:
            sources.append(PairSource(_usable(folder, found, size, frames), size, frames))
            pairs += [pair for pair in found.held_out if len(pair[0])]
            words.append(f"{len(found.training)} videos of {folder.name} ({found.name})")
        else:
            scenes += here
    trainable, held = split_scenes(scenes)
    if trainable:
        sources.insert(0, SceneSource(tuple(trainable), size, frames))
        videos = sum(map(is_video, trainable))
        words.insert(0, f"simulated shake over {_count(len(trainable) - videos, videos)}")
    source = sources[0] if len(sources) == 1 else MixedSource(tuple(sources))
    return TrainingData(
        source,
        tuple(held),
        tuple(pairs),
        "; ".join(words),
        " and ".join(([f"{len(held)} scenes"] if held else []) + ([f"{len(pairs)} recorded videos"] if pairs else [])),
    )


def _count(photos: int, videos: int) -> str:
    """``3 photographs and 2 clips``."""
    return " and ".join(f"{n} {what}" for n, what in ((photos, "photographs"), (videos, "clips")) if n)


def _usable(folder: Path, found: PairLayout, size: int, frames: int) -> tuple[tuple[Frames, Frames], ...]:
    long_enough = tuple(pair for pair in found.training if len(pair[0]) >= frames)
    if not long_enough:
        longest = max(len(blurry) for blurry, _ in found.training)
        raise UsageError(
            f"{folder}: its longest video has {longest} frames, but clips of {frames} are asked for",
            "Ask for shorter clips.",
        )
    height, width = next(iter(long_enough[0][0].read([0]))).shape[:2]
    if min(height, width) < size:
        raise UsageError(
            f"{folder}: its frames are {width}x{height}, but clips of {size}x{size} are asked for",
            "Ask for smaller clips.",
        )
    return long_enough


def split_scenes(scenes: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """Scenes to train on and scenes to validate on, each by name; photographs are held out before clips are."""
    ordered = sorted(scenes)
    photos = [path for path in ordered if not is_video(path)]
    _, held = split_photos(photos or ordered)
    return [path for path in ordered if path not in held] or held, held


def is_video(path: Path) -> bool:
    """Whether the file's name is that of a video."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def read_part(
    pair: tuple[Frames, Frames], indices: range, size: int, place: NDArray[np.floating] | tuple[float, float]
) -> ClipPair:
    """Read a square part, (2, T, size, size, 3), of a pair; ``place`` is where it is between top left and bottom right.

    Raises:
        InputError: a frame cannot be read, or the two sides differ in size.
    """
    sides: list[list[Image]] = []
    for frames in pair:
        parts: list[Image] = []
        for frame in frames.read(indices):
            y, x = (int(at * (side - size + 1)) for at, side in zip(place, frame.shape, strict=False))
            parts.append(frame[y : y + size, x : x + size].copy())
        sides.append(parts)
    shapes = {part.shape for parts in sides for part in parts}
    if shapes != {(size, size, 3)}:
        raise InputError(
            f"{pair[0].name}: its frames are not all of one size of at least {size}x{size}", "Leave it out."
        )
    return np.stack([np.stack(parts) for parts in sides])


@lru_cache(maxsize=8)  # in every worker, of photographs that may be large
def _photo(path: Path) -> Image:
    return read_photo(path)


@lru_cache(maxsize=16)
def _video(path: Path) -> Frames:
    return open_frames(path)


def _sharp_frame(path: Path, where: float) -> Image:
    """The sharpest of five successive frames of a clip; ``where`` in [0, 1) is the place in the clip."""
    video = _video(path)
    first = int(where * max(len(video) - 4, 1))
    frames = list(video.read(range(first, min(first + 5, len(video)))))
    if not frames:
        raise InputError(f"{path}: holds no frames", "Leave it out.")
    return max(frames, key=lambda f: float(cv2.Laplacian(cv2.cvtColor(f, cv2.COLOR_RGB2GRAY), cv2.CV_32F).var()))


def middle_frame(path: Path) -> Image:
    """The scene that validation sees in a picture or a clip."""
    return _sharp_frame(path, 0.5) if is_video(path) else read_photo(path)
