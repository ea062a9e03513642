"""The baseline that learns from sharp frames blurred again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import selfhvd_tta
from selfhvd_tta.errors import Interrupted, UsageError
from selfhvd_tta.events import Event, Note, Progress, ignore
from selfhvd_tta.flows import discover
from selfhvd_tta.flows.blur_path import BlurPath
from selfhvd_tta.method.adaptation import Adaptation
from selfhvd_tta.method.checkpoint import Checkpoint, capture, resume
from selfhvd_tta.method.refit import ReblurredSupervision, from_linear, kernel, measured_paths, reblurred, to_linear
from selfhvd_tta.method.restoration import Compute, Restorer
from selfhvd_tta.method.sampling import Draw
from selfhvd_tta.settings import AdaptationSettings, RuntimeSettings, Settings
from tests.media import shaky_file
from tests.test_pipeline import QUICK
from tests.test_resume import Stopper
from tests.tiny import adaptation_of, blurry_clip

CPU = Compute(torch.device("cpu"))
PLAN = AdaptationSettings(iters=10, crop=24, clip_length=4, learning_rate=1e-3, label_refresh=3)


def refit(plan: AdaptationSettings = PLAN, clip: np.ndarray | None = None, listen=ignore, flow=None) -> Adaptation:
    settings = Settings(method="refit", adaptation=plan)
    return adaptation_of(blurry_clip(9, 32, 40) if clip is None else clip, settings, listen, flow)


def supervision_of(run: Adaptation) -> ReblurredSupervision:
    assert isinstance(run.supervision, ReblurredSupervision)
    return run.supervision


def test_light_there_and_back() -> None:
    codes = torch.linspace(0, 1, 256)
    assert torch.allclose(from_linear(to_linear(codes)), codes, atol=1e-6)


@pytest.mark.parametrize("path", [BlurPath(), BlurPath((3, -1)), BlurPath((0.5, 8), (2, -1))])
def test_a_kernel_has_the_moments_of_its_path(path: BlurPath) -> None:
    weights = kernel(path).double()
    reach = weights.shape[0] // 2
    steps = torch.arange(-reach, reach + 1)
    assert float(weights.sum()) == pytest.approx(1, abs=1e-5)
    centre = (float((weights.sum(0) * steps).sum()), float((weights.sum(1) * steps).sum()))
    assert centre == pytest.approx([b / 3 for b in path.bend], abs=0.02), "mid-exposure is at the centre"


def test_blurred_in_linear_light_by_what_lies_beside_the_crop() -> None:
    frame = torch.zeros(3, 9, 20, dtype=torch.uint8)
    frame[..., 10:] = 255
    out = reblurred(frame, (2, 4, 5, 6), kernel(BlurPath((4.0, 0.0))))
    assert out.shape == (3, 5, 6)
    assert out[:, :, 0].max() == 0
    # One pixel before the edge about three eighths of the exposure see white: 0.65 as an sRGB value, not 0.375.
    assert float(out[0, 2, 5]) == pytest.approx(float(from_linear(torch.tensor(3.5 / 8))), abs=0.03)


def test_a_crop_equals_the_same_part_of_the_whole() -> None:
    frame = torch.from_numpy(blurry_clip(1)[0]).permute(2, 0, 1)
    weights = kernel(BlurPath((3.0, 2.0), (1.0, 0.0)))
    whole = reblurred(frame, (0, 0, 48, 56), weights)
    assert torch.allclose(reblurred(frame, (7, 30, 20, 26), weights), whole[:, 7:27, 30:56], atol=1 / 255)


def test_pairs_are_sharp_frames_and_their_blurred_selves() -> None:
    supervision = supervision_of(refit())
    learner = np.flatnonzero(supervision.sources).tolist()
    assert learner == [1, 4, 7]
    rows = (0, 1, 2, 3, 4)
    clip, truth, weight = supervision.pair(Draw(rows, rows, (0, 0, 32, 40), 0, False))
    for p, row in enumerate(rows):
        same = torch.equal(clip[p], truth[p])
        assert same == (weight[p] < 1)
        assert (weight[p] > 0) == (row in learner)
        assert torch.equal(truth[p], supervision.inputs.working.observed(row, CPU.device)[0])
    assert weight.max() == 1


def test_it_learns_to_undo_the_blur() -> None:
    events: list[Event] = []
    clip = torch.from_numpy(blurry_clip(9, 32, 40)).permute(0, 3, 1, 2).float() / 255
    blurry = [i for i in range(9) if i % 3 != 1]

    def error() -> float:
        out = torch.stack(list(Restorer(run.network, run.inputs.backbone, CPU, 9).restore(iter(clip))))
        return float((out[blurry] - clip[1]).abs().mean())

    run = refit(replace(PLAN, iters=80, learning_rate=5e-3, crop=32, clip_length=6), listen=events.append)
    before = error()
    record = run.run()
    assert error() < 0.985 * before, "frames that it was never shown the truth of"
    assert {e.phase for e in events if isinstance(e, Progress)} == {"refit"}
    assert record.coverage == []


def test_one_frame_clips_show_a_sharp_frame() -> None:
    record = refit(replace(PLAN, clip_length=1, batch=2)).run()
    assert len(record.steps) == 10
    assert all(s["rec"] > 0 for s in record.steps)


def test_blur_is_measured_where_the_flow_can() -> None:
    rng = np.random.default_rng(0)
    picture = cv2.resize(rng.integers(0, 256, (32, 40, 3), np.uint8), (160, 128), interpolation=cv2.INTER_CUBIC)
    frame = torch.from_numpy(picture).permute(2, 0, 1)
    streak = reblurred(frame, (0, 0, 128, 160), kernel(BlurPath((4.0, 0.0))))
    blurry = (streak * 255).to(torch.uint8).permute(1, 2, 0).numpy()
    clip = np.stack([picture if i % 5 == 2 else blurry for i in range(10)])
    events: list[Event] = []
    run = refit(clip=clip, flow=discover()["embedded"].build(), listen=events.append)
    paths = measured_paths(run.inputs, run.listen)
    assert len(paths) == 8
    for path in paths:
        assert path.length == pytest.approx(8, rel=0.2)
        assert abs(path.velocity[1]) < 0.5
    supervision = supervision_of(run)
    assert supervision.prepare(False)
    assert any(isinstance(e, Note) and "blurred like the video" in e.text for e in events)
    drawn = [supervision.draw_path().length for _ in range(20)]
    assert min(drawn) < 7.5 < 8.5 < max(drawn)


def test_a_checkpoint_at_any_step_leads_to_the_same_weights() -> None:
    whole = refit()
    kept: list[Checkpoint] = []
    whole.run(lambda refresh_is_next: kept.append(capture(whole)))
    for checkpoint in (kept[0], kept[4]):
        again = refit()
        resume(again, checkpoint)
        assert again.run() == whole.state.record
        for name, weights in whole.network.state_dict().items():
            assert torch.equal(weights, again.network.state_dict()[name])


def test_what_it_does_not_go_with() -> None:
    with pytest.raises(UsageError, match="--budget"):
        Settings(method="refit", runtime=RuntimeSettings(budget=60))
    with pytest.raises(UsageError, match="--early-stop"):
        Settings(method="refit", adaptation=AdaptationSettings(early_stop=True))
    assert not Settings(method="refit").blends
    assert Settings(method="refit", detail=True).blends
    assert Settings().blends


def test_a_video_is_refitted_and_continued(tmp_path: Path) -> None:
    source = shaky_file(tmp_path / "in.mp4", 24)
    plan = replace(QUICK.adaptation, iters=5)
    settings = replace(QUICK, method="refit", adaptation=plan)
    whole = selfhvd_tta.deblur(source, tmp_path / "whole.mp4", settings)
    assert whole.action == "refitted"
    assert whole.frames == 24
    stopper = Stopper("refit", 2)
    with pytest.raises(Interrupted):
        selfhvd_tta.deblur(source, tmp_path / "out.mp4", settings, stopper, stopper.token)
    again = Stopper("none", 1)
    selfhvd_tta.deblur(source, tmp_path / "out.mp4", settings, again)
    assert "3 steps of adaptation are done" in again.told
    assert (tmp_path / "out.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()
