"""What a measurement was made on."""

from __future__ import annotations

import datetime
import os
import platform
from pathlib import Path

import av
import cv2
import numpy as np
import torch

from selfhvd_tta import __version__

MATTERING_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16")


def describe(device: torch.device) -> dict[str, str]:
    """Hardware, versions, threads, load and date, as label and value."""
    name, flags = _processor()
    rows = {
        "date": f"{datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d %H:%M} UTC",
        "processor": f"{name}, {os.cpu_count()} cores, {flags or 'flags unknown'}",
        "threads": f"torch {torch.get_num_threads()}, OpenCV {cv2.getNumThreads()}",
        "load": ", ".join(f"{each:.1f}" for each in os.getloadavg()) if hasattr(os, "getloadavg") else "unknown",
        "versions": f"selfhvd-tta {__version__}, Python {platform.python_version()}, torch {torch.__version__}, "
        f"NumPy {np.__version__}, OpenCV {cv2.__version__}, PyAV {av.__version__}",
        "device": "CPU",
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        rows["device"] = (
            f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, "
            f"CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
        )
    elif device.type != "cpu":
        rows["device"] = device.type
    return rows


def _processor() -> tuple[str, str]:
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor() or platform.machine(), ""
    fields: dict[str, str] = {}
    for line in info.read_text().splitlines():
        label, _, value = line.partition(":")
        fields[label.strip()] = value.strip()
    flags = set(fields.get("flags", "").split())
    return fields.get("model name", platform.machine()), " ".join(flag for flag in MATTERING_FLAGS if flag in flags)
