"""Photographs to shake a camera at: a folder of them, and the free ones that scikit-image brings along."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}
# Public domain or CC0, inside the scikit-image wheel (its ``data`` folder), one for each preset of the simulator.
BUNDLED = {"camera": "coffee.png", "texture": "grass.png", "object": "astronaut.png"}
# Photographs of the developers' set that no training ever sees. Of other sets every ninth is held out.
HELD_OUT = (
    "budgie_casa-mila.jpg",
    "budgie_tea-gardens.jpg",
    "drewnoakes_HTC_One.jpg",
    "drewnoakes_Nikon_D40.jpg",
    "elementary_Morskie_Oko.jpg",
    "lomiri_life_by_Aitzol_Berasategi.jpg",
    "plasma_Path.jpg",
    "pop-os_samuel-zeller-337041.jpg",
)


def read_photo(path: Path) -> Image:
    """(H, W, 3) uint8 RGB.

    Raises:
        OSError: there is no such file.
        ValueError: the file is not an image that OpenCV reads.
    """
    # Bytes first: OpenCV prints a warning of its own for files it cannot open, and fails on some names.
    picture = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    if picture is None:
        raise ValueError(f"{path} is not a readable image")
    return np.ascontiguousarray(picture[..., ::-1])


def list_photos(folders: tuple[Path, ...]) -> list[Path]:
    """All images directly within these folders, by name.

    Raises:
        ValueError: there is none.
    """
    found = sorted(p for folder in folders for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)
    if not found:
        raise ValueError(f"no photographs ({', '.join(sorted(SUFFIXES))}) in {', '.join(map(str, folders))}")
    return found


def split_photos(photos: list[Path]) -> tuple[list[Path], list[Path]]:
    """Training and held-out photographs."""
    held = [path for path in photos if path.name in HELD_OUT] or photos[::9]
    return [path for path in photos if path not in held] or held, held


def bundled_photo(name: str) -> Image:
    """A free photograph out of the scikit-image package, offline: ``camera``, ``texture`` or ``object``, for the
    preset of that name, or a file name such as ``chelsea.png``.

    Raises:
        ModuleNotFoundError: scikit-image is not installed (it is a test requirement).
        OSError: this version does not bring the file along.
    """
    spec = importlib.util.find_spec("skimage")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("scikit-image is needed for its photographs: pip install scikit-image")
    return read_photo(Path(spec.origin).parent / "data" / BUNDLED.get(name, name))
