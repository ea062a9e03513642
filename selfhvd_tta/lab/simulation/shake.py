"""Kinds of handheld shake: every number that a simulated clip depends on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Preset = Literal["camera", "texture", "object"]


@dataclass(frozen=True)
class Bursts:
    """Sudden corrections by hand or stabiliser: short fast motion, out of a calm moment too.

    Attributes:
        gap: range of the time between two of them, in frames.
        shift: range of how far one moves the picture altogether, in pixels.
        length: range of how long one takes, in frames.
    """

    gap: tuple[float, float] = (4.0, 12.0)
    shift: tuple[float, float] = (6.0, 28.0)
    length: tuple[float, float] = (0.8, 2.5)


@dataclass(frozen=True)
class PhoneLook:
    """What a phone does to the picture after the sensor (see :mod:`selfhvd_tta.lab.simulation.phone`).

    Attributes:
        contrast: of the tone curve, -1..1; 0: straight, above 0: an S.
        gamma: of the tone curve; below 1 lifts the shadows.
        grain: correlation length of the noise in pixels; 1: white noise.
        denoise: threshold of the noise reduction, in standard deviations of the noise; 0: none.
        blotches: coloured low-frequency noise that the noise reduction leaves, in standard deviations of the noise.
        sharpening: amount of unsharp masking, as a share of the detail.
    """

    contrast: float = 0.0
    gamma: float = 1.0
    grain: float = 1.0
    denoise: float = 0.0
    blotches: float = 0.0
    sharpening: float = 0.0


@dataclass(frozen=True)
class Compression:
    """A lossy file, for cases that ``ShakeSettings.crf`` does not cover.

    Attributes:
        bits_per_pixel: average of an H.264 stream without B frames. 1080p30 at 17 Mbit/s, as phones record, is 0.27;
            messengers send 0.05 and less.
        jpeg: quality, 1..100, of a JPEG 4:2:0 per frame; comes first where both are set.
    """

    bits_per_pixel: float | None = None
    jpeg: int | None = None


@dataclass(frozen=True)
class ShakeSettings:
    """One kind of clip. Lengths are output pixels, times are frames; pairs are ranges that each clip draws from.

    Attributes:
        width: of the clip.
        height: of the clip.
        frames: number of frames.
        speed: root mean square shift per frame outside calm moments.
        band: lowest and highest frequency of the tremor, cycles per frame.
        roll: shift at the frame's edge that roll adds, as a share of the speed.
        zoom: the same for moving back and forth.
        gap: distance between two calm moments.
        calm: half-width of a calm moment.
        duty: exposure as a share of the frame interval.
        readout: rolling shutter: time from the first to the last row, as a share of the frame interval.
        photo_scale: photograph pixels per output pixel (less where the photograph is too small).
        objects: number of independently moving objects in front.
        object_speed: their speed, pixels per frame.
        parallax: shift of a near depth layer against the background, as a share of the speed; 0: no such layer.
        highlights: how many times brighter than white the brightest parts are before the sensor clips them; 1: off.
        exposure: gain on linear light, below 1 for night.
        shot_noise: variance per unit of linear light.
        read_noise: standard deviation in linear light.
        crf: of an H.264 round trip of the blurry frames; None: none.
        subframes: least and most sub-frames per exposure.
        focal: focal length in frame widths; a small part of a phone's frame has a long one.
        pan: steady motion in some direction, pixels per frame; calm moments do not stop it.
        bursts: sudden corrections; None: none.
        near: shift of each further near layer (poles, lattices, sides of the frame) as a share of the speed, the
            farthest first.
        figures: number of upright shapes (people, boxes on wheels) that cross the frame.
        figure_speed: their speed, pixels per frame.
        lights: small lamps and signs per frame area, many times brighter than white.
        lamp: how many times brighter.
        phone: what the phone does after the sensor; None: nothing.
        compression: a lossy file, besides ``crf``; None: none.
    """

    width: int = 384
    height: int = 256
    frames: int = 48
    speed: tuple[float, float] = (5.0, 9.0)
    band: tuple[float, float] = (0.03, 0.3)
    roll: float = 0.35
    zoom: float = 0.1
    gap: tuple[float, float] = (6.0, 16.0)
    calm: tuple[float, float] = (1.0, 3.0)
    duty: tuple[float, float] = (0.5, 0.95)
    readout: float = 0.0
    photo_scale: tuple[float, float] = (1.0, 2.5)
    objects: int = 0
    object_speed: tuple[float, float] = (1.0, 4.0)
    parallax: float = 0.0
    highlights: float = 1.0
    exposure: tuple[float, float] = (1.0, 1.0)
    shot_noise: float = 1e-4
    read_noise: float = 5e-4
    crf: int | None = None
    subframes: tuple[int, int] = (9, 33)
    focal: float = 1.2
    pan: float = 0.0
    bursts: Bursts | None = None
    near: tuple[float, ...] = ()
    figures: int = 0
    figure_speed: tuple[float, float] = (1.0, 8.0)
    lights: float = 0.0
    lamp: tuple[float, float] = (3.0, 40.0)
    phone: PhoneLook | None = None
    compression: Compression | None = None


def preset(name: Preset) -> ShakeSettings:
    """The three kinds of clip that this project measures with, all 384x256, 48 frames, H.264 at CRF 10.

    (At this size coarser quantisation alone would cap the sharp frames at 33-34 dB.)

    ``camera``: shake alone; ``texture``: more of it, meant for a photograph of dense texture; ``object``: shake and an
    independently moving object in front. :mod:`selfhvd_tta.lab.datasets.photos` names a photograph for each.

    Raises:
        KeyError: no preset of that name.
    """
    base = ShakeSettings(crf=10)
    return {
        "camera": base,
        "texture": replace(base, speed=(7.0, 11.0)),
        "object": replace(base, objects=1),
    }[name]
