"""The benchmark as a whole on very small clips: what it scores, when it reads, how it goes on."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from importlib.machinery import ModuleSpec
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from selfhvd_tta.errors import InputError, Interrupted, UsageError
from selfhvd_tta.events import Event, Note
from selfhvd_tta.lab.datasets import frames as frames_module
from selfhvd_tta.lab.datasets.labels import read_labels
from selfhvd_tta.lab.datasets.photos import read_photo
from selfhvd_tta.lab.datasets.protocols import discover
from selfhvd_tta.lab.evaluation.bench import BenchSettings, run_bench
from selfhvd_tta.lab.evaluation.course import Course
from selfhvd_tta.lab.evaluation.dataset import write_dataset, write_regression_set
from selfhvd_tta.lab.evaluation.method import Subject
from selfhvd_tta.lab.evaluation.metrics.niqe import NIQE, asymmetric_gaussian
from selfhvd_tta.lab.evaluation.metrics.no_reference import load_measures
from selfhvd_tta.lab.evaluation.metrics.psnr import psnr
from selfhvd_tta.lab.evaluation.scanned import scan
from selfhvd_tta.lab.simulation.simulate import ShakeSettings
from selfhvd_tta.method.adaptation import Adaptation
from selfhvd_tta.pipeline import deblur
from selfhvd_tta.settings import AdaptationSettings, AlignmentSettings, OutputSettings, RuntimeSettings, Settings
from selfhvd_tta.video.color import BT709, YuvCoding, rgb_to_yuv
from selfhvd_tta.video.reader import VideoReader
from tests.conftest import shared_path
from tests.media import make_clip
from tests.tiny import blurry_clip

QUICK = Settings(
    backbone="estrnn:lite",
    alignment=AlignmentSettings(flow="dis", teachers=2),
    adaptation=AdaptationSettings(iters=2, crop=32, clip_length=4, perceptual_weight=0),
    runtime=RuntimeSettings(device="cpu", offline=True),
)
ONLY_FIDELITY = BenchSettings("bsd", temporal=False)


def save(folder: Path, clip: np.ndarray) -> None:
    folder.mkdir(parents=True)
    for i, frame in enumerate(clip):
        cv2.imwrite(str(folder / f"{i:08d}.png"), frame[..., ::-1])


def make_set(root: Path, videos: int = 2, count: int = 8) -> Path:
    """Blurry every frame but each third; the ground truth is the sharp picture."""
    for v in range(videos):
        clip = blurry_clip(count, seed=v)
        save(root / "test" / f"{v:03d}" / "Blur" / "RGB", clip)
        save(root / "test" / f"{v:03d}" / "Sharp" / "RGB", np.stack([clip[1]] * count))
    return root


def test_a_table_with_every_method(tmp_path: Path) -> None:
    root = make_set(tmp_path / "data")
    result = run_bench(root, tmp_path / "out", replace(ONLY_FIDELITY, temporal=True), QUICK)
    assert result.failed == {}
    assert list(result.mean) == ["input", "backbone", "adapted", "adapted+detail"]
    saved = json.loads((tmp_path / "out" / "results.json").read_text())
    assert saved["mean"] == result.mean
    assert saved["skipped_ends"] == [2, 2]
    assert (tmp_path / "out" / "results.md").read_text() == result.markdown
    row = saved["videos"][0]
    assert (row["video"], row["frames"], row["scored"], row["action"]) == ("000", 8, 4, "adapt")
    assert row["adaptation"]["steps"] == 2
    assert row["peak_memory"] > 2**20
    clip = blurry_clip(8, seed=0)
    assert row["methods"]["input"]["psnr"] == pytest.approx(
        np.mean([min(100, psnr(clip[i], clip[1])) for i in range(2, 6)])
    )
    assert {"ssim", "dadeblur_psnr", "warping_error", "flicker", "shift_p95", "seconds"} <= set(
        row["methods"]["adapted+detail"]
    )
    assert row["methods"]["input"]["shift_p95"] == 0
    for text in ("adapted+detail", "PSNR (DADeblur's)", "| 001 |", "2 steps"):
        assert text in result.markdown


def test_transfer_gains_on_blurry_frames(tmp_path: Path) -> None:
    root = make_set(tmp_path / "data", videos=1)
    result = run_bench(root, tmp_path / "out", ONLY_FIDELITY, replace(QUICK, method="transfer"))
    assert list(result.mean) == ["input", "transfer"]
    assert result.mean["transfer"]["psnr_blurry"] > result.mean["input"]["psnr_blurry"] + 3


def test_ground_truth_is_opened_after_the_last_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_set(tmp_path / "data", videos=1)
    order: list[str] = []
    run = Adaptation.run

    def watched(self: Adaptation, after_step: Callable[[bool], None]) -> object:
        record = run(self, after_step)
        order.append("adapted")
        return record

    def reading(path: Path) -> np.ndarray:
        order.append("truth" if "Sharp" in path.parts else "blurry")
        return read_photo(path)

    monkeypatch.setattr(Adaptation, "run", watched)
    monkeypatch.setattr(frames_module, "read_photo", reading)
    run_bench(root, tmp_path / "out", ONLY_FIDELITY, QUICK)
    assert "truth" in order
    assert "truth" not in order[: order.index("adapted")]


def test_ground_truth_cannot_change_the_output(tmp_path: Path) -> None:
    first = make_set(tmp_path / "a", videos=1)
    second = make_set(tmp_path / "b", videos=1)
    for path in (second / "test" / "000" / "Sharp" / "RGB").iterdir():
        cv2.imwrite(str(path), np.zeros((48, 56, 3), np.uint8))
    wanted = replace(ONLY_FIDELITY, save_frames=True)
    for root in (first, second):
        run_bench(root, root / "out", wanted, QUICK)
    for name in ("backbone", "adapted", "adapted+detail"):
        files = sorted((first / "out" / "frames" / "000" / name).iterdir())
        assert len(files) == 8
        for file in files:
            assert file.read_bytes() == (second / "out" / "frames" / "000" / name / file.name).read_bytes()


def test_goes_on_after_a_bad_video_and_does_not_repeat_good_ones(tmp_path: Path) -> None:
    root = make_set(tmp_path / "data", videos=3)
    (root / "test" / "001" / "Blur" / "RGB" / "00000003.png").write_bytes(b"no picture")
    (root / "test" / "002" / "Sharp" / "RGB" / "00000003.png").unlink()
    told: list[Event] = []
    result = run_bench(root, tmp_path / "out", ONLY_FIDELITY, QUICK, told.append)
    assert [row["video"] for row in result.videos] == ["000"]
    assert set(result.failed) == {"001", "002"}
    assert "00000003.png" in result.failed["001"]
    assert "## Failed" in result.markdown
    before = (tmp_path / "out" / "videos" / "000.json").stat().st_mtime_ns

    save_again = blurry_clip(8, seed=1)
    cv2.imwrite(str(root / "test" / "001" / "Blur" / "RGB" / "00000003.png"), save_again[3][..., ::-1])
    told.clear()
    again = run_bench(root, tmp_path / "out", ONLY_FIDELITY, QUICK, told.append)
    assert [row["video"] for row in again.videos] == ["000", "001"]
    assert again.videos[0] == result.videos[0]
    assert (tmp_path / "out" / "videos" / "000.json").stat().st_mtime_ns == before
    assert any(isinstance(e, Note) and "1 of 3 videos were finished before" in e.text for e in told)


@pytest.mark.parametrize("reason", [KeyboardInterrupt, Interrupted("stop")])
def test_an_interrupted_run_leaves_its_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: BaseException
) -> None:
    root = make_set(tmp_path / "data")
    run = Adaptation.run
    adapted: list[int] = []

    def interrupted(self: Adaptation, after_step: Callable[[bool], None]) -> object:
        if adapted:
            raise reason
        adapted.append(1)
        return run(self, after_step)

    monkeypatch.setattr(Adaptation, "run", interrupted)
    with pytest.raises((KeyboardInterrupt, Interrupted)):
        run_bench(root, tmp_path / "out", ONLY_FIDELITY, QUICK)
    saved = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [row["video"] for row in saved["videos"]] == ["000"]


def test_other_settings_are_another_run(tmp_path: Path) -> None:
    root = make_set(tmp_path / "data", videos=1)
    none = replace(QUICK, adaptation=replace(QUICK.adaptation, iters=0))
    first = run_bench(root, tmp_path / "out", ONLY_FIDELITY, none)
    assert list(first.mean) == ["input", "backbone"]
    second = run_bench(root, tmp_path / "out", replace(ONLY_FIDELITY, skip=(0, 0)), none)
    assert (first.videos[0]["scored"], second.videos[0]["scored"]) == (4, 8)


def test_every_video_starts_from_the_pretrained_weights(tmp_path: Path) -> None:
    """A video's figures do not depend on which one ran before it."""
    root = make_set(tmp_path / "data")
    strong = replace(QUICK, adaptation=replace(QUICK.adaptation, learning_rate=1e-2))
    both = run_bench(root, tmp_path / "both", ONLY_FIDELITY, strong)
    alone = run_bench(root, tmp_path / "alone", replace(ONLY_FIDELITY, videos=("001",)), strong)
    for name in ("backbone", "adapted"):
        assert alone.videos[0]["methods"][name]["psnr"] == both.videos[1]["methods"][name]["psnr"]
    assert both.mean["adapted"]["psnr"] != both.mean["backbone"]["psnr"]


def test_one_model_for_the_whole_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_set(tmp_path / "data")
    joint = replace(ONLY_FIDELITY, joint=True)
    first = run_bench(root, tmp_path / "out", joint, QUICK)
    assert first.failed == {}
    assert first.videos[0]["adaptation"] == first.videos[1]["adaptation"]
    (tmp_path / "out" / "videos" / "001.json").unlink()
    monkeypatch.setattr(Adaptation, "run", lambda self: pytest.fail("the joint model was there"))
    again = run_bench(root, tmp_path / "out", joint, QUICK)
    assert again.videos[1]["methods"]["adapted"]["psnr"] == first.videos[1]["methods"]["adapted"]["psnr"]


def test_joint_working_set_keeps_videos_apart(tmp_path: Path) -> None:
    pairs = discover()["bsd"].find(make_set(tmp_path / "data"), lambda text: None)
    subject = Subject(QUICK, lambda event: None)
    videos = [scan(p.blurry, QUICK.clues, lambda event: None) for p in pairs if p.blurry is not None]
    working = Course(videos, subject.settings, subject.gear).working(0)
    assert working.runs == (range(8), range(8, 16))
    assert working.clues.shots == working.runs
    assert all(working.clues.sharp[working.clues.nearest])
    assert set(working.clues.nearest[8:]) <= set(range(8, 16))
    assert np.array_equal(working.frames[9].permute(1, 2, 0).numpy(), list(pairs[1].blurry or ())[1])


def test_nothing_to_gain_is_passed_through(tmp_path: Path) -> None:
    still = np.stack([blurry_clip(8)[1]] * 8)
    save(tmp_path / "data" / "x" / "Blur" / "RGB", still)
    result = run_bench(tmp_path / "data", tmp_path / "out", ONLY_FIDELITY, QUICK)
    row = result.videos[0]
    assert row["action"] == "passed through"
    assert "adaptation" not in row
    assert "psnr" not in row["methods"]["input"]


def test_frames_of_different_sizes(tmp_path: Path) -> None:
    """RealBlur: outputs are cut back to each frame's own size before they are scored."""
    for i, frame in enumerate(blurry_clip(6)):
        cut = frame[: 48 - 2 * (i % 2), : 56 - 4 * (i % 3)]
        for side in ("blur", "gt"):
            path = tmp_path / "data" / "scene001" / side / f"{side}_{i + 1}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), cut)
    settings = replace(QUICK, force=True)
    result = run_bench(tmp_path / "data", tmp_path / "out", BenchSettings("realblur"), settings)
    assert result.failed == {}
    assert result.videos[0]["methods"]["input"]["psnr"] == 100


def test_video_files(tmp_path: Path) -> None:
    for side in ("blur", "sharp"):
        (tmp_path / "data" / side).mkdir(parents=True)
        make_clip(tmp_path / "data" / side / "x.mp4")
    make_clip(tmp_path / "data" / "blur" / "y.mp4")
    make_clip(tmp_path / "data" / "sharp" / "y.mp4", [0, 512, 1024])
    result = run_bench(tmp_path / "data", tmp_path / "out", BenchSettings("folder"), replace(QUICK, force=True))
    assert [row["video"] for row in result.videos] == ["x.mp4"]
    assert result.videos[0]["methods"]["input"]["psnr"] == 100
    methods = result.videos[0]["methods"]
    assert methods["adapted"]["dadeblur_psnr"] < methods["input"]["dadeblur_psnr"]
    assert "8 blurry frames, 3 sharp ones" in result.failed["y.mp4"]


def test_what_cannot_be_run_at_all(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown protocol"):
        run_bench(tmp_path, tmp_path / "out", BenchSettings("nonsense"), QUICK)
    with pytest.raises(InputError, match="no videos"):
        run_bench(tmp_path, tmp_path / "out", BenchSettings("bsd"), QUICK)
    with pytest.raises(InputError, match="no such folder"):
        run_bench(tmp_path / "x", tmp_path / "out", BenchSettings("bsd"), QUICK)
    make_set(tmp_path / "data", videos=1)
    with pytest.raises(InputError, match="no video is named"):
        run_bench(tmp_path / "data", tmp_path / "out", BenchSettings("bsd", videos=("9",)), QUICK)


class FakeMetric(torch.nn.Module):
    metric_mode = "NR"

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        assert picture.shape[:2] == (1, 3)
        assert picture.max() <= 1
        return picture.mean()


def test_measures_of_pyiqa(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("pyiqa")
    module.__spec__ = ModuleSpec("pyiqa", None)
    module.create_metric = lambda name, device: FakeMetric()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pyiqa", module)
    root = make_set(tmp_path / "data", videos=1)
    none = replace(QUICK, adaptation=replace(QUICK.adaptation, iters=0))
    told: list[Event] = []
    result = run_bench(root, tmp_path / "out", replace(ONLY_FIDELITY, metrics=("brightness",)), none, told.append)
    assert any("non-commercial use only" in e.text for e in told if isinstance(e, Note))
    clip = blurry_clip(8)
    assert result.mean["input"]["brightness"] == pytest.approx(clip[2:6].mean() / 255, abs=1e-3)
    assert "brightness" in result.markdown


def test_measures_of_a_package_that_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="pyiqa"):
        load_measures(("musiq",), torch.device("cpu"))
    assert load_measures((), torch.device("cpu")) == {}


SHAKE = ShakeSettings(width=64, height=48, frames=6, subframes=(5, 9))


def photos(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    folder.mkdir()
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(folder / name), cv2.resize(rng.integers(0, 256, (20, 24, 3), np.uint8), (240, 200)))
    return folder


def test_a_simulated_set_is_found_and_repeatable(tmp_path: Path) -> None:
    source = photos(tmp_path / "photos")
    first = write_dataset(source, tmp_path / "a", SHAKE, clips=3, seed=5)
    second = write_dataset(source, tmp_path / "b", SHAKE, clips=3, seed=5)
    pairs = discover()["bsd"].find(tmp_path / "a", lambda text: None)
    assert [p.name for p in pairs] == ["000", "001", "002"]
    for ours, theirs, pair in zip(first, second, pairs, strict=True):
        assert (ours / "labels.json").read_bytes() == (theirs / "labels.json").read_bytes()
        assert len(read_labels(ours)) == len(pair.blurry or ()) == len(pair.sharp or ()) == 6
        for side in ("Blur", "Sharp"):
            name = f"{side}/RGB/00000003.png"
            assert (ours / name).read_bytes() == (theirs / name).read_bytes()
    about = [json.loads((f / "labels.json").read_text()) for f in first]
    assert [a["photo"] for a in about] == ["a.png", "b.png", "a.png"]
    assert [a["seed"] for a in about] == [5, 6, 7]
    with pytest.raises(UsageError, match="exists"):
        write_dataset(source, tmp_path / "a", SHAKE)


def test_no_photographs_no_set(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no photographs"):
        write_dataset(tmp_path, tmp_path / "out", SHAKE)


def test_the_regression_set_is_found_by_its_protocol(tmp_path: Path) -> None:
    folders = write_regression_set(tmp_path, 64, 48, 4, ["camera", "texture", "object"])
    assert [f.name for f in folders] == ["camera", "texture", "object"]
    assert len(discover()["bsd"].find(tmp_path, lambda text: None)) == 3


def test_asymmetric_gaussian_finds_what_was_drawn() -> None:
    rng = np.random.default_rng(0)
    # Continuous at zero, so that a side's share goes with its width.
    draw = np.abs(rng.standard_normal(200_000))
    shape, left, right = asymmetric_gaussian(np.where(rng.random(draw.size) < 1 / 3, -draw, 2 * draw))
    # For a Gaussian the scale is sigma * sqrt(2) and the shape is 2.
    assert shape == pytest.approx(2, abs=0.15)
    assert right / left == pytest.approx(2, abs=0.02)
    assert left == pytest.approx(2**0.5, abs=0.1)


def test_niqe_prefers_the_photograph(tmp_path: Path) -> None:
    from selfhvd_tta.lab.datasets.photos import bundled_photo

    measure = NIQE.load(shared_path("weights/niqe_pris_params.npz"))
    photo = bundled_photo("astronaut.png")[:384, :384]
    assert 1 < measure(photo) < 6
    assert measure(cv2.GaussianBlur(photo, (0, 0), 3)) > measure(photo) + 1
    assert np.isnan(measure(photo[:50]))
    (tmp_path / "x.npz").write_bytes(b"nothing")
    with pytest.raises(InputError, match="NIQE"):
        NIQE.load(tmp_path / "x.npz")


def test_the_benchmark_runs_what_deblur_runs(tmp_path: Path) -> None:
    """Without chroma subsampling and loss, the product writes what the benchmark scores, but for rounding to YUV."""
    clip = blurry_clip(8)
    coding = YuvCoding(matrix=BT709, full_range=False, bits=8, sub_x=0, sub_y=0)
    source = tmp_path / "data" / "blur" / "x.mkv"
    source.parent.mkdir(parents=True)
    make_clip(
        source,
        [33 * i for i in range(8)],
        Fraction(1, 1000),
        codec="ffv1",
        pix_fmt="yuv444p",
        size=(56, 48),
        color=(1, 1, 1, 1),
        planes=lambda index, width, height, pix_fmt: tuple(rgb_to_yuv(clip[index], coding)),
    )
    settings = replace(QUICK, output=OutputSettings(codec="ffv1"))
    deblur(source, tmp_path / "out.mkv", settings)
    result = run_bench(tmp_path / "data", tmp_path / "b", BenchSettings("folder", save_frames=True), settings)
    assert result.videos[0]["action"] == "adapt"
    folder = tmp_path / "b" / "frames" / "x.mkv" / "adapted+detail"
    written = list(VideoReader(tmp_path / "out.mkv"))
    assert len(written) == 8
    for frame in written:
        gap = np.abs(read_photo(folder / f"{frame.index:08d}.png").astype(int) - frame.rgb)
        assert gap.max() <= 3
        assert gap.mean() < 0.7


def test_labels_of_the_data_set_split_the_scores(tmp_path: Path) -> None:
    root = make_set(tmp_path / "data", videos=1)
    folder = root / "test" / "000"
    sharp = [i % 3 == 1 for i in range(8)]
    (folder / "labels.json").write_text(json.dumps({"sharp": sharp}))
    told: list[Event] = []
    plan = replace(ONLY_FIDELITY, skip=(0, 0))
    result = run_bench(root, tmp_path / "out", plan, replace(QUICK, method="transfer"), told.append)
    clip = blurry_clip(8, seed=0)
    blurry = [psnr(clip[i], clip[1]) for i in range(8) if not sharp[i]]
    one = result.mean["input"]
    assert one["psnr_blurry"] == pytest.approx(np.mean(blurry))
    assert (one["psnr_sharp"], one["sharp_kept"], one["worst_gain"]) == (100, 100, 0)
    transfer = result.mean["transfer"]
    assert 0 < transfer["worst_gain"] < transfer["psnr_blurry"] - one["psnr_blurry"]
    assert transfer["sharp_kept"] <= 100
    lines = [e.text for e in told if isinstance(e, Note) and e.text.startswith("000, transfer: PSNR ")]
    assert len(lines) == 1, "the row is told as soon as it is there"
    assert f"PSNR of blurry frames {transfer['psnr_blurry']:.2f}" in lines[0]

    # The blurry frames of a recording by the number of frames joined; other labels are another benchmark.
    (folder / "labels.json").write_text(json.dumps({"exposure_subframes": [7] * 8}))
    again = run_bench(root, tmp_path / "out", plan, replace(QUICK, method="transfer"))
    assert "psnr_sharp" not in again.mean["input"]
    assert again.mean["input"]["psnr_blurry"] == again.mean["input"]["psnr"]


@pytest.mark.parametrize(
    ("labels", "problem"), [('{"sharp": [true]}', "1 labels for 8 frames"), ("{", "cannot be read")]
)
def test_labels_that_do_not_fit_are_said(tmp_path: Path, labels: str, problem: str) -> None:
    root = make_set(tmp_path / "data")
    (root / "test" / "001" / "labels.json").write_text(labels)
    result = run_bench(root, tmp_path / "out", ONLY_FIDELITY, replace(QUICK, method="transfer"))
    assert [row["video"] for row in result.videos] == ["000"]
    assert problem in result.failed["001"]
