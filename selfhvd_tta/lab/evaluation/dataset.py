"""Writing simulated data sets like GoProShake, with known sharp frames, in BSD's layout."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from selfhvd_tta.errors import DiskError, InputError, UsageError
from selfhvd_tta.events import Listener, Progress, ignore
from selfhvd_tta.lab.datasets.labels import LABELS
from selfhvd_tta.lab.datasets.photos import list_photos, read_photo
from selfhvd_tta.lab.simulation.scenarios import SCENARIOS, Compose
from selfhvd_tta.lab.simulation.simulate import ShakeSettings, SimulatedClip, draw_scene, film

Image = NDArray[np.uint8]


def write_dataset(
    photos: Path | Sequence[Path],
    root: Path,
    settings: ShakeSettings,
    clips: int | None = None,
    seed: int = 0,
    listen: Listener = ignore,
    compose: Compose = draw_scene,
) -> list[Path]:
    """Shake a camera at photographs and save the clips for ``bench --protocol bsd``.

    Clip i shows photograph i (in turn, by name) under seed ``seed + i``. Its folder ``ROOT/test/NNN`` gets
    ``Blur/RGB/%08d.png``, ``Sharp/RGB/%08d.png`` and ``labels.json``: ``sharp`` (one boolean per frame: the camera
    moved by less than a pixel during the exposure), ``extent`` (how far the blur reaches, in pixels), photograph, seed.
    PNG is lossless; what a codec does to the frames is part of ``settings``.

    Args:
        photos: a folder of photographs, or their paths.
        root: where the data set goes; clips that are there already are an error.
        settings: kind of clip.
        clips: how many; None: one per photograph.
        seed: of the first clip.
        listen: gets progress.
        compose: draws the scene and the motion.

    Returns:
        Folders of the clips.

    Raises:
        InputError: there is no photograph, or one cannot be read.
        UsageError: a clip's folder exists, or the number of clips is not positive.
        DiskError: a file cannot be written.
    """
    try:
        paths = list_photos((photos,)) if isinstance(photos, Path) else list(photos)
    except (OSError, ValueError) as error:
        raise InputError(str(error), "Give a folder of photographs.") from error
    if not paths:
        raise InputError("no photographs were given", "Give a folder of photographs.")
    count = len(paths) if clips is None else clips
    if count < 1:
        raise UsageError(f"--clips is {count}, but it must be at least 1")
    folders = [root / "test" / f"{i:03d}" for i in range(count)]
    _require_new(folders)
    for i, folder in enumerate(folders):
        path = paths[i % len(paths)]
        try:
            photo = read_photo(path)
        except (OSError, ValueError) as error:
            raise InputError(str(error), "Remove that file.") from error
        scene = compose(photo, settings, seed + i, "cpu")
        write_clip(film(scene, settings, seed + i), folder, path.name, seed + i)
        listen(Progress("simulate", i + 1, count, "clips"))
    return folders


def write_regression_set(
    root: Path,
    width: int | None = None,
    height: int | None = None,
    frames: int | None = None,
    names: Collection[str] = (),
    listen: Listener = ignore,
) -> list[Path]:
    """The project's small benchmark: ten simulated clips of 384x256 and 48 frames, from free photographs, with fixed
    seeds (see :mod:`selfhvd_tta.lab.simulation.scenarios`).

    Args:
        root: where the data set goes, in BSD's layout.
        width: of the clips; None: 384. Another size is another benchmark.
        height: None: 256.
        frames: None: 48.
        names: only these scenarios; all if empty.
        listen: gets progress.

    Raises:
        ModuleNotFoundError: scikit-image, which brings the photographs, is not installed.
        UsageError: there is no such scenario, or a clip's folder exists.
        DiskError: a file cannot be written.
    """
    known = [scenario.name for scenario in SCENARIOS]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UsageError(f"unknown scenario '{unknown[0]}'", f"Known are: {', '.join(known)}.")
    chosen = [s.resized(width, height, frames) for s in SCENARIOS if not names or s.name in names]
    folders = [root / "test" / scenario.name for scenario in chosen]
    _require_new(folders)
    for i, (scenario, folder) in enumerate(zip(chosen, folders, strict=True)):
        write_clip(scenario.simulate(), folder, scenario.photo, scenario.seed)
        listen(Progress("simulate", i + 1, len(chosen), "clips"))
    return folders


def write_clip(clip: SimulatedClip, folder: Path, photo: str, seed: int) -> None:
    """Save one clip and its labels; the folder appears when it is complete.

    Raises:
        DiskError: a file cannot be written.
    """
    labels = {
        "sharp": clip.is_sharp.tolist(),
        "extent": [round(float(e), 4) for e in clip.extent],
        "photo": photo,
        "seed": seed,
        "settings": asdict(clip.settings),
    }
    write_pairs(clip.blurry, clip.sharp, labels, folder)


def write_pairs(blurry: Image, sharp: Image, labels: dict[str, Any], folder: Path) -> None:
    """Save blurry and sharp frames (T, H, W, 3) as PNG, and their labels; the folder appears when it is complete.

    Raises:
        DiskError: a file cannot be written.
    """
    part = folder.with_name(f".{folder.name}.part")
    try:
        for side, frames in (("Blur", blurry), ("Sharp", sharp)):
            (part / side / "RGB").mkdir(parents=True, exist_ok=True)
            for i, frame in enumerate(frames):
                _write_png(part / side / "RGB" / f"{i:08d}.png", frame)
        (part / LABELS).write_text(json.dumps(labels, indent=1) + "\n", encoding="utf-8")
        part.replace(folder)
    except OSError as error:
        raise DiskError(f"{folder}: {error.strerror or error}", "Choose another folder.") from error


def _require_new(folders: list[Path]) -> None:
    there = [folder for folder in folders if folder.exists()]
    if there:
        raise UsageError(f"{there[0]}: exists", "Choose another folder, or remove it first.")


def _write_png(path: Path, frame: Image) -> None:
    done, data = cv2.imencode(".png", np.ascontiguousarray(frame[..., ::-1]))
    if not done:
        raise OSError(f"{path} could not be encoded as PNG")
    path.write_bytes(data.tobytes())
