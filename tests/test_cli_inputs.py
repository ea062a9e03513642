"""What users give in the place of a video, and where the result goes if they do not say it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from selfhvd_tta.cli import app
from selfhvd_tta.cli.inputs import check_input, default_output
from selfhvd_tta.config import override
from selfhvd_tta.errors import InputError, UsageError, WeightsError
from selfhvd_tta.pipeline import deblur
from selfhvd_tta.settings import OutputSettings, Settings
from selfhvd_tta.video.encoding import choose_encoding
from selfhvd_tta.video.images import ImageReader, save_image
from tests.media import decode_planes, make_clip, shaky_file


@pytest.mark.parametrize(
    ("video", "output"),
    [
        ("shaky.mp4", "shaky-sharp.mp4"),
        ("a b/IMG_1.MOV", "a b/IMG_1-sharp.MOV"),
        ("dvd.vob.avi", "dvd.vob-sharp.mp4"),
        ("no ending", "no ending-sharp.mp4"),
    ],
)
def test_the_result_goes_next_to_the_input(video: str, output: str) -> None:
    assert default_output(Path(video)) == Path(output)


def test_a_folder_of_frames_becomes_a_folder(tmp_path: Path) -> None:
    (tmp_path / "frames.v2").mkdir()
    assert default_output(tmp_path / "frames.v2") == tmp_path / "frames.v2-sharp"


def inputs(folder: Path) -> dict[str, tuple[str, str, str]]:
    """Name of the mistake, what was typed, and what the two lines have to say."""
    (folder / "photo.HEIC").write_bytes(b"x")
    (folder / "clips").mkdir()
    (folder / "clips" / "a.mov").write_bytes(b"x")
    os.mkfifo(folder / "pipe")
    return {
        "photo": (str(folder / "photo.HEIC"), "single picture", "the folder that holds its frames"),
        "folder": (str(folder / "clips"), "folder with a video", "selfhvd-tta batch"),
        "address": ("https://example.org/a.mp4", "https://example.org/a.mp4: is an address", "Download"),
        "dropped": ("file:///home/me/a.mp4", "is an address", "Give the path: /home/me/a.mp4"),
        "dash": ("-", "is a stream", "Save it to a file"),
        "fifo": (str(folder / "pipe"), "is a stream", "Save it to a file"),
        "missing": (str(folder / "nothing.mp4"), "there is no such file", "Check the path"),
        "drive": (r"C:\Users\me\a.mp4", "no such file", "/mnt/c"),
    }


@pytest.mark.parametrize("kind", ["photo", "folder", "address", "dropped", "dash", "fifo", "missing", "drive"])
def test_mistakes_are_answered_with_what_to_do(kind: str, tmp_path: Path) -> None:
    typed, message, hint = inputs(tmp_path)[kind]
    result = CliRunner().invoke(app, [typed])
    assert isinstance(result.exception, InputError)
    assert message in result.exception.message
    assert hint in result.exception.hint


def test_addresses_are_read_alike_by_every_command() -> None:
    for command in ("deblur", "inspect", "stills"):
        result = CliRunner().invoke(app, [command, "https://example.org/a.mp4"])
        assert isinstance(result.exception, InputError), command
        assert result.exception.message.startswith("https://example.org/a.mp4: "), command


@pytest.mark.parametrize("flag", ["--weights", "--adapted"])
def test_damaged_weights_are_said_with_what_to_do(flag: str, tmp_path: Path) -> None:
    whole = (Path(__file__).parent.parent / "weights/estrnn-lite.safetensors").read_bytes()
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(whole[: len(whole) // 2])
    words = ["deblur", str(shaky_file(tmp_path / "a.mp4", 6, 0.2)), flag, str(cut), "--backbone", "estrnn:lite"]
    result = CliRunner().invoke(app, [*words, "--offline", "--device", "cpu", "--iters", "0"])
    assert isinstance(result.exception, WeightsError)
    assert "damaged or cut short" in result.exception.message
    assert "download it again" in result.exception.hint


def test_weights_that_are_not_here_name_a_way_without_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "empty"))
    words = ["deblur", str(shaky_file(tmp_path / "a.mp4", 6, 0.2)), "--backbone", "dstnetplus", "--offline"]
    result = CliRunner().invoke(app, [*words, "--device", "cpu"])
    assert isinstance(result.exception, WeightsError)
    assert "is not on this machine" in result.exception.message
    assert "bundled network" in result.exception.hint


def test_a_missing_video_is_answered_with_an_example() -> None:
    for words in (["deblur"], ["deblur", "--crf", "18"], ["inspect"], ["batch", "-o", "sharp"]):
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 2
        text = " ".join(result.output.split())
        assert "is missing." in text
        assert f": selfhvd-tta {words[0]} " in text


def test_several_videos_are_led_to_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a b.mp4").write_bytes(b"x")
    answers = {
        "x.mp4 y.mp4": "selfhvd-tta batch x.mp4 y.mp4 -o FOLDER",
        "a b.mp4": "selfhvd-tta deblur 'a b.mp4'",
        "stills x.mp4 y.mp4": "Run it once for each.",
        "models x.mp4": "selfhvd-tta models --help",
    }
    for words, hint in answers.items():
        result = CliRunner().invoke(app, words.split(), prog_name="selfhvd-tta")
        assert isinstance(result.exception, UsageError), words
        assert hint in result.exception.hint


@pytest.mark.parametrize(
    ("flag", "near"), [("--hdr", ""), ("--fps", ""), ("--qualty", "--quality"), ("--out", "--output")]
)
def test_unknown_options_lead_to_similar_ones_only(flag: str, near: str) -> None:
    result = CliRunner().invoke(app, ["deblur", "a.mp4", flag])
    assert result.exit_code == 2
    assert f"No such option: {flag}" in result.output
    assert near in result.output
    assert ("Possible options" in result.output) is bool(near)


def test_a_video_of_pictures_says_its_rate(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(3):
        save_image(tmp_path / "in" / f"{number}.png", np.full((64, 80, 3), 40 * number, np.uint8))
    notes = choose_encoding(ImageReader(tmp_path / "in").info, OutputSettings()).notes
    assert "images have no frame rate: the video shows 30 of them a second" in notes


def test_files_with_such_names_are_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("12:30 walk.mp4", "C:clip.mp4", "a.mp4"):
        Path(name).write_bytes(b"x")
        check_input(Path(name))
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / "1.png").write_bytes(b"x")
    check_input(tmp_path / "frames")


def test_a_file_in_the_place_of_a_command_means_deblur(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "even.mp4")
    for words in ([str(source)], ["--overwrite", str(source)]):
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, result.output
    assert (tmp_path / "even-sharp.mp4").read_bytes() == source.read_bytes()


@pytest.mark.parametrize(("word", "hint"), [("deblurr", "'deblur'"), ("help", "selfhvd-tta --help")])
def test_a_mistyped_command_is_not_a_file(word: str, hint: str) -> None:
    result = CliRunner().invoke(app, [word])
    assert result.exit_code == 2
    assert "neither a command nor a file" in " ".join(result.output.split())
    assert hint in result.output


def test_strength_mixes_the_result_into_the_recorded_frames(tmp_path: Path) -> None:
    source = shaky_file(tmp_path / "shaky.mp4")

    def brightness(strength: float) -> list[float]:
        out = tmp_path / f"{strength}.mkv"
        values = {"method": "transfer", "backbone": "none", "flow": "dis:ultrafast", "codec": "ffv1", "device": "cpu"}
        deblur(source, out, override(Settings(), values | {"strength": strength, "offline": True}))
        return [float(planes[0].astype(float).var()) for _, planes in decode_planes(out)]

    none, half, full = (brightness(strength) for strength in (0.0, 0.5, 1.0))
    recorded = [float(planes[0].astype(float).var()) for _, planes in decode_planes(source)]
    assert none == pytest.approx(recorded, rel=0.02)
    assert sum(none) < sum(half) < sum(full)
