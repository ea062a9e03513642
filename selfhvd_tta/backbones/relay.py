"""Relay: a small recurrent network that passes sharp detail from frame to frame along the optical flow. Ours.

Handheld video is blurred by very different amounts from frame to frame, and what one frame lacks a neighbour often
shows. So an estimate of the sharp picture travels through the clip, backward and then forward. It is moved by the flow
between neighbouring frames (DIS on luma, corrected by a few layers), and at each frame a small U-net decides pixel by
pixel what to keep of it, what to take from the frame itself, and what to add. Bidirectional propagation with flow
alignment is that of BasicVSR (Chan et al., CVPR 2021), the U-net's blocks are NAFNet's (Chen et al., ECCV 2022);
choosing between pictures, not features, makes it learn within an hour on a CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfhvd_tta.backbones import Backbone, Variant
from selfhvd_tta.backbones.layers import flow_warp, recompute, resize_bilinear
from selfhvd_tta.backbones.two_scales import TwoScales
from selfhvd_tta.flows import gray_u8
from selfhvd_tta.flows.dis import dis_flow

REACH = 2.0  # pixels by which a flow is corrected at most
ALIGNMENT, SOFTNESS = 0.5, 0.03  # weight of the loss of the flows, and the error up to which it is quadratic
TRAIN_SIDE = 112  # pixels


class Carried(NamedTuple):
    """What travels: an estimate of the sharp picture (B, 3, H, W) in float32, and features (B, C, H, W)."""

    picture: Tensor
    features: Tensor


class RelayCell(TwoScales):
    """One frame's work in one direction: a U-net at a half and a quarter of the resolution.

    Args:
        pictures: candidates for the picture, the recorded frame first.
        inputs: further input channels.
        features: channels that travel with the picture.
        width: channels at half resolution; twice as many at a quarter.
        outer_blocks: at half resolution, before and after the inner ones.
        inner_blocks: at a quarter of the resolution.
    """

    def __init__(
        self, pictures: int, inputs: int, features: int, width: int, outer_blocks: int, inner_blocks: int
    ) -> None:
        inputs += 3 * pictures
        super().__init__(inputs, pictures + 3 + features, width, outer_blocks, inner_blocks, TRAIN_SIDE, 0.1)
        self.pictures, self.features = pictures, features
        with torch.no_grad():  # a fresh network prefers the frame as recorded
            assert self.ending.bias is not None
            self.ending.bias[:4] += 1

    def forward(self, others: Tensor, *pictures: Tensor) -> Carried:
        """Candidates (B, 3, H, W) each, H and W multiples of 4, and further inputs (B, inputs, H, W)."""
        seen = torch.cat([pictures[0], *(picture - pictures[0] for picture in pictures[1:]), others], 1)
        choice, added, features = self.unet(seen).split((self.pictures, 3, self.features), 1)
        # In float32: half precision would round the picture again at every frame.
        shares = choice.float().softmax(1)
        blend = sum(shares[:, i : i + 1] * picture for i, picture in enumerate(pictures))
        return Carried(blend + added.float(), features)


class Aligner(nn.Module):
    """Correction of a flow, in pixels, at half the resolution: at most :data:`REACH` in each direction.

    DIS mistakes blur for displacement; which correction aligns the pictures best is learned from the restoration.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(4 * 9, width, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(width, width, 3, padding=2, dilation=2),
            nn.GELU(),
            nn.Conv2d(width, width, 3, padding=4, dilation=4),
            nn.GELU(),
            nn.Conv2d(width, 2, 3, padding=1),
        )
        with torch.no_grad():
            for parameter in self.layers[-1].parameters():
                parameter.mul_(0.1)

    def forward(self, frame: Tensor, near: Tensor) -> Tensor:
        """The frame (B, 3, H, W) and what the flow has brought there (B, 6, H, W), to (B, 2, H, W)."""
        seen = F.pixel_unshuffle(torch.cat([frame, near], 1), 2).contiguous(memory_format=torch.channels_last)
        correction = REACH * torch.tanh(self.layers(seen).float() / REACH)
        return resize_bilinear(correction, frame.shape[-2:])


class Relay(nn.Module):
    """See the module.

    Args:
        width: channels of a cell at half resolution.
        outer_blocks: NAF blocks of a cell at half resolution, on either side.
        inner_blocks: NAF blocks of a cell at a quarter of the resolution.
        features: channels that travel with the picture.
        aligner_width: channels of the layers that correct the flow.
        checkpointing: recompute each cell in the backward pass instead of keeping its activations.
    """

    def __init__(
        self,
        width: int = 32,
        outer_blocks: int = 1,
        inner_blocks: int = 4,
        features: int = 8,
        aligner_width: int = 32,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.features, self.checkpointing = features, checkpointing
        # With the candidates: the neighbour's frame as recorded (3), where it covers this one (1), the features.
        self.backward_cell = RelayCell(2, 4 + features, features, width, outer_blocks, inner_blocks)
        self.aligner = Aligner(aligner_width)
        self.forward_cell = RelayCell(3, 4 + 2 * features, features, width, outer_blocks, inner_blocks)

    def forward(self, frames: Tensor) -> Tensor:
        """(B, T, 3, H, W) in [0, 1] to the same; H and W multiples of 4."""
        return self._run(frames, lambda t, neighbour, flow: None)

    def supervised(self, frames: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
        """:meth:`forward`, and how badly the flows bring the true frames (same shape) together: a loss for pretraining.

        The true frames are equally sharp, so what remains between them is misalignment alone.
        """
        misaligned: list[Tensor] = []

        def watch(t: int, neighbour: int, flow: Tensor) -> None:
            error = flow_warp(truth[:, neighbour], flow, "border") - truth[:, t]
            misaligned.append((error.square() + SOFTNESS**2).sqrt().mean() - SOFTNESS)

        restored = self._run(frames, watch)
        return restored, ALIGNMENT * torch.stack(misaligned or [frames.new_zeros(())]).mean()

    def _run(self, frames: Tensor, watch: Callable[[int, int, Tensor], None]) -> Tensor:
        """Restored frames; ``watch`` gets the flow from each frame to either neighbour, with their numbers."""
        gray = [gray_u8(clip) for clip in frames]
        count = frames.shape[1]

        def visit(cell: RelayCell, t: int, neighbour: int, known: Carried | None, *later: Carried) -> Carried:
            frame = frames[:, t]
            if known is None:
                picture, others = self._alone(frame)
            else:
                flow = neighbour_flow(gray, t, neighbour).to(frame)
                picture, others, flow = self._bring(frame, frames[:, neighbour], known, flow)
                watch(t, neighbour, flow)
            others = torch.cat([others, *(each.features.float() for each in later)], 1)
            return self._work(cell, others, frame, picture, *(each.picture for each in later))

        backward: list[Carried] = []
        carried = None
        for t in reversed(range(count)):
            carried = visit(self.backward_cell, t, t + 1, carried)
            backward.append(carried)
        restored = []
        carried = None
        for t in range(count):
            carried = visit(self.forward_cell, t, t - 1, carried, backward.pop())
            restored.append(carried.picture)
        return torch.stack(restored, 1)

    def _alone(self, frame: Tensor) -> tuple[Tensor, Tensor]:
        """What a frame without a neighbour has in place of what :meth:`_bring` gives."""
        batch, _, height, width = frame.shape
        return frame, torch.cat([frame, frame.new_zeros(batch, 1 + self.features, height, width)], 1)

    def _bring(self, frame: Tensor, recorded: Tensor, carried: Carried, flow: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """A neighbour's frame and what it knows, brought to ``frame``: the picture, further inputs, the final flow."""
        pictures = torch.cat([recorded, carried.picture], 1)
        flow = flow + self.aligner(frame, flow_warp(pictures, flow, "border"))
        # Bilinear sampling, frame after frame, would blur the picture; for features and the border it does.
        moved = flow_warp(torch.cat([torch.ones_like(frame[:, :1]), carried.features.float()], 1), flow)
        pictures = flow_warp(pictures, flow, "border", "bicubic")
        pictures = torch.lerp(torch.cat([frame, frame], 1), pictures, moved[:, :1])  # nothing is known from outside
        seen, picture = pictures.split(3, 1)
        return picture, torch.cat([seen, moved], 1), flow

    def _work(self, cell: RelayCell, others: Tensor, *pictures: Tensor) -> Carried:
        if self.checkpointing:
            return Carried(*recompute(cell, others, *pictures))
        return cell(others, *pictures)


def neighbour_flow(gray: Sequence[np.ndarray], source: int, target: int) -> Tensor:
    """DIS flow between two frames, computed on the CPU.

    Args:
        gray: clips (T, H, W) uint8, of one size.
        source: number of the frame that the flow starts from.
        target: of the other one.

    Returns:
        (B, 2, H, W), pixels.
    """
    flows = [torch.from_numpy(dis_flow(clip[source], clip[target])) for clip in gray]
    return torch.stack(flows).permute(0, 3, 1, 2)


BACKBONE = Backbone(
    id="relay",
    summary="Relay, a small network of ours that hands sharp detail on along the optical flow",
    licence="MIT",
    paper="this project; after BasicVSR (Chan et al., CVPR 2021) and NAFNet (Chen et al., ECCV 2022)",
    build=Relay,
    variants=(Variant("lite", {}, ("relay-lite",)),),
    reach=8,
    size_multiple=4,
    min_size=16,
    autocast=frozenset({"bfloat16"}),
    # The backward pass of grid_sample adds up in no fixed order on CUDA.
    deterministic=False,
)
