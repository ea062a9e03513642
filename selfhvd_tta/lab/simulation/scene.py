"""What the simulated camera sees: planes cut out of a photograph, in linear light, and where each one is seen."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from selfhvd_tta.lab.simulation.camera import Array, Trajectory, sample_times
from selfhvd_tta.lab.simulation.shake import ShakeSettings

Image = NDArray[np.uint8]
Mask = NDArray[np.float32]
DENSITY = 2  # texels per output pixel: bilinear sampling of the cubic enlargement keeps the photograph's sharpness
FARTHEST = 40  # frame sizes that a plane may reach from its centre


@dataclass(frozen=True)
class Layer:
    """A plane of the scene.

    Attributes:
        texture: (1, C, h, w) linear light at ``DENSITY`` texels per pixel, C = 3, or 4 with premultiplied alpha.
        view: maps instants (...) to homographies (..., 3, 3) from frame pixels to pixels of the plane, both centred.
    """

    texture: Tensor
    view: Callable[[Array], Array]


def project(homography: Array, points: Array) -> Array:
    """Apply homographies (..., 3, 3) to points (..., 2)."""
    mapped = (homography[..., :2] @ points[..., None])[..., 0] + homography[..., 2]
    return mapped[..., :2] / mapped[..., 2:]


def pixel_grid(height: int, width: int) -> Array:
    """Centred coordinates (H, W, 2) of all pixels."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    return np.stack((x - (width - 1) / 2, y - (height - 1) / 2), -1)


def corners(settings: ShakeSettings) -> Array:
    """The four corners and the centre of the frame, (5, 2)."""
    x, y = (settings.width - 1) / 2, (settings.height - 1) / 2
    return np.array([(-x, -y), (x, -y), (0, 0), (-x, y), (x, y)])


def reach(views: Array, settings: ShakeSettings) -> tuple[int, int]:
    """Width and height of the centred part of a plane that these views see.

    Raises:
        ValueError: it is absurdly large, since the camera turns away from the plane.
    """
    points = corners(settings)[None]
    depth = (views[:, None, 2, :2] * points).sum(-1) + views[:, None, 2, 2]
    seen = np.abs(project(views[:, None], points)).max((0, 1))
    if depth.min() <= 0 or seen.max() > FARTHEST * max(settings.width, settings.height):
        raise ValueError("so fast a camera turns away from the scene: a longer focal length or less speed is needed")
    return int(2 * np.ceil(seen[0] + 3)), int(2 * np.ceil(seen[1] + 3))


def sample(texture: Tensor, points: Tensor) -> Tensor:
    """Bilinear samples (N, C, h, w) of a centred texture (1, C, ., .) at points (N, h, w, 2) in pixels."""
    size = torch.tensor([texture.shape[3], texture.shape[2]], dtype=points.dtype, device=points.device)
    grid = points * (2 * DENSITY / size)
    expanded = texture.expand(len(points), -1, -1, -1)
    return F.grid_sample(expanded, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def to_linear(photo: Image, highlights: float, device: torch.device | str) -> Tensor:
    """(h, w, 3) sRGB bytes -> (1, 3, h, w) linear light; values near white are stretched beyond 1."""
    code = np.arange(256) / 255
    table = np.where(code <= 0.04045, code / 12.92, ((code + 0.055) / 1.055) ** 2.4)
    table = table * (1 + (highlights - 1) * np.clip((code - 0.8) / 0.2, 0, 1) ** 2)
    texture = cv2.resize(
        table.astype(np.float32)[photo], None, fx=DENSITY, fy=DENSITY, interpolation=cv2.INTER_CUBIC
    ).clip(0)
    return torch.from_numpy(texture).permute(2, 0, 1)[None].contiguous().to(device)


def cut_out(photo: Image, width: int, height: int, scale: tuple[float, float], generator: np.random.Generator) -> Image:
    """A random part of the photograph, resized to (height, width)."""
    largest = min(photo.shape[1] / width, photo.shape[0] / height)
    factor = min(generator.uniform(*scale), largest)
    w, h = max(int(width * factor), 1), max(int(height * factor), 1)
    x = int(generator.integers(0, photo.shape[1] - w + 1))
    y = int(generator.integers(0, photo.shape[0] - h + 1))
    method = cv2.INTER_AREA if factor > 1 else cv2.INTER_CUBIC
    part = np.ascontiguousarray(photo[y : y + h, x : x + w])
    return np.asarray(cv2.resize(part, (width, height), interpolation=method), np.uint8)


def with_alpha(part: Image, alpha: NDArray[np.float32], highlights: float, device: torch.device | str) -> Tensor:
    colour = to_linear(part, highlights, device)
    matte = cv2.resize(alpha, None, fx=DENSITY, fy=DENSITY, interpolation=cv2.INTER_LINEAR)
    opacity = torch.from_numpy(np.asarray(matte, np.float32)).to(colour.device)[None, None]
    return torch.cat((colour * opacity, opacity), 1)


def background(
    photo: Image,
    camera: Trajectory,
    settings: ShakeSettings,
    generator: np.random.Generator,
    device: torch.device | str,
) -> Tensor:
    """Texture of the plane behind everything, as large as the camera's motion needs it."""
    width, height = reach(camera.homographies(camera.times), settings)
    return to_linear(cut_out(photo, width, height, settings.photo_scale, generator), settings.highlights, device)


def wavy(
    edge: Array, angle: Array, waves: Iterable[int], height: tuple[float, float], generator: np.random.Generator
) -> Array:
    """An edge with waves on it.

    Args:
        edge: where it is, in pixels.
        angle: place along it, 0 at its begin and 2 pi at its end.
        waves: how many of each kind there are from begin to end.
        height: range of their amplitudes, in pixels.
        generator: source of amplitudes and phases.
    """
    for count in waves:
        edge = edge + generator.uniform(*height) * np.sin(count * angle + generator.uniform(0, 6.28))
    return edge


def depth_layer(
    photo: Image,
    camera: Trajectory,
    sway: Trajectory,
    settings: ShakeSettings,
    generator: np.random.Generator,
    device: torch.device | str,
) -> Layer:
    """Something near that covers a side of the frame under a wavy edge and shifts against the background."""

    def view(times: Array) -> Array:
        return sway.homographies(times) @ camera.homographies(times)

    width, height = reach(view(camera.times), settings)
    x = np.arange(width)
    edge = np.full(width, generator.uniform(0.55, 0.75) * height)
    edge = wavy(edge, 2 * np.pi * x / width, (1, 2, 4), (-0.09 * height, 0.09 * height), generator)
    alpha = np.clip(np.arange(height)[:, None] - edge + 0.5, 0, 1).astype(np.float32)
    part = cut_out(photo, width, height, settings.photo_scale, generator)[:, ::-1]
    return Layer(with_alpha(np.ascontiguousarray(part), alpha, settings.highlights, device), view)


def moving_object(
    photo: Image,
    camera: Trajectory,
    settings: ShakeSettings,
    generator: np.random.Generator,
    device: torch.device | str,
) -> Layer:
    """A blob with a texture of its own that travels back and forth across the frame and turns a little."""
    short = min(settings.width, settings.height)
    radius = generator.uniform(0.16, 0.26) * short
    side = int(3.2 * radius) + 4
    grid = pixel_grid(side, side)
    angle = np.arctan2(grid[..., 1], grid[..., 0])
    outline = np.full_like(angle, radius)
    for lobes in (2, 3, 5):
        outline += radius * generator.uniform(0, 0.15) * np.cos(lobes * angle + generator.uniform(0, 6.28))
    alpha = np.clip(outline - np.hypot(grid[..., 0], grid[..., 1]) + 0.5, 0, 1).astype(np.float32)
    # An object without texture would show no blur: take the liveliest of a few parts.
    parts = [cut_out(photo, side, side, settings.photo_scale, generator)[::-1] for _ in range(6)]
    part = max(parts, key=lambda candidate: float(candidate.std()))
    texture = with_alpha(np.ascontiguousarray(part), alpha, settings.highlights, device)

    speed = generator.uniform(*settings.object_speed)
    swing = np.array([settings.width, settings.height]) * generator.uniform(0.15, 0.3, 2)
    course = generator.uniform(0, 6.28)
    rate = speed / np.hypot(swing[0] * np.cos(course), swing[1] * np.sin(course)).clip(1)
    start, turn = generator.uniform(0, 6.28), generator.uniform(-0.2, 0.2)

    def view(times: Array) -> Array:
        phase = start + rate * times
        x, y = swing[0] * np.cos(course) * np.sin(phase), swing[1] * np.sin(course) * np.sin(phase)
        c, s = np.cos(turn * np.sin(phase)), np.sin(turn * np.sin(phase))
        zero, one = np.zeros_like(x), np.ones_like(x)
        place = np.stack([c, s, -c * x - s * y, -s, c, s * x - c * y, zero, zero, one], -1)
        return place.reshape(*x.shape, 3, 3) @ camera.homographies(times)

    return Layer(texture, view)


def plane_layer(
    photo: Image,
    view: Callable[[Array], Array],
    mask: Callable[[int, int, int, np.random.Generator], Mask] | None,
    settings: ShakeSettings,
    generator: np.random.Generator,
    device: torch.device | str,
) -> Layer:
    """A plane cut out of the photograph: all of it, or where a mask drawn for its size is 1."""
    width, height = reach(view(sample_times(settings.frames)), settings)
    part = cut_out(photo, width, height, settings.photo_scale, generator)
    if mask is None:
        return Layer(to_linear(part, settings.highlights, device), view)
    shape = mask(height, width, min(settings.width, settings.height), generator)
    return Layer(with_alpha(part, shape, settings.highlights, device), view)
