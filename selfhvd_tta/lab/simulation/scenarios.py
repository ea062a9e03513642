"""The project's regression scenarios: small clips of the situations that a phone meets, with fixed seeds.

Three are planes (one photograph, one homography per moment). The others add what planes lack: a pan, depth, people,
too few sharp frames, a phone's processing, lamps at night. Seeds and settings stay as they are, so that figures can be
compared over versions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import cv2
import numpy as np
import torch

from selfhvd_tta.lab.datasets.photos import BUNDLED, bundled_photo
from selfhvd_tta.lab.simulation.camera import Array, Trajectory, at_depth, sample_times
from selfhvd_tta.lab.simulation.foreground import person_mask, poles_mask
from selfhvd_tta.lab.simulation.scene import Image, Layer, Mask, background, plane_layer
from selfhvd_tta.lab.simulation.shake import Compression, PhoneLook, ShakeSettings, preset
from selfhvd_tta.lab.simulation.simulate import (
    Scene,
    SimulatedClip,
    draw_exposure,
    draw_scene,
    draw_trajectory,
    film,
)

Device = torch.device | str
Compose = Callable[[Image, ShakeSettings, int, Device], Scene]
WALL = "wall"
WALL_PHOTOS = ("astronaut.png", "coffee.png", "camera.png", "rocket.jpg", "chelsea.png")
WALL_ROWS, ROW_HEIGHT = 3, 200


@dataclass(frozen=True)
class Scenario:
    """One clip of the regression set.

    Attributes:
        name: of its folder.
        shows: what is special about it, one line.
        photo: file within scikit-image, or ``wall`` for several of them next to each other.
        seed: of everything drawn.
        settings: kind of clip.
        compose: makes the scene.
    """

    name: str
    shows: str
    photo: str
    seed: int
    settings: ShakeSettings
    compose: Compose = draw_scene

    def scene(self, device: Device = "cpu") -> Scene:
        """Draw what is filmed.

        Raises:
            ModuleNotFoundError: scikit-image, which brings the photographs, is not installed.
        """
        photo = picture_wall() if self.photo == WALL else bundled_photo(self.photo)
        return self.compose(photo, self.settings, self.seed, device)

    def simulate(self, device: Device = "cpu") -> SimulatedClip:
        """Film it; errors as :meth:`scene`."""
        return film(self.scene(device), self.settings, self.seed)

    def resized(self, width: int | None, height: int | None, frames: int | None) -> Scenario:
        """The same situation at another size or length, which is another benchmark; None keeps a value."""
        kind = self.settings
        size = (width or kind.width, height or kind.height, frames or kind.frames)
        return replace(self, settings=replace(kind, width=size[0], height=size[1], frames=size[2]))


@cache
def picture_wall() -> Image:
    """Three rows of pictures (600, W, 3): wide enough to pan over, with faces and fine detail everywhere."""
    parts = []
    for name in WALL_PHOTOS:
        photo = bundled_photo(name)
        size = (round(photo.shape[1] * ROW_HEIGHT / photo.shape[0]), ROW_HEIGHT)
        parts.append(cv2.resize(photo, size, interpolation=cv2.INTER_AREA))
    row = np.hstack(parts)
    # Every row starts elsewhere, so that no picture hangs above itself.
    rows = [np.roll(row, -k * row.shape[1] // WALL_ROWS, axis=1) for k in range(WALL_ROWS)]
    return np.vstack(rows).astype(np.uint8, copy=False)


def pan_scene(photo: Image, settings: ShakeSettings, seed: int, device: Device) -> Scene:
    """The camera rests, turns by a frame width, rests, turns by another one, and rests."""
    generator = np.random.default_rng(seed)
    tremor = draw_trajectory(generator, settings, generator.uniform(*settings.speed))
    camera = _moved(tremor, pan_path(settings))
    ground = background(photo, camera, settings, generator, device)
    return Scene((Layer(ground, camera.homographies),), *draw_exposure(generator, settings))


def pan_path(settings: ShakeSettings) -> Array:
    """Shift (K,) in pixels at :func:`sample_times`: from one frame width on the left to one on the right, in two legs
    with rests before, between and after them."""
    times = sample_times(settings.frames)
    rest, ramp = 5 * settings.frames / 48, settings.frames / 16
    leg = (settings.frames - 1 - 3 * rest) / 2
    speed = np.zeros_like(times)
    for start in (rest, 2 * rest + leg):
        speed += np.interp(times, [start, start + ramp, start + leg - ramp, start + leg], [0, 1, 1, 0])
    path = np.cumsum(speed)
    return settings.width * (2 * path / path[-1] - 1)


@dataclass(frozen=True)
class Walk:
    """How somebody who films while walking moves the camera. Lengths in metres, times in frames.

    Attributes:
        depths: of the background, of somebody standing, and of something near.
        pace: forward per frame.
        drift: sideways per frame.
        bounce: amplitude up and down, once per step.
        sway: amplitude sideways, once per two steps.
        nod: amplitude of the pitch that goes with the bounce, in pixels of shift.
        step: frames of one step.
    """

    depths: tuple[float, float, float] = (12.0, 5.0, 2.5)
    pace: float = 0.012
    drift: float = 0.004
    bounce: float = 0.015
    sway: float = 0.015
    nod: float = 4.0
    step: float = 16.0


def walk_scene(photo: Image, settings: ShakeSettings, seed: int, device: Device) -> Scene:
    """A walking camera and three depths: a wall, a standing figure, poles in front; all by one translation."""
    walk = Walk()
    generator = np.random.default_rng(seed)
    tremor = draw_trajectory(generator, settings, generator.uniform(*settings.speed))
    phase = 2 * np.pi * tremor.times / walk.step + generator.uniform(0, 6.28)
    camera = replace(tremor, pose=tremor.pose + np.array([[0.0], [walk.nod], [0], [0]]) * np.sin(phase))
    middle = settings.frames / 2
    since = tremor.times - middle
    travel = np.stack(
        (walk.drift * since + walk.sway * np.sin(phase / 2), walk.bounce * np.cos(phase), walk.pace * since)
    )
    views = [at_depth(camera, travel, depth) for depth in walk.depths]
    far, mid, near = (
        plane_layer(photo, view, mask, settings, generator, device)
        for view, mask in zip(views, (None, _standing, poles_mask), strict=True)
    )
    return Scene((far, mid, near), *draw_exposure(generator, settings), still=3)


def _moved(camera: Trajectory, path: Array) -> Trajectory:
    """A camera that also turns sideways by ``path`` (K,) pixels."""
    return replace(camera, pose=camera.pose + np.array([[1.0], [0], [0], [0]]) * path)


def _standing(height: int, width: int, short: int, generator: np.random.Generator) -> Mask:
    """Two people on a plane, a little left and right of its centre."""
    mask = np.zeros((height, width), np.float32)
    for place in (-0.45, 0.4):
        person = person_mask(int(generator.uniform(0.6, 0.8) * short), generator)
        tall, wide = person.shape
        top = (height - tall) // 2 + int(0.1 * short)
        left = min(max(int(width / 2 + place * short - wide / 2), 0), width - wide)
        mask[top : top + tall, left : left + wide] = person
    return mask


def _scenarios() -> tuple[Scenario, ...]:
    life = ShakeSettings()
    phone = PhoneLook(contrast=0.25, gamma=0.95, grain=1.4, denoise=1.5, blotches=0.3, sharpening=0.6)
    return (
        Scenario("camera", "a plane, shake alone", BUNDLED["camera"], 1, preset("camera")),
        Scenario("texture", "a plane of grass, more shake", BUNDLED["texture"], 2, preset("texture")),
        Scenario("object", "a plane, something moving in front", BUNDLED["object"], 3, preset("object")),
        Scenario(
            "pan",
            "a pan over two frame widths, with rests",
            WALL,
            4,
            replace(life, speed=(1.5, 2.5), duty=(0.35, 0.45), focal=4.0),
            pan_scene,
        ),
        Scenario(
            "walk",
            "a walking camera: bounce, three depths, rolling shutter",
            WALL,
            45,
            replace(life, speed=(7.0, 9.0), duty=(0.35, 0.5), readout=0.5),
            walk_scene,
        ),
        Scenario(
            "crowd", "six independent movers", WALL, 6, replace(life, speed=(3.5, 5.0), figures=6, figure_speed=(1, 7))
        ),
        Scenario(
            "scarce",
            "one sharp frame in twenty",
            "astronaut.png",
            7,
            replace(life, gap=(20.0, 20.0), calm=(1.0, 1.3), parallax=0.4),
        ),
        Scenario(
            "none", "no sharp frame", "coffee.png", 28, replace(life, speed=(7.0, 9.0), gap=(900.0, 901.0), figures=1)
        ),
        Scenario(
            "phone",
            "noise, noise reduction, tone curve, sharpening, H.264",
            WALL,
            9,
            replace(
                life,
                readout=0.5,
                parallax=0.3,
                exposure=(0.5, 0.7),
                shot_noise=2e-4,
                read_noise=1e-3,
                phone=phone,
                compression=Compression(bits_per_pixel=0.3),
            ),
        ),
        Scenario(
            "night",
            "saturated lamps, signs, noise",
            "rocket.jpg",
            10,
            replace(life, speed=(4, 7), exposure=(0.2, 0.3), lights=25.0, shot_noise=3e-4, read_noise=2e-3),
        ),
    )


SCENARIOS = _scenarios()
