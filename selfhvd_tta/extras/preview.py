"""A quick look at what a run would achieve: three seconds around the blurriest passage, before and after."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from selfhvd_tta.errors import PreconditionError, UsageError
from selfhvd_tta.events import Event, Finished, Listener, Note, Plan, Progress, Written, ignore
from selfhvd_tta.extras.comparison import write_comparison
from selfhvd_tta.extras.report.log import Recorder
from selfhvd_tta.method.working_set import choose_frames
from selfhvd_tta.run.cancelling import CancelToken
from selfhvd_tta.run.checks import check_names
from selfhvd_tta.run.choice import choose_method
from selfhvd_tta.run.equipment import Equipment
from selfhvd_tta.run.forecast import Forecast
from selfhvd_tta.run.memory import working_set_limit
from selfhvd_tta.run.scan import Inspection, examine
from selfhvd_tta.settings import Layout, Settings
from selfhvd_tta.video.opening import Reader, open_reader
from selfhvd_tta.video.target import CONTAINERS
from selfhvd_tta.video.writer import check_output
from selfhvd_tta.wording import duration

SECONDS = 3.0
BUDGET_S = 60.0
# Share of the budget for the comparison and the estimate of the whole, which come after the passage.
AFTERWARDS = 0.15
# Phases that the plan's estimate covers, and how far their duration may correct the estimate for the whole video.
WORK = ("labels", "stage 1", "stage 2", "restore", "transfer")
CORRECTION = (0.5, 2.0)


@dataclass(frozen=True)
class Preview:
    """What a preview shows.

    Attributes:
        path: of the comparison video.
        frames: of the input that it shows.
        seconds: from and to, in the input.
        whole: estimated seconds of a run over the whole input with the settings as given.
    """

    path: Path
    frames: range
    seconds: tuple[float, float]
    whole: float


def preview_path(output: str | Path) -> Path:
    """``sharp.mp4`` has its preview in ``sharp-preview.mp4``; a folder of images too."""
    path = Path(output)
    suffix = path.suffix if path.suffix.lower() in CONTAINERS else ".mp4"
    return path.with_name(f"{path.stem}-preview{suffix}")


def preview(
    video: str | Path,
    output: str | Path,
    settings: Settings | None = None,
    layout: Layout = "side",
    listen: Listener = ignore,
    cancel: CancelToken | None = None,
) -> Preview:
    """Adapt to the blurriest passage alone, in a minute at most, and show it next to its input.

    A run over the whole video does more steps and sees more sharp frames: it is usually at least as good. The
    preview keeps the sound.

    Args:
        video: input video; it is only read.
        output: where the result of a whole run would go; nothing is written there.
        settings: of that run; the preview takes no longer than a minute or ``runtime.budget`` for itself.
        layout: of the comparison.
        listen: gets progress, notes and plans as they come.
        cancel: to end it from another thread.

    Returns:
        What it shows, and how long the whole would take.

    Raises:
        PreconditionError: the frames of the video do not differ in sharpness, so there is nothing to show.
        SelfHVDError: as :func:`selfhvd_tta.deblur`.
    """
    from selfhvd_tta.pipeline import deblur

    started = time.monotonic()
    settings = settings or Settings()
    if settings.save_adapted is not None:
        raise UsageError("--save-adapted: a preview adapts to a few seconds only", "Leave it or --preview out.")

    def tell(event: Event) -> None:
        if cancel is not None and isinstance(event, Progress):
            cancel.check()
        if not isinstance(event, Finished):  # of the passage; the caller asked for the preview
            listen(event)

    reader = open_reader(video, settings.part, settings.progressive)
    path = preview_path(output)
    check_output(path, reader.info, settings.output)
    check_names(settings)
    settings = choose_method(settings, tell)
    seen, settings = examine(reader, settings, tell)
    if not seen.helpful and not settings.force:
        raise PreconditionError(f"{video}: no preview, because {seen.verdict}", "Use --force to try anyway.")
    passage = blurriest(seen)
    origin = seen.pts[0] if seen.info.span is None else seen.info.span.origin
    times = [(pts - origin) * float(reader.info.time_base) for pts in seen.pts]
    first, last = times[passage.start], times[passage.stop - 1]
    tell(Note(f"preview of {first:.1f} to {last:.1f} s, frames {passage.start} to {passage.stop - 1}"))
    budget = min(BUDGET_S, settings.runtime.budget or BUDGET_S)
    lossless = replace(settings.output, codec="ffv1", crf=None, overwrite=False)
    left = (1 - AFTERWARDS) * budget - (time.monotonic() - started)
    runtime = replace(settings.runtime, budget=max(1.0, left))
    part = time_range(seen, passage)
    quick = replace(settings, output=lossless, runtime=runtime, range=part, force=True, strict=False)
    planning_done = False

    def tell_of_passage(event: Event) -> None:
        nonlocal planning_done
        planning_done = planning_done or isinstance(event, Plan)
        # Notes on writing concern a temporary file.
        if not (planning_done and isinstance(event, Note) and event.level == "info"):
            tell(event)

    recorder = Recorder(tell_of_passage)
    with tempfile.TemporaryDirectory(prefix="selfhvd-tta-preview-") as place:
        after = Path(place) / "after.mkv"
        deblur(video, after, quick, recorder, cancel)
        write_comparison(video, after, layout, settings.output, tell, path, quick.part)
    whole = _whole(reader, seen, settings)
    spent = sum(recorder.log.seconds.get(phase, 0.0) for phase in WORK)
    if recorder.log.planned_minutes:
        whole *= min(CORRECTION[1], max(CORRECTION[0], spent / (60 * recorder.log.planned_minutes)))
    if settings.runtime.budget is not None:
        whole = min(whole, settings.runtime.budget)
    listen(Written("preview", str(path)))
    listen(Note(f"the whole video would take about {duration(whole)} with these settings"))
    late = time.monotonic() - started - budget
    if late > 0:
        listen(Note(f"the preview took {duration(late)} more than its {duration(budget)}", "warning"))
    return Preview(path, passage, (first, last), whole)


def blurriest(seen: Inspection, seconds: float = SECONDS) -> range:
    """The stretch of a shot, ``seconds`` at most, with the most soft frames; of equal ones the least sharp."""
    times = np.asarray(seen.pts, dtype=np.float64) * float(seen.info.time_base)
    soft = np.concatenate([[0], np.cumsum(seen.clues.soft)])
    sharpness = np.concatenate([[0.0], np.cumsum(np.log(np.maximum(seen.clues.sharpness, 1e-3)))])
    best, chosen = (-1.0, 0.0), range(1)
    for shot in seen.clues.shots:
        stop = shot.start
        for start in shot:
            while stop < shot.stop and times[stop] - times[start] <= seconds:
                stop += 1
            score = (float(soft[stop] - soft[start]), -float(sharpness[stop] - sharpness[start]) / (stop - start))
            if score > best:
                best, chosen = score, range(start, stop)
            if stop == shot.stop:
                break  # later starts are parts of this stretch
    return chosen


def time_range(seen: Inspection, frames: range) -> str:
    """The part of the video that holds exactly these frames, in the form of ``--range``."""
    origin = seen.pts[0] if seen.info.span is None else seen.info.span.origin
    times = [float((pts - origin) * seen.info.time_base) for pts in seen.pts]
    step = (times[-1] - times[0]) / max(1, len(times) - 1) or 1.0
    # Half-way between two frames, so that rounding cannot include another one.
    times = [times[0] - step, *times, times[-1] + step]
    start, stop = (0.5 * (times[i] + times[i + 1]) for i in (frames.start, frames.stop))
    return f"{max(0.0, start):.6f}-{stop:.6f}"


def _whole(reader: Reader, seen: Inspection, settings: Settings) -> float:
    """Estimated seconds of a run over the whole video."""
    gear = Equipment.load(settings)
    settings = replace(settings, adaptation=settings.adaptation.on(gear.device.type))
    limit = working_set_limit(seen.info.height, seen.info.width, settings.adaptation.working_set)
    working = len(choose_frames(seen.clues, limit, settings.clues.segment))
    return Forecast.measure(reader, seen, settings, gear, working).seconds(settings)
