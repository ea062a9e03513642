"""The adaptation within a run that may be interrupted: resumes from checkpoints and saves them."""

from __future__ import annotations

from selfhvd_tta.errors import Interrupted
from selfhvd_tta.events import Listener
from selfhvd_tta.method.adaptation import Adaptation
from selfhvd_tta.method.checkpoint import Checkpoint, capture, resume
from selfhvd_tta.method.clues import Clues
from selfhvd_tta.method.record import Record
from selfhvd_tta.method.supervision import Inputs
from selfhvd_tta.method.working_set import WorkingSet, restrict
from selfhvd_tta.run import feeds
from selfhvd_tta.run.budget import Fit
from selfhvd_tta.run.equipment import Equipment
from selfhvd_tta.run.job import Job
from selfhvd_tta.run.memory import bank_store, within_memory
from selfhvd_tta.video.opening import Reader

LESS = "Lower --clip-length, --crop, --batch or --working-set, or take a smaller backbone."


@within_memory("the adaptation", LESS)
def adapt(
    reader: Reader, clues: Clues, numbers: list[int], gear: Equipment, fit: Fit, job: Job, tell: Listener
) -> Record:
    """Fine-tune the network in place on one video, starting from the job's checkpoint if there is one.

    Args:
        reader: of the video.
        clues: of the video.
        numbers: of the frames to learn from.
        gear: device and networks; the backbone is adapted in place.
        fit: settings, and the time at which the adaptation has to end.
        job: keeps the checkpoints.
        tell: gets progress and notes.

    Raises:
        DeviceError: not enough memory.
        Interrupted: by a listener; a checkpoint is left.
    """
    network, settings, device = gear.network, fit.settings, gear.device
    assert network is not None
    height, width = reader.info.height, reader.info.width
    found = job.adaptation()
    if found is not None and found.finished:
        network.load_state_dict(found.weights())
        record = found.record()
    else:
        rows, runs = restrict(clues, numbers)
        store = bank_store(height, width, len(numbers), device)
        working = WorkingSet(feeds.load_frames(reader, numbers).to(store), tuple(numbers), rows, runs)
        inputs = Inputs(
            network,
            network.backbone,
            working,
            gear.flow,
            gear.features,
            gear.compute,
            gear.window(height, width, settings),
        )
        adaptation = Adaptation(inputs, settings, tell, fit.until)
        record = _run(adaptation, found, job, settings.runtime.checkpoint_minutes)
    return record


def _run(adaptation: Adaptation, found: Checkpoint | None, job: Job, minutes: float) -> Record:
    """Run an adaptation to its end, from a checkpoint if there is one, and save checkpoints on the way.

    Args:
        adaptation: as it was built.
        found: checkpoint of the interrupted run, or None.
        job: keeps the checkpoints.
        minutes: most time between two of them.
    """
    if found is not None:
        resume(adaptation, found)

    def after_step(refresh_is_next: bool) -> None:
        # Sooner before labels are renewed: a run resumed from there does not renew them twice.
        if job.due(minutes / 4 if refresh_is_next else minutes):
            job.save_adaptation(capture(adaptation))

    try:
        record = adaptation.run(after_step)
    except Interrupted:
        if adaptation.state.step:
            job.save_adaptation(capture(adaptation))
        raise
    job.save_adaptation(capture(adaptation, finished=True))
    return record
