"""Training clips by number: each is decided by (seed, number), simulated once, and kept on disk while it is in use.

Simulating a clip costs about as much as a training step, so a pool of clips is used many times over under random crops,
flips and rotations, and renewed slowly. Which clips are in the pool follows from the step alone, so a resumed run
sees the data that the uninterrupted one would have seen.
"""

from __future__ import annotations

import os
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from selfhvd_tta.training.photos import read_photo
from selfhvd_tta.training.shake import ShakeSettings
from selfhvd_tta.training.simulate import SimulatedClip, simulate_clip

Pair = NDArray[np.uint8]  # (2, T, H, W, 3): blurry, sharp


def varied_settings(generator: np.random.Generator, size: int, frames: int) -> ShakeSettings:
    """A kind of shake, from mild to violent, with or without objects, depth, rolling shutter, night, noise, codec."""
    some = generator.random(4) < (0.35, 0.3, 0.3, 0.3)
    return ShakeSettings(
        width=size,
        height=size,
        frames=frames,
        speed=(1.5, 8.0),
        gap=(4.0, 14.0),
        duty=(0.3, 0.95),
        photo_scale=(1.0, 2.5),
        objects=int(some[0]),
        parallax=float(some[1] * generator.uniform(0.2, 0.6)),
        readout=float(some[2] * generator.uniform(0.2, 0.8)),
        exposure=(0.5, 1.0) if some[3] else (1.0, 1.0),
        highlights=float(generator.choice([1.0, 1.0, 1.0, 2.0, 4.0])),
        shot_noise=float(10 ** generator.uniform(-4.5, -3)),
        read_noise=float(10 ** generator.uniform(-3.6, -2.7)),
        crf=int(generator.integers(12, 27)) if generator.random() < 0.7 else None,
    )


@lru_cache(maxsize=128)
def _photo(path: Path) -> NDArray[np.uint8]:
    return read_photo(path)


class ClipPool:
    """The clips that a training run draws from.

    Args:
        photos: photographs to shake a camera at.
        folder: where simulated clips are kept; created.
        capacity: clips in use at a time.
        renewal: steps after which the oldest clip gives way to a new one; 0: never.
        size: height and width of the clips.
        frames: length of the clips.
        seed: of everything.
        device: where clips are simulated.
    """

    def __init__(
        self,
        photos: list[Path],
        folder: Path,
        *,
        capacity: int,
        renewal: int,
        size: int,
        frames: int,
        seed: int,
        device: torch.device,
    ) -> None:
        self.photos, self.folder = photos, folder
        self.capacity, self.renewal = capacity, renewal
        self.size, self.frames, self.seed, self.device = size, frames, seed, device
        folder.mkdir(parents=True, exist_ok=True)

    def batch(self, step: int, count: int, crop: int, length: int) -> tuple[Tensor, Tensor]:
        """Blurry and sharp clips (count, length, 3, crop, crop) in [0, 1] for one step, on the CPU."""
        generator = np.random.default_rng((self.seed, 1, step))
        oldest = step // self.renewal if self.renewal else 0
        self._forget(oldest - 1)
        pairs = []
        for _ in range(count):
            pair = self.clip(oldest + int(generator.integers(self.capacity)))
            pairs.append(torch.from_numpy(augment(pair, crop, length, generator)))
        stacked = torch.stack(pairs).permute(1, 0, 2, 5, 3, 4).float() / 255
        return stacked[0], stacked[1]

    def clip(self, number: int) -> Pair:
        """Clip of that number, simulated unless it is at hand."""
        path = self._path(number)
        if not path.exists():
            generator = np.random.default_rng((self.seed, 0, number))
            photo = _photo(self.photos[int(generator.integers(len(self.photos)))])
            settings = varied_settings(generator, self.size, self.frames)
            clip = simulate_clip(photo, settings, seed=int(generator.integers(2**31)), device=self.device)
            part = path.with_suffix(f".{os.getpid()}.part")
            with part.open("wb") as file:
                np.save(file, np.stack([clip.blurry, clip.sharp]))
            part.replace(path)
        pair: Pair = np.load(path, mmap_mode="r")
        return pair

    def _path(self, number: int) -> Path:
        return self.folder / f"{self.seed}-{self.size}x{self.frames}-{number:06d}.npy"

    def _forget(self, number: int) -> None:
        if number >= 0:
            self._path(number).unlink(missing_ok=True)


def augment(pair: Pair, crop: int, length: int, generator: np.random.Generator) -> Pair:
    """A random part of a clip, (2, length, crop, crop, 3), mirrored, turned, reversed or with its colours swapped."""
    _, frames, height, width, _ = pair.shape
    t = int(generator.integers(frames - length + 1))
    y, x = int(generator.integers(height - crop + 1)), int(generator.integers(width - crop + 1))
    part = pair[:, t : t + length, y : y + crop, x : x + crop]
    if generator.random() < 0.5:
        part = part[:, ::-1]
    if generator.random() < 0.5:
        part = part[:, :, :, ::-1]
    part = np.rot90(part, int(generator.integers(4)), (2, 3))
    if generator.random() < 0.3:
        part = part[..., generator.permutation(3)]
    return np.ascontiguousarray(part)


def validation_clips(photos: list[Path], size: int, frames: int, seed: int) -> list[SimulatedClip]:
    """One clip per photograph, of all kinds of shake, with a phone's moderate noise and compression."""
    clips = []
    for number, path in enumerate(photos):
        generator = np.random.default_rng((seed, 2, number))
        settings = replace(varied_settings(generator, size, frames), shot_noise=1e-4, read_noise=5e-4, crf=18)
        clips.append(simulate_clip(read_photo(path), settings, seed=1000 + number))
    return clips
