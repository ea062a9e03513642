"""Folders of photographs, clips and pairs are told apart, held-out videos stay out, and only what is used is read."""

from __future__ import annotations

import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from selfhvd_tta.errors import InputError, UsageError
from selfhvd_tta.lab.datasets.frames import PictureFrames
from selfhvd_tta.lab.datasets.pairs import find_pairs
from selfhvd_tta.lab.training.sources import (
    MixedSource,
    PairSource,
    SceneSource,
    middle_frame,
    open_data,
    read_part,
    split_scenes,
)
from selfhvd_tta.lab.training.validation import validation_sets
from tests.media import make_clip

CPU = torch.device("cpu")


def video(blurry: Path, sharp: Path, level: int, frames: int = 6, size: tuple[int, int] = (40, 48)) -> None:
    """A pair whose blurry frames have red = level, blue = frame number; the sharp ones green = level as well."""
    for folder, green in ((blurry, 0), (sharp, level)):
        folder.mkdir(parents=True)
        for index in range(frames):
            frame = np.zeros((*size, 3), np.uint8)
            frame[:] = (index, green, level)  # BGR
            cv2.imwrite(str(folder / f"{index:08d}.png"), frame)


def gopro(root: Path) -> None:
    for part, names in (("train", ("A", "B")), ("test", ("C",))):
        for n, name in enumerate(names):
            video(root / part / name / "blur", root / part / name / "sharp", 10 * (n + 1) + (part == "test") * 100)
            gamma = root / part / name / "blur_gamma"
            gamma.mkdir()
            for path in (root / part / name / "blur").iterdir():
                frame = cv2.imread(str(path))
                frame[..., 1] = 200
                cv2.imwrite(str(gamma / path.name), frame)


def bsd(root: Path) -> None:
    for part, levels in (("train", (10, 20)), ("test", (110,))):
        for level in levels:
            base = root / part / f"{level:03d}"
            video(base / "Blur" / "RGB", base / "Sharp" / "RGB", level)


def reds(root: Path) -> None:
    for part, levels in (("train", (10, 20)), ("val", (110,))):
        for level in levels:
            base = root / part
            video(base / f"{part}_blur" / f"{level:03d}", base / f"{part}_sharp" / f"{level:03d}", level)


def pairs(root: Path) -> None:
    for part, levels in (("train", (10, 20)), ("val", (110,))):
        for level in levels:
            video(root / part / "blur" / f"s{level}", root / part / "sharp" / f"s{level}", level)


def bsd_sets(root: Path) -> None:
    bsd(root / "BSD_1ms8ms")


layouts = pytest.mark.parametrize(
    ("make", "name"),
    [(gopro, "GoPro"), (bsd, "BSD"), (bsd_sets, "BSD"), (reds, "REDS"), (pairs, "pairs")],
    ids=["gopro", "bsd", "bsd-sets", "reds", "pairs"],
)


@layouts
def test_layouts_are_recognised_and_the_held_out_part_stays_out(tmp_path: Path, make: object, name: str) -> None:
    make(tmp_path / "data")  # type: ignore[operator]
    data = open_data((tmp_path / "data",), size=32, frames=4)
    assert f"2 videos of data ({name})" in data.training
    assert isinstance(data.source, PairSource)
    seen = set()
    for seed in range(30):
        blurry, sharp = data.source.make(np.random.default_rng(seed), 1.0, CPU)
        assert blurry.shape == sharp.shape == (4, 32, 32, 3)
        assert set(np.unique(blurry[..., 1])) == {0}
        assert np.array_equal(blurry[..., 0], sharp[..., 1])  # the right ground truth
        numbers = blurry[:, 0, 0, 2]
        assert (np.diff(numbers.astype(int)) == 1).all()  # RGB: the frame's number is blue
        assert np.array_equal(blurry[..., 2], sharp[..., 2])
        seen |= {(int(blurry[0, 0, 0, 0]), int(numbers[0]))}
    assert {level for level, _ in seen} == {10, 20}
    assert {start for _, start in seen} == {0, 1, 2}
    (held,) = validation_sets(data)["recorded"]
    assert set(np.unique(held.blurry[..., 0])) == {110}
    assert held.blurry.shape == (6, 40, 40, 3)
    assert held.soft.all()


def test_gamma_blur_is_taken_where_asked_for(tmp_path: Path) -> None:
    gopro(tmp_path)
    data = open_data((tmp_path,), size=32, frames=4, gamma_blur=True)
    blurry, sharp = data.source.make(np.random.default_rng(0), 1.0, CPU)
    assert set(np.unique(blurry[..., 1])) == {200}
    assert 200 not in sharp[..., 1]
    (tmp_path / "train" / "A" / "blur_gamma").rename(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="has no folder blur_gamma"):
        open_data((tmp_path,), size=32, frames=4, gamma_blur=True)


def test_without_a_part_for_it_every_ninth_video_is_held_out(tmp_path: Path) -> None:
    for n in range(11):
        video(tmp_path / "blur" / f"v{n}", tmp_path / "sharp" / f"v{n}", n + 1, frames=2, size=(16, 16))
    found = find_pairs(tmp_path)
    assert found is not None
    assert [Path(blurry.name).name for blurry, _ in found.held_out] == ["v0", "v9"]
    assert [Path(blurry.name).name for blurry, _ in found.training] == [f"v{n}" for n in (1, 2, 3, 4, 5, 6, 7, 8, 10)]


def test_one_pair_of_folders_is_enough(tmp_path: Path) -> None:
    video(tmp_path / "input", tmp_path / "gt", 5)
    data = open_data((tmp_path,), size=32, frames=6)
    assert data.source.make(np.random.default_rng(0), 1.0, CPU).shape == (2, 6, 32, 32, 3)


def test_frames_are_read_when_they_are_needed_and_no_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reds(tmp_path)
    read: list[int] = []
    plain = PictureFrames.read

    def counting(self: PictureFrames, indices: range) -> object:
        read.extend(indices)
        return plain(self, indices)

    monkeypatch.setattr(PictureFrames, "read", counting)
    data = open_data((tmp_path,), size=32, frames=4)
    assert len(read) == 1  # to know the size
    data.source.make(np.random.default_rng(0), 1.0, CPU)
    assert len(read) == 1 + 2 * 4


@pytest.mark.parametrize(
    ("size", "frames", "words"), [(32, 7, "longest video has 6 frames"), (44, 4, "frames are 48x40")]
)
def test_too_short_and_too_small_data_are_told(tmp_path: Path, size: int, frames: int, words: str) -> None:
    reds(tmp_path)
    with pytest.raises(UsageError, match=words):
        open_data((tmp_path,), size=size, frames=frames)


def test_frames_that_do_not_belong_together_are_told(tmp_path: Path) -> None:
    pairs(tmp_path)
    (tmp_path / "train" / "sharp" / "s10" / "00000003.png").unlink()
    with pytest.raises(UsageError, match="do not match"):
        open_data((tmp_path,), size=32, frames=4)


def test_a_frame_of_another_size_is_told(tmp_path: Path) -> None:
    video(tmp_path / "blur" / "a", tmp_path / "sharp" / "a", 5)
    cv2.imwrite(str(tmp_path / "sharp" / "a" / "00000002.png"), np.zeros((20, 20, 3), np.uint8))
    data = open_data((tmp_path,), size=32, frames=6)
    with pytest.raises(InputError, match="not all of one size"):
        data.source.make(np.random.default_rng(0), 1.0, CPU)


@pytest.mark.parametrize("content", ["nothing", "text", "missing"])
def test_other_folders_are_refused_with_the_layouts_that_are_known(tmp_path: Path, content: str) -> None:
    folder = tmp_path / "data"
    if content != "missing":
        folder.mkdir()
    if content == "text":
        (folder / "readme.txt").write_text("x")
    with pytest.raises(UsageError) as error:
        open_data((folder,), size=32, frames=4)
    assert "GoPro: ROOT/train/SEQUENCE" in str(error.value.hint)


def photo(path: Path, seed: int = 0) -> None:
    noise = np.random.default_rng(seed).integers(0, 256, (100, 100, 3)).astype(np.uint8)
    cv2.imwrite(str(path), cv2.GaussianBlur(noise, (0, 0), 1.5))


def test_clips_are_scenes_too_and_everything_mixes(tmp_path: Path) -> None:
    scenes, recorded = tmp_path / "scenes", tmp_path / "recorded"
    scenes.mkdir()
    for seed in range(3):
        photo(scenes / f"{seed}.png", seed)
    make_clip(scenes / "sharp.mp4", size=(128, 96))
    video(recorded / "blur" / "a", recorded / "sharp" / "a", 5)
    data = open_data((scenes, recorded), size=32, frames=4)
    assert "2 photographs and 1 clips" in data.training
    assert isinstance(data.source, MixedSource)
    scene = data.source.sources[0]
    assert isinstance(scene, SceneSource)
    assert scenes / "sharp.mp4" in scene.scenes
    assert [path.name for path in data.held_out_scenes] == ["0.png"]
    kinds = set()
    for seed in range(12):
        made = data.source.make(np.random.default_rng(seed), 1.0, CPU)
        assert made.shape == (2, 4, 32, 32, 3)
        kinds.add(bool((made[0][..., 0] == 5).all()))
    assert kinds == {False, True}
    only = SceneSource((scenes / "sharp.mp4",), 32, 4)
    assert only.make(np.random.default_rng(0), 1.0, CPU).std() > 1
    assert middle_frame(scenes / "sharp.mp4").shape == (96, 128, 3)


def test_sources_travel_to_other_processes(tmp_path: Path) -> None:
    gopro(tmp_path / "pairs")
    (tmp_path / "photos").mkdir()
    photo(tmp_path / "photos" / "a.png")
    source = open_data((tmp_path / "photos", tmp_path / "pairs"), size=32, frames=4).source
    there = pickle.loads(pickle.dumps(source))
    assert there.identity == source.identity
    for seed in range(4):
        first, second = (s.make(np.random.default_rng(seed), 1.0, CPU) for s in (source, there))
        assert np.array_equal(first, second)


def test_photographs_are_held_out_before_clips() -> None:
    names = [Path(name) for name in ("a.jpg", "b.jpg", "c.mp4", "d.mp4")]
    assert split_scenes(names) == (names[1:], names[:1])
    assert split_scenes(names[2:]) == (names[3:], names[2:3])


def test_a_part_lies_where_it_was_asked_for() -> None:
    class Ramp(PictureFrames):
        def read(self, indices: object) -> object:  # type: ignore[override]
            y, x = np.mgrid[:40, :60].astype(np.uint8)
            return iter([np.stack([y, x, x], -1)] * len(list(indices)))  # type: ignore[call-overload]

    ramp = Ramp([], "ramp")
    for place, corner in (((0.0, 0.0), (0, 0)), ((0.5, 0.5), (12, 22)), ((0.999, 0.999), (24, 44))):
        part = read_part((ramp, ramp), range(2), 16, place)
        assert part.shape == (2, 2, 16, 16, 3)
        assert tuple(part[0, 0, 0, 0, :2]) == corner
