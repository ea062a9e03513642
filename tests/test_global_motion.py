"""Homography, blur between the frames, and where the result departs from the homography; all against known truth."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from selfhvd_tta.flows import FlowEstimator, FlowField
from selfhvd_tta.flows.blur_path import BlurPath
from selfhvd_tta.flows.dis import DIS
from selfhvd_tta.flows.global_motion import UNRELIABLE, GlobalMotionFirst
from selfhvd_tta.flows.homography import estimate_homography
from tests.pictures import inner, tensor, texture

HEIGHT, WIDTH = 144, 192
MARGIN = 40
SHAKE = np.array([[1.01, 0.015, 7.3], [-0.012, 0.995, -5.6], [2e-5, -1e-5, 1.0]])
# An accelerating, turning hand: the centroid of this blur lies 0.9 px from mid-exposure.
PATH = BlurPath((4.0, 2.0), (1.2, -2.4))


def scene(seed: int = 0) -> np.ndarray:
    """A picture larger than the frame by ``MARGIN`` on every side, RGB in [0, 1], linear light."""
    return texture(HEIGHT + 2 * MARGIN, WIDTH + 2 * MARGIN, seed) ** 2


def photograph(light: np.ndarray, matrix: np.ndarray, path: BlurPath | None = None, size: int = 1) -> np.ndarray:
    """What a camera sees whose pixel p looks at ``matrix(p)``, moving by ``path`` while its shutter is open."""
    times = np.zeros(1) if path is None else np.linspace(-1, 1, 61)
    frame = np.zeros((HEIGHT * size, WIDTH * size, 3))
    for t in times:
        u = np.zeros(2) if path is None else np.array(path.velocity) * t + np.array(path.bend) * t * t
        moved = np.array([[1, 0, MARGIN * size], [0, 1, MARGIN * size], [0, 0, 1]]) @ matrix
        moved = moved @ np.array([[1, 0, u[0]], [0, 1, u[1]], [0, 0, 1]])
        frame += cv2.warpPerspective(
            light, moved, (WIDTH * size, HEIGHT * size), flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        )
    return np.sqrt(np.clip(frame / len(times), 0, 1)).astype(np.float32)


def gray(frame: np.ndarray) -> np.ndarray:
    return frame @ np.array([0.299, 0.587, 0.114], np.float32)


def flow_of(matrix: np.ndarray, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    xs, ys = np.meshgrid(np.arange(width), np.arange(height))
    points = np.stack([xs, ys, np.ones_like(xs)], axis=-1) @ matrix.T
    return points[..., :2] / points[..., 2:] - np.stack([xs, ys], axis=-1)


def worst_error(found: np.ndarray, true: np.ndarray, height: int = HEIGHT, width: int = WIDTH) -> float:
    """Largest distance in pixels between two homographies over the frame."""
    difference = flow_of(found, height, width) - flow_of(true, height, width)
    return float(np.linalg.norm(difference, axis=-1).max())


@pytest.mark.parametrize("path", [BlurPath(), PATH, BlurPath((0.3, 0.2), (0.1, 0.0))])
def test_kernel_has_unit_mass_and_its_centroid_beside_mid_exposure(path: BlurPath) -> None:
    kernel = path.moment(0).astype(np.float64)
    reach = kernel.shape[0] // 2
    ys, xs = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    assert kernel.sum() == pytest.approx(1, abs=1e-5)
    assert path.moment(1).sum() == pytest.approx(0, abs=1e-5)
    # The mean of t squared over [-1, 1] is 1/3.
    assert (kernel * xs).sum() == pytest.approx(path.bend[0] / 3, abs=0.01)
    assert (kernel * ys).sum() == pytest.approx(path.bend[1] / 3, abs=0.01)


def test_path_scales_with_the_frame() -> None:
    assert PATH.scaled(2).length == pytest.approx(2 * PATH.length)
    assert PATH.length == pytest.approx(2 * np.hypot(4, 2))


def test_blur_is_the_mean_along_the_path() -> None:
    light = scene()[..., 0]
    ours = PATH.blur(light)
    mean = np.zeros_like(light)
    for t in np.linspace(-1, 1, 201):
        dx, dy = 4 * t + 1.2 * t * t, 2 * t - 2.4 * t * t
        shift = np.float32([[1, 0, dx], [0, 1, dy]])
        mean += cv2.warpAffine(light, shift, light.shape[::-1], flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP) / 201
    soft = BlurPath().blur(mean.astype(np.float32))
    inside = slice(12, -12), slice(12, -12)
    assert np.abs(ours - soft)[inside].max() < 0.01 * np.ptp(light)


def test_sharp_pair() -> None:
    light = scene()
    motion = estimate_homography(gray(photograph(light, SHAKE)), gray(photograph(light, np.eye(3))))
    assert motion.refined
    assert worst_error(motion.matrix, SHAKE) < 0.1
    assert motion.inlier_share > 0.9
    assert motion.path.length < 1


def test_blurry_frame_is_aligned_at_mid_exposure_and_not_at_its_centroid() -> None:
    light = scene()
    blurry, sharp = gray(photograph(light, SHAKE, PATH)), gray(photograph(light, np.eye(3)))
    motion = estimate_homography(blurry, sharp)
    centroid = SHAKE @ np.array([[1, 0, PATH.bend[0] / 3], [0, 1, PATH.bend[1] / 3], [0, 0, 1]])
    assert motion.blurrier == "source"
    assert worst_error(centroid, SHAKE) > 0.85
    assert worst_error(motion.matrix, SHAKE) < 0.3
    assert motion.path.length == pytest.approx(PATH.length, rel=0.1)


def test_roles_may_be_exchanged() -> None:
    light = scene()
    blurry, sharp = gray(photograph(light, SHAKE, PATH)), gray(photograph(light, np.eye(3)))
    motion = estimate_homography(sharp, blurry)
    assert motion.blurrier == "target"
    assert worst_error(motion.inverse().matrix, SHAKE) < 0.3
    assert worst_error(motion.inverse().inverse().matrix, motion.matrix) < 1e-6


def test_exposure_may_change() -> None:
    light = scene()
    blurry, sharp = gray(photograph(light, SHAKE, PATH)), gray(photograph(light, np.eye(3)))
    motion = estimate_homography(0.7 * blurry + 0.1, sharp)
    assert worst_error(motion.matrix, SHAKE) < 0.35
    assert motion.gain == pytest.approx(0.7, abs=0.05)
    assert motion.offset == pytest.approx(0.1, abs=0.04)


@pytest.mark.parametrize("shift", [(36, -30), (-38, 0)])
def test_large_shift(shift: tuple[int, int]) -> None:
    """A fifth of the frame: what ten frames of shake add up to."""
    light = scene()
    far = np.array([[1, 0, shift[0]], [0, 1, shift[1]], [0, 0, 1.0]])
    motion = estimate_homography(gray(photograph(light, far, PATH)), gray(photograph(light, np.eye(3))))
    assert worst_error(motion.matrix, far) < 0.4


def test_frames_larger_than_the_working_size() -> None:
    light = cv2.resize(scene(), None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC)
    big = np.array([[1.01, 0.015, 22], [-0.012, 0.995, -17], [7e-6, -3e-6, 1.0]])
    source, target = (gray(photograph(light, matrix, size=3)) for matrix in (big, np.eye(3)))
    motion = estimate_homography(source, target, working_side=320)
    assert worst_error(motion.matrix, big, HEIGHT * 3, WIDTH * 3) < 0.35


@pytest.mark.parametrize("kind", ["flat", "unrelated", "tiny"])
def test_nothing_reliable_is_no_motion_and_low_certainty(kind: str) -> None:
    size = (9, 13) if kind == "tiny" else (96, 128)
    if kind == "flat":
        source = target = np.full((*size, 3), 0.4, np.float32)
    else:
        source, target = texture(*size, seed=1), texture(*size, seed=2)
    motion = estimate_homography(gray(source), gray(target))
    field = GlobalMotionFirst(DIS())(tensor(source), tensor(target))
    if kind != "unrelated":
        assert not motion.refined
        assert np.array_equal(motion.matrix, np.eye(3))
        assert field.certainty.max() <= UNRELIABLE
    assert field.certainty.mean() < 0.5


def with_disc(frame: np.ndarray, centre: tuple[float, float]) -> np.ndarray:
    """A textured disc of radius 28 in front of the scene."""
    xs, ys = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    offset = np.float32([[1, 0, 40 - centre[0]], [0, 1, 40 - centre[1]]])
    front = cv2.warpAffine(
        texture(80, 80, seed=5)[..., ::-1].copy(), offset, (WIDTH, HEIGHT), flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    )
    inside = (np.hypot(xs - centre[0], ys - centre[1]) < 28)[..., None]
    return np.where(inside, front, frame).astype(np.float32)


@pytest.fixture(scope="module")
def moving_disc() -> tuple[Tensor, Tensor, np.ndarray]:
    """Shaken source with a disc that moved by (9, 4) px against the frame; mask of the disc's core in the source."""
    light = scene()
    source = with_disc(photograph(light, SHAKE), (90, 70))
    target = with_disc(photograph(light, np.eye(3)), (99, 74))
    xs, ys = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    return tensor(source), tensor(target), np.hypot(xs - 90, ys - 70)


def end_point_error(field: FlowField, true: np.ndarray) -> np.ndarray:
    return np.linalg.norm(field.flow[0].permute(1, 2, 0).numpy() - true, axis=-1)


def test_what_moves_by_itself_gets_its_own_flow(moving_disc: tuple[Tensor, Tensor, np.ndarray]) -> None:
    source, target, distance = moving_disc
    field = GlobalMotionFirst(DIS())(source, target)
    assert np.median(end_point_error(field, np.array([9, 4]))[distance < 20]) < 0.5
    assert np.median(end_point_error(field, flow_of(SHAKE))[distance > 45]) < 0.1


def test_without_inner_flow_certainty_tells_what_moves_by_itself(
    moving_disc: tuple[Tensor, Tensor, np.ndarray],
) -> None:
    source, target, distance = moving_disc
    field = GlobalMotionFirst(None)(source, target)
    assert np.median(end_point_error(field, flow_of(SHAKE))) < 0.1
    certainty = field.certainty[0, 0].numpy()
    assert certainty[distance < 20].mean() < 0.3
    assert certainty[distance > 45].mean() > 0.9


def test_both_directions_invert_each_other() -> None:
    light = scene()
    source, target = tensor(photograph(light, SHAKE, PATH)), tensor(photograph(light, np.eye(3)))
    forward, backward = GlobalMotionFirst(None).both(source, target)
    assert inner(torch.tensor(end_point_error(forward, flow_of(SHAKE))), 1).max() < 0.35
    assert inner(torch.tensor(end_point_error(backward, flow_of(np.linalg.inv(SHAKE)))), 1).max() < 0.35


class Recorder(FlowEstimator):
    """Finds ``motion`` everywhere, with ``certainty``, and keeps what it was asked about."""

    def __init__(self, motion: float = 0.0, certainty: float = 1.0) -> None:
        super().__init__()
        self.motion, self.certainty = motion, certainty

    def forward(self, source: Tensor, target: Tensor) -> FlowField:
        self.seen = source, target
        return FlowField(torch.full_like(source[:, :2], self.motion), torch.full_like(source[:, :1], self.certainty))


@pytest.mark.parametrize("exchanged", [False, True])
def test_inner_flow_sees_a_pair_that_is_aligned_and_equally_blurry(exchanged: bool) -> None:
    light = scene()
    pair = [tensor(photograph(light, SHAKE, PATH)), tensor(photograph(light, np.eye(3)))]
    spy = Recorder()
    GlobalMotionFirst(spy)(*(reversed(pair) if exchanged else pair))
    first, second = spy.seen
    before = inner(pair[0] - pair[1], 16).abs().mean()
    assert inner(first - second, 16).abs().mean() < 0.1 * before


def test_inner_flow_is_believed_only_where_it_explains_more() -> None:
    light = scene()
    source, target = tensor(photograph(light, SHAKE, PATH)), tensor(photograph(light, np.eye(3)))
    field = GlobalMotionFirst(Recorder(motion=3.0))(source, target)
    assert np.percentile(end_point_error(field, flow_of(SHAKE)), 95) < 0.4


def test_inner_flow_that_is_not_certain_is_not_believed(moving_disc: tuple[Tensor, Tensor, np.ndarray]) -> None:
    source, target, distance = moving_disc

    class Doubting(FlowEstimator):
        def forward(self, source: Tensor, target: Tensor) -> FlowField:
            field = DIS()(source, target)
            return FlowField(field.flow, torch.zeros_like(field.certainty))

    doubted = GlobalMotionFirst(Doubting())(source, target)
    assert torch.equal(doubted.flow, GlobalMotionFirst(None)(source, target).flow)
    assert doubted.certainty[0, 0].numpy()[distance < 20].mean() < 0.3


def test_scene_that_no_homography_explains() -> None:
    """Three strips that move differently, all blurred alike: flow comes first, and the blur is found behind it."""
    light = scene()
    still = photograph(light, np.eye(3))
    source, truth = still.copy(), np.zeros((HEIGHT, WIDTH, 2))
    for top, shift in ((0, (12, 3)), (48, (-11, 0)), (96, (4, -10))):
        moved = np.array([[1, 0, shift[0]], [0, 1, shift[1]], [0, 0, 1]])
        source[top : top + 48] = photograph(light, moved, PATH)[top : top + 48]
        truth[top : top + 48] = shift
    assert estimate_homography(gray(source), gray(still)).support < 0.7
    strips = np.r_[12:36, 60:84, 108:132]
    medians = [
        np.median(end_point_error(estimator(tensor(source), tensor(still)), truth)[strips, 16:-16])
        for estimator in (DIS(), GlobalMotionFirst(DIS()))
    ]
    # DIS alone aligns centroids, 0.9 px beside mid-exposure.
    assert medians[0] > 0.7
    assert medians[1] < 0.5 * medians[0]
