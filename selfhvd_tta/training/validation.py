"""The clips that a training is measured on: fixed for ever, so that figures of different versions can be compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from selfhvd_tta.training.photos import read_photo
from selfhvd_tta.training.shake import ShakeSettings
from selfhvd_tta.training.simulate import SimulatedClip, simulate_clip


def validation_settings(generator: np.random.Generator, size: int, frames: int) -> ShakeSettings:
    """A kind of shake, with or without objects, depth, rolling shutter, night, and with moderate noise and H.264.

    Must not change, not even in the order of its draws; training draws from another, wider choice.
    """
    some = generator.random(4) < (0.35, 0.3, 0.3, 0.3)
    objects = int(some[0])
    parallax = float(some[1] * generator.uniform(0.2, 0.6))
    readout = float(some[2] * generator.uniform(0.2, 0.8))
    return ShakeSettings(
        width=size,
        height=size,
        frames=frames,
        speed=(1.5, 8.0),
        gap=(4.0, 14.0),
        duty=(0.3, 0.95),
        photo_scale=(1.0, 2.5),
        objects=objects,
        parallax=parallax,
        readout=readout,
        exposure=(0.5, 1.0) if some[3] else (1.0, 1.0),
        highlights=float(generator.choice([1.0, 1.0, 1.0, 2.0, 4.0])),
        shot_noise=1e-4,
        read_noise=5e-4,
        crf=18,
    )


def validation_clips(photos: list[Path], size: int, frames: int, seed: int) -> list[SimulatedClip]:
    """One clip per photograph, of all kinds of shake, with a phone's moderate noise and compression."""
    clips = []
    for number, path in enumerate(photos):
        settings = validation_settings(np.random.default_rng((seed, 2, number)), size, frames)
        clips.append(simulate_clip(read_photo(path), settings, seed=1000 + number))
    return clips
