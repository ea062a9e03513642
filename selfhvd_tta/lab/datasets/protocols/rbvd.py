"""RBVD, the real-world blurry video data set of RNN-MBP.

Its authors' code reads LMDB files only, and how the pictures of the download are laid out is written down nowhere that
we know of. DADeblur says that it brought all its data sets into BSD's layout. So two layouts of pictures are taken;
LMDB has to be unpacked first.
"""

from __future__ import annotations

from pathlib import Path

from selfhvd_tta.errors import InputError
from selfhvd_tta.lab.datasets.protocols import Pair, Protocol, Tell, pair_up, subfolders

BLURRY = ("Blur/RGB", "Blur", "blur", "Blurry", "blurry", "input")
SHARP = ("Sharp/RGB", "Sharp", "sharp", "GT", "gt", "target")


def find(root: Path, tell: Tell) -> list[Pair]:
    """Videos below ``test`` (or ``valid``, or the folder itself)."""
    if any(next(root.glob(f"{depth}data.mdb"), None) for depth in ("", "*/", "*/*/")):
        raise InputError(
            f"{root}: holds LMDB files", "Unpack them to ROOT/test/VIDEO/{Blur,Sharp}/RGB/%08d.png; LMDB is not read."
        )
    for base in (root / "test", root / "valid", root):
        if not base.is_dir():
            continue
        found = [pair for video in subfolders(base) if (pair := _pair(video)) is not None]
        if found:
            return found
    return []


def _pair(video: Path) -> Pair | None:
    blurry = next((video / n for n in BLURRY if (video / n).is_dir()), None)
    if blurry is None:
        return None
    return pair_up(video.name, blurry, next((video / n for n in SHARP if (video / n).is_dir()), None))


PROTOCOL = Protocol(
    id="rbvd",
    summary="RBVD (digital video acquisition system), 1440x960; the layout is an assumption",
    paper="Zhu et al., Deep Recurrent Neural Network with Multi-scale Bi-directional Propagation, AAAI 2022",
    layout=(
        "ROOT/[test|valid/]VIDEO/{Blur,Sharp}/RGB/N.png",
        "ROOT/[test|valid/]VIDEO/{blur|Blur|blurry|input}/N.png with {sharp|Sharp|gt|GT|target}/N.png",
    ),
    find=find,
    skip=(2, 2),
)
