"""How a hand moves a phone in space: rotation and translation, drawn at random or read from a log of its sensors."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from selfhvd_tta.errors import InputError
from selfhvd_tta.lab.simulation.camera import Array, band_limited_noise, calm_envelope, sample_times

COLUMNS = ("t", "gx", "gy", "gz", "ax", "ay", "az")
# A hand comes back to where it was: below this frequency the acceleration's double integral is drift of the sensor.
DRIFT = 0.5  # Hz


@dataclass(frozen=True)
class HandMotion:
    """Pose of the phone over time.

    Attributes:
        times: (K,) in frames, evenly spaced.
        angles: (3, K) yaw (right), pitch (down) and roll in radians.
        position: (3, K) right, down and forward in metres.
        fps: frames per second.
    """

    times: Array
    angles: Array
    position: Array
    fps: float

    @property
    def interval(self) -> float:
        """Seconds between two samples."""
        return float(self.times[1] - self.times[0]) / self.fps


@dataclass(frozen=True)
class Hand:
    """How somebody holds a phone; a range is drawn from once per clip.

    Attributes:
        fps: frames per second.
        sway: root mean square of the slow rotation of yaw and pitch, degrees per second.
        sway_band: its frequencies in Hz.
        tremor: the same of the fast rotation that hands cannot avoid.
        tremor_band: its frequencies in Hz.
        roll: rotation about the viewing direction, as a share of the others.
        travel: root mean square of the translation, metres per second.
        gap: distance between two calm moments, frames.
        calm: half-width of a calm moment, frames.
        floor: share of the motion that remains in a calm moment.
    """

    fps: float = 30.0
    sway: tuple[float, float] = (10.0, 50.0)
    sway_band: tuple[float, float] = (0.5, 3.0)
    tremor: tuple[float, float] = (1.0, 4.0)
    tremor_band: tuple[float, float] = (5.0, 10.0)
    roll: float = 0.4
    travel: tuple[float, float] = (0.03, 0.15)
    gap: tuple[float, float] = (6.0, 16.0)
    calm: tuple[float, float] = (1.0, 3.0)
    floor: float = 0.1


def draw_motion(generator: np.random.Generator, frames: int, hand: Hand) -> HandMotion:
    """Draw the motion of one clip."""
    times = sample_times(frames)
    step = float(times[1] - times[0]) / hand.fps
    envelope = calm_envelope(generator, times, hand.gap, hand.calm, hand.floor)
    slow = band_limited_noise(generator, 6, len(times), *(f / hand.fps for f in hand.sway_band))
    fast = band_limited_noise(generator, 3, len(times), *(f / hand.fps for f in hand.tremor_band))
    rate = generator.uniform(*hand.sway) * slow[:3] * envelope + generator.uniform(*hand.tremor) * fast
    rate *= np.array([[0.707], [0.707], [0.707 * hand.roll]])
    angles = np.cumsum(np.deg2rad(rate), 1) * step
    position = np.cumsum(generator.uniform(*hand.travel) / np.sqrt(3) * slow[3:] * envelope, 1) * step
    return HandMotion(times, _centred(angles), _centred(position), hand.fps)


def read_motion(path: Path, frames: int, fps: float) -> HandMotion:
    """The motion that a phone's gyroscope and accelerometer recorded.

    Args:
        path: CSV with the columns ``t`` (seconds), ``gx``, ``gy``, ``gz`` (rad/s about the axes right, down and
            forward) and ``ax``, ``ay``, ``az`` (m/s^2 along them, gravity included). Other columns are ignored.
        frames: of the clip; the log's beginning is used.
        fps: of the clip.

    Raises:
        InputError: it cannot be read, a column is missing, or it is shorter than the clip.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file, skipinitialspace=True))
        table = np.array([[float(row[name]) for name in COLUMNS] for row in rows])
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise InputError(
            f"{path}: cannot be read as a motion log ({error})", f"Columns: {', '.join(COLUMNS)}."
        ) from error
    if len(table) < 2 or np.any(np.diff(table[:, 0]) <= 0):
        raise InputError(f"{path}: its times do not increase", "Sort the rows by t, in seconds.")
    times = sample_times(frames)
    seconds = table[0, 0] + (times - times[0]) / fps
    if seconds[-1] > table[-1, 0]:
        length = table[-1, 0] - table[0, 0]
        raise InputError(
            f"{path}: lasts {length:.2f} s, the clip {seconds[-1] - seconds[0]:.2f} s", "Give a longer log."
        )
    values = np.stack([np.interp(seconds, table[:, 0], column) for column in table.T[1:]])
    step = float(times[1] - times[0]) / fps
    x, y, roll = np.cumsum(values[:3], 1) * step
    # Turning about the axis that points down looks right; about the one that points right, up.
    angles = np.stack([y, -x, roll])
    speed = _without_drift(np.cumsum(_without_drift(values[3:], step), 1) * step, step)
    return HandMotion(times, _centred(angles), _centred(np.cumsum(speed, 1) * step), fps)


def _without_drift(values: Array, step: float) -> Array:
    """(C, K) without what is slower than ``DRIFT``, gravity for one: less its own Gaussian mean."""
    sigma = 1 / (2 * np.pi * DRIFT * step)
    reach = np.arange(-int(3 * sigma), int(3 * sigma) + 1)
    kernel = np.exp(-0.5 * (reach / sigma) ** 2)
    count = values.shape[1]
    place = slice(len(reach) // 2, len(reach) // 2 + count)
    total = np.convolve(np.ones(count), kernel)[place]
    return np.stack([axis - np.convolve(axis, kernel)[place] / total for axis in values])


def _centred(path: Array) -> Array:
    return np.asarray(path - path.mean(1, keepdims=True))
