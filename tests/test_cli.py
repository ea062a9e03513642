"""The command line as a user meets it: real runs on a tiny clip, exit codes, one-line errors, nothing half written."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.commands import FEW, QUICK, ROOT, run
from tests.media import check_media, decode_planes, make_clip, shaky_file
from tests.tiny import blurry_clip


@pytest.fixture(scope="module")
def shaky(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shaky_file(tmp_path_factory.mktemp("clip") / "shaky clip.mp4")


def test_adaptation_end_to_end(shaky: Path, tmp_path: Path) -> None:
    digest = shaky.read_bytes()
    out = tmp_path / "sharp.mp4"
    done = run("deblur", shaky, "-o", out, "--offline", "--device", "cpu", *FEW)
    assert done.returncode == 0, done.stderr
    check_media(shaky, out)
    assert shaky.read_bytes() == digest
    assert os.listdir(tmp_path) == ["sharp.mp4"], "no temporary file is left"
    for words in ("sharp frames", "relay:lite", "about", "CPU", "perceptual loss: off", "stage 2", "done"):
        assert words in done.stderr, words


def test_backbone_alone_and_transfer(shaky: Path, tmp_path: Path) -> None:
    for name, flags in {"alone": ["--iters", "0"], "transfer": ["--method", "transfer"]}.items():
        out = tmp_path / f"{name}.mp4"
        done = run("deblur", shaky, "-o", out, *QUICK, *flags)
        assert done.returncode == 0, done.stderr
        check_media(shaky, out)


def test_the_same_command_gives_the_same_file(shaky: Path, tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        assert run("deblur", shaky, "-o", tmp_path / name, *QUICK, *FEW).returncode == 0
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_json_events_are_lines_of_json(shaky: Path, tmp_path: Path) -> None:
    done = run("deblur", shaky, "-o", tmp_path / "o.mp4", *QUICK, *FEW, "--json")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    kinds = {e["event"] for e in events}
    assert {"plan", "progress", "note", "finished"} <= kinds
    assert {e["phase"] for e in events if e["event"] == "progress"} >= {
        "scan",
        "labels",
        "stage 1",
        "stage 2",
        "restore",
    }


def test_an_existing_output_needs_overwrite(shaky: Path, tmp_path: Path) -> None:
    out = tmp_path / "sharp.mp4"
    out.write_bytes(b"precious")
    refused = run("deblur", shaky, "-o", out, *QUICK, "--method", "transfer")
    assert refused.returncode == 2
    assert "--overwrite" in refused.stderr
    assert out.read_bytes() == b"precious"
    assert run("deblur", shaky, "-o", out, *QUICK, "--method", "transfer", "--overwrite").returncode == 0
    check_media(shaky, out)


def test_a_video_without_contrast_is_passed_through_or_refused(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "even.mp4", audio_seconds=0.2)
    out = tmp_path / "out.mp4"
    done = run("deblur", source, "-o", out, *QUICK)
    assert done.returncode == 0
    assert "passed through" in done.stderr
    assert out.read_bytes() == source.read_bytes()
    strict = run("deblur", source, "-o", tmp_path / "strict.mp4", *QUICK, "--strict")
    assert strict.returncode == 5
    assert not (tmp_path / "strict.mp4").exists()


@pytest.mark.parametrize("count", [1, 2])
def test_very_short_videos(count: int, tmp_path: Path) -> None:
    source = make_clip(tmp_path / "short.mp4", tuple(512 * i for i in range(count)))
    out = tmp_path / "out.mp4"
    done = run("deblur", source, "-o", out, *QUICK, *FEW, "--force")
    assert done.returncode == 0, done.stderr
    assert len(decode_planes(out)) == count


def broken_inputs(folder: Path) -> dict[str, Path]:
    text, empty, cut, sound = (folder / n for n in ("text.mp4", "empty.mp4", "cut.mp4", "sound.m4a"))
    text.write_text("this is not a video\n" * 50)
    empty.touch()
    whole = make_clip(folder / "whole.mp4").read_bytes()
    cut.write_bytes(whole[: len(whole) // 2])
    import av

    from tests.media import sine

    with av.open(str(sound), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=48000)
        for block in sine(0.2):
            container.mux(stream.encode(block))
        container.mux(stream.encode(None))
    return {"text": text, "empty": empty, "cut": cut, "sound": sound, "missing": folder / "missing.mp4"}


@pytest.mark.parametrize("kind", ["text", "empty", "cut", "sound", "missing"])
def test_bad_input_is_one_line_and_no_output(kind: str, tmp_path: Path) -> None:
    source = broken_inputs(tmp_path)[kind]
    out = tmp_path / "out" / "sharp.mp4"
    out.parent.mkdir()
    done = run("deblur", source, "-o", out, *QUICK)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("error: ")
    assert source.name in done.stderr
    assert os.listdir(out.parent) == []


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (["--backbone", "nonsense"], 2, "unknown backbone"),
        (["--backbone", "estrnn:nonsense"], 2, "no variant"),
        (["--flow", "nonsense"], 2, "unknown flow"),
        (["--iters", "-1"], 2, "--iters"),
        (["--teacher", "live"], 2, "--label-refresh"),
        (["--device", "nonsense"], 2, "unknown device"),
        (["--device", "cuda:77"], 3, "CUDA"),
        (["--weights", "missing.safetensors"], 4, "missing.safetensors"),
    ],
)
def test_wrong_settings(flags: list[str], code: int, words: str, shaky: Path, tmp_path: Path) -> None:
    base = ["--backbone", "estrnn:lite", "--flow", "embedded", "--offline"]
    done = run("deblur", shaky, "-o", tmp_path / "out.mp4", *base, *flags)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert os.listdir(tmp_path) == []


def test_missing_output_folder(shaky: Path, tmp_path: Path) -> None:
    done = run("deblur", shaky, "-o", tmp_path / "nowhere" / "out.mp4", *QUICK)
    assert done.returncode == 6
    assert "no such folder" in done.stderr


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_interruption_leaves_what_is_done_to_the_next_run(kind: signal.Signals, shaky: Path, tmp_path: Path) -> None:
    out = tmp_path / "sharp.mp4"
    command = [sys.executable, "-m", "selfhvd_tta", "deblur", shaky, "-o", out, *QUICK, "--iters", "100000", "--json"]
    child = subprocess.Popen(
        [str(c) for c in command],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A test run in the background of a shell ignores SIGINT, and would hand that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    stop = threading.Timer(120, child.kill)
    stop.start()
    assert child.stdout is not None
    lines = iter(child.stdout.readline, "")
    for line in lines:
        event = json.loads(line)
        if event["event"] == "progress" and event["phase"] == "stage 1":
            break
    child.send_signal(kind)
    started = time.monotonic()
    last = list(lines)[-1]
    assert child.wait(timeout=60) == 130
    stop.cancel()
    assert time.monotonic() - started < 30
    assert "interrupted" in last
    assert child.stderr is not None
    errors = child.stderr.read()
    assert "Traceback" not in errors
    assert os.listdir(tmp_path) == [".sharp.mp4.job"]


def test_inspect_prints_the_timeline(shaky: Path) -> None:
    done = run("inspect", shaky)
    assert done.returncode == 0, done.stderr
    assert ".^..^..^..^." in done.stdout
    assert "can help" in done.stdout


def test_help_is_quick_and_needs_no_torch() -> None:
    code = (
        "import sys\nfrom selfhvd_tta.cli import main\n"
        "try:\n    main(['deblur', '--help'])\nexcept SystemExit as e:\n    assert e.code == 0\n"
        "assert 'torch' not in sys.modules and 'av' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--iters" in done.stdout


def test_models_lists_what_there_is() -> None:
    done = run("models")
    assert done.returncode == 0, done.stderr
    for words in ("estrnn", "sea-raft", "embedded", "shake", "estrnn-lite", "flow-shake", "dstnetplus-base-gopro"):
        assert words in done.stdout


def test_adapted_weights_can_be_saved_and_applied(shaky: Path, tmp_path: Path) -> None:
    saved = tmp_path / "mine.safetensors"
    first = run("deblur", shaky, "-o", tmp_path / "a.mp4", *QUICK, *FEW, "--no-detail", "--save-adapted", saved)
    assert first.returncode == 0, first.stderr
    again = run(
        "deblur",
        shaky,
        "-o",
        tmp_path / "b.mp4",
        "--flow",
        "embedded",
        "--adapted",
        saved,
        "--iters",
        "0",
        "--offline",
        "--no-detail",
    )
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    wrong = run("deblur", shaky, "-o", tmp_path / "c.mp4", "--adapted", saved, "--backbone", "nafnet")
    assert wrong.returncode == 2
    assert "estrnn:lite" in wrong.stderr


def test_an_official_checkpoint_is_converted_checked_and_used(shaky: Path, tmp_path: Path) -> None:
    import torch

    from selfhvd_tta import backbones

    backbone = backbones.discover()["ifirnn"]
    torch.manual_seed(0)
    state = backbone.build(**backbone.variants[0].config).state_dict()
    official, ours = tmp_path / "official.tar", tmp_path / "ours.safetensors"
    torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}, "epoch": 7}, official)
    done = run("weights", "convert", official, "-o", ours, "--backbone", "ifirnn")
    assert done.returncode == 0, done.stderr
    used = run(
        *("deblur", shaky, "-o", tmp_path / "o.mp4", "--backbone", "ifirnn", "--weights", ours),
        *(
            "--flow",
            "dis:ultrafast",
            "--teachers",
            "1",
            "--offline",
            "--iters",
            "2",
            "--crop",
            "32",
            "--clip-length",
            "3",
        ),
    )
    assert used.returncode == 0, used.stderr
    wrong = run("weights", "convert", official, "-o", tmp_path / "x.safetensors", "--backbone", "estrnn")
    assert wrong.returncode == 4
    assert not (tmp_path / "x.safetensors").exists()


@pytest.mark.parametrize("flags", [["--nonsense"], ["--iters", "many"], ["--method", "magic"]])
def test_wrong_flags_are_usage_errors(flags: list[str]) -> None:
    done = run("deblur", "a.mp4", *flags)
    assert done.returncode == 2
    assert "Usage" in done.stderr
    assert "Traceback" not in done.stderr


def test_folders_of_images_in_and_out(tmp_path: Path) -> None:
    import cv2

    (tmp_path / "in").mkdir()
    for i, frame in enumerate(blurry_clip(6, 64, 80)):
        cv2.imwrite(str(tmp_path / "in" / f"{i:04d}.png"), frame[..., ::-1])
    done = run("deblur", tmp_path / "in", "-o", tmp_path / "out", *QUICK, "--method", "transfer")
    assert done.returncode == 0, done.stderr
    assert sorted(os.listdir(tmp_path / "out")) == sorted(os.listdir(tmp_path / "in"))
    before, after = (cv2.imread(str(tmp_path / folder / "0000.png")) for folder in ("in", "out"))
    assert after.shape == before.shape
    assert cv2.Laplacian(after, cv2.CV_64F).var() > 1.5 * cv2.Laplacian(before, cv2.CV_64F).var()
