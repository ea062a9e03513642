"""The device to compute on, and the precision."""

from __future__ import annotations

import torch

from selfhvd_tta.backbones import Backbone
from selfhvd_tta.errors import DeviceError, UsageError
from selfhvd_tta.events import Listener, Note
from selfhvd_tta.method.restoration import Compute
from selfhvd_tta.settings import Settings

CPU = torch.device("cpu")


def choose_device(name: str, listen: Listener) -> torch.device:
    """The device to compute on.

    Raises:
        DeviceError: the device was asked for by name and is not usable.
        UsageError: there is no such kind of device.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        if torch.backends.mps.is_available():
            return torch.device("mps")
        listen(Note("no GPU found: computing on the CPU"))
        return torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"unknown device '{name}'", "Use auto, cpu, cuda or cuda:N.") from error
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise DeviceError(f"device '{name}' was asked for, but no CUDA device is usable", "Use --device cpu.")
        if device.index is not None and device.index >= torch.cuda.device_count():
            raise DeviceError(
                f"device '{name}' was asked for, but there are only {torch.cuda.device_count()}", "Use --device cuda:0."
            )
    elif device.type not in ("cpu", "mps"):
        raise UsageError(f"device '{name}' is not supported", "Use auto, cpu, cuda or cuda:N.")
    return device


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
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # older releases of torch lack them
    return any(bool(getattr(torch.cpu, check, bool)()) for check in checks)
