"""``--budget``: what fits into a given time on this machine, for this video."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

from selfhvd_tta.config import from_table, to_table
from selfhvd_tta.events import Listener, Note
from selfhvd_tta.run.forecast import CLOSING_SECONDS, Forecast, Load, Speeds, ending
from selfhvd_tta.run.job import Job
from selfhvd_tta.settings import NO_BACKBONE, AdaptationSettings, Settings
from selfhvd_tta.wording import duration, plural

# Reserve for restoring and writing, above its measured length: the machine may get busier.
CAUTION = 1.15
# Side of the crop and frames of the clip, costliest first; a smaller one is taken if the larger gives fewer steps than
# wanted. Below the last there is no adaptation: 31 steps gained less than the teachers for which no time was left.
CLIPS = ((256, 10), (192, 8), (128, 6), (96, 6))
WANTED_STEPS = 150
FEWEST_STEPS = 100
# Share of the time for adaptation that renewing labels may take, and how often at most.
REFRESH_SHARE = 0.35
MOST_REFRESHES = 6


@dataclass(frozen=True)
class Choice:
    """What to do with the time.

    Attributes:
        settings: with steps, crop, clip length, refresh, teachers or method chosen.
        reserve: seconds for what comes after adaptation.
        text: one line for the user.
        fits: whether the budget is believed to suffice.
    """

    settings: Settings
    reserve: float
    text: str
    fits: bool


def choose(settings: Settings, left: float, speeds: Speeds, load: Load) -> Choice:
    """Choose what to do in ``left`` seconds.

    Adaptation with all teachers comes first, then sharp-detail transfer with as many of them as there is time for,
    without the network if need be: what fewer teachers lose, neither makes up for. With fewer, adaptation is done only
    where transfer is not wanted: nothing is blended in, or the adapted weights are to be saved.

    Args:
        settings: what was asked for; crop and clip length are upper limits.
        left: seconds until the job has to be over.
        speeds: measured.
        load: of the video.
    """
    budget = duration(settings.runtime.budget or left)
    most = settings.alignment.teachers
    counts = [n for n in (most, 7, 5, 3, 1) if n <= most]
    if settings.adapts:
        only = not settings.blends or settings.save_adapted is not None
        for teachers in dict.fromkeys(counts if only else counts[:1]):
            choice = _adaptation(settings, left, speeds, load, teachers)
            if choice is not None:
                return choice
    if settings.learns and not settings.adaptation.iters:
        done, chosen = "the backbone as it is", settings
        seconds = _reserve(settings, speeds, load)
    else:
        chosen, seconds, done = _transfer(settings, left, speeds, load, counts)
        if settings.learns:
            done += ", for adaptation would take longer"
    fits = seconds <= left
    if fits:
        return Choice(chosen, seconds, f"budget of {budget}: {done}, about {duration(seconds)}", True)
    least = (settings.runtime.budget or left) - left + seconds
    text = f"the budget of {budget} is too short: this video needs at least about {duration(least)}; doing {done}"
    return Choice(chosen, seconds, text, False)


def _transfer(
    settings: Settings, left: float, speeds: Speeds, load: Load, counts: list[int]
) -> tuple[Settings, float, str]:
    """Settings, seconds and a description: as many teachers as fit, then the network if that fits too.

    On the clip "camera" ten teachers alone gave 38.48 dB, fewer with the network in equal time 38.27 dB.
    """
    plain = replace(settings, method="transfer", save_adapted=None)
    bare = replace(plain, backbone=NO_BACKBONE, weights=None, adapted=None)
    ways = [(way, teachers) for teachers in dict.fromkeys(counts) for way in dict.fromkeys((plain, bare))]
    for way, teachers in ways:
        chosen = replace(way, alignment=replace(settings.alignment, teachers=teachers))
        seconds = _reserve(chosen, speeds, load)
        if seconds <= left:
            break
    done = f"sharp-detail transfer from {plural(teachers, 'frame')} each"
    if settings.alignment.blur == "local":
        done = "every frame explained by its own blur and the frames around it"
    if settings.networked and not way.networked:
        done += " into the frames as recorded"
    return chosen, seconds, done


def _reserve(settings: Settings, speeds: Speeds, load: Load) -> float:
    """Seconds to set aside for restoring, blending in and writing."""
    return CAUTION * ending(settings, speeds, load) + CLOSING_SECONDS


def _adaptation(settings: Settings, left: float, speeds: Speeds, load: Load, teachers: int) -> Choice | None:
    """Steps of the largest clip that allows enough of them; None if hardly any fit."""
    plan = settings.adaptation
    settings = replace(settings, alignment=replace(settings.alignment, teachers=teachers))
    reserve = _reserve(settings, speeds, load)
    label = load.pairs(settings) * speeds.pair / max(1, load.frames)
    outputs = load.working * speeds.frame
    room = left - reserve
    refresh = outputs if load.labels_last else outputs + load.working * label
    refreshes = max(1, min(MOST_REFRESHES, int(REFRESH_SHARE * room / max(refresh, 1e-9))))
    restored = 1 + math.ceil(refreshes * (1 - plan.stage1)) if load.labels_last else refreshes
    every = load.working * (1 if load.labels_last else refreshes)
    best: tuple[int, int, int] | None = None
    for side, length in CLIPS:
        crop, frames = min(plan.crop or side, side), min(plan.clip_length or length, length)
        shown = frames * plan.batch
        step = speeds.step * min(crop, load.height) * min(crop, load.width) * shown
        time = room - restored * outputs
        # A label is made when a clip first shows its frame, so there are at most as many as frames shown.
        steps = int(max((time - every * label) / step, time / (step + shown * label)))
        if steps >= FEWEST_STEPS and (best is None or best[0] < WANTED_STEPS):
            best = steps, crop, frames
    if best is None:
        return None
    steps, crop, frames = best
    adaptation: AdaptationSettings = replace(
        plan, iters=steps, crop=crop, clip_length=frames, label_refresh=math.ceil(steps / refreshes), teacher="bank"
    )
    chosen = replace(settings, adaptation=adaptation)
    text = (
        f"budget of {duration(settings.runtime.budget or left)}: about {steps} steps with crops of {crop} px and "
        f"{frames} frames, labels from {plural(teachers, 'sharp frame')} each made "
        f"{'once' if refreshes == 1 or load.labels_last else f'{refreshes} times'}, then {duration(reserve)} "
        "for restoring and writing"
    )
    return Choice(chosen, reserve, text, True)


@dataclass(frozen=True)
class Fit:
    """What a run is going to do.

    Attributes:
        settings: to run with.
        until: when the adaptation has to end, by ``time.monotonic``; None: after its steps.
    """

    settings: Settings
    until: float | None = None


def fit_once(settings: Settings, forecast: Forecast, job: Job, tell: Listener) -> Fit:
    """What fits into the budget; chosen by the first run and kept by the runs that resume it.

    Args:
        settings: what was asked for, with a budget.
        forecast: for this video.
        job: knows when it began, and remembers the choice.
        tell: gets the choice as one line.
    """
    stored = job.recall("fit")
    if stored is not None:
        seconds = stored["seconds"]
        return Fit(from_table(stored["settings"]), None if seconds is None else time.monotonic() + seconds)
    assert settings.runtime.budget is not None
    deadline = job.started + settings.runtime.budget
    speeds = forecast.speeds.slowed(forecast.busy)
    choice = choose(settings, deadline - time.monotonic(), speeds, forecast.load)
    tell(Note(choice.text, "info" if choice.fits else "warning"))
    until = deadline - choice.reserve if choice.settings.adapts else None
    left = None if until is None else until - time.monotonic()
    job.remember("fit", {"settings": to_table(choice.settings), "seconds": left})
    return Fit(choice.settings, until)
