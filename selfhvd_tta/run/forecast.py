"""What is going to be done and how long it will take, told before time is spent; and what was done."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

import torch

from selfhvd_tta.backbones.wrapper import Network
from selfhvd_tta.events import Listener, Plan, ignore
from selfhvd_tta.flows import FlowEstimator
from selfhvd_tta.method.composite import Merger, to_time_on
from selfhvd_tta.method.parallel import each
from selfhvd_tta.method.record import Record
from selfhvd_tta.method.restoration import Compute
from selfhvd_tta.method.teachers import most_alignments
from selfhvd_tta.run import memory as resources
from selfhvd_tta.run.equipment import Equipment
from selfhvd_tta.run.networks import load_backbone
from selfhvd_tta.run.scan import Inspection
from selfhvd_tta.settings import Settings
from selfhvd_tta.wording import duration, plural

# A training step against a forward pass: the backward pass costs about twice as much again.
STEP_OVER_FORWARD = 3.2
REFRESHES = 6


def plan(
    seen: Inspection,
    settings: Settings,
    gear: Equipment,
    working: int,
) -> Plan:
    """The plan, with the duration estimated from one timed pass of the network and of the flow on this machine.

    Args:
        seen: scan of the video.
        settings: all settings.
        gear: device and networks.
        working: frames that adaptation draws from.
    """
    info, clues = seen.info, seen.clues
    count = len(seen.pts)
    rows = [
        ("video", f"{info.width}x{info.height}, {plural(count, 'frame')}, {plural(len(clues.shots), 'shot')}"),
        ("clues", f"{int(clues.sharp.sum())} sharp frames; {seen.verdict}"),
        ("flow", gear.flow.name),
    ]
    blurry = int((~clues.sharp).sum())
    network, device, compute = gear.network, gear.device, gear.compute
    pair = _time_flow(info.height, info.width, gear.flow, device)
    merging = 0.0 if gear.merger is None else _time_merger(gear.merger, device)
    per_pixel = 0.0
    if network is not None:
        adaptation = settings.adaptation.on(device.type)
        precision = str(compute.autocast).removeprefix("torch.") if compute.autocast else "float32"
        rows.append(("backbone", f"{network.name}, weights {network.weights}"))
        rows.append(("device", f"{_device_name(device)}, {precision}"))
        per_pixel = _time_network(network, compute)
        if settings.adapts:
            about = "" if settings.runtime.budget is None else "about "
            steps = f"{about}{adaptation.iters} steps on {working} frames, {adaptation.side} px crops"
            steps += f", learning rate {adaptation.first_rate(network.backbone.haste):.2g}"
            kind = "adaptation" if settings.method == "adapt" else "refit, sharp frames blurred again"
            rows.append(("method", f"{kind}, {steps}"))
        elif settings.learns:
            rows.append(("method", "the backbone as it is (--iters 0)"))
    if not settings.learns:
        how = "by their weights" if gear.merger is None else "by a network"
        into = "the frames as recorded" if network is None else "the backbone's output"
        rows.append(("method", f"sharp-detail transfer into {into}, merged {how}"))
    size = (info.height, info.width)
    lasting = gear.flow.explains_blur
    rates = Rates(per_pixel, pair, device.type, lasting, merging)
    seconds = work_seconds(settings, size, count, blurry, working, rates)
    if settings.learns and device.type == "cpu" and seconds > 600:
        quick = replace(settings, method="transfer", backbone="auto", weights=None, adapted=None, save_adapted=None)
        rates = replace(rates, per_pixel=_time_network(load_backbone(quick, device, ignore), compute))
        about = duration(work_seconds(quick, size, count, blurry, working, rates))
        rows.append(("quicker", f"--method transfer takes about {about} on this machine"))
    return Plan(tuple(rows), seconds / 60)


@dataclass(frozen=True)
class Rates:
    """How fast this machine is.

    Attributes:
        per_pixel: seconds of a forward pass per frame and pixel; 0 without a network.
        pair: seconds to align one pair of frames.
        device: kind of device.
        labels_last: labels are made once and not at every refresh.
        merging: seconds of the merging network per frame and pixel; 0 without it.
    """

    per_pixel: float
    pair: float
    device: str = "cpu"
    labels_last: bool = False
    merging: float = 0.0


def work_seconds(
    settings: Settings, size: tuple[int, int], count: int, blurry: int, working: int, rates: Rates
) -> float:
    """Estimated duration of the work on one video, without reading and writing it.

    Args:
        settings: all settings.
        size: height and width.
        count: frames.
        blurry: those that are no clues.
        working: frames that adaptation draws from.
        rates: of this machine at this size.
    """
    adaptation, align = settings.adaptation.on(rates.device), settings.alignment
    blending = most_alignments(count, blurry, align.teachers) * rates.pair * align.rounds
    height, width = size
    merging = count * rates.merging * height * width
    frame = rates.per_pixel * height * width
    if not settings.learns:
        return blending + merging + count * frame
    crop = min(adaptation.side, height) * min(adaptation.side, width)
    step = rates.per_pixel * crop * adaptation.length * adaptation.batch * STEP_OVER_FORWARD
    seconds = adaptation.iters * step + count * frame
    if adaptation.iters:
        every = adaptation.label_refresh or max(100, math.ceil(adaptation.iters / REFRESHES))
        refreshes = math.ceil(adaptation.iters / every)
        if settings.method == "adapt":
            # Labels that stay ask for no outputs in stage 1, and labels are made when a clip first shows their frame.
            restored = 1 + math.ceil(refreshes * (1 - adaptation.stage1)) if rates.labels_last else refreshes
            shown = adaptation.iters * adaptation.length * adaptation.batch
            labels = min((1 if rates.labels_last else refreshes) * working, shown)
            seconds += restored * working * frame + labels / max(1, count) * blending
        if settings.blends:
            seconds += blending + merging
    return seconds


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


def _time_network(network: Network, compute: Compute) -> float:
    """Seconds per frame and pixel of a forward pass."""
    side = max(128, network.backbone.min_size)
    clip = torch.rand(1, 4, 3, side, side, device=compute.device)
    best = float("inf")
    with torch.no_grad(), compute.context():
        for _ in range(2):
            start = _clock(compute.device)
            network(clip)
            best = min(best, _clock(compute.device) - start)
    return best / (4 * side * side)


def _time_merger(merger: Merger, device: torch.device) -> float:
    """Seconds per pixel of merging one frame."""
    side = 128
    frame, composite = to_time_on(side, side, merger.candidates, device)
    best = float("inf")
    for _ in range(2):
        start = _clock(device)
        merger(frame, frame, composite)
        best = min(best, _clock(device) - start)
    return best / (side * side)


def _time_flow(height: int, width: int, flow: FlowEstimator, device: torch.device) -> float:
    """Seconds to align one pair of frames of this size, both ways."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(1, 3, height // 8 + 1, width // 8 + 1, generator=generator)
    size = (height, width)
    picture = torch.nn.functional.interpolate(noise, size=size, mode="bicubic").clamp(0, 1).to(device)
    best, several = float("inf"), range(torch.get_num_threads())
    for _ in range(2):  # the first call may compile or allocate
        start = _clock(device)
        # As labels are made: split among threads, one pair is many times slower wherever others use the machine.
        each(lambda _: flow.both(picture, picture.roll((2, 3), (-2, -1))), several, device)
        best = min(best, (_clock(device) - start) / len(several))
    return best


class Forecaster:
    """Estimates for many videos on this machine: networks are loaded and timed once.

    Args:
        settings: of all of them.
        listen: is told which networks were chosen.

    Raises:
        UsageError, WeightsError, DeviceError: as for a run with these settings.
    """

    SIZE = (240, 320)
    BLURRY = 0.6  # share of the frames that are no clues: what is taken for videos that were not looked through

    def __init__(self, settings: Settings, listen: Listener = ignore) -> None:
        gear = Equipment.load(replace(settings, adaptation=replace(settings.adaptation, iters=0)), listen)
        self.settings = replace(settings, adaptation=settings.adaptation.on(gear.device.type))
        height, width = self.SIZE
        self.pair = _time_flow(height, width, gear.flow, gear.device) / (height * width)
        self.merging = 0.0 if gear.merger is None else _time_merger(gear.merger, gear.device)
        self.lasting = gear.flow.explains_blur
        self.per_pixel = 0.0 if gear.network is None else _time_network(gear.network, gear.compute)

    def seconds(self, height: int, width: int, count: int) -> float:
        """Rough duration of the work on a video of which nothing but its size and length is known."""
        working = resources.working_set_limit(height, width, min(count, self.settings.adaptation.working_set))
        rates = Rates(self.per_pixel, self.pair * height * width, labels_last=self.lasting, merging=self.merging)
        blurry = round(self.BLURRY * count)
        return work_seconds(self.settings, (height, width), count, blurry, min(count, working), rates)
