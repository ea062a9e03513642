"""Memory limits: size of the working set, place of the bank, length of the window."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from selfhvd_tta.backbones import Backbone, Variant
from selfhvd_tta.errors import DeviceError, is_out_of_memory
from selfhvd_tta.method.restoration import FADE, Compute
from selfhvd_tta.method.tiles import GRID, SMALLEST
from selfhvd_tta.run import hostmemory

# Bank per pixel: input 3, label 3, mask 1, teacher and historical outputs 6 + 6 bytes, and working copies.
BANK_BYTES_PER_PIXEL = 24
SHARE = 0.35
# Of restoring: at most this many bytes and this part of what is free; frames and outputs in float32, 12 bytes each.
MOST, PART, FRAME_BYTES = 8 << 30, 0.8, 24
LONGEST = 40  # frames at once, where a window need not be long
UNKNOWN = 4 << 30  # if the system does not say
CPU = torch.device("cpu")

NOTHING_SPECIAL = "Close other programs that use this memory, use --device cpu, or scale the video down first."


@contextmanager
def within_memory(doing: str, hint: str = NOTHING_SPECIAL) -> Iterator[None]:
    """Says what to do where memory ran out and nothing smaller was left to try; also a decorator.

    Args:
        doing: what is done, completes "not enough memory for ...".
        hint: what would help.

    Raises:
        DeviceError: in place of any error that says that memory ran out.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise DeviceError(f"not enough memory for {doing}", hint) from error


def free_memory(device: torch.device) -> int:
    """Bytes available on the device (host memory for the CPU)."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return hostmemory.host_memory() or UNKNOWN


def working_set_limit(height: int, width: int, most: int) -> int:
    """Frames that adaptation may hold: ``most``, or what a third of the host's memory takes; at least 20."""
    return max(20, min(most, int(SHARE * free_memory(CPU) / (BANK_BYTES_PER_PIXEL * height * width))))


def bank_store(height: int, width: int, frames: int, device: torch.device) -> torch.device:
    """Where to keep the label bank: on the device if it takes at most a third of it, else in host memory."""
    if device.type == "cpu" or frames * BANK_BYTES_PER_PIXEL * height * width <= SHARE * free_memory(device):
        return device
    return torch.device("cpu")


@dataclass(frozen=True)
class Extent:
    """How much of a video a network restores at once.

    Attributes:
        window: frames.
        tile: side of the tiles in pixels; None: whole frames.
    """

    window: int
    tile: int | None = None


def extent_for(height: int, width: int, compute: Compute, backbone: Backbone, variant: Variant) -> Extent:
    """What the free memory allows: the longest useful window of whole frames, or tiles with the shortest useful one.

    A network that looks both ways restores the overlap of two windows twice, and so wants long ones: 100 frames in two
    of them. For the others short windows do as well. Where a network's memory was not counted, a window is guessed by
    the size of the frame: a GPU says when it is full, and the window is halved then.
    """
    reach, pixels = backbone.reach, height * width
    overlap = 2 * reach + FADE if reach else 0
    least = max(1, 2 * overlap)
    cpu = compute.device.type == "cpu"
    counted = variant.memory.get("float32" if compute.autocast is None else "bfloat16")
    if counted is None:
        return Extent(max(least, min(LONGEST, int((6e6 if cpu else 2.4e7) / pixels))))
    fixed, frame = counted[0], counted[1] + FRAME_BYTES
    room = min(MOST, PART * free_memory(compute.device))
    most = (100 + overlap) // 2 if reach else LONGEST
    if cpu and not reach:
        most = max(1, min(most, int(6e6 / pixels)))  # more do not fit into its caches
    window = min(most, int((room / pixels - fixed) / frame))
    if window >= least:
        return Extent(window)
    side = int(math.sqrt(room / (fixed + least * frame))) // GRID * GRID
    return Extent(least, max(SMALLEST, side) if side < max(height, width) else None)
