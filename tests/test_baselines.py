"""Several methods beside each other in one table, and the baselines among them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from selfhvd_tta.errors import UsageError
from selfhvd_tta.events import Event, Note
from selfhvd_tta.lab.evaluation import trial
from selfhvd_tta.lab.evaluation.bench import METHODS, BenchSettings, run_bench
from selfhvd_tta.lab.evaluation.unsharp import Unsharp
from selfhvd_tta.method.refit import ReblurredSupervision
from tests.commands import run
from tests.test_bench import ONLY_FIDELITY, QUICK, make_set, save
from tests.tiny import blurry_clip

# Clips here are still, so there is no motion blur that reblur could take from one place to another.
RUN = tuple(name for name in METHODS if name != "reblur")
ALL = replace(ONLY_FIDELITY, methods=RUN)


def test_unsharp_masking_is_what_its_formula_says() -> None:
    frame = blurry_clip(1)[0]
    values = frame / 255.0
    low = cv2.GaussianBlur(values, (0, 0), 2.0, borderType=cv2.BORDER_REPLICATE)
    out = Unsharp(2.0, 1.5).apply(frame)
    assert np.allclose(out, np.clip(values + 1.5 * (values - low), 0, 1), atol=1e-5)
    assert out.dtype == np.float32
    flat = np.full((9, 9, 3), 77, np.uint8)
    assert np.allclose(Unsharp().apply(flat), 77 / 255)
    with pytest.raises(UsageError, match="--unsharp"):
        Unsharp(0, 1)


def test_all_methods_in_one_table_and_each_is_run_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_set(tmp_path / "data", videos=1)
    result = run_bench(root, tmp_path / "out", ALL, QUICK)
    assert result.failed == {}
    names = ["input", "unsharp", "backbone", "refit", "transfer", "adapted", "adapted+detail"]
    assert list(result.mean) == names
    row = result.videos[0]
    assert list(row["runs"]) == list(RUN)
    assert [row["runs"][name]["action"] for name in RUN] == list(RUN)
    assert row["runs"]["refit"]["adaptation"]["steps"] == row["runs"]["adapt"]["adaptation"]["steps"] == 2
    assert "refit: learning, s" in result.markdown
    for name in names:
        assert f"| {name} |" in result.markdown
    assert len({row["methods"][name]["psnr"] for name in names}) == 7

    # Alone, each gives what it gives beside the others, and what is there is taken.
    alone = run_bench(root, tmp_path / "alone", ONLY_FIDELITY, replace(QUICK, method="refit"))
    assert list(alone.mean) == ["input", "backbone", "refit"]
    for name, scores in alone.mean.items():
        assert scores["psnr"] == result.mean[name]["psnr"]
    monkeypatch.setattr(trial, "run_video", lambda *_: pytest.fail("all methods were finished"))
    told: list[Event] = []
    again = run_bench(root, tmp_path / "out", ALL, QUICK, told.append)
    assert again.videos == result.videos
    assert any(isinstance(e, Note) and "1 of 1 videos were finished before" in e.text for e in told)


def test_methods_come_one_after_the_other_into_one_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_set(tmp_path / "data", videos=1)
    run_bench(root, tmp_path / "out", ONLY_FIDELITY, replace(QUICK, method="transfer"))
    # The input is scored once: the second run takes what the first one knows.
    scored: list[str] = []
    inputs = trial._Scoring.inputs
    monkeypatch.setattr(trial._Scoring, "inputs", lambda self: scored.append("input") or inputs(self))
    both = run_bench(root, tmp_path / "out", replace(ONLY_FIDELITY, methods=("unsharp", "transfer")), QUICK)
    assert list(both.mean) == ["input", "unsharp", "transfer"]
    assert scored == []
    saved = json.loads((tmp_path / "out" / "videos" / "000.json").read_text())
    assert set(saved) == {"transfer", "unsharp"}
    stronger = replace(ONLY_FIDELITY, methods=("unsharp",), unsharp=Unsharp(1.0, 2.0))
    other = run_bench(root, tmp_path / "out", stronger, QUICK)
    assert other.mean["unsharp"]["psnr"] != both.mean["unsharp"]["psnr"]


def test_a_method_that_fails_leaves_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: ReblurredSupervision, *_: object) -> None:
        raise RuntimeError("no such luck")

    monkeypatch.setattr(ReblurredSupervision, "lesson", broken)
    root = make_set(tmp_path / "data", videos=1)
    few = replace(ONLY_FIDELITY, methods=("transfer", "refit"))
    result = run_bench(root, tmp_path / "out", few, QUICK)
    assert list(result.mean) == ["input", "transfer"]
    assert result.failed == {"000": "no such luck"}


def test_one_refitted_model_for_the_whole_set(tmp_path: Path) -> None:
    root = make_set(tmp_path / "data")
    joint = replace(ONLY_FIDELITY, joint=True, methods=("refit", "adapt"))
    result = run_bench(root, tmp_path / "out", joint, QUICK)
    assert result.failed == {}
    assert {"joint.safetensors", "joint-refit.safetensors"} <= {p.name for p in (tmp_path / "out").iterdir()}
    with pytest.raises(UsageError, match="--method unsharp has none"):
        run_bench(root, tmp_path / "out", replace(joint, methods=("all",)), QUICK)


def test_unsharp_does_not_ask_whether_there_is_anything_to_learn(tmp_path: Path) -> None:
    save(tmp_path / "data" / "x" / "Blur" / "RGB", np.stack([blurry_clip(8)[1]] * 8))
    result = run_bench(tmp_path / "data", tmp_path / "out", replace(ALL, temporal=True), QUICK)
    row = result.videos[0]
    assert row["runs"]["unsharp"]["action"] == "unsharp"
    assert row["runs"]["adapt"]["action"] == row["runs"]["refit"]["action"] == "passed through"
    assert "(passed through: transfer, refit, adapt)" in result.markdown


def test_names_of_methods() -> None:
    with pytest.raises(UsageError, match="--method is 'sharpen'"):
        BenchSettings("bsd", methods=("sharpen",))
    assert BenchSettings("bsd").chosen(QUICK) == ("adapt",)
    assert BenchSettings("bsd", methods=("adapt", "transfer")).chosen(QUICK) == ("transfer", "adapt")


def test_on_the_command_line(tmp_path: Path) -> None:
    root = make_set(tmp_path / "data", videos=1)
    common = ["bench", root, "-o", tmp_path / "out", "--no-temporal", "--flow", "dis:ultrafast", "--device", "cpu"]
    done = run(*common, "--method", "unsharp", "--method", "transfer", "--unsharp", "1", "0.5")
    assert done.returncode == 0, done.stderr
    assert "| unsharp |" in done.stdout
    assert "| transfer |" in done.stdout
    wrong = run(*common, "--method", "sharpen")
    assert wrong.returncode == 2
    assert "--method is 'sharpen'" in wrong.stderr
