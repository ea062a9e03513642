"""One network for many videos: what it is shown, how it resumes, and what it is tested on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from selfhvd_tta.errors import InputError, Interrupted, UsageError
from selfhvd_tta.events import Event, Note, Progress
from selfhvd_tta.lab.evaluation import course as course_module
from selfhvd_tta.lab.evaluation.bench import run_bench
from selfhvd_tta.lab.evaluation.course import Course
from selfhvd_tta.lab.evaluation.learning import find_videos, learn
from selfhvd_tta.lab.evaluation.method import Subject, follow
from selfhvd_tta.lab.evaluation.scanned import Scanned, scan
from selfhvd_tta.run.networks import load_backbone
from selfhvd_tta.settings import ClueSettings, Settings
from selfhvd_tta.weights import load_file
from tests.test_bench import ONLY_FIDELITY, QUICK, make_set, save
from tests.test_cli import run
from tests.tiny import blurry_clip

SHORT = replace(QUICK, detail=False, clues=ClueSettings(segment=4))


def scanned(folder: Path, settings: Settings = SHORT) -> list[Scanned]:
    return [scan(p.blurry, settings.clues, lambda _: None) for p in find_videos(folder) if p.blurry is not None]


def camera(folder: Path, sizes: tuple[tuple[int, int], ...] = ((48, 56), (48, 56), (40, 64))) -> Path:
    for i, (height, width) in enumerate(sizes):
        save(folder / f"clip{i}", blurry_clip(12, height, width, seed=i))
    return folder


def steps(settings: Settings, count: int) -> Settings:
    return replace(settings, adaptation=replace(settings.adaptation, iters=count))


def test_a_pass_shows_every_segment_of_every_size_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(course_module, "working_set_limit", lambda *_: 8)
    subject = Subject(steps(SHORT, 80), lambda _: None)
    course = Course(scanned(camera(tmp_path / "in")), subject.settings, subject.gear)
    assert (course.sets, course.steps, course.seen) == (5, 10, 5)
    for first in (0, 5):
        shown: dict[tuple[int, int], list[np.ndarray]] = {}
        for turn in range(first, first + 5):
            working = course.working(turn)
            assert len(working) <= 8
            size = (int(working.frames.shape[-2]), int(working.frames.shape[-1]))
            shown.setdefault(size, []).extend(working.frames.permute(0, 2, 3, 1).numpy())
        assert {size: len(frames) for size, frames in shown.items()} == {(48, 56): 24, (40, 64): 12}
        wanted = np.sort([frame.astype(int).sum() for seed in (0, 1) for frame in blurry_clip(12, seed=seed)])
        assert np.array_equal(np.sort([frame.astype(int).sum() for frame in shown[48, 56]]), wanted)
    numbers = [course.working(turn).numbers for turn in range(10)]
    assert numbers[:5] != numbers[5:], "another order in the second pass"


def test_the_historical_model_outlives_a_working_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(course_module, "working_set_limit", lambda *_: 8)
    subject = Subject(steps(SHORT, 22), lambda _: None)
    course = Course(scanned(camera(tmp_path / "in")), subject.settings, subject.gear)
    adaptation = subject.adaptation(course)
    history, shown = [], set()

    def look(_: bool) -> None:
        state = adaptation.state
        if state.history:
            history.append(next(iter(state.history.values())).clone())
        shown.add(adaptation.inputs.working.numbers)

    record = follow(course, adaptation, look)
    assert len(record.steps) == 22
    assert len(shown) == 3, "a working set for every ten steps"
    assert len(history) == 11, "from the first step of stage 2 on"
    assert record.renewals > 0 or all(torch.equal(h, history[0]) for h in history)


def test_an_interrupted_run_resumes_with_the_same_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(course_module, "working_set_limit", lambda *_: 8)
    folder, settings = camera(tmp_path / "in"), steps(SHORT, 14)
    whole = learn(folder, tmp_path / "whole.safetensors", settings)

    def stop(event: Event) -> None:
        if isinstance(event, Progress) and event.phase == "stage 2" and event.done == 5:
            raise Interrupted("here")

    with pytest.raises(Interrupted, match="kept"):
        learn(folder, tmp_path / "parts.safetensors", settings, listen=stop)
    assert not (tmp_path / "parts.safetensors").exists()
    told: list[Event] = []
    parts = learn(folder, tmp_path / "parts.safetensors", settings, listen=told.append)
    assert any("continuing" in e.text for e in told if isinstance(e, Note))
    a, b = (load_file(one.output).tensors for one in (whole, parts))
    assert all(torch.allclose(a[name], b[name], atol=1e-6) for name in a)
    assert not list(tmp_path.glob(".*.job"))


def test_what_was_learned_is_saved_scored_and_used(tmp_path: Path) -> None:
    val = make_set(tmp_path / "val", videos=1)
    told: list[Event] = []
    done = learn(camera(tmp_path / "in"), tmp_path / "mine.safetensors", steps(SHORT, 4), val, told.append)
    assert (done.videos, len(done.record.steps)) == (3, 4)
    assert list(done.scores) == ["input", "backbone", "learned"]
    assert done.scores["learned"]["psnr"] != done.scores["backbone"]["psnr"]
    with_them = replace(QUICK, backbone="auto", adapted=str(done.output))
    network = load_backbone(with_them, torch.device("cpu"), lambda _: None)
    stored = load_file(done.output)
    assert "3 videos of in" in stored.config["trained_on"]
    assert all(torch.equal(stored.tensors[name], tensor) for name, tensor in network.state_dict().items())
    table = run_bench(val, tmp_path / "out", replace(ONLY_FIDELITY, skip=(0, 0)), steps(with_them, 2))
    assert table.mean["backbone"]["psnr"] == pytest.approx(done.scores["learned"]["psnr"], abs=1e-3)
    assert "adapted" in table.mean


def test_trained_on_one_set_and_tested_on_another(tmp_path: Path) -> None:
    train, test = make_set(tmp_path / "train", videos=2), make_set(tmp_path / "test", videos=1)
    bench = replace(ONLY_FIDELITY, train=train)
    result = run_bench(test, tmp_path / "out", bench, SHORT)
    assert result.failed == {}
    assert list(result.mean) == ["input", "backbone", "learned"]
    assert result.mean["learned"]["psnr"] != result.mean["backbone"]["psnr"]
    assert "one model learned from train" in result.markdown
    with pytest.raises(UsageError, match="--train"):
        run_bench(test, tmp_path / "out", replace(bench, methods=("transfer",)), SHORT)


def test_what_cannot_be_learned(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        learn(tmp_path / "nothing", tmp_path / "x.safetensors", SHORT)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no videos were found"):
        learn(tmp_path / "empty", tmp_path / "x.safetensors", SHORT)
    with pytest.raises(UsageError, match="wrong type"):
        learn(tmp_path, tmp_path / "x.pt", SHORT)
    with pytest.raises(UsageError, match="--iters is 0"):
        learn(tmp_path, tmp_path / "x.safetensors", steps(SHORT, 0))
    still = np.stack([blurry_clip(2)[1]] * 8)
    save(tmp_path / "still" / "one", still)
    told: list[Event] = []
    with pytest.raises(InputError, match="nothing to learn"):
        learn(tmp_path / "still", tmp_path / "x.safetensors", SHORT, listen=told.append)
    assert any("one: left out" in e.text for e in told if isinstance(e, Note))
    assert not list(tmp_path.glob(".*.job"))


def test_the_command(tmp_path: Path) -> None:
    camera(tmp_path / "in", ((48, 56),))
    cv2.imwrite(str(tmp_path / "in" / "note.png"), np.zeros((4, 4, 3), np.uint8))  # not a video
    arguments = ("learn", str(tmp_path / "in"), "-o", str(tmp_path / "x.safetensors"), "--iters", "1", "--crop", "32")
    done = run(*arguments, "--backbone", "estrnn:lite", "--flow", "dis", "--offline", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert "--adapted" in done.stdout
    again = run(*arguments)
    assert again.returncode == 2
    assert "exists already" in again.stderr
