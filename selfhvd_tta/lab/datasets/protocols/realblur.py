"""RealBlur: scenes of about twenty photographs, taken for videos as DADeblur and SelfHVD do."""

from __future__ import annotations

from pathlib import Path

from selfhvd_tta.errors import InputError
from selfhvd_tta.lab.datasets.frames import Frames, PictureFrames
from selfhvd_tta.lab.datasets.protocols import WINDOW, Pair, Protocol, Tell, Windows, pair_up, subfolders

OWN = "RealBlur-*_ECC_IMCORR_centroid_itensity_ref"


def find(root: Path, tell: Tell) -> list[Pair]:
    """Scenes in RealBlur's own layout, in the one that DADeblur's loader reads, or in BSD's."""
    sets = sorted(p for p in root.glob(OWN) if p.is_dir()) or ([root] if any(root.glob("scene*/blur")) else [])
    if sets:
        return [pair for one in sets for pair in _own(root, one, tell)]
    for base in (root / "test", root):
        if (base / "blur").is_dir():
            scenes = subfolders(base / "blur")
            return [pair_up(scene.name, scene, base / "gt" / scene.name) for scene in scenes]
    found: list[Pair] = []
    for base in (root / "test", root):
        if base.is_dir() and not found:
            scenes = [s for s in subfolders(base) if (s / "Blur" / "RGB").is_dir()]
            found = [pair_up(s.name, s / "Blur" / "RGB", s / "Sharp" / "RGB") for s in scenes]
    return found


def _own(root: Path, folder: Path, tell: Tell) -> list[Pair]:
    listed = _test_scenes(folder)
    scenes = [s for s in subfolders(folder) if (s / "blur").is_dir()]
    if listed is None:
        tell(
            f"{folder.name}: without its list of test scenes (RealBlur_J_test_list.txt) all {len(scenes)} scenes are "
            "taken; published figures are those of the test scenes"
        )
    else:
        scenes = [s for s in scenes if s.name in listed]
    prefix = "" if folder == root else folder.name.split("_")[0] + "/"
    return [pair_up(prefix + s.name, s / "blur", s / "gt") for s in scenes]


def _test_scenes(folder: Path) -> set[str] | None:
    """Scenes named in RealBlur's list of test pictures, ``SET/sceneNNN/gt/gt_1.png SET/sceneNNN/blur/blur_1.png``."""
    kind = "R" if "-R_" in folder.name else "J"
    for place in (folder, folder.parent):
        path = place / f"RealBlur_{kind}_test_list.txt"
        if path.is_file():
            lines = path.read_text(encoding="utf-8").split()
            return {part for line in lines for part in Path(line).parts if part.startswith("scene")}
    return None


def windows(frames: Frames) -> Windows:
    """As DADeblur's loader has them: pictures sorted by name as text (1, 10, 11, ..., 2), and the first two and the
    last two of a scene compared with the outputs of the third, the fifth and twice the last but two.

    Raises:
        InputError: a scene is too short.
    """
    count = len(frames)
    if count < WINDOW + 2:
        raise InputError(f"{frames.name}: has {count} frames", f"--as-dadeblur needs at least {WINDOW + 2}.")
    order = list(range(count))
    if isinstance(frames, PictureFrames):
        order.sort(key=lambda i: frames.paths[i].name)
    ends = {0: 0, 1: 2, count - 2: count - WINDOW, count - 1: count - WINDOW}
    found: dict[int, tuple[int, ...]] = {}
    for place, frame in enumerate(order):
        start = ends.get(place, place - WINDOW // 2)
        found[frame] = tuple(order[start : start + WINDOW])
    return [found[i] for i in range(count)]


PROTOCOL = Protocol(
    id="realblur",
    summary="RealBlur-J and -R: 50 test scenes each; frames of a scene may differ in size",
    paper="Rim et al., Real-World Blur Dataset for Learning and Benchmarking Deblurring Algorithms, ECCV 2020",
    layout=(
        f"ROOT/{OWN}/sceneNNN/{{blur,gt}}/{{blur,gt}}_N.png, with RealBlur_J_test_list.txt in either folder",
        "ROOT/[test/]{blur,gt}/SCENE/N.png (DADeblur's loader)",
        "ROOT/[test/]SCENE/{Blur,Sharp}/RGB/N.png",
    ),
    find=find,
    windows=windows,
)
