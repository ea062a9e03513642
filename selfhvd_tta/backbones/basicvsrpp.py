"""BasicVSR++, deblurring configuration: features at a quarter of the size, propagated four times through the clip.

Chan, Zhou, Xu, Loy, "BasicVSR++: Improving Video Super-Resolution with Enhanced Propagation and Alignment", CVPR 2022.
State-dict keys are those of MMEditing. The official network's flag for clips doubled by mirroring is left out:
it saves half of the flow estimations on such clips, gives the same result there, and once set spoils all later clips of
the same instance.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfhvd_tta.backbones import Backbone, Variant
from selfhvd_tta.backbones.layers import ResidualBlock, flow_warp, recompute
from selfhvd_tta.backbones.spynet import SpyNet, neighbour_flows, wrapped_layers

_BRANCHES = ("backward_1", "forward_1", "backward_2", "forward_2")


def _leaky() -> nn.Module:
    return nn.LeakyReLU(0.1, inplace=True)


class ResidualBlocksWithInputConv(nn.Module):
    """A convolution and residual blocks, under the official key ``main``."""

    def __init__(self, inputs: int, channels: int, blocks: int) -> None:
        super().__init__()
        body = nn.Sequential(*(ResidualBlock(channels, nn.ReLU(inplace=True)) for _ in range(blocks)))
        self.main = nn.Sequential(nn.Conv2d(inputs, channels, 3, padding=1), _leaky(), body)

    def forward(self, x: Tensor) -> Tensor:
        return self.main(x)


class SecondOrderAlignment(nn.Module):
    """Flow-guided deformable alignment of the propagated features of the two previous steps (Sec. 3.2 of the paper).

    Args:
        channels: of the features.
        groups: deformable groups; the first half moves the first step's features, the second half the second's.
        largest_residue: pixels by which an offset may differ from the flow.
    """

    def __init__(self, channels: int, groups: int, largest_residue: float) -> None:
        super().__init__()
        self.groups = groups
        self.largest_residue = largest_residue
        self.weight = nn.Parameter(torch.empty(channels, 2 * channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(channels))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)
        last = nn.Conv2d(channels, 27 * groups, 3, padding=1)
        nn.init.zeros_(last.weight)  # training starts from plain flow
        nn.init.zeros_(cast(Tensor, last.bias))
        self.conv_offset = nn.Sequential(
            nn.Conv2d(3 * channels + 4, channels, 3, padding=1),
            _leaky(),
            nn.Conv2d(channels, channels, 3, padding=1),
            _leaky(),
            nn.Conv2d(channels, channels, 3, padding=1),
            _leaky(),
            last,
        )

    def forward(self, features: Tensor, condition: Tensor, flow_1: Tensor, flow_2: Tensor) -> Tensor:
        """Align.

        Args:
            features: (B, 2 C, H, W), propagated features of one and two steps ago.
            condition: (B, 3 C, H, W), the former warped by flow, with the current features between them.
            flow_1: (B, 2, H, W) flow to one step ago, pixels.
            flow_2: (B, 2, H, W) flow to two steps ago, pixels.

        Returns:
            (B, C, H, W).
        """
        from torchvision.ops import deform_conv2d  # importing torchvision takes longer than loading a small network

        raw = self.conv_offset(torch.cat([condition, flow_1, flow_2], 1))
        # Neither 16-bit offsets (steps of 1/16 px at 10 px) nor a 16-bit kernel of the operator would do.
        with torch.autocast(features.device.type, enabled=False):
            precision = self.weight.dtype
            offset, mask = raw.to(precision).split([18 * self.groups, 9 * self.groups], 1)
            repeats = 9 * self.groups // 2
            flows = [flow.flip(1).repeat(1, repeats, 1, 1) for flow in (flow_1, flow_2)]  # offsets are (y, x)
            offset = self.largest_residue * torch.tanh(offset) + torch.cat(flows, 1)
            return deform_conv2d(
                features.to(precision), offset, self.weight, self.bias, padding=1, mask=torch.sigmoid(mask)
            )


class Upsampling(nn.Module):
    """Convolution and pixel shuffle to twice the size, under the official key ``upsample_conv``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.upsample_conv = nn.Conv2d(channels, 4 * channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.upsample_conv(x), 2)


class BasicVSRPlusPlus(nn.Module):
    """Two rounds of backward and forward propagation with second-order deformable alignment; global residual.

    Args:
        channels: of the features.
        blocks: residual blocks after each alignment.
        outer_blocks: residual blocks of the feature extraction and of the reconstruction.
        groups: deformable groups.
        largest_residue: pixels by which a deformable offset may differ from the flow.
        checkpointing: recompute each step in the backward pass instead of keeping its activations.
    """

    def __init__(
        self,
        channels: int = 64,
        blocks: int = 15,
        outer_blocks: int = 5,
        groups: int = 16,
        largest_residue: float = 10.0,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.checkpointing = checkpointing
        self.spynet = SpyNet(wrapped_layers)
        self.feat_extract = nn.Sequential(
            nn.Conv2d(3, channels, 3, stride=2, padding=1),
            _leaky(),
            nn.Conv2d(channels, channels, 3, stride=2, padding=1),
            _leaky(),
            ResidualBlocksWithInputConv(channels, channels, outer_blocks),
        )
        self.deform_align = nn.ModuleDict(
            {branch: SecondOrderAlignment(channels, groups, largest_residue) for branch in _BRANCHES}
        )
        self.backbone = nn.ModuleDict(
            {
                branch: ResidualBlocksWithInputConv((2 + i) * channels, channels, blocks)
                for i, branch in enumerate(_BRANCHES)
            }
        )
        self.reconstruction = ResidualBlocksWithInputConv(5 * channels, channels, outer_blocks)
        self.upsample1 = Upsampling(channels)
        self.upsample2 = Upsampling(channels)
        self.conv_hr = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv_last = nn.Conv2d(channels, 3, 3, padding=1)

    def _run(self, function: Callable[..., Tensor], *inputs: Any) -> Tensor:
        return recompute(function, *inputs) if self.checkpointing else function(*inputs)

    def _step(
        self, branch: str, current: Tensor, others: list[Tensor], states: list[Tensor], flows: list[Tensor]
    ) -> Tensor:
        """One step of a recurrence.

        Args:
            branch: which one.
            current: (B, C, H, W) features of this frame.
            others: features that earlier branches have found for this frame.
            states: this branch's features of at most the two steps before, the latest first.
            flows: flow from this frame to that of the step before, then from there to the one before that.
        """
        aligned = zeros = torch.zeros_like(current)
        if states:
            state_1, flow_1 = states[0], flows[0]
            state_2, flow_2, warped_2 = zeros, torch.zeros_like(flow_1), zeros
            if len(states) == 2:
                state_2, flow_2 = states[1], flow_1 + flow_warp(flows[1], flow_1)
                warped_2 = flow_warp(state_2, flow_2)
            condition = torch.cat([flow_warp(state_1, flow_1), current, warped_2], 1)
            aligned = self.deform_align[branch](torch.cat([state_1, state_2], 1), condition, flow_1, flow_2)
        return aligned + self.backbone[branch](torch.cat([current, *others, aligned], 1))

    def _propagate(self, branch: str, features: list[list[Tensor]], flows: list[Tensor]) -> list[Tensor]:
        """Run one branch over the clip; ``features[i]`` are frame i's features so far, ``flows`` in running order."""
        states: list[Tensor] = []
        for index, (current, *others) in enumerate(features):
            recent = flows[max(index - 2, 0) : index][::-1]
            states.append(self._run(self._step, branch, current, others, states[-2:][::-1], recent))
        return states

    def _reconstruct(self, features: Tensor, frame: Tensor) -> Tensor:
        x = self.reconstruction(features)
        x = F.leaky_relu(self.upsample1(x), 0.1, inplace=True)
        x = F.leaky_relu(self.upsample2(x), 0.1, inplace=True)
        x = F.leaky_relu(self.conv_hr(x), 0.1, inplace=True)
        return self.conv_last(x) + frame

    def forward(self, frames: Tensor) -> Tensor:
        """(B, T, 3, H, W) RGB in [0, 1] to the same; H and W multiples of 4, from 256 on as its authors demand."""
        to_next, to_previous = neighbour_flows(self.spynet, frames, self.checkpointing)
        features = [[self._run(self.feat_extract, frame)] for frame in frames.unbind(1)]
        for branch in _BRANCHES:
            if branch.startswith("backward"):
                found = self._propagate(branch, features[::-1], to_next[::-1])[::-1]
            else:
                found = self._propagate(branch, features, to_previous)
            features = [[*known, new] for known, new in zip(features, found, strict=True)]
        outputs = [
            self._run(self._reconstruct, torch.cat(known, 1), frame)
            for known, frame in zip(features, frames.unbind(1), strict=True)
        ]
        return torch.stack(outputs, 1)


BACKBONE = Backbone(
    id="basicvsrpp",
    summary="BasicVSR++, second-order deformable propagation both ways in time; the paper's strongest, needs a GPU",
    licence="Apache-2.0",
    paper="Chan et al., BasicVSR++: Improving Video Super-Resolution with Enhanced Propagation, CVPR 2022",
    build=BasicVSRPlusPlus,
    variants=(
        Variant("gopro", weights=("basicvsrpp-gopro",)),
        Variant("dvd", weights=("basicvsrpp-dvd",)),
        Variant("selfhvd", weights=("selfhvd-basicvsrpp",)),
    ),
    slow=("spynet.",),
    reach=10,  # an estimate, not measured with trained weights
    size_multiple=4,
    min_size=256,
    autocast=frozenset({"bfloat16"}),
    # The backward passes of grid_sample and of the deformable convolution add up in no fixed order on CUDA.
    deterministic=False,
)
