"""The baseline after DADeblur: which patches it blurs, and how."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from selfhvd_tta.errors import InputError
from selfhvd_tta.events import Event, Note
from selfhvd_tta.flows import FlowEstimator, FlowField
from selfhvd_tta.lab.evaluation.bench import run_bench
from selfhvd_tta.lab.evaluation.reblur import RelativelySharp
from selfhvd_tta.method.pace import Pace
from selfhvd_tta.method.restoration import Compute
from selfhvd_tta.method.state import AdaptationState
from selfhvd_tta.method.supervision import Inputs
from tests.test_bench import ONLY_FIDELITY, QUICK, save
from tests.tiny import Still, small_estrnn, working_set

SPEEDS = (0, 0, 0, 12, 12, 12, 12, 0, 0, 0, 0, 12, 12)  # pixels to the next frame, except for the last one


def moving() -> np.ndarray:
    """(13, 48, 96, 3) uint8: a texture that rests or moves to the left by 12 px per frame, shutter half open."""
    rng = np.random.default_rng(0)
    wide = cv2.resize(rng.integers(0, 256, (24, 200, 3), dtype=np.uint8), (400, 48))
    frames, place = [], 4
    for speed in SPEEDS:
        shown = np.mean([wide[:, place + t : place + t + 96] for t in range(-speed // 4, speed // 4 + 1)], 0)
        frames.append(shown.astype(np.uint8))
        place += speed
    return np.stack(frames)


class Known(FlowEstimator):
    """Knows how far the content of two neighbours lies apart, by finding it."""

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> FlowField:
        shifts = range(-13, 14)
        errors = [
            float((source[..., 14:-14] - target[..., 14 + s : target.shape[-1] - 14 + s]).abs().mean()) for s in shifts
        ]
        flow = torch.zeros_like(source[:, :2])
        flow[:, 0] = float(shifts[int(np.argmin(errors))])
        return FlowField(flow, torch.ones_like(source[:, :1]))


def supervision(estimator: FlowEstimator, told: list[Event]) -> RelativelySharp:
    network, backbone = small_estrnn()
    inputs = Inputs(network, backbone, working_set(moving()), estimator, None, Compute(torch.device("cpu")), 10)
    state = AdaptationState(np.random.default_rng(1))
    return RelativelySharp(inputs, QUICK, state, Pace(2, 0.5, phases=RelativelySharp.phases), told.append)


def test_parts_at_rest_get_the_blur_of_parts_that_move() -> None:
    told: list[Event] = []
    made = supervision(Known(), told)
    assert made.prepare(False)
    assert any("are blurred like the others" in e.text for e in told if isinstance(e, Note))
    assert {patch.row for patch in made.sharp} <= {0, 1, 2, 8, 9, 10}
    assert {patch.row for patch in made.blurry} >= {4, 5, 6, 12}
    assert max(patch.blur for patch in made.sharp) < 0.5
    frames = made.inputs.working.frames
    for _ in range(10):
        clip, truth, place = made.pair()
        assert clip.shape == (4, 3, 32, 32)
        assert truth.shape == (3, 32, 32)
        change = (clip[place] - truth).abs().mean()
        assert 0.01 < change < 0.3
        assert clip[place].diff(dim=-1).abs().mean() + clip[place].diff(dim=-2).abs().mean() < (
            truth.diff(dim=-1).abs().mean() + truth.diff(dim=-2).abs().mean()
        )
        codes = (truth * 255).round()
        assert torch.allclose(codes, truth * 255, atol=1e-3), "the truth is as recorded"
        assert codes.min() >= 0
        assert codes.max() <= frames.max()


def test_one_frame_of_a_clip_counts() -> None:
    made = supervision(Known(), [])
    made.prepare(False)
    lesson = made.lesson(False)
    assert lesson.clip.shape == (1, 4, 3, 32, 32)
    output = lesson.clip.clone().requires_grad_()
    lesson.terms(output)["loss"].backward()
    touched = output.grad.abs().amax(dim=(0, 2, 3, 4)) > 0
    assert touched.sum() == 1


def test_without_motion_there_is_nothing_to_learn() -> None:
    with pytest.raises(InputError, match="no blur was found"):
        supervision(Still(), []).prepare(False)


def test_the_row(tmp_path: Path) -> None:
    save(tmp_path / "data" / "000" / "Blur" / "RGB", moving())
    bench = replace(ONLY_FIDELITY, methods=("reblur",), skip=(0, 0), save_frames=True)
    result = run_bench(tmp_path / "data", tmp_path / "out", bench, replace(QUICK, force=True))
    assert result.failed == {}
    assert list(result.mean) == ["input", "backbone", "reblur"]
    assert result.videos[0]["action"] == "reblur"
    assert "method reblur" in result.markdown
    first, second = (
        sorted((tmp_path / "out" / "frames" / "000" / name).iterdir())[4].read_bytes()
        for name in ("backbone", "reblur")
    )
    assert first != second
