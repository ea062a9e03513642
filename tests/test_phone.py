"""What a phone and its owner add to a clip: look, compression, sudden motion, near things, lights. And what stays."""

from __future__ import annotations

import base64
import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from selfhvd_tta.lab.simulation.camera import burst_velocity, sample_times
from selfhvd_tta.lab.simulation.codec import compress
from selfhvd_tta.lab.simulation.foreground import (
    box_mask,
    lattice_mask,
    leaves_mask,
    person_mask,
    poles_mask,
    side_mask,
)
from selfhvd_tta.lab.simulation.phone import code_deviation, finish, noise_like, reduce_noise, to_code, tone_curve
from selfhvd_tta.lab.simulation.scene import reach
from selfhvd_tta.lab.simulation.shake import Bursts, Compression, PhoneLook, ShakeSettings
from selfhvd_tta.lab.simulation.simulate import draw_trajectory, jump_velocity, preset, simulate_clip
from selfhvd_tta.lab.simulation.true_flow import true_flow
from selfhvd_tta.lab.training.dataset import varied_settings
from selfhvd_tta.lab.training.validation import validation_settings
from tests.test_simulate import CLEAN, SMALL, picture, psnr

# 6x8 pixels of the last frame, blurry then sharp, of a clip made before this module had anything to add.
OLD = (
    "hHdtkEtnbWxdTVCOYlZ5a2ZAXnFROFGIj09mjE1wY3pvRHRPVWhTbnxSeUVYVGhiQHBxZ2aAbYCGbz5zeHRSWHBqr42bYWxzc2FwU4RVa5aAYF1v"
    "VIuEbENcTlxWYkuSXIRhaWRNY5B8XXiOMos0X29tl5phY1hmcIN8MPeBW117R3O7QYVfS0FSe59MhXKdjHBlg0hpdWZmTUSTVEVvbGA7cGhMRl97"
    "j1Z1iVl3Y4JzQHhSTmlDc39OekRhR19gQmtuY2GKcHyEbEJvc3BWX3dgp5CYZnNxcWJpVIVTZZt9XGFnVI57ZkVdUF9UakidYINibl5MYJB5XniS"
    "MIozX2prl5ljZl1gaoZ9Lf9/WGF7SXHARoNgTURSep5Nh3Sd"
)


def test_without_the_new_settings_clips_are_those_of_before() -> None:
    """Figures in the documentation belong to these clips. One code value of freedom for other processors."""
    old = np.frombuffer(base64.b64decode(OLD), np.uint8).reshape(2, 6, 8, 3).astype(int)
    kind = replace(SMALL, frames=3, objects=1, parallax=0.3, readout=0.5, highlights=3.0, exposure=(0.5, 1.0))
    clip = simulate_clip(picture(), kind, seed=4)
    now = np.stack([clip.blurry[2, 4::10, 6::12][:6], clip.sharp[2, 4::10, 6::12][:6]]).astype(int)
    assert np.abs(now - old).max() <= 1
    assert clip.extent == pytest.approx([8.6413924, 8.0560687, 3.5652454], abs=1e-6)


def test_validation_draws_what_it_always_drew() -> None:
    drawn = validation_settings(np.random.default_rng((0, 2, 4)), 192, 16)
    assert [drawn.objects, drawn.parallax, drawn.readout, *drawn.exposure, drawn.highlights] == pytest.approx(
        [0, 0.0, 0.29514289802148846, 1.0, 1.0, 1.0]
    )
    assert (drawn.speed, drawn.shot_noise, drawn.read_noise, drawn.crf) == ((1.5, 8.0), 1e-4, 5e-4, 18)
    assert (drawn.phone, drawn.bursts, drawn.pan, drawn.near, drawn.lights) == (None, None, 0.0, (), 0.0)


@pytest.mark.parametrize("name", ["camera", "texture", "object"])
def test_presets_have_none_of_it(name: str) -> None:
    kind, plain = preset(name), ShakeSettings()  # type: ignore[arg-type]
    for new in ("pan", "bursts", "near", "figures", "lights", "phone", "compression", "focal"):
        assert getattr(kind, new) == getattr(plain, new)
    assert plain.phone is None
    assert plain.compression is None


@settings(max_examples=50, deadline=None)
@given(st.floats(-1, 1), st.floats(0.5, 2))
def test_the_tone_curve_rises_from_black_to_white(contrast: float, gamma: float) -> None:
    curve = tone_curve(torch.linspace(0, 1, 200).expand(3, 1, 200), contrast, gamma)[0, 0]
    assert float(curve[0]) == pytest.approx(0, abs=1e-6)
    assert float(curve[-1]) == pytest.approx(1, abs=1e-6)
    assert (curve.diff() >= -1e-6).all()


def test_curve_and_sharpening_are_part_of_the_ground_truth() -> None:
    still = replace(CLEAN, frames=2, speed=(0.0, 0.0), phone=PhoneLook(contrast=0.5, gamma=0.8, sharpening=0.7))
    clip, plain = simulate_clip(picture(), still, seed=0), simulate_clip(picture(), replace(still, phone=None), seed=0)
    assert np.abs(clip.blurry.astype(int) - clip.sharp).max() <= 1
    assert np.abs(clip.sharp.astype(int) - plain.sharp).mean() > 2


def test_sharpening_leaves_halos() -> None:
    step = torch.full((3, 20, 20), 0.3)
    step[..., 10:] = 0.7
    sharpened = finish(step, PhoneLook(sharpening=0.6))
    assert float(sharpened[..., 9].mean()) < 0.27
    assert float(sharpened[..., 10].mean()) > 0.73
    torch.testing.assert_close(sharpened[..., :6], step[..., :6])


@pytest.mark.parametrize("grain", [1.0, 2.0])
def test_noise_reduction_removes_noise_keeps_edges_and_eats_faint_texture(grain: float) -> None:
    generator = torch.Generator().manual_seed(0)
    light = torch.full((3, 96, 96), 0.1)
    light[..., 48:] = 0.5
    faint = 1 + 0.02 * torch.sin(torch.arange(96) * 1.6)[:, None]
    clean = light * faint
    noisy = clean + 0.02 * noise_like(light, grain, generator)
    deviation = code_deviation(noisy, 0.0, 0.02)
    look = PhoneLook(grain=grain, denoise=3.0)
    result = reduce_noise(to_code(noisy), deviation, look, generator)
    flat = (slice(None), slice(8, 88), slice(6, 30))
    truth = to_code(light)
    assert (result - truth)[flat].std() < 0.55 * (to_code(noisy) - truth)[flat].std()
    edge = result[:, 8:88, 50:54].mean() - result[:, 8:88, 42:46].mean()
    assert float(edge) > 0.85 * float(truth[0, 0, 52] - truth[0, 0, 44])
    left = (reduce_noise(to_code(clean), deviation, look, generator) - truth)[flat].std()
    assert left < 0.3 * (to_code(clean) - truth)[flat].std()


def test_blotches_are_coloured_and_coarse() -> None:
    generator = torch.Generator().manual_seed(0)
    grey = torch.full((3, 96, 96), 0.4)
    deviation = torch.full((1, 96, 96), 0.02)
    change = reduce_noise(grey, deviation, PhoneLook(denoise=2.0, blotches=0.5), generator) - grey
    weights = torch.tensor([0.2126, 0.7152, 0.0722]).view(3, 1, 1)
    assert float((weights * change).sum(0).abs().max()) < 1e-5
    assert float(change.std()) > 0.003
    assert float(change.diff(dim=2).std()) < 0.4 * float(change.std())


@pytest.mark.parametrize("grain", [1.0, 1.7, 3.0])
def test_noise_has_unit_variance_at_any_grain(grain: float) -> None:
    noise = noise_like(torch.zeros(3, 100, 120), grain, torch.Generator().manual_seed(1))
    assert noise.shape == (3, 100, 120)
    assert float(noise.std()) == pytest.approx(1, abs=0.02)
    neighbours = float((noise[..., 1:] * noise[..., :-1]).mean())
    assert neighbours > 0.3 if grain > 1 else abs(neighbours) < 0.02


def test_fewer_bits_cost_quality() -> None:
    frames = np.stack([np.roll(picture(96, 128), 3 * t, 1) for t in range(6)])
    fine, coarse = (compress(frames, Compression(bits_per_pixel=bits)) for bits in (2.0, 0.05))
    assert fine.shape == coarse.shape == frames.shape
    assert psnr(fine, frames).mean() > psnr(coarse, frames).mean() + 5
    good, bad = (compress(frames, Compression(jpeg=quality)) for quality in (95, 30))
    assert psnr(good, frames).mean() > psnr(bad, frames).mean() + 4
    assert np.abs(good.astype(int).mean((0, 1, 2)) - frames.mean((0, 1, 2))).max() < 1


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_a_burst_moves_the_picture_by_what_was_asked(seed: int) -> None:
    times = sample_times(40)
    bursts = Bursts(gap=(8.0, 12.0), shift=(10.0, 20.0), length=(0.8, 2.5))
    speed = np.hypot(*burst_velocity(np.random.default_rng(seed), times, bursts))
    moving = speed > 0
    starts = np.flatnonzero(moving[1:] & ~moving[:-1])
    assert 2 <= len(starts) <= 6
    share_of_time = moving.mean()
    assert share_of_time < 0.35
    whole = [speed[a : a + 45].sum() / 16 for a in starts[:-1]]
    assert all(9.5 <= shift <= 20.5 for shift in whole)


def test_panning_is_steady_and_blurs_calm_moments_too() -> None:
    clip = simulate_clip(picture(), replace(CLEAN, speed=(0.0, 0.0), pan=6.0, duty=(0.5, 0.5), focal=8.0), seed=0)
    assert not clip.is_sharp.any()
    flow, visible = true_flow(clip, 2, 3)
    lengths = np.hypot(flow[visible][:, 0], flow[visible][:, 1])
    assert lengths.mean() == pytest.approx(6, rel=0.2)  # the hand pulls back a little
    assert clip.extent.mean() == pytest.approx(3, rel=0.2)


def test_lamps_streak_far_above_white() -> None:
    dark = np.full((150, 200, 3), 12, np.uint8)
    kind = replace(CLEAN, speed=(9.0, 9.0), exposure=(0.4, 0.4), lights=15.0)
    clip = simulate_clip(dark, kind, seed=3)
    none = simulate_clip(dark, replace(kind, lights=0.0), seed=3)
    assert none.blurry.max() < 20
    bright = [(frames.max(-1) > 200).mean((1, 2)) for frames in (clip.blurry, clip.sharp)]
    worst = int(clip.extent.argmax())
    # Light spread over a streak is still clipped to white, so more of the frame is bright than when all is calm.
    assert bright[0][worst] > 1.3 * bright[1][worst] > 0


@pytest.mark.parametrize("shape", [side_mask, poles_mask, lattice_mask, leaves_mask])
def test_near_things_cover_some_and_not_all(shape: object) -> None:
    shares = [shape(120, 160, 100, np.random.default_rng(seed)) for seed in range(12)]  # type: ignore[operator]
    assert all(mask.shape == (120, 160) and mask.min() >= 0 and mask.max() <= 1 for mask in shares)
    cover = [mask.mean() for mask in shares]
    assert 0.02 < np.mean(cover) < 0.6
    assert max(cover) < 0.8


def test_figures_stand_on_their_feet() -> None:
    person, box = person_mask(80, np.random.default_rng(0)), box_mask(60, np.random.default_rng(0))
    assert person.shape[0] == 80
    assert 0.1 < person.mean() < 0.6
    assert person[-8:].sum() > 0
    assert 0.5 < box.mean() < 0.95


def test_training_draws_everything_and_can_be_written_down() -> None:
    drawn = [varied_settings(np.random.default_rng(seed), 64, 6) for seed in range(150)]
    json.dumps([asdict(kind) for kind in drawn])
    night = [kind for kind in drawn if kind.lights]
    assert 20 < len(night) < 60
    for chosen in (
        [kind.bursts for kind in drawn],
        [kind.near for kind in drawn],
        [kind.figures for kind in drawn],
        [kind.objects for kind in drawn],
        [kind.parallax for kind in drawn],
        [kind.pan for kind in drawn],
        [kind.phone and kind.phone.denoise for kind in drawn],
        [kind.compression and kind.compression.bits_per_pixel for kind in drawn],
        [kind.compression and kind.compression.jpeg for kind in drawn],
    ):
        assert 0 < sum(map(bool, chosen)) < len(drawn)
    slow = varied_settings(np.random.default_rng(3), 64, 6, pace=0.25)
    full = varied_settings(np.random.default_rng(3), 64, 6)
    assert slow.speed[0] == pytest.approx(full.speed[0] / 4)
    assert replace(slow, speed=full.speed, pan=full.pan, bursts=full.bursts, focal=full.focal) == full


@pytest.mark.parametrize("seed", [3, 5, 11, 27])
def test_what_training_draws_can_be_simulated(seed: int) -> None:
    generator = np.random.default_rng(seed)
    clip = simulate_clip(picture(), varied_settings(generator, 48, 4), seed)
    again = simulate_clip(picture(), varied_settings(np.random.default_rng(seed), 48, 4), seed)
    assert clip.blurry.shape == clip.sharp.shape == (4, 48, 48, 3)
    assert np.array_equal(clip.blurry, again.blurry)
    assert clip.sharp.std() > 1


@pytest.mark.parametrize(("size", "frames"), [(24, 4), (64, 30), (160, 14)])
def test_the_camera_never_turns_away_from_the_scene(size: int, frames: int) -> None:
    """A plane's texture grows with what is seen of it: at a grazing angle it would fill the memory."""
    for seed in range(30):
        kind = varied_settings(np.random.default_rng(seed), size, frames)
        camera = draw_trajectory(np.random.default_rng(seed), kind, kind.speed[1], jump_velocity(kind, seed))
        sway = draw_trajectory(np.random.default_rng(seed + 1), kind, kind.speed[1]).scaled(0.9)
        for views in (
            camera.homographies(camera.times),
            sway.homographies(camera.times) @ camera.homographies(camera.times),
        ):
            assert max(reach(views, kind)) < 800


def test_a_camera_that_turns_away_is_refused() -> None:
    with pytest.raises(ValueError, match="turns away"):
        simulate_clip(picture(), replace(CLEAN, pan=400.0, frames=4), seed=0)
