"""The baseline for ESTRNN's speed: the published operator sequence, frame by frame, nothing merged or batched."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfhvd_tta.backbones.estrnn import ESTRNN, RecurrentCell, SpatioTemporalAttention


class UnfusedESTRNN(nn.Module):
    """The layers of an :class:`ESTRNN`, run as the authors' code runs them; same arguments, same outputs.

    Encoder, recurrent part, attention and reconstruction run once per frame; the attention takes its neighbours one at
    a time through all of its 1x1 convolutions, each on a concatenation of its own; memory is channels-first.

    Args:
        network: whose weights are used: copies of them, in torch's usual order in memory. Shared with ours they would
            be in ours, and convolutions follow the order of their weights: that alone is worth a sixth on a CPU.
    """

    def __init__(self, network: ESTRNN) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).to(memory_format=torch.contiguous_format)

    def forward(self, frames: Tensor) -> Tensor:
        """(B, T, 3, H, W) in [-0.5, 0.5] -> (B, T - past - future, 3, H, W)."""
        network = self.network
        batch, count, _, height, width = frames.shape
        hidden = frames.new_zeros(batch, network.n_features, height // 4, width // 4)
        features = []
        for index in range(count):
            feature, hidden = _cell(network.cell, frames[:, index], hidden)
            features.append(feature)
        outputs = []
        for index in range(network.past, count - network.future):
            window = features[index - network.past : index + network.future + 1]
            output = network.recons.model(_attention(network.fusion, window))
            if network.global_residual:
                output = output + frames[:, index]
            outputs.append(output.unsqueeze(1))
        return torch.cat(outputs, 1)


def _dense_block(block: nn.Module, x: Tensor) -> Tensor:
    features = x
    for layer in block.dense_layers:  # type: ignore[union-attr]
        features = torch.cat((features, F.gelu(layer.conv(features))), 1)
    return block.conv1x1(features) + x  # type: ignore[operator]


def _cell(cell: RecurrentCell, frame: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
    x = cell.F_B0(frame)
    for down in (cell.F_B1, cell.F_B2):
        x = down.down_sampling(_dense_block(down.rdb, x))
    x = torch.cat((x, hidden), 1)
    outputs = []
    for block in cell.F_R.RDBs:
        x = _dense_block(block, x)
        outputs.append(x)
    feature = cell.F_R.conv3x3(cell.F_R.conv1x1(torch.cat(outputs, 1)))
    first, middle, last = cell.F_h
    return feature, last(_dense_block(middle, first(feature)))


def _attention(attention: SpatioTemporalAttention, window: list[Tensor]) -> Tensor:
    reference = window[attention.past]
    condensed = []
    for place, neighbour in enumerate(window):
        if place != attention.past:
            pair = torch.cat((reference, neighbour), 1)
            weight = attention.F_f(F.adaptive_avg_pool2d(pair, (1, 1)).flatten(1))
            condensed.append(attention.condense(weight[:, :, None, None] * attention.F_p(pair)))
    return attention.fusion(torch.cat([*condensed, reference], 1))
