"""The flow that this project trains: its layers against closed forms, and what the bundled weights are worth."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from selfhvd_tta import weights
from selfhvd_tta.flows.global_motion import GlobalMotionFirst
from selfhvd_tta.flows.shake import FLOW, Proofread, first_guess, round_trip
from selfhvd_tta.flows.shake_network import MULTIPLE, ShakeNetwork, _joined, asinh, lucas_kanade, warp_by
from selfhvd_tta.lab.datasets.photos import bundled_photo
from selfhvd_tta.lab.simulation.simulate import ShakeSettings, simulate_clip
from selfhvd_tta.lab.training.flow_batches import batch_of
from selfhvd_tta.lab.training.flow_pairs import make_pairs
from selfhvd_tta.run.equipment import Equipment
from selfhvd_tta.run.networks import load_flow
from selfhvd_tta.settings import AlignmentSettings, RuntimeSettings, Settings
from tests.pictures import inner, shifted_pair, tensor, texture


@cache
def bundled() -> Proofread:
    settings = Settings(alignment=AlignmentSettings(flow="shake"), runtime=RuntimeSettings(offline=True))
    loaded = load_flow(settings, torch.device("cpu"), lambda event: None)
    assert loaded.name == "shake:dis"
    assert isinstance(loaded, GlobalMotionFirst)
    assert isinstance(loaded.inner, Proofread)
    return loaded.inner


@pytest.mark.parametrize("step", [(0.4, 0.0), (-0.3, 0.5), (0.0, 0.0)])
def test_lucas_kanade_finds_a_small_shift(step: tuple[float, float]) -> None:
    picture = tensor(texture(80, 96)).mean(1, keepdim=True)
    flow = torch.tensor(step).view(1, 2, 1, 1).expand(1, 2, 80, 96)
    steps, sure = lucas_kanade(picture, warp_by(picture, -flow))
    assert steps.shape == (1, 4, 40, 48)
    assert sure.shape == (1, 2, 40, 48)
    for window in (steps[:, :2], steps[:, 2:]):
        assert inner(window - flow[..., ::2, ::2], 6).norm(dim=1).mean() < 0.12
    assert inner(sure, 6).mean() > 0.5


def test_lucas_kanade_stays_where_nothing_is_to_be_seen() -> None:
    flat = torch.full((1, 1, 32, 32), 0.5)
    steps, sure = lucas_kanade(flat, flat + 0.02)
    assert steps.abs().max() < 1e-3
    assert sure.max() < 1e-3


def test_warping_takes_the_target_from_where_the_flow_leads() -> None:
    picture = torch.rand(1, 3, 20, 24, generator=torch.Generator().manual_seed(0))
    flow = torch.tensor((3.0, -2.0)).view(1, 2, 1, 1).expand(1, 2, 20, 24)
    assert torch.allclose(inner(warp_by(picture, flow), 4), inner(picture.roll((2, -3), (-2, -1)), 4), atol=1e-5)


def test_round_trip_is_zero_for_inverse_flows() -> None:
    there = torch.tensor((2.0, -1.0)).view(1, 2, 1, 1).expand(1, 2, 16, 16)
    assert round_trip(there, -there).max() < 1e-5
    assert torch.allclose(round_trip(there, there), torch.tensor(20.0).sqrt(), atol=1e-4)


def test_an_untrained_network_leaves_the_guess_nearly_alone() -> None:
    torch.manual_seed(0)
    source, target = shifted_pair(64, 80, (2, 1))
    guess, _ = first_guess(source, target)
    readings = ShakeNetwork()(source, target, guess, torch.zeros(1, 1, 64, 80))
    assert len(readings) == 2
    assert readings[-1].flow.shape == (1, 2, 64, 80)
    assert inner((readings[-1].flow - guess).norm(dim=1), 8).mean() < 1


@pytest.mark.parametrize("size", [(MULTIPLE * 3 + 5, 70), (33, 40)])
def test_one_direction_is_the_other_with_the_frames_exchanged(size: tuple[int, int]) -> None:
    source, target = shifted_pair(*size, (1, -1))
    there, back = bundled().both(source, target)
    other_back, other_there = bundled().both(target, source)
    assert torch.allclose(there.flow, other_there.flow, atol=1e-4)
    assert torch.allclose(back.certainty, other_back.certainty, atol=1e-4)


def test_a_translation_is_found() -> None:
    source, target = shifted_pair(96, 128, (2, -1))
    there, back = bundled().both(source, target)
    truth = torch.tensor((2.0, -1.0)).view(1, 2, 1, 1)
    assert inner((there.flow - truth).norm(dim=1), 8).mean() < 0.1
    assert inner((back.flow + truth).norm(dim=1), 8).mean() < 0.1
    assert inner(there.certainty, 8).mean() > 0.9


def test_bundled_weights_beat_the_guess_and_know_where_they_fail() -> None:
    """On a photograph that no training saw, with an object of its own motion in front."""
    settings = ShakeSettings(width=160, height=128, frames=7, objects=1, object_speed=(3.0, 4.0), crf=14)
    clip = simulate_clip(bundled_photo("camera"), settings, seed=11)
    pairs = make_pairs(clip, 3, np.random.default_rng(1))
    assert pairs is not None
    batch = batch_of(pairs, list(range(len(pairs))))
    assert weights.table()["flow-shake"].licence == "MIT"
    reading = bundled().network(batch.source, batch.target, batch.guess, batch.gap)[-1]
    seen = batch.visible > 0
    error, before, still = (
        (flow - batch.truth).norm(dim=1, keepdim=True)
        for flow in (reading.flow, batch.guess, torch.zeros_like(batch.guess))
    )
    assert error[seen].mean() < 0.9 * before[seen].mean()
    assert error[seen].mean() < 0.6 * still[seen].mean()
    expected = reading.log_scale.exp()[seen]
    worst = error[seen] > error[seen].quantile(0.95)
    assert expected[worst].median() > 2 * expected[~worst].median()
    assert torch.sigmoid(reading.seen)[seen].mean() > torch.sigmoid(reading.seen)[~seen].mean() + 0.05


def test_it_is_the_default_where_sea_raft_cannot_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFHVD_TTA_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    notes: list[str] = []
    settings = Settings(method="transfer", backbone="none", runtime=RuntimeSettings(offline=True))
    loaded = load_flow(settings, torch.device("cpu"), lambda event: None)
    assert loaded.name == "shake:dis"
    Equipment.load(settings, lambda event: notes.append(str(event)))
    assert len([note for note in notes if "shake:dis" in note]) == 1


def test_weights_of_others_are_refused() -> None:
    assert FLOW.load is not None
    with pytest.raises(RuntimeError):
        FLOW.load(FLOW.build(), {"stem.0.bias": torch.zeros(16)})
    with pytest.raises(TypeError, match="shake"):
        FLOW.load(GlobalMotionFirst(), {})


def test_joining_levels_equals_a_convolution_of_repeated_pixels() -> None:
    torch.manual_seed(0)
    block = nn.Sequential(nn.Conv2d(7, 5, 3, 1, 1), nn.ReLU())
    low, skip = torch.randn(2, 4, 3, 5), torch.randn(2, 3, 6, 10)
    repeated = torch.cat((low.repeat_interleave(2, -1).repeat_interleave(2, -2), skip), dim=1)
    assert torch.allclose(_joined(block, low, skip), block(repeated), atol=1e-5)


def test_asinh_is_that_of_torch() -> None:
    values = torch.cat((torch.linspace(-300, 300, 401), torch.tensor((-1e-6, 0.0, 1e-6, 1e4))))
    assert torch.allclose(asinh(values), values.asinh(), rtol=1e-6, atol=1e-9)


def test_bfloat16_moves_the_flow_by_less_than_a_hundredth_of_a_pixel() -> None:
    source, target = shifted_pair(96, 128, (2, -1))
    plain = Settings(alignment=AlignmentSettings(flow="shake"), runtime=RuntimeSettings(offline=True, precision="fp32"))
    both = []
    for settings in (plain, replace(plain, runtime=replace(plain.runtime, precision="bf16"))):
        estimator = load_flow(settings, torch.device("cpu"), lambda event: None)
        assert isinstance(estimator, GlobalMotionFirst)
        assert isinstance(estimator.inner, Proofread)
        both.append((estimator.inner.autocast, estimator.inner.both(source, target)))
    (none, exact), (half, rough) = both
    assert none is None
    assert half is torch.bfloat16
    for a, b in zip(exact, rough, strict=True):
        assert (a.flow - b.flow).norm(dim=1).mean() < 0.01
        assert (a.certainty - b.certainty).abs().mean() < 0.005
        assert not torch.equal(a.flow, b.flow)
