"""What training clips show: kinds of shake drawn at random."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from selfhvd_tta.lab.simulation.shake import Bursts, Compression, PhoneLook, ShakeSettings

# Share of clips as a backbone is trained with, and their speed: theirs are cut out of frames of full resolution.
PHONES = 1 / 3
PACE = 0.6


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
    bursts = Bursts(shift=(pace * 5, pace * 28)) if chance[6] < 0.35 else None
    pan *= float(chance[9] < 0.6)
    # How far the camera may wander; seen under a wide angle that would turn it away from the scene.
    excursion = 6 * speed + pan * frames / 2 + (bursts.shift[1] * (1 + frames / bursts.gap[1]) if bursts else 0.0)
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
        focal=max(_log_uniform(generator, 1.2, 12.0), 4 * excursion / size),
        pan=pan,
        bursts=bursts,
        near=tuple(sorted(generator.uniform(0.15, 0.9, int(generator.integers(1, 3))).tolist()))
        if chance[7] < 0.3
        else (),
        figures=int(generator.integers(1, 3)) if chance[8] < 0.3 else 0,
        lights=generator.uniform(2, 12) if night else 0.0,
        phone=look if generator.random() < 0.8 else None,
        compression=_file(generator, bits) if chance[5] >= 0.35 else None,
    )


def flow_settings(generator: np.random.Generator, width: int, height: int, frames: int) -> ShakeSettings:
    """A kind of clip: two in three with much depth, rolling shutter and moving objects, the others as phones look."""
    if generator.random() < PHONES:
        return replace(varied_settings(generator, max(width, height), frames, PACE), width=width, height=height)
    some = generator.random(4) < (0.55, 0.4, 0.5, 0.3)
    return ShakeSettings(
        width=width,
        height=height,
        frames=frames,
        speed=(2.0, 9.0),
        gap=(4.0, 14.0),
        duty=(0.3, 0.95),
        objects=int(some[0] * generator.integers(1, 3)),
        object_speed=(0.3, 5.0),
        parallax=float(some[1] * generator.uniform(0.1, 0.6)),
        readout=float(some[2] * generator.uniform(0.2, 0.9)),
        exposure=(0.5, 1.0) if some[3] else (1.0, 1.0),
        highlights=float(generator.choice([1.0, 1.0, 1.0, 2.0, 4.0])),
        shot_noise=float(10 ** generator.uniform(-4.5, -3)),
        read_noise=float(10 ** generator.uniform(-3.6, -2.7)),
        crf=int(generator.integers(8, 25)) if generator.random() < 0.8 else None,
    )


def _log_uniform(generator: np.random.Generator, low: float, high: float) -> float:
    return math.exp(generator.uniform(math.log(low), math.log(high)))


def _file(generator: np.random.Generator, bits: float) -> Compression | None:
    """Draw compression without a constant rate factor: mostly a phone's H.264, sometimes JPEG, sometimes none."""
    kind = generator.random()
    if kind < 0.7:
        return Compression(bits_per_pixel=bits)
    return Compression(jpeg=int(generator.integers(50, 96))) if kind < 0.8 else None
