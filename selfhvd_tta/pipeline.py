"""One video in, the same video without shake blur out."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch

from selfhvd_tta.errors import PreconditionError
from selfhvd_tta.events import Event, Finished, Listener, Note, Progress, ignore
from selfhvd_tta.method.clues import Clues
from selfhvd_tta.method.record import Record
from selfhvd_tta.method.restoration import Compute, Restorer
from selfhvd_tta.method.working_set import choose_frames
from selfhvd_tta.run import budget, feeds
from selfhvd_tta.run import equipment as models
from selfhvd_tta.run import forecast as planning
from selfhvd_tta.run import memory as resources
from selfhvd_tta.run.adapting import Parts, adapt, fit_once
from selfhvd_tta.run.cancelling import CancelToken
from selfhvd_tta.run.fingerprint import fingerprint
from selfhvd_tta.run.frames import Details, run_frames
from selfhvd_tta.run.job import Job, agree, sweep
from selfhvd_tta.run.scan import Inspection, scan
from selfhvd_tta.settings import Settings
from selfhvd_tta.video.opening import Reader, open_reader, open_writer
from selfhvd_tta.video.passthrough import pass_through
from selfhvd_tta.video.writer import check_output


@dataclass(frozen=True)
class Result:
    """What :func:`deblur` did.

    Attributes:
        output: path of the finished video.
        frames: number of its frames, equal to the input's.
        action: ``adapted``, ``refitted``, ``restored`` (backbone alone), ``transferred`` or ``passed through``.
        clues: sharp frames and shots.
        record: steps and checks of the adaptation, if there was one.
        seconds: duration of the run.
        notes: every line the user was told.
    """

    output: Path
    frames: int
    action: str
    clues: Clues
    record: Record | None
    seconds: float
    notes: tuple[str, ...] = field(default=())


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
            notes.append(event.text)
        listen(event)

    reader = open_reader(path, settings.part)
    sweep(Path(output))
    check_output(output, reader.info, settings.output)
    with Job(Path(output), settings.runtime.restart) as job:
        seen = scan(reader, settings.clues, tell)
        if seen.helpful or settings.force or (settings.learns and settings.adaptation.iters == 0):
            action, record = _restore(reader, Path(output), seen, settings, started, job, tell)
        else:
            if settings.strict:
                raise PreconditionError(f"{path}: {seen.verdict}", "Use --force to adapt to it all the same.")
            tell(Note(f"passed through unchanged: {seen.verdict} (--force adapts all the same)", "warning"))
            for text in pass_through(reader, Path(output), settings.output, job.segments):
                tell(Note(text))
            action, record = "passed through", None
    seconds = time.monotonic() - started
    tell(Finished(str(output), seconds, planning.summary(seen, action, record)))
    return Result(Path(output), len(seen.pts), action, seen.clues, record, seconds, tuple(notes))


def _restore(
    reader: Reader, output: Path, seen: Inspection, settings: Settings, started: float, job: Job, tell: Listener
) -> tuple[str, Record | None]:
    device = models.choose_device(settings.runtime.device, tell)
    settings = replace(settings, adaptation=settings.adaptation.on(device.type))
    flow = models.load_flow(settings, device, tell)
    networks: dict[str, object] = {"the optical flow": flow.name, "weights of the flow": flow.estimator}
    loaded = models.load_backbone(settings, device, tell) if settings.networked else None
    compute = models.choose_compute(settings, device, loaded.backbone) if loaded else Compute(device)
    features = models.load_features(settings, device, tell) if settings.learns else None
    merger = models.load_merger(settings, device, tell) if settings.blends else None
    networks["the merging network"] = merger
    if loaded is not None:
        networks |= {"the backbone": loaded.name, "its weights": loaded.network, "the perceptual loss": features}
    agree(job, fingerprint(reader.info.path, settings, device, networks), tell)
    height, width = reader.info.height, reader.info.width
    limit = resources.working_set_limit(height, width, settings.adaptation.working_set)
    numbers = choose_frames(seen.clues, job.remember("working_set", limit), settings.clues.segment)
    until = None
    if settings.runtime.budget is not None:
        deadline = started + settings.runtime.budget
        fit = partial(
            budget.fit, reader, seen, settings, flow, merger, loaded, features, compute, len(numbers), deadline, tell
        )
        settings, until = fit_once(job, fit)
        loaded = loaded if settings.networked else None
    details: Details | None = Details.of(flow.estimator, merger, settings)
    tell(planning.plan(seen, settings, flow, merger, loaded, compute, len(numbers)))
    if loaded is None:
        _write(reader, output, seen, settings, device, None, details, job, tell)
        return "transferred", None
    window = settings.runtime.window or resources.window_for(height, width, device, loaded.backbone.reach)
    record = None
    if settings.learns and settings.adaptation.iters:
        parts = Parts(loaded, flow.estimator, features, compute, window)
        record = adapt(reader, seen.clues, numbers, parts, settings, until, job, tell)
    adapted = record is not None or settings.adapted is not None
    tile, warn = settings.runtime.tile, lambda text: tell(Note(text, "warning"))
    restorer = Restorer(loaded.network, loaded.backbone, compute, window, warn, tile)
    details = details if settings.blends and (adapted or not settings.learns) else None
    _write(reader, output, seen, settings, device, restorer, details, job, tell)
    if not settings.learns:
        return "transferred", None
    done = "refitted" if record is not None and settings.method == "refit" else "adapted"
    return (done if adapted else "restored"), record


def _write(
    reader: Reader,
    output: Path,
    seen: Inspection,
    settings: Settings,
    device: torch.device,
    restorer: Restorer | None,
    details: Details | None,
    job: Job,
    tell: Listener,
) -> None:
    """Stream the video through the network, blend sharp details in, write."""
    phase, total = "restore" if settings.learns else "transfer", len(seen.pts)
    with open_writer(output, reader, settings.output, segments=job.segments, seal=job.seal) as writer:
        first = writer.frames_done
        frames = run_frames(
            feeds.opener(reader), seen.clues, device, restorer, details, first, job.mark(first), job.save_mark
        )
        for result in frames:
            writer.write(feeds.to_array(result.blended), result.pts)
            tell(Progress(phase, result.index + 1, total))
        job.finishing()
    for text in writer.notes:
        tell(Note(text))
