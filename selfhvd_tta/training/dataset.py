"""Training clips by number: each is decided by (seed, number), simulated once, and kept on disk while it is in use.

Simulating a clip costs about as much as a training step, so a pool of clips is used many times over under random crops,
flips and rotations, and renewed slowly. Which clips are in the pool follows from the step alone, so a resumed run
sees the data that the uninterrupted one would have seen.
"""

from __future__ import annotations

import math
import os
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from selfhvd_tta.training.photos import read_photo
from selfhvd_tta.training.shake import Bursts, Compression, PhoneLook, ShakeSettings
from selfhvd_tta.training.simulate import simulate_clip

Pair = NDArray[np.uint8]  # (2, T, H, W, 3): blurry, sharp


def varied_settings(generator: np.random.Generator, size: int, frames: int, pace: float = 1.0) -> ShakeSettings:
    """A kind of shake as phones record it: from mild to violent, day and night, with what stands or walks in front.

    A clip of ``size`` pixels is a small part of a phone's frame at full resolution, so its pixels are the phone's
    pixels: real clips move by 3 to 28 of them per frame (median), rolling shutter spreads over all the phone's rows,
    and seen through so narrow a window the focal length is long. The fastest clips are those with the shortest
    exposures: real ones hold sharp frames although they move by 20 pixels from frame to frame.

    Args:
        generator: source of randomness.
        size: height and width.
        frames: length.
        pace: factor on all speeds, for a curriculum.
    """
    chance = generator.random(10)
    night = chance[0] < 0.25
    short = generator.random() < 0.35  # exposure
    speed = pace * (_log_uniform(generator, 5.0, 28.0) if short else _log_uniform(generator, 2.0, 16.0))
    pan = pace * (_log_uniform(generator, 2.0, 18.0) if short else _log_uniform(generator, 0.5, 4.0))
    look = PhoneLook(
        contrast=generator.uniform(-0.15, 0.6),
        gamma=generator.uniform(0.8, 1.15),
        grain=generator.uniform(1.0, 2.2),
        denoise=float(generator.random() < 0.75) * generator.uniform(0.8, 4.5 if night else 3.5),
        blotches=generator.uniform(0.0, 0.5),
        sharpening=float(generator.random() < 0.6) * generator.uniform(0.1, 0.8),
    )
    bits = _log_uniform(generator, 0.06, 0.5)
    shift = pace * 28
    return ShakeSettings(
        width=size,
        height=size,
        frames=frames,
        speed=(speed, speed),
        roll=generator.uniform(0.05, 0.5),
        zoom=generator.uniform(0.0, 0.2),
        gap=(5.0, 18.0),
        calm=(0.7, 2.8),
        duty=(0.1, 0.4) if short else (0.6, 0.98) if night else (0.35, 0.95),
        readout=float(chance[1] < 0.7) * generator.uniform(0.02, 0.4),
        photo_scale=(1.0, 2.5),
        objects=int(chance[2] < 0.25),
        parallax=float(chance[3] < 0.25) * generator.uniform(0.2, 0.6),
        highlights=float(generator.choice([1.0, 1.0, 2.0, 4.0, 8.0])),
        exposure=(0.1, 0.6) if night else (0.5, 1.0) if chance[4] < 0.3 else (1.0, 1.0),
        shot_noise=_log_uniform(generator, 1e-4, 2e-3) if night else _log_uniform(generator, 1e-5, 6e-4),
        read_noise=_log_uniform(generator, 5e-4, 3e-3) if night else _log_uniform(generator, 2e-4, 1.5e-3),
        crf=int(generator.integers(14, 29)) if chance[5] < 0.35 else None,
        focal=_log_uniform(generator, 1.2, 8.0),
        pan=pan if chance[9] < 0.6 else 0.0,
        bursts=Bursts(shift=(0.2 * shift, shift)) if chance[6] < 0.35 else None,
        near=tuple(sorted(generator.uniform(0.15, 0.9, int(generator.integers(1, 3))).tolist()))
        if chance[7] < 0.3
        else (),
        figures=int(generator.integers(1, 3)) if chance[8] < 0.3 else 0,
        lights=generator.uniform(2, 12) if night else 0.0,
        phone=look if generator.random() < 0.8 else None,
        compression=_file(generator, bits) if chance[5] >= 0.35 else None,
    )


def _log_uniform(generator: np.random.Generator, low: float, high: float) -> float:
    return math.exp(generator.uniform(math.log(low), math.log(high)))


def _file(generator: np.random.Generator, bits: float) -> Compression | None:
    """Of the clips without a constant rate factor most are H.264 at a phone's bit rate, some are JPEG, some neither."""
    kind = generator.random()
    if kind < 0.7:
        return Compression(bits_per_pixel=bits)
    return Compression(jpeg=int(generator.integers(50, 96))) if kind < 0.8 else None


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
