"""Any pair of folders or videos; GoPro's and DVD's layouts among them."""

from __future__ import annotations

from pathlib import Path

from selfhvd_tta.lab.datasets.protocols import Pair, Protocol, Tell, list_pictures, natural_key, pair_up, subfolders

BLURRY = ("blur", "Blur", "blurry", "input", "lq")
SHARP = ("sharp", "Sharp", "gt", "GT", "target")


def find(root: Path, tell: Tell) -> list[Pair]:
    """One pair, many videos below two folders, or many folders with a pair each."""
    blurry, sharp = _sides(root)
    if blurry is not None:
        if list_pictures(blurry):
            return [pair_up(root.resolve().name, blurry, sharp)]
        return [_counterpart(video, sharp) for video in sorted(blurry.iterdir(), key=natural_key) if _is_video(video)]
    found = []
    for video in subfolders(root):
        blurry, sharp = _sides(video)
        if blurry is not None:
            found.append(pair_up(video.name, blurry, sharp))
    return found


def _sides(folder: Path) -> tuple[Path | None, Path | None]:
    blurry, sharp = (next((folder / n for n in names if (folder / n).is_dir()), None) for names in (BLURRY, SHARP))
    return blurry, sharp


def _is_video(path: Path) -> bool:
    return not path.name.startswith(".")


def _counterpart(blurry: Path, sharp: Path | None) -> Pair:
    """The ground truth has the same name, whatever its suffix."""
    if sharp is None:
        return pair_up(blurry.name, blurry, None)
    same = [p for p in sharp.iterdir() if p.stem == blurry.stem]
    return pair_up(blurry.name, blurry, same[0] if len(same) == 1 else sharp / blurry.name)


PROTOCOL = Protocol(
    id="folder",
    summary="any pair of folders or videos (GoPro's layout, DVD's, your own)",
    paper="",
    layout=(
        "ROOT/{blur,sharp}/N.png (one video)",
        "ROOT/{blur,sharp}/VIDEO/N.png or ROOT/{blur,sharp}/VIDEO.mp4",
        "ROOT/VIDEO/{blur,sharp}/N.png; input, gt and target are other names; without ground truth leave it out",
    ),
    find=find,
)
