"""Global motion first: one homography per pair, found together with the blur between its frames; a flow for the rest.

Shake is a motion of the camera, so a homography explains most of it. What it leaves (parallax, rolling shutter, things
that move by themselves) is looked for by an inner flow, on a pair of which the sharper frame has been warped *and
blurred* like the other one: a flow that compares a blurry frame with a sharp one mistakes their difference for motion.
The result departs from the homography only where that brings the blur-matched frames closer to each other.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from selfhvd_tta.flows import Flow, FlowEstimator, FlowField, FlowVariant, PairEstimator, luma
from selfhvd_tta.flows.blur_path import BlurPath
from selfhvd_tta.flows.dis import DIS, Preset
from selfhvd_tta.flows.homography import PIXELS, SMOOTHING, GlobalMotion, estimate_homography, working_size
from selfhvd_tta.flows.homography_fit import TRANSLATION, Estimate, PhotometricFit, linear, rescaled, tone, warp

__all__ = ["FLOW", "GlobalMotion", "GlobalMotionFirst", "estimate_homography"]

# Below this support of the homography the blur is looked for behind the flow.
DOUBTFUL = 0.7
# Forward-backward error in working pixels up to which the directions of the inner flow are averaged; not at twice that.
NEARLY = 0.5
# Scale in working pixels over which two explanations of the same place are compared.
EVIDENCE_SCALE = 5.0
# The residual flow has to lower the squared difference by this factor before it is believed ...
LEAST_GAIN = 1.05
# ... and belief rises around that factor as a logistic in the logarithm of the ratio with this slope.
DECISION = 8.0
# Share of the local contrast that may stay unexplained before certainty falls; it is 0 at twice that share.
UNEXPLAINED = 0.6
# Differences of grey values (in [0, 1]) below this are noise in any video.
NOISE_FLOOR = 0.008
# What the global motion leaves counts as noise up to this.
LARGEST_NOISE = 0.03
# Local contrast (standard deviation of grey values) at which a place counts as half textured.
FLAT = 0.02
# Scale in working pixels over which flat places take over the flow of textured ones.
FILL_SCALE = 12.0
# Certainty is at most this where no global motion was found.
UNRELIABLE = 0.4


class GlobalMotionFirst(PairEstimator):
    """Homography, then ``inner`` for the rest.

    Certainty is low where neither explains the pair, and at most ``UNRELIABLE`` where no homography does.

    Args:
        inner: flow that looks for what the homography leaves; None: nothing does.
        working_side: frames with a longer side are scaled down to it for everything but the final flow.
    """

    explains_blur = True

    def __init__(self, inner: FlowEstimator | None = None, working_side: int = 640) -> None:
        super().__init__()
        self.inner = inner
        self.working_side = working_side

    measures_blur = True

    def blur(self, source: Tensor, target: Tensor) -> BlurPath | None:
        """The path that was fitted along with the homography; None where ``target`` is blurrier, or in doubt."""
        motion = estimate_homography(
            luma(source)[0].float().cpu().numpy(), luma(target)[0].float().cpu().numpy(), self.working_side
        )
        known = motion.refined and motion.support >= DOUBTFUL and motion.blurrier == "source"
        return motion.path if known else None

    def pair(self, source: Tensor, target: Tensor) -> tuple[FlowField, FlowField]:
        """Both directions share one homography, so that they are inverse to each other where only it acts."""
        small = [_resized(frame, self.working_side) for frame in (source, target)]
        motion = estimate_homography(luma(small[0])[0].numpy(), luma(small[1])[0].numpy(), self.working_side)
        swapped = motion.blurrier == "target"
        if swapped:
            motion = motion.inverse()
        blurry, sharp = reversed(small) if swapped else small
        if self.inner is not None and motion.support < DOUBTFUL:
            # The fit has mistaken for blur what does not move with the frame. Flow first, then the blur that it leaves.
            motion = replace(motion, path=BlurPath(), gain=1.0, offset=0.0)
            _, _, (seen, _) = self._matched(blurry, sharp, motion, source.device)
            motion = blur_after(blurry, sharp, motion, seen.flow)
        observed, predicted, (seen_there, seen_back) = self._matched(blurry, sharp, motion, source.device)
        covered = _covered(motion, (blurry.shape[-2], blurry.shape[-1]))
        settle = _weighed if self.inner is not None and self.inner.weighs_evidence else _believed
        there, sure_there = settle(observed, predicted, seen_there, covered, motion.residual)
        back, sure_back = settle(predicted, observed, seen_back, covered, motion.residual)
        if not motion.refined:
            sure_there, sure_back = sure_there.clamp(max=UNRELIABLE), sure_back.clamp(max=UNRELIABLE)

        full = source.shape[-2:]
        scale = full[1] / observed.shape[-1], full[0] / observed.shape[-2]
        back, sure_back = _seen_from_target(torch.from_numpy(motion.matrix), back, sure_back)
        ratio = there.new_tensor(scale).view(1, 2, 1, 1)
        there, sure_there, back, sure_back = (
            F.interpolate(each.to(source.device), full, mode="bilinear", align_corners=False)
            for each in (there * ratio, sure_there, back * ratio, sure_back)
        )
        matrix = torch.from_numpy(rescaled(motion.matrix, *scale))
        grid = _grid(there)
        forward = FlowField(_projected(matrix, grid + there) - grid, sure_there)
        backward = FlowField(_projected(torch.linalg.inv(matrix), grid) + back - grid, sure_back)
        return (backward, forward) if swapped else (forward, backward)

    def _matched(
        self, blurry: Tensor, sharp: Tensor, motion: GlobalMotion, device: torch.device
    ) -> tuple[Tensor, Tensor, tuple[FlowField, FlowField]]:
        """The blur-matched frames and what ``inner`` sees between them in both directions, all on the CPU."""
        observed, predicted = blur_matched(blurry, sharp, motion)
        if self.inner is None:
            nothing = torch.zeros_like(observed[:, :2])
            still = FlowField(nothing, torch.ones_like(nothing[:, :1]))
            return observed, predicted, (still, still)
        there, back = self.inner.both(observed.to(device), predicted.to(device))
        flows = there.flow.cpu(), back.flow.cpu()
        if not self.inner.weighs_evidence:
            flows = reconciled(*flows)
        fields = FlowField(flows[0], there.certainty.cpu()), FlowField(flows[1], back.certainty.cpu())
        return observed, predicted, fields


def _resized(frame: Tensor, side: int) -> Tensor:
    """(1, 3, H, W) at working size, on the CPU, every pixel the mean of those that it covers."""
    rows, columns = working_size(frame.shape[-2], frame.shape[-1], side)
    planes = frame[0].detach().float().cpu().numpy()
    if (rows, columns) != planes.shape[1:]:
        planes = np.stack([cv2.resize(plane, (columns, rows), interpolation=cv2.INTER_AREA) for plane in planes])
    return torch.from_numpy(np.ascontiguousarray(planes))[None]


def blur_matched(blurry: Tensor, sharp: Tensor, motion: GlobalMotion) -> tuple[Tensor, Tensor]:
    """The blurry frame, and the sharp one made to look like it; (1, 3, h, w) in [0, 1], equally soft."""

    def developed(planes: list[np.ndarray]) -> Tensor:
        return torch.from_numpy(np.stack([tone(plane) for plane in planes]))[None]

    observed = developed([BlurPath().blur(linear(plane)) for plane in blurry[0].numpy()])
    moved = (warp(linear(plane), motion.matrix, cv2.INTER_CUBIC) for plane in sharp[0].numpy())
    predicted = developed([motion.path.blur(plane) for plane in moved])
    return observed.clamp(0, 1), (motion.gain * predicted + motion.offset).clamp(0, 1)


def blur_after(blurry: Tensor, sharp: Tensor, motion: GlobalMotion, residual: Tensor) -> GlobalMotion:
    """``motion`` with the blur that is left once the residual flow (1, 2, h, w) has been taken out."""
    light = [linear(luma(frame)[0].numpy()) for frame in (blurry, sharp)]
    moved = _moved(warp(light[1], motion.matrix, cv2.INTER_CUBIC), residual[0].permute(1, 2, 0).numpy())
    fit = PhotometricFit(light[0], moved, SMOOTHING, PIXELS)
    start = Estimate(np.eye(3))
    estimate = fit.fit(replace(start, path=fit.initial_path(start)[0]), 6, blur=True, only=TRANSLATION)
    estimate = fit.fit(estimate, 6, blur=True, bend=True, only=TRANSLATION)
    return replace(motion, path=estimate.path, gain=estimate.gain, offset=estimate.offset, residual=estimate.noise)


def _covered(motion: GlobalMotion, size: tuple[int, int]) -> np.ndarray:
    """Where the sharper frame, warped and blurred, is seen in full: (h, w) bool. Elsewhere its border is repeated."""
    height, width = size
    ones = np.ones((height, width), np.float32)
    seen = cv2.warpPerspective(ones, motion.matrix, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    kernel = motion.path.moment(0)
    return cv2.filter2D(seen, cv2.CV_32F, kernel, borderType=cv2.BORDER_REPLICATE) > 0.95


def reconciled(there: Tensor, back: Tensor) -> tuple[Tensor, Tensor]:
    """Two measurements of the same motion: where they nearly agree, their mean, in both directions.

    Where they do not (occlusions, mistakes) they stay as they are, for the forward-backward check to see.
    """

    def towards(flow: Tensor, other: Tensor) -> Tensor:
        a, b = (each[0].permute(1, 2, 0).numpy() for each in (flow, other))
        gap = a + _moved(b, a)
        share = np.clip(2 - cv2.magnitude(gap[..., 0], gap[..., 1]) / NEARLY, 0, 1)[..., None]
        return torch.from_numpy(a - 0.5 * share * gap).permute(2, 0, 1)[None]

    return towards(there, back), towards(back, there)


def _believed(
    from_: Tensor, to: Tensor, residual: FlowField, covered: np.ndarray, noise: float
) -> tuple[Tensor, Tensor]:
    """Keep the residual flow where the evidence asks for it, and say how much of the pair is explained.

    Args:
        from_, to: (1, 3, h, w) blur-matched frames.
        residual: what the inner flow sees from ``from_`` to ``to``; less is believed where it is not certain itself.
        covered: (h, w) bool, where the predicted frame is not made up.
        noise: robust standard deviation of grey values that the global motion leaves.

    Returns:
        (1, 2, h, w) residual flow, 0 where it is not believed, and (1, 1, h, w) certainty.
    """
    a, b = luma(from_)[0].numpy(), luma(to)[0].numpy()
    flow = residual.flow[0].permute(1, 2, 0).numpy()
    contrast = _local_contrast(a)
    left = _difference(a, b)
    if flow.any():
        flow = _filled(flow, covered * contrast / (contrast + FLAT**2))
        gain = np.log((left + NOISE_FLOOR**2) / (_difference(a, _moved(b, flow)) + NOISE_FLOOR**2))
        belief = 1 / (1 + np.exp(np.clip(-DECISION * (gain - np.log(LEAST_GAIN)), -30, 30)))
        belief = _filled((belief * residual.certainty[0, 0].numpy())[..., None], covered)
        flow = (flow * belief).astype(np.float32)
        left = _difference(a, _moved(b, flow))
    return (
        torch.from_numpy(np.ascontiguousarray(flow.transpose(2, 0, 1), np.float32))[None],
        _explained(left, contrast, noise),
    )


def _weighed(
    from_: Tensor, to: Tensor, residual: FlowField, covered: np.ndarray, noise: float
) -> tuple[Tensor, Tensor]:
    """The same for an inner flow that weighs the evidence itself: its certainty, less where much stays unexplained.

    Where the predicted frame is made up the flow comes from around, as there.
    """
    a, b = luma(from_)[0].numpy(), luma(to)[0].numpy()
    flow = _filled(residual.flow[0].permute(1, 2, 0).numpy(), covered)
    explained = _explained(_difference(a, _moved(b, flow)), _local_contrast(a), noise)
    return (
        torch.from_numpy(np.ascontiguousarray(flow.transpose(2, 0, 1), np.float32))[None],
        residual.certainty * explained,
    )


def _explained(left: np.ndarray, contrast: np.ndarray, noise: float) -> Tensor:
    """Certainty (1, 1, h, w) by how much of the local contrast the difference that is left makes up."""
    floor = np.clip(noise, NOISE_FLOOR, LARGEST_NOISE) ** 2
    certainty = np.clip(2 - left / (contrast + floor) / UNEXPLAINED, 0, 1)
    return torch.from_numpy(certainty.astype(np.float32))[None, None]


def _local_contrast(image: np.ndarray) -> np.ndarray:
    """Local variance of (h, w) grey values."""
    mean = _local_mean(image)
    return np.maximum(_local_mean(image * image) - mean * mean, 0)


def _filled(values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(h, w, c) values with places of low weight (0..1) filled in from others around; without such, fading to 0."""
    weight = weight[..., None].astype(np.float32)
    wide = _widely_blurred(np.concatenate([values * weight, weight], axis=-1))
    around, total = wide[..., :-1], wide[..., -1:]
    return weight * values + (1 - weight) * around / (total + 0.1)


def _widely_blurred(values: np.ndarray) -> np.ndarray:
    """Gaussian of ``FILL_SCALE`` over (h, w, c), at a quarter of the size, where it takes a sixtieth of the work."""
    height, width, channels = values.shape
    small = (max(1, round(width / 4)), max(1, round(height / 4)))
    # What resizing itself blurs, there by a box and back by a triangle, is taken off: (4^2 - 1) / 12 + 4^2 / 6.
    sigma = np.sqrt(FILL_SCALE**2 - 3.9) / 4
    reduced = cv2.GaussianBlur(cv2.resize(values, small, interpolation=cv2.INTER_AREA), (0, 0), sigma)
    return cv2.resize(reduced, (width, height), interpolation=cv2.INTER_LINEAR).reshape(height, width, channels)


def _local_mean(image: np.ndarray) -> np.ndarray:
    return cv2.GaussianBlur(image, (0, 0), EVIDENCE_SCALE)


def _difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Local mean of squared differences, slightly low-passed because noise says nothing about motion."""
    return _local_mean(np.square(cv2.GaussianBlur(a - b, (0, 0), 1.0)))


def _moved(image: np.ndarray, flow: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    places = np.ascontiguousarray(flow, np.float32) + _places(height, width)
    no_second: Any = None  # both coordinates are in the first map; the stubs do not know that
    return cv2.remap(image, places, no_second, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


@lru_cache(maxsize=4)
def _places(height: int, width: int) -> np.ndarray:
    """(H, W, 2) float32, x and y of every pixel."""
    xs, ys = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return np.stack((xs, ys), axis=-1)


def moved(maps: Tensor, flow: Tensor) -> Tensor:
    """(1, C, h, w) at p + flow(p), bilinear, borders repeated; both on the CPU."""
    planes = maps[0].permute(1, 2, 0).contiguous().numpy()
    return torch.from_numpy(_moved(planes, flow[0].permute(1, 2, 0).numpy())).permute(2, 0, 1)[None]


def _grid(like: Tensor) -> Tensor:
    """(1, 2, H, W) pixel coordinates, x and y."""
    height, width = like.shape[-2:]
    xs = torch.arange(width, device=like.device, dtype=like.dtype)
    ys = torch.arange(height, device=like.device, dtype=like.dtype)
    return torch.stack(torch.meshgrid(xs, ys, indexing="xy"))[None]


def _projected(matrix: Tensor, points: Tensor) -> Tensor:
    """Homography of (1, 2, H, W) points."""
    (a, b, c), (d, e, f), (g, h, i) = matrix.tolist()
    x, y = points[:, :1], points[:, 1:]
    depth = (g * x + h * y + i).clamp(min=1e-3)
    return torch.cat([(a * x + b * y + c) / depth, (d * x + e * y + f) / depth], dim=1)


def _seen_from_target(matrix: Tensor, residual: Tensor, certainty: Tensor) -> tuple[Tensor, Tensor]:
    """Residual and certainty, which live on the homography's source grid, at the places that target pixels go to."""
    height, width = residual.shape[-2:]
    arrival = _projected(torch.linalg.inv(matrix), _grid(residual))
    extent = arrival.new_tensor([width, height]).view(1, 2, 1, 1)
    places = ((2 * arrival + 1) / extent - 1).permute(0, 2, 3, 1)
    seen = F.grid_sample(
        torch.cat([residual, certainty], dim=1), places, mode="bilinear", padding_mode="border", align_corners=False
    )
    return seen[:, :2], seen[:, 2:]


def _embedded(preset: Preset = "medium", working_side: int = 640) -> GlobalMotionFirst:
    return GlobalMotionFirst(DIS(preset), working_side)


FLOW = Flow(
    id="embedded",
    summary="global motion with the blur between the frames, DIS for the rest; no weights, CPU",
    licence="MIT",
    paper="ours; DIS: Kroeger et al., Fast Optical Flow using Dense Inverse Search, ECCV 2016",
    build=_embedded,
    variants=(FlowVariant("dis"),),
)
