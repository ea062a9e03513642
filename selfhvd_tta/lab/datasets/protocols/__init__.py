"""Data sets that a benchmark runs over: one plug-in file each, described by a :class:`Protocol`.

A plug-in finds pairs of blurry and sharp videos below a folder; everything else is common to all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from selfhvd_tta.errors import InputError
from selfhvd_tta.lab.datasets.frames import Frames, list_pictures, match, natural_key, open_frames
from selfhvd_tta.plugins import discover_plugins

Tell = Callable[[str], None]
Windows = list[tuple[int, ...]]
WINDOW = 5  # frames that DADeblur's code restores one output from

__all__ = ["Pair", "Protocol", "Tell", "discover", "list_pictures", "natural_key", "pair_up", "subfolders"]


@dataclass(frozen=True)
class Pair:
    """One video of a data set.

    Attributes:
        name: unique within the data set, parts separated by ``/``.
        blurry: what the method sees.
        sharp: ground truth; None where the data set has none. It is opened after the method has ended.
        problem: why it cannot be run, one line; the benchmark reports it and continues.
        labels: which frames are sharp, where the data set says so; only scores are split by them.
    """

    name: str
    blurry: Frames | None
    sharp: Frames | None
    problem: str = ""
    labels: tuple[bool, ...] | None = None


def centred_windows(frames: Frames) -> Windows:
    """For every frame the ``WINDOW`` frames around it; at the ends of the video, which are not scored, the last ones.

    Raises:
        InputError: the video is shorter.
    """
    count = len(frames)
    if count < WINDOW:
        raise InputError(f"{frames.name}: has {count} frames", f"--as-dadeblur needs at least {WINDOW}.")
    starts = [min(max(i - WINDOW // 2, 0), count - WINDOW) for i in range(count)]
    return [tuple(range(start, start + WINDOW)) for start in starts]


@dataclass(frozen=True)
class Protocol:
    """Descriptor of a data set.

    Attributes:
        id: what ``bench --protocol`` takes.
        summary: one line.
        paper: citation, one line.
        layout: folders that are understood, one line each.
        find: ``find(root, tell)`` gives the videos, in order, and tells what the user should know. It reads no picture.
        skip: frames that published figures leave out at the beginning and at the end.
        windows: for every frame of a video, the frames whose middle one DADeblur's code compares with its truth.
    """

    id: str
    summary: str
    paper: str
    layout: tuple[str, ...]
    find: Callable[[Path, Tell], list[Pair]]
    skip: tuple[int, int] = (0, 0)
    windows: Callable[[Frames], Windows] = centred_windows


@cache
def discover() -> dict[str, Protocol]:
    """All protocols by id: the modules of this package and the entry points ``selfhvd_tta.protocols``."""
    return discover_plugins(__name__, "PROTOCOL", Protocol, "selfhvd_tta.protocols")


def subfolders(folder: Path) -> list[Path]:
    """Folders directly within one, by name, numbers counted as numbers."""
    return sorted((p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")), key=natural_key)


def pair_up(name: str, blurry: Path, sharp: Path | None) -> Pair:
    """Pair two folders of pictures or video files; a missing ground truth or a mismatch becomes a problem."""
    try:
        ours = open_frames(blurry)
        truth = None
        if sharp is not None:
            truth = open_frames(sharp)
            match(ours, truth)
    except InputError as error:
        return Pair(name, None, None, error.message)
    return Pair(name, ours, truth)
