"""Frames or videos that another program wrote for the videos of a data set (``bench --outputs``).

Such programs leave frames out at the ends, number from 0 or 1, or change the frame rate, so outputs are aligned in time
with the input before they are scored.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from selfhvd_tta.errors import InputError, UsageError
from selfhvd_tta.lab.datasets.frames import (
    VIDEO_SUFFIXES,
    FileFrames,
    Frames,
    PictureFrames,
    list_pictures,
    number,
    open_frames,
)
from selfhvd_tta.wording import plural

Image = NDArray[np.uint8]
Thumbnails = NDArray[np.float32]
THUMBNAIL = (96, 54)  # width, height; small enough for blur not to count, large enough for a shift of a frame
EQUAL = 0.1  # share by which mean differences may differ and count as equal
LEAST_OVERLAP = 0.5  # share of the shorter video that has to find a counterpart


@dataclass(frozen=True)
class Placement:
    """Which frame of the input each output belongs to.

    Attributes:
        pairs: number of the output frame and number of the input frame, ascending in both.
        told: how they were found, one line; empty where both have the same number of frames.
    """

    pairs: tuple[tuple[int, int], ...]
    told: str = ""


@dataclass(frozen=True)
class Outputs:
    """What another program made of a data set.

    Attributes:
        name: of the row in the table.
        folder: has a folder of pictures or a video file per video of the data set, by its name; for a data set of one
            video also that folder or file itself.
    """

    name: str
    folder: Path

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w.+-]+", self.name):
            raise UsageError(f"--outputs: '{self.name}' cannot name a row", "Use letters, digits and . _ + -")
        if not self.folder.exists():
            raise InputError(f"{self.folder}: no such folder", f"It should hold what {self.name} wrote.")

    @classmethod
    def parse(cls, text: str) -> Outputs:
        """``NAME=FOLDER``.

        Raises:
            UsageError: it has no name.
            InputError: there is no such folder.
        """
        name, equals, folder = text.partition("=")
        if not equals or not folder:
            raise UsageError(f"--outputs {text}: has no name", "Give it as NAME=FOLDER.")
        return cls(name, Path(folder))

    def of(self, video: str, alone: bool) -> Frames:
        """Frames of one video.

        Args:
            video: its name in the data set.
            alone: it is the only one of the data set.

        Raises:
            InputError: there are none.
        """
        inside = [self.folder / video, self.folder / Path(video).with_suffix("")]
        stems = [self.folder / f"{base}{suffix}" for base in inside for suffix in sorted(VIDEO_SUFFIXES)]
        for path in (*inside, *stems, *([self.folder] if alone else [])):
            if path.is_file() or (path.is_dir() and list_pictures(path)):
                return open_frames(path)
        raise InputError(
            f"{self.folder}: {self.name} has nothing for {video}", f"Put pictures into {inside[0]}, or a video next to."
        )


def place(outputs: Frames, observed: Frames) -> Placement:
    """Align outputs with the input in time.

    With the same number of frames, frame by frame. Otherwise by the numbers of the pictures, by the times of the
    videos, or by one offset for the whole video: whatever leaves the smallest mean difference between thumbnails.

    Raises:
        InputError: the outputs have another size than the input, or fewer than half of them have a counterpart.
    """
    if outputs.canvas != observed.canvas:
        ours, theirs = (f"{width}x{height}" for height, width in (observed.canvas, outputs.canvas))
        raise InputError(f"{outputs.name}: is {theirs}, the input {ours}", "Scale it back to the size of the input.")
    if len(outputs) == len(observed):
        return Placement(tuple((i, i) for i in range(len(outputs))))
    least = LEAST_OVERLAP * min(len(outputs), len(observed))
    offsets = range(-len(outputs) + 1, len(observed))
    found = [("the numbers of its pictures", _by_number(outputs, observed)), ("time", _by_time(outputs, observed))]
    found += [(f"an offset of {plural(o, 'frame')}", _by_offset(o, len(outputs), len(observed))) for o in offsets]
    a, b = _thumbnails(outputs), _thumbnails(observed)
    costs = [(_difference(a, b, pairs), how, pairs) for how, pairs in found if len(pairs) >= max(least, 1)]
    limit = (1 + EQUAL) * min(cost for cost, _, _ in costs)
    # Of what fits equally well the longest: a few frames that happen to be alike are not a place in time.
    cost, how, pairs = max((one for one in costs if one[0] <= limit), key=lambda one: len(one[2]))
    told = f"{len(outputs)} frames for {len(observed)}: aligned by {how} (mean difference {cost:.2f} code values)"
    missing = len(observed) - len(pairs)
    if missing:
        told += f"; {plural(missing, 'frame')} of the input not covered, left out of its row"
    return Placement(pairs, told)


def placed(outputs: Frames, placement: Placement) -> Iterator[tuple[int, Image]]:
    """Number of the input frame and output, (H, W, 3) uint8, for every output with a counterpart."""
    frames = outputs.read([mine for mine, _ in placement.pairs])
    yield from zip((theirs for _, theirs in placement.pairs), frames, strict=True)


Pairs = tuple[tuple[int, int], ...]


def _by_number(outputs: Frames, observed: Frames) -> Pairs:
    if not isinstance(outputs, PictureFrames) or not isinstance(observed, PictureFrames):
        return ()
    places = {number(path): i for i, path in enumerate(observed.paths)}
    numbers = [number(path) for path in outputs.paths]
    if None in numbers or len(set(numbers)) < len(numbers):
        return ()
    return tuple((k, places[n]) for k, n in enumerate(numbers) if n in places)


def _by_time(outputs: Frames, observed: Frames) -> Pairs:
    """For every input frame the output nearest in time, if nearer than half a frame of the slower video."""
    if not isinstance(outputs, FileFrames) or not isinstance(observed, FileFrames):
        return ()
    mine, theirs = _seconds(outputs), _seconds(observed)
    if min(len(mine), len(theirs)) < 2:
        return ()
    near = max(float(np.median(np.diff(times))) for times in (mine, theirs)) / 2
    found: dict[int, int] = {}
    for i, time in enumerate(theirs):
        k = int(np.abs(mine - time).argmin())
        if abs(mine[k] - time) < near and k not in found:
            found[k] = i
    return tuple(sorted(found.items()))


def _seconds(frames: FileFrames) -> NDArray[np.float64]:
    times = np.asarray(frames.reader.pts, np.float64) * float(frames.reader.info.time_base)
    return np.asarray(times - times[0])


def _by_offset(offset: int, outputs: int, observed: int) -> Pairs:
    return tuple((k, k + offset) for k in range(outputs) if 0 <= k + offset < observed)


def _thumbnails(frames: Frames) -> Thumbnails:
    """(N, 54, 96) luma."""
    small = [
        cv2.resize(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), THUMBNAIL, interpolation=cv2.INTER_AREA)
        for frame in frames.on_canvas(range(len(frames)))
    ]
    return np.asarray(small, np.float32)


def _difference(a: Thumbnails, b: Thumbnails, pairs: Pairs) -> float:
    mine, theirs = zip(*pairs, strict=True)
    return float(np.abs(a[list(mine)] - b[list(theirs)]).mean())
