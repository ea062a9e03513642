"""Metrics against closed forms, scikit-image and literal transcriptions of what DADeblur computes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from selfhvd_tta.flows import FlowEstimator, FlowField
from selfhvd_tta.lab.evaluation.metrics.dadeblur import dadeblur_psnr, dadeblur_ssim
from selfhvd_tta.lab.evaluation.metrics.flicker import flicker
from selfhvd_tta.lab.evaluation.metrics.frames import quantise
from selfhvd_tta.lab.evaluation.metrics.psnr import psnr
from selfhvd_tta.lab.evaluation.metrics.shift import ShiftMeter
from selfhvd_tta.lab.evaluation.metrics.ssim import ssim
from selfhvd_tta.lab.evaluation.metrics.warping import evaluation_flow, find_motion, warping_error
from selfhvd_tta.lab.evaluation.scoring import fidelity, scored
from selfhvd_tta.lab.training import losses
from selfhvd_tta.method.alignment import pixel_grid
from tests.pictures import texture


def pair(height: int = 40, width: int = 52, seed: int = 0, noise: float = 12) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = quantise(texture(height, width, seed))
    return np.clip(truth + rng.normal(0, noise, truth.shape), 0, 255).astype(np.uint8), truth


def test_psnr_of_a_known_error() -> None:
    truth = np.full((16, 20, 3), 100, np.uint8)
    assert psnr(truth + np.uint8(5), truth) == pytest.approx(20 * math.log10(255 / 5))
    assert psnr(truth, truth) == math.inf
    assert ssim(truth, truth) == 1


@settings(max_examples=20, deadline=None)
@given(st.integers(11, 40), st.integers(11, 40), st.integers(0, 99), st.floats(0.5, 60))
def test_psnr_and_ssim_agree_with_scikit_image(height: int, width: int, seed: int, noise: float) -> None:
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    output, truth = pair(height, width, seed, noise)
    if not np.array_equal(output, truth):
        assert psnr(output, truth) == pytest.approx(peak_signal_noise_ratio(truth, output, data_range=255), abs=1e-9)
    theirs = structural_similarity(
        truth,
        output,
        channel_axis=2,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=255,
    )
    assert ssim(output, truth) == pytest.approx(theirs, abs=1e-4)


def test_dadeblur_variants_are_what_its_code_computes() -> None:
    """Transcribed: the score of a tensor of one dimension too many, and scipy's Gaussian over all three axes."""
    import torch
    from scipy.ndimage import gaussian_filter

    output, truth = pair()
    a, b = (torch.from_numpy(x.astype(np.float64) / 255 - 0.5).permute(2, 0, 1)[None, None] for x in (output, truth))
    columns = 10 * torch.log10(1 / (((a - b) ** 2).mean(dim=[1, 2, 3]) + 1e-8))
    assert columns.shape == (1, 52)
    assert dadeblur_psnr(output / 255, truth) == pytest.approx(float(columns.mean()), abs=1e-9)

    def smooth(x: np.ndarray) -> np.ndarray:
        return gaussian_filter(x, 1.5)

    x, y = a[0, 0].numpy().transpose(2, 0, 1), b[0, 0].numpy().transpose(2, 0, 1)
    mx, my = smooth(x), smooth(y)
    vx, vy, cov = smooth(x * x) - mx * mx, smooth(y * y) - my * my, smooth(x * y) - mx * my
    c1, c2 = 0.01**2, 0.03**2
    theirs = ((2 * mx * my + c1) * (2 * cov + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2))).mean()
    assert dadeblur_ssim(output / 255, truth) == pytest.approx(theirs, abs=1e-9)


def test_the_two_definitions_differ() -> None:
    """Uneven errors over the columns: a mean of logarithms is above the logarithm of the mean."""
    output, truth = pair(noise=0)
    output[:, :10] = np.clip(output[:, :10].astype(int) + 40, 0, 255)
    output[:, 10:] = np.clip(output[:, 10:].astype(int) + 1, 0, 255)
    found = fidelity(output / 255, truth)
    assert found.dadeblur_psnr > found.psnr + 3
    assert abs(found.dadeblur_ssim - found.ssim) > 1e-3


def test_outputs_are_rounded_not_cut() -> None:
    assert quantise(np.array([[[0.4999, 1.2, -0.1]]]))[0, 0].tolist() == [127, 255, 0]
    assert quantise(np.full((1, 1, 3), 0.5 / 255 + 1e-6)).max() == 1


@pytest.mark.parametrize(("count", "skip"), [(4, (2, 2)), (3, (-1, 0)), (0, (0, 0))])
def test_leaving_out_everything_is_an_error(count: int, skip: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="cannot leave out"):
        scored(count, skip)


def test_leaving_out_the_ends() -> None:
    assert list(scored(6, (2, 2))) == [2, 3]


def test_sizes_must_agree() -> None:
    a, b = pair()
    with pytest.raises(ValueError, match="one size"):
        psnr(a[:-1], b)
    with pytest.raises(ValueError, match="at least 11"):
        ssim(a[:10], b[:10])


def moving(count: int = 3, step: int = 3) -> list[np.ndarray]:
    big = quantise(texture(96, 140, 5))
    return [np.ascontiguousarray(big[8:88, 10 + step * i : 110 + step * i]) for i in range(count)]


def test_warping_error_follows_the_motion() -> None:
    first, second = moving(2)
    motion = find_motion(first, second, evaluation_flow())
    assert float(motion.visible.float().mean()) > 0.8
    steady = warping_error(first, second, motion)
    pumping = warping_error(first, np.clip(second.astype(int) + 12, 0, 255).astype(np.uint8), motion)
    assert steady < 4
    assert pumping == pytest.approx(12, abs=2.5)
    assert warping_error(first, first, motion) > 2 * steady


class Zoom(FlowEstimator):
    """Knows that the brighter frame is the darker one stretched by a half about its middle."""

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> FlowField:
        height, width = source.shape[-2:]
        middle = torch.tensor([(width - 1) / 2, (height - 1) / 2]).view(1, 2, 1, 1)
        factor = 1.5 if source.mean() < target.mean() else 1 / 1.5
        flow = (pixel_grid(height, width, source.device) - middle) * (factor - 1)
        return FlowField(flow, torch.ones_like(source[:, :1]))


def test_motion_is_visible_where_it_varies_over_the_frame() -> None:
    dark, bright = np.full((60, 90, 3), 50, np.uint8), np.full((60, 90, 3), 150, np.uint8)
    visible = find_motion(dark, bright, Zoom()).visible[0, 0]
    assert visible[12:48, 18:72].all(), "the middle two thirds stay within the frame"
    assert not visible[:8].any()


def test_validation_of_a_training_takes_the_same_psnr() -> None:
    frames = [pair(seed=seed) for seed in (0, 1)]
    output, truth = (torch.stack([torch.from_numpy(two[k]).permute(2, 0, 1).float() for two in frames]) for k in (0, 1))
    assert losses.psnr(output, truth).tolist() == pytest.approx([psnr(*two) for two in frames], abs=1e-3)


def test_flicker_is_what_the_reference_does_not_do() -> None:
    first, second = moving(2)
    brighter = tuple(np.clip(f.astype(int) + 10 * i, 0, 255).astype(np.uint8) for i, f in enumerate((first, second)))
    assert flicker((first, second), (first, second)) == 0
    assert flicker((brighter[0], brighter[1]), (first, second)) == pytest.approx(10, abs=0.5)
    assert flicker((brighter[0], brighter[1]), (brighter[0], brighter[1])) == 0


def test_a_moved_picture_is_noticed() -> None:
    meter = ShiftMeter(evaluation_flow())
    first, second = moving(2)
    meter.add(first, second)
    assert meter.quantile(0.5) == pytest.approx(3, abs=0.3)
    still = ShiftMeter(evaluation_flow())
    still.add(first, first)
    assert still.quantile(0.95) < 0.1


def test_a_flat_picture_has_no_shift_to_measure() -> None:
    meter = ShiftMeter(evaluation_flow())
    flat = np.full((40, 40, 3), 90, np.uint8)
    meter.add(flat, flat)
    assert math.isnan(meter.quantile(0.5))
