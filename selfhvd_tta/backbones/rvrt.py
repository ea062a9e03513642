"""RVRT, deblurring configuration: a recurrent transformer over clips of two frames.

Liang et al., "Recurrent Video Restoration Transformer with Guided Deformable Attention", NeurIPS 2022. Written from the
paper; state-dict keys are those of the authors' checkpoints, which are under CC BY-NC 4.0 (non-commercial).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfhvd_tta.backbones import Backbone, Variant
from selfhvd_tta.backbones.deform import GuidedDeformableAttention
from selfhvd_tta.backbones.layers import FrameConvolution, flow_warp, recompute
from selfhvd_tta.backbones.spynet import SpyNet, neighbour_flows, plain_layers
from selfhvd_tta.backbones.window_attention import Extent, ResidualGroup

_BRANCHES = ("backward_1", "forward_1", "backward_2", "forward_2")


class TransformerStack(nn.Module):
    """A convolution, layer normalisation, residual groups, layer normalisation; (B, T, inputs, H, W) to channels."""

    def __init__(
        self, inputs: int, channels: int, groups: int, window: Extent, heads: int, count: int, depth: int
    ) -> None:
        super().__init__()
        body = nn.Sequential(*(ResidualGroup(channels, window, heads, depth) for _ in range(count)))
        self.main = nn.ModuleDict(
            {
                "1": FrameConvolution(inputs, channels, 3, groups=groups),
                "3": nn.LayerNorm(channels),
                "5": body,
                "7": nn.LayerNorm(channels),
            }
        )

    def forward(self, x: Tensor) -> Tensor:
        batch = x.shape[0]
        x = self.main["1"](x.flatten(0, 1)).unflatten(0, (batch, -1)).permute(0, 1, 3, 4, 2)
        x = self.main["7"](self.main["5"](self.main["3"](x)))
        return x.permute(0, 1, 4, 2, 3)


class RVRT(nn.Module):
    """Two rounds of backward and forward propagation over clips of two frames; global residual.

    Args:
        channels: of the features.
        heads: of the window attention.
        window: side of the attention windows.
        blocks: residual groups in the feature extraction, in each branch, and in the reconstruction.
        depth: transformer blocks per residual group.
        deformable_groups: of the guided deformable attention.
        deformable_heads: of the guided deformable attention.
        upsampling_channels: channels at more than a quarter of the size.
        checkpointing: recompute each step in the backward pass instead of keeping its activations.
    """

    def __init__(
        self,
        channels: int = 192,
        heads: int = 6,
        window: int = 8,
        blocks: tuple[int, int, int] = (1, 2, 1),
        depth: int = 2,
        deformable_groups: int = 12,
        deformable_heads: int = 12,
        upsampling_channels: int = 64,
        checkpointing: bool = True,
    ) -> None:
        super().__init__()
        self.checkpointing = checkpointing
        image, clip = (1, window, window), (2, window, window)
        width = upsampling_channels
        self.spynet = SpyNet(plain_layers)
        self.feat_extract = nn.ModuleDict(
            {
                "1": FrameConvolution(3, channels, 3, stride=2),
                "3": FrameConvolution(channels, channels, 3, stride=2),
                "6": TransformerStack(channels, channels, 1, image, heads, blocks[0], depth),
            }
        )
        self.backbone = nn.ModuleDict(
            {
                branch: TransformerStack((2 + i) * channels, channels, 3, clip, heads, blocks[1], depth)
                for i, branch in enumerate(_BRANCHES)
            }
        )
        self.deform_align = nn.ModuleDict(
            {b: GuidedDeformableAttention(channels, deformable_groups, deformable_heads) for b in _BRANCHES}
        )
        self.reconstruction = TransformerStack(5 * channels, channels, 3, image, heads, blocks[2], depth)
        self.conv_before_upsampler = nn.ModuleDict({"0": FrameConvolution(channels, width, 1)})
        self.upsampler = nn.ModuleDict(
            {
                "0": FrameConvolution(width, 4 * width, 3),
                "5": FrameConvolution(width, 4 * width, 3),
                "10": FrameConvolution(width, width, 3),
            }
        )
        self.conv_last = FrameConvolution(width, 3, 3)

    def _run(self, function: Callable[..., Any], *inputs: Any) -> Any:
        return recompute(function, *inputs) if self.checkpointing else function(*inputs)

    def _extract(self, clip: Tensor) -> Tensor:
        """(B, T, 3, H, W) to features (B, T, C, H/4, W/4)."""
        x = clip.flatten(0, 1)
        for name in ("1", "3"):
            x = F.leaky_relu(self.feat_extract[name](x), 0.1, inplace=True)
        return self.feat_extract["6"](x.unflatten(0, (clip.shape[0], -1)))

    def _align(
        self, branch: str, query: Tensor, key: Tensor, state: Tensor, flows: list[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        warped = [
            flow_warp(source.flatten(0, 1), flow.flatten(0, 1)).view_as(state)
            for source, flow in zip((state, state.flip(1)), flows, strict=True)
        ]
        return self.deform_align[branch](query, key, state, warped, flows)

    def _step(
        self, branch: str, features: list[Tensor], key: Tensor | None, state: Tensor | None, flows: list[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """One step of a recurrence.

        Args:
            branch: which one.
            features: of this clip, from the earlier branches, each (B, 2, C, H, W).
            key: the latest of these for the clip before; None at the start.
            state: this branch's features of the clip before; None at the start.
            flows: to the frames of the clip before, of the same place and of the other one; empty at the start.

        Returns:
            This branch's features of the clip, and the flows as corrected by the alignment.
        """
        if key is None or state is None:
            aligned = torch.zeros_like(features[0])
        else:
            aligned, flows = self._align(branch, features[-1], key, state, flows)
        return aligned + self.backbone[branch](torch.cat([*features, aligned], 2)), flows

    def _propagate(
        self, branch: str, clips: list[list[Tensor]], guides: list[list[Tensor]]
    ) -> tuple[list[Tensor], list[list[Tensor]]]:
        """Run one branch over the clip.

        Args:
            branch: which one.
            clips: features of every two frames so far, each (B, 2, C, H, W), in the order of the video.
            guides: flows to the clip before, in running order.

        Returns:
            The branch's features in the order of the video, and the flows as corrected, in running order.
        """
        backward = branch.startswith("backward")

        def turned(x: Tensor) -> Tensor:  # backward in time, the two frames of a clip change places too
            return x.flip(1) if backward else x

        found: list[Tensor] = []
        corrected = []
        key = state = None
        for features, guide in zip(reversed(clips) if backward else clips, guides, strict=True):
            features = [turned(x) for x in features]
            state, flows = self._run(self._step, branch, features, key, state, guide)
            key = features[-1]
            found.append(turned(state))
            corrected.append(flows)
        return found[::-1] if backward else found, corrected

    def _reconstruct(self, features: list[Tensor], clip: Tensor) -> Tensor:
        x = self.reconstruction(torch.cat(features, 2)).flatten(0, 1)
        x = F.leaky_relu(self.conv_before_upsampler["0"](x), 0.1, inplace=True)
        for name in ("0", "5"):
            x = F.leaky_relu(F.pixel_shuffle(self.upsampler[name](x), 2), 0.1, inplace=True)
        return self.conv_last(self.upsampler["10"](x)).view_as(clip) + clip

    def forward(self, frames: Tensor) -> Tensor:
        """(B, T, 3, H, W) RGB in [0, 1] to the same; T even, H and W multiples of 8 above 128."""
        to_next, to_previous = neighbour_flows(self.spynet, frames, self.checkpointing)
        images = frames.split(2, 1)
        clips = [[self._run(self._extract, image)] for image in images]
        corrected: dict[str, list[list[Tensor]]] = {}
        for branch in _BRANCHES:
            direction = branch[:-2]
            # The second round starts from the flows as the first one has corrected them.
            guides = corrected.get(direction) or _clip_flows(to_next[::-1] if direction == "backward" else to_previous)
            found, corrected[direction] = self._propagate(branch, clips, guides)
            clips = [[*features, new] for features, new in zip(clips, found, strict=True)]
        outputs = [self._run(self._reconstruct, *pair) for pair in zip(clips, images, strict=True)]
        return torch.cat(outputs, 1)


def _clip_flows(flows: list[Tensor]) -> list[list[Tensor]]:
    """Flows from each clip of two frames to the one before it.

    Args:
        flows: from every frame but the first to the one before, in running order, (B, 2, H, W).

    Returns:
        Per clip: nothing for the first; else from its frames to those of the same place, and of the other place, in the
        clip before, each (B, 2, 2, H, W).
    """
    guides: list[list[Tensor]] = [[]]
    for start in range(1, len(flows), 2):
        from_1_to_0, from_2_to_1, from_3_to_2 = flows[start - 1 : start + 2]
        from_2_to_0 = from_2_to_1 + flow_warp(from_1_to_0, from_2_to_1)
        from_3_to_1 = from_3_to_2 + flow_warp(from_2_to_1, from_3_to_2)
        from_3_to_0 = from_3_to_2 + flow_warp(from_2_to_0, from_3_to_2)
        same, other = (from_2_to_0, from_3_to_1), (from_2_to_1, from_3_to_0)
        guides.append([torch.stack(same, 1), torch.stack(other, 1)])
    return guides


BACKBONE = Backbone(
    id="rvrt",
    summary="RVRT, recurrent transformer with deformable attention; weights for non-commercial use only, needs a GPU",
    licence="CC-BY-NC-4.0",
    paper="Liang et al., Recurrent Video Restoration Transformer with Guided Deformable Attention, NeurIPS 2022",
    build=RVRT,
    variants=(Variant("gopro", weights=("rvrt-gopro",)), Variant("dvd", weights=("rvrt-dvd",))),
    slow=("spynet.",),
    reach=8,  # an estimate, not measured with trained weights
    size_multiple=8,
    min_size=136,
    even_frames=True,
    autocast=frozenset({"bfloat16"}),
    # The backward pass of grid_sample adds up in no fixed order on CUDA.
    deterministic=False,
)
