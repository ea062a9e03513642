"""Layouts of data sets, over all protocols that there are."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfhvd_tta.errors import InputError
from selfhvd_tta.lab.datasets.frames import FileFrames, PictureFrames, natural_key, number, picture_size
from selfhvd_tta.lab.datasets.protocols import Pair, discover
from tests.media import make_clip


def write(path: Path, value: int = 0, size: tuple[int, int] = (12, 16)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((*size, 3), value, np.uint8))


def video(folder: Path, names: list[str], start: int = 0) -> None:
    for i, name in enumerate(names):
        write(folder / name, start + i)


PLAIN = [f"{i:08d}.png" for i in range(3)]
LAYOUTS = {
    "bsd set": ("bsd", "test/{v}/Blur/RGB", "test/{v}/Sharp/RGB", PLAIN, PLAIN),
    "bsd sets": ("bsd", "BSD_1ms8ms/test/{v}/Blur/RGB", "BSD_1ms8ms/test/{v}/Sharp/RGB", PLAIN, PLAIN),
    "bsd bare": ("bsd", "{v}/Blur/RGB", "{v}/Sharp/RGB", PLAIN, PLAIN),
    "realblur own": (
        "realblur",
        "RealBlur-J_ECC_IMCORR_centroid_itensity_ref/scene{v}/blur",
        "RealBlur-J_ECC_IMCORR_centroid_itensity_ref/scene{v}/gt",
        [f"blur_{i}.png" for i in (1, 2, 10)],
        [f"gt_{i}.png" for i in (1, 2, 10)],
    ),
    "realblur bsd": ("realblur", "test/{v}/Blur/RGB", "test/{v}/Sharp/RGB", ["9.png", "10.png"], ["9.png", "10.png"]),
    "realblur loader": ("realblur", "test/blur/{v}", "test/gt/{v}", ["0.png", "1.png"], ["0.png", "1.png"]),
    "rbvd bsd": ("rbvd", "test/{v}/Blur/RGB", "test/{v}/Sharp/RGB", PLAIN, PLAIN),
    "rbvd plain": ("rbvd", "{v}/blur", "{v}/gt", PLAIN, PLAIN),
    "folder two": ("folder", "blur/{v}", "sharp/{v}", PLAIN, PLAIN),
    "folder gopro": ("folder", "{v}/blur", "{v}/sharp", PLAIN, PLAIN),
}


def find(protocol: str, root: Path) -> tuple[list[Pair], list[str]]:
    told: list[str] = []
    return discover()[protocol].find(root, told.append), told


def test_every_protocol_describes_itself() -> None:
    assert set(discover()) >= {"bsd", "realblur", "rbvd", "folder"}
    for protocol in discover().values():
        assert protocol.summary
        assert protocol.layout


@pytest.mark.parametrize("protocol", discover())
def test_an_empty_folder_holds_no_video(protocol: str, tmp_path: Path) -> None:
    assert find(protocol, tmp_path)[0] == []


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout: str, tmp_path: Path) -> None:
    protocol, blurry, sharp, names, truths = LAYOUTS[layout]
    for v in ("002", "010"):
        video(tmp_path / blurry.format(v=v), names, start=int(v))
        video(tmp_path / sharp.format(v=v), truths, start=100 + int(v))
    (tmp_path / "notes.txt").write_text("not a video")
    pairs, _ = find(protocol, tmp_path)
    assert len(pairs) == 2
    assert len({p.name for p in pairs}) == 2
    for v, pair in zip((2, 10), pairs, strict=True):
        assert str(v) in pair.name
        assert pair.problem == ""
        assert pair.blurry is not None
        assert pair.sharp is not None
        assert [int(f.mean()) for f in pair.blurry] == [v + i for i in range(len(names))]
        assert [int(f.mean()) for f in pair.sharp] == [100 + v + i for i in range(len(names))]


def test_only_the_test_scenes_of_realblur(tmp_path: Path) -> None:
    base = "RealBlur-J_ECC_IMCORR_centroid_itensity_ref"
    for scene in ("scene001", "scene002"):
        video(tmp_path / base / scene / "blur", ["blur_1.png"])
        video(tmp_path / base / scene / "gt", ["gt_1.png"])
    pairs, told = find("realblur", tmp_path)
    assert len(pairs) == 2
    assert "all 2 scenes" in told[0]
    (tmp_path / "RealBlur_J_test_list.txt").write_text(f"{base}/scene002/gt/gt_1.png {base}/scene002/blur/blur_1.png\n")
    pairs, told = find("realblur", tmp_path)
    assert [p.name for p in pairs] == ["RealBlur-J/scene002"]
    assert told == []


def test_one_pair_of_folders(tmp_path: Path) -> None:
    video(tmp_path / "mine" / "input", ["a.png", "b.png"])
    video(tmp_path / "mine" / "target", ["c.png", "d.png"], 9)
    pairs, _ = find("folder", tmp_path / "mine")
    assert [(p.name, p.problem) for p in pairs] == [("mine", "")]


def test_video_files_pair_by_name(tmp_path: Path) -> None:
    (tmp_path / "blur").mkdir()
    (tmp_path / "sharp").mkdir()
    make_clip(tmp_path / "blur" / "x.mp4")
    make_clip(tmp_path / "sharp" / "x.mkv")
    (pair,), _ = find("folder", tmp_path)
    assert isinstance(pair.sharp, FileFrames)
    assert pair.blurry is not None
    assert len(list(pair.blurry)) == len(pair.blurry) == 8
    some = list(pair.blurry.read([1, 6]))
    assert np.array_equal(some[1], list(pair.blurry)[6])


def test_a_video_without_its_truth_is_a_problem_of_its_own(tmp_path: Path) -> None:
    video(tmp_path / "a" / "blur", PLAIN)
    video(tmp_path / "a" / "sharp", PLAIN[:2])
    video(tmp_path / "b" / "blur", PLAIN)
    video(tmp_path / "b" / "sharp", PLAIN)
    video(tmp_path / "c" / "blur", PLAIN)
    pairs, _ = find("folder", tmp_path)
    assert "do not match" in pairs[0].problem
    assert "number 2" in pairs[0].problem
    assert pairs[1].problem == ""
    assert pairs[2].sharp is None


def test_lmdb_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rbvd_valid").mkdir()
    (tmp_path / "rbvd_valid" / "data.mdb").write_bytes(b"")
    with pytest.raises(InputError, match="LMDB"):
        find("rbvd", tmp_path)


def test_frames_of_different_sizes_share_a_canvas(tmp_path: Path) -> None:
    write(tmp_path / "0.png", 10, (12, 20))
    write(tmp_path / "1.png", 20, (15, 16))
    frames = PictureFrames([tmp_path / "0.png", tmp_path / "1.png"], "x")
    assert frames.canvas == (15, 20)
    for frame, (height, width) in zip(frames.on_canvas([0, 1]), frames.sizes, strict=True):
        assert frame.shape == (15, 20, 3)
        assert np.ptp(frame[:height, :width]) == 0


def test_sizes_without_decoding(tmp_path: Path) -> None:
    write(tmp_path / "a.png", size=(7, 9))
    write(tmp_path / "a.jpg", size=(7, 9))
    assert picture_size(tmp_path / "a.png") == picture_size(tmp_path / "a.jpg") == (7, 9)


@given(st.lists(st.integers(0, 10**8), min_size=1, max_size=8, unique=True))
def test_numbers_sort_as_numbers(values: list[int]) -> None:
    paths = [Path(f"blur_{v}.png") for v in values]
    assert [number(p) for p in sorted(paths, key=natural_key)] == sorted(values)
