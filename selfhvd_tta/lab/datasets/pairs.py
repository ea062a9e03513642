"""Data sets of blurry and sharp videos, found by their folders' layout: GoPro, BSD, REDS, or one's own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from selfhvd_tta.errors import UsageError
from selfhvd_tta.lab.datasets.frames import Frames, natural_key
from selfhvd_tta.lab.datasets.protocols import list_pictures, pair_up, subfolders
from selfhvd_tta.lab.datasets.protocols.folder import BLURRY, SHARP

FramePair = tuple[Frames, Frames]
HELD_OUT_FOLDERS = ("val", "valid", "validation", "test")


@dataclass(frozen=True)
class PairLayout:
    """A data set.

    Attributes:
        name: of the layout.
        training: blurry and sharp frames of each video, in order.
        held_out: the same for validation: those of a ``val`` or ``test`` folder, else every ninth.
    """

    name: str
    training: tuple[FramePair, ...]
    held_out: tuple[FramePair, ...]


def find_pairs(root: Path, *, gamma_blur: bool = False) -> PairLayout | None:
    """Look for a data set in a folder.

    Args:
        root: the folder.
        gamma_blur: take GoPro's ``blur_gamma`` pictures instead of ``blur``.

    Returns:
        What was found, or None.

    Raises:
        UsageError: there are pairs, but the frames of one do not belong together, or ``blur_gamma`` is missing.
    """
    for name, finder in (("REDS", _reds), ("BSD", _bsd), ("GoPro", _gopro), ("pairs", _sides)):
        training = list(finder(root, "train", gamma_blur))
        if not training:
            continue
        held = [pair for part in HELD_OUT_FOLDERS for pair in finder(root, part, gamma_blur)]
        if not held:
            held = training[::9]
            training = [pair for pair in training if pair not in held] or held
        return PairLayout(name, _open(training), _open(held))
    return None


Folders = tuple[Path, Path]


def _reds(root: Path, part: str, gamma_blur: bool) -> Iterator[Folders]:
    for base in (root / part, root):
        blurry, sharp = base / f"{part}_blur", base / f"{part}_sharp"
        if blurry.is_dir() and sharp.is_dir():
            yield from ((video, sharp / video.name) for video in subfolders(blurry))
            return


def _bsd(root: Path, part: str, gamma_blur: bool) -> Iterator[Folders]:
    patterns = [f"{part}/*/Blur/RGB", f"*/{part}/*/Blur/RGB"]
    for pattern in patterns if part != "train" else [*patterns, "*/Blur/RGB"]:
        videos = sorted((p.parents[1] for p in root.glob(pattern)), key=_by_parts)
        if videos:
            yield from ((video / "Blur" / "RGB", video / "Sharp" / "RGB") for video in videos)
            return


def _gopro(root: Path, part: str, gamma_blur: bool) -> Iterator[Folders]:
    names = ("blur_gamma",) if gamma_blur else BLURRY
    for base in (root / part, root) if part == "train" else (root / part,):
        if not base.is_dir():
            continue
        videos = [video for video in subfolders(base) if _has_pictures(_side(video, SHARP)) and _blurry_sides(video)]
        for video in videos:
            blurry, sharp = _side(video, names), _side(video, SHARP)
            if blurry is None or sharp is None:
                raise UsageError(f"{video}: has no folder {names[0]}", "Leave out --gamma-blur, or the folder.")
            yield blurry, sharp
        if videos:
            return


def _sides(root: Path, part: str, gamma_blur: bool) -> Iterator[Folders]:
    for base in (root / part, root) if part == "train" else (root / part,):
        if not base.is_dir():
            continue
        blurry, sharp = _side(base, BLURRY), _side(base, SHARP)
        if blurry is None or sharp is None:
            continue
        if list_pictures(blurry):
            yield blurry, sharp
        else:
            yield from ((video, sharp / video.name) for video in subfolders(blurry))
        return


def _side(folder: Path, names: tuple[str, ...]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_dir()), None)


def _has_pictures(folder: Path | None) -> bool:
    return folder is not None and bool(list_pictures(folder))


def _blurry_sides(video: Path) -> bool:
    return _has_pictures(_side(video, (*BLURRY, "blur_gamma")))


def _by_parts(path: Path) -> list[list[tuple[int, int, str]]]:
    return [natural_key(Path(part)) for part in path.parts]


def _open(folders: list[Folders]) -> tuple[FramePair, ...]:
    pairs = []
    for blurry, sharp in folders:
        pair = pair_up(blurry.name, blurry, sharp)
        if pair.blurry is None or pair.sharp is None:
            raise UsageError(pair.problem, "Every blurry frame needs the sharp one of the same number.")
        pairs.append((pair.blurry, pair.sharp))
    return tuple(pairs)
