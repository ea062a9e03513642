"""Handheld shake over a photograph: blurry frames and the sharp ones that belong to them.

The photograph is a scene that a camera with hand tremor records. Each blurry frame is the mean, in linear light, of
many sub-frames over the exposure, each under its own homography; its ground truth is the one instant in the middle.
Stabilised (calm) moments leave sharp frames in between, as handheld videos have them (SelfHVD, Sec. 3.1).

What it does not model: defocus, rolling-shutter wobble within the sensor's readout of a sub-frame, depth beyond a few
layers, deforming motion, and noise reduction over time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from selfhvd_tta.lab.simulation.camera import (
    Array,
    Trajectory,
    Tremor,
    burst_velocity,
    handheld_trajectory,
    sample_times,
)
from selfhvd_tta.lab.simulation.codec import compress, h264_round_trip
from selfhvd_tta.lab.simulation.foreground import add_lights, figure, near_layer
from selfhvd_tta.lab.simulation.phone import code_deviation, finish, noise_like, reduce_noise, to_code
from selfhvd_tta.lab.simulation.scene import (
    Image,
    Layer,
    background,
    corners,
    depth_layer,
    moving_object,
    project,
    sample,
)
from selfhvd_tta.lab.simulation.shake import Preset, ShakeSettings, preset

__all__ = ["Layer", "Preset", "ShakeSettings", "SimulatedClip", "preset", "simulate_clip"]
# Streams of randomness in addition to the clip's main one.
JUMPS, LIGHTS, FIGURES, NEAR = range(101, 105)


@dataclass(frozen=True)
class SimulatedClip:
    """A shaky clip and its ground truth.

    Attributes:
        blurry: (T, H, W, 3) uint8 RGB.
        sharp: (T, H, W, 3) uint8 RGB, the scene at mid exposure without noise or compression.
        extent: (T,) how far the blur of what does not move by itself reaches at most, in pixels.
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


@dataclass(frozen=True)
class Scene:
    """What the camera sees and how it exposes, before anything is rendered.

    Attributes:
        layers: planes, the background first, each in front of those before it.
        gain: exposure, a factor on linear light.
        duty: (T,) exposure of each frame as a share of the frame interval.
        still: how many of the layers, from the first one, do not move by themselves; they decide whether a frame is
            sharp.
    """

    layers: tuple[Layer, ...]
    gain: float
    duty: Array
    still: int = 1


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
    return film(draw_scene(photo, settings, seed, device), settings, seed)


def draw_scene(photo: Image, settings: ShakeSettings, seed: int, device: torch.device | str) -> Scene:
    """Draw what :func:`simulate_clip` films; same arguments."""
    if photo.ndim != 3 or photo.shape[2] != 3 or photo.dtype != np.uint8:
        raise ValueError(f"expected a photograph of shape (H, W, 3) and dtype uint8, got {photo.shape} {photo.dtype}")
    generator = np.random.default_rng(seed)
    speed = generator.uniform(*settings.speed)
    camera = draw_trajectory(generator, settings, speed, jump_velocity(settings, seed))
    ground = background(photo, camera, settings, generator, device)
    if settings.lights > 0:
        ground = add_lights(ground, settings, np.random.default_rng((seed, LIGHTS)))
    layers = [Layer(ground, camera.homographies)]
    if settings.parallax > 0:
        sway = draw_trajectory(generator, settings, speed * settings.parallax)
        layers.append(depth_layer(photo, camera, sway, settings, generator, device))
    layers += [moving_object(photo, camera, settings, generator, device) for _ in range(settings.objects)]
    layers += _scenery(photo, camera, speed, settings, seed, device)
    return Scene(tuple(layers), *draw_exposure(generator, settings))


def draw_exposure(generator: np.random.Generator, settings: ShakeSettings) -> tuple[float, Array]:
    """Gain of the clip and duty (T,) of its frames."""
    gain = generator.uniform(*settings.exposure)
    centre = generator.uniform(*settings.duty)
    wobble = generator.uniform(0.9, 1.1, settings.frames)
    smooth = [0.25, 0.5, 0.25]
    duty = centre * np.convolve(wobble, smooth, "same") / np.convolve(np.ones(settings.frames), smooth, "same")
    return gain, np.clip(duty, 0.01, 1.0)[: settings.frames]


def film(scene: Scene, settings: ShakeSettings, seed: int) -> SimulatedClip:
    """Record a scene: blurry frames, the truth, and how far the blur reaches.

    Args:
        scene: what is seen.
        settings: sensor, phone and codec.
        seed: of the noise.
    """
    layers = list(scene.layers)
    noise = torch.Generator(layers[0].texture.device).manual_seed(seed)
    blurry, sharp, extents = [], [], blur_extent(scene, settings)
    for frame, extent in enumerate(extents):
        duty = scene.duty[frame]
        least, most = settings.subframes
        count = min(max(int(np.ceil(1.5 * extent)) | 1, least), most)
        exposure = frame + duty * ((np.arange(count) + 0.5) / count - 0.5)
        truth = to_code(scene.gain * _render(layers, np.array([float(frame)]), settings))
        recorded = _record(scene.gain * _render(layers, exposure, settings), settings, noise)
        if settings.phone is not None:
            truth, recorded = finish(truth, settings.phone), finish(recorded, settings.phone)
        sharp.append(_to_bytes(truth))
        blurry.append(_to_bytes(recorded))
    frames = np.stack(blurry)
    if settings.crf is not None:
        frames = h264_round_trip(frames, settings.crf)
    if settings.compression is not None:
        frames = compress(frames, settings.compression)
    return SimulatedClip(frames, np.stack(sharp), extents, scene.layers, settings)


def _scenery(
    photo: Image, camera: Trajectory, speed: float, settings: ShakeSettings, seed: int, device: torch.device | str
) -> list[Layer]:
    """Figures, and in front of them the further near layers."""
    people = np.random.default_rng((seed, FIGURES))
    layers = [figure(photo, camera, settings, people, device) for _ in range(settings.figures)]
    if settings.near:
        generator = np.random.default_rng((seed, NEAR))
        sway = draw_trajectory(generator, settings, speed)
        layers += [near_layer(photo, camera, sway.scaled(p), settings, generator, device) for p in settings.near]
    return layers


def jump_velocity(settings: ShakeSettings, seed: int) -> Array | None:
    """Velocity (2, K) of panning and of sudden corrections, in pixels per frame."""
    if not settings.pan and settings.bursts is None:
        return None
    # A stream of randomness of its own: a clip without these is the same as before they existed.
    generator = np.random.default_rng((seed, JUMPS))
    times = sample_times(settings.frames)
    angle = generator.uniform(0, 2 * np.pi)
    velocity = np.repeat(settings.pan * np.array([[np.cos(angle)], [np.sin(angle)]]), len(times), axis=1)
    if settings.bursts is not None:
        velocity += burst_velocity(generator, times, settings.bursts)
    return velocity


def draw_trajectory(
    generator: np.random.Generator, settings: ShakeSettings, speed: float, jumps: Array | None = None
) -> Trajectory:
    """Motion of a camera (or of a layer against it) of this kind, with ``jumps`` (2, K) added to its velocity."""
    tremor = Tremor(settings.band, settings.roll, settings.zoom, settings.gap, settings.calm)
    larger = max(settings.width, settings.height)
    return handheld_trajectory(generator, settings.frames, speed, larger, tremor, settings.focal, jumps)


def blur_extent(scene: Scene, settings: ShakeSettings) -> Array:
    """Largest diagonal (T,) of the box that one of five image points sweeps during the exposure, in pixels."""
    times = np.arange(settings.frames)[:, None] + scene.duty[:, None] * np.linspace(-0.5, 0.5, 9)
    swept = []
    for layer in scene.layers[: scene.still]:
        path = project(layer.view(times)[:, :, None], corners(settings))
        swept.append(np.hypot(*np.moveaxis(path.max(1) - path.min(1), -1, 0)).max(1))
    return np.max(swept, axis=0)


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
            sampled = sample(layer.texture, mapped[..., :2] / mapped[..., 2:])
            picture = sampled if picture is None else sampled[:, :3] + picture * (1 - sampled[:, 3:])
        assert picture is not None
        total += picture.sum(0)
    return total / len(times)


def _record(light: Tensor, settings: ShakeSettings, generator: torch.Generator) -> Tensor:
    """What the sensor and the noise reduction make of (3, H, W) linear light: code values."""
    spread = (settings.shot_noise * light.clamp(min=0) + settings.read_noise**2).sqrt()
    look = settings.phone
    noisy = light + spread * noise_like(light, look.grain if look else 1.0, generator)
    code = to_code(noisy)
    if look is not None and look.denoise > 0:
        code = reduce_noise(code, code_deviation(noisy, settings.shot_noise, settings.read_noise), look, generator)
    return code


def _to_bytes(code: Tensor) -> Image:
    """(3, H, W) code values -> (H, W, 3) bytes."""
    return (code * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
