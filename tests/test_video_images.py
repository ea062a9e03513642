"""Folders of images in and out."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from selfhvd_tta.errors import InputError, UsageError
from selfhvd_tta.settings import OutputSettings
from selfhvd_tta.video.images import ImageReader, ImageWriter, load_image
from selfhvd_tta.video.opening import open_reader, open_writer
from selfhvd_tta.video.probe import probe
from tests.media import decode_planes, make_clip, smooth_planes

NAMES = ["shot2", "shot10", "shot1", "shot11"]
ORDER = ["shot1", "shot2", "shot10", "shot11"]


def picture(index: int, deep: bool = False) -> np.ndarray:
    rgb = np.stack(smooth_planes(index, 66, 50, "gbrp16le" if deep else "gbrp"), axis=-1)
    return rgb


def folder(path: Path, suffix: str, deep: bool = False) -> Path:
    path.mkdir()
    for name in NAMES:
        image = cv2.cvtColor(picture(ORDER.index(name), deep), cv2.COLOR_RGB2BGR)
        assert cv2.imwrite(str(path / f"{name}{suffix}"), image)
    (path / "notes.txt").write_text("ignored")
    (path / ".hidden.png").write_bytes(b"ignored")
    return path


def identity(source: Path, out: Path, **options: Any) -> list[str]:
    reader = open_reader(source)
    with open_writer(out, reader, OutputSettings(preset="ultrafast", crf=0), **options) as writer:
        for frame in reader:
            if frame.index >= writer.frames_done:
                writer.write(frame.rgb, frame.pts)
    return writer.notes


@pytest.mark.parametrize(
    ("suffix", "deep"), [(".png", False), (".png", True), (".tif", False), (".tiff", True), (".jpg", False)]
)
def test_folder_to_folder(tmp_path: Path, suffix: str, deep: bool) -> None:
    source = folder(tmp_path / "in", suffix, deep)
    assert identity(source, tmp_path / "out") == []
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(f"{n}{suffix}" for n in NAMES)
    for i, name in enumerate(ORDER):
        before, after = load_image(source / f"{name}{suffix}"), load_image(tmp_path / "out" / f"{name}{suffix}")
        assert before.dtype == after.dtype == (np.uint16 if deep else np.uint8)
        if suffix == ".jpg":
            assert np.abs(before.astype(int) - after).max() <= 6
        else:
            assert np.array_equal(before, after)
            assert np.array_equal(after, picture(i, deep))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "out"]


def test_reader_is_like_a_videos(tmp_path: Path) -> None:
    reader = ImageReader(folder(tmp_path / "in", ".png"), rate=Fraction(24))
    assert (reader.info.width, reader.info.height, reader.info.frames) == (66, 50, 4)
    assert reader.info.duration_s == pytest.approx(4 / 24)
    assert (reader.pts, reader.warnings) == ((0, 1, 2, 3), [])
    frames = list(reader)
    assert [f.index for f in frames] == [f.pts for f in frames] == [0, 1, 2, 3]
    assert [f.index for f in reader.read([1, 3])] == [1, 3]
    for frame, luma in zip(frames, reader.luma(), strict=True):
        expected = frame.rgb @ np.array([0.2126, 0.7152, 0.0722])
        assert luma.y.dtype == np.uint8
        assert np.abs(luma.y - expected).max() <= 1
    for wrong in ([4], [2, 1]):
        with pytest.raises(IndexError):
            list(reader.read(wrong))


@pytest.mark.parametrize("deep", [False, True])
def test_folder_to_video(tmp_path: Path, deep: bool) -> None:
    source = folder(tmp_path / "in", ".png", deep)
    notes = identity(source, tmp_path / "out.mp4")
    info = probe(tmp_path / "out.mp4")
    assert (info.pix_fmt, info.average_rate) == ("yuv444p12le" if deep else "yuv444p", 30)
    assert any("RGB" in note for note in notes)
    for i, frame in enumerate(open_reader(tmp_path / "out.mp4")):
        expected = picture(i, deep).astype(float) / (65535 if deep else 255)
        assert np.abs(frame.rgb / (65535 if deep else 255) - expected).max() <= 3 / 255


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv420p10le"])
def test_video_to_folder(tmp_path: Path, pix_fmt: str) -> None:
    source = make_clip(tmp_path / "in.mp4", pix_fmt=pix_fmt, audio_seconds=0.3)
    notes = identity(source, tmp_path / "out")
    assert any("sound" in note for note in notes)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [f"{i:06d}.png" for i in range(8)]
    for frame in open_reader(source):
        assert np.array_equal(load_image(tmp_path / "out" / f"{frame.index:06d}.png"), frame.rgb)


def test_orientation_of_photographs_is_applied(tmp_path: Path) -> None:
    source = folder(tmp_path / "in", ".jpg")
    tag = bytes.fromhex("ffe1002245786966000049492a00080000000100120103000100000006000000") + bytes(4)
    for file in source.glob("*.jpg"):
        data = file.read_bytes()
        file.write_bytes(data[:2] + tag + data[2:])
    info = open_reader(source).info
    assert (info.width, info.height) == (50, 66)


def test_gray_and_alpha(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    image = np.dstack([picture(0), np.full((50, 66), 9, np.uint8)])
    cv2.imwrite(str(source / "1.png"), image)
    cv2.imwrite(str(source / "2.png"), picture(1)[..., 0])
    reader = open_reader(source)
    frames = list(reader)
    assert np.array_equal(frames[0].rgb, picture(0)[..., ::-1])
    assert np.array_equal(frames[1].rgb, np.dstack([picture(1)[..., 0]] * 3))
    assert identity(source, tmp_path / "out") == ["the alpha channel is left out"]
    assert "the alpha channel is left out" in identity(source, tmp_path / "out.mp4")


def test_images_that_do_not_fit(tmp_path: Path) -> None:
    source = folder(tmp_path / "in", ".png")
    cv2.imwrite(str(source / "shot3.png"), np.zeros((50, 64, 3), np.uint8))
    with pytest.raises(InputError, match=r"shot3.png: is 64x50.*66x50"):
        identity(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (source / "shot3.png").write_bytes(b"no image")
    with pytest.raises(InputError, match="cannot be read"):
        identity(source, tmp_path / "out")
    (source / "shot3.png").unlink()
    identity(source, tmp_path / "out")


def test_existing_folders(tmp_path: Path) -> None:
    source, out = folder(tmp_path / "in", ".png"), tmp_path / "out"
    identity(source, out)
    reader = open_reader(source)
    with pytest.raises(UsageError, match="exists already"):
        ImageWriter(out, reader.info, OutputSettings())
    (out / "old.png").write_bytes(b"old")
    with open_writer(out, reader, OutputSettings(overwrite=True)) as writer:
        for frame in reader:
            writer.write(frame.rgb, frame.pts)
    assert not (out / "old.png").exists()
    (out / "letter.txt").write_text("precious")
    with pytest.raises(UsageError, match="holds other things"):
        ImageWriter(out, reader.info, OutputSettings(overwrite=True))
    assert (out / "letter.txt").read_text() == "precious"
    with pytest.raises(UsageError, match="same file"):
        ImageWriter(source, reader.info, OutputSettings(overwrite=True))


def test_resume(tmp_path: Path) -> None:
    source, job = folder(tmp_path / "in", ".png"), tmp_path / "job"
    job.mkdir()
    reader = open_reader(source)

    def run(stop: int | None, seal: str = "") -> int:
        with open_writer(tmp_path / "out", reader, OutputSettings(), segments=job, seal=seal) as writer:
            for frame in reader:
                if frame.index == stop:
                    raise InterruptedError
                if frame.index >= writer.frames_done:
                    writer.write(frame.rgb, frame.pts)
        return writer.frames_done

    with pytest.raises(InterruptedError):
        run(2)
    assert not (tmp_path / "out").exists()
    with pytest.raises(InterruptedError):
        run(1, seal="other")
    with pytest.raises(InterruptedError):
        run(3, seal="other")
    assert run(None, seal="other") == 3
    assert len(list((tmp_path / "out").iterdir())) == 4


def test_video_of_a_folder_equals_its_frames(tmp_path: Path) -> None:
    """In and out again through a lossless video."""
    source = folder(tmp_path / "in", ".png")
    reader = open_reader(source)
    with open_writer(tmp_path / "out.mkv", reader, OutputSettings(codec="ffv1")) as writer:
        for frame in reader:
            writer.write(frame.rgb, frame.pts)
    assert [t for t, _ in decode_planes(tmp_path / "out.mkv")] == [0, 33, 67, 100]
    for i, frame in enumerate(open_reader(tmp_path / "out.mkv")):
        assert np.array_equal(frame.rgb, picture(i))
