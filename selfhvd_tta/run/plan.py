"""What will be done and how long it will take, reported before any work; and what was done."""

from __future__ import annotations

from dataclasses import replace

import torch

from selfhvd_tta.events import MethodTime, Plan
from selfhvd_tta.method.record import Record
from selfhvd_tta.run.blur import Blur
from selfhvd_tta.run.equipment import Equipment
from selfhvd_tta.run.forecast import Forecast
from selfhvd_tta.run.rate import described as rate_described
from selfhvd_tta.run.scan import Inspection
from selfhvd_tta.settings import AdaptationSettings, Settings
from selfhvd_tta.video.rate_control import RateChoice
from selfhvd_tta.wording import duration, plural


def plan(
    seen: Inspection, settings: Settings, gear: Equipment, forecast: Forecast, rate: RateChoice | None = None
) -> Plan:
    """The plan of a run.

    Args:
        seen: scan of the video.
        settings: all settings.
        gear: device and networks.
        forecast: for this video.
        rate: of the result, where it was chosen.
    """
    info, clues, network = seen.info, seen.clues, gear.network
    size = f"{info.width}x{info.height}, {plural(len(seen.pts), 'frame')}, {plural(len(clues.shots), 'shot')}"
    rows = [("video", size), ("clues", f"{plural(int(clues.sharp.sum()), 'sharp frame')}; {seen.verdict}")]
    if seen.blur is not None:
        rows.append(("blur", described(seen.blur)))
    rows.append(("flow", gear.flow.name))
    if network is not None:
        precision = str(gear.compute.autocast or torch.float32).removeprefix("torch.")
        rows.append(("backbone", f"{network.name}, weights {network.weights}"))
        rows.append(("device", f"{_device_name(gear.device)}, {precision}"))
    rows.append(("method", _method(settings, gear, forecast)))
    if settings.strength < 1:
        rows.append(("strength", f"{settings.strength:g} of the result mixed into the recorded frames"))
    if rate is not None:
        rows.append(("coding", rate_described(rate)))
    times = _times(settings, gear, forecast)
    if others := [f"{time.method} about {duration(time.seconds)}" for time in times[1:]]:
        rows.append(("instead", f"{', '.join(others)} on this machine"))
    return Plan(tuple(rows), times[0].seconds / 60, times)


def described(blur: Blur) -> str:
    """How the frames of a video are blurred, in one line."""
    exposure = blur.exposure
    kind = "differs from place to place" if blur.local else "one path for all of a frame"
    return f"{kind}; about {exposure.length:.0f} px, shutter open {exposure.share:.0%} of the time between frames"


def _method(settings: Settings, gear: Equipment, forecast: Forecast) -> str:
    """What is done to the frames."""
    network = gear.network
    if (not settings.learns or network is None) and settings.alignment.blur == "local":
        into = "" if network is None else " and the backbone's output"
        return f"every frame explained by its own blur, sharp frames{into} and neighbors"
    if not settings.learns or network is None:
        how = "by their weights" if gear.merger is None else "by a network"
        into = "the frames as recorded" if network is None else "the backbone's output"
        return f"sharp-detail transfer into {into}, merged {how}"
    if not settings.adapts:
        return "the backbone as it is (--iters 0)"
    adaptation = settings.adaptation
    about = "" if settings.runtime.budget is None else "about "
    kind = "adaptation" if settings.method == "adapt" else "refit, sharp frames blurred again"
    return (
        f"{kind}, {about}{plural(adaptation.iters, 'step')} on {plural(forecast.load.working, 'frame')}, "
        f"{adaptation.side} px crops, learning rate {adaptation.first_rate(network.backbone.haste):.2g}"
    )


def _times(settings: Settings, gear: Equipment, forecast: Forecast) -> tuple[MethodTime, ...]:
    """Seconds of the chosen method, then of the other one with the same backbone."""
    chosen = MethodTime(settings.method, forecast.seconds(settings))
    if settings.runtime.budget is not None or settings.literal or gear.network is None:
        return (chosen,)
    if settings.method == "transfer":
        steps = AdaptationSettings().iters
        other = replace(settings, method="adapt", adaptation=replace(settings.adaptation, iters=steps))
    else:
        other = replace(settings, method="transfer", save_adapted=None)
    return chosen, MethodTime(other.method, forecast.seconds(other))


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
