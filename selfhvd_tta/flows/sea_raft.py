"""SEA-RAFT S and M: flow with an uncertainty of its own, the estimator that SelfHVD builds on.

Wang et al., "SEA-RAFT: Simple, Efficient, Accurate RAFT for Optical Flow", ECCV 2024; configurations ``spring-S`` and
``spring-M``. The network has the official state-dict names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selfhvd_tta.flows import Flow, FlowEstimator, FlowField, FlowVariant, pad_replicate
from selfhvd_tta.flows.sea_raft_layers import CorrelationPyramid, ResNetFPN, UpdateBlock

RESNET18 = (2, 2, 2)
RESNET34 = (3, 4, 6)
WIDTH = 128
RADIUS = 4
SIZE_MULTIPLE = 8
# At 1/8 resolution the coarsest of the four correlation levels needs two rows and columns.
MIN_SIDE = 128
LARGEST_LOG_SCALE = 10.0


@dataclass(frozen=True)
class Prediction:
    """What one update gives, at the size of the input.

    Attributes:
        flow: (B, 2, H, W), pixels, x and y.
        info: (B, 4, H, W): logits of the two components of a mixture of Laplace distributions over the error of the
            flow, then the raw logarithms of their scales.
    """

    flow: Tensor
    info: Tensor


class SEARAFTNetwork(nn.Module):
    """The raw network; gradients run through it.

    Args:
        blocks: of the three stages of both encoders: ResNet-18's for S, ResNet-34's for M.
        iterations: recurrent updates after the direct regression from context.
    """

    def __init__(self, blocks: tuple[int, int, int] = RESNET18, iterations: int = 4) -> None:
        super().__init__()
        self.iterations = iterations
        self.cnet = ResNetFPN(6, 2 * WIDTH, blocks)
        self.init_conv = nn.Conv2d(2 * WIDTH, 2 * WIDTH, 3, padding=1)
        self.upsample_weight = nn.Sequential(
            nn.Conv2d(WIDTH, 2 * WIDTH, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(2 * WIDTH, 64 * 9, 1)
        )
        self.flow_head = nn.Sequential(
            nn.Conv2d(WIDTH, 2 * WIDTH, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(2 * WIDTH, 6, 3, padding=1)
        )
        self.fnet = ResNetFPN(3, 2 * WIDTH, blocks)
        self.update_block = UpdateBlock(WIDTH, RADIUS, blocks=2)

    def forward(self, source: Tensor, target: Tensor) -> list[Prediction]:
        """(B, 3, H, W) RGB in 0..255, any size -> the initial prediction and one per iteration, the best one last."""
        size = source.shape[-2:]
        (source, target), place = _prepared(source, target)
        predictions = self._updates(source, target, self.fnet(source), self.fnet(target))
        return [_cropped(each, place, size) for each in predictions]

    def there_and_back(self, source: Tensor, target: Tensor) -> Prediction:
        """The best prediction from ``source`` to ``target``, then that back, (2 B, ...), both in one pass.

        The features of a frame are the same in both directions, and are computed once.
        """
        size = source.shape[-2:]
        (source, target), place = _prepared(source, target)
        features = self.fnet(torch.cat((source, target)))
        swapped = torch.cat(features.chunk(2)[::-1])
        ways = torch.cat((source, target)), torch.cat((target, source))
        *_, last = self._updates(*ways, features, swapped, only_last=True)
        return _cropped(last, place, size)

    def _updates(
        self, source: Tensor, target: Tensor, seen: Tensor, sought: Tensor, only_last: bool = False
    ) -> Iterator[Prediction]:
        """Predictions of prepared frames from their features ``seen`` and ``sought``, or the last of them alone."""
        state, context = self.init_conv(self.cnet(torch.cat([source, target], dim=1))).split(WIDTH, dim=1)
        correlation = CorrelationPyramid(seen, sought, RADIUS)
        flow, info = self.flow_head(state).split([2, 4], dim=1)
        if not only_last or not self.iterations:
            yield self._upsample(state, flow, info)
        grid = _positions(flow)
        for iteration in range(self.iterations):
            flow = flow.detach()
            state = self.update_block(state, context, correlation.read(grid + flow), flow)
            change, info = self.flow_head(state).split([2, 4], dim=1)
            flow = flow + change
            if not only_last or iteration == self.iterations - 1:
                yield self._upsample(state, flow, info)

    def _upsample(self, state: Tensor, flow: Tensor, info: Tensor) -> Prediction:
        """To 8 times the size: every fine pixel is a learned convex combination of 3x3 coarse ones (RAFT, Sec. 3.3)."""
        batch, _, height, width = flow.shape
        weights = (0.25 * self.upsample_weight(state)).view(batch, 1, 9, 8, 8, height, width).softmax(dim=2)
        coarse = torch.cat([8 * flow, info], dim=1)
        neighbours = F.unfold(coarse, 3, padding=1).view(batch, 6, 9, 1, 1, height, width)
        fine = (weights * neighbours).sum(dim=2).permute(0, 1, 4, 2, 5, 3).reshape(batch, 6, 8 * height, 8 * width)
        return Prediction(*fine.split([2, 4], dim=1))


def _prepared(source: Tensor, target: Tensor) -> tuple[tuple[Tensor, ...], tuple[int, int]]:
    """Frames in 0..255 in the network's range and size, and the place of the originals in them."""
    return pad_replicate((2 * (source / 255) - 1, 2 * (target / 255) - 1), SIZE_MULTIPLE, MIN_SIDE)


def _cropped(prediction: Prediction, place: tuple[int, int], size: torch.Size) -> Prediction:
    rows, columns = (slice(start, start + side) for start, side in zip(place, size, strict=True))
    return Prediction(prediction.flow[..., rows, columns], prediction.info[..., rows, columns])


def _positions(flow: Tensor) -> Tensor:
    """(1, 2, H, W) pixel coordinates, x and y."""
    height, width = flow.shape[-2:]
    ys = torch.arange(height, device=flow.device, dtype=flow.dtype)
    xs = torch.arange(width, device=flow.device, dtype=flow.dtype)
    return torch.stack(torch.meshgrid(xs, ys, indexing="xy"))[None]


def expected_log_scale(info: Tensor) -> Tensor:
    """Mean logarithm of the Laplace scale under the mixture, the authors' uncertainty map.

    The first component's log-scale is clamped to [0, 10], the second one's to 0 (an error of about a pixel).

    Args:
        info: (B, 4, H, W) as in :class:`Prediction`.

    Returns:
        (B, 1, H, W), 0 where the flow is certain, at most 10.
    """
    weights = info[:, :2].softmax(dim=1)
    return weights[:, :1] * info[:, 2:3].clamp(0, LARGEST_LOG_SCALE)


class SEARAFT(FlowEstimator):
    """SEA-RAFT at half resolution, as its authors evaluate it, with ``U = exp(-sum_k w_k log b_k)`` as certainty.

    Args:
        blocks: see :class:`SEARAFTNetwork`.
        iterations: recurrent updates.
    """

    def __init__(self, blocks: tuple[int, int, int] = RESNET18, iterations: int = 4) -> None:
        super().__init__()
        self.network = SEARAFTNetwork(blocks, iterations)

    @property
    def iterations(self) -> int:
        return self.network.iterations

    @iterations.setter
    def iterations(self, value: int) -> None:
        self.network.iterations = value

    @torch.no_grad()
    def predict(self, source: Tensor, target: Tensor) -> Prediction:
        """Flow and info at full size, estimated at half resolution. Frames as in ``forward``."""
        return _enlarged(self.network(*_halves(source, target))[-1], source.shape[-2:])

    @torch.no_grad()
    def forward(self, source: Tensor, target: Tensor) -> FlowField:
        return _field(self.predict(source, target))

    @torch.no_grad()
    def both(self, source: Tensor, target: Tensor) -> tuple[FlowField, FlowField]:
        found = _enlarged(self.network.there_and_back(*_halves(source, target)), source.shape[-2:])
        there, back = (Prediction(*way) for way in zip(found.flow.chunk(2), found.info.chunk(2), strict=True))
        return _field(there), _field(back)


def _halves(source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Frames in [0, 1] at half the size, in 0..255."""
    half = [max(1, side // 2) for side in source.shape[-2:]]
    first, second = (
        F.interpolate(255 * frame.float(), half, mode="bilinear", align_corners=False) for frame in (source, target)
    )
    return first, second


def _enlarged(small: Prediction, full: torch.Size) -> Prediction:
    """A prediction at half the size, in pixels of the full one."""
    half = small.flow.shape[-2:]
    x, y = F.interpolate(small.flow.float(), full, mode="bilinear", align_corners=False).split(1, dim=1)
    flow = torch.cat((x * (full[1] / half[1]), y * (full[0] / half[0])), dim=1)
    return Prediction(flow, F.interpolate(small.info.float(), full, mode="area"))


def _field(prediction: Prediction) -> FlowField:
    return FlowField(prediction.flow, torch.exp(-expected_log_scale(prediction.info)))


def load(estimator: FlowEstimator, tensors: Mapping[str, Tensor]) -> None:
    """Load official tensors (with or without ``module.``), strictly.

    safetensors files hold one name only of two that share a tensor, so ``bn3`` and ``downsample.1`` stand in for
    each other.

    Raises:
        RuntimeError: a tensor is missing, superfluous or has another shape.
    """
    if not isinstance(estimator, SEARAFT):
        raise TypeError(f"these are weights of SEA-RAFT, not of {type(estimator).__name__}")
    state = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    for name, tensor in list(state.items()):
        for one, other in ((".bn3.", ".downsample.1."), (".downsample.1.", ".bn3.")):
            if one in name:
                state.setdefault(name.replace(one, other), tensor)
    estimator.network.load_state_dict(state, strict=True)


FLOW = Flow(
    id="sea-raft",
    summary="SEA-RAFT with its own certainty, at half resolution",
    licence="BSD-3-Clause",
    paper="Wang et al., SEA-RAFT: Simple, Efficient, Accurate RAFT for Optical Flow, ECCV 2024",
    build=SEARAFT,
    variants=(
        FlowVariant("s", {"blocks": RESNET18}, ("sea-raft-s",)),
        FlowVariant("m", {"blocks": RESNET34}, ("sea-raft-m",)),
    ),
    load=load,
    learned=True,
)
