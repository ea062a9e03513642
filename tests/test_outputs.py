"""Frames and videos of other programs: found, aligned in time, scored next to ours."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from selfhvd_tta.errors import InputError, UsageError
from selfhvd_tta.events import Event, Note
from selfhvd_tta.lab.datasets.frames import open_frames
from selfhvd_tta.lab.evaluation.bench import run_bench
from selfhvd_tta.lab.evaluation.outputs import Outputs, place
from tests.media import make_clip
from tests.test_bench import ONLY_FIDELITY, QUICK, make_set, save
from tests.test_cli import run


def moving(count: int = 12, height: int = 48, width: int = 64, seed: int = 3) -> np.ndarray:
    """(N, H, W, 3) uint8: a texture that moves by an irregular number of pixels per frame."""
    rng = np.random.default_rng(seed)
    wide = np.repeat(np.repeat(rng.integers(0, 256, (16, 60, 3), dtype=np.uint8), 4, 0), 4, 1)
    starts = np.cumsum(rng.integers(3, 12, count))
    return np.stack([wide[8 : 8 + height, s : s + width] for s in starts])


def numbered(folder: Path, clip: np.ndarray, first: int = 0) -> Path:
    save(folder, clip)
    if first:
        for path in sorted(folder.iterdir(), reverse=True):
            path.rename(folder / f"{int(path.stem) + first:08d}.png")
    return folder


def test_outputs_that_lack_frames_find_their_place_whatever_their_numbers(tmp_path: Path) -> None:
    clip = moving()
    observed = open_frames(numbered(tmp_path / "in", clip))
    expected = tuple((k, k + 2) for k in range(8))
    for name, first in (("own numbers", 2), ("from zero", 0), ("from one", 1)):
        placement = place(open_frames(numbered(tmp_path / name, clip[2:10], first)), observed)
        assert placement.pairs == expected, name
        assert "8 frames for 12" in placement.told
        assert "4 frames of the input not covered" in placement.told
    assert place(open_frames(numbered(tmp_path / "all", clip, 100)), observed).told == ""
    longer = open_frames(numbered(tmp_path / "longer", np.concatenate([clip[:1], clip])))
    assert place(longer, observed).pairs == tuple((k + 1, k) for k in range(12))


def test_videos_of_another_rate_are_aligned_by_time(tmp_path: Path) -> None:
    make_clip(tmp_path / "in.mp4", list(range(0, 8 * 512, 512)))
    make_clip(tmp_path / "half.mp4", list(range(0, 8 * 512, 1024)))
    placement = place(open_frames(tmp_path / "half.mp4"), open_frames(tmp_path / "in.mp4"))
    assert placement.pairs[:2] in (((0, 0), (1, 2)), ((0, 0), (1, 1)))  # the clip's pictures decide between the two
    assert len(placement.pairs) <= 8


def test_a_row_next_to_ours_scores_what_is_there(tmp_path: Path) -> None:
    root = make_set(tmp_path / "data", videos=2)
    for video in ("000", "001"):
        truth = np.stack(list(open_frames(root / "test" / video / "Sharp" / "RGB")))
        save(tmp_path / "theirs" / video, truth)
    perfect = Outputs("theirs", tmp_path / "theirs")
    alone = run_bench(root, tmp_path / "out", replace(ONLY_FIDELITY, outputs=(perfect,)), QUICK)
    assert list(alone.mean) == ["input", "theirs"]
    assert alone.mean["theirs"]["psnr"] == 100
    assert "seconds" not in alone.mean["theirs"]
    assert alone.mean["theirs"]["sharpness"] > 2 * alone.mean["input"]["sharpness"]
    assert "no network" in alone.markdown
    both = run_bench(root, tmp_path / "out", replace(ONLY_FIDELITY, outputs=(perfect,), methods=("transfer",)), QUICK)
    assert list(both.mean) == ["input", "transfer", "theirs"]
    (tmp_path / "theirs" / "001" / "00000003.png").unlink()
    told: list[Event] = []
    fewer = run_bench(root, tmp_path / "out", replace(ONLY_FIDELITY, outputs=(perfect,)), QUICK, told.append)
    assert any("7 frames for 8: aligned by" in e.text for e in told if isinstance(e, Note))
    assert fewer.mean["theirs"]["psnr"] == 100


def test_what_does_not_fit_is_said(tmp_path: Path) -> None:
    root = make_set(tmp_path / "data", videos=2)
    save(tmp_path / "theirs" / "000", np.zeros((8, 24, 28, 3), np.uint8))
    outputs = Outputs("theirs", tmp_path / "theirs")
    result = run_bench(root, tmp_path / "out", replace(ONLY_FIDELITY, outputs=(outputs,)), QUICK)
    assert "is 28x24, the input 56x48" in result.failed["000"]
    assert "theirs has nothing for 001" in result.failed["001"]
    with pytest.raises(UsageError, match="has no name"):
        Outputs.parse(str(tmp_path))
    with pytest.raises(UsageError, match="cannot name a row"):
        Outputs.parse(f"a|b={tmp_path}")
    with pytest.raises(InputError, match="no such folder"):
        Outputs.parse(f"x={tmp_path / 'nothing'}")
    with pytest.raises(UsageError, match="'transfer' is taken"):
        replace(ONLY_FIDELITY, outputs=(Outputs("transfer", tmp_path),))


def test_the_command(tmp_path: Path) -> None:
    root = make_set(tmp_path / "data", videos=1)
    common = ("bench", str(root), "-o", str(tmp_path / "out"), "--no-temporal", "--offline", "--device", "cpu")
    done = run(*common, "--outputs", f"same={root / 'test' / '000' / 'Blur' / 'RGB'}")
    assert done.returncode == 0, done.stderr
    saved = json.loads((tmp_path / "out" / "results.json").read_text())["mean"]
    assert saved["same"] == saved["input"]
    wrong = run(*common, "--outputs", str(root))
    assert wrong.returncode == 2
    assert "NAME=FOLDER" in wrong.stderr
