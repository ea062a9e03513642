"""IFI-RNN (C2H3): a recurrent network that refines its hidden state several times within each frame.

Nah, Son, Lee, "Recurrent Neural Networks with Intra-frame Iterations for Video Deblurring", CVPR 2019, in the form of
``zzh-tech/ESTRNN``, whose state-dict keys these are: a first cell prepares the hidden state, a second one runs three
times, the last of them with an output. It runs forward in time only.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from selfhvd_tta.backbones import Backbone, Variant


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2)


class MainBranchBlock(nn.Module):
    """Residual block under the official key ``main_branch``; no activation after the sum."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.main_branch = nn.Sequential(_conv(channels, channels, 3), nn.ReLU(), _conv(channels, channels, 3))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.main_branch(x)


class StateUpdate(nn.Module):
    """One update of the hidden state from a frame.

    Args:
        width: channels of the hidden state; features have four times as many, both at a quarter of the frame's size.
        blocks: residual blocks.
        reconstructs: the cell can give a sharp frame too.
    """

    def __init__(self, width: int, blocks: int, reconstructs: bool) -> None:
        super().__init__()
        features = 4 * width
        # The three convolutions follow each other without activations, as published.
        self.F_B = nn.Sequential(_conv(3, width, 5), _conv(width, 2 * width, 5, 2), _conv(2 * width, 3 * width, 5, 2))
        self.F_R = nn.Sequential(*(MainBranchBlock(features) for _ in range(blocks)))
        if reconstructs:
            self.F_L = nn.Sequential(
                nn.ConvTranspose2d(features, 2 * width, 3, stride=2, padding=1, output_padding=1),
                nn.ConvTranspose2d(2 * width, width, 3, stride=2, padding=1, output_padding=1),
                _conv(width, 3, 5),
            )
        self.F_h = nn.Sequential(_conv(features, width, 3), MainBranchBlock(width), _conv(width, width, 3))

    def forward(self, blurry: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Features of the blurry frame ``F_B(frame)`` and the hidden state to new features and the new hidden state."""
        features = self.F_R(torch.cat([blurry, hidden], 1))
        return features, self.F_h(features)


class IFIRNN(nn.Module):
    """Intra-frame iterative recurrent network.

    Args:
        width: channels of the hidden state.
        blocks: residual blocks per cell.
        iterations: runs of the second cell per frame.
    """

    def __init__(self, width: int = 20, blocks: int = 6, iterations: int = 3) -> None:
        super().__init__()
        self.width = width
        self.iterations = iterations
        self.rnncell0 = StateUpdate(width, blocks, reconstructs=False)
        self.rnncell1 = StateUpdate(width, blocks, reconstructs=True)

    def _step(self, frame: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        _, hidden = self.rnncell0(self.rnncell0.F_B(frame), hidden)
        blurry = self.rnncell1.F_B(frame)
        for _ in range(self.iterations):
            features, hidden = self.rnncell1(blurry, hidden)
        *upsampling, last = self.rnncell1.F_L
        for layer in upsampling:
            features = layer(features)
        # There is no residual to the input: in 16 bits the last layer alone would cost half a code of an 8-bit frame.
        with torch.autocast(frame.device.type, enabled=False):
            return last(features.to(last.weight.dtype)), hidden

    def stream(self, frames: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Continue a clip.

        Args:
            frames: (B, T, 3, H, W) in [-0.5, 0.5], T at least 1, H and W multiples of 4.
            state: what the call for the frames before returned; None at the start of a clip.

        Returns:
            The sharp frames, same shape, and the state after them.
        """
        batch, _, _, height, width = frames.shape
        hidden = frames.new_zeros(batch, self.width, height // 4, width // 4) if state is None else state
        outputs = []
        for frame in frames.unbind(1):
            output, hidden = self._step(frame, hidden)
            outputs.append(output)
        return torch.stack(outputs, 1), hidden

    def forward(self, frames: Tensor) -> Tensor:
        """(B, T, 3, H, W) in [-0.5, 0.5] to the same; H and W multiples of 4."""
        return self.stream(frames)[0]


BACKBONE = Backbone(
    id="ifirnn",
    summary="IFI-RNN C2H3, a small recurrent network that uses past frames only; no weights to download",
    licence="MIT",
    paper="Nah et al., Recurrent Neural Networks with Intra-frame Iterations for Video Deblurring, CVPR 2019",
    build=IFIRNN,
    variants=(Variant("c2h3", value_range=(-0.5, 0.5)),),
    temporal="causal",
    size_multiple=4,
    autocast=frozenset({"bfloat16"}),
)
