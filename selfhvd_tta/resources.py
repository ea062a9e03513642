"""How much memory there is, and what to make of it."""

from __future__ import annotations

import os
from pathlib import Path

import torch

# Bank per pixel: input 3, label 3, mask 1, teacher and historical outputs 6 + 6 bytes, and working copies.
BANK_BYTES_PER_PIXEL = 24
SHARE = 0.35


def host_memory() -> int:
    """Bytes of host memory that can be had without swapping."""
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def free_memory(device: torch.device) -> int:
    """Bytes that can be had on the device (host memory for the CPU)."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return host_memory()


def working_set_limit(height: int, width: int, most: int) -> int:
    """Frames that adaptation may hold: ``most``, or what a third of the host's memory takes; at least 20."""
    return max(20, min(most, int(SHARE * host_memory() / (BANK_BYTES_PER_PIXEL * height * width))))


def bank_store(height: int, width: int, frames: int, device: torch.device) -> torch.device:
    """Where the label bank lies: on the device while it takes at most a third of it, else in host memory."""
    if device.type == "cpu" or frames * BANK_BYTES_PER_PIXEL * height * width <= SHARE * free_memory(device):
        return device
    return torch.device("cpu")


def window_for(height: int, width: int, device: torch.device, reach: int) -> int:
    """Frames to restore at once: at most 40, fewer for large frames, never fewer than a window's context needs.

    A GPU says when it is full, and the window is halved then. The CPU is killed instead, so it starts small.
    """
    pixels = 2.4e7 if device.type == "cuda" else 6e6
    return max(2 * (2 * reach + 4) if reach else 1, min(40, int(pixels / (height * width))))
