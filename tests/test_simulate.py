"""Simulated shake: ground truth, statistics, determinism, the codec."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from selfhvd_tta.lab.datasets.photos import BUNDLED, bundled_photo, list_photos, read_photo
from selfhvd_tta.lab.simulation.camera import (
    SAMPLES_PER_FRAME,
    Tremor,
    band_limited_noise,
    calm_envelope,
    handheld_trajectory,
)
from selfhvd_tta.lab.simulation.codec import h264_round_trip
from selfhvd_tta.lab.simulation.shake import Bursts
from selfhvd_tta.lab.simulation.simulate import ShakeSettings, SimulatedClip, preset, simulate_clip
from selfhvd_tta.lab.simulation.true_flow import true_flow

SMALL = ShakeSettings(width=96, height=64, frames=8, gap=(3, 5), calm=(0.8, 1.2))
CLEAN = replace(SMALL, shot_noise=0.0, read_noise=0.0)


def picture(height: int = 200, width: int = 260, seed: int = 0) -> np.ndarray:
    """A photograph's stand-in: noise at several scales."""
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros(1, 3, height, width)
    for cell in (4, 10, 30):
        grid = torch.rand(1, 3, height // cell + 2, width // cell + 2, generator=generator)
        total += F.interpolate(grid, (height, width), mode="bicubic")
    return (total[0].permute(1, 2, 0) / 3 * 255).clamp(0, 255).byte().numpy()


def psnr(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    error = np.square(a.astype(np.float64) - b).mean((1, 2, 3))
    return 10 * np.log10(255**2 / np.maximum(error, 1e-9))


def test_shapes_and_types() -> None:
    clip = simulate_clip(picture(), SMALL, seed=1)
    assert clip.blurry.shape == clip.sharp.shape == (8, 64, 96, 3)
    assert clip.blurry.dtype == clip.sharp.dtype == np.uint8
    assert clip.extent.shape == clip.is_sharp.shape == (8,)


def test_the_seed_decides_everything() -> None:
    settings = replace(SMALL, objects=1, parallax=0.3, readout=0.5, crf=20)
    first, second, other = (simulate_clip(picture(), settings, seed) for seed in (1, 1, 2))
    assert np.array_equal(first.blurry, second.blurry)
    assert np.array_equal(first.sharp, second.sharp)
    assert not np.array_equal(first.sharp, other.sharp)


def test_a_still_camera_gives_the_ground_truth() -> None:
    clip = simulate_clip(picture(), replace(CLEAN, speed=(0.0, 0.0)), seed=0)
    assert clip.is_sharp.all()
    assert np.abs(clip.blurry.astype(int) - clip.sharp).max() <= 1
    assert np.array_equal(clip.sharp[0], clip.sharp[-1])


def test_blur_costs_and_calm_frames_are_near_the_truth() -> None:
    clip = simulate_clip(picture(), replace(CLEAN, frames=24, speed=(6.0, 6.0)), seed=3)
    quality = psnr(clip.blurry, clip.sharp)
    assert 2 <= clip.is_sharp.sum() <= 20
    assert quality[clip.is_sharp].min() > quality[~clip.is_sharp].max() - 3
    assert quality[clip.is_sharp].mean() > quality[~clip.is_sharp].mean() + 6


def test_light_is_averaged_not_code_values() -> None:
    """Over fine black and white stripes moved sideways, the mean is 50 % of the light: code 188, not 128."""
    stripes = np.zeros((300, 500, 3), np.uint8)
    stripes[:, (np.arange(500) // 2) % 2 == 0] = 255
    settings = replace(CLEAN, speed=(30.0, 30.0), photo_scale=(1.0, 1.0), width=64, height=48, roll=0.0, zoom=0.0)
    clip = simulate_clip(stripes, settings, seed=1)
    worst = int(clip.extent.argmax())
    assert clip.extent[worst] > 10
    assert abs(float(np.median(clip.blurry[worst])) - 188) < 12


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_no_border_of_the_photograph_is_ever_seen(seed: int) -> None:
    white = np.full((70, 90, 3), 255, np.uint8)
    clip = simulate_clip(white, replace(CLEAN, frames=4, width=40, height=24, readout=0.5, parallax=0.5), seed)
    assert clip.sharp.min() >= 254
    assert clip.blurry.min() >= 254


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"readout": 0.6},
        {"objects": 1},
        {"parallax": 0.4},
        {"near": (0.4, 0.6)},
        {"figures": 2},
        {"pan": 2.0, "bursts": Bursts(shift=(3, 8))},
    ],
    ids=["camera", "rolling", "object", "depth", "near", "figures", "bursts"],
)
def test_flow_warps_one_ground_truth_onto_another(changes: dict[str, Any]) -> None:
    clip = simulate_clip(picture(), replace(CLEAN, **changes), seed=5)
    flow, visible = true_flow(clip, 1, 4)
    assert visible.mean() > 0.5
    warped = warp(clip, 4, flow)
    error = np.abs(warped - clip.sharp[1]).max(-1)
    still = np.abs(clip.sharp[4].astype(float) - clip.sharp[1]).max(-1)
    assert np.median(error[visible]) < 3
    # Figures and lattices are mostly edges, where neither frame shows one layer alone.
    assert np.percentile(error[visible], 90 if {"near", "figures"} & set(changes) else 95) < 12
    assert error[visible].mean() < 0.3 * still[visible].mean()


def warp(clip: SimulatedClip, frame: int, flow: np.ndarray) -> np.ndarray:
    height, width = flow.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    grid = np.stack(((x + flow[..., 0]) / (width - 1), (y + flow[..., 1]) / (height - 1)), -1) * 2 - 1
    source = torch.from_numpy(clip.sharp[frame]).permute(2, 0, 1)[None].float()
    sampled = F.grid_sample(source, torch.from_numpy(grid)[None], mode="bicubic", align_corners=True)
    return sampled[0].permute(1, 2, 0).numpy()


def test_highlights_leave_bright_streaks() -> None:
    dark = np.full((150, 200, 3), 20, np.uint8)
    dark[::12, ::12] = 255
    base = replace(CLEAN, speed=(8.0, 8.0), photo_scale=(1.0, 1.0))
    plain = simulate_clip(dark, base, seed=2)
    bright = simulate_clip(dark, replace(base, highlights=8.0), seed=2)
    assert (bright.blurry[~bright.is_sharp] > 200).mean() > 2 * (plain.blurry[~plain.is_sharp] > 200).mean()


@pytest.mark.parametrize("size", [(64, 96), (33, 47)])
def test_codec_round_trip_keeps_size_and_colour(size: tuple[int, int]) -> None:
    generator = np.random.default_rng(0)
    flat = np.broadcast_to(generator.integers(0, 256, (5, 1, 1, 3)), (5, *size, 3)).astype(np.uint8)
    decoded = h264_round_trip(flat, crf=10)
    assert decoded.shape == flat.shape
    assert np.abs(decoded[:, 8:-8, 8:-8].astype(int) - flat[:, 8:-8, 8:-8]).max() <= 3


def test_noise_has_its_band_and_variance() -> None:
    noise = band_limited_noise(np.random.default_rng(0), 2, 4096 * SAMPLES_PER_FRAME, 0.05, 0.25)
    assert noise.std(1) == pytest.approx([1, 1], rel=0.1)
    power = np.abs(np.fft.rfft(noise, axis=1)) ** 2
    frequency = np.fft.rfftfreq(noise.shape[1], 1 / SAMPLES_PER_FRAME)
    outside = (frequency < 0.03) | (frequency > 0.36)
    assert power[:, outside].sum() < 0.01 * power.sum()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_calm_moments_come_at_least_every_gap(seed: int) -> None:
    times = np.arange(0, 80, 1 / 16)
    envelope = calm_envelope(np.random.default_rng(seed), times, gap=(6, 16), width=(1, 3), floor=0.02)
    calm = times[envelope < 0.1]
    assert np.diff(np.concatenate(([0], calm, [80]))).max() <= 16
    assert envelope.max() > 0.9


def test_speed_is_what_was_asked_for() -> None:
    tremor = Tremor(band=(0.03, 0.3), roll=0.3, zoom=0.1, gap=(900, 901), calm=(1, 2))
    trajectory = handheld_trajectory(np.random.default_rng(0), 400, 5.0, 384, tremor)
    shift = trajectory.at(np.arange(400.0))[:, :2]
    speed = np.sqrt(np.square(np.diff(shift, axis=0)).sum(1).mean())
    assert 3.0 < speed < 7.0


@pytest.mark.parametrize("name", ["camera", "texture", "object"])
def test_presets_have_a_size_and_a_photograph(name: str) -> None:
    pytest.importorskip("skimage")
    settings = preset(name)  # type: ignore[arg-type]
    assert (settings.width, settings.height, settings.frames) == (384, 256, 48)
    photo = bundled_photo(name)
    clip = simulate_clip(photo, replace(settings, width=192, height=128, frames=24), seed=3)
    assert 3 <= clip.is_sharp.sum() <= 20
    assert psnr(clip.blurry, clip.sharp)[~clip.is_sharp].mean() < 32


def test_photos_are_found_and_checked(tmp_path: Path) -> None:
    folder = tmp_path
    with pytest.raises(ValueError, match="no photographs"):
        list_photos((folder,))
    (folder / "broken.jpg").write_bytes(b"not a picture")
    assert [path.name for path in list_photos((folder,))] == ["broken.jpg"]
    with pytest.raises(ValueError, match="not a readable image"):
        read_photo(folder / "broken.jpg")
    assert set(BUNDLED) == {"camera", "texture", "object"}


@pytest.mark.parametrize("photo", [np.zeros((9, 9), np.uint8), np.zeros((9, 9, 3), np.float32)])
def test_wrong_photographs_are_refused(photo: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected a photograph"):
        simulate_clip(photo, SMALL, seed=0)
