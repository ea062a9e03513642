"""Running a network over a video of any length and size, without visible seams."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from selfhvd_tta.backbones import Backbone
from selfhvd_tta.errors import DeviceError

Warn = Callable[[str], None]
FADE = 4
OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "alloc_cpu")


@dataclass(frozen=True)
class Compute:
    """Where and in which precision a network runs.

    Attributes:
        device: torch device.
        autocast: dtype of autocast, or None for float32.
    """

    device: torch.device
    autocast: torch.dtype | None = None

    def context(self) -> AbstractContextManager[object]:
        """Autocast, or nothing."""
        if self.autocast is None:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.autocast)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether a torch error says that memory ran out, on a GPU or on the CPU."""
    return isinstance(error, torch.OutOfMemoryError) or any(text in str(error).lower() for text in OUT_OF_MEMORY)


class Restorer:
    """Feeds frames through a network in windows that memory allows.

    Causal and per-frame networks are streamed: their state is carried on, so the result equals that of the whole
    video. Bidirectional networks see overlapping windows with ``reach`` extra frames on each side, cross-faded.
    When memory runs out the window is halved, down to one frame; no frame is dropped.

    Args:
        network: wrapped network, ``(B, T, 3, H, W)`` in [0, 1] to the same shape, with ``open_stream()``.
        backbone: its descriptor.
        compute: device and precision.
        window: frames at once at most.
        warn: told in one line when the window had to shrink.
    """

    def __init__(
        self, network: nn.Module, backbone: Backbone, compute: Compute, window: int, warn: Warn = lambda text: None
    ) -> None:
        self.network = network
        self.backbone = backbone
        self.compute = compute
        self.window = self._even(max(1, window))
        self.warn = warn

    def restore(self, frames: Iterable[Tensor]) -> Iterator[Tensor]:
        """Restore the frames of one shot.

        Args:
            frames: (3, H, W) float in [0, 1] each, in order, on any device.

        Yields:
            (3, H, W) float32 in [0, 1] on the compute device, one per input frame, in order.
        """
        was_training = self.network.training
        self.network.eval()
        try:
            if self.backbone.temporal == "bidirectional":
                yield from self._windows(iter(frames))
            else:
                yield from self._stream(iter(frames))
        finally:
            self.network.train(was_training)

    def _even(self, count: int) -> int:
        """Networks that pair frames see the same pairs in every window only if windows start at even frames."""
        return count - count % 2 if self.backbone.even_frames and count > 1 else count

    def _run(self, call: Callable[[], Tensor | None]) -> Tensor | None:
        with torch.no_grad(), self.compute.context():
            result = call()
        return None if result is None else result.float().clamp(0, 1)

    def _shrink(self, error: RuntimeError) -> None:
        if not is_out_of_memory(error):
            raise error
        if self.window == 1:
            raise DeviceError(
                f"not enough memory on {self.compute.device} to restore even one frame at a time",
                "Use a smaller backbone, --device cpu, or scale the video down first.",
            ) from error
        self.window = self._even(max(1, self.window // 2))
        if self.compute.device.type == "cuda":
            torch.cuda.empty_cache()
        self.warn(f"memory ran out: continuing with windows of {self.window} frames")

    def _stream(self, frames: Iterator[Tensor]) -> Iterator[Tensor]:
        stream = self.network.open_stream()  # type: ignore[operator]
        while chunk := _take(frames, self.window):
            pending = deque([torch.stack(chunk)[None].to(self.compute.device)])
            while pending:
                clip = pending.popleft()
                # Pushing into a copy leaves the stream as it was if memory runs out halfway.
                ahead = copy.copy(stream)
                try:
                    out = self._run(lambda clip=clip, ahead=ahead: ahead.push(clip))  # type: ignore[misc]
                except RuntimeError as error:
                    self._shrink(error)
                    pending.extendleft(reversed(clip.split(self.window, dim=1)))
                    continue
                stream = ahead
                if out is not None:
                    yield from out[0]
        out = self._run(stream.finish)
        if out is not None:
            yield from out[0]

    def _windows(self, frames: Iterator[Tensor]) -> Iterator[Tensor]:
        reach = self.backbone.reach
        held = _take(frames, self.window)
        tail: list[Tensor] = []  # outputs of the previous window for the overlap, with their fading weights
        while held:
            try:
                out = self._run(lambda clip=held: self.network(torch.stack(clip)[None].to(self.compute.device)))  # type: ignore[misc]
            except RuntimeError as error:
                self._shrink(error)
                if len(tail) >= self.window:
                    # The smaller window would end within the overlap: keep what the earlier window gave.
                    yield from tail
                    held, tail = held[len(tail) :], []
                frames = _chain(held[self.window :], frames)
                held = held[: self.window]
                continue
            assert out is not None
            outputs = list(out[0])
            overlap = self._even(min(2 * reach + FADE, self.window // 2, len(held) - 1)) if reach else 0
            fresh = _take(frames, max(1, self.window - overlap))
            joined = cross_fade(tail, outputs, reach)
            if not fresh:
                yield from joined
                return
            yield from joined[: len(joined) - overlap] if overlap else joined
            tail = joined[len(joined) - overlap :] if overlap else []
            held = (held[len(held) - overlap :] if overlap else []) + fresh


def cross_fade(tail: list[Tensor], head: list[Tensor], reach: int) -> list[Tensor]:
    """Join two windows whose first ``len(tail)`` frames overlap.

    Where only one of the windows has its full context (``reach`` frames) that one is taken; in between the weight
    runs linearly.

    Args:
        tail: outputs of the earlier window for the overlap, each (3, H, W).
        head: outputs of the later window, starting with the overlap.
        reach: context that an output needs, frames.

    Returns:
        One output per frame of ``head``.
    """
    count = len(tail)
    margin = min(reach, count // 2)
    span = count - 2 * margin
    joined = list(head)
    for p in range(count):
        later = (p - margin + 0.5) / span if span else float(p >= margin)
        joined[p] = torch.lerp(tail[p], head[p], min(1.0, max(0.0, later)))
    return joined


def _take(frames: Iterator[Tensor], count: int) -> list[Tensor]:
    taken: list[Tensor] = []
    for frame in frames:
        taken.append(frame)
        if len(taken) == count:
            break
    return taken


def _chain(first: list[Tensor], rest: Iterator[Tensor]) -> Iterator[Tensor]:
    yield from first
    yield from rest
