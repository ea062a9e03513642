"""Running a network over a video of any length and size, without visible seams."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor, nn

from selfhvd_tta.backbones import Backbone
from selfhvd_tta.errors import DeviceError, is_out_of_memory
from selfhvd_tta.method.tiles import GRID, SMALLEST, join_tiles, tiles_of

Warn = Callable[[str], None]
FADE = 4
# Frames that a stream sees before the first one that counts when it has to start from scratch.
WARM_UP = 4


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
        """Autocast, or a context that does nothing."""
        if self.autocast is None:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.autocast)


@dataclass(frozen=True)
class Restart:
    """Where, and with what state, the restoration of a shot can resume as if it had never stopped.

    Attributes:
        feed_from: frame of the shot that the network needs next.
        output_from: frame that the first output will belong to.
        valid_from: first frame whose output equals that of the uninterrupted run; drop the ones before.
        window: frames at once.
        tile: side of the tiles; None for whole frames.
        tensors: state of the stream; empty for networks without one.
    """

    feed_from: int = 0
    output_from: int = 0
    valid_from: int = 0
    window: int | None = None
    tile: int | None = None
    tensors: dict[str, Tensor] = field(default_factory=dict)


class Restorer:
    """Feeds frames through a network in windows that memory allows.

    Causal and per-frame networks are streamed: their state is carried on, so the result equals that of the whole
    video. Bidirectional networks see overlapping windows with ``reach`` extra frames on each side, cross-faded.
    When memory runs out the window is halved, as far as the network's context allows; then frames are cut into
    overlapping tiles; then the window shrinks to one frame. No frame is dropped.

    Args:
        network: wrapped network, ``(B, T, 3, H, W)`` in [0, 1] to the same shape, with ``open_stream()``.
        backbone: its descriptor.
        compute: device and precision.
        window: most frames at once.
        warn: gets one line when the window or the tiles had to shrink.
        tile: side of the tiles in pixels; None for whole frames while they fit.

    Attributes:
        boundary: function that returns the last place from which the restoration could be resumed, and
            ``boundary_at``, the number of outputs of the shot up to there; it counts from when that many were taken.
    """

    def __init__(
        self,
        network: nn.Module,
        backbone: Backbone,
        compute: Compute,
        window: int,
        warn: Warn = lambda text: None,
        tile: int | None = None,
    ) -> None:
        self.network = network
        self.backbone = backbone
        self.compute = compute
        self.window = self._even(max(1, window))
        self.warn = warn
        self.tile = tile
        self.boundary: Callable[[], Restart] = Restart
        self.boundary_at = 0

    def restore(self, frames: Iterable[Tensor], restart: Restart | None = None) -> Iterator[Tensor]:
        """Restore the frames of one shot.

        Args:
            frames: (3, H, W) float in [0, 1] each, in order, on any device.
            restart: place at which an earlier run stopped; ``frames`` then begins with its ``feed_from``.

        Yields:
            (3, H, W) float32 in [0, 1] on the compute device, one per input frame, in order.
        """
        was_training = self.network.training
        self.network.eval()
        restart = restart or Restart()
        self.window, self.tile = restart.window or self.window, restart.tile or self.tile
        self.boundary_at = 0
        try:
            if self.backbone.temporal == "bidirectional":
                yield from self._windows(iter(frames), restart)
            else:
                yield from self._stream(iter(frames), restart)
        finally:
            self.network.train(was_training)

    def _even(self, count: int) -> int:
        """Networks that pair frames see the same pairs in every window only if windows start at even frames."""
        return count - count % 2 if self.backbone.even_frames and count > 1 else count

    def _run(self, call: Callable[[], Tensor]) -> Tensor:
        with torch.no_grad(), self.compute.context():
            result = call().float()
            # In place where it can be: on long windows of large frames every copy counts.
            return result.clamp_(0, 1) if result.is_contiguous() else result.clamp(0, 1)

    def _shrink(self, error: Exception, height: int, width: int) -> None:
        if not is_out_of_memory(error):
            raise error
        reach = self.backbone.reach
        enough = 2 * (2 * reach + FADE) if reach else 1
        side = self.tile or max(height, width)
        # Tiles hardly smaller than the frame would save less than their overlap costs.
        smaller = max(SMALLEST, side // 2 // GRID * GRID)
        if self.window > enough:
            self.window = self._even(max(enough, self.window // 2))
        elif smaller < side:
            self.tile = smaller
        elif self.window > 1:
            self.window = self._even(self.window // 2)
        else:
            raise DeviceError(
                f"not enough memory on {self.compute.device} to restore even one frame at a time",
                "Use a smaller backbone, --device cpu, or scale the video down first.",
            ) from error
        if self.compute.device.type == "cuda":
            torch.cuda.empty_cache()
        tiles = f", in tiles of {self.tile} pixels" if self.tile else ""
        self.warn(f"memory ran out: continuing with windows of {self.window} frames{tiles}")

    def _stream(self, frames: Iterator[Tensor], restart: Restart) -> Iterator[Tensor]:
        past, future = self.backbone.context
        recent: deque[Tensor] = deque(maxlen=self.window + past + 2 * future + WARM_UP)
        stream: Stream | None = None
        fed, given, stale = restart.feed_from, restart.output_from, 0
        while chunk := _take(frames, self.window):
            recent.extend(chunk)
            pending = deque([chunk])
            while pending:
                clip, tile = pending.popleft(), self.tile
                if len(clip) > self.window:
                    pending.extendleft([clip[self.window :], clip[: self.window]])
                    continue
                try:
                    if stream is None:
                        stream = self._open(clip[0], restart.tensors)
                    # Pushing into a copy leaves the stream as it was if memory runs out halfway.
                    ahead = copy.copy(stream)
                    out = self._run(lambda clip=clip, ahead=ahead: ahead.push(self._stack(clip)))  # type: ignore[misc]
                except (RuntimeError, MemoryError) as error:
                    self._shrink(error, *clip[0].shape[-2:])
                    pending.appendleft(clip)
                    if self.tile != tile:
                        # State of whole frames cannot be used for tiles: they start with the last frames, to warm up.
                        known = [*recent][: len(recent) - sum(map(len, pending))]
                        if known:
                            pending.appendleft(known)
                        fed -= len(known)
                        stale = given - fed
                        stream, restart = None, Restart()
                        if stale < 0:
                            raise DeviceError(
                                f"memory on {self.compute.device} ran out right after continuing",
                                "Run the same command again, or start over with --restart and --tile.",
                            ) from error
                    continue
                stream = ahead
                fed += len(clip)
                outputs = list(out[0])
                old = min(stale, len(outputs))
                stale -= old
                given += len(outputs) - old
                if not pending and not stale:
                    self._mark(given, Restart(fed, given, given, self.window, self.tile), stream)
                yield from outputs[old:]
        if stream is not None:
            yield from self._run(stream.finish)[0][stale:]

    def _open(self, frame: Tensor, tensors: dict[str, Tensor]) -> Stream:
        if self.tile is None:
            stream = self.network.open_stream()  # type: ignore[operator]
        else:
            height, width = frame.shape[-2:]
            stream = TiledStream(self.network, height, width, self.tile)
        if tensors:
            stream.load(tensors)
        return stream

    def _mark(self, outputs: int, restart: Restart, stream: Stream | None = None) -> None:
        self.boundary_at = outputs
        self.boundary = lambda: restart if stream is None else replace(restart, tensors=stream.export())

    def _stack(self, clip: list[Tensor]) -> Tensor:
        return torch.stack(clip)[None].to(self.compute.device)

    def _network(self, clip: list[Tensor]) -> Tensor:
        height, width = clip[0].shape[-2:]
        if self.tile is None:
            return self.network(self._stack(clip))
        tiles = tiles_of(height, width, self.tile)
        return join_tiles(((t, self.network(self._stack([t.crop(f) for f in clip]))) for t in tiles), height, width)

    def _windows(self, frames: Iterator[Tensor], restart: Restart) -> Iterator[Tensor]:
        reach = self.backbone.reach
        start = restart.feed_from
        held = _take(frames, self.window)
        tail: list[Tensor] = []  # outputs of the previous window for the overlap, with their fading weights
        while held:
            try:
                out = self._run(lambda clip=held: self._network(clip))  # type: ignore[misc]
            except (RuntimeError, MemoryError) as error:
                self._shrink(error, *held[0].shape[-2:])
                if len(tail) >= self.window:
                    # The smaller window would end within the overlap: keep what the earlier window gave.
                    yield from tail
                    start += len(tail)
                    held, tail = held[len(tail) :], []
                frames = _chain(held[self.window :], frames)
                held = held[: self.window]
                continue
            outputs = list(out[0])
            overlap = self._even(min(2 * reach + FADE, self.window // 2, len(held) - 1)) if reach else 0
            fresh = _take(frames, max(1, self.window - overlap))
            joined = cross_fade(tail, outputs, reach)
            if not fresh:
                yield from joined
                return
            kept = len(joined) - overlap
            # Resuming runs this window again, for its part of the overlap; its other outputs are not needed.
            self._mark(start + kept, Restart(start, start, start + kept, self.window, self.tile))
            yield from joined[:kept]
            tail = joined[kept:]
            held = held[kept:] + fresh
            start += kept


class Stream(Protocol):
    """Restores a clip as its frames arrive."""

    def push(self, frames: Tensor) -> Tensor:
        """Take frames (1, t, 3, H, W), return the outputs that are complete."""

    def finish(self) -> Tensor:
        """Return the remaining outputs."""

    def export(self) -> dict[str, Tensor]:
        """Its complete state."""

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take over the state of another one."""


class TiledStream:
    """One stream per tile."""

    def __init__(self, network: nn.Module, height: int, width: int, side: int) -> None:
        self.size = (height, width)
        self.tiles = tiles_of(height, width, side)
        self.streams: list[Stream] = [network.open_stream() for _ in self.tiles]  # type: ignore[operator]

    def __copy__(self) -> TiledStream:
        other = object.__new__(TiledStream)
        other.size, other.tiles = self.size, self.tiles
        other.streams = [copy.copy(stream) for stream in self.streams]
        return other

    def push(self, frames: Tensor) -> Tensor:
        """As :meth:`Stream.push`."""
        parts = zip(self.tiles, self.streams, strict=True)
        return join_tiles(((tile, stream.push(tile.crop(frames))) for tile, stream in parts), *self.size)

    def finish(self) -> Tensor:
        """As :meth:`Stream.finish`."""
        parts = zip(self.tiles, self.streams, strict=True)
        return join_tiles(((tile, stream.finish()) for tile, stream in parts), *self.size)

    def export(self) -> dict[str, Tensor]:
        """As :meth:`Stream.export`."""
        return {f"{i}.{name}": t for i, stream in enumerate(self.streams) for name, t in stream.export().items()}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """As :meth:`Stream.load`."""
        for i, stream in enumerate(self.streams):
            start = f"{i}."
            stream.load({name.removeprefix(start): t for name, t in tensors.items() if name.startswith(start)})


def cross_fade(tail: list[Tensor], head: list[Tensor], reach: int) -> list[Tensor]:
    """Join two windows whose first ``len(tail)`` frames overlap.

    If only one of the windows has its full context (``reach`` frames), it is taken; in between the weight
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
