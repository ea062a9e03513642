"""Which GPU drivers the system has, found without PyTorch."""

from __future__ import annotations

import shutil
from pathlib import Path

SYSTEM = Path("/sys/module")


def nvidia_driver(modules: Path = SYSTEM) -> str:
    """Version of NVIDIA's kernel driver; empty if there is none, or none that can be seen."""
    version = modules / "nvidia" / "version"
    if version.exists():
        return version.read_text().strip()
    return "(version unknown)" if shutil.which("nvidia-smi") else ""


def amd_driver(modules: Path = SYSTEM) -> bool:
    """Whether the kernel drives an AMD GPU."""
    return (modules / "amdgpu").exists() or shutil.which("rocm-smi") is not None
