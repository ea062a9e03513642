"""DADeblur's evaluation: five frames per output, means over frames, and its pairs on RealBlur."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from selfhvd_tta import backbones
from selfhvd_tta.backbones.wrapper import Network
from selfhvd_tta.errors import InputError
from selfhvd_tta.lab.datasets.frames import PictureFrames, open_frames
from selfhvd_tta.lab.datasets.protocols import centred_windows, discover
from selfhvd_tta.lab.evaluation import table
from selfhvd_tta.lab.evaluation.bench import run_bench
from tests.test_bench import ONLY_FIDELITY, QUICK, make_set, save
from tests.tiny import blurry_clip, drift, small_estrnn


def names(count: int) -> PictureFrames:
    return PictureFrames([Path(f"{i}.png") for i in range(1, count + 1)], "scene")


def test_a_window_is_restored_from_its_frames_alone() -> None:
    network, _ = small_estrnn()
    clip = torch.rand(1, 7, 3, 16, 20)
    output = network.middle(clip[:, 1:6])
    assert output.shape == (1, 3, 16, 20)
    stream = network.raw(clip[:, 1:6] - 0.5) + 0.5  # five frames, nothing reflected, give one output
    assert torch.allclose(output, stream[:, 0], atol=1e-6)
    assert not torch.allclose(output, network(clip[:, 1:6])[:, 2], atol=1e-5), "the recurrent state starts empty"
    other, _ = drift()
    assert torch.allclose(other.middle(clip), other(clip)[:, 3], atol=1e-6)
    with pytest.raises(ValueError, match="3 frames"):
        network.middle(clip[:, :3])


def test_windows_of_a_video() -> None:
    windows = centred_windows(names(7))
    assert windows == [(0, 1, 2, 3, 4)] * 3 + [(1, 2, 3, 4, 5)] + [(2, 3, 4, 5, 6)] * 3
    with pytest.raises(InputError, match="has 4 frames"):
        centred_windows(names(4))


def test_realblur_is_paired_as_its_loader_does() -> None:
    windows = discover()["realblur"].windows(names(12))
    as_text = [1, 10, 11, 12, 2, 3, 4, 5, 6, 7, 8, 9]
    shown = {place: windows[number - 1] for place, number in enumerate(as_text)}
    middle = {place: window[2] + 1 for place, window in shown.items()}
    assert [middle[place] for place in (0, 1, 10, 11)] == [11, 2, 7, 7], "other frames than their truths"
    assert all(middle[place] == as_text[place] for place in range(2, 10))
    assert shown[4] == tuple(number - 1 for number in (11, 12, 2, 3, 4))
    with pytest.raises(InputError, match="has 6 frames"):
        discover()["realblur"].windows(names(6))


def test_means_over_frames() -> None:
    rows = [
        {"scored": 1, "methods": {"input": {"psnr": 10.0, "worst_gain": 3.0}}},
        {"scored": 3, "methods": {"input": {"psnr": 30.0, "worst_gain": 1.0}}},
    ]
    assert table.mean_of(rows) == {"input": {"psnr": 20.0, "worst_gain": 1.0}}
    assert table.mean_of(rows, by_frames=True) == {"input": {"psnr": 25.0, "worst_gain": 1.0}}


def test_the_benchmark(tmp_path: Path) -> None:
    root = make_set(tmp_path / "data", videos=1)
    none = replace(QUICK, adaptation=replace(QUICK.adaptation, iters=0))
    bench = replace(ONLY_FIDELITY, save_frames=True)
    theirs = run_bench(root, tmp_path / "theirs", replace(bench, as_dadeblur=True), none)
    ours = run_bench(root, tmp_path / "ours", bench, none)
    assert list(theirs.mean) == ["input", "backbone"]
    assert theirs.mean["input"] == ours.mean["input"]
    assert "as DADeblur evaluates" in theirs.markdown
    written = [np.stack(list(open_frames(r.folder / "frames" / "000" / "backbone"))) for r in (theirs, ours)]
    assert len(written[0]) == 8
    assert np.array_equal(written[0][0], written[0][2]), "the ends show the nearest whole window"
    save(tmp_path / "short" / "000" / "Blur" / "RGB", blurry_clip(4))
    failed = run_bench(tmp_path / "short", tmp_path / "x", replace(bench, as_dadeblur=True, skip=(0, 0)), none)
    assert "has 4 frames" in failed.failed["000"]


def test_a_network_of_another_kind_is_refused() -> None:
    rvrt = backbones.discover()["rvrt"]
    network = Network(torch.nn.Identity(), rvrt, rvrt.variants[0])
    with pytest.raises(ValueError, match="rvrt"):
        network.middle(torch.rand(1, 5, 3, 8, 8))
