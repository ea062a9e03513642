"""The adaptation within a run that may be interrupted: from a checkpoint, and leaving checkpoints."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from selfhvd_tta.config import from_table, to_table
from selfhvd_tta.errors import DeviceError, Interrupted
from selfhvd_tta.events import Listener, Note
from selfhvd_tta.flows import FlowEstimator
from selfhvd_tta.method.adaptation import Adaptation
from selfhvd_tta.method.checkpoint import Checkpoint, capture, resume
from selfhvd_tta.method.clues import Clues
from selfhvd_tta.method.record import Record
from selfhvd_tta.method.refit import LEARNERS
from selfhvd_tta.method.restoration import Compute, is_out_of_memory
from selfhvd_tta.method.working_set import WorkingSet, restrict
from selfhvd_tta.run import equipment as models
from selfhvd_tta.run import feeds
from selfhvd_tta.run import memory as resources
from selfhvd_tta.run.job import Job
from selfhvd_tta.settings import Settings
from selfhvd_tta.video.opening import Reader


@dataclass(frozen=True)
class Parts:
    """What an adaptation is made of.

    Attributes:
        loaded: the network, adapted in place.
        estimator: optical flow for the labels.
        features: perceptual features, or None.
        compute: device and precision.
        window: frames restored at once when labels are made.
    """

    loaded: models.LoadedBackbone
    estimator: FlowEstimator
    features: nn.Module | None
    compute: Compute
    window: int


def adapt(
    reader: Reader,
    clues: Clues,
    numbers: list[int],
    parts: Parts,
    settings: Settings,
    until: float | None,
    job: Job,
    tell: Listener,
) -> Record:
    """Fine-tune the network in place on one video, from the job's checkpoint if it has one.

    Args:
        reader: of the video.
        clues: of the video.
        numbers: of the frames to learn from.
        parts: what is adapted, and by what.
        settings: all of them.
        until: when it has to be over, by ``time.monotonic``; None: after so many steps.
        job: keeps the checkpoints.
        tell: gets progress and notes.

    Raises:
        DeviceError: not enough memory.
        Interrupted: by a listener; a checkpoint is left.
    """
    loaded, device = parts.loaded, parts.compute.device
    found = job.adaptation()
    if found is not None and found.finished:
        loaded.network.load_state_dict(found.weights())
        record = found.record()
    else:
        rows, runs = restrict(clues, numbers)
        store = resources.bank_store(reader.info.height, reader.info.width, len(numbers), device)
        working = WorkingSet(feeds.load_frames(reader, numbers).to(store), tuple(numbers), rows, runs)
        try:
            adaptation = LEARNERS[settings.method](
                loaded.network,
                loaded.backbone,
                working,
                parts.estimator,
                parts.features,
                parts.compute,
                settings,
                tell,
                parts.window,
                until,
            )
            record = _run(adaptation, found, job, settings.runtime.checkpoint_minutes)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise DeviceError(
                f"not enough memory on {device} to adapt {loaded.name}",
                "Lower --clip-length, --crop, --batch or --working-set, or take a smaller backbone.",
            ) from error
    if settings.save_adapted is not None:
        models.save_adapted(loaded, settings.save_adapted, str(reader.info.path), len(record.steps))
        tell(Note(f"adapted weights saved as {settings.save_adapted}"))
    return record


def fit_once(job: Job, fit: Callable[[], tuple[Settings, float | None]]) -> tuple[Settings, float | None]:
    """What a budget of time is made of: measured by the first run, and the same for the runs that continue it.

    Args:
        job: remembers it.
        fit: settings, and when the adaptation has to be over by ``time.monotonic``, or None.
    """
    stored = job.recall("fit")
    if stored is None:
        settings, until = fit()
        seconds = None if until is None else until - time.monotonic()
        job.remember("fit", {"settings": to_table(settings), "seconds": seconds})
        return settings, until
    seconds = stored["seconds"]
    return from_table(stored["settings"]), None if seconds is None else time.monotonic() + seconds


def _run(adaptation: Adaptation, found: Checkpoint | None, job: Job, minutes: float) -> Record:
    """Run an adaptation to its end, from a checkpoint if there is one, and leave checkpoints on the way.

    Args:
        adaptation: as it was built.
        found: where the interrupted run was.
        job: keeps the checkpoints.
        minutes: between two of them at most.
    """
    if found is not None:
        resume(adaptation, found)

    def after_step(refresh_is_next: bool) -> None:
        # Before the labels are renewed it is worth it sooner: taking it up does not renew them twice.
        if job.due(minutes / 4 if refresh_is_next else minutes):
            job.save_adaptation(capture(adaptation))

    try:
        record = adaptation.run(after_step)
    except Interrupted:
        if adaptation.next_step:
            job.save_adaptation(capture(adaptation))
        raise
    job.save_adaptation(capture(adaptation, finished=True))
    return record
