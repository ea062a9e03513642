"""Frames of a benchmark's video, from a folder of pictures or from a file, always 8-bit RGB."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from selfhvd_tta.errors import InputError
from selfhvd_tta.lab.datasets.photos import SUFFIXES, read_photo
from selfhvd_tta.video.reader import VideoReader

Image = NDArray[np.uint8]
VIDEO_SUFFIXES = {".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v"}
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


class Frames(ABC):
    """A video that can be read several times. Nothing is read before it is asked for."""

    name: str

    @abstractmethod
    def __len__(self) -> int:
        """Number of frames."""

    @property
    @abstractmethod
    def sizes(self) -> list[tuple[int, int]]:
        """(height, width) of every frame."""

    @abstractmethod
    def read(self, indices: Sequence[int]) -> Iterator[Image]:
        """Some frames, (H, W, 3) uint8 RGB, in ascending order."""

    def __iter__(self) -> Iterator[Image]:
        return self.read(range(len(self)))

    @property
    def canvas(self) -> tuple[int, int]:
        """(height, width) that holds every frame; they differ in RealBlur only."""
        sizes = self.sizes
        return max(h for h, _ in sizes), max(w for _, w in sizes)

    def on_canvas(self, indices: Sequence[int]) -> Iterator[Image]:
        """Some frames, those smaller than the canvas extended at the right and at the bottom by their last pixels."""
        height, width = self.canvas
        for frame in self.read(indices):
            below, right = height - frame.shape[0], width - frame.shape[1]
            if below or right:
                frame = np.asarray(cv2.copyMakeBorder(frame, 0, below, 0, right, cv2.BORDER_REPLICATE), np.uint8)
            yield frame


def number(path: Path) -> int | None:
    """The last number in a file's name: ``blur_12.png`` and ``00000012.png`` are 12."""
    found = re.findall(r"\d+", path.stem)
    return int(found[-1]) if found else None


def natural_key(path: Path) -> list[tuple[int, int, str]]:
    """Sorting key under which ``9.png`` comes before ``10.png``."""
    return [(0, int(p), "") if p.isdigit() else (1, 0, p) for p in re.split(r"(\d+)", path.name) if p]


def list_pictures(folder: Path) -> list[Path]:
    """All pictures directly within a folder, by name, numbers counted as numbers; may be empty."""
    return sorted((p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES), key=natural_key)


class PictureFrames(Frames):
    """A video as numbered pictures.

    Args:
        paths: one per frame.
        name: of the folder, for messages.
    """

    def __init__(self, paths: Sequence[Path], name: str) -> None:
        self.paths = list(paths)
        self.name = name

    def __len__(self) -> int:
        return len(self.paths)

    @cached_property
    def sizes(self) -> list[tuple[int, int]]:
        return [picture_size(path) for path in self.paths]

    def read(self, indices: Sequence[int]) -> Iterator[Image]:
        for index in indices:
            yield _read(self.paths[index])


class FileFrames(Frames):
    """A video file. 10-bit video is rounded to 8 bits."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = str(path)

    @cached_property
    def reader(self) -> VideoReader:
        return VideoReader(self.path)

    def __len__(self) -> int:
        return len(self.reader.pts)

    @cached_property
    def sizes(self) -> list[tuple[int, int]]:
        return [(self.reader.info.height, self.reader.info.width)] * len(self)

    def read(self, indices: Sequence[int]) -> Iterator[Image]:
        every = len(indices) == len(self)
        for frame in self.reader if every else self.reader.read(indices):
            if frame.rgb.dtype == np.uint8:
                yield frame.rgb.astype(np.uint8, copy=False)
            else:
                yield ((frame.rgb.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)


def picture_size(path: Path) -> tuple[int, int]:
    """(height, width) of a picture; of a PNG from its header alone.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            head = file.read(24)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}", "Check the data set.") from error
    if head[:8] == PNG_SIGNATURE and head[12:16] == b"IHDR":
        return int.from_bytes(head[20:24], "big"), int.from_bytes(head[16:20], "big")
    height, width, _ = _read(path).shape
    return height, width


def _read(path: Path) -> Image:
    try:
        return read_photo(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: is not a picture that can be read ({error})", "Check the data set.") from error


def open_frames(path: Path) -> Frames:
    """Frames of a folder of pictures or of a video file.

    Raises:
        InputError: it is neither.
    """
    if path.is_dir():
        pictures = list_pictures(path)
        if pictures:
            return PictureFrames(pictures, str(path))
    elif path.suffix.lower() in VIDEO_SUFFIXES and path.is_file():
        return FileFrames(path)
    raise InputError(f"{path}: neither a folder of pictures nor a video file", "The layouts: docs/lab/quality.md.")


def match(blurry: Frames, sharp: Frames) -> None:
    """Make sure that each blurry picture has its ground truth, by the numbers in their names.

    Video files carry no names: for them the number of frames is compared when they are scored.

    Raises:
        InputError: a frame has no counterpart.
    """
    if not (isinstance(blurry, PictureFrames) and isinstance(sharp, PictureFrames)):
        return
    ours: Sequence[int | None]
    theirs: Sequence[int | None]
    ours, theirs = ([number(p) for p in frames.paths] for frames in (blurry, sharp))
    if None in ours or None in theirs:
        ours, theirs = (list(range(len(frames.paths))) for frames in (blurry, sharp))
    if ours != theirs:
        odd = sorted({*ours} ^ {*theirs}, key=str)[:3]
        raise InputError(
            f"{blurry.name}: its frames do not match those of {sharp.name} (number {', '.join(map(str, odd))}…)",
            "Every blurry frame needs the sharp one of the same number.",
        )
