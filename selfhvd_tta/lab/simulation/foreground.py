"""What else a clip shows: near things that parallax moves, figures that walk by, lamps and signs in the night."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

from selfhvd_tta.lab.simulation.camera import Array, Trajectory
from selfhvd_tta.lab.simulation.scene import DENSITY, Image, Layer, Mask, cut_out, pixel_grid, reach, wavy, with_alpha
from selfhvd_tta.lab.simulation.shake import ShakeSettings

# Colours of lamps in linear light: warm and cold white, sodium, and the saturated ones of signs.
LAMPS = ((1, 0.75, 0.45), (0.8, 0.9, 1), (1, 0.5, 0.12), (1, 0.03, 0.02), (0.03, 1, 0.15), (0.05, 0.2, 1), (0, 0.8, 1))
LETTERS = "ABCDEFGHKLMNOPRSTUVXYZ0123456789"


def near_layer(
    photo: Image,
    camera: Trajectory,
    sway: Trajectory,
    settings: ShakeSettings,
    generator: np.random.Generator,
    device: torch.device | str,
) -> Layer:
    """Something near, of one of four shapes: a side of the frame, poles, a lattice, or scattered leaves.

    Args:
        photo: (H, W, 3) uint8, its texture is cut out of it.
        camera: motion of the camera.
        sway: motion of this layer against the background.
        settings: kind of clip.
        generator: source of randomness.
        device: of the texture.
    """

    def view(times: Array) -> Array:
        return sway.homographies(times) @ camera.homographies(times)

    width, height = reach(view(camera.times), settings)
    short = min(settings.width, settings.height)
    shape = (side_mask, poles_mask, lattice_mask, leaves_mask)[int(generator.integers(4))]
    mask = shape(height, width, short, generator)
    if generator.random() < 0.5:
        mask = mask[:, ::-1]
    part = cut_out(photo, width, height, settings.photo_scale, generator)[::-1, ::-1]
    return Layer(with_alpha(np.ascontiguousarray(part), np.ascontiguousarray(mask), settings.highlights, device), view)


def side_mask(height: int, width: int, short: int, generator: np.random.Generator) -> Mask:
    """The left of the plane up to a slanted wavy edge: a wall, a door frame, somebody's shoulder."""
    y = np.arange(height)[:, None]
    edge: Array = width / 2 + short * (
        generator.uniform(-0.4, -0.1) + generator.uniform(-0.3, 0.3) * (y / height - 0.5)
    )
    edge = wavy(edge, 6.28 * y / height, (1, 3), (0, 0.06 * short), generator)
    return np.clip(edge - np.arange(width) + 0.5, 0, 1).astype(np.float32)


def poles_mask(height: int, width: int, short: int, generator: np.random.Generator) -> Mask:
    """One to three upright bars, a little slanted."""
    mask = np.zeros((height, width), np.float32)
    y, x = np.arange(height)[:, None], np.arange(width)
    for _ in range(int(generator.integers(1, 4))):
        centre = width / 2 + generator.uniform(-0.5, 0.5) * short
        half = generator.uniform(0.01, 0.07) * short
        line = centre + generator.uniform(-0.15, 0.15) * (y - height / 2)
        mask = np.maximum(mask, np.clip(half - np.abs(x - line) + 0.5, 0, 1))
    return mask.astype(np.float32)


def lattice_mask(height: int, width: int, short: int, generator: np.random.Generator) -> Mask:
    """A fence or window bars: thin lines in two directions over all the plane."""
    points = pixel_grid(height, width)
    angle = generator.uniform(0, 1.57)
    mask = np.zeros((height, width))
    for turn in (angle, angle + generator.uniform(1.2, 1.94)):
        pitch = generator.uniform(0.15, 0.45) * short
        half = generator.uniform(0.6, 2.2)
        along = points[..., 0] * np.cos(turn) + points[..., 1] * np.sin(turn)
        distance = np.abs((along / pitch + generator.random()) % 1 - 0.5) * pitch
        mask = np.maximum(mask, np.clip(half - distance + 0.5, 0, 1))
    return mask.astype(np.float32)


def leaves_mask(height: int, width: int, short: int, generator: np.random.Generator) -> Mask:
    """Scattered small ellipses, denser towards the top: branches."""
    mask = np.zeros((height, width), np.uint8)
    count = int(generator.uniform(15, 60) * height * width / short**2)
    for _ in range(count):
        centre = (int(generator.uniform(0, width)), int(height * generator.random() ** 2))
        axes = (int(generator.uniform(0.02, 0.08) * short) + 1, int(generator.uniform(0.01, 0.03) * short) + 1)
        cv2.ellipse(mask, centre, axes, generator.uniform(0, 180), 0, 360, 255, -1, cv2.LINE_AA)
    return (mask / 255).astype(np.float32)


def figure(
    photo: Image,
    camera: Trajectory,
    settings: ShakeSettings,
    generator: np.random.Generator,
    device: torch.device | str,
) -> Layer:
    """Somebody, or a box on wheels, that crosses the frame in a straight line and bobs."""
    short = min(settings.width, settings.height)
    tall = int(generator.uniform(0.35, 0.8) * short) + 8
    mask = person_mask(tall, generator) if generator.random() < 0.65 else box_mask(tall, generator)
    height, width = mask.shape
    parts = [cut_out(photo, width, height, settings.photo_scale, generator) for _ in range(4)]
    part = max(parts, key=lambda candidate: float(candidate.std()))
    texture = with_alpha(part, mask, settings.highlights, device)
    # In the middle of the clip it is somewhere within the frame.
    middle, phase = settings.frames / 2, generator.uniform(0, 6.28)
    x0, y0 = generator.uniform(-0.35, 0.35) * settings.width, generator.uniform(-0.1, 0.3) * settings.height
    across = generator.choice([-1, 1]) * generator.uniform(*settings.figure_speed)
    down, bob = generator.uniform(-0.15, 0.15) * across, generator.uniform(0, 0.02) * tall

    def view(times: Array) -> Array:
        x = x0 + across * (times - middle)
        y = y0 + down * (times - middle) + bob * np.sin(0.7 * times + phase)
        zero, one = np.zeros_like(x), np.ones_like(x)
        place = np.stack([one, zero, -x, zero, one, -y, zero, zero, one], -1)
        return place.reshape(*x.shape, 3, 3) @ camera.homographies(times)

    return Layer(texture, view)


def person_mask(tall: int, generator: np.random.Generator) -> Mask:
    """Head, body, arms and striding legs, ``tall`` pixels."""
    scale = 4
    unit = tall * scale
    wide = int(0.6 * unit)
    mask = np.zeros((unit, wide), np.uint8)
    middle, head = wide // 2, int(0.075 * unit)

    def limb(start: tuple[float, float], end: tuple[float, float], thick: float) -> None:
        ends = [(int(middle + px * unit), int(py * unit)) for px, py in (start, end)]
        cv2.line(mask, ends[0], ends[1], 255, max(int(thick * unit), 1), cv2.LINE_AA)

    cv2.circle(mask, (middle, int(0.1 * unit)), head, 255, -1, cv2.LINE_AA)
    limb((0, 0.26), (0, 0.5), 0.2)
    stride, swing = generator.uniform(0.02, 0.16), generator.uniform(0.02, 0.14)
    for side in (-1, 1):
        limb((0.04 * side, 0.52), (stride * side, 0.93), 0.09)
        limb((0.09 * side, 0.24), (0.1 * side + swing * side, 0.5), 0.06)
    return (cv2.resize(mask, (wide // scale, tall), interpolation=cv2.INTER_AREA) / 255).astype(np.float32)


def box_mask(tall: int, generator: np.random.Generator) -> Mask:
    """A rounded box with two wheels."""
    scale = 4
    height = int(0.6 * tall) * scale
    width = int(height * generator.uniform(1.3, 2.4))
    mask = np.zeros((height, width), np.uint8)
    body, corner = int(0.8 * height), int(generator.uniform(0.1, 0.3) * height)
    cv2.rectangle(mask, (corner, corner), (width - corner - 1, body - corner), 255, -1)
    mask[:body] = cv2.dilate(mask[:body], cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * corner - 1,) * 2))
    for place in (0.22, 0.78):
        cv2.circle(mask, (int(place * width), body - 1), height - body, 255, -1, cv2.LINE_AA)
    size = (width // scale, height // scale)
    return (cv2.resize(mask, size, interpolation=cv2.INTER_AREA) / 255).astype(np.float32)


def add_lights(texture: Tensor, settings: ShakeSettings, generator: np.random.Generator) -> Tensor:
    """Paint lamps, light strips and lettering into the texture (1, 3, h, w) of a plane, far brighter than white.

    They are small, so that a calm camera shows points and letters and a moving one streaks.
    """
    _, _, height, width = texture.shape
    area = height * width / (settings.height * settings.width * DENSITY**2)
    emission = np.zeros((height, width, 3), np.float32)
    for _ in range(generator.poisson(settings.lights * area)):
        colour = np.array(LAMPS[int(generator.integers(len(LAMPS)))], np.float32)
        strength = np.float32(np.exp(generator.uniform(*np.log(settings.lamp))))
        mask = _lamp(generator)[: height // 2, : width // 2]
        y, x = (
            int(generator.integers(size - part + 1)) for size, part in zip((height, width), mask.shape, strict=True)
        )
        place = emission[y : y + mask.shape[0], x : x + mask.shape[1]]
        np.maximum(place, mask[..., None] * (colour * strength), out=place)
    # Lens and air: a faint glow around each.
    emission += 0.03 * cv2.GaussianBlur(emission, (0, 0), 4 * DENSITY)
    light = torch.from_numpy(emission).permute(2, 0, 1)[None].to(texture.device)
    return texture + light


def _lamp(generator: np.random.Generator) -> Mask:
    """The shape of a lamp, a light strip or a word, in texels."""
    kind = generator.random()
    if kind < 0.6:
        radius = int(generator.integers(1, 3 * DENSITY))
        mask = np.zeros((2 * radius + 3,) * 2, np.uint8)
        cv2.circle(mask, (radius + 1, radius + 1), radius, 255, -1, cv2.LINE_AA)
    elif kind < 0.82:
        length, angle = generator.uniform(4, 25) * DENSITY, generator.choice([0, 1.57, generator.uniform(0, 1.57)])
        end = (int(4 + length * np.cos(angle)), int(4 + length * np.sin(angle)))
        mask = np.zeros((end[1] + 5, end[0] + 5), np.uint8)
        cv2.line(mask, (4, 4), end, 255, int(generator.integers(1, 2 * DENSITY + 1)), cv2.LINE_AA)
    else:
        word = "".join(generator.choice(list(LETTERS), int(generator.integers(2, 7))))
        size = generator.uniform(0.12, 0.5) * DENSITY
        mask = np.zeros((int(40 * size), int(24 * size * len(word))), np.uint8)
        cv2.putText(mask, word, (2, int(32 * size)), cv2.FONT_HERSHEY_SIMPLEX, size, 255, 1, cv2.LINE_AA)
    return (mask / np.float32(255)).astype(np.float32)
