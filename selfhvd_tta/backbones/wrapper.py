"""The one interface to every backbone: hides channel order, value range, lost frames and size constraints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfhvd_tta.backbones import Backbone, Variant


def reflect_index(index: int, length: int) -> int:
    """Position within ``0..length-1`` that ``index`` comes to by bouncing between the two ends (ping-pong).

    >>> [reflect_index(i, 3) for i in range(-3, 6)]
    [1, 2, 1, 0, 1, 2, 1, 0, 1]
    """
    if length == 1:
        return 0
    period = 2 * (length - 1)
    index %= period
    return index if index < length else period - index


def pad_to(frames: Tensor, height: int, width: int) -> Tensor:
    """Pad (N, C, H, W) at the bottom and the right: by reflection as far as it reaches, then by replication."""
    down, right = height - frames.shape[2], width - frames.shape[3]
    reflect_down, reflect_right = min(down, frames.shape[2] - 1), min(right, frames.shape[3] - 1)
    if reflect_down or reflect_right:
        frames = F.pad(frames, (0, reflect_right, 0, reflect_down), mode="reflect")
    if down > reflect_down or right > reflect_right:
        frames = F.pad(frames, (0, right - reflect_right, 0, down - reflect_down), mode="replicate")
    return frames


class Network(nn.Module):
    """A backbone as the rest of the package uses it: (B, T, 3, H, W) RGB in [0, 1] -> the same shape, T, H, W >= 1.

    The output is not clamped, as a clamp would stop gradients. ``state_dict`` and ``load_state_dict`` use the raw
    network's own (official) keys.

    Args:
        raw: result of ``backbone.build(**variant.config)``.
        backbone: its descriptor.
        variant: the variant that it was built as.
        weights: name of its weights for the user; ``random`` until some are loaded.
    """

    def __init__(self, raw: nn.Module, backbone: Backbone, variant: Variant, weights: str = "random") -> None:
        super().__init__()
        self.raw = raw
        self.backbone = backbone
        self.variant = variant
        self.weights = weights

    @property
    def name(self) -> str:
        """``id:variant``."""
        return f"{self.backbone.id}:{self.variant.name}"

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """State of the raw network, by its official keys."""
        return self.raw.state_dict(*args, **kwargs)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load a state with the raw network's official keys."""
        return self.raw.load_state_dict(state_dict, strict=strict, assign=assign)

    def forward(self, frames: Tensor) -> Tensor:
        """Restore a whole clip.

        Raises:
            ValueError: the input is not (B, T, 3, H, W) with at least one frame and one pixel.
        """
        _check_shape(frames)
        count = frames.shape[1]
        past, future = self.backbone.context
        if self.backbone.even_frames:
            future += (count + past + future) % 2
        if past or future:
            order = [reflect_index(i, count) for i in range(-past, count + future)]
            if hasattr(self.raw, "forward_in_order"):
                output = cast(Any, self.raw).forward_in_order(self._encode(frames), order)
            else:
                # Not by an index tensor, for whose copy a GPU would be waited for.
                output = self.raw(self._encode(torch.stack([frames[:, i] for i in order], 1)))
        else:
            output = self.raw(self._encode(frames))
        return self._decode(output[:, :count], frames)

    @torch.no_grad()
    def middle(self, frames: Tensor) -> Tensor:
        """Output (B, 3, H, W) for the middle frame of (B, T, 3, H, W), T odd, which is not reflected at its ends.

        Raises:
            ValueError: the network's context does not fit into T frames, or it takes even numbers of frames only.
        """
        _check_shape(frames)
        count, (past, future) = frames.shape[1], self.backbone.context
        if self.backbone.even_frames or max(past, future) > count // 2:
            raise ValueError(f"{self.backbone.id} cannot restore the middle one of {count} frames alone")
        return self._decode(self.raw(self._encode(frames)), frames)[:, count // 2 - past]

    def supervised(self, frames: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
        """:meth:`forward`, and the loss of its own that the raw network has against the true frames; zero if none.

        Args:
            frames: (B, T, 3, H, W) in [0, 1].
            truth: sharp frames, of the same shape and range.
        """
        if not hasattr(self.raw, "supervised"):
            return self(frames), frames.new_zeros(())
        _check_shape(frames)
        output, loss = cast(Any, self.raw).supervised(self._encode(frames), self._encode(truth))
        return self._decode(output, frames), loss

    def open_stream(self) -> NetworkStream:
        """Restore a clip piece by piece, without gradients, with the same result as :meth:`forward` on all of it.

        Raises:
            ValueError: an output of this network depends on the whole clip.
        """
        if self.backbone.temporal == "bidirectional" or self.backbone.even_frames:
            raise ValueError(f"{self.backbone.id} needs the whole clip at once and cannot stream")
        return NetworkStream(self)

    def _encode(self, frames: Tensor) -> Tensor:
        """To the raw network's size, channel order and value range."""
        batch, _, _, height, width = frames.shape
        multiple = self.backbone.size_multiple
        target = [-(-max(side, self.backbone.min_size) // multiple) * multiple for side in (height, width)]
        if target != [height, width]:
            frames = pad_to(frames.flatten(0, 1), *target).unflatten(0, (batch, -1))
        if self.variant.channel_order == "bgr":
            frames = frames.flip(2)
        low, high = self.variant.value_range
        return frames if (low, high) == (0.0, 1.0) else frames * (high - low) + low

    def _decode(self, output: Tensor, like: Tensor) -> Tensor:
        """Back to RGB in [0, 1], and to the size and dtype of ``like``."""
        output = output[..., : like.shape[3], : like.shape[4]].to(like.dtype)
        low, high = self.variant.value_range
        if (low, high) != (0.0, 1.0):
            output = (output - low) / (high - low)
        return output.flip(2) if self.variant.channel_order == "bgr" else output


class NetworkStream:
    """Restores one clip as its frames arrive; see :meth:`Network.open_stream`. Not reusable after ``finish``."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._past, self._future = network.backbone.context
        self._state: Any = None
        self._started = False
        self._seen = 0
        # Before the start: all frames so far. Afterwards: as many as the reflection at the clip's end may need.
        self._recent: Tensor | None = None

    @torch.no_grad()
    def push(self, frames: Tensor) -> Tensor:
        """Take the next frames (B, t, 3, H, W) in [0, 1]; return all outputs that are complete, possibly none."""
        _check_shape(frames)
        self._seen += frames.shape[1]
        self._recent = frames if self._recent is None else torch.cat((self._recent, frames), 1)
        if not self._started:
            if self._seen <= self._past:
                return frames[:, :0]
            self._started = True
            lead = [reflect_index(i, self._seen) for i in range(-self._past, 0)]
            frames = torch.cat((self._recent[:, lead], self._recent), 1)
        output = self._run(frames)
        self._recent = self._recent[:, -(self._future + 1) :]
        return output

    @torch.no_grad()
    def finish(self) -> Tensor:
        """End the clip: return the outputs that were still waiting for later frames.

        Raises:
            ValueError: no frame was pushed.
        """
        if self._recent is None:
            raise ValueError("no frame was pushed before finish")
        recent, count = self._recent, self._seen
        if not self._started:  # shorter than the context: the reflection depends on the length, which is known now
            self._recent = None
            return self._network(recent)
        dropped = count - recent.shape[1]
        tail = [reflect_index(i, count) - dropped for i in range(count, count + self._future)]
        self._recent = None
        return self._run(recent[:, tail]) if tail else recent[:, :0]

    def export(self) -> dict[str, Tensor]:
        """The complete state of the stream, so that another one can continue from here (:meth:`load`)."""
        counts = torch.tensor([self._seen, int(self._started)])
        tensors = {f"state.{i}": leaf for i, leaf in enumerate(_leaves(self._state))} | {"counts": counts}
        return tensors if self._recent is None else tensors | {"recent": self._recent}

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what :meth:`export` gave, in a stream of a network with the same weights."""
        network = self._network
        device = next(network.parameters(), torch.empty(0)).device
        self._seen, self._started = int(tensors["counts"][0]), bool(tensors["counts"][1])
        self._recent = tensors["recent"].to(device) if "recent" in tensors else None
        if "state.0" in tensors:
            # Only the network knows the structure of its state: a tiny clip shows it.
            side = network.backbone.min_size
            tiny = network._encode(torch.zeros(1, self._past + self._future + 1, 3, side, side, device=device))
            _, like = cast(Any, network.raw).stream(tiny, None)
            count = sum(name.startswith("state.") for name in tensors)
            self._state = _rebuilt(like, iter([tensors[f"state.{i}"].to(device) for i in range(count)]))

    def _run(self, frames: Tensor) -> Tensor:
        network = self._network
        encoded = network._encode(frames)
        if network.backbone.temporal == "causal":
            output, self._state = cast(Any, network.raw).stream(encoded, self._state)
        else:
            output = network.raw(encoded)
        return network._decode(output, frames)


def _leaves(state: Any) -> list[Tensor]:
    """Tensors of a recurrent state: a tensor, or tuples and lists of such."""
    if state is None:
        return []
    return [state] if isinstance(state, Tensor) else [leaf for part in state for leaf in _leaves(part)]


def _rebuilt(like: Any, leaves: Iterator[Tensor]) -> Any:
    """A state of the same structure as ``like``, with other tensors."""
    if isinstance(like, Tensor):
        return next(leaves)
    parts = [_rebuilt(part, leaves) for part in like]
    return type(like)(*parts) if hasattr(like, "_fields") else type(like)(parts)


def _check_shape(frames: Tensor) -> None:
    if frames.ndim != 5 or frames.shape[2] != 3 or 0 in frames.shape:
        raise ValueError(f"expected frames of shape (B, T, 3, H, W), got {tuple(frames.shape)}")
