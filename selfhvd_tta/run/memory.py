"""Memory limits: size of the working set, place of the bank, length of the window."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from selfhvd_tta.errors import DeviceError, is_out_of_memory
from selfhvd_tta.run import hostmemory

# Bank per pixel: input 3, label 3, mask 1, teacher and historical outputs 6 + 6 bytes, and working copies.
BANK_BYTES_PER_PIXEL = 24
SHARE = 0.35
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


def window_for(height: int, width: int, device: torch.device, reach: int) -> int:
    """Frames to restore at once: at most 40, fewer for large frames, never fewer than a window's context needs.

    A GPU reports when it is full, and the window is then halved. On a CPU the process is killed, so it starts small.
    """
    pixels = 2.4e7 if device.type == "cuda" else 6e6
    return max(2 * (2 * reach + 4) if reach else 1, min(40, int(pixels / (height * width))))
