"""The clips that a training is measured on: fixed for ever, so that figures of different versions can be compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from selfhvd_tta.lab.datasets.pairs import FramePair
from selfhvd_tta.lab.simulation.shake import Bursts, Compression, PhoneLook, ShakeSettings
from selfhvd_tta.lab.simulation.simulate import SimulatedClip, simulate_clip
from selfhvd_tta.lab.training.losses import psnr
from selfhvd_tta.lab.training.sources import TrainingData, middle_frame, read_part

SIZE, FRAMES = 192, 16
RECORDED = 8  # videos of a data set of pairs, evenly spread
CLEARLY_BLURRED = 35.0  # dB: a recorded frame counts as blurry when its input is below


@dataclass(frozen=True)
class Validation:
    """Gain in PSNR over the input, in dB, on held-out material; NaN where there is no such frame.

    Attributes:
        blurry: mean over blurry frames: more than a pixel of simulated blur, recorded ones below 35 dB.
        severe: mean over those of them whose input is below 30 dB.
        sharp: mean over the other frames; pretraining is fit for use when it is not below -0.1.
    """

    blurry: float
    severe: float
    sharp: float


@dataclass(frozen=True)
class ValidationClip:
    """One clip to measure on.

    Attributes:
        blurry: (T, H, W, 3) uint8.
        sharp: of the same shape.
        soft: (T,) which frames count as blurry.
    """

    blurry: NDArray[np.uint8]
    sharp: NDArray[np.uint8]
    soft: NDArray[np.bool_]


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


HARD: dict[str, ShakeSettings] = {
    "violent": ShakeSettings(
        speed=(10.0, 20.0),
        pan=5.0,
        bursts=Bursts(),
        duty=(0.4, 0.9),
        readout=0.15,
        near=(0.5,),
        figures=1,
        focal=4.0,
        phone=PhoneLook(contrast=0.3, grain=1.4, denoise=1.5, blotches=0.2, sharpening=0.3),
        compression=Compression(bits_per_pixel=0.2),
    ),
    "night": ShakeSettings(
        speed=(4.0, 12.0),
        duty=(0.7, 0.95),
        readout=0.15,
        exposure=(0.15, 0.4),
        lights=6.0,
        highlights=4.0,
        shot_noise=6e-4,
        read_noise=1.5e-3,
        focal=4.0,
        phone=PhoneLook(contrast=0.3, gamma=0.9, grain=1.6, denoise=2.5, blotches=0.3, sharpening=0.2),
        compression=Compression(bits_per_pixel=0.15),
    ),
}
"""Harder strata in addition to the main set; they must not change either."""


def validation_clips(photos: Sequence[Path], size: int, frames: int, seed: int) -> list[SimulatedClip]:
    """One clip per photograph, of all kinds of shake, with a phone's moderate noise and compression."""
    clips = []
    for number, path in enumerate(photos):
        settings = validation_settings(np.random.default_rng((seed, 2, number)), size, frames)
        clips.append(simulate_clip(middle_frame(path), settings, seed=1000 + number))
    return clips


def validation_sets(data: TrainingData) -> dict[str, list[ValidationClip]]:
    """All that a run is measured on. The first set is the main one.

    ``photos`` is the fixed set: the same clips for the same held-out photographs in every version and run; ``violent``
    and ``night`` show every second of these photographs under worse conditions; ``recorded`` is the middle of up to 8
    held-out videos of data sets of pairs.
    """
    sets: dict[str, list[ValidationClip]] = {}
    if data.held_out_scenes:
        sets["photos"] = [_simulated(clip) for clip in validation_clips(data.held_out_scenes, SIZE, FRAMES, seed=0)]
        for name, kind in HARD.items():
            settings = replace(kind, width=SIZE, height=SIZE, frames=8)
            sets[name] = [
                _simulated(simulate_clip(middle_frame(path), settings, seed=2000 + number))
                for number, path in enumerate(data.held_out_scenes[::2])
            ]
    if data.held_out_pairs:
        step = -(-len(data.held_out_pairs) // RECORDED)
        sets["recorded"] = [_recorded(pair) for pair in data.held_out_pairs[::step]]
    return sets


def _simulated(clip: SimulatedClip) -> ValidationClip:
    return ValidationClip(clip.blurry, clip.sharp, clip.extent >= 1)


def _recorded(pair: FramePair) -> ValidationClip:
    length = min(FRAMES, len(pair[0]))
    start = (len(pair[0]) - length) // 2
    size = min(SIZE, *next(iter(pair[0].read([start]))).shape[:2])
    blurry, sharp = read_part(pair, range(start, start + length), size, (0.5, 0.5))
    error = np.square(blurry.astype(np.float64) - sharp).mean((1, 2, 3))
    return ValidationClip(blurry, sharp, error > 255**2 / 10 ** (CLEARLY_BLURRED / 10))


@torch.no_grad()
def validate(network: nn.Module, clips: Sequence[ValidationClip]) -> Validation:
    """Gain of a network over its input, outputs rounded to 8 bits."""
    device = next(network.parameters()).device
    gains, inputs, softness = [], [], []
    for clip in clips:
        blurry, sharp = (torch.from_numpy(x).to(device).permute(0, 3, 1, 2).float() for x in (clip.blurry, clip.sharp))
        output = (network(blurry[None] / 255)[0].clamp(0, 1) * 255).round()
        before = psnr(blurry, sharp)
        gains.append(psnr(output, sharp) - before)
        inputs.append(before)
        softness.append(torch.from_numpy(clip.soft).to(device))
    gain, before, soft = torch.cat(gains), torch.cat(inputs), torch.cat(softness)

    def mean(mask: Tensor) -> float:
        return float(gain[mask].mean())

    return Validation(mean(soft), mean(soft & (before < 30)), mean(~soft))
