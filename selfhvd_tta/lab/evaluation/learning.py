"""``learn``: one network for a camera, adapted on many of its videos together."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path

from selfhvd_tta.errors import InputError, Interrupted, UsageError
from selfhvd_tta.events import Listener, Note, ignore
from selfhvd_tta.lab.datasets.frames import VIDEO_SUFFIXES, list_pictures, natural_key
from selfhvd_tta.lab.datasets.protocols import Pair, discover, pair_up
from selfhvd_tta.lab.evaluation import table, trial
from selfhvd_tta.lab.evaluation.course import Course
from selfhvd_tta.lab.evaluation.method import Subject, follow
from selfhvd_tta.lab.evaluation.scanned import scan
from selfhvd_tta.method.adaptation import Adaptation
from selfhvd_tta.method.checkpoint import capture, resume
from selfhvd_tta.method.record import Record
from selfhvd_tta.run.checks import NewFile, check_file
from selfhvd_tta.run.fingerprint import fingerprint
from selfhvd_tta.run.job import Job
from selfhvd_tta.run.networks import save_adapted
from selfhvd_tta.settings import Settings

Scores = dict[str, dict[str, float]]
VAL_SKIP = (0, 0)


@dataclass(frozen=True)
class Learned:
    """What :func:`learn` did.

    Attributes:
        output: the weights.
        videos: how many were learned from.
        record: what the adaptation did.
        scores: mean over the validation videos, by method and measure; empty without any.
    """

    output: Path
    videos: int
    record: Record
    scores: Scores


def find_videos(folder: Path, listen: Listener = ignore) -> list[Pair]:
    """Videos of a folder: files and folders of pictures directly in it, or a data set in any layout that is known.

    Raises:
        InputError: there are none.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder", "Give a folder of videos.")
    entries = sorted((e for e in folder.iterdir() if not e.name.startswith(".")), key=natural_key)
    plain = [e for e in entries if _is_video(e)]
    if plain:
        return [pair for e in plain if (pair := _readable(pair_up(e.name, e, None), listen))]
    for protocol in discover().values():
        pairs = protocol.find(folder, lambda text: listen(Note(text, "warning")))
        if pairs:
            listen(Note(f"{folder}: {len(pairs)} videos in the layout of '{protocol.id}'"))
            return [pair for pair in pairs if _readable(pair, listen)]
    raise InputError(f"{folder}: no videos were found", "Give a folder of video files, or of folders of pictures.")


def learn(
    folder: Path, output: Path, settings: Settings, val: Path | None = None, listen: Listener = ignore
) -> Learned:
    """Adapt one network on many videos of one camera by the full objective, and save its weights.

    An interrupted run resumes when it is called again with the same arguments. Ground truth is not read.

    Args:
        folder: of the videos, see :func:`find_videos`.
        output: ``.safetensors`` file for ``deblur --adapted``.
        settings: of the adaptation.
        val: folder of other videos that the pretrained and the learned network are scored on; None: none.
        listen: gets progress and notes.

    Raises:
        InputError: there are no videos.
        UsageError: the output exists or has another suffix, or nothing would be learned.
        DeviceError, WeightsError: the network cannot be run.
        Interrupted: by a listener; a checkpoint is left.
    """
    if output.exists():
        raise UsageError(f"--output {output}: exists already", "Choose another name, or remove it.")
    check_file(NewFile("--output", output, (".safetensors",)), overwrite=False)
    if not settings.adaptation.iters:
        raise UsageError("--iters is 0, so nothing would be learned", "Give a number of steps.")
    pairs = find_videos(folder, listen)
    others = [] if val is None else find_videos(val, listen)
    with Job(output, settings.runtime.restart) as job:
        subject = Subject(replace(settings, method="adapt"), listen)
        if note := job.agree(_facts(folder, pairs, subject)):
            listen(note)
        record, videos = _adapt(subject, pairs, job, listen)
        save_adapted(subject.network, str(output), f"{videos} videos of {folder.name}", len(record.steps))
        job.finishing()
    scores = _score(subject, others, listen) if others else {}
    return Learned(output, videos, record, scores)


def _adapt(subject: Subject, pairs: list[Pair], job: Job, listen: Listener) -> tuple[Record, int]:
    seen = [scan(pair.blurry, subject.settings.clues, ignore) for pair in pairs if pair.blurry is not None]
    for pair, video in zip(pairs, seen, strict=True):
        if not video.helpful:
            listen(Note(f"{pair.name}: left out, {video.verdict}"))
    useful = [video for video in seen if video.helpful or subject.settings.force]
    if not useful:
        raise InputError("there is nothing to learn in any of the videos", "Use --force to adapt anyway.")
    course = Course(useful, subject.settings, subject.gear)
    frames = sum(len(video.frames) for video in useful)
    told = f"learning from {len(useful)} videos, {frames} frames"
    if course.sets > 1:
        told += f", in {course.sets} parts of {course.steps} steps each"
        if course.seen < course.sets:
            told += f" (only {course.seen} of them in {subject.settings.adaptation.iters} steps: raise --iters)"
    listen(Note(told, "warning" if course.seen < course.sets else "info"))
    found = job.adaptation()
    if found is not None and found.finished:
        subject.network.load_state_dict(found.weights())
        return found.record(), len(useful)
    turn = 0 if found is None else found.step // course.steps
    adaptation = subject.adaptation(course, turn)
    if found is not None:
        resume(adaptation, found)
        if found.step % course.steps == 0 and adaptation.state.refreshed != found.step:
            adaptation.change(adaptation.inputs.working, adaptation.inputs.window)
    return _run(course, adaptation, job, subject.settings.runtime.checkpoint_minutes), len(useful)


def _run(course: Course, adaptation: Adaptation, job: Job, minutes: float) -> Record:
    def after_step(refresh_is_next: bool) -> None:
        if job.due(minutes / 4 if refresh_is_next else minutes):
            job.save_adaptation(capture(adaptation))

    try:
        record = follow(course, adaptation, after_step)
    except Interrupted:
        if adaptation.state.step:
            job.save_adaptation(capture(adaptation))
        raise
    job.save_adaptation(capture(adaptation, finished=True))
    return record


def _score(subject: Subject, pairs: list[Pair], listen: Listener) -> Scores:
    """The pretrained and the learned network on other videos."""
    weights = {k: v.detach().clone() for k, v in subject.network.state_dict().items()}
    settings = trial.TrialSettings(
        replace(subject.settings, detail=False), VAL_SKIP, temporal=True, no_reference={}, learned=True
    )
    rows = []
    for pair in pairs:
        row = trial.run_video(subject, pair, settings, trial.Joint(weights, {}, 0.0), None, listen)
        for name, scores in row["methods"].items():
            listen(Note(f"{pair.name}, {name}: {table.in_words(scores)}"))
        rows.append(row)
    return table.mean_of(rows)


def _facts(folder: Path, pairs: list[Pair], subject: Subject) -> dict[str, str]:
    """What decides the result: the videos rather than the folder, which may hold the output as well."""
    facts = fingerprint(folder, subject.settings, subject.gear)
    content = json.dumps([trial.files_of(pair) for pair in pairs])
    return facts | {"the input file": hashlib.sha256(content.encode()).hexdigest()}


def _is_video(path: Path) -> bool:
    if path.is_dir():
        return bool(list_pictures(path))
    return path.suffix.lower() in VIDEO_SUFFIXES


def _readable(pair: Pair, listen: Listener) -> Pair | None:
    if not pair.problem:
        return pair
    listen(Note(f"{pair.name}: left out, {pair.problem}", "warning"))
    return None
