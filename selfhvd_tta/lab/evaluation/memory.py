"""The most memory that a piece of work needed."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class Peak:
    """Peak of memory.

    Attributes:
        size: bytes; None if the system does not say.
        of: what was measured.
    """

    size: int | None
    of: str


class PeakMemory:
    """Measures from its construction on.

    On CUDA: tensors allocated by torch. On the CPU under Linux: resident memory of the process, its peak reset at the
    beginning. Elsewhere the peak since the process started, and said so.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.was_reset = False
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            return
        try:
            Path("/proc/self/clear_refs").write_text("5")
            self.was_reset = True
        except OSError:
            # Not Linux, or not permitted in this container: the peak is then that of the whole run.
            self.was_reset = False

    def read(self) -> Peak:
        """The peak so far."""
        if self.device.type == "cuda":
            return Peak(torch.cuda.max_memory_allocated(self.device), "tensors on the GPU")
        since = "" if self.was_reset else ", since the program started"
        status = Path("/proc/self/status")
        if status.exists():
            for line in status.read_text().splitlines():
                if line.startswith("VmHWM:"):
                    return Peak(int(line.split()[1]) * 1024, f"process{since}")
        if sys.platform == "win32":
            return Peak(None, "not measured on Windows")
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        return Peak(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, f"process{since}")
