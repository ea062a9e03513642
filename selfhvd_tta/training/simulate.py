"""Handheld shake over a photograph: blurry frames and the sharp ones that belong to them.

The photograph is a scene that a camera with hand tremor looks at. Each blurry frame is the mean, in linear light, of
many sub-frames over the exposure, each under its own homography; its ground truth is the one instant in the middle.
Stabilised (calm) moments leave sharp frames in between, as handheld videos have them (SelfHVD, Sec. 3.1).

What it does not model: defocus, rolling-shutter wobble within the sensor's readout of a sub-frame, depth beyond a few
layers, and the sharpening and temporal denoising of phones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from selfhvd_tta.training.camera import Array, Trajectory, handheld_trajectory
from selfhvd_tta.training.codec import h264_round_trip

Image = NDArray[np.uint8]
Preset = Literal["camera", "texture", "object"]
DENSITY = 2  # texels per output pixel: bilinear sampling of the cubic enlargement keeps the photograph's sharpness


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


def preset(name: Preset) -> ShakeSettings:
    """The three kinds of clip that this project measures with, all 384x256, 48 frames, H.264 at CRF 10.

    (At this size coarser quantisation alone would cap the sharp frames at 33-34 dB.)

    ``camera``: shake alone; ``texture``: more of it, meant for a photograph of dense texture; ``object``: shake and an
    independently moving object in front. :mod:`selfhvd_tta.training.photos` names a photograph for each.

    Raises:
        KeyError: no preset of that name.
    """
    base = ShakeSettings(crf=10)
    return {
        "camera": base,
        "texture": replace(base, speed=(7.0, 11.0)),
        "object": replace(base, objects=1),
    }[name]


@dataclass(frozen=True)
class Layer:
    """A plane of the scene.

    Attributes:
        texture: (1, C, h, w) linear light at ``DENSITY`` texels per pixel, C = 3, or 4 with premultiplied alpha.
        view: maps instants (...) to homographies (..., 3, 3) from frame pixels to pixels of the plane, both centred.
    """

    texture: Tensor
    view: Callable[[Array], Array]


@dataclass(frozen=True)
class SimulatedClip:
    """A shaky clip and its ground truth.

    Attributes:
        blurry: (T, H, W, 3) uint8 RGB.
        sharp: (T, H, W, 3) uint8 RGB, the scene at mid exposure without noise or compression.
        extent: (T,) how far the background's blur reaches at most, in pixels.
        layers: planes of the scene, the background first.
        settings: what it was made with.
    """

    blurry: Image
    sharp: Image
    extent: Array
    layers: tuple[Layer, ...]
    settings: ShakeSettings

    @property
    def is_sharp(self) -> NDArray[np.bool_]:
        """(T,) the camera moved by less than a pixel during the exposure (objects may have moved more)."""
        return self.extent < 1.0

    def flow_to(self, source: int, target: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """True displacement from mid exposure of frame ``source`` to that of frame ``target``.

        Returns:
            Flow (H, W, 2) in pixels, x right, y down: where each pixel of ``source`` is in ``target``; and a mask
            (H, W), true where that point lies within the frame and is not hidden there by another layer.
        """
        height, width = self.blurry.shape[1:3]
        points = _pixel_grid(height, width)
        flow = np.zeros((height, width, 2))
        visible = np.zeros((height, width), bool)
        front = self._front_layer(points, source)
        for index, layer in enumerate(self.layers):
            on_plane = _project(layer.view(self._row_times(points[..., 1], source)), points)
            found = points
            for _ in range(6):  # with a rolling shutter the instant depends on the row that is looked for
                back = np.linalg.inv(layer.view(self._row_times(found[..., 1], target)))
                found = _project(back, on_plane)
            mine = front == index
            flow[mine] = (found - points)[mine]
            inside = (np.abs(found) <= [(width - 1) / 2, (height - 1) / 2]).all(-1)
            visible |= mine & inside & (self._front_layer(found, target) == index)
        return flow.astype(np.float32), visible

    def _row_times(self, y: Array, frame: int) -> Array:
        return frame + self.settings.readout * y / self.settings.height

    def _front_layer(self, points: Array, frame: int) -> NDArray[np.int64]:
        """Index of the layer that is seen at these points (..., 2) of a frame."""
        front = np.zeros(points.shape[:-1], np.int64)
        for index, layer in enumerate(self.layers[1:], 1):
            on_plane = _project(layer.view(self._row_times(points[..., 1], frame)), points)
            grid = torch.from_numpy(on_plane).float().to(layer.texture.device)
            front[_sample(layer.texture[:, 3:], grid[None])[0, 0].cpu().numpy() > 0.5] = index
        return front


def simulate_clip(
    photo: Image, settings: ShakeSettings, seed: int, device: torch.device | str = "cpu"
) -> SimulatedClip:
    """Shake a camera at a photograph.

    Args:
        photo: (H, W, 3) uint8 RGB. The part that the camera wanders over is cut out at random; where it is larger than
            the photograph, the photograph is enlarged, so that no border is ever seen.
        settings: kind of clip.
        seed: the same seed gives the same clip, on one device.
        device: where the sub-frames are rendered.

    Raises:
        ValueError: the photograph is not (H, W, 3) uint8.
    """
    if photo.ndim != 3 or photo.shape[2] != 3 or photo.dtype != np.uint8:
        raise ValueError(f"expected a photograph of shape (H, W, 3) and dtype uint8, got {photo.shape} {photo.dtype}")
    generator = np.random.default_rng(seed)
    speed = generator.uniform(*settings.speed)
    camera = _trajectory(generator, settings, speed)
    layers = [Layer(_background(photo, camera, settings, generator, device), camera.homographies)]
    if settings.parallax > 0:
        sway = _trajectory(generator, settings, speed * settings.parallax)
        layers.append(_depth_layer(photo, camera, sway, settings, generator, device))
    layers += [_moving_object(photo, camera, settings, generator, device) for _ in range(settings.objects)]

    gain = generator.uniform(*settings.exposure)
    centre = generator.uniform(*settings.duty)
    wobble = generator.uniform(0.9, 1.1, settings.frames)
    duty = np.clip(
        centre
        * np.convolve(wobble, [0.25, 0.5, 0.25], "same")
        / np.convolve(np.ones(settings.frames), [0.25, 0.5, 0.25], "same"),
        0.01,
        1.0,
    )
    noise = torch.Generator(device).manual_seed(seed)
    blurry, sharp, extents = [], [], []
    for frame in range(settings.frames):
        extent = _extent(camera, frame, float(duty[frame]), settings)
        least, most = settings.subframes
        count = min(max(int(np.ceil(1.5 * extent)) | 1, least), most)
        exposure = frame + duty[frame] * ((np.arange(count) + 0.5) / count - 0.5)
        sharp.append(_to_bytes(gain * _render(layers, np.array([float(frame)]), settings)))
        light = gain * _render(layers, exposure, settings)
        spread = (settings.shot_noise * light.clamp(min=0) + settings.read_noise**2).sqrt()
        light = light + spread * torch.randn(light.shape, generator=noise, device=light.device)
        blurry.append(_to_bytes(light))
        extents.append(extent)
    frames = np.stack(blurry)
    if settings.crf is not None:
        frames = h264_round_trip(frames, settings.crf)
    return SimulatedClip(frames, np.stack(sharp), np.array(extents), tuple(layers), settings)


def _trajectory(generator: np.random.Generator, settings: ShakeSettings, speed: float) -> Trajectory:
    return handheld_trajectory(
        generator,
        settings.frames,
        speed,
        max(settings.width, settings.height),
        band=settings.band,
        roll=settings.roll,
        zoom=settings.zoom,
        gap=settings.gap,
        calm=settings.calm,
    )


def _corners(settings: ShakeSettings) -> Array:
    x, y = (settings.width - 1) / 2, (settings.height - 1) / 2
    return np.array([(-x, -y), (x, -y), (0, 0), (-x, y), (x, y)])


def _extent(camera: Trajectory, frame: int, duty: float, settings: ShakeSettings) -> float:
    """Largest diagonal of the box that one of five image points sweeps during the exposure, in pixels."""
    times = frame + duty * np.linspace(-0.5, 0.5, 9)
    path = _project(camera.homographies(times)[:, None], _corners(settings)[None])
    return float(np.hypot(*(path.max(0) - path.min(0)).T).max())


def _project(homography: Array, points: Array) -> Array:
    """Apply homographies (..., 3, 3) to points (..., 2)."""
    mapped = (homography[..., :2] @ points[..., None])[..., 0] + homography[..., 2]
    return mapped[..., :2] / mapped[..., 2:]


def _pixel_grid(height: int, width: int) -> Array:
    """Centred coordinates (H, W, 2) of all pixels."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    return np.stack((x - (width - 1) / 2, y - (height - 1) / 2), -1)


# --- textures ---------------------------------------------------------------------------------------------------------


def _to_linear(photo: Image, highlights: float, device: torch.device | str) -> Tensor:
    """(h, w, 3) sRGB bytes -> (1, 3, h, w) linear light; values near white are stretched beyond 1."""
    code = np.arange(256) / 255
    table = np.where(code <= 0.04045, code / 12.92, ((code + 0.055) / 1.055) ** 2.4)
    table = table * (1 + (highlights - 1) * np.clip((code - 0.8) / 0.2, 0, 1) ** 2)
    texture = cv2.resize(
        table.astype(np.float32)[photo], None, fx=DENSITY, fy=DENSITY, interpolation=cv2.INTER_CUBIC
    ).clip(0)
    return torch.from_numpy(texture).permute(2, 0, 1)[None].contiguous().to(device)


def _to_bytes(light: Tensor) -> Image:
    """(3, H, W) linear light -> (H, W, 3) sRGB bytes."""
    light = light.clamp(0, 1)
    code = torch.where(light <= 0.0031308, 12.92 * light, 1.055 * light.clamp(min=1e-8) ** (1 / 2.4) - 0.055)
    return (code * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()


def _cut_out(
    photo: Image, width: int, height: int, scale: tuple[float, float], generator: np.random.Generator
) -> Image:
    """A random part of the photograph, resized to (height, width)."""
    largest = min(photo.shape[1] / width, photo.shape[0] / height)
    factor = min(generator.uniform(*scale), largest)
    w, h = max(int(width * factor), 1), max(int(height * factor), 1)
    x = int(generator.integers(0, photo.shape[1] - w + 1))
    y = int(generator.integers(0, photo.shape[0] - h + 1))
    method = cv2.INTER_AREA if factor > 1 else cv2.INTER_CUBIC
    part = np.ascontiguousarray(photo[y : y + h, x : x + w])
    return np.asarray(cv2.resize(part, (width, height), interpolation=method), np.uint8)


def _background(
    photo: Image,
    camera: Trajectory,
    settings: ShakeSettings,
    generator: np.random.Generator,
    device: torch.device | str,
) -> Tensor:
    width, height = _reach(camera.homographies(camera.times), settings)
    return _to_linear(_cut_out(photo, width, height, settings.photo_scale, generator), settings.highlights, device)


def _reach(views: Array, settings: ShakeSettings) -> tuple[int, int]:
    """Width and height of the centred part of a plane that these views look at."""
    seen = np.abs(_project(views[:, None], _corners(settings)[None])).max((0, 1))
    return int(2 * np.ceil(seen[0] + 3)), int(2 * np.ceil(seen[1] + 3))


def _with_alpha(part: Image, alpha: NDArray[np.float32], highlights: float, device: torch.device | str) -> Tensor:
    colour = _to_linear(part, highlights, device)
    matte = cv2.resize(alpha, None, fx=DENSITY, fy=DENSITY, interpolation=cv2.INTER_LINEAR)
    opacity = torch.from_numpy(np.asarray(matte, np.float32)).to(colour.device)[None, None]
    return torch.cat((colour * opacity, opacity), 1)


def _depth_layer(
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

    width, height = _reach(view(camera.times), settings)
    x = np.arange(width)
    edge = np.full(width, generator.uniform(0.55, 0.75) * height)
    for waves in (1, 2, 4):
        edge = edge + generator.uniform(-0.09, 0.09) * height * np.sin(
            2 * np.pi * waves * x / width + generator.uniform(0, 6.28)
        )
    alpha = np.clip(np.arange(height)[:, None] - edge + 0.5, 0, 1).astype(np.float32)
    part = _cut_out(photo, width, height, settings.photo_scale, generator)[:, ::-1]
    return Layer(_with_alpha(np.ascontiguousarray(part), alpha, settings.highlights, device), view)


def _moving_object(
    photo: Image,
    camera: Trajectory,
    settings: ShakeSettings,
    generator: np.random.Generator,
    device: torch.device | str,
) -> Layer:
    """A blob with a texture of its own that travels to and fro across the frame and turns a little."""
    short = min(settings.width, settings.height)
    radius = generator.uniform(0.16, 0.26) * short
    side = int(3.2 * radius) + 4
    grid = _pixel_grid(side, side)
    angle = np.arctan2(grid[..., 1], grid[..., 0])
    outline = np.full_like(angle, radius)
    for lobes in (2, 3, 5):
        outline += radius * generator.uniform(0, 0.15) * np.cos(lobes * angle + generator.uniform(0, 6.28))
    alpha = np.clip(outline - np.hypot(grid[..., 0], grid[..., 1]) + 0.5, 0, 1).astype(np.float32)
    # An object without texture would show no blur: take the liveliest of a few parts.
    parts = [_cut_out(photo, side, side, settings.photo_scale, generator)[::-1] for _ in range(6)]
    part = max(parts, key=lambda candidate: float(candidate.std()))
    texture = _with_alpha(np.ascontiguousarray(part), alpha, settings.highlights, device)

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


# --- rendering --------------------------------------------------------------------------------------------------------


def _sample(texture: Tensor, points: Tensor) -> Tensor:
    """Bilinear samples (N, C, h, w) of a centred texture (1, C, ., .) at points (N, h, w, 2) in pixels."""
    size = torch.tensor([texture.shape[3], texture.shape[2]], dtype=points.dtype, device=points.device)
    grid = points * (2 * DENSITY / size)
    expanded = texture.expand(len(points), -1, -1, -1)
    return F.grid_sample(expanded, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _render(layers: list[Layer], times: Array, settings: ShakeSettings) -> Tensor:
    """Mean over instants, (3, H, W) linear light."""
    device = layers[0].texture.device
    x = torch.arange(settings.width, device=device) - (settings.width - 1) / 2
    rows = np.arange(settings.height) - (settings.height - 1) / 2
    y = torch.from_numpy(rows).float().to(device)
    delay = settings.readout * rows / settings.height
    total = torch.zeros(3, settings.height, settings.width, device=device)
    for chunk in np.array_split(times, -(-len(times) // 8)):
        picture: Tensor | None = None
        for layer in layers:
            views = layer.view(chunk[:, None] + delay if settings.readout else chunk[:, None])
            h = torch.from_numpy(views).float().to(device)  # (n, H or 1, 3, 3)
            start = h[..., 1] * y[:, None] + h[..., 2]
            mapped = start[:, :, None] + h[..., 0][:, :, None] * x[:, None]
            sampled = _sample(layer.texture, mapped[..., :2] / mapped[..., 2:])
            picture = sampled if picture is None else sampled[:, :3] + picture * (1 - sampled[:, 3:])
        assert picture is not None
        total += picture.sum(0)
    return total / len(times)
