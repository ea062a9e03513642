"""How a hand moves a camera: band-limited tremor with calm moments, as homographies at any instant.

Coordinates are output pixels relative to the centre of the frame, x right, y down; time is in frames, frame i being
exposed around t = i.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from selfhvd_tta.lab.simulation.shake import Bursts

Array = NDArray[np.floating]
SAMPLES_PER_FRAME = (
    16  # tremor ends at a third of the frame rate, so linear interpolation between these is exact enough
)


def band_limited_noise(generator: np.random.Generator, channels: int, count: int, low: float, high: float) -> Array:
    """Gaussian noise (channels, count) of unit variance whose spectrum is flat between ``low`` and ``high`` cycles
    per frame, at ``SAMPLES_PER_FRAME`` samples per frame, with soft edges an octave wide."""
    spare = 8 * SAMPLES_PER_FRAME  # the Fourier transform makes the noise periodic: cut that off
    total = count + spare
    spectrum = np.fft.rfft(generator.standard_normal((channels, total)), axis=1)
    frequency = np.fft.rfftfreq(total, 1 / SAMPLES_PER_FRAME)
    with np.errstate(divide="ignore"):
        octaves = np.log2(frequency)
    gain = np.clip(octaves - np.log2(low) + 0.5, 0, 1) * np.clip(np.log2(high) - octaves + 0.5, 0, 1)
    noise = np.fft.irfft(spectrum * gain, total, axis=1)[:, :count]
    return noise / np.sqrt(np.mean(gain**2))


def calm_envelope(
    generator: np.random.Generator, times: Array, gap: tuple[float, float], width: tuple[float, float], floor: float
) -> Array:
    """Speed factor over time: about 1, sinking to ``floor`` in calm moments.

    Args:
        generator: source of randomness.
        times: instants in frames, increasing.
        gap: range of the distance between two calm moments, in frames.
        width: range of the half-width of a calm moment, in frames.
        floor: factor in the middle of a calm moment.
    """
    envelope = np.ones_like(times)
    centre = times[0] + generator.uniform(0, 0.6 * gap[1])
    while centre < times[-1]:
        half = generator.uniform(*width)
        envelope *= 1 - np.exp(-(((times - centre) / half) ** 4))
        centre += generator.uniform(*gap)
    return floor + (1 - floor) * envelope


@dataclass(frozen=True)
class Trajectory:
    """Pose of the camera over time.

    Attributes:
        times: (K,) in frames, evenly spaced.
        pose: (4, K): yaw and pitch as pixels of shift at the centre, roll in radians, log of the zoom.
        focal: focal length in pixels.
    """

    times: Array
    pose: Array
    focal: float

    def scaled(self, factor: float) -> Trajectory:
        """The same motion, ``factor`` times as large: how a nearer layer moves."""
        return replace(self, pose=self.pose * factor)

    def at(self, times: Array) -> Array:
        """Pose (..., 4) at any instants."""
        return np.stack([np.interp(times, self.times, row) for row in self.pose], -1)

    def homographies(self, times: Array) -> Array:
        """Maps (..., 3, 3) from pixels of the frame at these instants to pixels of the still scene."""
        x, y, roll, zoom = np.moveaxis(self.at(times), -1, 0)
        f = self.focal
        yaw, pitch = np.arctan(x / f), np.arctan(y / f)
        zero, one = np.zeros_like(x), np.ones_like(x)
        around_y = _stack(np.cos(yaw), zero, np.sin(yaw), zero, one, zero, -np.sin(yaw), zero, np.cos(yaw))
        around_x = _stack(one, zero, zero, zero, np.cos(pitch), np.sin(pitch), zero, -np.sin(pitch), np.cos(pitch))
        around_z = _stack(np.cos(roll), -np.sin(roll), zero, np.sin(roll), np.cos(roll), zero, zero, zero, one)
        scale = np.exp(-zoom)
        inside = _stack(scale / f, zero, zero, zero, scale / f, zero, zero, zero, one)
        outside = np.diag([f, f, 1.0])
        return outside @ around_y @ around_x @ around_z @ inside


def at_depth(camera: Trajectory, travel: Array, depth: float) -> Callable[[Array], Array]:
    """Where a camera that turns and travels (3, K) metres sees a plane ``depth`` metres away."""

    def view(times: Array) -> Array:
        x, y, z = (np.interp(times, camera.times, row) for row in travel)
        zero, one = np.zeros_like(x), np.ones_like(x)
        scale = (depth - z) / depth
        shift_x, shift_y = camera.focal * x / depth, camera.focal * y / depth
        matrix = np.stack([scale, zero, shift_x, zero, scale, shift_y, zero, zero, one], -1)
        return matrix.reshape(*x.shape, 3, 3) @ camera.homographies(times)

    return view


def _stack(*entries: Array) -> Array:
    return np.stack(entries, -1).reshape(*entries[0].shape, 3, 3)


def sample_times(frames: int) -> Array:
    """(K,) instants in frames at which the motion of a clip is held, a little more than the clip."""
    return np.arange(-1.5 * SAMPLES_PER_FRAME, (frames + 0.5) * SAMPLES_PER_FRAME + 1) / SAMPLES_PER_FRAME


def burst_velocity(generator: np.random.Generator, times: Array, bursts: Bursts) -> Array:
    """Velocity (2, K) of sudden corrections in pixels per frame: pulses of raised cosine shape in any direction."""
    velocity = np.zeros((2, len(times)))
    centre = times[0] + generator.uniform(0, bursts.gap[1])
    while centre < times[-1]:
        shift, length, angle = (
            generator.uniform(*bursts.shift),
            generator.uniform(*bursts.length),
            generator.uniform(0, 6.28),
        )
        phase = (times - centre) / length
        pulse = np.where(np.abs(phase) < 0.5, 1 + np.cos(2 * np.pi * phase), 0.0) * shift / length
        velocity += np.array([[np.cos(angle)], [np.sin(angle)]]) * pulse
        centre += generator.uniform(*bursts.gap)
    return velocity


@dataclass(frozen=True)
class Tremor:
    """How a hand shakes.

    Attributes:
        band: lowest and highest frequency in cycles per frame.
        roll: shift at the frame's edge that roll adds, as a share of the speed.
        zoom: the same for the zoom (the camera moving back and forth).
        gap: range of the distance between calm moments, in frames.
        calm: range of the half-width of calm moments, in frames.
        floor: share of the speed that remains in calm moments.
    """

    band: tuple[float, float]
    roll: float
    zoom: float
    gap: tuple[float, float]
    calm: tuple[float, float]
    floor: float = 0.02


def handheld_trajectory(
    generator: np.random.Generator,
    frames: int,
    speed: float,
    width: int,
    tremor: Tremor,
    focal: float = 1.2,
    jumps: Array | None = None,
) -> Trajectory:
    """Draw the motion of one clip.

    Args:
        generator: source of randomness.
        frames: length of the clip.
        speed: root mean square of the shift per frame outside calm moments, in pixels.
        width: larger side of the frame in pixels; sets focal length and the lever of roll and zoom.
        tremor: how the hand shakes.
        focal: focal length in widths.
        jumps: (2, K) velocity added to the shift, in pixels per frame, at :func:`sample_times`.
    """
    times = sample_times(frames)
    velocity = band_limited_noise(generator, 4, len(times), *tremor.band)
    envelope = calm_envelope(generator, times, tremor.gap, tremor.calm, tremor.floor)
    mood = band_limited_noise(generator, 1, len(times), 0.01, 0.06)[0]
    pace = speed * envelope * np.exp(0.35 * mood - 0.06)
    lever = width / 2
    velocity *= np.array([0.707, 0.707, tremor.roll / lever, tremor.zoom / lever])[:, None] * pace
    if jumps is not None:
        velocity[:2] += jumps
    pose = np.zeros_like(velocity)
    for k in range(1, len(times)):
        # The hand pulls back to where it was aiming; not in calm moments, which would be calm no more.
        pull = 0.03 * envelope[k] / SAMPLES_PER_FRAME
        pose[:, k] = pose[:, k - 1] * (1 - pull) + velocity[:, k] / SAMPLES_PER_FRAME
    return Trajectory(times, pose - pose.mean(1, keepdims=True), focal=focal * width)
