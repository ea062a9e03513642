"""Whether this machine can run a job: one row for everything that can be wrong, and what to do about it.

None of our modules that need torch or PyAV is imported before a row has shown that they work.
"""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

import selfhvd_tta
from selfhvd_tta.cli.options import Debug
from selfhvd_tta.console import show_table
from selfhvd_tta.errors import WeightsError
from selfhvd_tta.run.driver import amd_driver, nvidia_driver
from selfhvd_tta.run.hostmemory import container_left, machine_left

State = Literal["ok", "warn", "fail"]
GIB = 1 << 30
# The working set shrinks with the memory; with less than the first it holds under 60 frames of 1080p, with less than
# the second only small videos fit next to the network.
LITTLE_MEMORY, TOO_LITTLE_MEMORY = 8 * GIB, 2 * GIB
LITTLE_DISK, TOO_LITTLE_DISK = 5 * GIB, GIB // 2


@dataclass(frozen=True)
class Check:
    """One row.

    Attributes:
        name: what was checked.
        state: ``ok``; ``warn``: works, but slower, worse or not for every video; ``fail``: ``deblur`` cannot work.
        found: one line.
        advice: one line, what to do; empty if there is nothing to do.
    """

    name: str
    state: State
    found: str
    advice: str = ""


def doctor(
    folder: Annotated[Path, typer.Argument(help="The folder for results.")] = Path(),
    hub: Annotated[bool, typer.Option("--hub", help="Also try to reach the Hub.")] = False,
    debug: Debug = False,
) -> None:
    """Check this machine and say what to do about what is missing. Exit code 1 if deblur cannot work."""
    checks = list(examine(folder, hub))
    show_table("", ("check", "state", "found", "what to do"), [(c.name, c.state, c.found, c.advice) for c in checks])
    raise typer.Exit(exit_code(checks))


def examine(folder: str | Path = ".", ask_hub: bool = False) -> Iterator[Check]:
    """Run every check, one row at a time.

    Args:
        folder: where results will go.
        ask_hub: also try to reach the Hub (one request without content); else nothing leaves this machine.
    """
    yield _python()
    torch = _imported("PyTorch", "torch")
    yield torch
    if torch.state != "fail":
        yield from (_imported("torchvision", "torchvision"), gpu(), precision())
    media = _imported("PyAV", "av")
    yield media
    if media.state != "fail":
        yield from (encoder(*row) for row in ENCODERS)
        yield decoders()
    yield _imported("OpenCV", "cv2")
    yield memory()
    yield disk(Path(folder))
    yield cache()
    if torch.state != "fail":
        yield from weights_here()
    if ask_hub:
        yield hub()


def exit_code(checks: list[Check]) -> int:
    """0, or 1 if any check failed."""
    return int(any(check.state == "fail" for check in checks))


def _python() -> Check:
    found = f"{platform.python_version()}, {platform.system()} {platform.machine()}, {os.cpu_count()} processors"
    found = f"selfhvd-tta {selfhvd_tta.__version__}, Python {found}"
    return Check("Python", "ok", found)


def _imported(name: str, module: str) -> Check:
    try:
        found = importlib.import_module(module)
    except (ImportError, OSError, RuntimeError) as error:  # broken builds raise each of them
        text = (str(error).strip() or type(error).__name__).splitlines()[0]
        return Check(
            name, "fail", f"cannot be imported: {text}", "Install selfhvd-tta again, into a fresh environment."
        )
    return Check(name, "ok", str(found.__version__))


def gpu() -> Check:
    """A CUDA device that really computes, or why there is not one."""
    import torch

    slow = "Adaptation on the CPU takes long; --method transfer is quick."
    if torch.backends.mps.is_available():
        return Check("GPU", "warn", "Apple MPS", "Not tested: --device mps tries it; auto takes the CPU.")
    driver = nvidia_driver()
    if torch.version.hip is not None:
        return _rocm(torch.version.hip)
    if torch.version.cuda is None:
        if driver:
            advice = "Install PyTorch for CUDA, see https://pytorch.org/get-started/locally."
            return Check("GPU", "warn", f"NVIDIA driver {driver}, but PyTorch is built for the CPU only", advice)
        if amd_driver():
            advice = "Install PyTorch for ROCm, see https://pytorch.org/get-started/locally."
            return Check("GPU", "warn", "AMD GPU, but PyTorch is built for the CPU only", advice)
        return Check("GPU", "warn", "none (PyTorch is built for the CPU only)", slow)
    built = f"PyTorch for CUDA {torch.version.cuda}"
    if not torch.cuda.is_available():
        if not driver:
            return Check("GPU", "warn", f"none ({built}, no NVIDIA driver)", slow)
        advice = (
            "Update the driver, or install PyTorch for an older CUDA; in a container, pass the GPU on (--gpus all)."
        )
        return Check("GPU", "warn", f"NVIDIA driver {driver} is here, but {built} finds no device", advice)
    return _devices(f"{built}, driver {driver or 'unknown'}")


def _rocm(version: str) -> Check:
    """AMD GPUs, which PyTorch addresses as ``cuda``."""
    import torch

    if torch.cuda.is_available():
        return _devices(f"PyTorch for ROCm {version}; not tested on AMD GPUs")
    advice = "Check the amdgpu driver, and that you may open /dev/kfd (groups render and video)."
    return Check("GPU", "warn", f"none (PyTorch for ROCm {version})", advice)


def _devices(built: str) -> Check:
    """Every device by name and memory, or the first one that does not compute."""
    import torch

    from selfhvd_tta.run.device import why_not

    names = []
    for index in range(torch.cuda.device_count()):
        device = torch.device("cuda", index)
        name = torch.cuda.get_device_name(device)
        if (reason := why_not(device)) is not None:
            return Check("GPU", "fail", f"cuda:{index} {name}: {reason}", "Use --device cpu meanwhile.")
        free, total = torch.cuda.mem_get_info(device)
        names.append(f"cuda:{index} {name}, {free / GIB:.1f} of {total / GIB:.1f} GiB free")
    return Check("GPU", "ok", f"{'; '.join(names)} ({built})")


def precision() -> Check:
    """Whether bfloat16 is used here, and if not, why."""
    import torch

    if not torch.cuda.is_available():
        return Check("bfloat16", "ok", "not used without a CUDA device")
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return Check("bfloat16", "ok", "native; used for the networks that are verified in it")
    return Check("bfloat16", "warn", "not supported by this GPU", "float32 is used, which is slower.")


ENCODERS: tuple[tuple[str, str, State, str], ...] = (
    ("libx264", "H.264, the default", "fail", "Use --codec hevc or ffv1, or install PyAV from its own wheels."),
    ("libx265", "HEVC, default for 10-bit video", "warn", "10-bit video needs --codec av1 or ffv1."),
    ("libsvtav1", "AV1", "warn", "--codec av1 does not work; nothing to do if you do not want it."),
    ("ffv1", "FFV1, lossless", "warn", "--codec ffv1 does not work; nothing to do if you do not want it."),
)


def encoder(name: str, what: str, missing: State, advice: str) -> Check:
    """Whether an encoder is in this build of PyAV and encodes a picture."""
    import av

    label = f"encoder {name}"
    os.environ.setdefault("SVT_LOG", "1")  # SVT-AV1 would print its configuration
    try:
        context: Any = av.CodecContext.create(name, "w")
        context.width, context.height, context.pix_fmt = 64, 64, "yuv420p"
        context.time_base = Fraction(1, 25)
        context.options = {"x265-params": "log-level=none"} if name == "libx265" else {}
        frame: Any = av.VideoFrame(64, 64, "yuv420p")
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        frame.pts = 0
        packets = [*context.encode(frame), *context.encode(None)]
    except (av.error.FFmpegError, ValueError) as error:  # an unknown codec is a ValueError
        return Check(label, missing, f"{what}: does not work ({type(error).__name__})", advice)
    if not packets:
        return Check(label, missing, f"{what}: gives nothing", advice)
    return Check(label, "ok", what)


def decoders() -> Check:
    """Decoders of what phones and cameras write."""
    import av

    wanted = ("h264", "hevc", "av1", "vp9", "mpeg4", "prores", "mjpeg")
    missing = []
    for name in wanted:
        try:
            av.Codec(name, "r")
        except ValueError:
            missing.append(name)
    if missing:
        return Check("decoders", "warn", f"without {', '.join(missing)}", "Install PyAV from its own wheels.")
    return Check("decoders", "ok", ", ".join(wanted))


def memory() -> Check:
    """Memory that is available now, within the limit of a container."""
    free = machine_left()
    if free is None:
        return Check("memory", "ok", "unknown on this system")
    found = f"{free / GIB:.1f} GiB available"
    limit = container_left()
    if limit is not None and limit < free:
        free, found = limit, f"{limit / GIB:.1f} GiB left of what this container may use ({found} on the machine)"
    advice = "Close other programs, or use a smaller --working-set and --window."
    if free < TOO_LITTLE_MEMORY:
        return Check("memory", "fail", found, advice)
    if free < LITTLE_MEMORY:
        return Check("memory", "warn", f"{found}: little for long 1080p or 4K videos", advice)
    return Check("memory", "ok", found)


def disk(folder: Path) -> Check:
    """Whether a result could be written to a folder."""
    name = f"folder {folder.resolve()}"
    if not folder.is_dir():
        return Check(name, "fail", "is not there", "Create it, or choose another one.")
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x")
            file.flush()
    except OSError as error:
        advice = "Choose another folder for results, or change its permissions."
        return Check(name, "fail", f"cannot be written to: {error.strerror}", advice)
    free = shutil.disk_usage(folder).free
    found, advice = f"can be written to, {free / GIB:.1f} GiB free", "Free some space."
    state: State = "fail" if free < TOO_LITTLE_DISK else "warn" if free < LITTLE_DISK else "ok"
    return Check(name, state, found, "" if state == "ok" else advice)


def cache() -> Check:
    """The folder that downloaded weights are kept in."""
    from selfhvd_tta.weights import cache_dir

    folder = cache_dir()
    existing = next(p for p in (folder, *folder.parents) if p.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        advice = "Point SELFHVD_TTA_CACHE to a folder that can be written to."
        return Check("cache", "warn", f"{folder}: cannot be written to, so nothing new can be downloaded", advice)
    size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    return Check("cache", "ok", f"{folder}, {size / 1e6:.0f} MB")


def weights_here() -> Iterator[Check]:
    """Whether the networks that ``auto`` prefers, and others, are on this machine."""
    from selfhvd_tta.flows import discover
    from selfhvd_tta.run import networks as models
    from selfhvd_tta.weights import models_overview

    rows = {row.name: row for row in models_overview(offline=True)}
    backbone = models.find_backbone(":".join(models.HUB_BACKBONE))[1].weights[0]
    bundled = models.find_backbone(":".join(models.OFFLINE_BACKBONE))[1].weights[0]
    flow, bundled_flow = (discover()[name].variants[0].weights[0] for name in (models.HUB_FLOW, models.BUNDLED_FLOW))
    parts = {"network": bundled, "flow": bundled_flow, "merging network": models.MERGER}
    chosen: tuple[tuple[str, str, Callable[[str], str]], ...] = (
        *(
            (f"bundled {what}", name, lambda size: "Install selfhvd-tta again: the file is a part of it.")
            for what, name in parts.items()
        ),
        (
            "backbone weights",
            backbone,
            lambda size: f"Downloaded at the first run ({size}); until then the bundled one.",
        ),
        ("flow weights", flow, lambda size: f"Downloaded at the first run ({size}); until then the bundled one."),
        (
            "perceptual weights",
            "vgg19",
            lambda size: f"Downloaded at the first run ({size}); until then without that term.",
        ),
    )
    for label, name, advice in chosen:
        row = rows[name]
        if row.state == "here":
            yield Check(label, "ok", f"{name} is here")
        else:
            yield Check(label, "fail" if name in parts.values() else "warn", f"{name} is not here", advice(row.size))
    others = [n for n, row in rows.items() if row.state == "here" and n not in {c[1] for c in chosen}]
    if others:
        yield Check("other weights", "ok", ", ".join(others))


def hub() -> Check:
    """One request for the default backbone's file, without its content."""
    from selfhvd_tta.run import networks as models
    from selfhvd_tta.weights import find_row
    from selfhvd_tta.weights.hub import ask, offline_wanted
    from selfhvd_tta.weights.rows import Hub

    if offline_wanted():
        return Check("Hub", "warn", "HF_HUB_OFFLINE is set", "Unset it to let weights be downloaded.")
    source = find_row(models.find_backbone(":".join(models.HUB_BACKBONE))[1].weights[0]).source
    assert isinstance(source, Hub)
    try:
        ask(source)
    except WeightsError as error:
        return Check("Hub", "warn", error.message, error.hint)
    return Check("Hub", "ok", f"{source} can be downloaded")
