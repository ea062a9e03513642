"""BSD, the beam-splitter data set, and everything else in its layout (DADeblur uses it for all its data sets)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from selfhvd_tta.errors import InputError
from selfhvd_tta.lab.datasets.labels import LABELS, read_labels
from selfhvd_tta.lab.datasets.protocols import Pair, Protocol, Tell, natural_key, pair_up

PATTERNS = ("test/*/Blur/RGB", "*/test/*/Blur/RGB", "*/Blur/RGB")


def find(root: Path, tell: Tell) -> list[Pair]:
    """Videos of one set (``BSD_3ms24ms``), of a folder of sets, or of a bare folder of videos."""
    for pattern in PATTERNS:
        folders = sorted(
            (p.parents[1] for p in root.glob(pattern)), key=lambda v: [natural_key(Path(p)) for p in v.parts]
        )
        if folders:
            return [_pair(root, video) for video in folders]
    return []


def _pair(root: Path, video: Path) -> Pair:
    name = "/".join(part for part in video.relative_to(root).parts if part != "test")
    sharp = video / "Sharp" / "RGB"
    pair = pair_up(name, video / "Blur" / "RGB", sharp if sharp.exists() else None)
    if pair.blurry is None or not (video / LABELS).exists():
        return pair
    try:
        labels = read_labels(video)
    except InputError as error:
        return Pair(name, None, None, error.message)
    if len(labels) != len(pair.blurry):
        return Pair(name, None, None, f"{video / LABELS}: {len(labels)} labels for {len(pair.blurry)} frames")
    return replace(pair, labels=labels)


PROTOCOL = Protocol(
    id="bsd",
    summary="BSD (beam splitter): 1ms8ms, 2ms16ms, 3ms24ms, 20 test videos of 150 frames 640x480 each",
    paper="Zhong et al., Real-world Video Deblurring: A Benchmark Dataset and an Efficient RNN, IJCV 2023",
    layout=(
        "ROOT/test/VIDEO/{Blur,Sharp}/RGB/%08d.png",
        "ROOT/SET/test/VIDEO/{Blur,Sharp}/RGB/%08d.png",
        "ROOT/VIDEO/{Blur,Sharp}/RGB/%08d.png (Sharp may be missing: then nothing is compared with a ground truth)",
    ),
    find=find,
    # ESTRNN's own test code and DADeblur's: their network has no output for these.
    skip=(2, 2),
)
