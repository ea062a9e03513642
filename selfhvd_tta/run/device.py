"""The device to compute on, and the precision."""

from __future__ import annotations

from functools import cache

import torch
from torch.nn import functional as F

from selfhvd_tta.backbones import Backbone
from selfhvd_tta.errors import DeviceError, UsageError, is_out_of_memory
from selfhvd_tta.events import Listener, Note
from selfhvd_tta.method.restoration import Compute
from selfhvd_tta.run.driver import amd_driver, nvidia_driver
from selfhvd_tta.settings import Settings

CPU = torch.device("cpu")


def choose_device(name: str, listen: Listener) -> torch.device:
    """The device to compute on.

    Args:
        name: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``. ``auto`` takes the first CUDA (or ROCm) device if it
            computes a small product, else the CPU; MPS only by name, as nobody has run this on it.
        listen: gets one line with the reason if ``auto`` takes the CPU.

    Raises:
        DeviceError: the device was asked for by name and is not usable.
        UsageError: there is no such kind of device.
    """
    if name == "auto":
        reason = why_not(torch.device("cuda")) if torch.cuda.is_available() else why_no_cuda()
        if reason is None:
            return torch.device("cuda")
        listen(Note(f"{reason}: computing on the CPU"))
        return CPU
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"unknown device '{name}'", "Use auto, cpu, cuda or cuda:N.") from error
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise DeviceError(
                f"device '{name}' was asked for, but no CUDA device is usable: {why_no_cuda()}", "Use --device cpu."
            )
        if device.index is not None and device.index >= torch.cuda.device_count():
            raise DeviceError(
                f"device '{name}' was asked for, but there are only {torch.cuda.device_count()}", "Use --device cuda:0."
            )
        if (reason := why_not(device)) is not None:
            raise DeviceError(f"device '{name}' was asked for, but {reason}", "Use --device cpu, or run doctor.")
    elif device.type == "mps":
        if not torch.backends.mps.is_available():
            raise DeviceError("device 'mps' was asked for, but no Apple GPU is usable", "Use --device cpu.")
    elif device.type != "cpu":
        raise UsageError(f"device '{name}' is not supported", "Use auto, cpu, cuda or cuda:N.")
    return device


@cache
def why_not(device: torch.device) -> str | None:
    """Why a CUDA device does not compute, in a few words; None if a small product and a convolution succeed on it."""
    try:
        sides = torch.ones(64, 64, device=device)
        sound = float((sides @ sides).sum()) == 64.0**3
        image = F.conv2d(sides[None, None], sides[None, None, :3, :3], padding=1)
        sound = sound and float(image[0, 0, 9, 9]) == 9.0
    except RuntimeError as error:
        if is_out_of_memory(error):
            return f"the memory of {device} is full"
        if not has_kernels(device):
            return f"this PyTorch has no kernels for {torch.cuda.get_device_name(device)}"
        return f"{device} does not compute ({str(error).strip().splitlines()[0]})"
    return None if sound else f"{device} computes wrongly"


def has_kernels(device: torch.device) -> bool:
    """Whether this PyTorch was built for the architecture of a CUDA device, or one that is compatible with it."""
    major, minor = torch.cuda.get_device_capability(device)
    built = torch.cuda.get_arch_list()
    # Code of one major version runs on its later minor ones; intermediate code is compiled for later majors.
    exact = any(f"sm_{major}{lower}" in built for lower in range(minor + 1))
    return exact or any(f"compute_{older}{lower}" in built for older in range(major + 1) for lower in range(10))


def why_no_cuda() -> str:
    """Why PyTorch finds no CUDA device, in a few words."""
    driver = nvidia_driver()
    if torch.version.cuda is None and torch.version.hip is None:
        if driver:
            return f"NVIDIA driver {driver}, but PyTorch is built for the CPU only"
        if amd_driver():
            return "an AMD GPU, but PyTorch is not built for ROCm"
    elif driver and torch.version.cuda is not None:
        return f"NVIDIA driver {driver} is too old for CUDA {torch.version.cuda}, or the GPU is hidden"
    if torch.backends.mps.is_available():
        return "an Apple GPU is used only with --device mps"
    return "no GPU found"


def prefer_same_bits(device: torch.device, backbone: Backbone, listen: Listener) -> None:
    """Let cuDNN use only algorithms that give the same bits every time, and say where that is not enough.

    Args:
        device: on which a network is trained.
        backbone: its descriptor.
        listen: gets one line if the network itself adds up in no fixed order there.
    """
    if device.type != "cuda":
        return
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    if not backbone.deterministic:
        listen(Note(f"{backbone.id} on a GPU: results differ in the last bits from run to run, and after resuming"))


def choose_compute(settings: Settings, device: torch.device, backbone: Backbone | None) -> Compute:
    """Precision: bfloat16 where asked for, or where the device is good at it and the backbone verified in it."""
    verified = backbone is not None and "bfloat16" in backbone.autocast
    if settings.runtime.precision == "bf16" and backbone is not None and not verified:
        raise UsageError(f"--precision bf16: {backbone.id} is not verified in bfloat16", "Use --precision fp32.")
    return Compute(device=device, autocast=torch.bfloat16 if verified and wants_bf16(settings, device) else None)


def wants_bf16(settings: Settings, device: torch.device) -> bool:
    """Whether networks that were verified in bfloat16 are to compute in it."""
    wanted = settings.runtime.precision
    return wanted == "bf16" or (wanted == "auto" and _has_bf16(device))


def _has_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 faster than float32."""
    if device.type == "cuda":
        with torch.cuda.device(device):  # what it tells is about the current one
            return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # older releases of torch lack them
    return any(bool(getattr(torch.cpu, check, bool)()) for check in checks)
