"""One video in, the same video without shake blur out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from selfhvd_tta.errors import PreconditionError
from selfhvd_tta.events import Action, Event, Finished, Listener, Note, Progress, ignore
from selfhvd_tta.method.clues import Clues
from selfhvd_tta.method.record import Record
from selfhvd_tta.method.working_set import choose_frames
from selfhvd_tta.run import feeds
from selfhvd_tta.run.adapting import adapt
from selfhvd_tta.run.budget import Fit, fit_once
from selfhvd_tta.run.cancelling import CancelToken
from selfhvd_tta.run.checks import check_names, check_paths
from selfhvd_tta.run.choice import choose_method
from selfhvd_tta.run.deadline import Deadline
from selfhvd_tta.run.equipment import Equipment
from selfhvd_tta.run.fingerprint import fingerprint
from selfhvd_tta.run.forecast import CLOSING_SECONDS, Forecast
from selfhvd_tta.run.frames import Place, RestoredFrame, blending, mixed, run_frames
from selfhvd_tta.run.job import Job, sweep
from selfhvd_tta.run.memory import within_memory, working_set_limit
from selfhvd_tta.run.networks import save_adapted
from selfhvd_tta.run.plan import plan, summary
from selfhvd_tta.run.rate import choose_rate
from selfhvd_tta.run.scan import Inspection, examine
from selfhvd_tta.settings import Settings
from selfhvd_tta.video.opening import Reader, open_reader, open_writer
from selfhvd_tta.video.passthrough import pass_through
from selfhvd_tta.video.rehearsal import rehearse
from selfhvd_tta.video.writer import check_output


@dataclass(frozen=True)
class Result:
    """What :func:`deblur` did.

    Attributes:
        output: path of the finished video.
        frames: number of its frames, equal to the input's.
        action: what was done to it.
        clues: sharp frames and shots.
        record: steps and checks of the adaptation, if there was one.
        seconds: duration of the run.
        notes: every note to the user, in order.
        crf: constant rate factor that was chosen to follow the source; None if there was nothing to choose.
    """

    output: Path
    frames: int
    action: Action
    clues: Clues
    record: Record | None
    seconds: float
    notes: tuple[str, ...] = field(default=())
    crf: int | None = None


def deblur(
    path: str | Path,
    output: str | Path,
    settings: Settings | None = None,
    listen: Listener = ignore,
    cancel: CancelToken | None = None,
) -> Result:
    """Make a shaky, blurry video sharp.

    A run that was interrupted is continued by calling this again with the same arguments.

    Args:
        path: input video; it is only read.
        output: where the result goes; nothing is there until it is complete.
        settings: all settings; None for the defaults.
        listen: gets progress, notes and the plan as they come.
        cancel: to end the run from another thread; what is done is kept for the next one.

    Returns:
        What was done.

    Raises:
        SelfHVDError: one of its subclasses, see ``errors.py``; ``Interrupted`` if ``cancel`` wants it. The output is
            then absent or as it was before, also if ``listen`` raises something.
    """
    started = time.monotonic()
    settings = settings or Settings()
    notes: list[str] = []

    def tell(event: Event) -> None:
        if cancel is not None and isinstance(event, Progress):
            cancel.check()
        if isinstance(event, Note):
            if event.text in notes:
                return  # told before the work
            notes.append(event.text)
        listen(event)

    output = Path(output)
    check_paths(Path(path), output, settings)
    reader = open_reader(path, settings.part, settings.progressive)
    sweep(output)
    check_output(output, reader.info, settings.output)
    check_names(settings)
    settings = choose_method(settings, tell)
    with Job(output, settings.runtime.restart) as job:
        changes = rehearse(output, reader.info, settings.output, job.segments)
        seen, settings = examine(reader, settings, tell)
        as_it_is = settings.learns and settings.adaptation.iters == 0  # the backbone alone needs no sharp frame
        if seen.helpful or settings.force or as_it_is:
            for text in changes:
                tell(Note(text))
            action, record, crf = _restore(reader, output, seen, settings, job, tell)
        else:
            if settings.strict:
                raise PreconditionError(f"{path}: {seen.verdict}", "Use --force to adapt anyway.")
            passed = pass_through(reader, output, settings.output, job.segments)
            why = passed.encoded_because
            how = f"passed through, encoded again because {why}" if why else "passed through unchanged"
            tell(Note(f"{how}: {seen.verdict} (--force restores it anyway)", "warning"))
            for text in passed.notes:
                tell(Note(text))
            action, record, crf = "passed through", None, None
    seconds = time.monotonic() - started
    late = 0.0 if settings.runtime.budget is None else max(0.0, seconds - settings.runtime.budget)
    tell(Finished(str(output), seconds, summary(seen, action, record), action=action, late=late))
    return Result(output, len(seen.pts), action, seen.clues, record, seconds, tuple(notes), crf)


def _restore(
    reader: Reader, output: Path, seen: Inspection, settings: Settings, job: Job, tell: Listener
) -> tuple[Action, Record | None, int | None]:
    """Plan, adapt if the settings ask for it, and write the restored video."""
    gear = Equipment.load(settings, tell)
    settings = replace(settings, adaptation=settings.adaptation.on(gear.device.type))
    if note := job.agree(fingerprint(reader.info.path, settings, gear)):
        tell(note)
    limit = working_set_limit(reader.info.height, reader.info.width, settings.adaptation.working_set)
    numbers = choose_frames(seen.clues, job.remember("working_set", limit), settings.clues.segment)
    settings = gear.sized(settings, reader.info.height, reader.info.width, job.remember)
    rate = choose_rate(reader, output, seen.clues, settings.output, job)
    if rate is not None:
        settings = replace(settings, output=replace(settings.output, crf=rate.crf))
    forecast, fit = Forecast.measure(reader, seen, settings, gear, len(numbers)), Fit(settings)
    deadline = None
    if (budget := settings.runtime.budget) is not None:
        fit = fit_once(settings, forecast, job, tell)
        settings, gear = fit.settings, gear.suited(fit.settings)
        deadline = Deadline(job.started + budget - CLOSING_SECONDS, len(seen.pts), tell)
    tell(plan(seen, settings, gear, forecast, rate))
    record = adapt(reader, seen.clues, numbers, gear, fit, job, tell) if settings.adapts else None
    _write(reader, output, _restored(reader, seen, settings, gear, job, tell, deadline), settings, job, tell)
    if record is not None and gear.network is not None and settings.save_adapted is not None:
        # Last: a run that is interrupted before this would find the file in its way when it is resumed.
        save_adapted(gear.network, settings.save_adapted, str(reader.info.path), len(record.steps))
        tell(Note(f"adapted weights saved as {settings.save_adapted}"))
    return _action(settings, record), record, None if rate is None else rate.crf


def _action(settings: Settings, record: Record | None) -> Action:
    if not settings.learns:
        return "transferred"
    if record is None:
        return "adapted" if settings.adapted is not None else "restored"
    return "refitted" if settings.method == "refit" else "adapted"


def _restored(
    reader: Reader,
    seen: Inspection,
    settings: Settings,
    gear: Equipment,
    job: Job,
    tell: Listener,
    deadline: Deadline | None,
) -> Callable[[int], Iterator[RestoredFrame]]:
    """The frames of the result from a given one on: through the network, then with sharp details blended in."""
    restorer = gear.restorer(reader.info.height, reader.info.width, settings, tell)
    details = blending(seen.blur, gear, settings, deadline) if settings.transfers else None

    def frames(first: int) -> Iterator[RestoredFrame]:
        place = Place(first, job.mark(first), job.save_mark)
        return run_frames(feeds.opener(reader), seen.clues, gear.device, restorer, details, place)

    return frames


@within_memory("restoring the video")
def _write(
    reader: Reader,
    output: Path,
    frames: Callable[[int], Iterator[RestoredFrame]],
    settings: Settings,
    job: Job,
    tell: Listener,
) -> None:
    """Write what is not yet written."""
    phase, total = "restore" if settings.learns else "transfer", len(reader.pts)
    with open_writer(output, reader, settings.output, segments=job.segments, seal=job.seal) as writer:
        for result in frames(writer.frames_done):
            writer.write(feeds.to_array(mixed(result, settings.strength)), result.pts)
            tell(Progress(phase, result.index + 1, total))
        job.finishing()
    for text in writer.notes:
        tell(Note(text))
