"""Moves frames from the file to the device and back, a few at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from selfhvd_tta.method.clues import Clues
from selfhvd_tta.video.opening import Reader
from selfhvd_tta.video.reader import Frame

RgbArray = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]


def to_tensor(rgb: RgbArray, device: torch.device) -> Tensor:
    """(H, W, 3) uint8 or uint16 to (3, H, W) float32 in [0, 1]."""
    peak = 65535 if rgb.dtype == np.uint16 else 255
    array = rgb if rgb.dtype == np.uint8 else rgb.astype(np.int32)
    return torch.from_numpy(np.ascontiguousarray(array)).to(device).permute(2, 0, 1).float() / peak


def to_array(frame: Tensor) -> npt.NDArray[np.float32]:
    """(3, H, W) in [0, 1] to (H, W, 3) float32."""
    return np.ascontiguousarray(frame.permute(1, 2, 0).float().cpu().numpy())


def load_frames(reader: Reader, numbers: list[int]) -> Tensor:
    """Frames of the working set: (N, 3, H, W) uint8."""
    stack: Tensor | None = None
    for row, frame in enumerate(reader.read(numbers)):
        rgb = frame.rgb if frame.rgb.dtype == np.uint8 else (frame.rgb.astype(np.uint32) * 255 + 32767) // 65535
        tensor = torch.from_numpy(np.ascontiguousarray(rgb.astype(np.uint8))).permute(2, 0, 1)
        if stack is None:
            stack = torch.empty((len(numbers), *tensor.shape), dtype=torch.uint8)
        stack[row] = tensor
    assert stack is not None
    return stack


def opener(reader: Reader) -> Callable[[int], Iterator[Frame]]:
    """Frames of a video from a given index on, by a reader of its own each time (readers are not shared by threads).

    Args:
        reader: of the video, which has counted its frames.
    """
    count = len(reader.pts)

    def open_at(first: int) -> Iterator[Frame]:
        return reader.read(range(first, count)) if first else iter(reader)

    return open_at


class Inflight:
    """Passes frames to a network and keeps them until their outputs arrive."""

    def __init__(self, frames: Generator[Frame, None, None], device: torch.device) -> None:
        self.frames = frames
        self.device = device
        self.waiting: deque[Frame] = deque()

    def feed(self, count: int) -> Iterator[Tensor]:
        """The next ``count`` frames as tensors."""
        for _ in range(count):
            frame = next(self.frames)
            self.waiting.append(frame)
            yield to_tensor(frame.rgb, self.device)

    def skip(self, count: int) -> None:
        """Keep the next ``count`` frames as if the network had seen them."""
        self.waiting.extend(next(self.frames) for _ in range(count))

    def collect(self) -> Frame:
        """The frame to which the next output belongs."""
        return self.waiting.popleft()

    def close(self) -> None:
        """Stop reading."""
        self.frames.close()


class SharpFeed:
    """The sharp frames around the current one, from a pass over the video that reads ahead.

    Args:
        frames: all frames of the video in order.
        clues: which of them are sharp.
        behind: how many frames back a sharp frame may still be asked for.
    """

    def __init__(self, frames: Generator[Frame, None, None], clues: Clues, behind: int) -> None:
        self.frames = frames
        self.clues = clues
        self.behind = behind
        self.reached = -1
        self.held: dict[int, RgbArray] = {}

    def get(self, index: int, present: int, device: torch.device) -> Tensor:
        """Sharp frame ``index`` as (1, 3, H, W) in [0, 1], asked for while working on frame ``present``."""
        while self.reached < index:
            frame = next(self.frames)
            self.reached = frame.index
            if self.clues.sharp[frame.index]:
                self.held[frame.index] = frame.rgb
        for old in [i for i in self.held if i < present - self.behind]:
            del self.held[old]
        return to_tensor(self.held[index], device)[None]

    def close(self) -> None:
        """Stop reading."""
        self.frames.close()


class WindowFeed:
    """The frames around the current one, from a pass over the video that reads ahead.

    Args:
        frames: of the video in order, from ``first`` on.
        first: index of the first of them.
        reach: how far from the current frame, to both sides, frames may be asked for.

    Attributes:
        present: the frame being worked on; it only grows.
    """

    def __init__(self, frames: Generator[Frame, None, None], first: int, reach: int) -> None:
        self.frames = frames
        self.reach = reach
        self.present = first
        self.reached = first - 1
        self.held: dict[int, RgbArray] = {}

    def get(self, index: int) -> RgbArray:
        """Frame ``index`` as decoded, (H, W, 3) uint8 or uint16."""
        while self.reached < index:
            frame = next(self.frames)
            self.reached = frame.index
            self.held[frame.index] = frame.rgb
        for old in [i for i in self.held if i < self.present - self.reach]:
            del self.held[old]
        return self.held[index]

    def close(self) -> None:
        """Stop reading."""
        self.frames.close()
