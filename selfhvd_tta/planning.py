"""What is going to be done and how long it will take, told before time is spent; and what was done."""

from __future__ import annotations

import time

import torch

from selfhvd_tta.events import Plan, duration
from selfhvd_tta.inspection import Inspection
from selfhvd_tta.method.adaptation import Record
from selfhvd_tta.method.restoration import Compute
from selfhvd_tta.models import LoadedBackbone, LoadedFlow
from selfhvd_tta.settings import Settings

# A training step against a forward pass: the backward pass costs about twice as much again.
STEP_OVER_FORWARD = 3.2
REFRESHES = 6


def plan(
    seen: Inspection,
    settings: Settings,
    flow: LoadedFlow,
    loaded: LoadedBackbone | None,
    compute: Compute,
    working: int,
) -> Plan:
    """The plan, with the duration estimated from one timed pass of the network and of the flow on this machine.

    Args:
        seen: scan of the video.
        settings: all settings.
        flow: estimator in use.
        loaded: network in use; None for transfer.
        compute: device and precision.
        working: frames that adaptation draws from.
    """
    info, clues = seen.info, seen.clues
    count = len(seen.pts)
    rows = [
        ("video", f"{info.width}x{info.height}, {count} frames, {len(clues.shots)} shot{'s' * (len(clues.shots) > 1)}"),
        ("clues", f"{int(clues.sharp.sum())} sharp frames; {seen.verdict}"),
        ("flow", flow.name),
    ]
    blurry = int((~clues.sharp).sum())
    pair = _time_flow(seen, flow, compute.device) * settings.alignment.teachers
    if loaded is None:
        rows.append(("method", "sharp-detail transfer, no network"))
        seconds = blurry * pair * settings.alignment.rounds
    else:
        adaptation = settings.adaptation
        precision = str(compute.autocast).removeprefix("torch.") if compute.autocast else "float32"
        rows.append(("backbone", f"{loaded.name}, weights {loaded.weights}"))
        rows.append(("device", f"{_device_name(compute.device)}, {precision}"))
        per_pixel = _time_network(loaded, compute)
        frame = per_pixel * info.height * info.width
        crop = min(adaptation.crop, info.height) * min(adaptation.crop, info.width)
        step = per_pixel * crop * adaptation.clip_length * adaptation.batch * STEP_OVER_FORWARD
        seconds = adaptation.iters * step + count * frame
        if adaptation.iters:
            share = working / max(1, count)
            seconds += REFRESHES * (working * frame + share * blurry * pair * settings.alignment.rounds)
            if settings.detail:
                seconds += blurry * pair * settings.alignment.rounds
            steps = f"{adaptation.iters} steps on {working} frames, {adaptation.crop} px crops"
            rows.append(("method", f"adaptation, {steps}"))
        else:
            rows.append(("method", "the backbone as it is (--iters 0)"))
        if compute.device.type == "cpu" and seconds > 600:
            quick = blurry * pair * settings.alignment.rounds
            rows.append(("quicker", f"--method transfer takes about {duration(quick)} on this machine"))
    return Plan(tuple(rows), seconds / 60)


def summary(seen: Inspection, action: str, record: Record | None) -> tuple[tuple[str, str], ...]:
    """Rows for the end of a run."""
    rows = [("frames", str(len(seen.pts))), ("done", action)]
    if record is not None:
        if record.coverage:
            rows.append(("labels", f"cover {record.coverage[-1]:.0%} of the blurry frames' pixels"))
        if record.checks:
            rows.append(("history", f"renewed {record.renewals} times in {len(record.checks)} checks"))
        if record.skipped:
            rows.append(("skipped", f"{record.skipped} steps whose loss was not finite"))
    return tuple(rows)


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type.upper()}, {torch.get_num_threads()} threads"


def _clock(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _time_network(loaded: LoadedBackbone, compute: Compute) -> float:
    """Seconds per frame and pixel of a forward pass."""
    side = max(128, loaded.backbone.min_size)
    clip = torch.rand(1, 4, 3, side, side, device=compute.device)
    best = float("inf")
    with torch.no_grad(), compute.context():
        for _ in range(2):
            start = _clock(compute.device)
            loaded.network(clip)
            best = min(best, _clock(compute.device) - start)
    return best / (4 * side * side)


def _time_flow(seen: Inspection, flow: LoadedFlow, device: torch.device) -> float:
    """Seconds to align one pair of frames of this size, both ways."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(1, 3, seen.info.height // 8 + 1, seen.info.width // 8 + 1, generator=generator)
    size = (seen.info.height, seen.info.width)
    picture = torch.nn.functional.interpolate(noise, size=size, mode="bicubic").clamp(0, 1).to(device)
    best = float("inf")
    for _ in range(2):  # the first call may compile or allocate
        start = _clock(device)
        flow.estimator.both(picture, picture.roll((2, 3), (-2, -1)))
        best = min(best, _clock(device) - start)
    return best
