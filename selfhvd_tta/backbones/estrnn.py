"""ESTRNN: efficient spatio-temporal recurrent network (Zhong et al., ECCV 2020 / IJCV 2023).

Structure and state-dict keys are the official ones, so that the authors' checkpoints load as they are. What differs
is the order of the arithmetic: everything that does not depend on the recurrent state runs over all frames as one
batch, and the global spatio-temporal attention, which is linear in the features once its channel weights are known,
is applied as one matrix per frame (see :class:`SpatioTemporalAttention`). Both change rounding only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfhvd_tta.backbones import Backbone, Variant

# Frames that a CPU encodes at once, in pixels: more of them do not fit into its caches. At 384x256 restoring takes 1.4
# times as long (float32; 1.3 in bfloat16) with ten frames at once as with one.
CACHED_PIXELS = 2**17


class DenseLayer(nn.Module):
    """3x3 convolution and GELU; the caller concatenates."""

    def __init__(self, in_channels: int, growth: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, growth, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.conv(x))


class _Append(torch.autograd.Function):
    """Concatenation of channels whose gradient for the new ones is contiguous: GELU's backward is slow on slices."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, new: Tensor) -> Tensor:  # type: ignore[override]
        ctx.channels = features.shape[1]
        return torch.cat((features, new), 1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        new = gradient[:, ctx.channels :].contiguous(memory_format=torch.channels_last)
        return gradient[:, : ctx.channels], new


class ResidualDenseBlock(nn.Module):
    """Three densely connected layers, a 1x1 convolution and a skip connection (Fig. 3 of the paper)."""

    def __init__(self, channels: int, growth: int, layers: int = 3) -> None:
        super().__init__()
        self.dense_layers = nn.ModuleList(DenseLayer(channels + i * growth, growth) for i in range(layers))
        self.conv1x1 = nn.Conv2d(channels + layers * growth, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        features = x
        for layer in self.dense_layers:
            features = cast(Tensor, _Append.apply(features, layer(features)))
        return self.conv1x1(features) + x


class DownsamplingBlock(nn.Module):
    """Residual dense block, then a strided 5x5 convolution that halves the size and doubles the channels."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.rdb = ResidualDenseBlock(channels, growth)
        self.down_sampling = nn.Conv2d(channels, 2 * channels, 5, stride=2, padding=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_sampling(self.rdb(x))


class ResidualDenseNetwork(nn.Module):
    """A chain of residual dense blocks whose outputs are all fused at its end."""

    def __init__(self, channels: int, growth: int, blocks: int) -> None:
        super().__init__()
        self.RDBs = nn.ModuleList(ResidualDenseBlock(channels, growth) for _ in range(blocks))
        self.conv1x1 = nn.Conv2d(blocks * channels, channels, 1)
        self.conv3x3 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        outputs = []
        for block in self.RDBs:
            x = block(x)
            outputs.append(x)
        return self.conv3x3(self.conv1x1(torch.cat(outputs, 1)))


class RecurrentCell(nn.Module):
    """Encoder of one frame, and the recurrent network that sees it together with the hidden state."""

    def __init__(self, n_features: int, n_blocks: int) -> None:
        super().__init__()
        n = n_features
        self.F_B0 = nn.Conv2d(3, n, 5, padding=2)
        self.F_B1 = DownsamplingBlock(n, n)
        self.F_B2 = DownsamplingBlock(2 * n, 3 * n // 2)
        self.F_R = ResidualDenseNetwork(5 * n, 2 * n, n_blocks)
        self.F_h = nn.Sequential(
            nn.Conv2d(5 * n, n, 3, padding=1), ResidualDenseBlock(n, n), nn.Conv2d(n, n, 3, padding=1)
        )

    def encode(self, frames: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 4 n, H/4, W/4); knows nothing of other frames."""
        if frames.device.type == "cpu" and not torch.is_grad_enabled():
            at_once = max(1, CACHED_PIXELS // (frames.shape[2] * frames.shape[3]))
            if at_once < len(frames):
                return torch.cat([self._encode(some) for some in frames.split(at_once)])
        return self._encode(frames)

    def _encode(self, frames: Tensor) -> Tensor:
        frames = frames.contiguous(memory_format=torch.channels_last)  # a quarter faster, training step on a CPU
        return self.F_B2(self.F_B1(self.F_B0(frames)))

    def forward(self, encoded: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        features = self.F_R(torch.cat((encoded, hidden), 1))
        return features, self.F_h(features)


def _matrix(layer: nn.Module) -> tuple[Tensor, Tensor]:
    """A 1x1 convolution as its matrix (out, in) and bias."""
    convolution = cast(nn.Conv2d, layer)
    return convolution.weight.flatten(1), cast(Tensor, convolution.bias)


class SpatioTemporalAttention(nn.Module):
    """Global spatio-temporal attention over a window of frames (GSA, Sec. 3.3 of the paper).

    For each neighbour k of the reference r the official code computes, at every pixel,
    ``condense(w_k * F_p([r; k]))`` with channel weights w_k from globally averaged features, and applies the
    1x1 convolution ``fusion`` to all of these and r. Between these 1x1 convolutions there is no activation. So for
    given w the whole is one affine map of the stacked window, which is composed here (a few thousand small products)
    and applied once: 625 n^2 multiplications per pixel instead of 2425 n^2, with the same gradients.
    """

    def __init__(self, n_features: int, past: int, future: int) -> None:
        super().__init__()
        channels, window = 5 * n_features, past + 1 + future
        self.channels, self.past, self.window = channels, past, window
        self.F_f = nn.Sequential(
            nn.Linear(2 * channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, 2 * channels), nn.Sigmoid()
        )
        self.F_p = nn.Sequential(nn.Conv2d(2 * channels, 4 * channels, 1), nn.Conv2d(4 * channels, 2 * channels, 1))
        self.condense = nn.Conv2d(2 * channels, channels, 1)
        self.fusion = nn.Conv2d(window * channels, window * channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        """(B, T, C, h, w) -> (B * (T - window + 1), window * C, h, w), T >= window."""
        batch, frames, channels, height, width = features.shape
        count = frames - self.window + 1
        matrix, bias = self._affine(features.mean((3, 4)))
        each = features.flatten(3).unbind(1)  # the gradient of slices would fill the whole clip with zeros each time
        stacked = torch.stack([torch.cat(each[t : t + self.window], 1) for t in range(count)], 1).flatten(0, 1)
        fused = torch.baddbmm(bias.to(stacked.dtype), matrix.to(stacked.dtype), stacked)
        return fused.view(batch * count, self.window * channels, height, width)

    def _affine(self, means: Tensor) -> tuple[Tensor, Tensor]:
        """From frame means (B, T, C): matrices (N, window C, window C) and offsets (N, window C, 1), in float32."""
        with torch.autocast(means.device.type, enabled=False):
            means = means.float()
            batch, frames, c = means.shape
            count, neighbours = frames - self.window + 1, self.window - 1
            others = [k for k in range(self.window) if k != self.past]
            reference = means[:, self.past : self.past + count]
            pairs = torch.stack([torch.cat((reference, means[:, k : k + count]), 2) for k in others], 2)
            weights = self.F_f(pairs).view(batch * count, neighbours, 2 * c)

            first, first_bias = _matrix(self.F_p[0])
            second, second_bias = _matrix(self.F_p[1])
            pair_matrix, pair_bias = second @ first, second @ first_bias + second_bias
            condense, condense_bias = _matrix(self.condense)
            fusion, fusion_bias = _matrix(self.fusion)
            per_neighbour = fusion[:, : neighbours * c].view(-1, neighbours, c)
            # (neighbours, window C, 2 C): fusion after condense, for each neighbour's slot of the fused stack.
            head = torch.matmul(per_neighbour.transpose(0, 1), condense)
            weighted = head * weights.unsqueeze(2)
            maps = torch.matmul(weighted, pair_matrix)
            columns = list(maps[..., c:].unbind(1))
            columns.insert(self.past, maps[..., :c].sum(1) + fusion[:, neighbours * c :])
            bias = torch.matmul(weighted, pair_bias).sum(1)
            bias = bias + torch.matmul(per_neighbour.sum(1), condense_bias) + fusion_bias
            return torch.cat(columns, 2), bias.unsqueeze(2)


class Reconstructor(nn.Module):
    """Fused features at a quarter of the size -> frames."""

    def __init__(self, n_features: int, window: int) -> None:
        super().__init__()
        n = n_features
        self.model = nn.Sequential(
            nn.ConvTranspose2d(5 * n * window, 2 * n, 3, stride=2, padding=1, output_padding=1),
            nn.ConvTranspose2d(2 * n, n, 3, stride=2, padding=1, output_padding=1),
            nn.Conv2d(n, 3, 5, padding=2),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class StreamState(NamedTuple):
    """What one call of :meth:`ESTRNN.stream` leaves to the next.

    Attributes:
        hidden: recurrent state, (B, n, H/4, W/4).
        features: of the last ``past + future`` frames at most, (B, t, 5 n, H/4, W/4).
        frames: the same frames themselves for the global residual, (B, t, 3, H, W).
    """

    hidden: Tensor
    features: Tensor
    frames: Tensor


class ESTRNN(nn.Module):
    """Raw network: (B, T, 3, H, W) in [-0.5, 0.5] -> (B, T - past - future, 3, H, W); H and W multiples of 4.

    Args:
        n_features: base width n; the recurrent part has 5 n channels.
        n_blocks: residual dense blocks of the recurrent part.
        past_frames: neighbours before the reference in the attention window.
        future_frames: neighbours after it; at least one neighbour in all.
        global_residual: the network predicts the difference to the input frame (not in the official network).
    """

    def __init__(
        self,
        n_features: int = 16,
        n_blocks: int = 15,
        past_frames: int = 2,
        future_frames: int = 2,
        global_residual: bool = False,
    ) -> None:
        super().__init__()
        self.n_features = n_features
        self.past, self.future = past_frames, future_frames
        self.global_residual = global_residual
        self.cell = RecurrentCell(n_features, n_blocks)
        self.recons = Reconstructor(n_features, past_frames + 1 + future_frames)
        self.fusion = SpatioTemporalAttention(n_features, past_frames, future_frames)
        self.reset_parameters()
        # As the activations: oneDNN would turn the weights around in every call (a fifth of a training step on a CPU).
        self.to(memory_format=torch.channels_last)

    def reset_parameters(self) -> None:
        """He-normal weights; residual branches and, with a global residual, the last layer start small but not at 0.

        A last layer of zeros would pass no gradient to anything behind it.
        """
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
                fan_in: float = math.prod(module.weight.shape[1:])
                if isinstance(module, nn.ConvTranspose2d):  # (in, out, 3, 3) at stride 2: 9/4 taps reach an output
                    fan_in = module.weight.shape[0] * 9 / 4
                nn.init.normal_(module.weight, std=fan_in**-0.5)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        with torch.no_grad():
            for module in self.modules():
                if isinstance(module, DenseLayer):
                    module.conv.weight.mul_(math.sqrt(2))
                elif isinstance(module, ResidualDenseBlock):
                    module.conv1x1.weight.mul_(0.3)
            if self.global_residual:
                cast(nn.Conv2d, self.recons.model[2]).weight.mul_(0.1)

    def forward(self, frames: Tensor) -> Tensor:
        return self.stream(frames, None)[0]

    def forward_in_order(self, frames: Tensor, order: Sequence[int]) -> Tensor:
        """``forward(frames[:, order])``, but a frame that occurs several times is encoded once.

        A clip of six frames is reflected at its ends to ten: a seventh of a training step of ``lite`` less.
        """
        return self.stream(frames, None, order)[0]

    def stream(
        self, frames: Tensor, state: StreamState | None = None, order: Sequence[int] | None = None
    ) -> tuple[Tensor, StreamState]:
        """Process the next frames of a clip.

        Args:
            frames: (B, t, 3, H, W) in [-0.5, 0.5], t >= 1.
            state: from the previous call on the same clip; None at its start.
            order: in which, and how often, the frames follow one another; None: as they are.

        Returns:
            The outputs that can be computed by now, ``past + future`` frames less over the first calls, possibly
            none: (B, t', 3, H, W); and the state for the next call. However a clip is cut up, the outputs are those
            of one call on the whole of it.
        """
        batch, count, _, height, width = frames.shape
        encoded = self.cell.encode(frames.flatten(0, 1)).unflatten(0, (batch, count))
        hidden = encoded.new_zeros(batch, self.n_features, *encoded.shape[3:]) if state is None else state.hidden
        each = encoded.unbind(1)
        if order is not None:
            # Not by an index tensor, for whose copy a GPU would be waited for.
            each, frames = tuple(each[i] for i in order), torch.stack([frames[:, i] for i in order], 1)
        computed = []
        for frame in each:
            features, hidden = self.cell(frame, hidden)
            computed.append(features)
        window = torch.stack(computed, 1)
        if state is not None:
            window = torch.cat((state.features, window), 1)
            frames = torch.cat((state.frames, frames), 1)
        keep = self.past + self.future
        tail = max(window.shape[1] - keep, 0)
        rest = StreamState(hidden, window[:, tail:], frames[:, tail:])
        if tail == 0:
            return frames.new_empty(batch, 0, 3, height, width), rest
        output = self.recons(self.fusion(window)).unflatten(0, (batch, tail))
        if self.global_residual:
            output = output + frames[:, self.past : self.past + tail]
        return output, rest


# Counted for 16 features; fewer take less.
_MEMORY = {"float32": (10, 600), "bfloat16": (10, 315)}
_OFFICIAL: dict[str, Any] = {
    "config": {"n_features": 16, "n_blocks": 15},
    "channel_order": "bgr",  # the authors trained on frames as cv2.imread gives them
    "value_range": (-0.5, 0.5),
    "memory": _MEMORY,
}

BACKBONE = Backbone(
    id="estrnn",
    summary="ESTRNN, recurrent, small and fast",
    licence="MIT",
    paper="Zhong et al., Efficient Spatio-Temporal Recurrent Neural Network for Video Deblurring, ECCV 2020",
    build=ESTRNN,
    variants=(
        Variant(
            name="lite",
            config={"n_features": 8, "n_blocks": 8, "global_residual": True},
            weights=("estrnn-lite",),
            value_range=(-0.5, 0.5),
            memory=_MEMORY,
        ),
        Variant(
            name="c80b15",
            config={"n_features": 16, "n_blocks": 15, "global_residual": True},
            weights=("estrnn-c80b15",),
            value_range=(-0.5, 0.5),
            memory=_MEMORY,
        ),
        # Where DADeblur and SelfHVD start from on BSD: GoPro weights of DADeblur's own code, which reads RGB.
        Variant(name="gopro", config={"n_features": 16, "n_blocks": 15}, value_range=(-0.5, 0.5)),
        Variant("bsd-1ms8ms", weights=("estrnn-bsd-1ms8ms",), **_OFFICIAL),
        Variant("bsd-2ms16ms", weights=("estrnn-bsd-2ms16ms",), **_OFFICIAL),
        Variant("bsd-3ms24ms", weights=("estrnn-bsd-3ms24ms",), **_OFFICIAL),
    ),
    context=(2, 2),
    temporal="causal",
    size_multiple=4,
    min_size=4,
    autocast=frozenset({"bfloat16"}),
    deterministic=True,
)
